"""Compaction: the many small parts of a complete run become one part per table.

Crash-safe and idempotent, because at every moment the rows that count are the same:

1. The new part is written aside and renamed. It holds the rows of all parts in
   their order, so that with it each row is there twice and counts once.
2. The old parts are deleted oldest first. What is left of them are the last
   ones, and of two rows with one key the later part's counts: it is the row
   that the new part ends on too.

The new part names the parts it was made of with a hash of each, so that
:meth:`grym.store.Store.landed` still knows them, a killed pass is finished by
the next one, and a part that has been landed again since is not deleted.

Knows nothing about what rows mean. Only complete runs are touched, under the
lock of their question and the publish lock; a reader lists parts anew when one
vanishes under its hands.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import Timeout

from grym.describe import arrow_schema
from grym.parts import COMPACTED, UNREADABLE, covered, covering, disk, load, name_of, reason, sync, to_parquet, write
from grym.schema import TABLES, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from grym.store import Store

MIN_PARTS: Final = 16  # fewer files than that cost a publish nothing that a person would notice


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compaction did.

    Attributes:
        runs: runs of which parts were put together.
        parts_before: parts of all tables and runs before.
        parts_after: parts of all tables and runs afterwards.
        left: what was left as it is and why, one sentence each.
    """

    runs: int
    parts_before: int
    parts_after: int
    left: tuple[str, ...] = ()


def compact(store: Store, complete: Iterable[str], *, min_parts: int = MIN_PARTS) -> Compacted:
    """Put the parts of complete runs together.

    Args:
        store: whose landing zone.
        complete: ids of the runs that nothing will be added to.
        min_parts: a table of a run with fewer parts is left as it is; at least 2.

    Returns:
        How many parts there were and are.

    Raises:
        StorageError: a publish does not end, or the home cannot be written to.
        ResourceError: the disk is full.
    """
    before = _count(store)
    runs: set[str] = set()
    left: list[str] = []
    for run in sorted(set(complete)):
        lock = store.question_lock(run)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            left.append(f"Run {run} is being worked on.")
            continue
        try:
            if _compact_run(store, run, max(2, min_parts), left):
                runs.add(run)
        finally:
            lock.release()
    return Compacted(len(runs), before, _count(store), tuple(left))


def _count(store: Store) -> int:
    return sum(1 for _ in store.landing.glob("*/dt=*/run=*/part-*.parquet"))


def _compact_run(store: Store, run: str, min_parts: int, left: list[str]) -> bool:
    """Every table of a run; whether parts were put together."""
    changed = False
    for table in TABLES.values():
        for folder in sorted((store.landing / table.name).glob(f"dt=*/run={run}")):
            with disk("A compacted part"), store.publishing():
                try:
                    changed |= _compact_folder(table, folder, min_parts)
                except UNREADABLE as error:
                    if isinstance(error, OSError) and error.errno is not None:
                        raise
                    left.append(f"Table {table.name} of run {run}: {reason(error)}.")
    return changed


def _compact_folder(table: Table, folder: Path, min_parts: int) -> bool:
    _finish(folder)
    paths = _parts(folder)
    if len(paths) < min_parts:
        return False
    schema = arrow_schema(table)
    rows = [schema.empty_table()]
    names: dict[str, str] = {}
    for path in paths:
        if unknown := set(pq.read_schema(path).names) - set(schema.names):
            msg = f"{path.name} has columns that this version would lose: {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        rows.append(load(path, table))
        names |= {**covered(path), name_of(path): _digest(path)}
    target = folder / f"part-{COMPACTED}{_name(names)}.parquet"
    write(target, to_parquet(table.name, covering(pa.concat_tables(rows), names)))
    _delete(folder, paths)
    return True


def _finish(folder: Path) -> None:
    """Delete what a killed pass has put together and not deleted."""
    for whole in _parts(folder):
        names = covered(whole)
        _delete(folder, [p for p in _parts(folder) if name_of(p) in names and names[name_of(p)] == _digest(p)])


def _delete(folder: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink()
    if paths:
        sync(folder)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"), key=str)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _name(names: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()[:16]
