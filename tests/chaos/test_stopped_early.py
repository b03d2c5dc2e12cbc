"""A comparison that stops early is killed on the way: the same command comes to the same decision."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from grym.store import Store
from tests.integration.conftest import bundled_rows, project, write_dataset
from tests.support import kill, pages, parts, run_id, wait

if TYPE_CHECKING:
    from tests.support import Project

pytestmark = pytest.mark.chaos
__all__ = ["project"]  # the fixture


def test_killed_between_two_looks(project: Project, prefect_url: str) -> None:
    """The run stops after its first step, before and after a kill, and the report says so."""
    project.models(
        mute={"script": json.dumps({"*": ""})}, loud={"script": json.dumps({"*": "one two three"}), "error_rate": 0.2}
    )
    # Every reference is what one model says: the first look decides, whatever the bundled clips say.
    rows = [{**row, "text": "one two three"} for row in bundled_rows(70, step=6)]
    manifest = str(write_dataset(project.folder / "set", rows))
    command = ("compare", "--a", "mute", "--b", "loud", "--dataset", manifest, "--stop-early", "--repeats", "2")
    flow = project.start(*command)
    wait(lambda: len(parts(project.home)) >= 3 or flow.poll() is not None)
    kill(flow)
    before = parts(project.home)
    done = project.run(*command)
    assert "after 50 of 70 clips" in " ".join(done.stdout.split())
    now = parts(project.home)
    assert {name: now[name] for name in before} == before
    store = Store(project.home)
    looks: list[dict[str, Any]] = store.read("looks").to_dicts()
    assert [(look["clips"], look["decided"], look["verdict"]) for look in looks] == [(50, True, "b better")]
    assert store.read("clips").height == store.read("outcomes").height // 2 == 50
    assert set(store.read("noise")["arm"]) == {"a", "b"}
    assert pages(project.home) == {run_id(project.home)}
    page = (project.home / "reports" / f"{run_id(project.home)}.html").read_text(encoding="utf-8")
    assert "50 of 70 clips" in page.replace("\N{NARROW NO-BREAK SPACE}", " ")
