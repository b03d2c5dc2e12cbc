"""Exposures and measurements, exactly once, whatever is killed when.

``record`` returns when the events are in this process's journal (:mod:`grym.experiment.journal`); every so often the
journal becomes parts of the landing zone, named after it, and is removed. A kill at any point leaves either the
journal, which the next collector lands under the same names, or the parts. A producer that got no receipt repeats its
events: their ids are the same, and of two rows with one id one counts, here, in every reader and in the warehouse.

    landing/exposures/dt=DATE/run=NAME.vVERSION/part-JOURNAL.parquet
    landing/measurements/dt=DATE/run=NAME.vVERSION/part-JOURNAL.parquet
    landing/quarantine/dt=DATE/run=experiments/part-JOURNAL.parquet      refused events, with their reason

Knows nothing about statistics (:mod:`grym.experiment.evidence`). Times are milliseconds since 1970 (UTC).
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from operator import attrgetter
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Self

from grym.errors import Category, Severity
from grym.experiment.checks import Event, Problem, find, impossible, is_id, problem
from grym.experiment.events import Clock, Exposure, identify
from grym.experiment.journal import Journal, Row, left
from grym.experiment.registry import registered, run_id
from grym.schema import TABLES
from grym.store import RunRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from grym.experiment.config import Experiment
    from grym.store import Store

REFUSED_RUN: Final = "experiments"
_TABLES: Final = ("exposures", "measurements", "quarantine")  # in the order of landing: an exposure before its outcome
_COLUMNS: Final = {name: tuple(c.name for c in TABLES[name].columns if c.name != "run_id") for name in _TABLES}
_EXPOSURE: Final = attrgetter(*_COLUMNS["exposures"])
_MEASUREMENT: Final = attrgetter(*_COLUMNS["measurements"])
_REFRESH_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was quarantined: the key of its row there, which begins with the event's id, and why."""

    key: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of the events of one call.

    Attributes:
        recorded: events that are stored now.
        repeated: events that this collector had already.
        impossible: recorded exposures that were randomised into an arm of share 0; the experiment is invalid.
        refused: events that were quarantined.
    """

    recorded: int
    repeated: int
    impossible: int
    refused: tuple[Refused, ...]


class Collector:
    """Records events of every registered experiment; threads may share it.

    Args:
        store: where they end up.
        rows: events after which the journal becomes parts.
        seconds: age after which it does, at the next call.
        durable: whether ``record`` waits for the disk, so that a power cut loses nothing either.
        clock: milliseconds since 1970, against which events' times are checked.

    Raises:
        StorageError: the home cannot be written to, or a part cannot be read.
        ResourceError: the disk is full.
    """

    def __init__(
        self,
        store: Store,
        *,
        rows: int = 50_000,
        seconds: float = 30.0,
        durable: bool = False,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._store = store
        self._folder = store.home / "journal"
        self._limits = (rows, seconds)
        self._durable = durable
        self._clock = clock or Clock()
        self._lock = RLock()
        self._journal: Journal | None = None
        self._rows: list[Row] = []
        self._seen: set[tuple[str, int, str]] = set()
        self._begun = self._refreshed = time.monotonic()
        self._known: Mapping[tuple[str, int], Experiment] = registered(store)
        self.recover()

    def __enter__(self) -> Self:
        """The collector itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Land what is in the journal."""
        self.close()

    def record(self, events: Iterable[Event]) -> Receipt:
        """Record events; on return they survive this process. One bad event never fails the others.

        Raises:
            StorageError: the journal or a part cannot be written; nothing of this call is recorded, or it is and
                only its landing failed: the same events can be recorded again in both cases.
            ResourceError: the disk is full; the same holds.
        """
        with self._lock:
            rows: list[Row] = []
            seen: set[tuple[str, int, str]] = set()
            refused: list[Refused] = []
            repeated = odd = 0
            now = self._clock()
            for event in events:
                if (why := self._problem(event, now)) is not None:
                    rows.append(_quarantined(event, why))
                    refused.append(Refused(rows[-1][1], why[0], why[1]))
                    continue
                identity = (event.experiment, event.version, event.event_id)
                if identity in self._seen or identity in seen:
                    repeated += 1
                    continue
                seen.add(identity)
                odd += impossible(event, self._known[event.experiment, event.version])
                rows.append((0, *_EXPOSURE(event)) if isinstance(event, Exposure) else (1, *_MEASUREMENT(event)))
            if rows:
                self._append(rows)
                self._seen |= seen
            self.flush_if_due()
        return Receipt(len(rows) - len(refused), repeated, odd, tuple(refused))

    def flush_if_due(self) -> None:
        """Land the journal if it is long or old enough; for a service that may be idle for long.

        Raises:
            StorageError: a part cannot be written; the journal is kept.
            ResourceError: the disk is full; the journal is kept.
        """
        with self._lock:
            limit, seconds = self._limits
            if self._rows and (len(self._rows) >= limit or time.monotonic() - self._begun >= seconds):
                self.flush()

    def flush(self) -> None:
        """Land the journal now, so that every reader sees what was recorded.

        Raises:
            StorageError: a part cannot be written; the journal is kept.
            ResourceError: the disk is full; the journal is kept.
        """
        with self._lock:
            if self._journal is not None:
                self._land(self._journal, self._rows)
                self._journal, self._rows, self._seen = None, [], set()

    def recover(self) -> int:
        """Land what dead processes left; the number of journals.

        Raises:
            StorageError: a part cannot be written; the journal is kept.
            ResourceError: the disk is full; the journal is kept.
        """
        count = 0
        for journal in left(self._folder):
            try:
                self._land(journal, journal.rows())
            finally:
                journal.close()
            count += 1
        return count

    def close(self) -> None:
        """Land the journal. The collector can be used again.

        Raises:
            StorageError: a part cannot be written; the journal is kept, and the next collector lands it.
            ResourceError: the disk is full; the same holds.
        """
        self.flush()

    def _problem(self, event: Event, now: int) -> Problem | None:
        found = problem(event, self._known, now)
        if found is not None and found[0] == "unknown-experiment":
            # Registered since we looked? Asked once a second, whatever strangers send.
            if time.monotonic() - self._refreshed >= _REFRESH_SECONDS:
                self._known, self._refreshed = registered(self._store), time.monotonic()
            if find(event, self._known) is not None:
                return problem(event, self._known, now)
        return found

    def _append(self, rows: Sequence[Row]) -> None:
        if self._journal is None:
            self._journal = Journal.create(self._folder, durable=self._durable)
            self._begun = time.monotonic()
        self._journal.append(rows)
        self._rows.extend(rows)

    def _land(self, journal: Journal, rows: Sequence[Row]) -> None:
        grouped: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
        for kind, *values in rows:
            row = dict(zip(_COLUMNS[_TABLES[kind]], values, strict=True))
            run = REFUSED_RUN if "stage" in row else run_id(row["experiment"], row["version"])
            grouped[kind, run].append(row)
        for (kind, run), found in sorted(grouped.items(), key=lambda item: item[0]):
            self._store.land(_TABLES[kind], found, run=RunRef(run, journal.date), part=journal.name)
        journal.finish()


def _quarantined(event: Event, why: Problem) -> Row:
    """The row of a refused event: nothing of it that could not be stored."""
    code, message, hint = why
    # Two bad events may claim one id; the same one reported twice is one row.
    said, of = getattr(event, "event_id", None), getattr(event, "experiment", "")
    claimed = said[:64] if isinstance(said, str) and is_id(said) else "no-id"
    key = f"{claimed}:{identify(repr(event))[:12]}"
    stage = "event:" + str(of)[:64].encode(errors="replace").decode()
    row = {
        "key": key,
        "stage": stage,
        "category": Category.QUALITY,
        "code": code,
        "message": message,
        "hint": hint,
        "severity": Severity.WARNING,
    }
    return (_TABLES.index("quarantine"), *(row[name] for name in _COLUMNS["quarantine"]))
