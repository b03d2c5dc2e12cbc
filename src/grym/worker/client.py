"""A model in a process of its own: a crash, a leak or an endless loop in it never reaches the caller.

Starts the child on first use, gives every call a deadline that is kept by
killing, starts a new child for the next call, and turns whatever happens into a
typed error. Knows nothing about retry policies. Times are seconds, memory is MB
(10^6 bytes). POSIX only.
"""

from __future__ import annotations

import re
import signal
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from grym.config import ModelSpec, WorkerLimits
from grym.errors import DeadlineError, ModelError, WorkerError
from grym.models.interface import Answer, AudioClip, Card, Level, Options
from grym.worker import codec
from grym.worker.process import ChildProcess, TimeUp
from grym.worker.protocol import Frame, Json, Message, Operation

POLITE_SECONDS: Final = 2.0
TERM_SECONDS: Final = 2.0
DEATH_SECONDS: Final = 1.0
CHILD_GRACE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call took.

    Attributes:
        wall_seconds: from the request to the answer, without waiting for the lock or starting a child.
        compute_seconds: inside the model.
        cpu_seconds: processor time of the child during the call, all threads.
        peak_rss_mb: highest resident memory of the child so far, in MB.
        pid: process id of the child that answered.
    """

    wall_seconds: float
    compute_seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    pid: int


class Worker:
    """One model in a child process. Thread-safe: one call at a time, others wait.

    Args:
        spec: the model.
        limits: how long things may take and how many threads it may use.
        scratch: folder the child may write to; made if missing. Give each worker its own.
        plugins: folders the child may import adapters from.

    Attributes:
        load_seconds: time the current child took from start to loaded.

    Example:
        ``with Worker(settings.model("wav2vec2-mini"), settings.worker, scratch) as worker: worker.process(clips, ...)``
    """

    def __init__(self, spec: ModelSpec, limits: WorkerLimits, scratch: Path, *, plugins: Sequence[Path] = ()) -> None:
        self.spec = spec
        self.load_seconds = 0.0
        self._limits = limits
        self._scratch = scratch.resolve()
        self._plugins = [str(folder.resolve()) for folder in plugins]
        self._lock = threading.RLock()
        self._child: ChildProcess | None = None
        self._card: Card | None = None
        self._started = 0
        self._closed = False

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

    def start(self) -> Card:
        """Start the child and load the model; does nothing if it runs.

        Raises:
            ConfigError: the adapter or an option is wrong.
            ModelError: the model cannot be loaded, or is not the same after a restart.
            WorkerError: the child died while loading, or the worker is closed.
            DeadlineError: not loaded within ``limits.start_seconds``.
        """
        with self._lock:
            if self._closed:
                msg = f"The worker of {self.spec.name!r} is closed."
                raise WorkerError(msg, code="worker-closed", hint="Make a new Worker.", retryable=False)
            if self._child is not None and self._child.ended():
                self._discard()
            if self._child is None:
                self._load()
            assert self._card is not None  # noqa: S101 - told apart for the type checker
            return self._card

    def process(
        self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None
    ) -> tuple[list[Answer], Usage]:
        """Answer every clip, in order.

        Args:
            clips: the batch.
            options: options of the call.
            deadline: seconds until the child is killed; default
                ``limits.call_seconds + limits.call_seconds_per_audio_second * seconds of audio``.

        Raises:
            DeadlineError: no answer in time; the child was killed.
            WorkerError: the child died or broke the protocol; the next call starts a new one.
            ModelError: the model raised, or its answers are not usable.
            ResourceError: the model ran out of memory.
            GrymError: any typed error that the adapter raised.
        """
        reply, usage = self._call(Operation.PROCESS_AUDIO, clips, {"options": asdict(options)}, deadline)
        return codec.unpack_answers(_part(reply, "answers"), reply.frames, clips), usage

    def features(self, clips: Sequence[AudioClip], *, deadline: float | None = None) -> tuple[Frame, Usage]:
        """Feature vectors, float32 ``shape = (clips, dim)``; errors and deadline as in :meth:`process`."""
        reply, usage = self._call(Operation.EXTRACT_FEATURES, clips, {}, deadline)
        return codec.unpack_matrix(_result(reply), reply.frames, len(clips)), usage

    def analyze(
        self, clips: Sequence[AudioClip], level: Level = "basic", *, deadline: float | None = None
    ) -> tuple[list[dict[str, float]], Usage]:
        """Signal measurements of every clip; errors and deadline as in :meth:`process`."""
        reply, usage = self._call(Operation.ANALYZE, clips, {"level": level}, deadline)
        return codec.unpack_measures(_part(reply, "measurements"), len(clips)), usage

    def ping(self, deadline: float | None = None) -> dict[str, Any]:
        """What the model says when asked whether it is alive, and its ``pid``; errors as in :meth:`process`."""
        reply, _ = self._call(Operation.PING, (), {}, deadline)
        return dict(_result(reply))

    def close(self) -> None:
        """Shut the child down: politely, then by SIGTERM, then by SIGKILL, always with its whole group.

        Safe to call twice and from another thread; a call that is still running after two seconds is cut off
        and raises WorkerError.
        """
        self._closed = True
        free = self._lock.acquire(timeout=POLITE_SECONDS)
        try:
            child = self._child
            if child is None:
                return
            if free:
                self._say_goodbye(child)
            child.terminate()
            child.wait(TERM_SECONDS)
            if free:
                self._discard()
        finally:
            if free:
                self._lock.release()
