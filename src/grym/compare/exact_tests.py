"""Exact tests of paired outcomes: McNemar, sign, Wilcoxon signed ranks.

Knows nothing about metrics or systems. Tails are computed, not looked up in
tables: NIST ``sc_stats`` is wrong for McNemar and the sign test from 21
discordant pairs on (33 against 35 is p = 0.90, it says p < 0.001).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtr

from grym.errors import QualityError

_DECIMALS: Final = 12  # differences that agree to this many are ties: rates are quotients, and rounding is no rank
_EXACT_PAIRS: Final = 200  # beyond, the normal approximation of Wilcoxon is good to three digits


@dataclass(frozen=True, slots=True)
class McNemar:
    """Which system had an utterance completely right, counted over utterances.

    Attributes:
        both_right: utterances without an error in either system.
        only_a_right: right in the first system only.
        only_b_right: right in the second only.
        both_wrong: wrong in both.
        p_value: two-sided, from the binomial; 1 without a discordant utterance.
    """

    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Sign:
    """How many units the difference is positive, negative and zero in; zeros are left out of the p-value."""

    positive: int
    negative: int
    zero: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Wilcoxon:
    """Signed ranks of differences.

    Attributes:
        pairs: differences that are not zero; zeros are left out.
        statistic: the smaller of the two sums of ranks; ties share their mean rank.
        p_value: two-sided; 1 without pairs.
        method: ``exact`` up to 200 pairs, ties included, else ``normal`` with the correction for ties.
    """

    pairs: int
    statistic: float
    p_value: float
    method: Literal["exact", "normal"]


def binomial_p(first: int, second: int) -> float:
    """Two-sided p-value of ``first`` against ``second`` tosses of a fair coin.

    Example:
        >>> round(binomial_p(15, 19), 8)
        0.60759136
    """
    count = first + second
    return min(1.0, 2.0 * float(bdtr(min(first, second), count, 0.5))) if count else 1.0


def mcnemar(errors_a: npt.ArrayLike, errors_b: npt.ArrayLike) -> McNemar:
    """Exact McNemar test of utterances without an error.

    Args:
        errors_a: errors of the first system in each utterance, ``shape = (utterances,)``.
        errors_b: errors of the second.

    Source:
        McNemar, Psychometrika 12(2), 1947, pp. 153-157; Gillick & Cox, ICASSP 1989, p. 533.
    """
    right_a, right_b = np.asarray(errors_a) == 0, np.asarray(errors_b) == 0
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return McNemar(
        both_right=int((right_a & right_b).sum()),
        only_a_right=only_a,
        only_b_right=only_b,
        both_wrong=int((~right_a & ~right_b).sum()),
        p_value=binomial_p(only_a, only_b),
    )


def sign_test(differences: npt.ArrayLike) -> Sign:
    """Exact sign test.

    ``sc_stats`` gives half of the zeros to each side; here they are left out, as in Conover.

    Args:
        differences: one number for each unit, ``shape = (units,)``.

    Raises:
        QualityError: a difference is not finite.

    Source:
        Conover 1999, Practical Nonparametric Statistics, 3rd ed., section 3.4.
    """
    values = _rounded(differences)
    positive, negative = int((values > 0).sum()), int((values < 0).sum())
    return Sign(positive, negative, int((values == 0).sum()), binomial_p(positive, negative))


def wilcoxon(differences: npt.ArrayLike) -> Wilcoxon:
    """Wilcoxon signed-rank test, exact up to 200 differences even with ties.

    Args:
        differences: one number for each unit, ``shape = (units,)``.

    Raises:
        QualityError: a difference is not finite.

    Source:
        Wilcoxon, Biometrics Bulletin 1(6), 1945, pp. 80-83; the exact distribution given the ties as in
        Conover 1999, section 5.7.
    """
    values = _rounded(differences)
    values = values[values != 0]
    if not values.size:
        return Wilcoxon(0, 0.0, 1.0, "exact")
    _, inverse, counts = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    twice = (2 * counts.cumsum() - counts + 1)[inverse]  # two times the mean rank is whole
    below = int(min(twice[values > 0].sum(), twice[values < 0].sum()))
    if values.size <= _EXACT_PAIRS:
        tail = float(_rank_sums(twice)[: below + 1].sum())
        return Wilcoxon(int(values.size), below / 2, min(1.0, 2 * tail), "exact")
    return Wilcoxon(int(values.size), below / 2, _normal_p(below / 2, int(values.size), counts), "normal")


def _rounded(differences: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        msg = f"{int((~np.isfinite(values)).sum())} of {values.size} differences are not finite."
        raise QualityError(msg, code="not-finite", hint="Leave out what was not measured before testing.")
    return np.round(values, _DECIMALS)


def _rank_sums(twice: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Probability of each value of twice the sum of positive ranks when signs are coin tosses."""
    chances = np.zeros(int(twice.sum()) + 1)
    chances[0], reach = 1.0, 0
    for rank in twice.tolist():
        chances[: reach + rank + 1] *= 0.5
        chances[rank : reach + rank + 1] += chances[: reach + 1].copy()
        reach += rank
    return chances


def _normal_p(statistic: float, pairs: int, ties: npt.NDArray[np.int64]) -> float:
    mean = pairs * (pairs + 1) / 4
    variance = pairs * (pairs + 1) * (2 * pairs + 1) / 24 - float((ties.astype(np.float64) ** 3 - ties).sum()) / 48
    return min(1.0, 2 * float(ndtr(-abs(statistic - mean) / math.sqrt(variance))))
