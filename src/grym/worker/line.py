"""Callers that wait for one of some places: bounded, the most important first, the least important sent away.

Whoever comes when too many wait is refused, or takes the place of somebody less
important, who is told when to ask again. Knows nothing about workers. Times are
seconds.
"""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from grym.worker import outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

NEWEST: Final = 0.2  # weight of the newest turn in the mean of what turns take
LEAST_SECONDS: Final = 0.05
PRESSURE: Final = 2  # callers that wait for each that is served: from here on they had better ask for less


@dataclass(slots=True, eq=False)
class _Waiter:
    priority: int
    number: int
    state: str = "waiting"
    woken: threading.Event = field(default_factory=threading.Event)


class Line:
    """A waiting line. Thread-safe.

    Args:
        name: whom it is for, for messages.
        places: how many may be served at once.
        most: how many may wait; 0 means any number.
    """

    def __init__(self, name: str, places: int, most: int) -> None:
        self._name, self._places, self._most = name, places, most
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: list[_Waiter] = []
        self._served = 0
        self._mean = 0.0
        self.shed = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def pressed(self) -> bool:
        """Whether so many wait that everybody had better ask for less."""
        return len(self._waiting) >= PRESSURE * self._places

    @property
    def retry_after(self) -> float:
        """Seconds until a place is likely to be free for whoever comes now."""
        return max(LEAST_SECONDS, self._mean) * (1 + len(self._waiting)) / max(1, self._places)

    def resize(self, places: int) -> None:
        """Serve so many at once from now on."""
        with self._lock:
            self._places = places
            self._call()

    @contextmanager
    def turn(self, priority: int = 0, seconds: float = float("inf")) -> Iterator[None]:
        """Wait for a place and hold it.

        Args:
            priority: higher ones are served first and sent away last.
            seconds: how long to wait.

        Raises:
            UnavailableError: ``overloaded``; ``retry_after_seconds`` is in the metadata.
            DeadlineError: no place within ``seconds``.
        """
        self._enter(priority, seconds)
        started = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - started
            with self._lock:
                self._mean += NEWEST * (took - self._mean) if self._mean else took
                self._served -= 1
                self._call()

    def _enter(self, priority: int, seconds: float) -> None:
        with self._lock:
            if self._served < self._places and not self._waiting:
                self._served += 1
                return
            if self._most and len(self._waiting) >= self._most:
                self._make_room(priority)
            waiter = _Waiter(priority, next(self._numbers))
            self._waiting.append(waiter)
        try:
            waiter.woken.wait(min(max(0.0, seconds), threading.TIMEOUT_MAX))
        except BaseException:  # Ctrl-C
            self._leave(waiter)
            raise
        with self._lock:
            if waiter.state == "served":
                return
            if waiter.state == "waiting":
                self._waiting.remove(waiter)
                late = outcome.not_its_turn(self._name, seconds)
                late.metadata["retry_after_seconds"] = round(self.retry_after, 3)
                raise late
            raise outcome.overloaded(self._name, len(self._waiting), self.retry_after)

    def _leave(self, waiter: _Waiter) -> None:
        """Take back a caller that stopped waiting, with the place that it may have got this moment."""
        with self._lock:
            if waiter.state == "waiting":
                self._waiting.remove(waiter)
            elif waiter.state == "served":
                self._served -= 1
                self._call()

    def _make_room(self, priority: int) -> None:
        """Send the least important one away, the last that came among equals; or refuse."""
        self.shed += 1
        least = min(self._waiting, key=lambda waiter: (waiter.priority, -waiter.number))
        if least.priority >= priority:
            raise outcome.overloaded(self._name, len(self._waiting), self.retry_after)
        self._waiting.remove(least)
        least.state = "shed"
        least.woken.set()

    def _call(self) -> None:
        """Serve whoever is next, as long as there are places."""
        while self._waiting and self._served < self._places:
            first = min(self._waiting, key=lambda waiter: (-waiter.priority, waiter.number))
            self._waiting.remove(first)
            self._served += 1
            first.state = "served"
            first.woken.set()
