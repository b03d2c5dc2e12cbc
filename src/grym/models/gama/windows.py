"""Windows of long clips, and one answer from those of its windows.

Knows nothing about networks. Audio is float32 ``shape = (samples,)``, times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grym.models.interface import Samples

REACH_SECONDS: Final = 1.0  # a border may lie this far in front of the longest possible one
FRAME_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Span:
    """Samples ``[start, stop)`` of a clip."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Part:
    """What was said about a window.

    Attributes:
        start: beginning of the window in seconds.
        end: its end in seconds.
        text: the answer.
        confidence: in [0, 1].
    """

    start: float
    end: float
    text: str
    confidence: float


def split(samples: Samples, rate: int, seconds: float) -> list[Span]:
    """Windows of at most ``seconds`` that cover a clip once, without overlap.

    A border lies at the quietest 20 ms within the last second of a window, so that words stay whole; what is left
    at the end is shared by the last two windows, so that none is a scrap.
    """
    longest, reach = int(seconds * rate), int(min(REACH_SECONDS, seconds / 4) * rate)
    spans, start = [], 0
    while samples.size - start > longest:
        rest = samples.size - start
        high = start + (longest if rest >= 2 * longest else (rest + reach) // 2)
        high = min(high, start + longest)
        low = high - reach
        border = low + _quietest(samples[low:high], max(1, int(FRAME_SECONDS * rate)))
        spans.append(Span(start, border))
        start = border
    return [*spans, Span(start, samples.size)]


def merge_texts(parts: Sequence[Part], task: str) -> str:
    """One text from those of the windows, in order.

    A transcript is joined by spaces; descriptions and answers are listed with their times, equal neighbours once.
    An answer that is the same in every window is just that.
    """
    said = [part for part in parts if part.text]
    if task == "transcribe":
        return " ".join(part.text for part in said)
    joined = join_equal(said)
    if len(joined) == 1:
        return joined[0].text
    return " ".join(f"[{part.start:.1f}-{part.end:.1f} s] {part.text}" for part in joined)


def join_equal(parts: Sequence[Part]) -> list[Part]:
    """Neighbours with the same text as one, with the longest-lasting one's share of confidence."""
    joined: list[Part] = []
    for part in parts:
        if joined and joined[-1].text == part.text:
            last = joined.pop()
            joined.append(Part(last.start, part.end, part.text, mean_confidence([last, part])))
        else:
            joined.append(part)
    return joined


def mean_confidence(parts: Sequence[Part]) -> float:
    """Mean of the confidences, weighted by length; 0 without parts."""
    total = sum(part.end - part.start for part in parts)
    return min(1.0, sum(part.confidence * (part.end - part.start) for part in parts) / total) if total else 0.0


def _quietest(samples: Samples, frame: int) -> int:
    """Middle of the quietest frame; the last of several, so that windows are long."""
    count = max(1, samples.size // frame)
    power = [float(np.square(samples[i * frame : (i + 1) * frame], dtype=np.float64).mean()) for i in range(count)]
    best = count - 1 - int(np.argmin(power[::-1]))
    return min(samples.size - 1, best * frame + frame // 2)
