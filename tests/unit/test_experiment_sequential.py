"""Confidence sequences, always-valid p-values and the sequential sample ratio, against published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from grym.errors import ConfigError, QualityError
from grym.experiment import srm
from grym.experiment.moments import Moments
from grym.experiment.power import tuning
from grym.experiment.ratio import linear
from grym.experiment.sequential import half_width, mixture_bound, multiplier, p_value, planned_time, progress

# statistics.md, section 3: GrowthBook's test data, and the batches of ssrm's tests.
CONTROL, TREATMENT = (1396.87, 52377.9767, 3000), (2422.7, 134698.29, 3461)
BATCHES, SHARES = [[20, 17, 9], [18, 21, 8], [4, 6, 4], [18, 19, 11]], [0.4, 0.4, 0.2]


def variance_of_mean(total: float, squares: float, n: int) -> float:
    """Variance of a mean from sums."""
    return (squares - total**2 / n) / (n - 1) / n


def test_constants_are_those_of_the_confseq_library() -> None:
    """The best tuning and both mixture bounds at 100 have confseq's values."""
    rho = 100 / planned_time(0.05)
    assert rho == pytest.approx(12.60056, abs=5e-6)
    assert mixture_bound(100, rho, 0.05) == pytest.approx(30.35209, abs=5e-6)
    assert mixture_bound(100, 100 / planned_time(0.05, 1), 0.05, 1) == pytest.approx(27.66071, abs=5e-6)


def test_the_one_sided_bound_is_growthbooks() -> None:
    """The lower bound of GrowthBook's one-sided sequential test comes out to the last digits."""
    error = math.sqrt(variance_of_mean(*CONTROL) + variance_of_mean(*TREATMENT))
    time = (CONTROL[2] + TREATMENT[2]) * tuning(5000, 2 * 0.05) ** 2
    delta = TREATMENT[0] / TREATMENT[2] - CONTROL[0] / CONTROL[2]
    assert delta - error * float(multiplier(time, 0.05, 1)) == pytest.approx(-0.12656844172804982, rel=1e-12)


def test_differences_of_means_are_growthbooks() -> None:
    """From the same sums its Welch test's interval and p-value; the estimate behind every always-valid interval."""
    control, treatment = (
        linear(Moments(n=float(n), sum_y=y, sum_yy=yy), "mean")
        for y, yy, n in ((1396.87, 52377.9767, 3407), (2422.7, 134698.29, 3461))
    )
    variances = np.array([control.variance, treatment.variance], dtype=float)
    delta, error = float(treatment.value) - float(control.value), math.sqrt(variances.sum())
    df = variances.sum() ** 2 / (variances**2 / [3406, 3460]).sum()
    half = float(stats.t.ppf(0.975, df)) * error
    assert (delta - half, delta + half) == (pytest.approx(0.04538, abs=5e-6), pytest.approx(0.53462, abs=5e-6))
    assert 2 * float(stats.t.sf(delta / error, df)) == pytest.approx(0.02016, abs=5e-6)


def test_the_closed_form_one_sided_bound_is_valid_and_hardly_wider() -> None:
    """It lies above the exact mixture bound everywhere, by at most 2 % from half of the plan on."""
    for part in (0.01, 0.1, 0.5, 1.0, 3.0, 10.0):
        time = part * planned_time(0.05, 1)
        exact, closed = mixture_bound(1.0, 1 / time, 0.05, 1), float(multiplier(time, 0.05, 1))
        assert closed >= exact
        assert part < 0.5 or closed <= 1.02 * exact


@pytest.mark.parametrize("sides", [1, 2])
def test_p_values_and_intervals_agree(sides: int) -> None:
    """At the end of every interval the p-value is the error probability, whatever the time."""
    for alpha in (0.2, 0.05, 0.001):
        times = np.array([0.01, 1.0, 8.0, 500.0])
        edges = multiplier(times, alpha, sides)  # type: ignore[arg-type]
        np.testing.assert_allclose(p_value(edges, times, sides), alpha, rtol=1e-9)  # type: ignore[arg-type]


def test_the_interval_is_narrowest_at_the_plan_and_narrow_enough() -> None:
    """Another time gives a wider interval; at the plan it is at most 1.6 times one that is looked at once."""
    best = float(multiplier(planned_time(0.05), 0.05))
    scaled = [math.sqrt(1 / part) * float(multiplier(planned_time(0.05) * part, 0.05)) for part in (1.0,)]
    assert scaled[0] == pytest.approx(best)
    assert best / 1.959964 < 1.6
    for other in (0.5, 2.0):
        assert float(multiplier(planned_time(0.05) * other, 0.05)) > best


def test_half_width_follows_the_published_formula() -> None:
    """The half-width of a mean is the formula of Waudby-Smith and others."""
    n, variance, alpha, rho = 400, 2.5, 0.05, tuning(1000, 0.05)
    root = n * rho**2 + 1
    wanted = math.sqrt(variance * 2 * root / (n**2 * rho**2) * math.log(math.sqrt(root) / alpha))
    assert half_width(n, variance, rho, alpha) == pytest.approx(wanted, rel=1e-12)


def test_evidence_against_the_other_side_is_none() -> None:
    """A one-sided p-value is 1 where the estimate lies on the null's side, and time 0 tells nothing."""
    assert p_value(-5.0, 8.0, 1) == 1.0
    assert p_value(5.0, 0.0) == 1.0
    assert math.isinf(float(multiplier(0.0, 0.05)))


def test_progress_is_the_part_of_the_planned_information() -> None:
    """With the planned shares it is the part of the units; without units it is 0."""
    assert progress(500, 500, 1000, 1000) == pytest.approx(0.5)
    assert progress(900, 100, 1800, 200) == pytest.approx(0.5)
    assert progress(0, 0, 10, 10) == 0.0
    assert float(progress(10_000, 10, 1000, 1000)) < 0.03


@pytest.mark.parametrize("alpha", [0.0, 0.25, -1.0, math.nan])
def test_error_probabilities_are_checked(alpha: float) -> None:
    """An error probability that is none is refused."""
    with pytest.raises(ConfigError, match="error probability"):
        multiplier(1.0, alpha)


def test_sample_ratio_evidence_is_that_of_the_ssrm_library() -> None:
    """The log marginals after each batch have ssrm's values."""
    mixed, null = srm.log_marginals(BATCHES, SHARES, [1, 1, 1])
    np.testing.assert_allclose(mixed, [-7.0282014, -11.9478477, -15.4714020, -19.9648452], atol=5e-8)
    np.testing.assert_allclose(null, [-4.0776406, -8.2659469, -11.6107435, -15.7810312], atol=5e-8)


def test_a_mismatch_is_found_and_a_match_is_not() -> None:
    """Small mismatches of many units and large ones of few are found; balanced counts are not."""
    assert not srm.check([50_000, 50_100], [0.5, 0.5]).mismatch
    assert srm.check([50_000, 51_500], [0.5, 0.5]).mismatch
    assert srm.check([60, 10], [0.5, 0.5]).mismatch
    assert not srm.check([0, 0], [0.5, 0.5]).mismatch
    assert not srm.check([901, 99], [0.9, 0.1]).mismatch


def test_a_closed_arm_with_units_is_impossible_at_once() -> None:
    """One unit in an arm of share 0 suffices; many looks say so each."""
    found = srm.check([50, 50, 1], [0.5, 0.5, 0.0])
    assert (found.impossible, found.mismatch, found.p_value) == ((2,), True, 0.0)
    assert srm.p_values([[5, 5, 0], [5, 5, 1]], [0.5, 0.5, 0.0]).tolist() == [1.0, 0.0]


def test_many_looks_are_what_single_ones_are() -> None:
    """An array of looks has the p-value of each look."""
    counts = np.array([[10, 12, 5], [200, 260, 90], [4000, 4100, 1900]])
    single = [srm.check(row.tolist(), SHARES).p_value for row in counts]
    np.testing.assert_allclose(srm.p_values(counts, SHARES), single)


def test_bad_shares_and_counts_are_refused() -> None:
    """Shares that do not add up, negative or missing counts are typed errors."""
    with pytest.raises(ConfigError, match="add up to 1"):
        srm.check([1, 2], [0.5, 0.6])
    with pytest.raises(QualityError, match="not negative"):
        srm.check([1, -2], [0.5, 0.5])
    with pytest.raises(QualityError):
        srm.p_values([[1, 2, 3]], [0.5, 0.5])
    with pytest.raises(ConfigError, match="share of 0"):
        srm.log_marginals([[1, 0]], [1.0, 0.0], [1, 1])
