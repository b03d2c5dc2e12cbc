"""Intervals and p-values that hold at every look: confidence sequences from the normal mixture.

Everything depends on the estimate, its standard error and one more number, the *time* ``t = n rho^2``: how much has
been seen, as a multiple of what the mixture is scaled to. At the planned end ``t`` is about 8 (5 % error), where the
interval is narrowest: 1.55 times as wide as one that may be looked at once. Early it is much wider, so that what is
found early is rarely wrong.

    two-sided half-width = se sqrt( 2 (t + 1) / t  log( sqrt(t + 1) / alpha ) )
    one-sided half-width = se sqrt( 2 (t + 1) / t  log( 1 + sqrt(t + 1) / (2 alpha) ) )

They are asymptotic: they need enough units for means to be normal (:data:`MIN_UNITS`), and hold from there on for ever.
Error probabilities are fractions. All functions take numbers or arrays. Knows nothing about arms or metrics.

Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", arXiv 2103.06476 (section 2; one-sided in the appendix); Howard et al., Annals of Statistics 49 (2021).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

from grym.errors import ConfigError
from grym.experiment.moments import plain
from grym.experiment.power import tuning

if TYPE_CHECKING:
    from grym.experiment.moments import Numbers

Sides = Literal[1, 2]
MIN_UNITS: Final = 100  # per arm; below it no interval is given: benchmarks/live_rates.py measures from here on
_ALPHA_MAX: Final = 0.25  # twice the one-sided error must stay below one half


def planned_time(alpha: float, sides: Sides = 2) -> float:
    """The time at the planned end: the ``n rho^2`` that makes the interval narrowest there.

    Example:
        >>> round(planned_time(0.05), 4)
        7.9362
    """
    return tuning(1.0, _checked(alpha) * (2 if sides == 1 else 1)) ** 2


def progress(control: Numbers, treatment: Numbers, planned_control: float, planned_treatment: float) -> Numbers:
    """How much of the planned information two arms have: the ratio of ``1 / (1/n + 1/m)``; 1 at the plan.

    With the shares that were planned it is the fraction of the planned units.
    """
    planned = planned_control * planned_treatment / (planned_control + planned_treatment)
    with np.errstate(invalid="ignore", divide="ignore"):
        return plain(np.nan_to_num(np.multiply(control, treatment) / np.add(control, treatment)) / planned)


def multiplier(time: Numbers, alpha: float, sides: Sides = 2) -> Numbers:
    """Half-width of the interval in standard errors; infinite at time 0.

    Args:
        time: ``n rho^2``, at least 0; :func:`planned_time` times the progress.
        alpha: error probability over all looks, in (0, 0.25).
        sides: 2 for an interval, 1 for a bound.

    Raises:
        ConfigError: alpha is out of range.
    """
    _checked(alpha)
    t = np.asarray(time, dtype=np.float64)
    root = np.sqrt(t + 1)
    tail = np.log(root / alpha) if sides != 1 else np.log1p(root / (2 * alpha))
    with np.errstate(divide="ignore"):
        return plain(np.sqrt(2 * (t + 1) / t * tail))


def half_width(n: Numbers, variance: Numbers, rho: float, alpha: float, sides: Sides = 2) -> Numbers:
    """Half-width for a mean of ``n`` units of a variance, with the tuning of :func:`grym.experiment.power.tuning`.

    Example:
        >>> round(half_width(100, 1.0, 100**-0.5 * planned_time(0.05) ** 0.5, 0.05), 7)
        0.3035209
    """
    return plain(np.sqrt(np.divide(variance, n)) * multiplier(np.multiply(n, rho**2), alpha, sides))


def p_value(z: Numbers, time: Numbers, sides: Sides = 2) -> Numbers:
    """Always-valid p-value: the smallest error probability at which the interval excludes the null value.

    Args:
        z: estimate minus null value in standard errors; for one side positive where the null value is below.
        time: ``n rho^2`` of the interval, the same at which :func:`multiplier` was taken.
        sides: 2 for an interval, 1 for a bound.

    Example:
        >>> float(round(p_value(multiplier(8.0, 0.05), 8.0), 12))
        0.05
    """
    t, score = np.asarray(time, dtype=np.float64), np.asarray(z, dtype=np.float64)
    if sides == 1:
        score = np.maximum(score, 0.0)
    exponent = score**2 * t / (2 * (t + 1))
    with np.errstate(over="ignore", divide="ignore"):
        found = np.exp(0.5 * np.log1p(t) - exponent) if sides != 1 else np.sqrt(t + 1) / (2 * np.expm1(exponent))
    return plain(np.minimum(found, 1.0))


def mixture_bound(v: float, rho: float, alpha: float, sides: Sides = 2) -> float:
    """Howard's normal mixture itself: what a sum of variance ``v`` stays below, with probability 1 - alpha, for ever.

    The one-sided closed form above is a bound on this one (within 2 % of it from half of the plan on).

    Args:
        v: accumulated variance, above 0.
        rho: tuning in Howard's parameter; ``v_planned / planned_time(alpha, sides)`` is best at ``v_planned``.
        alpha: error probability over all looks.
        sides: 2 or 1.

    Example:
        >>> round(mixture_bound(100, 12.60056, 0.05), 4)
        30.3521

    Source: Howard et al. 2021, section 3 (conjugate mixtures).
    """
    _checked(alpha)
    if sides != 1:
        return math.sqrt((v + rho) * math.log((v + rho) / (rho * alpha**2)))

    def excess(s: float) -> float:
        wealth = 0.5 * math.log(4 * rho / (v + rho)) + s * s / (2 * (v + rho)) + log_ndtr(s / math.sqrt(v + rho))
        return float(wealth + math.log(alpha))

    return float(brentq(excess, 0.0, mixture_bound(v, rho, alpha), xtol=1e-12))


def _checked(alpha: float) -> float:
    if not 0 < alpha < _ALPHA_MAX:
        msg = f"An error probability should lie in (0, {_ALPHA_MAX}), not {alpha:g}."
        raise ConfigError(msg, code="bad-alpha", hint="Give 1 - confidence, shared by the comparisons.")
    return alpha
