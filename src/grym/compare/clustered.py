"""Difference of two rates a - b with an error that respects clusters, and equivalence inside a margin.

Like :func:`grym.compare.significance.rate_difference`, but each system brings its
own units: with alternations two systems can be scored against references of
different length. With equal units both give the same numbers, the sign apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from grym.compare.significance import Difference
from grym.errors import ConfigError, QualityError

Floats = npt.NDArray[np.float64]

MIN_CLUSTERS: Final = 2  # for an interval; for a verdict see grym.compare.wording


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums by cluster.

    Attributes:
        table: float64, ``shape = (clusters, 4)``: errors and units of the first system, then of the second.
    """

    table: Floats

    @classmethod
    def of(
        cls,
        errors_a: npt.ArrayLike,
        units_a: npt.ArrayLike,
        errors_b: npt.ArrayLike,
        units_b: npt.ArrayLike,
        clusters: npt.ArrayLike,
    ) -> Sums:
        """Add up clips by the label of their cluster; sorted by label, so the order of clips does not matter.

        Raises:
            QualityError: a value is not finite.
        """
        labels, inverse = np.unique(np.asarray(clusters), return_inverse=True)
        columns = [np.asarray(column, dtype=np.float64) for column in (errors_a, units_a, errors_b, units_b)]
        if not all(np.isfinite(column).all() for column in columns):
            msg = "A count or value is not finite."
            raise QualityError(msg, code="not-finite", hint="Leave out what was not measured before testing.")
        sums = [np.bincount(inverse, weights=column, minlength=labels.size) for column in columns]
        return cls(np.stack(sums, axis=1).astype(np.float64))

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return int(self.table.shape[0])

    @property
    def defined(self) -> bool:
        """Whether both rates have a denominator."""
        return bool(self.clusters) and bool((self.table[:, [1, 3]].sum(axis=0) > 0).all())


@dataclass(frozen=True, slots=True)
class Delta:
    """The difference a - b of two rates.

    Attributes:
        a: rate of the first system; ``None`` without units.
        b: rate of the second.
        delta: a - b.
        se: clustered standard error; ``None`` below two clusters.
        t: delta / se; ``None`` where the se is 0 or unknown.
        df: degrees of freedom, clusters - 1.
        p_value: two-sided, of t; see :func:`delta_of` for a se of 0.
        low: lower end of the interval.
        high: upper end.
        inner_low: lower end of the interval at 1 - 2 * (1 - confidence), which decides equivalence.
        inner_high: its upper end.
        confidence: level of the interval.
        clusters: independent units.
        units: mean of the two systems' units, for the rule of three.
    """

    a: float | None
    b: float | None
    delta: float | None
    se: float | None
    t: float | None
    df: int
    p_value: float | None
    low: float | None
    high: float | None
    inner_low: float | None
    inner_high: float | None
    confidence: float
    clusters: int
    units: float

    def as_difference(self, method: str, p_value: float | None = None) -> Difference:
        """The same as the house's b - a, optionally with a p-value adjusted for several pairs."""
        negative = [
            None if x is None else -x for x in (self.delta, self.high, self.low, self.inner_high, self.inner_low)
        ]
        return Difference(
            a=self.a,
            b=self.b,
            difference=negative[0],
            ci_low=negative[1],
            ci_high=negative[2],
            confidence=self.confidence,
            p_value=self.p_value if p_value is None else p_value,
            method=method,
            clusters=self.clusters,
            se=self.se,
            inner_low=negative[3],
            inner_high=negative[4],
        )


def alpha_of(confidence: float) -> float:
    """1 - confidence.

    Raises:
        ConfigError: the confidence is not between 0.5 and 1.
    """
    if not 0.5 < confidence < 1:  # noqa: PLR2004 - the meaning of the bounds is in the message
        msg = f"A confidence of {confidence} is not between 0.5 and 1."
        raise ConfigError(msg, code="bad-confidence", hint="Use a fraction such as 0.95.")
    return 1 - confidence


def delta_of(sums: Sums, confidence: float) -> Delta:
    """Difference of two ratios of sums with a cluster-robust error.

    The linearised residual of cluster g is (e1 - R1 w1) / W1 - (e2 - R2 w2) / W2 with R a system's rate
    and W its units; the variance is G / (G - 1) times the sum of its squares, t has G - 1 degrees of
    freedom. Where every cluster shows the same difference of rates that variance is 0; then the interval
    is the difference, p is 1 for no difference and else 2 ** (1 - G), and the inner interval is the rule
    of three, as in :func:`grym.compare.significance.rate_difference`.

    Args:
        sums: errors and units of both systems by cluster.
        confidence: level of the interval, between 0.5 and 1.

    Raises:
        ConfigError: the confidence is not between 0.5 and 1.

    Source:
        Linearised ratio estimator: Cochran 1977, Sampling Techniques, 3rd ed., section 6.4; clusters:
        Cameron & Miller, Journal of Human Resources 50(2), 2015, pp. 317-372.
    """
    alpha, groups = alpha_of(confidence), sums.clusters
    totals = sums.table.sum(axis=0) if groups else np.zeros(4)
    units, df = float(totals[[1, 3]].mean()), max(0, groups - 1)
    if not sums.defined:
        return _undefined(confidence, groups, units)
    a, b = float(totals[0] / totals[1]), float(totals[2] / totals[3])
    delta = (float(totals[0]) - float(totals[2])) / float(totals[1]) if totals[1] == totals[3] else a - b
    if groups < MIN_CLUSTERS:
        return _undefined(confidence, groups, units, a, b, delta)
    se = _standard_error(sums.table, totals)
    t = p_value = None
    if se > 0:
        t = delta / se
        wide, inner = (float(stdtrit(df, 1 - tail)) * se for tail in (alpha / 2, alpha))
        p_value = float(2 * stdtr(df, -abs(t)))
    else:
        wide, inner = 0.0, -math.log(alpha) / units
        p_value = 1.0 if delta == 0 else 2.0**-df
    return Delta(
        a=a,
        b=b,
        delta=delta,
        se=se,
        t=t,
        df=df,
        p_value=p_value,
        low=delta - wide,
        high=delta + wide,
        inner_low=delta - inner,
        inner_high=delta + inner,
        confidence=confidence,
        clusters=groups,
        units=units,
    )


def _undefined(
    confidence: float,
    groups: int,
    units: float,
    a: float | None = None,
    b: float | None = None,
    delta: float | None = None,
) -> Delta:
    """A difference without an interval."""
    df = max(0, groups - 1)
    return Delta(a, b, delta, None, None, df, None, None, None, None, None, confidence, groups, units)


def _standard_error(table: Floats, totals: Floats) -> float:
    parts = [(table[:, i] - totals[i] / totals[i + 1] * table[:, i + 1]) / totals[i + 1] for i in (0, 2)]
    residuals = parts[0] - parts[1]
    scale = max(1.0, float(np.abs(table[:, [0, 2]]).max())) / float(totals[[1, 3]].mean())
    if np.abs(residuals).max() <= 1e-9 * scale:  # rounding, not variance
        return 0.0
    groups = table.shape[0]
    return float(np.sqrt(groups / (groups - 1) * np.square(residuals).sum()))


def equivalence_p(delta: Delta, margin: float) -> float | None:
    """p-value of "the difference is inside the margin": the larger of two one-sided tests.

    Below ``1 - confidence`` exactly when the inner interval lies inside the margin. ``None`` without an
    interval or a margin.

    Example:
        >>> flat = Sums.of([5] * 6, [100] * 6, [5] * 6, [100] * 6, range(6))
        >>> round(equivalence_p(delta_of(flat, 0.95), 0.005), 3)
        0.05

    Source:
        Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15(6), 1987, pp. 657-680.
    """
    if delta.delta is None or delta.se is None or margin <= 0:
        return None
    if delta.se > 0:
        return float(stdtr(delta.df, -(margin - abs(delta.delta)) / delta.se))
    inside = margin - abs(delta.delta)
    return math.exp(-delta.units * inside) if inside > 0 else 1.0
