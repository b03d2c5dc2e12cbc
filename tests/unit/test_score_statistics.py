"""Matched pairs, exact tests, corrections and clustered differences agree with definitions and published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from grym.compare.alignment import align
from grym.compare.bootstrap import cluster_bootstrap, replicate_deltas
from grym.compare.clustered import Sums, delta_of, equivalence_p
from grym.compare.exact_tests import binomial_p, mcnemar, sign_test, wilcoxon
from grym.compare.matched_pairs import matched_pairs, segments
from grym.compare.multiple import benjamini_hochberg, holm
from grym.compare.significance import rate_difference
from grym.errors import ConfigError, QualityError


def known(value: float | None) -> float:
    """A number that has to be there."""
    assert value is not None
    return value


def cut(reference: str, a: str, b: str) -> list[tuple[int, int]]:
    """Segments of one utterance."""
    first, second = (align([reference.split()], [text.split()]) for text in (a, b))
    return list(zip(*(errors.tolist() for errors in segments(first, second)), strict=True))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("a b c d e f", "a b c d e f", []),
        ("x b c d e f", "a b c d e f", [(1, 0)]),
        ("x b c d e y", "a b c d e f", [(1, 0), (1, 0)]),
        ("x b y d e f", "a b c d e f", [(2, 0)]),
        ("x b c d e f", "a b c y e f", [(1, 0), (0, 1)]),
        ("x b c d e f", "a b y d e f", [(1, 1)]),
        ("a b c d e f", "a b c d e f z", [(0, 1)]),
        ("x b z c d e f", "a b c d e f", [(2, 0)]),
        ("x b c z d e f", "a b c d e f", [(1, 0), (1, 0)]),
        ("a b c d z e f", "x b c d e f", [(0, 1), (1, 0)]),
        ("", "a b c d e", [(6, 1)]),
    ],
)
def test_segments_by_hand(a: str, b: str, expected: list[tuple[int, int]]) -> None:
    """Two words right in both, with nothing put between them, end a segment; the end of the utterance does too."""
    assert cut("a b c d e f", a, b) == expected


def test_segments_end_with_their_utterance() -> None:
    """An error at the end of one utterance and one at the beginning of the next are two segments."""
    references = [["a", "b"], [], ["c", "d"]]
    a = align(references, [["a", "x"], ["y"], ["z", "d"]])
    b = align(references, references)
    assert [errors.tolist() for errors in segments(a, b)] == [[1, 1, 1], [0, 0, 0]]


def test_references_of_different_length_are_walked_in_step() -> None:
    """The k-th word of the one goes with the k-th of the other; what is left over makes no segment of its own."""
    a, b = align([["a", "b", "c"]], [["a", "x", "c"]]), align([["a", "b"]], [["a", "b"]])
    assert [errors.tolist() for errors in segments(a, b)] == [[1], [0]]
    right = align([["a", "b", "c"]], [["a", "b", "c"]])
    assert [errors.tolist() for errors in segments(right, b)] == [[], []]


def test_matched_pairs_with_the_numbers_of_sc_stats() -> None:
    """Three segments with differences 1, 0, 1: mean 0.667, sd 0.577, Z 2, and too few to mean anything."""
    found = matched_pairs([1, 4, 4], [0, 4, 3])
    assert (found.segments, found.errors_a, found.errors_b, found.too_few) == (3, 9, 7, True)
    assert [round(known(number), 3) for number in (found.mean, found.sd, found.z)] == [0.667, 0.577, 2.0]
    assert found.p_value == pytest.approx(2 * stats.norm.sf(2))
    assert found.t_p_value == pytest.approx(0.1835, abs=5e-5)
    d = np.random.default_rng(1).integers(0, 4, (2, 50))
    again = matched_pairs(*d)
    assert (again.z, again.t_p_value) == pytest.approx(tuple(stats.ttest_1samp(d[0] - d[1], 0)))
    assert not again.too_few


def test_matched_pairs_without_variance() -> None:
    """No segments, one, all equal and all the same difference are defined."""
    assert (matched_pairs([], []).mean, matched_pairs([], []).z) == (None, None)
    assert (matched_pairs([2], [1]).mean, matched_pairs([2], [1]).p_value) == (1.0, None)
    assert (matched_pairs([1] * 8, [1] * 8).z, matched_pairs([1] * 8, [1] * 8).p_value) == (0.0, 1.0)
    same = matched_pairs([2] * 8, [1] * 8)
    assert (same.z, same.p_value, same.t_p_value) == (None, 2**-7, 2**-7)


@pytest.mark.parametrize(("first", "second"), [(15, 19), (33, 35), (0, 0), (0, 1), (0, 40), (7, 7), (400, 500)])
def test_binomial_tail_is_scipys(first: int, second: int) -> None:
    """Two-sided against a fair coin, to twelve digits."""
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert binomial_p(first, second) == pytest.approx(expected, rel=1e-12, abs=1e-300)


def test_mcnemar_is_rs_and_not_sc_stats() -> None:
    """[[23, 15], [19, 31]] has p = 0.60759136 as in R; 33 against 35 is no difference."""
    a = [0] * 23 + [0] * 15 + [1] * 19 + [2] * 31
    b = [0] * 23 + [3] * 15 + [0] * 19 + [1] * 31
    found = mcnemar(a, b)
    assert (found.both_right, found.only_a_right, found.only_b_right, found.both_wrong) == (23, 15, 19, 31)
    assert found.p_value == pytest.approx(0.60759136, abs=5e-9)
    assert binomial_p(33, 35) == pytest.approx(0.90, abs=0.005)


@pytest.mark.parametrize("pairs", [1, 5, 20, 50])
def test_wilcoxon_is_scipys_exact_test(pairs: int) -> None:
    """Without ties the exact distribution is scipy's to twelve digits."""
    d = np.random.default_rng(pairs).normal(0.3, 1, pairs)
    expected = stats.wilcoxon(d, method="exact")
    found = wilcoxon([*d, 0.0])
    assert (found.pairs, found.method) == (pairs, "exact")
    assert found.statistic == expected.statistic
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-12)


def test_wilcoxon_with_ties_is_the_permutation_test() -> None:
    """With ties it is the share of all sign patterns that are as extreme, which scipy enumerates."""
    d = np.array([1, 1, 2, -2, 3, 3, 3, -5])
    exhaustive = stats.PermutationMethod(n_resamples=np.inf)
    assert wilcoxon(d).p_value == pytest.approx(stats.wilcoxon(d, method=exhaustive).pvalue, rel=1e-12)
    assert wilcoxon([0.3 - 0.1, 0.1 - 0.3, 0.2]).p_value == wilcoxon([1, -1, 1]).p_value


def test_wilcoxon_of_many_pairs_is_normal() -> None:
    """Beyond 200 pairs it is scipy's approximation with the correction for ties."""
    d = np.random.default_rng(4).integers(-5, 7, 400)
    expected = stats.wilcoxon(d, method="asymptotic", zero_method="wilcox", correction=False)
    assert wilcoxon(d).method == "normal"
    assert wilcoxon(d).p_value == pytest.approx(expected.pvalue, rel=1e-12)


def test_tests_of_nothing_and_of_nonsense() -> None:
    """No unit gives p = 1; NaN is refused with advice."""
    assert (wilcoxon([]).p_value, sign_test([]).p_value, mcnemar([], []).p_value) == (1.0, 1.0, 1.0)
    found = sign_test([0.1, -0.2, 0.0, 0.3])
    assert (found.positive, found.negative, found.zero, found.p_value) == (2, 1, 1, 1.0)
    for test in (wilcoxon, sign_test):
        with pytest.raises(QualityError, match="not finite"):
            test([0.1, math.nan])


def test_corrections_give_the_published_numbers() -> None:
    """Holm and Benjamini-Hochberg of eight p-values; what was not tested stays out."""
    p = [0.0004, 0.009, 0.012, 0.019, 0.031, 0.047, 0.21, 0.66]
    assert holm(p) == pytest.approx([0.0032, 0.063, 0.072, 0.095, 0.124, 0.141, 0.42, 0.66])
    expected = [0.0032, 0.032, 0.032, 0.038, 0.0496, 0.0626667, 0.24, 0.66]
    assert benjamini_hochberg(p) == pytest.approx(expected, abs=5e-8)
    assert holm([None, 0.5, None, *p])[0] is None
    assert (holm([]), holm([0.3]), holm([None])) == ([], [0.3], [None])


def sample(rng: np.random.Generator, speakers: int = 12) -> tuple[np.ndarray, ...]:
    """Errors of two systems, words and speakers."""
    speaker = np.repeat(np.arange(speakers), 7)
    words = 1 + rng.poisson(9, speaker.size)
    return rng.poisson(0.1 * words), rng.poisson(0.14 * words), words, speaker


def test_with_equal_units_it_is_the_verdict_of_the_main_job() -> None:
    """The difference, its error, interval and p-value are those of rate_difference, sign apart."""
    a, b, words, speaker = sample(np.random.default_rng(1))
    found, house = delta_of(Sums.of(a, words, b, words, speaker), 0.95), rate_difference(a, b, words, speaker, 0.95)
    assert found.delta == pytest.approx(-known(house.difference))
    assert [found.se, found.p_value, found.df] == pytest.approx([house.se, house.p_value, 11])
    turned = found.as_difference(house.method)
    for name in ("a", "b", "difference", "ci_low", "ci_high", "p_value", "se", "inner_low", "inner_high", "clusters"):
        assert getattr(turned, name) == pytest.approx(getattr(house, name)), name
    same = delta_of(Sums.of(a, words, a, words, speaker), 0.95)
    assert (same.delta, same.se, same.t, same.p_value) == (0, 0, None, 1)


def test_units_may_differ_by_hand() -> None:
    """With references of different length each system has its own rate and residuals."""
    found = delta_of(Sums.of([1, 3], [10, 10], [1, 1], [10, 5], ["x", "y"]), 0.95)
    parts = [(1 - 0.2 * 10) / 20 - (1 - 2 / 15 * 10) / 15, (3 - 0.2 * 10) / 20 - (1 - 2 / 15 * 5) / 15]
    assert found.delta == pytest.approx(0.2 - 2 / 15)
    assert found.se == pytest.approx(math.sqrt(2 * sum(part**2 for part in parts)))
    assert found.t == pytest.approx(known(found.delta) / known(found.se))


def test_no_units_or_one_cluster_have_no_interval() -> None:
    """Nothing is claimed from nothing."""
    empty = delta_of(Sums.of([1], [0], [0], [0], ["x"]), 0.95)
    assert (empty.delta, empty.p_value, empty.clusters) == (None, None, 1)
    one = delta_of(Sums.of([1, 2], [5, 5], [0, 0], [5, 5], ["x", "x"]), 0.95)
    assert one.delta == pytest.approx(0.3)
    assert (one.low, one.p_value) == (None, None)
    assert delta_of(Sums.of([], [], [], [], []), 0.95).clusters == 0
    assert cluster_bootstrap(Sums.of([1], [5], [0], [5], ["x"]), 0.95, np.random.default_rng(1)).low is None
    with pytest.raises(ConfigError, match=r"0\.95"):
        delta_of(Sums.of([1], [5], [0], [5], ["x"]), 95)
    with pytest.raises(QualityError, match="finite"):
        Sums.of([math.nan], [5], [0], [5], ["x"])


def test_equivalence_agrees_with_the_inner_interval() -> None:
    """Two one-sided tests are significant exactly when the interval at 1 - 2 alpha lies inside the margin."""
    a, b, words, speaker = sample(np.random.default_rng(2), 30)
    found = delta_of(Sums.of(a, words, b, words, speaker), 0.95)
    edge = max(abs(known(found.inner_low)), abs(known(found.inner_high)))
    assert known(equivalence_p(found, edge * 1.001)) < 0.05 < known(equivalence_p(found, edge * 0.999))
    flat = delta_of(Sums.of([5] * 6, [100] * 6, [5] * 6, [100] * 6, range(6)), 0.95)
    assert equivalence_p(flat, 0.005) == pytest.approx(math.exp(-3))
    shifted = delta_of(Sums.of([6] * 6, [100] * 6, [5] * 6, [100] * 6, range(6)), 0.95)
    assert (equivalence_p(shifted, 0.005), equivalence_p(flat, 0), shifted.p_value) == (1.0, None, 2**-5)


def test_bootstrap_draws_whole_clusters() -> None:
    """A replicate is the difference of the clusters drawn out in full."""
    a, b, words, speaker = sample(np.random.default_rng(3), 5)
    sums = Sums.of(a, words, b, words, speaker)
    deltas = replicate_deltas(sums, np.random.default_rng(8), 50)
    draws = np.random.default_rng(8).integers(0, 5, size=(50, 5), dtype=np.int32)
    for delta, draw in zip(deltas, draws, strict=True):
        rows = np.concatenate([np.flatnonzero(speaker == drawn) for drawn in draw])
        assert delta == pytest.approx((a[rows].sum() - b[rows].sum()) / words[rows].sum())


def test_replicates_have_the_mean_and_spread_of_kaldialigns_test() -> None:
    """Its two utterances of three letters, one and two wrong: 0.50 with 1.96 standard deviations of 0.23.

    Its interval is made of these; ours of expanded percentiles, which with two clusters promise less.
    """
    words = [3, 3]
    sums = Sums.of([1, 2], words, [0, 0], words, ["abc", "def"])
    deltas = replicate_deltas(sums, np.random.default_rng(1), 10_000)
    assert deltas.mean() == pytest.approx(0.50, abs=0.005)
    assert 1.96 * deltas.std() == pytest.approx(0.23, abs=0.005)


def test_bootstrap_interval_is_that_of_t_in_the_long_run() -> None:
    """For 40 speakers of one length the expanded percentiles come close to the t interval."""
    a, b, _, speaker = sample(np.random.default_rng(5), 40)
    words = np.full(speaker.size, 10)
    sums = Sums.of(a, words, b, words, speaker)
    found, exact = cluster_bootstrap(sums, 0.95, np.random.default_rng(1)), delta_of(sums, 0.95)
    width = known(exact.high) - known(exact.low)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.06 * width)
    assert found == cluster_bootstrap(sums, 0.95, np.random.default_rng(1))
    assert (found.replicates, found.clusters) == (10_000, 40)
    sparse = Sums.of([1, 1, 0], [5, 5, 0], [0, 1, 0], [5, 5, 0], [0, 1, 2])
    assert cluster_bootstrap(sparse, 0.95, np.random.default_rng(1), 200).replicates < 200


def test_many_clusters_share_draws_without_losing_any() -> None:
    """The ends are those of independent draws, and spread as little from seed to seed."""
    rng = np.random.default_rng(11)
    words = 1 + rng.poisson(10, 900)
    sums = Sums.of(rng.poisson(0.1 * words), words, rng.poisson(0.12 * words), words, range(900))
    shared = [cluster_bootstrap(sums, 0.95, np.random.default_rng(seed), 1500) for seed in range(60)]
    counts = [np.random.default_rng(seed).multinomial(900, np.full(900, 1 / 900), 1500) for seed in range(30)]
    totals = [count @ sums.table for count in counts]
    deltas = [t[:, 0] / t[:, 1] - t[:, 2] / t[:, 3] for t in totals]
    tail = 0.0249  # what 0.025 becomes for 900 clusters
    alone = np.array([np.quantile(delta, [tail, 1 - tail]) for delta in deltas])
    ends = np.array([[known(one.low), known(one.high)] for one in shared])
    assert shared[0].replicates == 1500
    np.testing.assert_allclose(ends.mean(axis=0), alone.mean(axis=0), atol=4 * float(alone.std(axis=0).max()) / 30**0.5)
    # Replicates that resemble each other would let the ends jump about.
    assert (ends.std(axis=0) < 1.6 * alone.std(axis=0)).all()
