"""A model in a process of its own: a crash, a leak or an endless loop in it never reaches the caller.

Starts the child on first use, gives every call a deadline that is kept by
killing, starts a new child for the next call, and turns whatever happens into a
typed error. Knows nothing about retry policies. Times are seconds, memory is MB
(10^6 bytes). POSIX only.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import threading
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from grym.errors import DeadlineError, GrymError, ModelError, ResourceError, WorkerError
from grym.models.registry import writable_options
from grym.parts import disk
from grym.worker import codec, outcome
from grym.worker.backoff import Backoff
from grym.worker.line import Line
from grym.worker.process import ChildProcess, TimeUp, measured_folder
from grym.worker.protocol import Frame, Json, Message, Operation, encode
from grym.worker.watchdog import MB, Guard, oom_kills, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from grym.config import ModelSpec, WorkerLimits
    from grym.models.interface import Answer, AudioClip, Card, Level, Options
    from grym.worker.outcome import Facts, Usage

log = logging.getLogger(__name__)

Broken = TypeVar("Broken", bound=GrymError)
STARTING: Final = frozenset({Operation.LIMIT, Operation.LOAD})
POLITE_SECONDS: Final = 2.0
TERM_SECONDS: Final = 2.0
LEAST_SECONDS: Final = 0.001
DEATH_SECONDS: Final = 1.0
CHILD_GRACE_SECONDS: Final = 2.0
# Of the memory beyond what a child usually has between calls: one that holds so much more has leaked it.
LEAK_SHARE: Final = 0.5
FULL_SHARE: Final = 0.8
USUAL_CALLS: Final = 3  # after which it is known what a child usually has: caches are filled by the first ones
FEW_CALLS: Final = 5  # a child that is full after so few holds what it needs, and ending it would help nobody ...
VAIN_ENDS: Final = 2  # ... if that happened so often in a row
RELEASE_SHARE: Final = 0.5  # of the memory that a child may have: with more it gives back what it can after a call


class Worker:
    """One model in a child process. Thread-safe: one call at a time, others wait, ``limits.queue`` at most.

    Args:
        spec: the model.
        limits: how long things may take and what the child may use.
        scratch: folder the child may write to; made if missing. Give each worker its own.
        plugins: folders the child may import adapters from.
        cache: folder where adapters remember what they measured about this machine; made if missing.

    Attributes:
        load_seconds: time the current child took from start to loaded.
        kept: limits that the current child keeps itself, see :mod:`grym.worker.limits`.

    Example:
        ``with Worker(settings.model("wav2vec2-mini"), settings.worker, scratch) as worker: worker.process(clips, ...)``
    """

    def __init__(
        self,
        spec: ModelSpec,
        limits: WorkerLimits,
        scratch: Path,
        *,
        plugins: Sequence[Path] = (),
        cache: Path | None = None,
    ) -> None:
        self.spec = spec
        self.load_seconds = 0.0
        self.kept: tuple[str, ...] = ()
        self._limits = limits
        self._guard = Guard.of(limits, spec.memory_mb)
        self._backoff = Backoff(limits.backoff_seconds, limits.backoff_max_seconds)
        self._scratch = scratch.resolve()
        self._cache = cache
        self._plugins = [str(folder.resolve()) for folder in plugins]
        self._lock = threading.RLock()
        self._child: ChildProcess | None = None
        self._card: Card | None = None
        self._started = 0
        self._closed = False
        self._stop = threading.Event()
        self._calls = threading.Lock()  # guards what follows, never held for long
        self._asking: ChildProcess | None = None
        self._cancelled = False
        self._line = Line(spec.name, 1, limits.queue)
        self._oom_kills = 0
        self._answered = 0  # by this child
        self._first_mb = self._usual_mb = 0.0
        self._vain_ends = 0
        self._held_mb, self._grown = 0.0, (0.0, 0.0)

    def __enter__(self) -> Self:
        """Start the child."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the worker."""
        self.close()

    @property
    def card(self) -> Card:
        """What the model is; starts the child if it was never started."""
        return self._card or self.start()

    @property
    def pid(self) -> int | None:
        """Process id of the child, or ``None`` while there is none."""
        child = self._child
        return None if child is None else child.pid

    @property
    def restarts(self) -> int:
        """How many children were started after the first one."""
        return max(0, self._started - 1)

    @property
    def resident_mb(self) -> float:
        """Resident memory of the child now, in MB; 0 while there is none."""
        pid = self.pid
        return 0.0 if pid is None else resident_bytes(pid) / MB

    @property
    def memory_mb(self) -> float:
        """Memory that the child may use, in MB; 0 if nothing limits it."""
        return self._guard.memory_mb

    @property
    def pressed(self) -> bool:
        """Whether so many calls wait that cheaper settings are due."""
        return self._line.pressed

    @property
    def runs(self) -> bool:
        """Whether there is a child and it has not ended."""
        child = self._child
        return child is not None and not child.ended()

    def start(self, patience: float = 0.0) -> Card:
        """Start the child and load the model; does nothing if it runs.

        Args:
            patience: how long to wait for the next try, in seconds, after starts or calls that failed. Where it is
                due later, the last error is raised again with ``retry_after_seconds`` in its metadata.

        Raises:
            ConfigError: the adapter or an option is wrong.
            ModelError: the model cannot be loaded, or is not the same after a restart.
            WorkerError: the child died while loading, or the worker is closed.
            DeadlineError: not loaded within ``limits.start_seconds``.
            ResourceError: the model does not fit into the memory that it may use.
        """
        if self._card is not None and self.runs and not self._closed:  # it may be in a call: nobody waits for that here
            return self._card
        with self._lock:
            return self._start(patience)

    def _start(self, patience: float) -> Card:
        with self._lock:
            if self._closed:
                raise outcome.closed(self.spec.name, "is closed")
            if self._child is not None and self._child.ended():
                self._discard()
            if self._child is None:
                self._wait_for_turn(patience)
                self._load()
            self._running().trim()
            assert self._card is not None  # noqa: S101 - _load has just made sure
            return self._card

    def process(
        self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None, priority: int = 0
    ) -> tuple[list[Answer], Usage]:
        """Answer every clip, in order.

        Args:
            clips: the batch.
            options: options of the call.
            deadline: seconds until the child is killed, waiting for other calls included and a start not; default
                ``limits.call_seconds + limits.call_seconds_per_audio_second * seconds of audio``, and any time to wait.
            priority: calls with a higher one are served first and sent away last.

        Raises:
            UnavailableError: ``overloaded``: too many calls wait; ``retry_after_seconds`` is in the metadata.
            DeadlineError: no answer in time; the child was killed. Or it was never this call's turn.
            WorkerError: the child died or broke the protocol; the next call starts a new one.
            ModelError: the model raised, or its answers are not usable.
            ResourceError: the model ran out of memory.
            GrymError: any typed error that the adapter raised.
        """
        reply, usage = self._ask_about(clips, Operation.PROCESS_AUDIO, {"options": asdict(options)}, deadline, priority)
        return codec.unpack_answers(outcome.result(reply).get("answers"), reply.frames, clips), usage

    def features(self, clips: Sequence[AudioClip], *, deadline: float | None = None) -> tuple[Frame, Usage]:
        """Feature vectors, float32 ``shape = (clips, dim)``; errors and deadline as in :meth:`process`."""
        reply, usage = self._ask_about(clips, Operation.EXTRACT_FEATURES, {}, deadline)
        return codec.unpack_matrix(outcome.result(reply), reply.frames, len(clips)), usage

    def analyze(
        self, clips: Sequence[AudioClip], level: Level = "basic", *, deadline: float | None = None
    ) -> tuple[list[dict[str, float]], Usage]:
        """Signal measurements of every clip; errors and deadline as in :meth:`process`."""
        reply, usage = self._ask_about(clips, Operation.ANALYZE, {"level": level}, deadline)
        return codec.unpack_measures(outcome.result(reply).get("measurements"), len(clips)), usage

    def ping(self, deadline: float | None = None) -> dict[str, Any]:
        """What the model says when asked whether it is alive, and its ``pid``; errors as in :meth:`process`.

        Args:
            deadline: seconds until the child is killed; default ``limits.call_seconds``.
        """
        seconds = self._limits.call_seconds if deadline is None else deadline
        reply, _ = self._ask(Operation.PING, {}, None, seconds, math.inf if deadline is None else deadline)
        return dict(outcome.result(reply))

    def cancel(self) -> bool:
        """Cut off the call that runs now, from another thread; it raises WorkerError ``cancelled``.

        The child is killed, because nothing else ends C code; the next call starts a new one. Calls that wait
        are not touched.

        Returns:
            Whether a call was running. It may still have been answered at the same moment.
        """
        with self._calls:
            if self._asking is None:
                return False
            self._cancelled = True
            self._asking.strike()
            return True

    def restart(self) -> Card:
        """End the child politely and start a new one; what it took so far is given back to the system.

        Raises:
            GrymError: as :meth:`start`.
        """
        with self._lock:
            if self._child is not None:
                _say_goodbye(self._child)
                self._discard()
            return self.start()

    def forget_peak(self) -> None:
        """Let ``peak_rss_mb`` count from now on, where the system can do that (Linux); elsewhere nothing happens."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")

    def close(self) -> None:
        """Shut the child down: politely, then by SIGTERM, then by SIGKILL, always with its whole group.

        Safe to call twice and from another thread: a call that is still running after two seconds is cut off and
        raises WorkerError.
        """
        self._closed = True
        self._stop.set()
        while not self._lock.acquire(timeout=POLITE_SECONDS):
            if (child := self._child) is not None:
                child.strike()  # whoever holds the lock sees the death and reaps
        try:
            if self._child is not None:
                _say_goodbye(self._child)
                self._discard()
        finally:
            self._lock.release()

    def _ask_about(
        self, clips: Sequence[AudioClip], operation: Operation, data: Json, deadline: float | None, priority: int = 0
    ) -> tuple[Message, Usage]:
        share = self._limits.call_seconds_per_audio_second * sum(clip.seconds for clip in clips)
        seconds = self._limits.call_seconds + share if deadline is None else deadline
        return self._ask(operation, data, clips, seconds, math.inf if deadline is None else deadline, priority)

    def _ask(
        self,
        operation: Operation,
        data: Json,
        clips: Sequence[AudioClip] | None,
        seconds: float,
        wait: float,
        priority: int = 0,
    ) -> tuple[Message, Usage]:
        came = time.monotonic()
        with self._turn(priority, wait):
            if math.isfinite(wait):
                seconds = max(LEAST_SECONDS, seconds - (time.monotonic() - came))
            self._start(patience=seconds)
            started = time.perf_counter()
            frames: tuple[Frame, ...] = ()
            if clips is not None:  # here, because the child's memory holds one request
                audio, frames = codec.pack_clips(clips, self._running().arena)
                data = {"audio": audio, **data}
            before = self.resident_mb
            try:
                reply = self._exchange(self._running(), operation, data, frames, seconds)
            except ResourceError as error:
                self._look_for_leak(error, before)
                raise
            took = time.perf_counter() - started
            if clips is not None:
                self._end_if_full()
            return reply, outcome.usage(reply, took)

    def _end_if_full(self) -> None:
        """End a child that leaked until it is nearly full, before a call fails; the next call starts a new one.

        What it needs is no leak: what its first calls left behind is taken for usual, and a model whose processes
        are full again and again after a few calls is left alone while it does not go on growing.
        """
        held = self.resident_mb
        self._answered += 1
        self._grown = (self._grown[1], held - self._held_mb)
        self._held_mb = held
        self._first_mb = self._first_mb or held
        if self._answered <= USUAL_CALLS:
            self._usual_mb = max(self._usual_mb, held)
            return
        usual = self._usual_mb
        if self.memory_mb > usual and held - usual > FULL_SHARE * (self.memory_mb - usual):
            # It grew with each of the last two calls, and would be too large with one more: that is a leak after all.
            if self._vain_ends >= VAIN_ENDS and held + min(self._grown) <= self.memory_mb:
                return
            self._vain_ends = self._vain_ends + 1 if self._answered <= FEW_CALLS else 0
            log.warning(
                "%s held %.0f of %.0f MB between calls; it is started anew.", self.spec.name, held, self.memory_mb
            )
            self._discard()

    def _look_for_leak(self, error: ResourceError, before: float) -> None:
        """End a child that had filled most of its memory before a call was too much; a new one can do the same call.

        Args:
            error: what the call raised; ``leaked`` in its metadata says that the call itself was not too much.
            before: resident memory of the child before the call, in MB.
        """
        usual = self._first_mb
        room = self.memory_mb - usual if self.memory_mb > usual else usual
        if error.code != "out-of-memory" or not usual or before - usual < LEAK_SHARE * room:
            return
        error.metadata |= {"leaked": True, "resident_mb": round(before), "usual_mb": round(usual)}
        error.retryable = True
        self._discard()  # politely would take time that the call does not have

    @contextlib.contextmanager
    def _turn(self, priority: int, seconds: float) -> Iterator[None]:
        """Wait until it is this call's turn, unless too many wait already, and no longer than ``seconds``."""
        until = time.monotonic() + seconds
        with self._line.turn(priority, seconds):
            # Another thread may be starting or ending the child.
            left = -1.0 if math.isinf(until) else max(0.0, until - time.monotonic())
            if not self._lock.acquire(timeout=min(left, threading.TIMEOUT_MAX)):
                raise outcome.not_its_turn(self.spec.name, seconds)
            try:
                yield
            finally:
                self._lock.release()

    def _wait_for_turn(self, patience: float) -> None:
        """Wait until a child that failed may be started again."""
        seconds = self._backoff.remaining
        if seconds > patience:
            raise self._backoff.error
        if seconds and self._stop.wait(seconds):
            raise outcome.closed(self.spec.name, "was closed while it waited")

    def _load(self) -> None:
        try:
            self._load_once()
        except GrymError as error:
            if not self._closed and error.code != "cancelled":
                self._backoff.failed(error, starting=True)
            raise

    def _load_once(self) -> None:
        started = time.perf_counter()
        with disk("The worker's folder"):
            self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = self._scratch / f"{re.sub(r'[^A-Za-z0-9._-]', '_', self.spec.name)}.log"
        self._oom_kills = oom_kills()
        self._child = ChildProcess(self._scratch, log, self._limits.threads, self._cache, self._guard)
        self._started += 1
        self._answered = 0
        self._held_mb, self._grown = 0.0, (0.0, 0.0)
        self._first_mb = self._usual_mb = 0.0
        data = {"spec": self.spec.model_dump(mode="json"), "plugins": self._plugins, **self._child.offer()}
        try:
            seconds = self._limits.start_seconds
            until = time.monotonic() + seconds  # both have to be done by then
            limited = self._exchange(self._child, Operation.LIMIT, self._own_limits(), (), seconds, until)
            self.kept = tuple(outcome.result(limited).get("kept", ()))
            reply = self._exchange(self._child, Operation.LOAD, data, (), seconds, until)
            card = self._same(codec.unpack_card(outcome.result(reply).get("card")))
            self._child.accept(told=outcome.result(reply).get("shared") is True)
        except BaseException:
            self._discard()
            raise
        self._card = card
        self.load_seconds = time.perf_counter() - started

    def _own_limits(self) -> Json:
        """What the child is told to keep itself."""
        limits = self._limits
        if self._cache is not None:
            with contextlib.suppress(OSError):  # then nothing is remembered
                self._cache.mkdir(parents=True, exist_ok=True)
        places = [self._scratch, *([self._cache] if self._cache else []), *writable_options(self.spec)]
        return {
            "memory_mb": self.spec.memory_mb or limits.memory_mb,
            "release_mb": round(RELEASE_SHARE * self.memory_mb, 3),
            "cpu_seconds": limits.cpu_seconds,
            "open_files": limits.open_files,
            "file_mb": limits.file_mb,
            "confine": limits.confine,
            "writable": [str(place.resolve()) for place in (*places, *measured_folder())],
        }

    def _same(self, card: Card) -> Card:
        """Refuse a restarted child whose model is not the one that answered before."""
        if self._card is not None and self._card.revision != card.revision:
            msg = f"{self.spec.name!r} came back as revision {card.revision}; it was {self._card.revision}."
            raise ModelError(msg, code="revision-changed", hint="Start a new run: its weights were replaced.")
        return card

    def _exchange(
        self,
        child: ChildProcess,
        operation: Operation,
        data: Json,
        frames: tuple[Frame, ...],
        seconds: float,
        until: float | None = None,
    ) -> Message:
        identity = str(uuid.uuid4())
        header = {"id": identity, "operation": operation, "deadline": seconds + CHILD_GRACE_SECONDS, "data": data}
        buffers = encode(Message(header, frames))
        until = time.monotonic() + seconds if until is None else until
        with self._calls:
            self._asking, self._cancelled = child, False
        try:
            child.send(buffers, until)
            reply = child.receive(until)
            error = None if reply is None else outcome.read_status(reply, identity)
        except TimeUp:
            raise self._too_late(child, operation, seconds) from None
        except ResourceError as broken:  # it took more than it may
            broken.metadata |= {"pid": child.pid, "operation": str(operation), "log": child.tail()}
            self._discard()
            raise self._counted(broken, operation) from None
        except WorkerError as broken:  # the place in the stream is lost, or the child is not what it should be
            if broken.code == "truncated":
                raise self._crashed(child, operation) from broken
            broken.metadata["log"] = child.tail()
            self._discard()
            raise self._counted(broken, operation) from None
        except BaseException:  # KeyboardInterrupt: an answer would be in the pipe and meet the next question
            self._discard()
            raise
        finally:
            with self._calls:
                self._asking = None
        if reply is None:
            raise self._crashed(child, operation)
        if operation not in STARTING:
            self._backoff.succeeded()
        if error is not None:
            raise error
        return reply

    def _counted(self, error: Broken, operation: Operation) -> Broken:
        """Note that a call ended the child; a start is noted where all of it ends."""
        if operation not in STARTING and error.code != "cancelled" and not self._closed:
            self._backoff.failed(error, starting=False)
        return error

    def _crashed(self, child: ChildProcess, operation: Operation) -> GrymError:
        child.wait(DEATH_SECONDS)
        facts: Facts = {"pid": child.pid, "operation": str(operation), "log": child.tail()}
        code = self._discard()
        if self._closed:
            return outcome.closed(self.spec.name, f"was closed during {operation}")
        if self._cancelled:
            return outcome.cancelled(self.spec.name, operation, facts)
        short = oom_kills() > self._oom_kills
        return self._counted(outcome.crashed(self.spec.name, operation, code, facts, out_of_memory=short), operation)

    def _too_late(self, child: ChildProcess, operation: Operation, seconds: float) -> DeadlineError:
        facts: Facts = {"pid": child.pid, "operation": str(operation), "log": child.tail()}
        self._discard()
        told = Operation.LOAD if operation in STARTING else operation
        return self._counted(outcome.too_late(self.spec.name, told, seconds, facts), operation)

    def _running(self) -> ChildProcess:
        assert self._child is not None  # noqa: S101 - start() has just made sure
        return self._child

    def _discard(self) -> int:
        """Kill and reap the child; its exit code, 0 if there is none."""
        child, self._child = self._child, None
        return 0 if child is None else child.kill()


def _say_goodbye(child: ChildProcess) -> None:
    request = Message({"id": str(uuid.uuid4()), "operation": Operation.SHUTDOWN, "data": {}})
    with contextlib.suppress(TimeUp):
        child.send(encode(request), time.monotonic() + POLITE_SECONDS)
    child.hang_up()
    if not child.wait(POLITE_SECONDS):
        child.terminate()
        child.wait(TERM_SECONDS)
