"""How long an experiment has to run: units per arm, days, and the tuning of the confidence sequence.

Fixed-horizon sizes come from statsmodels. The sequential size is the number of units at which the confidence sequence,
looked at that once, excludes zero with the wanted power if the effect is real: an upper bound, since the sequence may
stop at any earlier look. Knows nothing about data; variances are those of the plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scipy.stats import norm

from grym.errors import ConfigError

if TYPE_CHECKING:
    from grym.experiment.config import Experiment, Power

_ALPHA_MAX: Final = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What the power plan comes to.

    Attributes:
        fixed_control: units of the control for one look at the end; not rounded.
        control: units of the control for the sequence, looked at as often as one likes.
        total: units of all arms together.
        days: days until then, ramp included.
        rho: tuning of the confidence sequence for the number of units of the smaller arm.
        alpha: error probability of one comparison: ``1 - confidence``, shared by the treatments (Bonferroni).
    """

    fixed_control: float
    control: int
    total: int
    days: float
    rho: float
    alpha: float


def plan(experiment: Experiment) -> Plan:
    """The plan of an experiment, for its least favourable treatment.

    Raises:
        ConfigError: it has no ``[power]``.
    """
    power = experiment.power
    if power is None:
        msg = f"Experiment {experiment.name!r} has no power plan."
        raise ConfigError(msg, code="no-power", hint="Add [power] with effect, sd and units_per_day to a new version.")
    open_arms = [arm for arm in experiment.treatments if arm.share > 0]
    alpha = round(1 - experiment.success.confidence, 12) / max(1, len(open_arms))  # 1 - 0.95 is not 0.05
    share = experiment.control.share
    ratio = min((arm.share for arm in open_arms), default=share) / share if power.design == "two-sample" else 1.0
    control = math.ceil(_sequential_units(power, alpha, ratio))
    total = control if power.design == "paired" else math.ceil(control / share)
    return Plan(
        fixed_control=_fixed_units(power, alpha, ratio),
        control=control,
        total=total,
        days=_days(experiment, power, total),
        rho=tuning(control * min(1.0, ratio), alpha),
        alpha=alpha,
    )


def tuning(units: float, alpha: float) -> float:
    """The tuning rho that makes a confidence sequence narrowest at a planned number of units.

    Args:
        units: planned number of units, above 0.
        alpha: two-sided error probability, in (0, 0.5).

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> round(100 / (100 * tuning(100, 0.05) ** 2), 5)
        12.60056

    Source: Waudby-Smith et al., arXiv 2103.06476, section on tuning; Howard et al. 2021, proposition 3.
    The example's number is the same tuning in the parameter of Howard's normal mixture, v / (n rho^2) at v = 100.
    """
    if not (units > 0 and 0 < alpha < _ALPHA_MAX):
        msg = f"A tuning needs more than 0 units and alpha in (0, {_ALPHA_MAX}), not {units:g} and {alpha:g}."
        raise ConfigError(msg, code="bad-power", hint="Give the planned number of units and 1 - confidence.")
    return math.sqrt(_mixture(alpha) / units)


def two_sample_units(effect: float, *, alpha: float = 0.05, power: float = 0.8, ratio: float = 1.0) -> float:
    """Units of the control of a two-sample t-test for an effect in standard deviations.

    Example:
        >>> round(two_sample_units(0.2), 4)
        393.4057
    """
    from statsmodels.stats.power import TTestIndPower

    return float(TTestIndPower().solve_power(effect, alpha=alpha, power=power, ratio=ratio))


def paired_units(effect: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Units of a paired t-test for an effect in standard deviations of the difference.

    Example:
        >>> round(paired_units(0.1), 4)
        786.8089
    """
    from statsmodels.stats.power import TTestPower

    return float(TTestPower().solve_power(effect, alpha=alpha, power=power))


def proportion_units(
    control: float, treatment: float, *, alpha: float = 0.05, power: float = 0.8, ratio: float = 1.0
) -> float:
    """Units of the control for two proportions, by the arcsine approximation.

    Example:
        >>> round(proportion_units(0.085, 0.063), 2)
        2210.69
    """
    from statsmodels.stats.power import NormalIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    effect = abs(float(proportion_effectsize(control, treatment)))
    return float(NormalIndPower().solve_power(effect, alpha=alpha, power=power, ratio=ratio))


def _fixed_units(power: Power, alpha: float, ratio: float) -> float:
    if power.baseline is not None and power.sd is None:
        return proportion_units(power.baseline, _other(power), alpha=alpha, power=power.power, ratio=ratio)
    effect = power.effect / _sd(power)
    if power.design == "paired":
        return paired_units(effect, alpha=alpha, power=power.power)
    return two_sample_units(effect, alpha=alpha, power=power.power, ratio=ratio)


def _sequential_units(power: Power, alpha: float, ratio: float) -> float:
    """Smallest n with effect >= half-width(n) + z * se(n); both fall with the root of n when rho is tuned for n."""
    mixture = _mixture(alpha)
    # Half-width in standard errors at the n that rho was chosen for (statistics of the sequence: see `tuning`).
    width = math.sqrt(2 * (mixture + 1) / mixture * math.log(math.sqrt(mixture + 1) / alpha))
    spread = (width + float(norm.ppf(power.power))) ** 2
    if power.baseline is not None and power.sd is None:
        other = _other(power)
        variance = power.baseline * (1 - power.baseline) + other * (1 - other) / ratio
    else:
        variance = _sd(power) ** 2 * (1.0 if power.design == "paired" else 1 + 1 / ratio)
    return spread * variance / power.effect**2


def _mixture(alpha: float) -> float:
    """The product n rho^2 at the planned n."""
    c = -2 * math.log(alpha)
    return c + math.log(1 + c)


def _sd(power: Power) -> float:
    """Standard deviation that is left: of a paired difference, or after regression on the covariate."""
    sd = power.sd or 0.0  # the configuration has checked that it is there
    if power.design == "paired":
        return sd * math.sqrt(2 * (1 - power.correlation))
    return sd * math.sqrt(1 - power.correlation**2)


def _other(power: Power) -> float:
    """The proportion that is as far away as the effect, on the side nearer to one half: the larger variance."""
    base = power.baseline or 0.0
    return min((base + power.effect, base - power.effect), key=lambda value: abs(value - 0.5))


def _days(experiment: Experiment, power: Power, total: int) -> float:
    """Days until as many units have been enrolled, step by step of the ramp; at least the criteria's."""
    width = experiment.namespace.width if experiment.namespace else 1.0
    held = experiment.holdout.share if experiment.holdout else 0.0
    eligible = power.units_per_day * width * (1 - held)
    enrolled, days = 0.0, 0.0
    for coverage in experiment.ramp.coverage[:-1]:
        gained = eligible * coverage * experiment.ramp.days
        if enrolled + gained >= total:
            return max(experiment.success.min_days, days + (total - enrolled) / (eligible * coverage))
        enrolled, days = enrolled + gained, days + experiment.ramp.days
    last = eligible * experiment.ramp.coverage[-1]
    return max(experiment.success.min_days, days + (total - enrolled) / last)
