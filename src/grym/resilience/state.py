"""What processes have to agree on while things fail: one small SQLite file in WAL mode under the home.

Breakers, leases, cool-downs, the last health of each model, who serves each route,
and the changes that are still to be mirrored elsewhere. Nothing here is the only
copy of a result: a damaged file is put aside and begun anew, and while no file can
be written the state is kept in memory, for this process alone. Calls to models
never fail because of it.

Times are seconds of the machine's monotonic clock together with the boot they
belong to, so that a jump of the wall clock opens or closes nothing; what people
read is UTC. Knows nothing about models. Not for network file systems (nor is WAL).

    HOME/resilience.sqlite
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FILE: Final = "resilience.sqlite"
BUSY_SECONDS: Final = 2.0
CALL_BUSY_SECONDS: Final = 0.1  # where a request waits
TRY_AGAIN_SECONDS: Final = 30.0
BUSY_AGAIN_SECONDS: Final = 2.0
KEPT_EVENTS: Final = 10_000
LONGEST_LEASE_SECONDS: Final = 3600.0
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS breaker (
    model TEXT, operation TEXT, state TEXT NOT NULL DEFAULT 'closed', failures INTEGER NOT NULL DEFAULT 0,
    successes INTEGER NOT NULL DEFAULT 0, trips INTEGER NOT NULL DEFAULT 0, opened REAL, boot TEXT,
    code TEXT NOT NULL DEFAULT '', PRIMARY KEY (model, operation)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (model TEXT, operation TEXT, at REAL, boot TEXT);
CREATE INDEX IF NOT EXISTS failures ON failure (model, operation);
CREATE TABLE IF NOT EXISTS lease (name TEXT PRIMARY KEY, owner TEXT, until REAL, boot TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cooling (name TEXT PRIMARY KEY, at REAL, boot TEXT, suppressed INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, value TEXT, at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, at REAL, kind TEXT, subject TEXT, before TEXT,
    after TEXT, reason TEXT, landed INTEGER NOT NULL DEFAULT 0, told INTEGER NOT NULL DEFAULT 0);
"""
_DAMAGED: Final = ("malformed", "not a database", "no such table", "no such column")
log = logging.getLogger(__name__)

T = TypeVar("T")
Do: TypeAlias = "Callable[..., sqlite3.Cursor]"


@dataclass(frozen=True, slots=True)
class Circuit:
    """The breaker of one operation of one model, as all processes see it.

    Attributes:
        model: registered name.
        operation: what it is asked.
        state: closed, open or half-open.
        failures: in a row.
        successes: probes in a row that went well.
        trips: how often it opened without closing between.
        open_seconds: how long it has been open; infinite after a restart of the machine, 0 if it is closed.
        code: of the last error.
    """

    model: str
    operation: str
    state: str = "closed"
    failures: int = 0
    successes: int = 0
    trips: int = 0
    open_seconds: float = 0.0
    code: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of state; the columns of table ``events``."""

    event_id: str
    at: datetime
    kind: str
    subject: str
    before: str
    after: str
    reason: str


@cache
def boot() -> str:
    """Identity of this start of the machine; empty where the system does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


class States:
    """The state shared by all processes of a home. Thread-safe; open one for each process.

    Args:
        home: folder of everything that is stored.
        clock: monotonic seconds, the same in all processes of the machine.
        busy_seconds: how long to wait for a process that writes just now, or was stopped while it did.
    """

    def __init__(
        self, home: Path, *, clock: Callable[[], float] = time.monotonic, busy_seconds: float = BUSY_SECONDS
    ) -> None:
        self.path = home / FILE
        self.clock = clock
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = None
        self._memory_since: float | None = None
        self._memory_seconds = TRY_AGAIN_SECONDS
        self._busy_seconds = busy_seconds

    @property
    def shared(self) -> bool:
        """Whether other processes see it: not while the file cannot be written."""
        return self._memory_since is None

    def close(self) -> None:
        """Let go of the file; safe to call twice. The next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def circuit(self, model: str, operation: str) -> Circuit:
        """The breaker of one operation of one model; a closed one if there was never a failure."""
        rows = self.read(f"{_CIRCUIT} WHERE model = ? AND operation = ?", (model, operation))
        return self._circuit(rows[0]) if rows else Circuit(model, operation)

    def circuits(self) -> list[Circuit]:
        """Every breaker that ever counted a failure."""
        return [self._circuit(row) for row in self.read(f"{_CIRCUIT} ORDER BY model, operation")]

    def take_lease(self, name: str, seconds: float) -> str:
        """Take what only one may have at a time, for so long at most; a token, or the empty text if it is taken."""
        owner, now = uuid.uuid4().hex, self.clock()

        def work(do: Do) -> str:
            held = do("SELECT until, boot FROM lease WHERE name = ?", (name,)).fetchone()
            # A lease that would last longer than any is one of another clock.
            if held is not None and held[1] == boot() and now < held[0] <= now + max(LONGEST_LEASE_SECONDS, seconds):
                return ""
            do("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?)", (name, owner, now + seconds, boot()))
            return owner

        return self.write(work)

    def give_lease(self, name: str, owner: str) -> None:
        """Give a lease back; nothing happens if somebody else has it by now."""
        self.write(lambda do: do("DELETE FROM lease WHERE name = ? AND owner = ?", (name, owner)))

    def cooled(self, name: str, seconds: float) -> int | None:
        """Whether something may be said again; counts what is not said.

        Returns:
            How often it was held back since it was last said, or ``None`` if it has to be held back now.
        """
        now = self.clock()

        def work(do: Do) -> int | None:
            last = do("SELECT at, boot, suppressed FROM cooling WHERE name = ?", (name,)).fetchone()
            if last is not None and last[1] == boot() and 0 <= now - last[0] < seconds:
                do("UPDATE cooling SET suppressed = suppressed + 1 WHERE name = ?", (name,))
                return None
            do("INSERT OR REPLACE INTO cooling VALUES (?, ?, ?, 0)", (name, now, boot()))
            return 0 if last is None else int(last[2])

        return self.write(work)

    def note(self, name: str) -> tuple[str, float] | None:
        """A text that was noted under a name, and when, in seconds since 1970."""
        rows = self.read("SELECT value, at FROM note WHERE name = ?", (name,))
        return (str(rows[0][0]), float(rows[0][1])) if rows else None

    def put_note(self, name: str, value: str) -> str | None:
        """Note a text; the one that was there before, if there was one."""

        def work(do: Do) -> str | None:
            before = do("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
            do("INSERT OR REPLACE INTO note VALUES (?, ?, ?)", (name, value, time.time()))
            return None if before is None else str(before[0])

        return self.write(work)

    def add_event(self, kind: str, subject: str, before: str, after: str, reason: str = "") -> None:
        """Record a change of state, to be mirrored by whoever comes first."""
        self.write(lambda do: insert_event(do, kind, subject, before, after, reason))

    def events(self, missing: str) -> list[Event]:
        """Changes that have not been ``landed`` or ``told`` yet, oldest first."""
        flag = {"landed": "landed", "told": "told"}[missing]
        columns = "id, at, kind, subject, before, after, reason"
        rows = self.read(f"SELECT {columns} FROM event WHERE {flag} = 0 ORDER BY number")  # noqa: S608 - our own words
        return [Event(row[0], datetime.fromtimestamp(row[1], UTC), *row[2:]) for row in rows]

    def mark(self, events: Sequence[Event], done: str) -> None:
        """Remember that changes were ``landed`` or ``told``; those that are both, or very many, are forgotten."""
        flag = {"landed": "landed", "told": "told"}[done]

        def work(do: Do) -> None:
            for event in events:
                do(f"UPDATE event SET {flag} = 1 WHERE id = ?", (event.event_id,))  # noqa: S608 - one of two words
            do("DELETE FROM event WHERE landed AND told")
            do("DELETE FROM event WHERE number <= (SELECT max(number) FROM event) - ?", (KEPT_EVENTS,))

        self.write(work)

    def read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with self._lock:
            for last in (False, True):
                try:
                    return self._open().execute(sql, values).fetchall()
                except sqlite3.Error as error:
                    self._mend(error, last=last)
        return []

    def write(self, work: Callable[[Do], T]) -> T:
        """What ``work`` gives, done in one transaction; nobody else writes meanwhile. It may be done twice."""
        with self._lock:
            for last in (False, True):
                try:
                    return self._transaction(work)
                except sqlite3.Error as error:
                    self._mend(error, last=last)
            return self._transaction(work)  # in memory by now

    def _transaction(self, work: Callable[[Do], T]) -> T:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection.execute)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return result

    def _open(self) -> sqlite3.Connection:
        if self._pid != os.getpid():  # after a fork the parent's connection is not ours to use nor to close
            self._pid, self._connection = os.getpid(), None
        if self._memory_since is not None and self.clock() - self._memory_since > self._memory_seconds:
            self.close()
            self._memory_since = None
        if self._connection is None:
            self._connection = self._connect(":memory:" if self._memory_since is not None else str(self.path))
        return self._connection

    def _connect(self, place: str) -> sqlite3.Connection:
        if place != ":memory:":
            with suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(place, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_TABLES)
        except BaseException:
            connection.close()
            raise
        return connection

    def _mend(self, error: sqlite3.Error, *, last: bool) -> None:
        """Put a damaged file aside; with any other trouble, or if that did not help, go on in memory."""
        with suppress(sqlite3.Error):
            self.close()
        self._connection = None
        if not last and any(sign in str(error) for sign in _DAMAGED):
            log.warning("%s is damaged (%s); it is put aside and begun anew.", self.path.name, error)
            with suppress(OSError):
                self.path.replace(self.path.with_suffix(".damaged"))
                for tail in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + tail).unlink(missing_ok=True)
            return
        if self._memory_since is None:
            log.warning("%s cannot be used (%s); this process goes on alone.", self.path.name, error)
        self._memory_seconds = BUSY_AGAIN_SECONDS if "locked" in str(error) else TRY_AGAIN_SECONDS
        self._memory_since = self.clock()

    def _circuit(self, row: tuple[Any, ...]) -> Circuit:
        model, operation, state, failures, successes, trips, opened, booted, code = row
        elapsed = 0.0
        if state != "closed":
            elapsed = self.clock() - (opened or 0.0)
            if booted != boot() or elapsed < 0:
                elapsed = float("inf")
        return Circuit(model, operation, state, failures, successes, trips, elapsed, code)


_CIRCUIT: Final = "SELECT model, operation, state, failures, successes, trips, opened, boot, code FROM breaker"


def insert_event(do: Do, kind: str, subject: str, before: str, after: str, reason: str) -> None:
    """Record a change of state within a transaction."""
    do(
        "INSERT INTO event (id, at, kind, subject, before, after, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (uuid.uuid4().hex, time.time(), kind, subject, before, after, reason),
    )
