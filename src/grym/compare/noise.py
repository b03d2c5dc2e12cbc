"""How much of an error rate is the luck of decoding: k repeats of the same clips by the same model.

Knows nothing about models. The variance of the error rate of one run is split into
what comes from sampled decoding (within a clip, over repeats) and what comes from
which clips and speakers were asked (between). Rates are fractions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from grym.compare.clustered import alpha_of
from grym.compare.significance import rate_difference
from grym.errors import QualityError


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """The variance of one system's word error rate, split.

    Attributes:
        repeats: answers to each clip, k.
        clips: clips that were answered k times.
        words: words of their references.
        wer: over all repeats.
        rates: of each repeat.
        changed: clips whose number of errors was not always the same.
        within_sd: standard deviation of the rate of one run that comes from decoding alone.
        between_sd: the same that comes from clips (clustered by speaker where known), decoding taken off;
            ``None`` below two clusters.
        within_share: share of decoding in the variance of the rate of one run, in [0, 1].
        floor: half of the interval of the difference of two runs of this very system: a smaller difference
            between single runs may be decoding alone.
        confidence: level of that interval.
    """

    repeats: int
    clips: int
    words: int
    wer: float
    rates: tuple[float, ...]
    changed: int
    within_sd: float
    between_sd: float | None
    within_share: float | None
    floor: float
    confidence: float


def noise_floor(
    errors: npt.ArrayLike, words: npt.ArrayLike, clusters: npt.ArrayLike, confidence: float = 0.95
) -> NoiseFloor:
    """Split the variance of a word error rate.

    Within: sum over clips of the variance over repeats, over (sum of words)²; repeats and clips are taken
    as drawn independently of each other. Between: the clustered variance of the mean over repeats, less the
    k-th part of the variance within that it contains, at least 0. Two single runs of one system differ with
    the variance 2 * within; its degrees of freedom are Satterthwaite's.

    Args:
        errors: errors of each clip in each repeat, ``shape = (clips, repeats)``, at least two repeats.
        words: words of each reference, ``shape = (clips,)``.
        clusters: what is independent, for example the speaker of each clip.
        confidence: of the floor, between 0.5 and 1.

    Raises:
        QualityError: fewer than two repeats, a value that is not finite, or not one reference word.
        ConfigError: the confidence is not between 0.5 and 1.

    Example:
        >>> found = noise_floor([[1, 0], [0, 1], [2, 2]], [10, 10, 10], ["x", "y", "z"])
        >>> round(found.within_sd, 4), found.rates, found.changed
        (0.0333, (0.1, 0.1), 2)

    Source:
        One-way random effects: Searle, Casella & McCulloch 1992, Variance Components, chapter 3;
        Satterthwaite, Biometrics Bulletin 2(6), 1946, pp. 110-114.
    """
    alpha = alpha_of(confidence)
    table, units = np.asarray(errors, dtype=np.float64), np.asarray(words, dtype=np.float64)
    total = float(units.sum()) if units.size else 0.0
    usable = table.ndim == 2 and table.shape[0] == units.size and bool(np.isfinite(table).all())  # noqa: PLR2004
    if not usable or table.shape[1] < 2 or not total:  # noqa: PLR2004 - a variance needs two
        msg = "The noise floor needs at least two repeats of every clip, finite counts and reference words."
        raise QualityError(msg, code="no-repeats", hint="Leave out clips that were not answered every time.")
    repeats = table.shape[1]
    spread = table.var(axis=1, ddof=1)
    within = float(spread.sum()) / total**2
    means = table.mean(axis=1)
    pooled = rate_difference(np.zeros_like(means), means, units, clusters, confidence)
    between = None if pooled.se is None else max(0.0, pooled.se**2 - within / repeats)
    both = None if between is None else between + within
    return NoiseFloor(
        repeats=repeats,
        clips=units.size,
        words=int(total),
        wer=float(means.sum()) / total,
        rates=tuple(float(x) / total for x in table.sum(axis=0)),
        changed=int((spread > 0).sum()),
        within_sd=math.sqrt(within),
        between_sd=None if between is None else math.sqrt(between),
        within_share=within / both if both else (0.0 if both == 0 else None),
        floor=_quantile(spread, repeats, alpha) * math.sqrt(2 * within),
        confidence=confidence,
    )


def _quantile(spread: npt.NDArray[np.float64], repeats: int, alpha: float) -> float:
    squares = float(np.square(spread).sum())
    freedom = (repeats - 1) * float(spread.sum()) ** 2 / squares if squares else 1.0
    return float(stdtrit(freedom, 1 - alpha / 2))


def combined(first: NoiseFloor, second: NoiseFloor) -> float:
    """Half of the interval of the difference of two systems that comes from decoding alone, about 95 % at 0.95."""
    scale = [found.floor / math.sqrt(2) for found in (first, second)]
    return math.hypot(*scale)
