"""Several workers of one model: as many as the memory holds, the least loaded one asked, a dead one replaced.

A call waits in a bounded line (:mod:`grym.worker.line`) until a worker is free. A
worker that died, or has answered its share of calls, is started anew by a thread of
the pool while the others serve. Knows nothing about retry policies. Times are
seconds, memory is MB (10^6 bytes).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from grym.errors import GrymError, UnavailableError
from grym.models.memory import free_bytes
from grym.worker import outcome
from grym.worker.client import Worker
from grym.worker.line import Line
from grym.worker.process import available_cores
from grym.worker.watchdog import MB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from grym.config import ModelSpec, WorkerLimits
    from grym.models.interface import Answer, AudioClip, Card, Level, Options
    from grym.worker.outcome import Usage
    from grym.worker.protocol import Frame

T = TypeVar("T")
LOOK_SECONDS: Final = 0.5
HEADROOM: Final = 1.3  # a further worker has to fit with that factor: it will work, too
MOST: Final = 256
log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Seat:
    """One worker and how much it has had to do."""

    worker: Worker
    busy: bool = False
    down: bool = False
    calls: int = 0
    seconds: float = 0.0
    answered: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a pool is.

    Attributes:
        workers: workers that it has.
        down: those that are being started anew.
        busy: those that answer a call.
        waiting: calls that wait.
        shed: calls that were sent away since the pool was made.
        replaced: workers that were started anew after a death.
        recycled: workers that were started anew after their share of calls.
    """

    workers: int
    down: int
    busy: int
    waiting: int
    shed: int
    replaced: int
    recycled: int


class Pool:
    """Workers of one model; has the methods of :class:`grym.worker.Worker`. Thread-safe.

    Args:
        spec: the model.
        limits: as for a worker; ``workers`` and ``recycle_after`` count here.
        scratch: folder in which each worker gets one of its own.
        plugins: folders the children may import adapters from.
        cache: as for a worker.
        free_mb: memory that is free now, in MB; asked for the card's device.

    Example:
        ``with Pool(settings.model("wav2vec2-mini"), settings.worker, scratch) as pool: pool.process(clips, Options())``
    """

    def __init__(
        self,
        spec: ModelSpec,
        limits: WorkerLimits,
        scratch: Path,
        *,
        plugins: Sequence[Path] = (),
        cache: Path | None = None,
        free_mb: Callable[[str], float] = lambda device: free_bytes(device) / MB,
    ) -> None:
        self.spec = spec
        self._limits, self._scratch, self._plugins, self._cache = limits, scratch, plugins, cache
        self._free_mb = free_mb
        self._line = Line(spec.name, 1, limits.queue)
        self._lock = threading.Lock()
        self._first = threading.Lock()
        self._seats: list[_Seat] = []
        self._recycled = 0
        self._wake = threading.Event()
        self._closed = False
        self._card: Card | None = None
        self._keeper: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start the workers."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all workers."""
        self.close()

    @property
    def card(self) -> Card:
        """What the model is; starts the pool if it was never started."""
        return self._card or self.start()

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that run."""
        return [seat.worker.pid for seat in list(self._seats) if seat.worker.pid is not None]

    @property
    def load(self) -> Load:
        """How busy it is."""
        with self._lock:
            seats = self._seats
            down, busy = sum(seat.down for seat in seats), sum(seat.busy for seat in seats)
            replaced = sum(seat.worker.restarts for seat in seats) - self._recycled
        line = self._line
        return Load(len(seats), down, busy, line.waiting, line.shed, replaced, self._recycled)

    @property
    def runs(self) -> bool:
        """Whether any of its workers has a process."""
        return any(seat.worker.runs for seat in list(self._seats))

    @property
    def pressed(self) -> bool:
        """Whether so many calls wait that cheaper settings are due."""
        return self._line.pressed

    @property
    def resident_mb(self) -> float:
        """Resident memory of the largest child, in MB."""
        return max((seat.worker.resident_mb for seat in list(self._seats)), default=0.0)

    @property
    def memory_mb(self) -> float:
        """Memory that one child may use, in MB; 0 if nothing limits it."""
        return self._seats[0].worker.memory_mb if self._seats else 0.0

    def start(self, patience: float = 0.0) -> Card:
        """Start the first worker, and as many others beside it as there is room for; does nothing if it runs.

        Raises:
            GrymError: as :meth:`grym.worker.Worker.start` of the first one; others that cannot start are left out.
        """
        with self._first:
            if self._closed:
                raise outcome.closed(self.spec.name, "is closed")
            if self._card is not None:
                return self._card
            if not self._seats:
                self._seats.append(self._seat(0))
            first = self._seats[0]
            before = self._free_mb("cpu")
            card = first.worker.start(patience)
            count = self._affordable(card, first.worker, before)
            self._seats += [self._seat(number, down=True) for number in range(1, count)]
            self._line.resize(count)
            self._card = card
            self._keeper = threading.Thread(target=self._keep, name=f"pool-{self.spec.name}", daemon=True)
            self._keeper.start()
            return card

    def process(
        self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None, priority: int = 0
    ) -> tuple[list[Answer], Usage]:
        """Answer every clip, in order; see :meth:`grym.worker.Worker.process`.

        Args:
            clips: the batch.
            options: options of the call.
            deadline: seconds for waiting and answering; default: no bound for waiting, the worker's for answering.
            priority: calls with a higher one are served first and sent away last.

        Raises:
            UnavailableError: ``overloaded``: too many calls wait; ``retry_after_seconds`` is in the metadata.
            DeadlineError: no worker was free, or none answered, within ``deadline``.
            GrymError: as of the worker.
        """
        return self._with(lambda worker, left: worker.process(clips, options, deadline=left), deadline, priority)

    def features(
        self, clips: Sequence[AudioClip], *, deadline: float | None = None, priority: int = 0
    ) -> tuple[Frame, Usage]:
        """Feature vectors, float32 ``shape = (clips, dim)``; errors and deadline as in :meth:`process`."""
        return self._with(lambda worker, left: worker.features(clips, deadline=left), deadline, priority)

    def analyze(
        self, clips: Sequence[AudioClip], level: Level = "basic", *, deadline: float | None = None, priority: int = 0
    ) -> tuple[list[dict[str, float]], Usage]:
        """Signal measurements of every clip; errors and deadline as in :meth:`process`."""
        return self._with(lambda worker, left: worker.analyze(clips, level, deadline=left), deadline, priority)

    def ping(self, deadline: float | None = None) -> dict[str, Any]:
        """What a free worker says when asked whether it is alive; errors as in :meth:`process`."""
        return self._with(lambda worker, left: worker.ping(left), deadline, 0)

    def cancel(self) -> int:
        """Cut off the calls that run now; how many. Those that wait are served next."""
        return sum(seat.worker.cancel() for seat in list(self._seats))

    def close(self) -> None:
        """Shut all workers down, each as :meth:`grym.worker.Worker.close`; safe to call twice."""
        self._closed = True
        self._wake.set()
        threads = [threading.Thread(target=seat.worker.close) for seat in list(self._seats)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join()

    def _with(self, ask: Callable[[Worker, float | None], T], deadline: float | None, priority: int) -> T:
        until = math.inf if deadline is None else time.monotonic() + deadline
        self.start(patience=self._limits.call_seconds if deadline is None else deadline)
        with self._line.turn(priority, until - time.monotonic()), self._taken() as seat:
            if deadline is not None and not seat.worker.runs:
                self._started(seat.worker, deadline, until)
            left = None if deadline is None else max(0.001, until - time.monotonic())
            return ask(seat.worker, left)

    @contextmanager
    def _taken(self) -> Iterator[_Seat]:
        """The free worker with the least work so far; it is looked after if the call ends badly."""
        with self._lock:
            if self._closed:
                raise outcome.closed(self.spec.name, "is closed")
            free = [seat for seat in self._seats if not seat.busy and not seat.down]
            # All that is free may be dead this moment: then one of those is waited for.
            free = free or [seat for seat in self._seats if not seat.busy]
            free = [seat for seat in free if seat.worker.runs] or free
            if not free:
                msg = f"No worker of {self.spec.name!r} is there."
                raise UnavailableError(msg, code="overloaded", hint="Ask again.", retryable=True)
            seat = min(free, key=lambda one: one.seconds)
            seat.busy = True
        started = time.monotonic()
        try:
            yield seat
            seat.answered += 1
        finally:
            with self._lock:
                seat.busy = False
                seat.calls += 1
                seat.seconds += time.monotonic() - started
            if not seat.worker.runs or self._worn(seat):
                self._wake.set()

    def _started(self, worker: Worker, deadline: float, until: float) -> None:
        """Start a worker in a thread, so that the caller waits no longer than it has time; it goes on starting."""
        errors: list[GrymError] = []

        def start() -> None:
            try:
                worker.start(patience=max(0.0, until - time.monotonic()))
            except GrymError as error:
                errors.append(error)

        thread = threading.Thread(target=start, name=f"start-{self.spec.name}", daemon=True)
        thread.start()
        thread.join(min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX))
        if errors:
            raise errors[0]
        if thread.is_alive():
            raise outcome.not_its_turn(self.spec.name, deadline)

    def _worn(self, seat: _Seat) -> bool:
        return bool(self._limits.recycle_after) and seat.calls >= self._limits.recycle_after

    def _keep(self) -> None:
        """Start what is not running, and anew what has done its share; the last free one is never taken away."""
        while not self._closed:
            for seat in list(self._seats):
                if not self._closed and self._due(seat):
                    self._revive(seat)
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()

    def _due(self, seat: _Seat) -> bool:
        """Whether a worker is to be started (anew) now; marks it and takes its place out of the line."""
        with self._lock:
            if seat.busy:
                return False
            if not seat.worker.runs:
                seat.down = True
            others = any(not one.down for one in self._seats if one is not seat)
            if not seat.down and self._worn(seat) and (others or len(self._seats) == 1):
                seat.down = True
            down = seat.down
            up = sum(not one.down for one in self._seats)
        self._line.resize(max(1, up))
        return down

    def _revive(self, seat: _Seat) -> None:
        worn = seat.worker.runs
        try:
            if worn:
                seat.worker.restart()
            else:
                seat.worker.start()
        except GrymError as error:
            log.warning("A worker of %s cannot be started: %s", self.spec.name, error.message)
            return  # the next look tries again, when the back-off allows it
        with self._lock:
            seat.calls, seat.down = 0, False
            self._recycled += bool(worn)
            # New ones begin like the least loaded of the others, or they would get every call for a while.
            seat.seconds = min((one.seconds for one in self._seats if one is not seat), default=0.0)
            up = sum(not one.down for one in self._seats)
        self._line.resize(max(1, up))

    def _seat(self, number: int, *, down: bool = False) -> _Seat:
        limits = self._limits
        if limits.workers != 1 and not limits.threads:  # all cores for each of several would be too many
            share = available_cores() // (limits.workers or available_cores())
            limits = limits.model_copy(update={"threads": max(1, share)})
        made = Worker(self.spec, limits, self._scratch / str(number), plugins=self._plugins, cache=self._cache)
        return _Seat(made, down=down)

    def _affordable(self, card: Card, first: Worker, before_mb: float) -> int:
        """How many workers there is room for, at most as many as grym.toml says."""
        wanted = self._limits.workers or min(MOST, max(1, available_cores() // max(1, self._limits.threads)))
        device = "cuda" if "cuda" in card.rung else "cpu"
        with suppress(ZeroDivisionError, OverflowError):
            one = max(first.resident_mb, before_mb - self._free_mb("cpu") if device == "cpu" else 0.0)
            more = int(self._free_mb("cpu") / (one * HEADROOM))
            if device == "cuda":
                weights = card.parameters * 4 / MB
                more = min(more, int(self._free_mb("cuda") / (weights * HEADROOM)) if weights else more)
            if 1 + more < wanted:
                log.warning("%s: %d workers fit into the memory, not %d.", self.spec.name, 1 + more, wanted)
            return max(1, min(wanted, 1 + more))
        return 1
