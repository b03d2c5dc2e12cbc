"""What carries the verdict of a run, and what people call it: a word error rate or a label accuracy.

Knows nothing about frames or pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Rate:
    """One such rate.

    Attributes:
        key: its metric in table ``comparisons``.
        name: what it is called in a sentence.
        short: what it is called on an axis.
        higher_is_better: whether more of it is better.
        task: what the models were asked, in words.
    """

    key: str
    name: str
    short: str
    higher_is_better: bool
    task: str


WER: Final = Rate("wer", "word error rate", "WER", higher_is_better=False, task="transcription")
ACCURACY: Final = Rate("accuracy", "label accuracy", "accuracy", higher_is_better=True, task="naming labels")
RATES: Final[Mapping[str, Rate]] = {rate.key: rate for rate in (WER, ACCURACY)}


def rate_of(metric: str | None) -> Rate:
    """The rate of a metric; the word error rate where there is none."""
    return RATES.get(metric or "", WER)
