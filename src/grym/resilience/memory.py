"""How many clips a model is asked at once: what the free memory holds, less after it was too much.

Stands between whoever has a planned batch and the worker. The batch stays what it
is for everybody else: it is asked in parts, and the answers come back together.
Every call is measured, so that the next estimate is better; a call that runs out of
memory is asked again in halves, and the size is remembered. Answers of a batch that
was asked in parts say so in their rung. Knows nothing about tasks or routes. Sizes
are MB (10^6 bytes), audio is seconds.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from grym.errors import DeadlineError, GrymError, ResourceError
from grym.models.interface import Answer
from grym.models.memory import free_bytes
from grym.worker.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grym.models.interface import AudioClip, Card, Options
    from grym.resilience.ledger import Ledger

log = logging.getLogger(__name__)

MB: Final = 1e6
SHARE: Final = 0.8  # of what is free: others need memory too, and what is free changes
# Codes of errors that mean: less at once, or cheaper settings.
SHORT: Final = frozenset({"out-of-memory", "not-enough-memory"})
LEAST_SECONDS: Final = 0.001


class Asked(Protocol):
    """What is needed of a worker or a pool; ``resident_mb`` and ``memory_mb`` are used where it has them."""

    @property
    def card(self) -> Card:
        """What the model is."""
        ...

    def process(
        self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None
    ) -> tuple[list[Answer], Any]:
        """Answer every clip, in order, within ``deadline`` seconds."""
        ...


class MemoryManager:
    """Asks models for no more at once than the memory holds. Thread-safe.

    Args:
        ledger: what is known about models.
        free_mb: memory that is free now, in MB, on ``cpu`` or ``cuda``.
    """

    def __init__(
        self, ledger: Ledger, free_mb: Callable[[str], float] = lambda device: free_bytes(device) / MB
    ) -> None:
        self.ledger = ledger
        self._free_mb = free_mb

    def most_seconds(self, worker: Asked, card: Card | None = None) -> float:
        """Seconds of audio that a call should hold at most; infinite if memory is no matter."""
        card = card or worker.card
        limit = _number(worker, "memory_mb")
        known = self.ledger.known(card.revision, _settings(worker, card), limit)
        resident = _number(worker, "resident_mb")
        device = "cuda" if "cuda" in card.rung else "cpu"
        line = self.ledger.line(known, card, 0.0 if device == "cuda" else resident)
        free = SHARE * self._free_mb(device)
        # On a GPU the line begins at what is allocated with the weights, and that is not free any more.
        room = line.base_mb + free if device == "cuda" else min(resident + free, limit or math.inf)
        return min(line.most_seconds(room), known.too_much / 2)

    def process(
        self,
        worker: Asked,
        clips: Sequence[AudioClip],
        options: Options,
        *,
        deadline: float | None = None,
        card: Card | None = None,
        tell: Callable[[ResourceError], None] | None = None,
        **more: Any,
    ) -> tuple[list[Answer], Usage]:
        """Answer every clip, in order, in as many calls as it takes.

        Args:
            worker: a worker or a pool.
            clips: the batch.
            options: options of the calls.
            deadline: seconds for all calls together; default that of the worker for each.
            card: what the model is, if the caller knows.
            tell: hears of every call that was too much and is made again in halves.
            more: further arguments of the worker's ``process``.

        Returns:
            Answers and what all calls took together. A clip that is too much for the memory by itself has an
            answer with the error, if others could be answered.

        Raises:
            ResourceError: no clip could be answered for want of memory.
            GrymError: whatever the worker raises.
        """
        card = card or worker.card
        until = math.inf if deadline is None else time.monotonic() + deadline
        work = _Work(self, worker, card, options, until, more, tell)
        parts = _parts(clips, self.most_seconds(worker, card)) if len(clips) > 1 else [clips]
        for part in parts:
            work.ask(part)
        return work.result(len(clips))

    def ask(
        self, worker: Asked, card: Card, clips: Sequence[AudioClip], options: Options, **more: Any
    ) -> tuple[list[Answer], Any]:
        """One call, measured; a size that fails is remembered.

        Raises:
            ResourceError: out of memory, or known to be.
            GrymError: whatever the worker raises.
        """
        seconds = sum(clip.seconds for clip in clips)
        limit = _number(worker, "memory_mb")
        settings = _settings(worker, card)
        known = self.ledger.known(card.revision, settings, limit)
        if len(clips) == 1 and seconds >= known.too_much_alone:
            msg = (
                f"{card.name!r} ran out of memory with a clip of {known.too_much_alone:.1f} s; this one is not shorter."
            )
            hint = "Cut it, use shorter windows or a smaller precision, or allow more memory in grym.toml."
            raise ResourceError(msg, code="out-of-memory", hint=hint, retryable=False)
        try:
            answers, usage = _process(worker, clips, options, more)
        except ResourceError as error:
            if error.code in SHORT and not error.metadata.get("leaked"):  # then the size was not too much
                self.ledger.failed(known, card.revision, settings, seconds, alone=len(clips) == 1)
            raise
        peak = _number(usage, "gpu_peak_mb" if "cuda" in card.rung else "call_peak_mb")
        self.ledger.measured(known, card.revision, settings, seconds, peak)
        return answers, usage


def _process(
    worker: Asked, clips: Sequence[AudioClip], options: Options, more: dict[str, Any]
) -> tuple[list[Answer], Any]:
    """One call; another one for each process that calls before had filled: all those of a pool may be full."""
    deadline = more.get("deadline")
    until = math.inf if deadline is None else time.monotonic() + deadline
    for _ in range(max(1, int(_number(getattr(worker, "load", None), "workers")))):
        try:
            return worker.process(clips, options, **more)
        except ResourceError as error:
            if not error.metadata.get("leaked"):
                raise
            held = error.metadata.get("resident_mb")
            log.warning("%s It held %s MB before the call; a new process is asked.", error.message, held)
        if deadline is not None:
            more = {**more, "deadline": max(LEAST_SECONDS, until - time.monotonic())}
    return worker.process(clips, options, **more)


class _Work:
    """The calls of one batch."""

    def __init__(
        self,
        manager: MemoryManager,
        worker: Asked,
        card: Card,
        options: Options,
        until: float,
        more: dict[str, Any],
        tell: Callable[[ResourceError], None] | None,
    ) -> None:
        self._tell = tell
        self._manager, self._worker, self._card, self._options = manager, worker, card, options
        self._until, self._more = until, more
        self._answers: list[Answer] = []
        self._usages: list[Usage] = []
        self._errors: list[GrymError] = []
        self._largest = 0.0

    def ask(self, clips: Sequence[AudioClip]) -> None:
        """Ask about some clips; in halves if they are too much."""
        more = self._more
        if math.isfinite(self._until):
            left = self._until - time.monotonic()
            if left < LEAST_SECONDS:
                msg = f"{self._card.name!r} gave no answer in time, in {len(self._usages)} calls."
                raise DeadlineError(msg, code="deadline", hint="Send less audio, or allow more time.")
            more = {**more, "deadline": left}
        try:
            answers, usage = self._manager.ask(self._worker, self._card, clips, self._options, **more)
        except ResourceError as error:
            if error.code not in SHORT:
                raise
            if len(clips) > 1:
                if self._tell is not None:
                    self._tell(error)
                half = len(clips) // 2
                self.ask(clips[:half])
                self.ask(clips[half:])
                return
            card = self._card
            self._errors.append(error)
            self._answers.append(
                Answer(clips[0].id, None, rung=card.rung, model=card.name, revision=card.revision, error=error.record())
            )
            return
        self._answers += answers
        self._usages.append(usage)
        self._largest = max(self._largest, sum(clip.seconds for clip in clips))

    def result(self, clips: int) -> tuple[list[Answer], Any]:
        if self._errors and len(self._errors) == clips:
            raise self._errors[-1]
        if len(self._usages) == 1:
            return self._answers, self._usages[0]
        parts = f" batch={self._largest:.3g}s"
        answers = [replace(one, rung=f"{one.rung}{parts}") if one.error is None else one for one in self._answers]
        return answers, _together(self._usages)


def _parts(clips: Sequence[AudioClip], most: float) -> list[Sequence[AudioClip]]:
    """Neighbours that stay within ``most`` seconds together; a longer clip is a part of its own."""
    parts: list[list[AudioClip]] = [[]]
    total = 0.0
    for clip in clips:
        if parts[-1] and total + clip.seconds > most:
            parts.append([])
            total = 0.0
        parts[-1].append(clip)
        total += clip.seconds
    return list(parts)


def _together(usages: Sequence[Usage]) -> Usage:
    """What several calls took: times added up, the highest of each peak."""
    return Usage(
        wall_seconds=sum(one.wall_seconds for one in usages),
        compute_seconds=sum(one.compute_seconds for one in usages),
        cpu_seconds=sum(one.cpu_seconds for one in usages),
        peak_rss_mb=max(one.peak_rss_mb for one in usages),
        pid=usages[-1].pid,
        call_peak_mb=max(one.call_peak_mb for one in usages),
        gpu_peak_mb=max(one.gpu_peak_mb for one in usages),
    )


def _settings(worker: Asked, card: Card) -> str:
    """The rung with the options of the adapter: some change the memory and no answer, so the revision is the same."""
    options = getattr(getattr(worker, "spec", None), "options", {})
    return f"{card.rung} {json.dumps(dict(options), sort_keys=True, default=str)}"


def _number(owner: object, name: str) -> float:
    """A figure that not everybody has; 0 where it is not known."""
    value = getattr(owner, name, 0.0)
    return float(value) if isinstance(value, int | float) else 0.0
