"""Intervals and p-values: definitions, symmetries, degenerate data and, by simulation, calibration."""

import math

import numpy as np
import pytest
from scipy import stats

from grym.compare.significance import quantile, quantile_difference, rate_difference, rate_interval, ratio
from grym.errors import ConfigError


def errors_of(rng, speakers=20, clips=15, words=10, spread=0.0):
    """Errors of two equally good arms; ``spread`` is the sd of an arm's log strength per speaker."""
    speaker = np.repeat(np.arange(speakers), clips)
    units = np.full(speaker.size, words)
    rates = [0.1 * np.exp(rng.normal(0, spread, speakers) - spread**2 / 2) for _ in range(2)]
    a, b = (rng.binomial(words, np.minimum(rate, 1)[speaker]) for rate in rates)
    return a, b, units, speaker


def test_equal_weights_give_the_paired_t_test():
    """With equal units in every cluster the test is the paired t-test of the clusters' rates."""
    a, b, units, speaker = errors_of(np.random.default_rng(1), spread=0.3)
    d = rate_difference(a, b, units, speaker, 0.95)
    sums = [np.bincount(speaker, weights=x) / 150 for x in (a, b)]
    oracle = stats.ttest_rel(sums[1], sums[0])
    interval = oracle.confidence_interval(0.95)
    assert d.p_value == pytest.approx(oracle.pvalue)
    assert (d.ci_low, d.ci_high) == pytest.approx((interval.low, interval.high))
    assert (d.a, d.b) == pytest.approx((a.sum() / units.sum(), b.sum() / units.sum()))
    inner = oracle.confidence_interval(0.90)
    assert (d.inner_low, d.inner_high) == pytest.approx((inner.low, inner.high))


def test_unequal_weights_by_hand():
    """Residual, G / (G - 1) and G - 1 degrees stand as in the definition."""
    d = rate_difference([1, 0, 2], [2, 2, 1], [10, 20, 10], ["x", "y", "z"], 0.95)
    residuals = np.array([1 - 0.05 * 10, 2 - 0.05 * 20, -1 - 0.05 * 10])
    se = math.sqrt(3 / 2 * (residuals**2).sum()) / 40
    assert d.difference == pytest.approx(0.05)
    assert d.se == pytest.approx(se)
    assert d.ci_high - d.difference == pytest.approx(stats.t.ppf(0.975, 2) * se)


def test_clustering_keeps_the_false_positive_rate():
    """With speaker-specific strengths, clustering by speaker holds 5 %; pretending clips are independent does not."""
    rng = np.random.default_rng(2026)
    repetitions, clustered, naive = 600, 0, 0
    for _ in range(repetitions):
        a, b, units, speaker = errors_of(rng, spread=0.4)
        clustered += rate_difference(a, b, units, speaker, 0.95).p_value < 0.05
        naive += rate_difference(a, b, units, np.arange(a.size), 0.95).p_value < 0.05
    assert 0.025 <= clustered / repetitions <= 0.075
    assert naive / repetitions >= 0.15


def test_interval_covers_the_truth():
    """The 95 % interval of a real difference holds it in about 95 % of the sets."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        a, _, units, speaker = errors_of(rng, clips=8, spread=0.3)
        b = rng.binomial(10, 0.06 * np.exp(rng.normal(0, 0.3, 20) - 0.045)[speaker])
        d = rate_difference(a, b, units, speaker, 0.95)
        covered += d.ci_low <= -0.04 <= d.ci_high
    assert 0.92 <= covered / 400 <= 0.98


def test_order_of_rows_does_not_matter():
    """Shuffled rows give the same numbers, bit by bit, for rates and for quantiles."""
    rng = np.random.default_rng(3)
    a, b, units, speaker = errors_of(rng, spread=0.2)
    order = rng.permutation(a.size)
    assert rate_difference(a, b, units, speaker, 0.95) == rate_difference(
        a[order], b[order], units[order], speaker[order], 0.95
    )
    x, y = rng.lognormal(size=(2, a.size))
    first = quantile_difference(x, y, 0.95, speaker, 0.95, np.random.default_rng(1), 300)
    again = quantile_difference(x[order], y[order], 0.95, speaker[order], 0.95, np.random.default_rng(1), 300)
    assert first == again


def test_swapping_the_arms_negates_the_difference():
    """Difference and interval change sign, the p-value stays."""
    rng = np.random.default_rng(4)
    a, b, units, speaker = errors_of(rng, spread=0.2)
    d, swapped = rate_difference(a, b, units, speaker, 0.95), rate_difference(b, a, units, speaker, 0.95)
    assert (swapped.a, swapped.b, swapped.p_value) == (d.b, d.a, d.p_value)
    assert (swapped.difference, swapped.ci_low, swapped.ci_high) == (-d.difference, -d.ci_high, -d.ci_low)
    x, y = rng.lognormal(size=(2, a.size))
    q = quantile_difference(x, y, 0.5, speaker, 0.95, np.random.default_rng(1), 400)
    r = quantile_difference(y, x, 0.5, speaker, 0.95, np.random.default_rng(1), 400)
    assert (r.difference, r.ci_low, r.ci_high) == pytest.approx((-q.difference, -q.ci_high, -q.ci_low))
    assert r.p_value == q.p_value


def test_identical_arms_have_no_difference_and_no_false_certainty():
    """No difference seen: p is 1, and the inner interval is the rule of three over the words."""
    d = rate_difference([1, 0, 2], [1, 0, 2], [20, 20, 20], [0, 1, 2], 0.95)
    assert (d.difference, d.ci_low, d.ci_high, d.p_value, d.se) == (0, 0, 0, 1, 0)
    assert (d.inner_low, d.inner_high) == pytest.approx((-math.log(20) / 60, math.log(20) / 60))


def test_the_same_difference_everywhere_has_the_p_value_of_a_sign_flip():
    """Zero variance is no proof: six clusters can give no less than 2 in 64."""
    units = [10, 20, 30, 10, 20, 30]
    b = [1, 2, 3, 1, 2, 3]
    d = rate_difference([0] * 6, b, units, list("uvwxyz"), 0.95)
    assert d.se == 0
    assert d.ci_low == d.ci_high == pytest.approx(0.1)
    assert d.p_value == 2 / 64


@pytest.mark.parametrize("clusters", [[0], []])
def test_below_two_clusters_there_is_no_interval(clusters):
    """One cluster, or none, gives at most a difference."""
    n = len(clusters)
    d = rate_difference([1] * n, [3] * n, [10] * n, clusters, 0.95)
    assert d.difference == (pytest.approx(0.2) if n else None)
    assert (d.ci_low, d.ci_high, d.p_value, d.clusters) == (None, None, None, n)
    q = quantile_difference([1.0] * n, [3.0] * n, 0.5, clusters, 0.95, np.random.default_rng(0))
    assert q.difference == (2.0 if n else None)
    assert (q.ci_low, q.p_value, q.clusters) == (None, None, n)


def test_without_units_nothing_is_defined():
    """Insertions against empty references have no rate."""
    d = rate_difference([1, 2], [0, 0], [0, 0], [0, 1], 0.95)
    assert (d.a, d.b, d.difference, d.p_value) == (None, None, None, None)
    assert rate_interval([1, 2], [0, 0], [0, 1], 0.95) == (None, None)


def test_insertions_of_clips_without_words_still_count():
    """A silent clip adds its errors to the numerator."""
    assert rate_difference([0, 0], [1, 1], [10, 0], [0, 1], 0.95).b == pytest.approx(0.2)


@pytest.mark.parametrize("confidence", [0.5, 1.0, 95])
def test_confidence_is_a_fraction(confidence):
    """95 instead of 0.95 is refused with a hint."""
    with pytest.raises(ConfigError, match=r"0\.95"):
        rate_difference([0, 1], [1, 0], [5, 5], [0, 1], confidence)


def test_interval_of_one_arm():
    """One arm's interval is the t interval, cut off at 0; without errors it is the rule of three."""
    low, high = rate_interval([0, 0, 3], [10, 10, 10], [0, 1, 2], 0.95)
    assert low == 0
    assert high == pytest.approx(0.1 + stats.t.ppf(0.975, 2) * math.sqrt(1.5 * 6) / 30)
    assert rate_interval([0] * 3, [100] * 3, [0, 1, 2], 0.95) == pytest.approx((0, math.log(20) / 300))
    assert rate_interval([1], [10], [0], 0.95) == (None, None)


def test_bootstrap_quantiles_are_those_of_the_repeated_sample():
    """The weighted quantile of a draw is numpy's quantile of the clips drawn out in full."""
    rng = np.random.default_rng(6)
    cluster = np.array([0, 0, 0, 1, 2, 2, 3])
    a, b = rng.normal(size=(2, 7))
    d = quantile_difference(a, b, 0.95, cluster, 0.9, np.random.default_rng(8), 200)
    draws = np.random.default_rng(8).multinomial(4, [0.25] * 4, size=200)
    deltas = []
    for draw in draws:
        rows = np.repeat(np.arange(7), draw[cluster])
        deltas.append(np.quantile(b[rows], 0.95) - np.quantile(a[rows], 0.95))
    assert (d.ci_low, d.ci_high) == pytest.approx(tuple(np.quantile(deltas, [0.05, 0.95])))
    assert d.se == pytest.approx(np.std(deltas, ddof=1))


def test_bootstrap_in_blocks_is_the_same(monkeypatch):
    """How many draws are held in memory at once does not change the result."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, 30))
    whole = quantile_difference(a, b, 0.5, np.arange(30), 0.95, np.random.default_rng(1), 100)
    monkeypatch.setattr("grym.compare.significance._BLOCK", 30 * 7)
    assert quantile_difference(a, b, 0.5, np.arange(30), 0.95, np.random.default_rng(1), 100) == whole


def test_bootstrap_finds_a_shift_and_no_difference():
    """A constant shift is found exactly; an arm against itself has p = 1."""
    values = np.random.default_rng(9).lognormal(size=40)
    d = quantile_difference(values, values + 5, 0.95, np.arange(40), 0.95, np.random.default_rng(1))
    assert (d.difference, d.ci_low, d.ci_high) == pytest.approx((5, 5, 5))
    assert d.p_value == pytest.approx(2 / 2001)
    same = quantile_difference(values, values, 0.5, np.arange(40), 0.95, np.random.default_rng(1))
    assert (same.difference, same.ci_low, same.ci_high, same.p_value) == (0, 0, 0, 1)


def test_helpers_without_data():
    """No denominator and no values mean undefined, not zero."""
    assert ratio(1, 0) is None
    assert ratio(1, 4) == 0.25
    assert quantile([], 0.5) is None
    assert quantile([1.0, 3.0], 0.5) == 2.0
