"""One arm's value of a mean, proportion or ratio as a mean over units, with its error: the delta method from moments.

A ratio (errors per word) of sums over units is, up to terms that vanish, the mean of ``(y - R w) / mean(w)`` around R:
that is what its error, and its correlation with a covariate, are taken of. Units are what was randomised, so repeated
requests of one user are no problem. Knows nothing about the other arm.

Source: Deng, Knoblich, Lu, "Applying the delta method in metric analytics", KDD 2018, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from grym.experiment.moments import plain

if TYPE_CHECKING:
    from grym.experiment.moments import Moments, Numbers


@dataclass(frozen=True, slots=True)
class Linear:
    """An estimate that behaves like a mean over units; numbers, or arrays of one shape.

    Attributes:
        n: units.
        value: the estimate, in the metric's unit.
        variance: of the estimate; NaN below two units.
        mean_x: mean covariate.
        covariance: of the estimate with ``mean_x``.
        variance_x: of ``mean_x``.
    """

    n: Numbers
    value: Numbers
    variance: Numbers
    mean_x: Numbers
    covariance: Numbers
    variance_x: Numbers


def linear(moments: Moments, kind: Literal["mean", "proportion", "ratio"]) -> Linear:
    """The estimate of one arm.

    What never happened may yet happen: an arm that has only zeros gets the error of one unit with one event, and a
    proportion that of one more success and one more failure (Agresti and Caffo 2000). Without it, an arm without
    failures would be known exactly.

    Args:
        moments: of the arm.
        kind: what the metric is.

    Example:
        >>> from grym.experiment.moments import Moments
        >>> found = linear(Moments.from_arrays([1.0, 2.0, 3.0], [10.0, 10.0, 40.0]), "ratio")
        >>> round(found.value, 6), round(found.variance, 6)
        (0.1, 0.000833)
    """
    n = np.asarray(moments.n, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_unit = np.where(n > 1, 1 / (n * (n - 1)), np.nan)
        if kind == "ratio":
            value, squares, scale = _ratio(moments)
        else:
            value, squares, scale = moments.mean("y"), moments.spread("y", "y"), 1.0
        variance = np.asarray(squares * per_unit)
        if kind == "proportion":
            shrunk = (np.asarray(moments.sum_y) + 1) / (n + 2)
            variance = np.where(n > 1, shrunk * (1 - shrunk) / n, np.nan)
        never = np.asarray(moments.sum_yy) == 0
        variance = np.where(never & (kind != "proportion"), per_unit / np.square(scale), variance)
        cross, spread = _with_covariate(moments, kind, value, scale)
        return Linear(
            n=plain(n),
            value=plain(value),
            variance=plain(variance),
            mean_x=moments.mean("x"),
            covariance=plain(cross * per_unit),
            variance_x=plain(spread * per_unit),
        )


def _ratio(m: Moments) -> tuple[Any, Any, Any]:
    """The ratio, the sum of squared residuals, and the mean weight."""
    weight = np.asarray(m.mean("w"))
    ratio = np.divide(m.sum_y, m.sum_w)
    own, weights = m.spread("y", "y"), ratio**2 * m.spread("w", "w")
    squares = own - 2 * ratio * m.spread("y", "w") + weights
    # Equal rates leave a difference of large numbers: below a 1e-12th it is what rounding leaves.
    squares = np.where(squares <= 1e-12 * (own + weights), 0.0, squares)
    return ratio, squares / weight**2, weight


def _with_covariate(m: Moments, kind: str, value: Any, scale: Any) -> tuple[Any, Any]:
    """Sums of products of x with the residual, and with itself; nothing to compute without a covariate."""
    if not np.any(m.sum_xx):
        return np.zeros_like(np.asarray(m.n)), np.zeros_like(np.asarray(m.n))
    cross = m.spread("x", "y") - (value * m.spread("x", "w") if kind == "ratio" else 0.0)
    return cross / scale, m.spread("x", "x")
