"""A model of a route that steps down to cheaper settings when memory is short, and up again later.

The settings are :mod:`grym.models.rungs`. What did not fit is remembered for a while,
by all processes of a home. Which settings an answer was made with is in its ``rung``.
While calls pile up (more wait than are served), calls that begin ask for less. Asks
through the memory manager. Knows nothing about routes. Times are seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from grym.errors import ConfigError, ResourceError
from grym.models.rungs import Rung, ladder
from grym.resilience.memory import SHORT, MemoryManager

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grym.config import ModelSpec
    from grym.models.interface import Answer, AudioClip, Card, Options
    from grym.worker.outcome import Usage

log = logging.getLogger(__name__)


class Ladder:
    """One model on the highest rung that fits. Thread-safe; has what a route asks of a worker.

    Args:
        spec: the model as grym.toml says.
        make: makes a worker, or a pool, of the model with other settings.
        manager: how much is asked at once.
        degrade: whether cheaper settings may be used at all.
    """

    def __init__(
        self, spec: ModelSpec, make: Callable[[ModelSpec], Any], manager: MemoryManager, *, degrade: bool = True
    ) -> None:
        self._spec, self._make, self._manager = spec, make, manager
        self._rungs = ladder(spec) if degrade else (Rung(),)
        self._degrade = degrade
        self._lock = threading.RLock()
        self._at = 0
        self._worker: Any = None
        self._closed = False

    @property
    def card(self) -> Card:
        """What the model is on its present rung; starts it if it was never started."""
        card: Card = self._running()[0].card
        return card

    @property
    def rung(self) -> Rung:
        """The settings in force."""
        return self._rungs[self._at]

    @property
    def pid(self) -> int | None:
        """Process id of the worker, or of the first one of a pool; ``None`` while there is none."""
        worker = self._worker
        return (
            next(iter(getattr(worker, "pids", [])), None) if hasattr(worker, "pids") else getattr(worker, "pid", None)
        )

    @property
    def runs(self) -> bool:
        """Whether it has a process; true if its worker does not say."""
        worker = self._worker
        return worker is not None and bool(getattr(worker, "runs", True))

    def start(self, patience: float = 0.0) -> Card:
        """Start the model on the highest rung that is not known to be too much; steps down until one fits.

        Raises:
            ResourceError: not even the lowest rung fits.
            GrymError: as of the worker.
        """
        del patience  # a route does not wait for a back-off: it asks the next model
        with self._lock:
            due = self._first_due()
            if self._worker is not None and due < self._at:  # what was too much is forgotten by now
                self._drop()
            if self._worker is None:
                self._at = due
            return self._climb_down()

    def process(
        self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None, **more: Any
    ) -> tuple[list[Answer], Usage]:
        """Answer every clip, in order; what is too much for the memory is asked once more on the next rung.

        Raises:
            ResourceError: a clip was too much on the lowest rung.
            GrymError: as of the worker.
        """
        until = None if deadline is None else time.monotonic() + deadline
        while True:
            worker, at = self._running()
            rung = self._rungs[at]
            cheaper, words = rung.ask(options, pressed=self._degrade and bool(getattr(worker, "pressed", False)))
            left = None if until is None else max(0.001, until - time.monotonic())
            try:
                answers, usage = self._manager.process(worker, clips, cheaper, deadline=left, **more)
            except ResourceError as error:
                if error.code not in SHORT or not self._step_down(at):
                    raise
                continue
            if any(one.error is not None and one.error.code in SHORT for one in answers) and self._step_down(at):
                continue
            return [replace(one, rung=_rung(one.rung, rung, words)) for one in answers], usage

    def close(self) -> None:
        """Release everything; safe to call twice and from another thread."""
        self._closed = True
        worker = self._worker
        if worker is not None:
            worker.close()

    def _running(self) -> tuple[Any, int]:
        with self._lock:
            if self._worker is None:
                self.start()
            return self._worker, self._at

    def _first_due(self) -> int:
        for number, rung in enumerate(self._rungs[:-1]):
            if self._manager.ledger.rung_is_due(self._spec.name, rung.name):
                return number
        return len(self._rungs) - 1

    def _step_down(self, at: int) -> bool:
        """Go to the next rung, unless another thread has done so already; whether there is one."""
        with self._lock:
            if self._at != at:
                return True
            if self._at + 1 >= len(self._rungs) or self._closed:
                return False
            self._give_up(self._at)
            self._at += 1
            self._climb_down()
            return True

    def _climb_down(self) -> Card:
        """Start what is to run; steps down while that is too much."""
        while True:
            if self._worker is None:
                self._worker = self._make(self._rungs[self._at].of(self._spec))
            try:
                card: Card = self._worker.start()
            except (ResourceError, ConfigError) as error:
                # A rung that this machine does not have (int4 without a GPU) is passed over like one that is too much.
                absent = isinstance(error, ConfigError) and self._at > 0
                short = isinstance(error, ResourceError) and error.code in SHORT
                if not (short or absent) or self._at + 1 >= len(self._rungs) or self._closed:
                    raise
                self._give_up(self._at)
                self._at += 1
            else:
                return card

    def _give_up(self, at: int) -> None:
        below = self._rungs[at + 1].name
        log.warning("%s does not fit into the memory; it goes on with %s.", self._spec.name, below)
        self._manager.ledger.rung_failed(self._spec.name, self._rungs[at].name)
        self._drop()

    def _drop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


def _rung(said: str, rung: Rung, words: str) -> str:
    """What the adapter says, and what was changed below it: the precision is in the adapter's own words."""
    below = " ".join(f"{name}={value}" for name, value in rung.spec.items() if name != "precision")
    return " ".join(part for part in (said, below, words) if part)
