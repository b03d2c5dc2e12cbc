"""The folder of a home's Prefect server: which process serves, and which live processes use it.

Everything lies in ``HOME/prefect``: ``server.json`` names the server,
``leases/*.json`` its users, ``server.lock`` is held while either changes.
Starts and stops nothing. Process start times in seconds since the epoch.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psutil

from grym.errors import WorkerError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping
    from pathlib import Path

HOST = "127.0.0.1"
# Two readings of a process's start time may differ by a tick of the clock; no system reuses an id that fast.
SAME_START_SECONDS = 2.0
# Children of this process, kept so that they are waited for and no zombie stays.
CHILDREN: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Record:
    """A server process, as ``server.json`` tells it.

    Attributes:
        pid: process id; also the id of its process group.
        port: where it listens on 127.0.0.1.
        started: start time of the process, seconds since the epoch; tells it from a later one with the same id.
        keep: whether it stays when the last process that uses it has gone.
    """

    pid: int
    port: int
    started: float
    keep: bool = False

    @property
    def ui(self) -> str:
        """Address of the web page."""
        return f"http://{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Address of the API."""
        return f"{self.ui}/api"

    @property
    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return is_alive(self.pid, self.started)


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of a home's server and what lies in it."""

    folder: Path

    @property
    def log(self) -> Path:
        """What the server printed since it was last started."""
        return self.folder / "server.log"

    @contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Hold the folder against every other process.

        Raises:
            WorkerError: another process holds it for longer than ``seconds``.
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "server.lock", timeout=seconds)
        try:
            lock.acquire()
        except Timeout as error:
            msg = f"Another process has held {lock.lock_file} for {seconds:.0f} s."
            raise WorkerError(msg, code="server-lock", hint="Wait for it or end it, then try again.") from error
        try:
            yield
        finally:
            lock.release()

    def record(self) -> Record | None:
        """The server on record, alive or not."""
        try:
            return Record(**_read(self.folder / "server.json"))
        except (OSError, ValueError, TypeError):
            return None  # missing, or not written by us

    def write(self, record: Record) -> None:
        """Put a server on record."""
        _write(self.folder / "server.json", asdict(record))

    def forget(self) -> None:
        """Take the server off the record."""
        (self.folder / "server.json").unlink(missing_ok=True)

    def lease(self) -> Path:
        """Note that this process uses the server; remove the file to give it back."""
        me = psutil.Process()
        path = self.folder / "leases" / f"{me.pid}-{uuid.uuid4().hex[:8]}.json"
        path.parent.mkdir(exist_ok=True)
        _write(path, {"pid": me.pid, "started": me.create_time()})
        return path

    def holders(self) -> list[int]:
        """Process ids of the live users of the server; leases of dead ones are swept away."""
        found = []
        for path in sorted((self.folder / "leases").glob("*.json")):
            pid = _holder(path)
            if pid is None:
                path.unlink(missing_ok=True)
            else:
                found.append(pid)
        return found


def is_alive(pid: int, started: float) -> bool:
    """Whether the process of that id and start time runs (a zombie does not)."""
    child = CHILDREN.get(pid)
    if child is not None and child.poll() is not None:
        del CHILDREN[pid]
        return False
    try:
        process = psutil.Process(pid)
        same = bool(abs(process.create_time() - started) < SAME_START_SECONDS)
        if same and process.status() != psutil.STATUS_ZOMBIE:
            return True
    except psutil.Error:
        pass
    if child is not None and child.poll() is not None:  # it ended after it was asked above: nobody else reaps it
        CHILDREN.pop(pid, None)
    return False


def _holder(path: Path) -> int | None:
    try:
        fields = _read(path)
        return int(fields["pid"]) if is_alive(fields["pid"], fields["started"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _write(path: Path, fields: Mapping[str, object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(fields), encoding="utf-8")
    temporary.replace(path)
