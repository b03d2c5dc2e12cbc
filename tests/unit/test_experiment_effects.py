"""Moments, ratios, covariates, quantiles and the effects that are made of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grym.errors import ConfigError, QualityError
from grym.experiment.config import Arm, Experiment, Metric, Power, Success
from grym.experiment.cuped import contrast
from grym.experiment.effects import DEFAULT_UNITS, Design, Effect, effect, quantile_effect
from grym.experiment.moments import Moments
from grym.experiment.quantiles import Quantile, quantile_of
from grym.experiment.ratio import linear
from grym.experiment.sequential import multiplier

RNG = np.random.default_rng(20261120)
DESIGN = Design(0.05, 1000, 1000)
MEAN = Metric("m", "mean", "lower", "v")
WER = Metric("wer", "ratio", "lower", "errors", weight="words")
P90 = Metric("p90", "quantile", "lower", "v", level=0.9)


def arrays(n: int = 400, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, weights and covariates of an arm."""
    x = RNG.normal(5, 1, n)
    return 2 * x + RNG.normal(3 + shift, 1, n), RNG.integers(5, 50, n).astype(float), x


def test_moments_add_up_and_can_be_taken_apart() -> None:
    """Both halves together are the whole, and the whole without one half is the other."""
    y, w, x = arrays()
    whole, half = Moments.from_arrays(y, w, x), Moments.from_arrays(y[:150], w[:150], x[:150])
    rest = Moments.from_arrays(y[150:], w[150:], x[150:])
    for name in Moments.__dataclass_fields__:
        assert getattr(half + rest, name) == pytest.approx(getattr(whole, name))
        assert getattr(whole - half, name) == pytest.approx(getattr(rest, name))


def test_moments_of_many_replicates_are_those_of_each() -> None:
    """Sums run over the last axis; weights default to 1 and covariates to 0."""
    y, x = RNG.normal(size=(3, 50)), RNG.normal(size=(3, 50))
    many = Moments.from_arrays(y, x=x)
    for row in range(3):
        one = Moments.from_arrays(y[row], np.ones(50), x[row])
        for name in Moments.__dataclass_fields__:
            assert np.asarray(getattr(many, name))[row] == pytest.approx(getattr(one, name))


def test_what_a_record_keeps_gives_the_same_spread() -> None:
    """Twelve digits of means and spreads are enough though values are 100 000 times their spread."""
    y = 1e5 + RNG.normal(size=500)
    kept = Moments.from_arrays(y).centred()
    again = Moments.from_centred(kept)
    assert again.spread("y", "y") == pytest.approx(499 * np.var(y, ddof=1), rel=1e-3)
    assert Moments.from_centred(Moments(0.0).centred()) == Moments(0.0)
    assert Moments.from_centred(Moments.from_arrays([3.0]).centred()).n == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_numbers_that_are_none_are_refused(bad: float | None) -> None:
    """NaN, infinite or missing numbers are typed errors that name what they are of."""
    row = dict.fromkeys(Moments.__dataclass_fields__, 1.0) | {"metric": "wer", "sum_yw": bad}
    with pytest.raises(QualityError, match="sum_yw of metric 'wer'"):
        Moments.from_row(row)
    if bad is None:
        with pytest.raises(QualityError, match="spread_yy"):
            Moments.from_centred({"n": 3, "mean_y": 1, "mean_w": 1, "mean_x": 1})
    else:
        with pytest.raises(QualityError, match="not a finite number"):
            Moments.from_arrays([1.0, bad])


def test_more_units_cannot_be_taken_away_than_there_are() -> None:
    """A negative number of units is refused."""
    with pytest.raises(QualityError, match="-1 units"):
        Moments.from_row(dict.fromkeys(Moments.__dataclass_fields__, -1.0))


def test_a_ratio_has_the_error_of_its_residuals() -> None:
    """The delta method from sums is the variance of the linearised units."""
    y, w, x = arrays()
    found, ratio = linear(Moments.from_arrays(y, w, x), "ratio"), y.sum() / w.sum()
    residuals = (y - ratio * w) / w.mean()
    assert found.value == pytest.approx(ratio)
    assert found.variance == pytest.approx(np.var(residuals, ddof=1) / y.size)
    assert found.covariance == pytest.approx(np.cov(residuals, x)[0, 1] / y.size)


def test_proportions_and_zeros_are_never_known_exactly() -> None:
    """An arm without a failure has the error of one more unit with one."""
    none = linear(Moments.from_arrays(np.zeros(100)), "proportion")
    assert none.variance == pytest.approx(1 / 102 * 101 / 102 / 100)
    assert linear(Moments.from_arrays(np.zeros(100), np.full(100, 5.0)), "ratio").variance > 0
    assert linear(Moments.from_arrays(np.zeros(100)), "mean").variance == pytest.approx(1 / 9900)
    assert linear(Moments.from_arrays(np.full(100, 7.3)), "mean").variance == 0
    assert linear(Moments.from_arrays(np.full(90, 0.3), np.full(90, 0.9)), "ratio").variance == 0


def test_the_covariate_takes_away_what_it_explains() -> None:
    """The variance is that of regressed values, the estimate stays, and one that is constant changes nothing."""
    arms = [Moments.from_arrays(*arrays(5000, shift)) for shift in (0.0, 0.5)]
    ends = [linear(arm, "mean") for arm in arms]
    plain, found = contrast(*ends), contrast(*ends, adjust=True)
    assert found.theta == pytest.approx(2, abs=0.1)
    assert found.reduction == pytest.approx(0.8, abs=0.03)
    assert found.delta == pytest.approx(0.5, abs=0.1)
    assert found.variance < 0.25 * float(plain.variance)
    constant = [linear(Moments.from_arrays(arrays()[0], x=np.ones(400)), "mean") for _ in range(2)]
    assert contrast(*constant, adjust=True) == contrast(*constant)


def test_relative_intervals_hold_the_ratios_that_are_not_rejected() -> None:
    """At both ends the test of treatment against (1 + r) control, from single units, is just significant."""
    (yc, _, xc), (yt, _, xt) = arrays(300), arrays(200, 1.0)
    control, treatment = Moments.from_arrays(yc, x=xc), Moments.from_arrays(yt, x=xt)
    found = contrast(linear(control, "mean"), linear(treatment, "mean"), adjust=True)
    theta, part = float(found.theta), 200 / 500
    for r in found.relative(3.0):
        slope = theta * (1 + float(r) * part)
        first, second = yt - slope * xt, (1 + float(r)) * yc - slope * xc
        error = math.sqrt(np.var(first, ddof=1) / 200 + np.var(second, ddof=1) / 300)
        assert abs(first.mean() - second.mean()) / error == pytest.approx(3.0, rel=1e-6)


def test_the_display_never_changes_the_verdict() -> None:
    """In 4000 data sets near the border, absolute, relative and logarithmic intervals exclude 0 together."""
    shift = RNG.normal(0, 0.5, (4000, 1))
    for sign in (1, -1):
        arms = [Moments.from_arrays(sign * (RNG.exponential(1, (4000, 150)) + k * shift)) for k in (0, 1)]
        found = contrast(*(linear(arm, "mean") for arm in arms))
        reach = 3.0 * np.sqrt(found.variance)
        absolute = np.where(found.delta > reach, 1, np.where(found.delta < -reach, -1, 0))
        low, high = found.relative(3.0)
        relative = np.where(np.asarray(low) > 0, 1, np.where(np.asarray(high) < 0, -1, 0))
        assert np.isfinite(low).all()
        assert (absolute == relative).all()
        assert 500 < np.count_nonzero(absolute) < 3500


def test_a_control_that_may_be_zero_has_no_relative_interval() -> None:
    """The difference is still tested; only the percentage is left out."""
    control, treatment = (Moments.from_arrays(RNG.normal(mean, 1, 500)) for mean in (0.0, 1.0))
    found = effect(MEAN, "b", control, treatment, DESIGN)
    assert found.relative_low is None
    assert found.log() is None
    assert found.p_value is not None
    assert found.p_value < 0.001


def test_an_effect_says_everything_about_one_test() -> None:
    """Interval, p-value, bounds on the harm and logarithm follow from one difference and its error."""
    control, treatment = (Moments.from_arrays(RNG.normal(mean, 1, 500)) for mean in (10.0, 9.0))
    lower = effect(MEAN, "b", control, treatment, DESIGN)
    higher = effect(Metric("m", "mean", "higher", "v"), "b", control, treatment, DESIGN)
    assert lower.se is not None
    assert lower.low is not None
    assert lower.high is not None
    assert lower.delta == pytest.approx((lower.low + lower.high) / 2)
    assert lower.high - lower.delta == pytest.approx(lower.se * multiplier(lower.time or 0.0, 0.05))
    assert lower.harm == -(higher.harm or 0) == lower.delta
    assert higher.inside((higher.harm_high or 0) + 1e-9)
    assert not lower.inside((higher.harm_high or 0) - 1e-9)
    assert lower.worse_p(0.0) == 1.0
    assert (higher.worse_p(0.0) or 1.0) < 1e-6
    assert higher.worse_p(higher.harm_low or 0.0) == pytest.approx(0.05)
    logs = lower.log()
    assert logs is not None
    assert logs[0] < math.log(9 / 10) < logs[1] < 0


@pytest.mark.parametrize(
    ("values", "problem"),
    [([5.0], "too-few-units"), ([], "too-few-units"), ([2.5] * 200, "all-equal"), (range(99), "too-few-units")],
)
def test_too_little_gives_values_and_a_reason(values: list[float], problem: str) -> None:
    """No unit, one unit, too few and all equal: no interval, no p-value, and the reason."""
    arm = Moments.from_arrays(np.asarray(values, dtype=float))
    found = effect(MEAN, "b", arm, arm, DESIGN)
    assert (found.problem, found.low, found.p_value, found.worse_p(0.0)) == (problem, None, None, None)
    assert found.delta == (0.0 if values else None)


def test_a_quantile_is_compared_by_its_own_function() -> None:
    """Moments do not hold quantiles: asking for one is an error that says so."""
    with pytest.raises(ConfigError, match="quantile"):
        effect(P90, "b", Moments(5.0), Moments(5.0), DESIGN)


def test_quantiles_lie_between_order_statistics() -> None:
    """The error of a median of normal values is the known one, and repeated values of a unit widen it."""
    y = RNG.normal(size=4000)
    alone = quantile_of(y, 0.5)
    assert alone.value == np.sort(y)[1999]
    assert math.sqrt(float(alone.linear().variance)) == pytest.approx(math.sqrt(math.pi / 2 / 4000), rel=0.2)
    thrice = quantile_of(np.repeat(y, 3), 0.5, np.repeat(np.arange(4000), 3))
    assert (thrice.n, thrice.values) == (4000, 12_000)
    assert thrice.linear().variance == pytest.approx(float(alone.linear().variance), rel=0.2)


def test_quantiles_cover_what_they_estimate() -> None:
    """An interval of 1.96 errors holds the true p90 about 95 times in a hundred."""
    truth = -math.log(0.1)
    hits = 0
    for _ in range(300):
        found = quantile_of(RNG.exponential(1, 600), 0.9)
        hits += abs(found.value - truth) < 1.96 * math.sqrt(float(found.linear().variance))
    assert 264 <= hits <= 299


def test_quantiles_of_too_little_have_no_interval() -> None:
    """Nothing, one value, equal values, and a level beyond what the sample reaches."""
    assert math.isnan(quantile_of([], 0.9).value)
    assert math.isnan(float(quantile_of([1.0], 0.9).linear().variance))
    assert quantile_of([2.0] * 500, 0.9).linear().variance == 0
    far = quantile_of(range(200), 0.999)
    assert quantile_effect(P90, "b", far, far, DESIGN).problem == "too-far-out"
    same = quantile_of([2.0] * 500, 0.9)
    assert quantile_effect(P90, "b", same, same, DESIGN).problem == "all-equal"
    with pytest.raises(QualityError, match="NaN"):
        quantile_of([1.0, math.nan], 0.5)


def test_quantiles_survive_a_record() -> None:
    """What is kept of a quantile gives it back, what is not known included."""
    for found in (quantile_of(RNG.normal(size=300), 0.9, metric="p90", arm="a"), quantile_of([], 0.9)):
        again = Quantile.from_row(found.row())
        assert again.row() == found.row()
        assert again.n == found.n


def test_the_design_comes_from_the_plan() -> None:
    """Units and error come from the power plan, else from the criteria, else from the default; treatments share."""
    arms = (Arm("a", 0.5, "x"), Arm("b", 0.25, "y"), Arm("c", 0.25, "z"))
    plain = Experiment("e", 1, "user", arms, (MEAN,))
    assert Design.of(plain, "b") == Design(0.025, DEFAULT_UNITS, DEFAULT_UNITS / 2, planned=False)
    asked = Experiment("e", 1, "user", arms, (MEAN,), success=Success(min_units=800))
    assert Design.of(asked, "b").planned_control == 800
    planned = Experiment("e", 1, "user", arms, (MEAN,), power=Power(0.1, 1000, sd=1.0))
    found = Design.of(planned, "c")
    assert found.planned
    assert found.planned_treatment == found.planned_control / 2
    assert Effect("m", "b", 1, 1).log() is None
