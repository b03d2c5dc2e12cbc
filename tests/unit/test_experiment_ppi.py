"""Error rates of live calls from few labels and a prediction for each call."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from benchmarks import ppi as bench
from grym.compare.significance import rate_interval
from grym.errors import ConfigError, GrymError, QualityError
from grym.experiment.ppi import Call, live_rate, live_wer
from grym.experiment.rare import is_rare, rare_interval


def calls(count: int = 400, labelled: int = 60, seed: int = 3, good: float = 1.0) -> dict[str, Any]:
    """Calls of ten words whose prediction is the errors, or noise."""
    rng = np.random.default_rng(seed)
    errors = rng.binomial(10, np.clip(rng.gamma(0.6, 0.2, count), 0, 0.9)).astype(float)
    noise = rng.permutation(errors)
    words = np.full(count, 10.0)
    said, heard = errors.copy(), words.copy()
    said[labelled:] = heard[labelled:] = np.nan
    return {
        "errors": said,
        "words": heard,
        "proxy_errors": good * errors + (1 - good) * noise,
        "proxy_words": words,
        "truth": errors.sum() / words.sum(),
    }


def rate_of(given: dict[str, Any], **more: Any) -> Any:
    """The result for such calls."""
    return live_rate(*(given[name] for name in ("errors", "words", "proxy_errors", "proxy_words")), **more)


def test_a_perfect_prediction_gives_the_rate_of_all_calls() -> None:
    """Where the prediction is the number of errors, the estimate is nearly the rate of all calls, and far narrower."""
    given = calls()
    found = rate_of(given)
    assert found.estimate.rate == pytest.approx(given["truth"], rel=0.08)
    assert abs(found.estimate.rate - given["truth"]) < abs(found.labels_only.rate - given["truth"])
    assert found.estimate.width < 0.6 * found.labels_only.width
    assert found.worth > 2 * found.labelled
    assert (found.calls, found.labelled, found.units) == (400, 60, 60)


def test_the_tuning_is_the_one_of_the_paper() -> None:
    """Lambda is cov / ((1 + n/N) var) and the estimate R - lambda (R_f labelled - R_f others), for equal calls."""
    given = calls(good=0.5)
    found = rate_of(given)
    y, f = given["errors"][:60] / 10, given["proxy_errors"] / 10
    here, there = f[:60] - f[:60].mean(), f[60:] - f[60:].mean()
    variance = (here @ here) / 60**2 + (there @ there) / 340**2
    tuning = float((y - y.mean()) @ here / 60**2 / variance)
    assert found.tuning == pytest.approx(tuning)
    assert found.estimate.rate == pytest.approx(y.mean() - tuning * (f[:60].mean() - f[60:].mean()))
    assert found.proxy == pytest.approx(f.mean())


@pytest.mark.parametrize("seed", range(5))
def test_a_useless_prediction_does_no_harm(seed: int) -> None:
    """Noise gets a small weight, and the interval is never wider than that of the labels alone."""
    found = rate_of(calls(good=0.0, seed=seed))
    assert abs(found.tuning) < 0.5
    assert found.estimate.se <= found.labels_only.se
    assert found.worth >= found.labelled


def test_scale_and_order_do_not_matter() -> None:
    """Predictions in another scale, or calls in another order, give the same estimate."""
    given = calls(good=0.7)
    plain = rate_of(given).estimate
    scaled = rate_of(given | {"proxy_errors": 7 * given["proxy_errors"], "proxy_words": 3 * given["proxy_words"]})
    assert scaled.estimate.low == pytest.approx(plain.low)
    order = np.random.default_rng(1).permutation(400)
    mixed = rate_of({name: value[order] for name, value in given.items() if name != "truth"})
    assert mixed.estimate.high == pytest.approx(plain.high)


def test_calls_of_one_unit_count_together() -> None:
    """Ten copies of each call under one unit's name say no more than the calls themselves."""
    given = calls(count=200, labelled=40)
    once = rate_of(given, units=[str(i) for i in range(200)])
    names = ("errors", "words", "proxy_errors", "proxy_words")
    copies = {name: np.repeat(given[name], 10) for name in names}
    many = rate_of(copies, units=[str(i) for i in np.repeat(np.arange(200), 10)])
    assert many.estimate.se == pytest.approx(once.estimate.se)
    assert (many.units, many.labelled) == (40, 400)
    assert rate_of(copies).estimate.se < many.estimate.se / 2


def test_few_units_get_no_interval() -> None:
    """Below six labelled units there is an estimate, no interval, and a note."""
    found = rate_of(calls(labelled=5))
    assert found.labels_only.low is None
    assert found.labels_only.width is None
    assert any("no interval" in note for note in found.notes)


def test_labels_of_hard_calls_only_are_noticed() -> None:
    """Where people labelled the calls that looked worst, the note says so."""
    given = calls(count=600)
    order = np.argsort(-given["proxy_errors"], kind="stable")
    errors = given["proxy_errors"][order]
    words = np.full(600, 10.0)
    known = np.arange(600) < 100
    found = live_rate(np.where(known, errors, np.nan), np.where(known, words, np.nan), errors, words)
    assert found.selection_p is not None
    assert found.selection_p < 1e-6
    assert any("random sample" in note for note in found.notes)
    assert rate_of(given).selection_p > 0.001


def test_without_other_calls_the_labels_decide() -> None:
    """Where every call is labelled, or no word was predicted, the estimate is that of the labels."""
    given = calls(count=60)
    for found in (rate_of(given), rate_of(calls() | {"proxy_words": np.zeros(400)})):
        assert found.tuning == 0
        assert found.estimate == found.labels_only
        assert found.selection_p is None
        assert any("does not help" in note for note in found.notes)


def test_all_calls_right() -> None:
    """No error in a few labels is a rate of 0 and the rule of three, as for transcripts; a note says why."""
    given = calls()
    zeros = given | {"errors": np.where(np.arange(400) < 60, 0.0, np.nan), "proxy_errors": np.zeros(400)}
    found = rate_of(zeros)
    assert (found.estimate.rate, found.worth) == (0.0, 60.0)
    words = given["words"][:60]
    assert (found.estimate.low, found.estimate.high) == rate_interval(np.zeros(60), words, np.arange(60), 0.95)
    assert any("Only 0 errors" in note for note in found.notes)
    # A prediction that sees errors elsewhere does not narrow it, nor move the rate below 0.
    seen = rate_of(zeros | {"proxy_errors": np.r_[np.zeros(60), np.full(340, 1.0)]})
    assert seen.estimate.rate == 0
    assert seen.estimate.high is not None
    assert found.estimate.high is not None
    assert seen.estimate.high >= found.estimate.high


def test_no_spread_is_not_certainty() -> None:
    """Every labelled call with the same rate: what Poisson says of so many errors, never a width of 0."""
    found = live_rate(np.ones(60), np.full(60, 10.0), np.ones(60), np.full(60, 10.0))
    assert found.estimate.se == 0
    low, high = chi2.ppf([0.025, 0.975], [120, 122]) / 2 / 600
    assert (found.estimate.low, found.estimate.high) == (pytest.approx(low), pytest.approx(high))
    assert not any("Only" in note for note in found.notes)


@pytest.mark.parametrize(
    ("errors", "rare"),
    [([0] * 50 + [1] * 11, True), ([0] * 50 + [1] * 12, False), ([0] * 50 + [20] * 3, True), ([20] * 8, False)],
)
def test_what_is_rare(errors: list[int], rare: bool) -> None:  # noqa: FBT001
    """Few errors, or many in few of the units; but eight speakers who all err are an ordinary sample."""
    given = np.array(errors, dtype=float)
    assert is_rare(given) is rare
    low, high = rare_interval(given, 1000, 0.95)
    assert low < given.sum() / 1000 < high


def test_rare_errors_are_covered() -> None:
    """4 errors expected in 200 labels of 10 words: 400 sets, of which Student's t alone would cover 88 %."""
    case = bench.RARE[1]
    found = np.array([bench._rare_replicate(case, np.random.default_rng([2, k])) for k in range(400)])
    assert found[:, 0].mean() > 0.925
    assert found[:, 1].mean() > 0.925


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"errors": np.full(400, np.nan), "words": np.full(400, np.nan)}, "no-labels"),
        ({"words": np.full(400, 10.0)}, "not-finite"),
        ({"proxy_errors": np.full(400, np.nan)}, "not-finite"),
        ({"errors": np.full(400, np.inf), "words": np.full(400, 1.0)}, "not-finite"),
        ({"proxy_words": np.full(400, -1.0)}, "negative"),
        ({"proxy_words": np.ones(3)}, "bad-shape"),
        (dict.fromkeys(("errors", "words", "proxy_errors", "proxy_words"), np.zeros((0,))), "no-labels"),
        (dict.fromkeys(("errors", "words", "proxy_errors", "proxy_words"), np.zeros((2, 2))), "bad-shape"),
    ],
)
def test_bad_columns_are_refused(change: dict[str, Any], code: str) -> None:
    """What cannot be counts of calls is an error that says why."""
    with pytest.raises(QualityError) as caught:
        rate_of(calls() | change)
    assert caught.value.code == code
    assert caught.value.hint


def test_bad_options_are_refused() -> None:
    """A confidence outside (0.5, 1) and units of another length are errors."""
    with pytest.raises(ConfigError):
        rate_of(calls(), confidence=0.5)
    with pytest.raises(GrymError, match="400 calls have 1 units"):
        rate_of(calls(), units=["a"])


def test_transcripts_become_counts() -> None:
    """Texts are normalised, aligned with the reference and with the other model, and grouped by unit."""
    heard = [
        Call("ONE two", "one too", "one two", "u1"),
        Call("three", "tree", None, "u2"),
        Call("a", "b c", "b", "u1"),
    ]
    found = live_wer(heard, rule=str.lower)
    assert found.labels_only.rate == pytest.approx(1 / 3)
    assert found.proxy == pytest.approx(4 / 5)
    assert (found.calls, found.labelled, found.units) == (3, 2, 1)
    anonymous = live_wer([Call(c.hypothesis, c.other, c.reference) for c in heard], rule=str.lower)
    assert anonymous.units == 2
    with pytest.raises(QualityError, match="No labelled call"):
        live_wer([])


def test_intervals_cover() -> None:
    """In 80 data sets of the benchmark's generator the interval covers in 86 % or more and is narrower than labels."""
    case = bench.Case("small", 1000, 150)
    truth = bench._truth(speakers=False)
    found = np.array([bench._replicate(case, np.random.default_rng([1, k]), truth) for k in range(80)])
    assert found[:, 0].mean() > 0.86
    assert found[:, 2].mean() < 0.75 * found[:, 3].mean()
    assert math.isfinite(found[:, 4].sum())
