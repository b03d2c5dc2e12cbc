"""Quantiles of single values (p95 of the latency of requests) when units, not values, were randomised.

The share of values up to a point q is a ratio metric: values up to q over values, by unit. Its error by the delta
method says between which two order statistics the quantile lies; their distance is the quantile's error. Quantiles do
not follow from sums, so each look takes exact order statistics and counts from the events in DuckDB: two sorts and
one pass, no sketch and no approximation. Knows nothing about looks or decisions.

Source: Deng, Knoblich, Lu, "Applying the delta method in metric analytics", KDD 2018, section 4.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from grym.describe import literal
from grym.errors import QualityError
from grym.experiment.moments import DIGITS, Moments
from grym.experiment.ratio import Linear, linear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from grym.experiment.config import Experiment, Metric
    from grym.experiment.evidence import Events

# Half the width of the band between whose ends the density is measured, in standard errors of the share.
BAND: Final = 1.96
_NUMBERS: Final = ("value", "share_se", "low", "high")

_VALUES: Final = """
SELECT m.unit, m.value FROM measurements m JOIN exposed e ON e.unit = m.unit AND e.arm = m.arm
WHERE e.randomised AND m.metric = {metric} AND m.arm = {arm}
"""
_AT: Final = "SELECT {points} FROM ({values})"
_COUNTS: Final = """
SELECT count(*), sum(k), sum(c), sum(k * k), sum(c * c), sum(k * c)
FROM (SELECT count(*) FILTER (value <= {point}) AS k, count(*) AS c FROM ({values}) GROUP BY unit)
"""


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of one arm.

    Attributes:
        metric: name.
        arm: name.
        n: units with a value.
        values: single values.
        value: the quantile, in the metric's unit; NaN without values.
        share_se: standard error of the share of values up to it.
        low: the order statistic :data:`BAND` standard errors below; NaN where the sample does not reach.
        high: the one above.
    """

    metric: str
    arm: str
    n: int
    values: int
    value: float
    share_se: float
    low: float
    high: float

    def linear(self) -> Linear:
        """The estimate with its variance; NaN where the sample does not reach far enough."""
        se = (self.high - self.low) / (2 * BAND)
        return Linear(float(self.n), self.value, se * se, 0.0, 0.0, 0.0)

    def row(self) -> dict[str, Any]:
        """What a decision record keeps: :data:`~grym.experiment.moments.DIGITS` digits, none for NaN."""
        return {name: _kept(value) for name, value in asdict(self).items()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Quantile:
        """The inverse of :meth:`row`."""
        numbers = {name: math.nan if row[name] is None else float(row[name]) for name in _NUMBERS}
        return cls(row["metric"], row["arm"], int(row["n"]), int(row["values"]), **numbers)


def quantile_of(values: ArrayLike, level: float, units: ArrayLike | None = None, **names: str) -> Quantile:
    """The quantile of values in memory, as :func:`gather_quantiles` finds it in events.

    Args:
        values: single values, ``shape = (values,)``.
        level: in (0, 1).
        units: label of the unit of each value; default a unit for each.
        names: ``metric`` and ``arm``.

    Raises:
        QualityError: a value is NaN or infinite.

    Example:
        >>> found = quantile_of(range(1, 1001), 0.9)
        >>> found.value, found.low, found.high
        (900.0, 882.0, 919.0)
    """
    found = np.sort(np.asarray(values, dtype=np.float64))
    if not np.isfinite(found).all():
        msg = "A value is NaN or infinite."
        raise QualityError(msg, code="not-finite", hint="Leave out what was not measured.")
    given = np.asarray(values, dtype=np.float64)
    labels = np.arange(given.size) if units is None else np.unique(np.asarray(units), return_inverse=True)[1]
    n = int(labels.max()) + 1 if given.size else 0
    named = {"metric": names.get("metric", ""), "arm": names.get("arm", "")}
    if not given.size:
        return _empty(**named)
    point = float(found[_rank(given.size, level)])
    counts = np.bincount(labels, minlength=n)
    below = np.bincount(labels, weights=given <= point, minlength=n)
    se = _share_se(Moments.from_arrays(below, counts), level)
    edges = [_rank(given.size, level + side * BAND * se) for side in (-1, 1)]
    low, high = (float(found[edge]) if 0 <= edge < given.size else math.nan for edge in edges)
    return Quantile(**named, n=n, values=given.size, value=point, share_se=se, low=low, high=high)


def gather_quantiles(events: Events, experiment: Experiment) -> tuple[Quantile, ...]:
    """One row per quantile metric and arm of the configuration, in its order.

    Args:
        events: open events whose ``evidence()`` was asked for before: that is where mixed units are left out.
        experiment: the version.
    """
    metrics = [metric for metric in experiment.metrics if metric.kind == "quantile"]
    return tuple(_gather(events, metric, arm.name) for metric in metrics for arm in experiment.arms)


def quantile_query(metric: Metric, arm: str) -> str:
    """The values that a quantile is taken of; the queries around it only sort and count."""
    return _VALUES.format(metric=literal(metric.name), arm=literal(arm)).strip()


def queries(experiment: Experiment) -> str:
    """Every query that the quantiles of a configuration come from; empty without quantile metrics."""
    metrics = [metric for metric in experiment.metrics if metric.kind == "quantile"]
    asked = [quantile_query(metric, arm.name) for metric in metrics for arm in experiment.arms]
    return "\n".join([*asked, _AT, _COUNTS]) if asked else ""


def _gather(events: Events, metric: Metric, arm: str) -> Quantile:
    level, values = metric.level or 0.5, quantile_query(metric, arm)  # the configuration has checked the level
    connection = events.connection
    connection.execute(f"CREATE OR REPLACE TEMP TABLE quantile_values AS {values}")
    inner = "FROM quantile_values"
    size = int(connection.execute(f"SELECT count(*) {inner}").fetchall()[0][0])
    if not size:
        return _empty(metric.name, arm)

    def at(*ranks: int) -> list[float]:
        # quantile_disc takes the value whose rank is the ceiling of fraction times size: the middle of a rank is safe.
        points = ", ".join(f"quantile_disc(value, {(rank + 0.5) / size!r})" for rank in ranks)
        return [float(value) for value in connection.execute(_AT.format(points=points, values=inner)).fetchall()[0]]

    point = at(_rank(size, level))[0]
    n, *sums = connection.execute(_COUNTS.format(point=repr(point), values=inner)).fetchall()[0]
    k, c, kk, cc, kc = map(float, sums)
    se = _share_se(Moments(float(n), sum_y=k, sum_w=c, sum_yy=kk, sum_ww=cc, sum_yw=kc), level)
    ranks = [_rank(size, level + side * BAND * se) for side in (-1, 1)]
    edges = at(*(min(max(rank, 0), size - 1) for rank in ranks))
    low, high = (edge if 0 <= rank < size else math.nan for rank, edge in zip(ranks, edges, strict=True))
    return Quantile(metric.name, arm, int(n), size, point, se, low, high)


def _rank(size: int, level: float) -> int:
    """Index of the order statistic of a level, from 0; outside the sample where the level is."""
    if not math.isfinite(level):
        return -1
    return math.ceil(round(level * size, 9)) - 1


def _share_se(moments: Moments, level: float) -> float:
    """Standard error of the share of values up to the quantile, at least that of independent values.

    The largest value has all values up to it, in every unit: without the floor it would be known exactly.
    """
    found = float(linear(moments, "ratio").variance)
    return math.sqrt(max(found, level * (1 - level) / float(moments.sum_w))) if math.isfinite(found) else math.nan


def _empty(metric: str, arm: str) -> Quantile:
    return Quantile(metric, arm, 0, 0, math.nan, math.nan, math.nan, math.nan)


def _kept(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
