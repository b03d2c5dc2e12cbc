"""What is stored is damaged, lost or cannot be written: named, or made again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from grym.store import Store
from tests.support import assert_finished, end, kill, parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.conftest import Case, Disk

pytestmark = pytest.mark.chaos

LATE = "grym.compare.session:Session.measure_latency"


def _one(home: Path, table: str, arm: str = "b-") -> Path:
    return min(home.glob(f"landing/{table}/*/*/part-{arm}*.parquet"))


@pytest.mark.parametrize("table", ["words", "runs"])
def test_a_truncated_part_is_named_and_made_again(fake: Case, table: str) -> None:
    """The command says which part cannot be read; once it is deleted, as told, the run is finished."""
    flow, _ = fake.pause(LATE)
    kill(flow)
    part = _one(fake.home, table, "started" if table == "runs" else "b-")
    part.write_bytes(part.read_bytes()[:-100])
    told = end(fake.start(), 2).stderr
    assert part.relative_to(fake.home).as_posix() in told
    assert "Delete the file and give the same command again" in told
    part.unlink()
    fake.finish()


def test_lost_parts_are_made_again(fake: Case) -> None:
    """A part of a batch that vanished, of any table, costs that batch and nothing else."""
    flow, _ = fake.pause("grym.compare.session:Session.compare")
    kill(flow)
    before = parts(fake.home)
    tables = ("quality", "quarantine", "words", "operations")
    lost = [sorted(fake.home.glob(f"landing/{table}/*/*/part-a-*.parquet")) for table in tables]
    for number, found in enumerate(lost):
        batch = [path for path in found if "warmup" not in path.name][number]
        batch.unlink()
    (latency,) = fake.home.glob("landing/quality/*/*/part-latency.parquet")
    latency.unlink()
    fake.finish()
    after = parts(fake.home)
    assert sum(after[name] != before[name] for name in before) == len(tables)


def _flip(whole: bytes, at: int) -> bytes:
    return whole[:at] + bytes(byte ^ 0xFF for byte in whole[at : at + 64]) + whole[at + 64 :]


def test_a_damaged_warehouse_is_built_anew(fake: Case) -> None:
    """Cut, overwritten or with a flipped block: the next publish builds it from the landing zone without complaint."""
    fake.project.run(*fake.command)
    warehouse = Store(fake.home).warehouse
    whole = warehouse.read_bytes()
    for broken in (whole[: len(whole) // 2], b"not a database", _flip(whole, 4200)):
        warehouse.unlink()
        warehouse.write_bytes(broken)
        fake.project.run("report")
        fake.check()
    warehouse.unlink()
    warehouse.write_bytes(broken)
    fake.project.run(*fake.command)  # nobody is told to close a program that does not exist
    assert_finished(fake.home, runs=2)


def test_an_unreadable_part_of_an_old_run_is_told(fake: Case) -> None:
    """It is left out of the warehouse, and the terminal says which one and what to do."""
    fake.project.run(*fake.command)
    part = _one(fake.home, "words")
    part.write_bytes(b"")
    done = fake.project.run(*fake.command, "--new")
    assert part.relative_to(fake.home).as_posix() in done.stdout


def test_a_home_that_cannot_be_written_to(fake: Case, small_disk: Callable[[int], Disk]) -> None:
    """A read-only home is a sentence before anything is started; made writable, the comparison runs."""
    disk = small_disk(64)
    case = replace(fake, project=fake.project.at(disk.path / "var"))
    case.home.mkdir()
    disk.remount("ro")
    told = end(case.start(), 2).stderr
    assert "cannot be used" in told
    assert "GRYM_HOME" in told
    disk.remount("rw")
    case.finish()
