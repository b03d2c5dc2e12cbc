"""The short form of tests/chaos: a full disk, and the same command twice at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grym.store import Store
from tests.support import LIMITED, assert_finished, end, parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Rows = Callable[..., list[dict[str, str]]]
    Write = Callable[..., Path]


def test_a_full_disk_and_a_second_command_leave_one_whole_run(project: Any, digits: tuple[Rows, Write]) -> None:
    """A limit on file sizes is a sentence; given again it runs, alone: a second one is refused and told by whom."""
    rows, write = digits
    project = project.bare()
    manifest = str(write(project.folder / "set", rows(12)))
    project.models(left={"script": '{"*": "one"}'}, right={"script": '{"*": "two"}'})
    command = ("compare", "--a", "left", "--b", "right", "--dataset", manifest)
    full = end(project.start("100000", *command, entry=("-c", LIMITED)), 2)
    assert "Free space" in full.stderr
    before = parts(project.home)
    assert len(before) == 4
    pause = project.folder / "pause"
    first = project.start_pausing("grym.compare.session:Session.compare", 1, pause, *command)
    second = project.run(*command, code=2)
    assert f"already running on this home, in process {first.pid}." in second.stderr
    (pause / "go").touch()
    assert "resumed" in end(first).stdout
    assert parts(project.home) == before
    assert Store(project.home).read("outcomes").height == 24
    assert_finished(project.home)
