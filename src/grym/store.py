"""What is stored and how it survives: the landing zone, the only state, and the warehouse made from it.

Rows land as small Parquet parts, each written aside and renamed, so that a part
is whole or absent. ``publish`` builds ``warehouse.duckdb`` from the parts, aside
too, and swaps it in: a reader never waits, and never sees half a file.

Knows nothing about models, flows or what rows mean (:mod:`grym.schema` does).
Paths are relative to the home; times are UTC.

    landing/TABLE/dt=DATE/run=ID/part-PART.parquet
    warehouse.duckdb
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import polars as pl
import pyarrow as pa
from filelock import FileLock, Timeout

from grym.describe import View, arrow_schema, read_views
from grym.errors import StorageError
from grym.parts import COMPACTED, UNREADABLE, covered, disk, load, name_of, reason, sync, to_arrow, to_parquet, write
from grym.schema import TABLES, Table
from grym.warehouse import SkippedPart, build, open_warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import duckdb

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,149}")
_ORPHAN_SECONDS: Final = 24 * 3600.0  # no landing takes a day: an older temporary file is a killed one's

# A run has finished when its comparisons are there, is compared when its outcomes are, and a batch has outcomes when
# everything else about it is there.
_LANDED_LAST: Final = ("runs", "comparisons", "outcomes")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunRef:
    """Where a run's rows lie: its id and the ISO date on which it started."""

    id: str
    date: str


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What ``publish`` made: the warehouse, rows per table, parts left out."""

    path: Path
    rows: Mapping[str, int]
    skipped: tuple[SkippedPart, ...]


class Store:
    """The landing zone and the warehouse under one home.

    Args:
        home: folder of everything that is stored; made when something is written.

    Example:
        >>> import tempfile
        >>> store = Store(Path(tempfile.mkdtemp()))
        >>> run = RunRef("abc-1", "2026-11-20")
        >>> row = {"arm": "a", "clip_id": "c1", "position": 0, "operation": "ok"}
        >>> _ = store.land("words", [row], run=run, part="batch-1")
        >>> store.read("words", run).height, sorted(store.landed("words", run))
        (1, ['batch-1'])
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.landing = home / "landing"
        self.warehouse = home / "warehouse.duckdb"

    def land(self, table: str, rows: Sequence[Mapping[str, object]], *, run: RunRef, part: str) -> Path:
        """Write one part, whole or not at all; the same part written again replaces itself.

        Args:
            table: a name of ``grym.schema.TABLES``.
            rows: the rows; ``run_id`` is filled in, a missing column is null, NaN is null. No rows at all are
                allowed: the empty part says that the batch is done.
            run: the run that the rows belong to.
            part: name derived from the planned batch, of letters, digits and ``. _ + @ -``.

        Returns:
            The file.

        Raises:
            StorageError: an unknown table or column, a value of the wrong type, an empty key, a folder that cannot
                be written to.
            ResourceError: the disk is full.
        """
        schema = _table(table)
        folder = self._folder(schema, run)
        path = folder / f"part-{_name('part', part)}.parquet"
        content = to_parquet(table, to_arrow(schema, rows, run.id))
        with disk(f"Part {part!r} of table {table!r}"):
            folder.mkdir(parents=True, exist_ok=True)
            write(path, content)
        return path

    def landed(self, table: str, run: RunRef) -> frozenset[str]:
        """Names of the parts of a run that are there, alone or put together with others (:mod:`grym.maintain`)."""
        found = self._each(_table(table), run, lambda path: {name_of(path), *covered(path)})
        return frozenset(name for name in frozenset().union(*found) if not name.startswith(COMPACTED))

    def read(self, table: str, run: RunRef | None = None) -> pl.DataFrame:
        """The rows of a table, of one run or of all, one per key, in the order of the key.

        Typed as the schema says even where nothing has landed. Of two rows with one key the later part's counts,
        parts in the order of their names.

        Raises:
            StorageError: the table is unknown, or a part cannot be read.
        """
        schema = _table(table)
        loaded = [arrow_schema(schema).empty_table(), *self._each(schema, run, lambda path: load(path, schema))]
        frame = pl.DataFrame(pl.from_arrow(pa.concat_tables(loaded)))
        return frame.unique(list(schema.key), keep="last", maintain_order=True).sort(list(schema.key))

    def runs(self) -> pl.DataFrame:
        """Every state of every run, oldest first."""
        return self.read("runs").sort("at", "run_id", "state", maintain_order=True)

    def find_runs(self, run_key: str) -> list[tuple[RunRef, bool]]:
        """The runs of one question and whether each has finished, newest (highest ordinal) last."""
        rows = self.read("runs").filter(pl.col("run_key") == run_key)
        runs = rows.group_by("run_id").agg(pl.col("ordinal").max(), finished=(pl.col("state") == "finished").any())
        # The folder, not the time of the state, says under which date a run lands: midnight may lie between.
        folders = sorted({path.parent for path in self._parts(TABLES["runs"])}, reverse=True)
        dates = {f.name.removeprefix("run="): f.parent.name.removeprefix("dt=") for f in folders}
        ordered = runs.sort("ordinal", "run_id").select("run_id", "finished").iter_rows()
        return [(RunRef(run_id, dates[run_id]), finished) for run_id, finished in ordered]

    def publish(self, views: Path | None = None, *, wait_seconds: float = 600.0) -> PublishResult:
        """Build the warehouse from every landed part and swap it in.

        Args:
            views: folder of ``.sql`` files, one view each; none means tables only.
            wait_seconds: how long to wait for another publish to end.

        Returns:
            Rows per table, and the parts that could not be read: these are left out, the rest is published.

        Raises:
            StorageError: the warehouse is open for writing elsewhere, another publish does not end, a view is not
                valid, or the home cannot be written to.
            ResourceError: the disk or the memory is full.
            ConfigError: the folder of views cannot be used.
        """
        wanted = read_views(views) if views else ()
        with disk("The warehouse"), self.publishing(wait_seconds):
            return self._publish(wanted)

    @contextmanager
    def publishing(self, wait_seconds: float = 600.0) -> Iterator[None]:
        """Hold what is landed as it is: nobody publishes, and nobody puts parts together.

        Raises:
            StorageError: another process does so for longer than ``wait_seconds``.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.home / "warehouse.lock", timeout=wait_seconds)
        try:
            lock.acquire()
        except Timeout as error:
            msg = f"Another publish has held the warehouse for more than {wait_seconds:g} s."
            raise StorageError(
                msg, code="publish-busy", hint="Wait for it to end, then publish again.", retryable=True
            ) from error
        try:
            yield
        finally:
            lock.release()

    def question_lock(self, run: str) -> FileLock:
        """The lock that a process holds while it works on a question, from the run's key or id."""
        folder = self.home / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{run[:12]}.lock")

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A read-only connection to the warehouse as it is now; close it when done.

        ``cursor()`` forgets the current database: say ``USE warehouse`` on it.

        Raises:
            StorageError: there is no warehouse, it is open for writing elsewhere, or it is not a database.
        """
        return open_warehouse(self.warehouse)

    def _publish(self, views: Sequence[View]) -> PublishResult:
        self.check_unlocked()
        self._clean()
        folder = Path(tempfile.mkdtemp(prefix=".publish-", dir=self.home))
        try:
            built = folder / self.warehouse.name
            listed = self._listed()
            rows, skipped = build(built, lambda table: listed[table.name], views)
            built.chmod(0o444)  # so that nobody opens it for writing by mistake and locks everybody out
            sync(built)
            # A log that a killed writer left would be replayed into a file it does not belong to.
            self.warehouse.with_name(f"{self.warehouse.name}.wal").unlink(missing_ok=True)
            built.replace(self.warehouse)
            sync(self.home)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return PublishResult(self.warehouse, rows, skipped)

    def _listed(self) -> dict[str, list[Path]]:
        """Every table's parts, as if listed at one moment, though others land meanwhile.

        What says that other rows are there lands after them, so it is listed before them. A run that starts during
        the listing waits for the next publish.
        """
        ordered = sorted(TABLES, key=lambda name: _LANDED_LAST.index(name) if name in _LANDED_LAST else len(TABLES))
        listed = {name: self._parts(TABLES[name]) for name in ordered}
        later = {path.parent.name for path in self._parts(TABLES["runs"])}
        started = later - {path.parent.name for path in listed["runs"]}
        return {name: [p for p in paths if p.parent.name not in started] for name, paths in listed.items()}

    def check_unlocked(self) -> None:
        """Stop when somebody has the warehouse open for writing: a swap would lose what they write."""
        try:
            self.connect().close()
        except StorageError as error:
            if error.code == "warehouse-locked":
                raise

    def _clean(self) -> None:
        """Remove what killed publishes and landings left; only ever called under the publish lock."""
        for folder in self.home.glob(".publish-*"):
            shutil.rmtree(folder, ignore_errors=True)
        for path in self.landing.glob("*/dt=*/run=*/.part-*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _ORPHAN_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue  # it has just been renamed into place

    def _each(self, table: Table, run: RunRef | None, reader: Callable[[Path], T]) -> list[T]:
        """What a reader finds in each part; a part that vanishes was put together with others: they are listed anew."""
        seen: list[Path] = []
        while (paths := self._parts(table, run)) != seen or not paths:
            with suppress(FileNotFoundError):
                return [self._one(path, reader) for path in paths]
            seen = paths
        msg = f"Parts of table {table.name!r} vanish while they are read."
        raise StorageError(msg, code="bad-part", hint="A file below landing is listed and not there; delete it.")

    def _one(self, path: Path, reader: Callable[[Path], T]) -> T:
        try:
            return reader(path)
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            msg = f"Part {path.relative_to(self.home).as_posix()} cannot be read: {reason(error)}."
            hint = "Delete the file and give the same command again: an unfinished run repeats that part."
            raise StorageError(msg, code="bad-part", hint=hint) from error

    def _folder(self, table: Table, run: RunRef) -> Path:
        try:
            day = date.fromisoformat(run.date).isoformat()
        except ValueError as error:
            msg = f"The run's date {run.date!r} is not an ISO date."
            raise StorageError(msg, code="bad-name", hint="Use the date the run started, as 2026-11-20.") from error
        return self.landing / table.name / f"dt={day}" / f"run={_name('run', run.id)}"

    def _parts(self, table: Table, run: RunRef | None = None) -> list[Path]:
        """The parts of a table, or of one run of it, in the order in which later ones win."""
        if run is None:
            return sorted((self.landing / table.name).glob("dt=*/run=*/part-*.parquet"), key=str)
        return sorted(self._folder(table, run).glob("part-*.parquet"), key=str)


def _table(name: str) -> Table:
    if name not in TABLES:
        msg = f"There is no table {name!r}; the schema knows: {', '.join(TABLES)}."
        raise StorageError(msg, code="unknown-table", hint="Use one of these or add it to grym.schema.")
    return TABLES[name]


def _name(kind: str, name: str) -> str:
    """A name that is safe as part of a file's name."""
    if not _NAME.fullmatch(name):
        msg = f"The {kind} name {name!r} cannot be part of a file name."
        raise StorageError(msg, code="bad-name", hint="Use up to 150 letters, digits and . _ + @ - only.")
    return name
