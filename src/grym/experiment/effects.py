"""One metric of one treatment against the control at one look: interval, p-value, bounds on the harm, in any display.

There is one test. Its p-value and verdict are the same whether the difference is shown in the metric's unit, as a
fraction of the control or as a logarithm; only the ends of the interval are translated
(:meth:`grym.experiment.cuped.Contrast.relative`). Knows nothing about decisions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from grym.errors import ConfigError
from grym.experiment.cuped import Contrast, contrast
from grym.experiment.power import Plan, plan
from grym.experiment.ratio import linear
from grym.experiment.sequential import MIN_UNITS, multiplier, p_value, planned_time, progress

if TYPE_CHECKING:
    from grym.experiment.config import Experiment, Metric
    from grym.experiment.moments import Moments
    from grym.experiment.quantiles import Quantile

DEFAULT_UNITS: Final = 2_500  # planned units of the control where nobody planned: GrowthBook's 5000 in two arms
# Harm is looked for as if a tenth of the units were planned: seen at a hundredth of the plan if 3.7 instead of 9
# standard errors above the margin, for a bound that is 7 % wider at the end.
EARLY: Final = 0.1
Problem = Literal["too-few-units", "all-equal", "too-far-out"]


@dataclass(frozen=True, slots=True)
class Design:
    """What was fixed before the first look.

    Attributes:
        alpha: error probability of one comparison, over all looks.
        planned_control: units of the control at the planned end.
        planned_treatment: units of the treatment then.
        planned: whether somebody planned; else the default number of units is assumed.
    """

    alpha: float
    planned_control: float
    planned_treatment: float
    planned: bool = True

    @classmethod
    def of(cls, experiment: Experiment, treatment: str) -> Design:
        """The design of one comparison: of the power plan, else of ``min_units``, else :data:`DEFAULT_UNITS`.

        Raises:
            ConfigError: there is no such arm.
        """
        arm = experiment.arm(treatment)
        size: Plan | None = plan(experiment) if experiment.power is not None else None
        open_arms = sum(other.share > 0 for other in experiment.treatments)
        alpha = size.alpha if size else round(1 - experiment.success.confidence, 12) / max(1, open_arms)
        units = size.control if size else experiment.success.min_units or DEFAULT_UNITS
        paired = experiment.power is not None and experiment.power.design == "paired"
        ratio = arm.share / experiment.control.share if arm.share > 0 and not paired else 1.0
        return cls(alpha, float(units), max(1.0, units * ratio), size is not None)


@dataclass(frozen=True, slots=True)
class Effect:
    """Treatment minus control for one metric at one look.

    Numbers that cannot be given are None; ``problem`` says why.

    Attributes:
        metric: name.
        arm: the treatment's name.
        n_control: units of the control.
        n_treatment: units of the treatment.
        control: the control's value, in the metric's unit (at the average covariate of both arms).
        treatment: likewise.
        delta: the difference, in the metric's unit.
        se: standard error of the difference.
        time: ``n rho^2`` of the two-sided interval, about 8 at the planned end.
        low: lower end of the always-valid interval.
        high: upper end.
        p_value: always-valid two-sided p-value, the same for every display.
        relative: the difference as a fraction of the control's size.
        relative_low: lower end of its interval; none where the control may be 0.
        relative_high: upper end.
        harm: the difference in the worse direction.
        harm_low: one-sided lower bound of the harm, narrowest at a tenth of the plan (:data:`EARLY`).
        harm_high: one-sided upper bound of the harm, narrowest at the plan.
        reduction: fraction of the variance that the covariate took away.
        early_time: ``n rho^2`` of the lower bound of the harm.
        problem: why there is no interval.
    """

    metric: str
    arm: str
    n_control: int
    n_treatment: int
    control: float | None = None
    treatment: float | None = None
    delta: float | None = None
    se: float | None = None
    time: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    relative: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    harm: float | None = None
    harm_low: float | None = None
    harm_high: float | None = None
    reduction: float = 0.0
    early_time: float | None = None
    problem: Problem | None = None

    def worse_p(self, margin: float) -> float | None:
        """Always-valid one-sided p-value of the harm being no more than a margin; none without an interval."""
        if self.harm is None or self.se is None or self.early_time is None:
            return None
        return float(p_value((self.harm - margin) / self.se, self.early_time, 1))

    def inside(self, margin: float) -> bool:
        """Whether the difference is shown to lie inside a margin: one-sided bounds to both sides."""
        if self.harm is None or self.harm_high is None:
            return False
        return abs(self.harm) + (self.harm_high - self.harm) < margin

    def log(self) -> tuple[float, float] | None:
        """The interval as a difference of natural logarithms; none where the relative one is missing or reaches -1."""
        if self.relative_low is None or self.relative_high is None or self.relative_low <= -1:
            return None
        return math.log1p(self.relative_low), math.log1p(self.relative_high)


def effect(
    metric: Metric, arm: str, control: Moments, treatment: Moments, design: Design, *, min_units: int = MIN_UNITS
) -> Effect:
    """Compare two arms by their moments.

    Args:
        metric: a mean, proportion or ratio.
        arm: the treatment's name.
        control: moments of the control.
        treatment: moments of the treatment.
        design: what was fixed before.
        min_units: units per arm below which nothing is said but the values.
    """
    if metric.kind == "quantile":
        msg = f"Metric {metric.name!r} is a quantile: moments do not hold it."
        raise ConfigError(msg, code="bad-metric", hint="Use quantile_effect.")
    arms = [linear(moments, metric.kind) for moments in (control, treatment)]
    found = contrast(*arms, adjust=metric.covariate is not None)
    few = min(float(control.n), float(treatment.n)) < min_units
    return _effect(metric, arm, (control.n, treatment.n), found, design, "too-few-units" if few else None)


def quantile_effect(
    metric: Metric, arm: str, control: Quantile, treatment: Quantile, design: Design, *, min_units: int = MIN_UNITS
) -> Effect:
    """Compare two arms by a quantile of their single values; arguments as for :func:`effect`."""
    arms = [quantile.linear() for quantile in (control, treatment)]
    few = min(control.n, treatment.n) < min_units
    far = any(math.isnan(float(one.variance)) for one in arms)
    problem: Problem | None = "too-few-units" if few else "too-far-out" if far else None
    return _effect(metric, arm, (control.n, treatment.n), contrast(*arms), design, problem)


def _effect(
    metric: Metric, arm: str, units: tuple[object, object], found: Contrast, design: Design, problem: Problem | None
) -> Effect:
    n, m = (int(float(count)) for count in units)  # type: ignore[arg-type]  # numbers, not arrays, by now
    values = _known(found.control), _known(found.treatment), _known(found.delta)
    if values[2] is None:
        problem = "too-few-units"
    elif problem is None and not float(found.variance) > 0:
        problem = "all-equal"
    if problem is not None:
        return Effect(metric.name, arm, n, m, *values, problem=problem)
    delta, se, base = float(found.delta), math.sqrt(float(found.variance)), abs(float(found.control))
    part = float(progress(n, m, design.planned_control, design.planned_treatment))
    time = part * planned_time(design.alpha)
    width = float(multiplier(time, design.alpha))
    bound_time = part * planned_time(design.alpha, 1)
    early_time = bound_time / EARLY
    harm = delta if metric.direction == "lower" else -delta
    relative = found.relative(width)
    return Effect(
        metric.name,
        arm,
        n,
        m,
        *values,
        se=se,
        time=time,
        low=delta - width * se,
        high=delta + width * se,
        p_value=float(p_value(delta / se, time)),
        relative=delta / base if base > 0 else None,
        relative_low=_known(relative[0]),
        relative_high=_known(relative[1]),
        harm=harm,
        harm_low=harm - se * float(multiplier(early_time, design.alpha, 1)),
        harm_high=harm + se * float(multiplier(bound_time, design.alpha, 1)),
        reduction=float(found.reduction),
        early_time=early_time,
    )


def _known(value: object) -> float | None:
    number = float(value)  # type: ignore[arg-type]  # a number by now
    return number if math.isfinite(number) else None
