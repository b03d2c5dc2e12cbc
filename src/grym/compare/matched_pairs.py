"""Matched pairs of sentence segments (MAPSSWE): the test of NIST ``sc_stats``.

Knows nothing about texts: it gets two alignments with the same references.
Errors are counted per segment, so two errors in one stretch do not pass for two
independent observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtr

from grym.compare.alignment import HIT, Alignments

if TYPE_CHECKING:
    from grym.compare.alignment import Ints

MIN_SEGMENTS: Final = 6
_ABSENT: Final = -1  # neither right nor an error
_BUFFER: Final = 2  # words that both must have right to close a segment


@dataclass(frozen=True, slots=True)
class MatchedPairs:
    """The matched-pairs test of two systems; d is errors of the first less errors of the second.

    Attributes:
        segments: number of segments with an error of either system.
        errors_a: errors of the first system.
        errors_b: errors of the second.
        mean: of d over segments; ``None`` without segments.
        sd: of d, with n - 1; ``None`` below two segments.
        z: mean / (sd / sqrt(n)); ``None`` if the sd is 0 but the mean is not, or below two segments.
        p_value: two-sided, of z as a normal deviate.
        t_p_value: two-sided, of z as t with n - 1 degrees of freedom.
        too_few: below six segments the numbers mean nothing.
    """

    segments: int
    errors_a: int
    errors_b: int
    mean: float | None
    sd: float | None
    z: float | None
    p_value: float | None
    t_p_value: float | None
    too_few: bool


def segments(a: Alignments, b: Alignments) -> tuple[Ints, Ints]:
    """Errors of both systems in each segment, ``shape = (segments,)`` each.

    Walk the reference words of an utterance. A wrong word, or a word inserted before it or at the end,
    in either system opens a segment; two words in a row that both have right, with nothing inserted
    before the second, close it. A segment still open at the end counts.

    With alternations the systems may have been scored against references of different length. Then the
    walk takes the k-th word of the one with the k-th of the other, as ``sc_stats`` does, and what one of
    them has left at the end is in one segment.

    Args:
        a: alignments of the first system.
        b: alignments of the second, of the same utterances.

    Source:
        Gillick & Cox, ICASSP 1989, pp. 532-535; NIST SCTK 2.4, ``mtchprs.c``.
    """
    a, b = _evened(a, b)
    utterance = np.repeat(np.arange(a.starts.size - 1), a.words)
    wrong_a, wrong_b = a.codes != HIT, b.codes != HIT
    at = np.flatnonzero(wrong_a | wrong_b)
    between = np.flatnonzero((a.gaps > 0) | (b.gaps > 0))
    gap_utterance = np.repeat(np.arange(a.starts.size - 1), a.words + 1)[between]
    gap_slot = between - gap_utterance  # the word after the gap, counted over all utterances
    events = _Events(
        utterance=np.concatenate([gap_utterance, utterance[at]]),
        before=np.concatenate([gap_slot, at]),
        after=np.concatenate([gap_slot, at + 1]),
        errors_a=np.concatenate([a.gaps[between], a.codes[at] > HIT]),
        errors_b=np.concatenate([b.gaps[between], b.codes[at] > HIT]),
    )
    return events.grouped()


@dataclass(frozen=True, slots=True)
class _Events:
    """Places with an error: the words passed before and after each, and the errors of both systems."""

    utterance: Ints
    before: Ints
    after: Ints
    errors_a: Ints
    errors_b: Ints

    def grouped(self) -> tuple[Ints, Ints]:
        if not self.before.size:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        # A gap stands before the word of the same number, and after everything of the utterance before.
        order = np.lexsort((self.after, self.before, self.utterance))
        utterance, before, after = self.utterance[order], self.before[order], self.after[order]
        opens = np.ones(order.size, dtype=bool)
        opens[1:] = (utterance[1:] != utterance[:-1]) | (before[1:] - after[:-1] >= _BUFFER)
        starts = np.flatnonzero(opens)
        sums = (np.add.reduceat(errors[order], starts) for errors in (self.errors_a, self.errors_b))
        first, second = (np.asarray(total, dtype=np.int64) for total in sums)
        some = (first > 0) | (second > 0)  # one system may have words left, all of them right
        return first[some], second[some]


def _evened(a: Alignments, b: Alignments) -> tuple[Alignments, Alignments]:
    """Both with the same number of words in each utterance, the shorter filled up with words that are absent."""
    if np.array_equal(a.starts, b.starts):
        return a, b
    words = np.maximum(a.words, b.words)
    starts = np.concatenate([[0], words.cumsum()]).astype(np.int64)
    return _spread(a, starts), _spread(b, starts)


def _spread(found: Alignments, starts: Ints) -> Alignments:
    count = found.starts.size - 1
    shift = (starts - found.starts)[:-1]
    result = Alignments(
        codes=np.full(int(starts[-1]), _ABSENT, dtype=np.int8),
        gaps=np.zeros(int(starts[-1]) + count, dtype=np.int64),
        starts=starts,
    )
    result.codes[np.arange(found.codes.size) + np.repeat(shift, found.words)] = found.codes
    result.gaps[np.arange(found.gaps.size) + np.repeat(shift, found.words + 1)] = found.gaps
    return result


def matched_pairs(errors_a: npt.ArrayLike, errors_b: npt.ArrayLike) -> MatchedPairs:
    """Test whether two systems make the same number of errors per segment.

    With a standard deviation of 0 and a mean that is not, Z is undefined and both p-values are
    2 ** (1 - n), the smallest that a sign-flip test of n segments can give.

    Args:
        errors_a: errors of the first system in each segment, ``shape = (segments,)``.
        errors_b: errors of the second.

    Example:
        >>> found = matched_pairs([1, 4, 4], [0, 4, 3])
        >>> round(found.mean, 3), round(found.sd, 3), round(found.z, 3), round(found.t_p_value, 4)
        (0.667, 0.577, 2.0, 0.1835)

    Source:
        Gillick & Cox, ICASSP 1989, p. 533.
    """
    first, second = np.asarray(errors_a, dtype=np.int64), np.asarray(errors_b, dtype=np.int64)
    difference, count = first - second, int(first.size)
    mean = float(difference.mean()) if count else None
    sd = float(difference.std(ddof=1)) if count > 1 else None
    z = p_value = t_p_value = None
    if mean is not None and sd is not None:
        if np.ptp(difference):
            z = mean / (sd / math.sqrt(count))
            p_value = float(2 * ndtr(-abs(z)))
            t_p_value = float(2 * stdtr(count - 1, -abs(z)))
        else:
            z = 0.0 if mean == 0 else None
            p_value = t_p_value = 1.0 if mean == 0 else 2.0 ** (1 - count)
    return MatchedPairs(
        segments=count,
        errors_a=int(first.sum()),
        errors_b=int(second.sum()),
        mean=mean,
        sd=sd,
        z=z,
        p_value=p_value,
        t_p_value=t_p_value,
        too_few=count < MIN_SEGMENTS,
    )
