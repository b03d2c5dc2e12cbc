"""Is a difference between two arms more than chance? Intervals and p-values that respect clusters.

Knows nothing about tables, metrics' names or verdicts. Clips of one speaker are
not independent, so everything is computed from sums per cluster. Arrays have
``shape = (clips,)`` and are paired: position i is the same clip in both arms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from grym.errors import ConfigError

Floats = npt.NDArray[np.float64]

_MIN_CLUSTERS_FOR_INTERVAL: Final = 2
_BLOCK: Final = 4_000_000  # bootstrap weights held at once (32 MB)


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of a metric between two arms and what is known about its error.

    Attributes:
        a: value of the first arm; ``None`` if undefined.
        b: value of the second arm.
        difference: b - a.
        ci_low: lower end of the interval of the difference; ``None`` below two clusters.
        ci_high: upper end.
        confidence: level of the interval, for example 0.95.
        p_value: two-sided.
        method: how interval and p-value were obtained.
        clusters: independent units.
        se: standard error of the difference.
        inner_low: lower end of the interval at 1 - 2 * (1 - confidence), which decides equivalence.
        inner_high: upper end of that interval.
    """

    a: float | None
    b: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    confidence: float
    p_value: float | None
    method: str
    clusters: int
    se: float | None = None
    inner_low: float | None = None
    inner_high: float | None = None


def ratio(numerator: float, denominator: float) -> float | None:
    """Numerator over denominator, ``None`` if the denominator is 0."""
    return float(numerator) / float(denominator) if denominator else None


def quantile(values: npt.ArrayLike, q: float) -> float | None:
    """The linearly interpolated quantile, ``None`` without values."""
    array = np.asarray(values, dtype=np.float64)
    return float(np.quantile(array, q)) if array.size else None


def rate_difference(
    errors_a: npt.ArrayLike,
    errors_b: npt.ArrayLike,
    units: npt.ArrayLike,
    clusters: npt.ArrayLike,
    confidence: float,
    *,
    method: str = "clustered t",
) -> Difference:
    """Difference of two ratio metrics sum(errors) / sum(units) on the same clips, clustered.

    The residual of cluster g is d_g - D * w_g, with d_g its difference of errors, w_g its units and
    D the difference of the rates. Variance = G / (G - 1) * sum(residual²) / (sum w)²; t with G - 1
    degrees of freedom.

    When every cluster shows the same rate of difference the variance estimate is 0, which is a
    statement about the sample and not about the world. Then the interval is [D, D]; p is 1 for
    D = 0, else 2 ** (1 - G), the smallest that a sign-flip test of G clusters can give; and
    the inner interval, on which a claim of equivalence rests, is D -+ log(1 / alpha) / sum(w), the
    rule of three: no difference seen in 60 words says little about a margin of 0.5 %.

    Args:
        errors_a: errors of the first arm in each clip, ``shape = (clips,)``.
        errors_b: errors of the second arm.
        units: words (or characters) of the reference, the same for both arms; may be 0.
        clusters: label of the cluster of each clip.
        confidence: level of the interval, between 0.5 and 1.
        method: name of the method for the result.

    Returns:
        The difference; without units all values are ``None``, below two clusters the interval is.

    Raises:
        ConfigError: the confidence is not between 0.5 and 1.

    Source:
        Linearised ratio estimator with cluster-robust variance (Cochran 1977, chapter 6).
    """
    alpha = _alpha(confidence)
    first, second, weight = _sums(clusters, errors_a, errors_b, units)
    groups, total = weight.size, float(weight.sum())
    if not total:
        return Difference(None, None, None, None, None, confidence, None, method, groups)
    a, b = float(first.sum()) / total, float(second.sum()) / total
    difference = float((second - first).sum()) / total
    se = _standard_error(second - first, weight)
    if se is None:
        return Difference(a, b, difference, None, None, confidence, None, method, groups)
    if se > 0:
        wide, inner = _half_width(se, groups, alpha), _half_width(se, groups, 2 * alpha)
        p_value = float(2 * stdtr(groups - 1, -abs(difference) / se))
    else:
        wide, inner = 0.0, -math.log(alpha) / total
        p_value = 1.0 if difference == 0 else 2.0 ** (1 - groups)
    return Difference(
        a=a,
        b=b,
        difference=difference,
        ci_low=difference - wide,
        ci_high=difference + wide,
        confidence=confidence,
        p_value=p_value,
        method=method,
        clusters=groups,
        se=se,
        inner_low=difference - inner,
        inner_high=difference + inner,
    )


def rate_interval(
    errors: npt.ArrayLike, units: npt.ArrayLike, clusters: npt.ArrayLike, confidence: float
) -> tuple[float | None, float | None]:
    """Ends of one arm's clustered t interval of sum(errors) / sum(units), cut off at 0.

    Without a single error the upper end is the rule of three, log(1 / alpha) / sum(units).

    Args:
        errors: errors in each clip, ``shape = (clips,)``.
        units: words of the reference.
        clusters: label of the cluster of each clip.
        confidence: level of the interval, between 0.5 and 1.

    Returns:
        Low and high; ``None`` without units or below two clusters.

    Raises:
        ConfigError: the confidence is not between 0.5 and 1.
    """
    alpha = _alpha(confidence)
    wrong, weight = _sums(clusters, errors, units)
    total = float(weight.sum())
    se = _standard_error(wrong, weight) if total else None
    if se is None:
        return None, None
    if not wrong.any():
        return 0.0, min(1.0, -math.log(alpha) / total)
    rate, half = float(wrong.sum()) / total, _half_width(se, weight.size, alpha)
    return max(0.0, rate - half), rate + half


def quantile_difference(
    a_values: npt.ArrayLike,
    b_values: npt.ArrayLike,
    q: float,
    clusters: npt.ArrayLike,
    confidence: float,
    rng: np.random.Generator,
    repetitions: int = 2000,
    *,
    method: str = "cluster bootstrap",
) -> Difference:
    """Difference of a quantile between the arms by a paired cluster bootstrap, percentile interval.

    Whole clusters are drawn with replacement, both arms with the same draw. The draw depends on the
    sorted labels only, so the order of the rows does not matter.

    Args:
        a_values: values of the first arm, ``shape = (clips,)``, for example milliseconds.
        b_values: values of the second arm for the same clips.
        q: the quantile, for example 0.95.
        clusters: label of the cluster of each clip.
        confidence: level of the interval, between 0.5 and 1.
        rng: source of the draws.
        repetitions: number of draws.
        method: name of the method for the result.

    Raises:
        ConfigError: the confidence is not between 0.5 and 1.

    Source:
        Bisani & Ney 2004 for the paired bootstrap; Davison & Hinkley 1997, section 5.3.
    """
    alpha = _alpha(confidence)
    first, second = np.asarray(a_values, dtype=np.float64), np.asarray(b_values, dtype=np.float64)
    labels, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    groups = labels.size
    a, b = quantile(first, q), quantile(second, q)
    if a is None or b is None:
        return Difference(None, None, None, None, None, confidence, None, method, groups)
    if groups < _MIN_CLUSTERS_FOR_INTERVAL:
        return Difference(a, b, b - a, None, None, confidence, None, method, groups)
    draws = rng.multinomial(groups, np.full(groups, 1 / groups), size=repetitions)
    deltas = _bootstrap(first, second, inverse, draws, q)
    tail = min(int((deltas <= 0).sum()), int((deltas >= 0).sum()))
    low, inner_low, inner_high, high = np.quantile(deltas, [alpha / 2, alpha, 1 - alpha, 1 - alpha / 2])
    return Difference(
        a=a,
        b=b,
        difference=b - a,
        ci_low=float(low),
        ci_high=float(high),
        confidence=confidence,
        p_value=min(1.0, 2 * (tail + 1) / (repetitions + 1)),
        method=method,
        clusters=groups,
        se=float(deltas.std(ddof=1)),
        inner_low=float(inner_low),
        inner_high=float(inner_high),
    )


def _alpha(confidence: float) -> float:
    if not 0.5 < confidence < 1:  # noqa: PLR2004 - the meaning of the bounds is in the message
        msg = f"A confidence of {confidence} is not between 0.5 and 1."
        raise ConfigError(msg, code="bad-confidence", hint="Use a fraction such as 0.95.")
    return 1 - confidence


def _sums(clusters: npt.ArrayLike, *columns: npt.ArrayLike) -> list[Floats]:
    """Sums of each column per cluster, ``shape = (clusters,)``, in the order of the sorted labels."""
    labels, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    weights = [np.asarray(column, dtype=np.float64) for column in columns]
    return [np.bincount(inverse, weights=w, minlength=labels.size).astype(np.float64) for w in weights]


def _standard_error(totals: Floats, weight: Floats) -> float | None:
    """Of sum(totals) / sum(weight) over clusters; exactly 0 if every cluster has the same rate."""
    groups = weight.size
    if groups < _MIN_CLUSTERS_FOR_INTERVAL:
        return None
    residuals = totals - totals.sum() / weight.sum() * weight
    if np.abs(residuals).max() <= 1e-9 * max(1.0, float(np.abs(totals).max())):  # rounding, not variance
        return 0.0
    return float(np.sqrt(groups / (groups - 1) * np.square(residuals).sum()) / weight.sum())


def _half_width(se: float, groups: int, alpha: float) -> float:
    return float(stdtrit(groups - 1, 1 - alpha / 2)) * se


def _bootstrap(
    first: Floats, second: Floats, cluster: npt.NDArray[np.int64], draws: npt.NDArray[np.int64], q: float
) -> Floats:
    """Difference of the quantile for each row of ``draws`` (draws, clusters), in blocks that fit in memory."""
    deltas = np.empty(draws.shape[0], dtype=np.float64)
    block = max(1, _BLOCK // first.size)
    for start in range(0, draws.shape[0], block):
        weights = draws[start : start + block, cluster]
        ends = slice(start, start + block)
        deltas[ends] = _weighted_quantiles(second, weights, q) - _weighted_quantiles(first, weights, q)
    return deltas


def _weighted_quantiles(values: Floats, weights: npt.NDArray[np.int64], q: float) -> Floats:
    """Interpolated quantile of ``values`` (n,) repeated ``weights`` (draws, n) times; ``shape = (draws,)``."""
    order = np.argsort(values, kind="stable")
    ranked, last = values[order], weights[:, order].cumsum(axis=1)
    position = (last[:, -1] - 1) * q
    below = np.floor(position).astype(np.int64)
    above = np.ceil(position).astype(np.int64)
    low = ranked[(last <= below[:, None]).sum(axis=1)]
    high = ranked[(last <= above[:, None]).sum(axis=1)]
    return np.asarray(low + (high - low) * (position - below), dtype=np.float64)
