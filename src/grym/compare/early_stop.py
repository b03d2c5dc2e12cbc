"""Stopping a comparison as soon as it is decided: a confidence sequence for the difference of two rates.

Knows nothing about models, tables or how clips are answered. Clips come in random
order; after each step the sequence is looked at, and however often one looks, the
chance of a wrong decision stays below alpha. Rates are fractions, differences b - a.

What is assumed: the order of the clips is random and independent of the answers; a
look needs :data:`MIN_CLIPS` clips, :data:`MIN_DIFFERING` of which the systems made a
different number of errors on (or none, see :func:`look`), and six clusters, so that
the sums are close to normal. Speakers are clusters if they are known: then what is
decided is about such speakers and not only about these clips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import lambertw, ndtr, ndtri, stdtr, stdtrit

from grym.compare.clustered import alpha_of
from grym.compare.decide import verdict_of
from grym.compare.significance import Difference, rate_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from grym.compare.wording import Verdict

MIN_CLIPS: Final = 50
MIN_DIFFERING: Final = 10
STEPS: Final = 20
"""Looks at most."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is known after some of the planned clips.

    Attributes:
        clips: clips that both systems answered so far.
        planned: clips that would be answered without a stop.
        words: words of their references.
        differing: clips on which the systems made a different number of errors.
        difference: b - a with the ends of the confidence sequence at this look and the p-value that
            belongs to it: the smallest alpha at which the sequence excludes 0.
        verdict: what is decided; "cannot tell" means go on.
    """

    clips: int
    planned: int
    words: int
    differing: int
    difference: Difference
    verdict: Verdict

    @property
    def decided(self) -> bool:
        """Whether the walk may stop here."""
        return self.verdict != "cannot tell"


@cache
def tuning(planned: int, alpha: float) -> float:
    """The mixture's rho that makes the sequence narrowest at the planned number of clips.

    Example:
        >>> round(width(100, tuning(100, 0.05), 0.05), 3)  # against 1.96 for one look
        3.035

    Source:
        Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, arXiv 2103.06476, appendix B.2: the root of
        n rho² = log(n rho² + 1) - 2 log alpha.
    """
    root = -float(lambertw(-(alpha**2) / math.e, -1).real) - 1
    return math.sqrt(root / planned)


def width(clips: int, rho: float, alpha: float) -> float:
    """Half of the width of the sequence after so many clips, in standard errors of the mean.

    Source:
        Asymptotic confidence sequence of the normal mixture, arXiv 2103.06476, theorem 2.2, divided by
        sigma / sqrt(n).
    """
    size = clips * rho**2
    return math.sqrt(2 * (size + 1) / size * math.log(math.sqrt(size + 1) / alpha))


def p_value(z: float, clips: int, rho: float) -> float:
    """The smallest alpha at which the sequence excludes what lies z standard errors away, with the rho given."""
    size = clips * rho**2
    return min(1.0, math.sqrt(size + 1) * math.exp(-(z**2) * size / (2 * (size + 1))))


def look(
    errors_a: npt.ArrayLike,
    errors_b: npt.ArrayLike,
    words: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    planned: int,
    confidence: float = 0.95,
    margin: float | None = None,
) -> Look:
    """Look at the clips walked so far.

    The difference is one of ratios, sum(d) / sum(words); its standard error is the larger of the one
    that takes clips and the one that takes clusters as independent, and with few clusters Student's
    distribution takes the place of the normal one. Equivalence is decided by the sequence at 2 alpha,
    as two one-sided tests are. Where no clip differs the bound of equivalence is the rule of three,
    log(1 / alpha) / sum(words): "no error apart so far" can only end once, so looking costs nothing.

    Args:
        errors_a: errors of the first system in each clip so far, ``shape = (clips,)``.
        errors_b: errors of the second.
        words: words of each reference.
        clusters: label of the cluster of each clip.
        planned: clips that would be answered without a stop; the sequence is tuned to it.
        confidence: 1 - alpha, between 0.5 and 1.
        margin: equivalence margin as a fraction; ``None`` or 0 asks for no equivalence.

    Raises:
        ConfigError: the confidence is not between 0.5 and 1.
    """
    alpha = alpha_of(confidence)
    first, second, units = (np.asarray(x, dtype=np.float64) for x in (errors_a, errors_b, words))
    count, differing = int(first.size), int((first != second).sum())
    d = _sequence(first, second, units, np.asarray(clusters), planned, alpha)
    enough = count >= min(MIN_CLIPS, planned) and (differing >= MIN_DIFFERING or not differing)
    verdict: Verdict = verdict_of(d, margin or None) if enough else "cannot tell"
    return Look(count, planned, int(units.sum()), differing, d, verdict)


def _sequence(
    first: npt.NDArray[np.float64],
    second: npt.NDArray[np.float64],
    units: npt.NDArray[np.float64],
    clusters: npt.NDArray[np.generic],
    planned: int,
    alpha: float,
) -> Difference:
    confidence = 1 - alpha
    by_clip = rate_difference(first, second, units, np.arange(first.size), confidence, method="confidence sequence")
    by_cluster = rate_difference(first, second, units, clusters, confidence)
    d = replace(by_clip, clusters=by_cluster.clusters)
    if d.difference is None or by_clip.se is None or by_cluster.se is None:
        return replace(d, ci_low=None, ci_high=None, p_value=None)
    if by_clip.se == 0:  # every clip shows the same rate of difference
        return d
    se, count, groups = max(by_clip.se, by_cluster.se), int(first.size), by_cluster.clusters
    rho = tuning(planned, alpha)
    half, inner = (student(width(count, rho, level), groups) * se for level in (alpha, 2 * alpha))
    inner = max(inner, -math.log(alpha) / float(units.sum()))
    return replace(
        d,
        se=se,
        ci_low=d.difference - half,
        ci_high=d.difference + half,
        inner_low=d.difference - inner,
        inner_high=d.difference + inner,
        p_value=p_value(_normal(d.difference / se, groups), count, rho),
    )


def student(z: float, groups: int) -> float:
    """The quantile of t with groups - 1 degrees that leaves as much beyond it as z does of the normal."""
    return float(-stdtrit(groups - 1, ndtr(-z)))


def _normal(t: float, groups: int) -> float:
    """The way back, of an absolute value."""
    return float(-ndtri(max(stdtr(groups - 1, -abs(t)), 1e-300)))


def walk(ids: Sequence[str], seed: int) -> list[tuple[str, ...]]:
    """Clip ids in a seeded random order, cut into what is answered between two looks.

    The first step has :data:`MIN_CLIPS` clips, or a twentieth of all if that is more; each other one has a
    twentieth. The order of ``ids`` does not matter.

    Example:
        >>> [len(step) for step in walk([str(i) for i in range(448)], seed=7)][:4]
        [50, 23, 23, 23]
    """
    ordered = sorted(ids)
    order = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered)).tolist()]
    size = max(1, math.ceil(len(order) / STEPS))
    first = max(MIN_CLIPS, size)
    return [tuple(order[:first]), *(tuple(order[i : i + size]) for i in range(first, len(order), size))]
