"""One child process as its parent sees it: start it, talk to it with a deadline, end it without a trace.

Knows the protocol's framing and nothing of what is said. The child leads its own
process group, so that ending it ends its helpers too; it is reaped only after
that, because a reaped leader's number may belong to somebody else. Moments are
readings of ``time.monotonic()``. POSIX only.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grym.errors import WorkerError
from grym.parts import full, is_full
from grym.worker.protocol import Message, read_message
from grym.worker.redact import redact
from grym.worker.shared import Arena
from grym.worker.watchdog import Guard, family

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ENTRY: Final = str(Path(__file__).with_name("__main__.py"))
TICK_SECONDS: Final = 0.1
NAP_SECONDS: Final = 0.005
LOG_BYTES: Final = 8 * 2**20
TAIL_BYTES: Final = 2_000
PIPE_BYTES: Final = 2**20
INHERITED: Final = ("PATH", "LANG", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
INHERITED_PREFIX: Final = "COVERAGE_"
# How a child waits and where it gets memory; measured in docs/benchmarks.md.
COMPUTING: Final = {
    # Threads that spin while they wait take the core from whoever they wait for, if anything else runs beside them.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Keep what is freed between calls instead of having the kernel clear the same pages again, in few pools.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_ARENA_MAX": "2",
    # Programs that oneDNN keeps, a megabyte each.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
}


class TimeUp(Exception):  # noqa: N818 - a signal between two private parts, not an error of the platform
    """The moment passed before the child took or gave everything."""


class ChildProcess:
    """A running worker process; not thread-safe.

    Args:
        scratch: existing folder; the child's working directory, home and temporary folder.
        log: file for its standard error.
        threads: threads it may compute with; 0 means all cores.
        cache: folder for what is worth remembering longer than the scratch folder lives.
        guard: what it may use, looked at while it is waited for.
        shared: whether to offer shared memory.

    Attributes:
        arena: memory shared with it, once it has said that it reads audio there.

    Raises:
        WorkerError: ``no-start``: the system refused to start it.
    """

    def __init__(
        self,
        scratch: Path,
        log: Path,
        threads: int,
        cache: Path | None = None,
        guard: Guard | None = None,
        *,
        shared: bool = True,
    ) -> None:
        self._log = log
        self._guard = guard or Guard()
        self.arena: Arena | None = None
        self._offered = Arena.create() if shared else None
        try:
            with log.open("ab") as sink:
                self._log_start = sink.tell()
                self._process = subprocess.Popen(
                    [sys.executable, "-I", ENTRY],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=sink,
                    cwd=scratch,
                    env=environment(scratch, threads, cache),
                    pass_fds=[] if self._offered is None else [self._offered.descriptor],
                    bufsize=0,
                    start_new_session=True,
                )
        except OSError as error:
            self._forget()
            msg = f"The worker process could not be started: {error.strerror}."
            if is_full(error):
                raise full(msg) from error
            raise WorkerError(msg, code="no-start", hint="Check free memory, processes and descriptors.") from error
        assert self._process.stdin is not None  # noqa: S101 - told apart for the type checker
        assert self._process.stdout is not None  # noqa: S101
        self._sink, self._source = self._process.stdin, self._process.stdout
        os.set_blocking(self._sink.fileno(), False)
        os.set_blocking(self._source.fileno(), False)
        _widen(self._sink.fileno())
        _widen(self._source.fileno())

    def offer(self) -> dict[str, dict[str, int]]:
        """What the request ``load`` says about shared memory."""
        return {} if self._offered is None else {"shared": self._offered.offer()}

    def accept(self, *, told: bool) -> None:
        """Use the shared memory from now on if the reply to ``load`` said so, else give it up."""
        if told:
            self.arena = self._offered
        else:
            self._forget()

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._process.pid

    def send(self, buffers: Sequence[memoryview], until: float) -> None:
        """Write an encoded message; a child that listens no more is found out by :meth:`receive`.

        Raises:
            TimeUp: ``until`` passed.
            ResourceError: the child takes more than it may.
        """
        sink = self._sink.fileno()
        with contextlib.suppress(BrokenPipeError):
            for buffer in buffers:
                at = 0
                while at < len(buffer) and self._wait(sink, select.POLLOUT, until):
                    with contextlib.suppress(BlockingIOError):
                        at += os.write(sink, buffer[at:])

    def receive(self, until: float) -> Message | None:
        """Read a message; ``None`` if the child ended before its first byte.

        Raises:
            TimeUp: ``until`` passed.
            WorkerError: the message is truncated or garbled; a fresh child may do better, so it may be tried again.
            ResourceError: the child takes more than it may.
        """
        source = self._source.fileno()

        def readinto(view: memoryview) -> int:
            while self._wait(source, select.POLLIN, until):
                with contextlib.suppress(BlockingIOError):
                    return os.readv(source, [view])
            return 0

        try:
            return read_message(readinto)
        except WorkerError as error:
            hint = "It is started anew with the next call."
            raise WorkerError(error.message, code=error.code, hint=hint, retryable=True) from error

    def ended(self) -> bool:
        """Whether the child has ended. It is not reaped, so that its group can still be named."""
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def wait(self, seconds: float) -> bool:
        """Wait until the child has ended, at most ``seconds``; whether it has."""
        until = time.monotonic() + seconds
        while not self.ended() and time.monotonic() < until:
            time.sleep(NAP_SECONDS)
        return self.ended()

    def terminate(self) -> None:
        """Ask the whole group to end."""
        self._signal(signal.SIGTERM)

    def strike(self) -> None:
        """Kill the whole group and leave it to another thread to notice and to reap."""
        self._signal(signal.SIGKILL)

    def kill(self) -> int:
        """Kill what is left of the group, reap the child and close the pipes; safe to call twice.

        Helpers that left the group are killed too, as long as the child lives that they descend from.

        Returns:
            The exit code, negative for a signal.
        """
        helpers = family(self.pid)[1:] if self._process.returncode is None else []
        if helpers:  # it may be starting more of them this moment
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGSTOP)
            helpers = family(self.pid)[1:]
        self.strike()
        for helper in helpers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(helper, signal.SIGKILL)
        code = self._process.wait()
        self._sink.close()
        self._source.close()
        self._forget()
        return code

    def hang_up(self) -> None:
        """Close the child's input, which asks it to end."""
        self._sink.close()

    def tail(self) -> str:
        """The last words on its standard error, without folders."""
        try:
            with self._log.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(self._log_start if size >= self._log_start else 0, size - TAIL_BYTES))
                return redact(stream.read().decode("utf-8", errors="replace"), TAIL_BYTES)
        except OSError:
            return ""

    def trim(self) -> None:
        """Empty the log if it has grown large; the child appends, so it goes on at the start."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_BYTES:
                os.truncate(self._log, 0)

    def _wait(self, descriptor: int, event: int, until: float) -> bool:
        """Wait until a pipe is ready; false when the child ended and left nothing.

        Looks at the child itself now and then: a helper it forked may hold the pipe open after its death.
        """
        poller = select.poll()
        poller.register(descriptor, event)
        while (left := until - time.monotonic()) > 0:
            if poller.poll(min(left, TICK_SECONDS) * 1000):
                return True
            if self.ended():
                return bool(poller.poll(0))
            self._guard.check(self.pid)
        raise TimeUp

    def _forget(self) -> None:
        self.arena = None
        if self._offered is not None:
            self._offered.close()
            self._offered = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


def environment(scratch: Path, threads: int, cache: Path | None = None) -> dict[str, str]:
    """Everything a child inherits: no secrets, no network for model hubs, a home of its own, and :data:`COMPUTING`."""
    names = [name for name in os.environ if name in INHERITED or name.startswith(INHERITED_PREFIX)]
    return {
        **{name: os.environ[name] for name in names},
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "OMP_NUM_THREADS": str(threads or available_cores()),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        **COMPUTING,
        **({} if cache is None else {"GRYM_CACHE": str(cache.resolve())}),
    }


def measured_folder() -> list[Path]:
    """Where a child that is measured for coverage leaves what it saw; empty in every other run."""
    told = os.environ.get("COVERAGE_PROCESS_CONFIG")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return [Path(json.loads(base64.b64decode(told))["data_file"]).parent] if told else []
    return []


def _widen(descriptor: int) -> None:
    """Let a pipe take more at once, where the system lets us: every fill of it wakes the other end."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def available_cores() -> int:
    """Cores that this process may use."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
