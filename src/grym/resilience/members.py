"""One model of a route: asked in a thread of its own, so that a deadline is kept whatever the model does.

A worker's own deadline begins when its child runs; starting one, or waiting for
another call to end, comes on top. Here the caller stops waiting when the time is
over, and the worker goes on to kill, restart and load in its thread, so that it is
warm when it is asked again. Knows nothing about breakers. Times are seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from grym.errors import DeadlineError, GrymError, UnavailableError
from grym.worker.outcome import overloaded
from grym.worker.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grym.models.interface import Answer, AudioClip, Card, Options

T = TypeVar("T")
THREADS: Final = 4  # calls of one model at once, if nobody says otherwise; a worker answers one after the other
LEAST_SECONDS: Final = 0.001
PATIENT_SECONDS: Final = 2.0  # longest wait for a process that may not be started yet
SOON: Final = 0.002  # after a back-off is over, which is told in whole milliseconds
log = logging.getLogger(__name__)


class Asked(Protocol):
    """What a member needs of a worker: :class:`grym.worker.Worker` has it."""

    @property
    def card(self) -> Card:
        """What the model is; starts it if it was never started."""
        ...

    def start(self) -> Card:
        """Start it; does nothing if it runs."""
        ...

    def process(
        self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None
    ) -> tuple[list[Answer], Any]:
        """Answer every clip, in order, within ``deadline`` seconds."""
        ...

    def close(self) -> None:
        """Release everything; safe to call twice."""
        ...


class Member:
    """A model that can be asked under a deadline.

    Args:
        name: registered name.
        make: makes its worker; called again after :meth:`restart`.
        threads: calls at once, those that wait for a worker included.
    """

    def __init__(self, name: str, make: Callable[[], Asked], threads: int = THREADS) -> None:
        self.name = name
        self._make = make
        self._threads = threads
        self._lock = threading.Lock()
        self._worker: Asked | None = None
        self._reviving = False
        self._busy = 0
        self._closing = threading.Event()
        self._ending: list[threading.Thread] = []
        self._pool = ThreadPoolExecutor(threads + 1, thread_name_prefix=f"ask-{name}")

    @property
    def worker(self) -> Asked:
        """The worker of now."""
        with self._lock:
            if self._worker is None:
                self._worker = self._make()
            return self._worker

    @property
    def runs(self) -> bool:
        """Whether its worker has a process; true if it does not say."""
        worker = self._worker
        return worker is not None and bool(getattr(worker, "runs", True))

    def process(
        self,
        clips: Sequence[AudioClip],
        options: Options,
        seconds: float,
        priority: int = 0,
        *,
        patient: bool = False,
    ) -> list[Answer]:
        """Answer every clip, in order.

        Args:
            clips: the batch.
            options: options of the call.
            seconds: how long it may take.
            priority: where calls wait for a worker, higher ones go first and are sent away last.
            patient: wait for a worker that may not be started yet, because it has just failed.

        Raises:
            DeadlineError: not within ``seconds``, a start of the child included.
            UnavailableError: ``overloaded``: as many calls as it may have are waiting already.
            GrymError: whatever the worker raises.
        """
        until = time.monotonic() + seconds

        def ask() -> list[Answer]:
            worker = self.worker
            self._started(worker, min(until, time.monotonic() + PATIENT_SECONDS) if patient else 0.0)
            left = until - time.monotonic()
            if left <= LEAST_SECONDS:  # nobody waits any more; but it is warm for the next one
                raise self._too_late(seconds)
            more: dict[str, Any] = {"priority": priority} if priority else {}  # not everybody knows of priorities
            return worker.process(clips, options, deadline=left, **more)[0]

        return self._wait(ask, seconds)

    def revive(self) -> None:
        """Start the child again in the background, if nobody does already."""
        with self._lock:
            if self._reviving:
                return
            self._reviving = True
        with suppress(RuntimeError):  # it is closed
            self._pool.submit(self._start)

    def restart(self) -> None:
        """End the child, in the background because a request has no time for that; the next call starts a new one."""
        with self._lock:
            worker, self._worker = self._worker, None
            self._ending = [thread for thread in self._ending if thread.is_alive()]
            if worker is not None:
                thread = threading.Thread(target=worker.close, name=f"end-{self.name}")
                thread.start()
                self._ending.append(thread)

    def close(self) -> None:
        """End the child and the threads; safe to call twice."""
        self._closing.set()
        self.restart()
        for thread in self._ending:
            thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.restart()  # what a thread made meanwhile
        for thread in self._ending:
            thread.join()

    def _started(self, worker: Asked, until: float) -> None:
        """Start a worker; one that may not be started yet is waited for if there is time until ``until``."""
        try:
            worker.start()
        except GrymError as error:
            wait = error.metadata.get("retry_after_seconds")
            if not isinstance(wait, int | float) or time.monotonic() + wait + SOON > until:
                raise
            if self._closing.wait(wait + SOON):
                raise
            worker.start()

    def _start(self) -> None:
        try:
            with suppress(GrymError):
                self._started(self.worker, time.monotonic() + PATIENT_SECONDS)
        finally:
            with self._lock:
                self._reviving = False

    def _wait(self, ask: Callable[[], T], seconds: float) -> T:
        with self._lock:
            if self._busy >= self._threads:
                raise overloaded(self.name, self._busy, seconds)
            self._busy += 1
        try:
            future = self._pool.submit(ask)
        except RuntimeError as error:
            self._done()
            msg = f"{self.name!r} is closed."
            raise UnavailableError(msg, code="closed", hint="Open the route again.") from error
        future.add_done_callback(lambda _: self._done())
        try:
            return future.result(seconds)
        except StillRunning as error:
            if isinstance(error, GrymError):  # the worker's own DeadlineError is a TimeoutError too
                raise
            future.cancel()
            raise self._too_late(seconds) from error
        except GrymError:
            raise
        except Exception as error:
            log.exception("%s failed in a way that nobody foresaw.", self.name)
            msg = f"Asking {self.name!r} failed: {type(error).__name__}: {redact(str(error))}"
            raise GrymError(msg, code="unforeseen", hint="Report it with the log.") from error

    def _done(self) -> None:
        with self._lock:
            self._busy -= 1

    def _too_late(self, seconds: float) -> DeadlineError:
        msg = f"{self.name!r} gave no answer within {seconds:.3g} s."
        hint = "Send less audio, or raise deadline_seconds of the route in grym.toml."
        return DeadlineError(msg, code="deadline", hint=hint, metadata={"deadline_seconds": round(seconds, 3)})
