"""The error rate of live calls from a few hundred labels and a cheap prediction for every call.

Nobody writes down what was said in live calls, but a second model can listen to all of them. Where the two disagree,
somebody is wrong, so the disagreement predicts the errors. Labels on a random few hundred calls remove the bias of the
prediction, and the prediction on all calls takes variance away from the labels:

    rate = R(labelled: errors / words) - lambda * (R(labelled: proxy) - R(others: proxy))

with R a ratio of sums. lambda is chosen to make the variance smallest (power tuning); a useless prediction gets a
lambda near 0, and what is left is the rate of the labelled calls. Valid for any prediction, however wrong, as long as
the labelled calls are a random sample. Where the labelled calls show hardly an error no spread is known, and the
interval also covers that of :mod:`grym.experiment.rare`. Rates are fractions. Knows nothing about storage.

Source: Angelopoulos, Bates, Fannjiang, Jordan & Zrnic, *Science* 382, 2023, pp. 669-674 (prediction-powered inference);
Angelopoulos, Duchi & Zrnic, arXiv 2311.01453, section 6 (power tuning); Zrnic, arXiv 2405.18379, section 3 (the same
for any estimator, here a ratio); Cochran 1977, *Sampling Techniques*, chapter 6 (linearised ratios);
MacKinnon & White, *J. Econometrics* 29(3), 1985, pp. 305-325 (HC3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import ndtr, stdtrit

from grym.errors import ConfigError, QualityError
from grym.experiment.rare import is_rare, rare_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from grym.compare.alternations import Text

    Floats = NDArray[np.float64]

MIN_UNITS: Final = 6  # labelled units below which there is no interval, as everywhere in the platform
_MIN_ROOM: Final = 1e-6  # of one less the leverage: a unit that is everything has an endless standard error
SUSPICIOUS: Final = 0.001  # p-value below which labelled calls do not look like a random sample


@dataclass(frozen=True, slots=True)
class Call:
    """One live call.

    Attributes:
        hypothesis: what the model whose error rate is wanted understood; a text, or one that is read already.
        other: what a second model understood.
        reference: what was said, as a person wrote it down; none for most calls.
        unit: who called; calls of one unit are not independent. Empty: unknown.
    """

    hypothesis: str | Text
    other: str | Text
    reference: str | Text | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate with its interval; the interval is none below :data:`MIN_UNITS` labelled units."""

    rate: float
    se: float
    low: float | None
    high: float | None

    @property
    def width(self) -> float | None:
        """Width of the interval."""
        return None if self.low is None or self.high is None else self.high - self.low


@dataclass(frozen=True, slots=True)
class Powered:
    """The error rate of live calls, from labels and predictions.

    Attributes:
        estimate: the rate from labels and predictions.
        labels_only: the rate from the labelled calls alone.
        proxy: predicted errors per predicted word, over all calls; no estimate of the rate.
        tuning: lambda, the weight of the prediction; 0 where it does not help.
        calls: all calls.
        labelled: calls with a label.
        units: units with a labelled call.
        worth: labels that the labelled calls alone would have needed for the same standard error.
        selection_p: two-sided p-value of "labelled calls are predicted as the others"; none where it cannot be tested.
        notes: what a reader should know, a sentence each.
    """

    estimate: Rate
    labels_only: Rate
    proxy: float | None
    tuning: float
    calls: int
    labelled: int
    units: int
    worth: float
    selection_p: float | None
    notes: tuple[str, ...] = ()


def live_wer(calls: Sequence[Call], *, confidence: float = 0.95, rule: Callable[[str], str] | None = None) -> Powered:
    """The word error rate of one model over live calls.

    The prediction for a call is the number of edits that turn the other model's answer into this one's, over the
    other's words.

    Args:
        calls: all calls; those with a reference should be a random sample of them.
        confidence: level of the interval.
        rule: a normaliser for every text that is not read already; words are what it leaves between spaces.

    Raises:
        QualityError: no call has a reference with a word in it.
        ConfigError: the confidence is out of range.

    Example:
        >>> calls = [Call("one two", "one too", "one two"), Call("three", "three", "tree"), Call("four", "for")]
        >>> round(live_wer(calls).labels_only.rate, 4)
        0.3333
    """
    from grym.compare.aligned import align_all
    from grym.compare.alternations import Text, plain

    words = [
        [
            text if isinstance(text, Text) else plain(text, rule or str)
            for text in (c.hypothesis, c.other, c.reference or "")
        ]
        for c in calls
    ]
    labelled = np.array([c.reference is not None for c in calls], dtype=bool)
    heard = [w[0] for w in words]
    against_other = align_all([w[1] for w in words], heard, characters=False).alignments
    against_truth = align_all([w[2] for w in words], heard, characters=False).alignments
    known = all(c.unit for c in calls)
    return live_rate(
        np.where(labelled, against_truth.errors, np.nan),
        np.where(labelled, against_truth.words, np.nan),
        against_other.errors,
        against_other.words,
        units=[c.unit for c in calls] if known and calls else None,
        confidence=confidence,
    )


def live_rate(
    errors: ArrayLike,
    words: ArrayLike,
    proxy_errors: ArrayLike,
    proxy_words: ArrayLike,
    *,
    units: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Powered:
    """The ratio sum(errors) / sum(words) over all calls, of which few are labelled.

    Args:
        errors: float, ``shape = (calls,)``: errors of each call, NaN where it has no label.
        words: float, ``shape = (calls,)``: reference words, NaN where there is no label.
        proxy_errors: float, ``shape = (calls,)``: predicted errors of every call, in any scale.
        proxy_words: float, ``shape = (calls,)``: predicted words of every call, in any scale.
        units: who called, one for each call; none takes calls as independent.
        confidence: level of the interval.

    Raises:
        QualityError: columns differ in length, a value is negative or infinite, a prediction or half a label is NaN,
            or there is no labelled word.
        ConfigError: the confidence is out of range.
    """
    if not 0.5 < confidence < 1:  # noqa: PLR2004 - a narrower interval says nothing
        msg = f"A confidence of {confidence:g} does not lie between 0.5 and 1."
        raise ConfigError(msg, code="bad-option", hint="Use 0.95, for example.")
    table = _table(errors, words, proxy_errors, proxy_words)
    known = np.isfinite(table[:, 0])
    return _result(table, known, _influence(table, known, _unit_index(units, len(table))), confidence)


@dataclass(frozen=True, slots=True)
class _Influence:
    """What each unit contributes, all ``shape = (units,)`` but the last.

    Attributes:
        own: to the ratio of the labels.
        here: to the predicted ratio of labelled calls.
        there: to the predicted ratio of the others.
        share: of the labelled words.
        labels: unit of each call, ``shape = (calls,)``.
    """

    own: Floats
    here: Floats
    there: Floats
    share: Floats
    labels: NDArray[np.intp]

    @property
    def step(self) -> Floats:
        """Contribution to the correction of the prediction."""
        return self.here - self.there

    def tuning(self) -> float:
        """The weight of the prediction that makes the variance smallest: a regression through the origin."""
        squares = float(self.step @ self.step)
        return float(self.own @ self.step) / squares if squares > 0 else 0.0

    def se(self, tuning: float) -> float:
        """Standard error of the estimate at a tuning.

        Each unit's residual is divided by one less its leverage (HC3, the jackknife to first order): the rate and the
        tuning were fitted to the same units, and heavy ones pulled them towards themselves.
        """
        leverage = self.share + (self.step**2 / float(self.step @ self.step) if tuning else 0.0)
        residual = (self.own - tuning * self.step) / np.maximum(1 - leverage, _MIN_ROOM)
        return math.sqrt(float(residual @ residual))


def _result(table: Floats, known: NDArray[np.bool_], influence: _Influence, confidence: float) -> Powered:
    here, there = table[known].sum(axis=0), table[~known].sum(axis=0)
    units = int(np.unique(influence.labels[known]).size)
    rate, tuning = float(here[0] / here[1]), influence.tuning()
    heard = _heard(table, known, influence.labels)
    floor = rare_interval(heard, float(here[1]), confidence)
    rare = is_rare(heard)
    labels_only = _rate(rate, influence.se(0.0), units, 1, confidence, floor, rare=rare)
    estimate = labels_only
    if tuning:
        shift = float(here[2] / here[3] - there[2] / there[3])
        estimate = _rate(rate - tuning * shift, influence.se(tuning), units, 2, confidence, floor, rare=rare)
    if estimate.se >= labels_only.se:  # no prediction, or one that is not worth its tuning
        tuning, estimate = 0.0, labels_only
    labelled, words = int(known.sum()), float(here[3] + there[3])
    selection = _selection(here, there, influence)
    return Powered(
        estimate=estimate,
        labels_only=labels_only,
        proxy=float(here[2] + there[2]) / words if words else None,
        tuning=tuning,
        calls=len(table),
        labelled=labelled,
        units=units,
        worth=labelled * ((labels_only.se / estimate.se) ** 2 if estimate.se > 0 else 1.0),
        selection_p=selection,
        notes=tuple(_notes(units, tuning, selection, float(heard.sum()) if rare else None)),
    )


def _heard(table: Floats, known: NDArray[np.bool_], labels: NDArray[np.intp]) -> Floats:
    """Errors of each labelled unit, ``shape = (labelled units,)``."""
    _, unit = np.unique(labels[known], return_inverse=True)
    return np.bincount(unit, weights=table[known, 0]).astype(np.float64)


def _rate(
    rate: float, se: float, units: int, spent: int, confidence: float, floor: tuple[float, float], *, rare: bool
) -> Rate:
    """With an interval of Student's t, a degree of freedom spent on each number that was fitted.

    Where errors are rare, or no spread was seen, it is widened to the floor.
    """
    rate = max(0.0, rate)
    if units < MIN_UNITS:
        return Rate(rate, se, None, None)
    half = float(stdtrit(units - spent, (1 + confidence) / 2)) * se
    low, high = max(0.0, rate - half), rate + half
    return Rate(rate, se, min(low, floor[0]), max(high, floor[1])) if rare or se == 0 else Rate(rate, se, low, high)


def _table(*columns: ArrayLike) -> Floats:
    """The four columns, ``shape = (calls, 4)``, checked; NaN in the first two where there is no label."""
    given = [np.asarray(column, dtype=np.float64) for column in columns]
    if len({column.shape for column in given}) > 1 or given[0].ndim != 1:
        shapes = ", ".join(str(column.shape) for column in given)
        msg = f"The columns of calls differ in length: {shapes}."
        raise QualityError(msg, code="bad-shape", hint="Give each call one value of each.")
    table = np.stack(given, axis=1)
    if not np.isfinite(table[:, 2:]).all():
        msg = "A prediction is not a finite number."
        raise QualityError(msg, code="not-finite", hint="Predict every call, or leave the call out.")
    known = np.isfinite(table[:, :2])
    if np.isinf(table).any() or (known[:, 0] != known[:, 1]).any():
        msg = "A label is infinite, or is only half there."
        raise QualityError(msg, code="not-finite", hint="Give errors and words, or NaN for both.")
    if (table < 0).any():
        msg = "A count of calls is negative."
        raise QualityError(msg, code="negative", hint="Errors and words are counts.")
    if not table[known[:, 0], 1].sum() > 0:
        msg = "No labelled call has a word."
        raise QualityError(msg, code="no-labels", hint="Have a random few hundred calls transcribed by people.")
    return table


def _unit_index(units: Sequence[str] | None, calls: int) -> NDArray[np.intp]:
    if units is None:
        return np.arange(calls)
    if len(units) != calls:
        msg = f"{calls} calls have {len(units)} units."
        raise QualityError(msg, code="bad-shape", hint="Give each call its unit.")
    return np.unique(np.asarray(units, dtype=np.str_), return_inverse=True)[1].astype(np.intp)


def _influence(table: Floats, known: NDArray[np.bool_], labels: NDArray[np.intp]) -> _Influence:
    """Linearised ratios, summed by unit."""
    count = int(labels.max()) + 1

    def by_unit(values: Floats, rows: NDArray[np.bool_]) -> Floats:
        return np.bincount(labels[rows], weights=values, minlength=count).astype(np.float64)

    def ratio(column: int, rows: NDArray[np.bool_]) -> Floats:
        errors, words = table[rows, column], table[rows, column + 1]
        total = float(words.sum())
        return by_unit((errors - errors.sum() / total * words) / total, rows) if total > 0 else np.zeros(count)

    here, there = ratio(2, known), ratio(2, ~known)
    if not table[~known, 3].sum() > 0 or not here.any():  # nothing to correct with
        here = there = np.zeros(count)
    words = table[known, 1]
    return _Influence(ratio(0, known), here, there, by_unit(words / words.sum(), known), labels)


def _selection(here: Floats, there: Floats, influence: _Influence) -> float | None:
    """Whether labelled calls are predicted as the others: they are, if they were drawn at random."""
    se = math.sqrt(float(influence.step @ influence.step))
    if not (se > 0 and here[3] > 0 and there[3] > 0):
        return None
    return float(2 * ndtr(-abs(float(here[2] / here[3] - there[2] / there[3])) / se))


def _notes(units: int, tuning: float, selection: float | None, few: float | None) -> list[str]:
    notes = []
    if few is not None and units >= MIN_UNITS:
        notes.append(
            f"Only {few:g} errors in the labelled calls: the interval is widened to what so few can tell; more labels "
            "would narrow it."
        )
    if units < MIN_UNITS:
        notes.append(f"Only {units} labelled units: no interval can be given below {MIN_UNITS}.")
    if tuning == 0:
        notes.append("The prediction does not help: the estimate is that of the labelled calls alone.")
    if selection is not None and selection < SUSPICIOUS:
        notes.append(
            "The labelled calls are predicted otherwise than the rest: they do not look like a random sample, and if "
            "they are none the interval means nothing."
        )
    return notes
