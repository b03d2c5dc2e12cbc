"""Shadow pairs: requests that both arms answered, analysed as matched pairs beside the split.

A share of the requests is sent to the other arm too, whose answer nobody sees (an exposure with the reason ``shadow``).
What makes requests hard is then the same for both, so the difference is known from far fewer units. A shadow answer
changes nothing for anybody: pairs speak of accuracy and speed, never of behaviour, and the verdict rests on the split.

A pair is one request with a measurement of the metric from both arms, at least one of them a shadow's. Differences are
summed by unit; a ratio is linearised. Intervals hold at every look. Knows nothing about flows.

Source: Gillick & Cox, ICASSP 1989, pp. 532-535 (matched pairs); Waudby-Smith et al., arXiv 2103.06476 (the intervals).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from grym.errors import ConfigError
from grym.experiment.effects import Design
from grym.experiment.evidence import open_events
from grym.experiment.sequential import MIN_UNITS, multiplier, p_value, planned_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from grym.experiment.config import Experiment, Metric
    from grym.experiment.evidence import Events
    from grym.store import Store

    Floats = NDArray[np.float64]

QUERY: Final = """
SELECT c.unit, count(*) AS pairs, sum(c.value) AS y_control, sum(coalesce(c.weight, 1)) AS w_control,
       sum(t.value) AS y_treatment, sum(coalesce(t.weight, 1)) AS w_treatment
FROM measurements c JOIN measurements t
  ON t.unit = c.unit AND t.request_id = c.request_id AND t.metric = c.metric AND t.arm = $treatment
WHERE c.arm = $control AND c.metric = $metric AND c.request_id <> '' AND EXISTS (
    FROM exposures e WHERE e.unit = c.unit AND e.reason = 'shadow' AND e.arm IN ($control, $treatment)
)
GROUP BY c.unit ORDER BY c.unit
"""


@dataclass(frozen=True, slots=True)
class Paired:
    """Treatment minus control over requests that both answered; ends are none below :data:`MIN_UNITS` units.

    Attributes:
        metric: name.
        arm: the treatment.
        pairs: requests that both arms answered.
        units: units that they belong to.
        control: the control's value over the pairs, in the metric's unit.
        treatment: the treatment's.
        delta: the difference.
        se: its standard error over units.
        low: lower end of the always-valid interval.
        high: upper end.
        p_value: always-valid two-sided p-value.
        correlation: of the arms' residuals over units: how much is gained by asking both.
    """

    metric: str
    arm: str
    pairs: int
    units: int
    control: float | None = None
    treatment: float | None = None
    delta: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    correlation: float | None = None


def shadow_pairs(events: Events, experiment: Experiment, metric: Metric, arm: str) -> Paired:
    """Compare one treatment with the control over shadow pairs.

    Args:
        events: of the version, open.
        experiment: the version.
        metric: a mean or a ratio; a mean is per request.
        arm: name of the treatment.

    Raises:
        ConfigError: the metric is a proportion of units or a quantile, or there is no such treatment.
    """
    if metric.kind not in {"mean", "ratio"}:
        msg = f"Metric {metric.name!r} is a {metric.kind}: shadow pairs compare means and ratios."
        raise ConfigError(msg, code="bad-metric", hint="Measure it as a mean or a ratio per request.")
    design = Design.of(experiment, arm)
    names = {"control": experiment.control.name, "treatment": arm, "metric": metric.name}
    found = events.connection.execute(QUERY, names).fetchnumpy()
    sums = np.stack([np.asarray(found[name], dtype=np.float64) for name in list(found)[2:]], axis=1)
    return _compare(metric.name, arm, int(np.sum(found["pairs"])), sums, design)


def every_pair(store: Store, experiment: Experiment) -> tuple[Paired, ...]:
    """Every mean and ratio of every treatment that has shadow pairs; empty where no request was answered twice.

    Raises:
        StorageError: a part cannot be read.
        ResourceError: memory ran out.
    """
    metrics = [metric for metric in experiment.metrics if metric.kind in {"mean", "ratio"}]
    with open_events(store, experiment) as events:
        shadows = events.connection.execute("SELECT count(*) FROM exposures WHERE reason = 'shadow'").fetchall()
        if not shadows[0][0]:
            return ()
        found = [
            shadow_pairs(events, experiment, metric, arm.name) for arm in experiment.treatments for metric in metrics
        ]
    return tuple(pair for pair in found if pair.pairs)


def _compare(metric: str, arm: str, pairs: int, sums: Floats, design: Design) -> Paired:
    """From sums by unit, ``shape = (units, 4)``: value and weight of the control, then of the treatment."""
    units, total = len(sums), sums.sum(axis=0)
    if units < 2 or not (total[1] > 0 and total[3] > 0):  # noqa: PLR2004 - one unit has no spread
        return Paired(metric, arm, pairs, units)
    values = total[0] / total[1], total[2] / total[3]
    residuals = [(sums[:, 2 * i] - values[i] * sums[:, 2 * i + 1]) / total[2 * i + 1] for i in (0, 1)]
    spread = residuals[1] - residuals[0]
    delta, se = float(values[1] - values[0]), math.sqrt(float(spread @ spread) * units / (units - 1))
    lengths = math.sqrt(float(residuals[0] @ residuals[0]) * float(residuals[1] @ residuals[1]))
    correlation = float(residuals[0] @ residuals[1]) / lengths if lengths > 0 else None
    known = (metric, arm, pairs, units, float(values[0]), float(values[1]), delta, se)
    if units < MIN_UNITS or not se > 0:
        return Paired(*known, correlation=correlation)
    # Each unit is in both arms, so the plan is reached when as many units have pairs as one arm was to have.
    time = units / design.planned_control * planned_time(design.alpha)
    half = se * float(multiplier(time, design.alpha))
    return Paired(*known, delta - half, delta + half, float(p_value(delta / se, time)), correlation)
