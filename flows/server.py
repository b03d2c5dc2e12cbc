"""A local Prefect server around a flow: found or started, shared, and stopped by the last one out.

Knows nothing about what the flows do. Importing it does not import Prefect:
the address must be in the environment before Prefect reads its settings.
Times in seconds.

    with server(home) as found:
        from flows.compare import compare
        ...
        drain(found.url, flow_run_id, expected=20)

A server started here outlives nobody: processes that use it hold a lease
file, and the last one that gives its lease back stops it. If they were all
killed, the next ``with server(home)`` adopts what they left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flows._prefect import api, process, zombies
from flows._prefect.guard import guarded
from flows._prefect.place import Place, Record
from grym.errors import ConfigError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START_SECONDS = 120.0

# What a person may set otherwise; the address, the home and the ban on ephemeral servers are not negotiable.
CLIENT_ENV: Mapping[str, str] = {
    "PREFECT_TASKS_DEFAULT_NO_CACHE": "true",  # the default policy hashes every argument of every call
    "PREFECT_LOGGING_TO_API_ENABLED": "true",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",  # it is the same installation
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "60",  # signs of life, whose absence makes a run a crashed one
}


@dataclass(frozen=True, slots=True)
class Server:
    """A Prefect server that answers.

    Attributes:
        url: address of the API, ends in ``/api``.
        pid: its process; None for one that ``PREFECT_API_URL`` names.
        ours: started or adopted here; False when another live process or ``PREFECT_API_URL`` brought it.
        ui: address of the web page.
    """

    url: str
    pid: int | None
    ours: bool
    ui: str


@dataclass(frozen=True, slots=True)
class State:
    """What a home's server is doing, for people.

    Attributes:
        server: the live server on record, or None.
        holders: live processes that use it.
        log: where it prints.
    """

    server: Server | None
    holders: tuple[int, ...]
    log: Path


@contextmanager
def server(
    home: Path, *, keep: bool = False, guard: bool = False, start_seconds: float = START_SECONDS
) -> Iterator[Server]:
    """Have a Prefect server for the code inside, and Prefect's settings point at it.

    ``PREFECT_API_URL`` in the environment wins: that server is used and
    nothing is started, stopped or set. Otherwise the home's own server is
    used, and started if it does not run. Not for two threads of one process
    at the same time: the environment is the process's.

    Args:
        home: home of everything stored; the server's database goes to ``home/prefect``.
        keep: leave the server running afterwards.
        guard: bring it back, at its address and on its database, if it dies meanwhile.
        start_seconds: how long it may take to answer.

    Raises:
        ConfigError: ``PREFECT_API_URL`` is set and nothing answers there.
        WorkerError: the server died or did not answer in time.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named:
        yield _named(named.rstrip("/"))
        return
    place = _place(home)
    record, ours, lease = _join(place, keep=keep, seconds=start_seconds)
    try:
        watch = guarded(place, start_seconds) if guard else nullcontext()
        with _settings(_client_environment(place, record)), watch:
            try:
                yield Server(record.url, record.pid, ours, record.ui)
            finally:
                _flush()
    finally:
        _leave(place, record, lease, seconds=start_seconds)


def drain(api_url: str, flow_run_id: str, expected: int, seconds: float = 30) -> int:
    """Wait until the server has recorded the end of ``expected`` task runs of a flow run.

    Task states travel as events and are written later; a server stopped
    before that loses them. Task runs of sub-flows belong to the sub-flow's run.

    Args:
        api_url: address of the API, as in :attr:`Server.url`.
        flow_run_id: id of the flow run.
        expected: how many task runs the flow made.
        seconds: when to give up.

    Returns:
        How many task runs in a terminal state are on record; less than ``expected`` after the deadline.
    """
    deadline = time.monotonic() + seconds
    count = 0
    while True:
        # A busy server may miss a question; the deadline decides.
        count = api.ended(api_url, flow_run_id, seconds=max(1.0, deadline - time.monotonic())) or count
        if count >= expected or time.monotonic() >= deadline:
            return count
        time.sleep(api.POLL_SECONDS)


def state(home: Path) -> State:
    """What the home's server is doing; starts and stops nothing."""
    place = _place(home)
    record = place.record()
    if record is None or not record.alive:
        return State(None, (), place.log)
    holders = tuple(place.holders())
    return State(Server(record.url, record.pid, not holders, record.ui), holders, place.log)


def stop(home: Path) -> bool:
    """Stop the home's server unless a live process uses it.

    Returns:
        Whether no server runs any more.
    """
    place = _place(home)
    if not place.folder.is_dir():
        return True
    with place.locked(START_SECONDS):
        return _stop_unused(place, even_kept=True)


def serve_ui(home: Path) -> None:
    """Keep the home's server up in the foreground until Ctrl-C; its web page shows all recorded runs.

    A flow that uses the server at that moment keeps it until it is done.

    Raises:
        ConfigError: ``PREFECT_API_URL`` is set and nothing answers there.
        WorkerError: the server could not start, or died.
    """
    with ExitStack() as stack:
        over = stack.enter_context(_stop_signals())
        found = stack.enter_context(server(home))
        print(f"Prefect UI: {found.ui}", flush=True)
        if found.pid is None:
            print("That server is named by PREFECT_API_URL; nothing to keep up here.", flush=True)
            return
        print("Ctrl-C stops it.", flush=True)
        record = _place(home).record()
        while record is not None and record.alive:
            if over.wait(0.5):
                return
        msg = "The Prefect server ended by itself."
        raise WorkerError(msg, code="server-died", hint=f"Its log is {_place(home).log}.")


def _place(home: Path) -> Place:
    return Place(home.resolve() / "prefect")


def _named(url: str) -> Server:
    for pause in (0.0, 0.5):
        time.sleep(pause)
        if api.is_healthy(url):
            return Server(url, None, ours=False, ui=url.removesuffix("/api"))
    msg = f"PREFECT_API_URL is {url}, and no Prefect server answers there."
    raise ConfigError(msg, code="prefect-url", hint="Unset it to use a server of this home, or start that one.")


def _join(place: Place, *, keep: bool, seconds: float) -> tuple[Record, bool, Path]:
    with place.locked(2 * seconds):
        others = place.holders()
        before = place.record()
        record = process.running(place, seconds)
        ours = not others and not (record.keep and record == before)
        if not others:  # what processes left that were killed
            zombies.sweep(record.url, place)
            zombies.watch(record.url)
        if keep and not record.keep:
            record = replace(record, keep=True)
            place.write(record)
        return record, ours, place.lease()


def _leave(place: Place, mine: Record, lease: Path, *, seconds: float) -> None:
    with place.locked(2 * seconds):
        lease.unlink(missing_ok=True)
        if place.record() is None:
            place.write(mine)  # somebody deleted the home meanwhile; the process must not stay behind
        _stop_unused(place, even_kept=False)


def _stop_unused(place: Place, *, even_kept: bool) -> bool:
    record = place.record()
    if record is None:
        return True
    if place.holders() or (record.keep and not even_kept):
        return False
    if record.alive and "prefect" in sys.modules:
        # A flow ran in this process; what the server has not written when it stops is lost.
        api.settle(record.url)
    process.stop(place, record)
    return True


def _client_environment(place: Place, record: Record) -> dict[str, str]:
    # Without this a proxy of the environment is asked for 127.0.0.1 too.
    direct = ",".join(filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost")))
    chosen = {name: os.environ.get(name, value) for name, value in CLIENT_ENV.items()}
    return {
        **chosen,
        **process.QUIET_ENV,
        "PREFECT_API_URL": record.url,
        "PREFECT_HOME": str(place.folder),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # it would lose the records of most task runs, silently
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


@contextmanager
def _settings(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    _refresh()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _refresh()


def _refresh() -> None:
    """Make a Prefect that is already imported read the environment again."""
    context = sys.modules.get("prefect.context")
    if context is not None:
        context.refresh_global_settings_context()


def _flush() -> None:
    """Send what Prefect still queues in this process, while its server is there to take it."""
    events, logs = sys.modules.get("prefect.events.worker"), sys.modules.get("prefect.logging.handlers")
    workers = [events and events.EventsWorker, logs and logs.APILogWorker]
    # In a thread of its own there is no event loop, so that the call waits instead of returning a coroutine.
    with ThreadPoolExecutor(1) as pool:
        for worker in filter(None, workers):
            pool.submit(worker.drain_all, timeout=process.GRACE_SECONDS, at_exit=False).result()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a polite kill sets, instead of ending the process in the middle of something."""
    over = threading.Event()
    previous = {kind: signal.signal(kind, lambda *_: over.set()) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield over
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)
