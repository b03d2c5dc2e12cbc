"""The disk fills up: a sentence that says so, nothing half written, and the same command goes on."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.support import LIMITED, end, parts, wait

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.conftest import Case, Disk

pytestmark = pytest.mark.chaos


def _assert_says_so(stderr: str) -> None:
    said = re.sub(r"\s+", " ", stderr)
    assert re.search(r"too large|No space|disk is full", said), said
    assert "Free space" in said


def _assert_whole_parts(home: Path) -> None:
    for path in home.glob("landing/*/*/*/part-*.parquet"):
        assert pq.read_table(path).num_columns > 1


def _fill(place: Path, leave: int = 0) -> Path:
    """Fill a file system up to so many bytes; returns the file to delete."""
    filler = place / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    size = filler.stat().st_size
    os.truncate(filler, max(0, size - leave))
    return filler


# Parts are some kilobytes, features tens of them, the warehouse and the page hundreds.
@pytest.mark.parametrize("size", [100, 12_000, 100_000])
def test_no_file_may_grow(fake: Case, size: int) -> None:
    """Under a limit on file sizes each step in turn says that the disk is full; without it the run is finished."""
    done = end(fake.project.start(str(size), *fake.command, entry=("-c", LIMITED)), 2)
    _assert_says_so(done.stderr)
    _assert_whole_parts(fake.home)
    fake.finish()


@pytest.mark.parametrize("leave", [0, 200_000])
def test_a_full_file_system(fake: Case, small_disk: Callable[[int], Disk], leave: int) -> None:
    """The home's file system has no room, or room for the parts only: typed error, then finished."""
    disk = small_disk(16).path
    case = replace(fake, project=fake.project.at(disk / "var"))
    filler = _fill(disk, leave)
    _assert_says_so(end(case.start(), 2).stderr)
    _assert_whole_parts(case.home)
    filler.unlink()
    case.finish()


def test_a_file_system_that_fills_up_under_a_run_and_its_server(
    fake: Case, small_disk: Callable[[int], Disk], record_property: Callable[[str, object], None]
) -> None:
    """The Prefect server's database is on the full disk as well: a typed error, then finished."""
    disk = small_disk(64).path
    case = replace(fake, project=fake.project.alone().at(disk / "var"))
    flow = case.start()
    wait(lambda: len(parts(case.home)) >= 2)
    filler = _fill(disk)
    _assert_says_so(end(flow, 2).stderr)
    _assert_whole_parts(case.home)
    filler.unlink()
    record_property("recovery_seconds", round(case.finish(), 1))
