"""What is known about the memory that calls take: measured peaks, sizes that were too much, and what follows.

One entry for each revision and setting (rung, options) of a model, kept in the home with the other
shared state (:mod:`grym.resilience.state`). Peaks give a straight line in the audio
of a batch; a model that was never measured gets a careful guess. Knows nothing about
workers. Sizes are MB (10^6 bytes), audio is seconds.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from grym.models.interface import Card
    from grym.resilience.state import States

SAFETY: Final = 1.25  # on what a second of audio takes
STEPS_PER_DOUBLING: Final = 2  # sizes closer than that are one measurement
CHANGE: Final = 0.02  # a peak that differs by less is not worth a write
KEPT: Final = 32
# A guess for a model that was never measured, times the root of its parameters in millions: what is kept of each
# second of audio grows with the width of a network, which goes with that root.
GUESS_MB: Final = 2.0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about one revision and rung.

    Attributes:
        peaks: seconds of audio in a call and the highest memory during it, in MB, from small to large.
        too_much: smallest batch that ran out of memory, in seconds of audio; infinite if none did lately.
        too_much_alone: the same for single clips.
        until: when both are forgotten, in seconds since 1970.
        limit_mb: the limit that was in force; under another one they do not count.
    """

    peaks: tuple[tuple[float, float], ...] = ()
    too_much: float = math.inf
    too_much_alone: float = math.inf
    until: float = 0.0
    limit_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """Memory of a call as a straight line: ``base_mb + per_second_mb * seconds``."""

    base_mb: float
    per_second_mb: float
    measured: bool = field(default=True)

    def peak_mb(self, seconds: float) -> float:
        """Memory of a call with so much audio, with the margin of safety."""
        return self.base_mb + SAFETY * self.per_second_mb * seconds

    def most_seconds(self, room_mb: float) -> float:
        """Audio with which a call stays within so much memory; infinite if it does not depend on the audio."""
        if self.per_second_mb <= 0:
            return math.inf
        return max(0.0, (room_mb - self.base_mb) / (SAFETY * self.per_second_mb))


def fit(peaks: tuple[tuple[float, float], ...], base_mb: float, guess_mb: float) -> Line:
    """The line through what was measured, not below any of it.

    Args:
        peaks: seconds and MB.
        base_mb: memory of the process before the call.
        guess_mb: MB for each second, where nothing was measured.
    """
    if not peaks:
        return Line(base_mb, guess_mb, measured=False)
    seconds, highest = np.array(peaks, dtype=np.float64).T
    if len(peaks) == 1:
        slope = max(0.0, (highest[0] - base_mb) / max(seconds[0], 1e-3))
    else:
        slope = max(0.0, float(np.polyfit(seconds, highest, 1)[0]))
    base = float(np.max(highest - slope * seconds))
    return Line(base, float(slope))


class Ledger:
    """Reads and keeps what is known. Thread-safe.

    Args:
        states: where it is kept.
        expiry_seconds: how long a failure is remembered.
        clock: seconds since 1970.
    """

    def __init__(self, states: States, expiry_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._states, self._expiry, self._clock = states, expiry_seconds, clock

    def known(self, revision: str, rung: str, limit_mb: float = 0.0) -> Known:
        """What is known; failures under another limit, or of long ago, are left out."""
        noted = self._states.note(_name(revision, rung))
        found = Known()
        if noted is not None:
            with suppress(ValueError, TypeError):
                raw = json.loads(noted[0])
                found = Known(**{**raw, "peaks": tuple((float(s), float(mb)) for s, mb in raw["peaks"])})
        if not 0 <= found.until - self._clock() <= self._expiry or found.limit_mb != limit_mb:
            found = replace(found, too_much=math.inf, too_much_alone=math.inf, until=0.0, limit_mb=limit_mb)
        return found

    def line(self, known: Known, card: Card, base_mb: float) -> Line:
        """How much memory calls to a model take."""
        return fit(known.peaks, base_mb, GUESS_MB * math.sqrt(max(1.0, card.parameters / 1e6)))

    def measured(self, known: Known, revision: str, rung: str, seconds: float, peak_mb: float) -> None:
        """A call took so much; kept if it tells something new."""
        if seconds <= 0 or peak_mb <= 0:
            return
        step = _step(seconds)
        old = {_step(s): (s, mb) for s, mb in known.peaks}
        if step in old and peak_mb <= old[step][1] * (1 + CHANGE):
            return
        old[step] = (round(seconds, 2), round(peak_mb, 1))
        peaks = tuple(sorted(old.values()))[-KEPT:]
        self._keep(revision, rung, replace(known, peaks=peaks))

    def failed(self, known: Known, revision: str, rung: str, seconds: float, *, alone: bool) -> Known:
        """A call with so much audio ran out of memory; what is known from now on."""
        name = "too_much_alone" if alone else "too_much"
        smallest = min(seconds, getattr(known, name))
        known = replace(known, **{name: smallest, "until": self._clock() + self._expiry})
        self._keep(revision, rung, known)
        return known

    def rung_failed(self, model: str, rung: str) -> None:
        """A model did not fit into the memory with these settings."""
        self._states.put_note(f"memory/rung/{model}/{rung}", repr(self._clock()))

    def rung_is_due(self, model: str, rung: str) -> bool:
        """Whether these settings may be tried: they did not fail lately."""
        noted = self._states.note(f"memory/rung/{model}/{rung}")
        at = math.nan
        with suppress(ValueError, TypeError):
            at = float(noted[0])  # type: ignore[index]  # None is a TypeError
        return not 0 <= self._clock() - at < self._expiry

    def _keep(self, revision: str, rung: str, known: Known) -> None:
        self._states.put_note(_name(revision, rung), json.dumps(asdict(known)))


def _name(revision: str, rung: str) -> str:
    digest = hashlib.sha256(rung.encode()).hexdigest()[:12]  # a rung may say much
    return f"memory/{revision}/{digest}"


def _step(seconds: float) -> int:
    return round(STEPS_PER_DOUBLING * math.log2(seconds))
