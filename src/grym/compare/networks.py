"""The cheapest alignment of two texts that allow several wordings.

Knows nothing about how texts are written. Costs and choices among equals are
those of sclite, as in :mod:`grym.compare.alignment`, which is faster for texts
with one wording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from grym.compare.alignment import DEL, GAP, HIT, SUB, SUBSTITUTION
from grym.compare.alternations import NULL, Arc, Text
from grym.errors import ManifestError

# Single precision, as in sclite: with nulls in play its rounding decides which of two equal paths is taken.
_PASS: Final = np.float32(0.001)
_NULL_PAIR: Final = np.float32(1)
_SINGLE: Final = np.float32(GAP)
_PAIR: Final = np.float32(SUBSTITUTION)
_ZERO: Final = np.float32(0)
_MAX_CELLS: Final = 4_000_000
_INS: Final = 3


@dataclass(frozen=True, slots=True)
class Path:
    """The best alignment of two texts, one entry for each word of the chosen wording of the reference.

    Attributes:
        codes: 0 right, 1 substituted, 2 deleted.
        gaps: inserted words before each reference word and after the last.
        reference: the chosen wording.
        hypothesis: the chosen wording of the answer.
    """

    codes: tuple[int, ...]
    gaps: tuple[int, ...]
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


def align_texts(reference: Text, hypothesis: Text) -> Path:
    """The cheapest alignment of any wording of the one with any wording of the other.

    Costs are sclite's: substitution 4, insertion and deletion 3, passing by a null 0.001. Takes some
    five microseconds for each pair of arcs: a millisecond for fifteen words against fifteen.

    Raises:
        ManifestError: the networks are too large.

    Example:
        >>> from grym.compare.alternations import parse
        >>> found = align_texts(parse("a { b c / d }"), parse("a d"))
        >>> found.codes, found.reference
        ((0, 0), ('a', 'd'))

    Source:
        NIST SCTK 2.4, ``net_dp.c`` and ``word.c``; compared with its alignments on random networks.
    """
    rows, columns = _Arcs.of(reference), _Arcs.of(hypothesis)
    if len(rows.words) * len(columns.words) > _MAX_CELLS:
        msg = f"A text with alternations has {len(rows.words)} words, its answer {len(columns.words)}: too many."
        raise ManifestError(msg, code="too-long", hint="Cut the recording into utterances.")
    return _walk(rows, columns, _table(rows, columns))


@dataclass(frozen=True, slots=True)
class _Arcs:
    """A network as lists; arc 0 stands before its beginning."""

    words: list[str]
    before: list[list[int]]
    ends: list[int]

    @classmethod
    def of(cls, text: Text) -> _Arcs:
        arcs, last = text.arcs, text.last
        if text.plain:
            arcs = tuple(Arc(word, i, i + 1, i) for i, word in enumerate(text.words))
            last = len(arcs)
        into: dict[int, list[int]] = {0: [0]}
        for index, arc in sorted(enumerate(arcs, 1), key=lambda pair: pair[1].place):
            into.setdefault(arc.end, []).append(index)
        before = [[0], *(into[arc.start] for arc in arcs)]
        return cls(["", *(arc.word for arc in arcs)], before, into[last])

    @property
    def single(self) -> list[np.float32]:
        """Cost of passing each arc alone."""
        return [_PASS if word == NULL else _SINGLE for word in self.words]


_Cell = tuple[np.float32, int, int]  # cost, and the cell before


def _table(rows: _Arcs, columns: _Arcs) -> list[list[_Cell]]:
    deletion, insertion = rows.single, columns.single
    table: list[list[_Cell]] = []
    for row, word in enumerate(rows.words):
        line: list[_Cell] = []
        table.append(line)
        above = rows.before[row]
        for column, answer in enumerate(columns.words):
            left = columns.before[column]
            inserted = deleted = paired = None
            if column:
                at = _least([line[c][0] for c in left])
                inserted = (line[left[at]][0] + insertion[column], row, left[at])
            if row:
                at = _least([table[r][column][0] for r in above])
                deleted = (table[above[at]][column][0] + deletion[row], above[at], column)
            if row and column:
                at = _least([table[r][c][0] for r in above for c in left])
                r, c = above[at // len(left)], left[at % len(left)]
                paired = (table[r][c][0] + _pair(word, answer), r, c)
            line.append(_best(paired, deleted, inserted))
    return table


def _least(costs: list[np.float32]) -> int:
    """Index of the first of the smallest costs."""
    return costs.index(min(costs)) if len(costs) > 1 else 0


def _pair(word: str, answer: str) -> np.float32:
    if word == answer:
        return _NULL_PAIR if word == NULL else _ZERO
    return _PAIR


def _best(paired: _Cell | None, deleted: _Cell | None, inserted: _Cell | None) -> _Cell:
    """Two words before one, an insertion before a deletion, as sclite has it."""
    if inserted is None or deleted is None or paired is None:
        return inserted or deleted or (_ZERO, -1, -1)
    if paired[0] <= deleted[0] and paired[0] <= inserted[0]:
        return paired
    return deleted if deleted[0] < inserted[0] else inserted


def _walk(rows: _Arcs, columns: _Arcs, table: list[list[_Cell]]) -> Path:
    """From the cheapest end back to the beginning."""
    ends = [(r, c) for r in rows.ends for c in columns.ends]
    row, column = min(ends, key=lambda end: table[end[0]][end[1]][0])
    steps: list[tuple[int, str, str]] = []
    while row or column:
        _, above, left = table[row][column]
        word, answer = rows.words[row], columns.words[column]
        if above == row:
            steps.append((_INS, "", answer))
        elif left == column:
            steps.append((DEL, word, ""))
        else:
            steps.append((HIT if word == answer else SUB, word, answer))
        row, column = above, left
    steps.reverse()
    return _path([step for step in steps if NULL not in step[1:]])


def _path(steps: list[tuple[int, str, str]]) -> Path:
    gaps = [0]
    for code, *_ in steps:
        if code == _INS:
            gaps[-1] += 1
        else:
            gaps.append(0)
    words = [step for step in steps if step[0] != _INS]
    return Path(
        codes=tuple(code for code, *_ in words),
        gaps=tuple(gaps),
        reference=tuple(word for _, word, _ in words),
        hypothesis=tuple(answer for code, _, answer in steps if code != DEL),
    )
