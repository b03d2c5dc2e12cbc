"""Rows about what failed and what was done: kept at once in a journal, landed in batches; alerts with a cool-down.

A row is in this process's journal (:mod:`grym.experiment.journal`) when ``add``
returns, and survives ``kill -9``: the next recorder of the home lands what a dead
process left. Parts are named after the journal, so that a repeat overwrites itself.
A disk that is full or read-only costs rows, never answers: that is logged, once.

    landing/TABLE/dt=DATE/run=live-DATE/part-JOURNAL.parquet

Knows nothing about models.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from grym.errors import GrymError, Severity
from grym.experiment.journal import Journal, left
from grym.schema import TABLES
from grym.store import RunRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from grym.resilience.state import Event, States
    from grym.store import Store

LAND_ROWS: Final = 2000
LAND_SECONDS: Final = 30.0
log = logging.getLogger(__name__)


def live_run(date: str) -> RunRef:
    """The run that rows of a day belong to which no comparison made."""
    return RunRef(f"live-{date}", date)


class Recorder:
    """Adds rows to tables from a live process. Thread-safe; close it at the end.

    Args:
        store: where they land.
        clock: monotonic seconds.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._rows = 0
        self._since = clock()
        self._trouble = False
        self._folder = store.home / "journals" / "resilience"
        self._journal: Journal | None = None
        if self._folder.is_dir():
            self._take_over()

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Land everything."""
        self.close()

    def add(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Keep rows; never fails for want of space.

        Args:
            table: a name of ``grym.schema.TABLES``.
            rows: values of JSON, and times with a zone.
        """
        with self._lock:
            try:
                written = [[table, {key: _plain(value) for key, value in row.items()}] for row in rows]
                if self._journal is None:
                    self._journal = Journal.create(self._folder)
                self._journal.append(written)
                self._rows += len(written)
                if self._rows >= LAND_ROWS or self._clock() - self._since > LAND_SECONDS:
                    self._turn()
            except GrymError as error:
                self._complain(error)
            except Exception as error:
                log.exception("A row of %s cannot be kept.", table)
                self._complain(GrymError(f"A row of {table} cannot be kept: {type(error).__name__}.", code="bad-row"))
            else:
                self._trouble = False

    def flush(self) -> None:
        """Land what is in the journal.

        Raises:
            StorageError: the home cannot be written to; the journal keeps the rows.
            ResourceError: the disk is full; likewise.
        """
        with self._lock:
            self._turn()

    def close(self) -> None:
        """Land everything and let go; safe to call twice. Rows that cannot be landed stay in the journal."""
        with self._lock:
            try:
                self._turn()
            except GrymError as error:
                self._complain(error)
                if self._journal is not None:
                    self._journal.close()
                    self._journal = None

    def _turn(self) -> None:
        self._rows, self._since = 0, self._clock()
        if self._journal is not None:
            self._land(self._journal)
            self._journal = None

    def _take_over(self) -> None:
        """Land what dead processes left."""
        for journal in left(self._folder):
            try:
                self._land(journal)
            except GrymError as error:
                journal.close()
                self._complain(error)

    def _land(self, journal: Journal) -> None:
        tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for table, row in journal.rows():
            tables[table].append(_typed(table, row))
        for table, rows in tables.items():
            self._store.land(table, rows, run=live_run(journal.date), part=journal.name)
        journal.finish()

    def _complain(self, error: GrymError) -> None:
        if not self._trouble:
            log.warning("Rows are lost or late: %s", error)
        self._trouble = True


def land_events(states: States, store: Store) -> list[Event]:
    """Mirror changes of state into table ``events``; those that were mirrored now, oldest first."""
    events = states.events("landed")
    days: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        days[event.at.date().isoformat()].append(event)
    for day, found in days.items():
        names = [f"{name}" for name in ("event_id", "at", "kind", "subject", "before", "after", "reason")]
        rows = [{name: getattr(event, name) for name in names} for event in found]
        # A repeat after a kill may hold more events under another name: the key makes them one.
        store.land("events", rows, run=live_run(day), part=f"events-{found[0].event_id}")
    states.mark(events, "landed")
    return events


def tell_events(states: States, tell: Callable[[Event], None]) -> int:
    """Hand changes of state to somebody else, such as Prefect; how many. One that cannot be told is told later."""
    told: list[Event] = []
    try:
        for event in states.events("told"):
            tell(event)
            told.append(event)
    finally:
        states.mark(told, "told")
    return len(told)


class Alerts:
    """Raises alerts, at most one of a kind and subject within a cool-down, over all processes of the home."""

    def __init__(self, states: States, recorder: Recorder) -> None:
        self._states, self._recorder = states, recorder

    def alert(
        self,
        kind: str,
        subject: str,
        message: str,
        *,
        hint: str,
        severity: str = Severity.ERROR,
        cool_down: float = 300.0,
    ) -> bool:
        """Record an alert, unless a like one was raised less than ``cool_down`` seconds ago; whether it was."""
        suppressed = self._states.cooled(f"{kind}/{subject}", cool_down)
        if suppressed is None:
            return False
        log.warning("%s: %s", kind, message)
        row = {
            "alert_id": uuid.uuid4().hex,
            "at": datetime.now(UTC),
            "kind": kind,
            "subject": subject,
            "severity": str(severity),
            "status": "new",
            "message": message,
            "hint": hint,
            "suppressed": suppressed,
        }
        self._recorder.add("alerts", [row])
        return True


def journals(home: Path) -> Iterable[Path]:
    """Journals of this home that have not been landed."""
    return sorted((home / "journals" / "resilience").glob("*.journal"))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN, which JSON does not have
        return None
    if isinstance(value, str):  # half a character, as an adapter may send, is nothing that can be stored
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value if value is None or isinstance(value, int | float | bool) else json.dumps(value)


def _typed(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    times = {column.name for column in TABLES[table].columns if column.type == "time"}
    return {key: datetime.fromisoformat(value) if key in times and value else value for key, value in row.items()}
