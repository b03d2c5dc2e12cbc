"""The Prefect server as a process: find it, start it, say why it died, stop it.

Knows nothing about who uses it. Call its functions with the folder locked.
Seconds.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from flows._prefect.api import is_healthy
from flows._prefect.place import CHILDREN, HOST, Place, Record
from grym.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping

GRACE_SECONDS = 10.0
# Below the ports that systems hand out; one home always asks for the same one, so that a bookmark keeps working.
FIRST_PORT, PORTS = 14_200, 1_000

# By default the recorder writes one task run at a time and lags 15 s behind 1 000 of them; in batches it lags 2 s.
# Leases in memory are lost with a killed server, and its concurrency slots are then never given back. A statement may
# wait long for the database of a busy machine. Switching services off saves neither start-up time nor idle CPU.
SERVER_ENV: Mapping[str, str] = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "5",  # a killed holder's slots come back sooner
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
QUIET_ENV: Mapping[str, str] = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}

_BLAME = re.compile(r"already in use|^[\w.]*(Error|Exception)\b")


def running(place: Place, seconds: float) -> Record:
    """The home's healthy server: the one on record, else a new one.

    Raises:
        WorkerError: the server died, did not answer within ``seconds``, or its port is taken.
    """
    record = place.record()
    if record is not None and record.alive:
        # One that a process started and was killed over is given its time; an old one answers at once.
        young = time.time() - record.started < seconds
        if _answers(record, seconds if young else min(seconds, GRACE_SECONDS)):
            return record
        # Whoever else uses it decides; with nobody left it is replaced.
        if record.alive and (pids := place.holders()):
            msg = f"The Prefect server (process {record.pid}) does not answer."
            raise WorkerError(msg, code="server-hangs", hint=f"Process {pids[0]} uses it: wait for it or end it.")
        stop(place, record)
    place.forget()
    return _start(place, seconds)


def back(place: Place, seconds: float) -> None:
    """Start the server on record again, at its port, unless it runs.

    Raises:
        WorkerError: it died again, did not answer within ``seconds``, or its port is taken.
    """
    record = place.record()
    if record is not None and not record.alive:
        again = _launch(place, record.port, seconds)
        place.write(replace(again, keep=record.keep))


def stop(place: Place, record: Record) -> None:
    """End the server's process group, kindly first, and take it off the record."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if not record.alive:
            break
        with suppress(ProcessLookupError):
            os.killpg(record.pid, kind)
        deadline = time.monotonic() + GRACE_SECONDS
        while record.alive and time.monotonic() < deadline:
            time.sleep(0.05)
    place.forget()


def _start(place: Place, seconds: float) -> Record:
    fixed = os.environ.get("PREFECT_SERVER_API_PORT")
    if fixed is not None:
        if not fixed.isdecimal() or not _is_free(int(fixed)):
            msg = f"PREFECT_SERVER_API_PORT is {fixed}, and that port cannot be opened."
            raise WorkerError(msg, code="server-port", hint="Unset it or choose a free port.", retryable=False)
        return _launch(place, int(fixed), seconds)
    port = FIRST_PORT + zlib.crc32(str(place.folder).encode()) % PORTS
    try:
        return _launch(place, port if _is_free(port) else _any_port(), seconds)
    except WorkerError as error:
        # Between the look and the launch another program can take the port; any other reason would only repeat.
        if error.code != "server-port":
            raise
        return _launch(place, _any_port(), seconds)


def _launch(place: Place, port: int, seconds: float) -> Record:
    if place.log.exists():
        place.log.replace(place.folder / "server.previous.log")
    with place.log.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)],
            env=_environment(place, port),
            cwd=place.folder,  # a prefect.toml or a `datasets` folder of the caller is none of its business
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    CHILDREN[child.pid] = child
    record = Record(child.pid, port, psutil.Process(child.pid).create_time())
    # On record before it answers: if this process is killed now, the next one finds the server and waits for it.
    place.write(record)
    healthy = False
    try:
        healthy = _answers(record, seconds)
        failure = None if healthy else _failure(place, record, seconds)
    finally:
        if not healthy:
            stop(place, record)
    if failure is not None:
        raise failure
    return record


def _failure(place: Place, record: Record, seconds: float) -> WorkerError:
    if record.alive:
        msg = f"The Prefect server did not answer within {seconds:.0f} s."
        return WorkerError(msg, code="server-slow", hint=f"Try again; its log is {place.log}.")
    said = [line.strip() for line in place.log.read_text(errors="replace").splitlines()]
    said = [line for line in said if line and line != "Server stopped!"]
    reason = next((line for line in reversed(said) if _BLAME.search(line)), said[-1] if said else "it said nothing")
    code = "server-port" if "already in use" in reason else "server-died"
    msg = f"The Prefect server ended before it answered: {reason.rstrip('.')}."
    return WorkerError(msg, code=code, hint=f"Run `python -m flows doctor`; the log is {place.log}.")


def _environment(place: Place, port: int) -> dict[str, str]:
    env = {**SERVER_ENV, **os.environ, **QUIET_ENV}
    env.pop("PREFECT_API_URL", None)
    env |= {
        "PREFECT_HOME": str(place.folder),
        # The command's own --port does not reach the address that the web page calls; these settings do.
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "NO_COLOR": "1",
        "COLUMNS": "400",  # one message, one line: the last one is quoted when it dies
    }
    package = importlib.util.find_spec("prefect")
    if package is not None and package.origin and not os.access(Path(package.origin).parent / "server", os.W_OK):
        # Prefect unpacks its web page inside its own package; where that is read-only it goes to the home.
        env.setdefault("PREFECT_SERVER_UI_STATIC_DIRECTORY", str(place.folder / "ui"))
    return env


def _answers(record: Record, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while record.alive and time.monotonic() < deadline:
        if is_healthy(record.url, seconds=2.0) and _listens(record):
            return True
        time.sleep(0.1)
    return False


def _listens(record: Record) -> bool:
    # An answer alone could be a stranger's who took the port first.
    try:
        sockets = psutil.Process(record.pid).net_connections("tcp")
    except psutil.AccessDenied:
        return record.alive
    except psutil.Error:
        return False
    return any(s.status == psutil.CONN_LISTEN and s.laddr.port == record.port for s in sockets)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
