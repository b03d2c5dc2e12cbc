"""Word alignments of many utterances at once, with the costs and the choices of sclite.

Knows nothing about files, normalisers or tests. Words come in as strings; what
leaves are counts per reference word and per gap between them, which is all that
error rates and matched-pairs segments need. Everything is numpy over blocks of
utterances of similar length.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from grym.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Words = npt.NDArray[np.int32]

SUBSTITUTION: Final = 4
GAP: Final = 3  # one inserted or deleted word
HIT, SUB, DEL = 0, 1, 2  # what happened to a reference word
_INS: Final = 3

_BLOCK_CELLS: Final = 200_000  # of the table behind one block: small enough for the cache
_MAX_CELLS: Final = 400_000_000  # of one utterance, one byte each: 20 000 words against 20 000


@dataclass(frozen=True, slots=True)
class Alignments:
    """Alignments of n utterances, flat: what happened to each reference word, and what was put between.

    Attributes:
        codes: int8, ``shape = (words,)``: 0 right, 1 substituted, 2 deleted, utterance after utterance.
        gaps: int64, ``shape = (words + n,)``: words inserted before each reference word and, last of an
            utterance, after its end.
        starts: int64, ``shape = (n + 1,)``: utterance i owns ``codes[starts[i]:starts[i + 1]]`` and
            ``gaps[starts[i] + i:starts[i + 1] + i + 1]``.
    """

    codes: Codes
    gaps: Ints
    starts: Ints

    @property
    def words(self) -> Ints:
        """Reference words of each utterance, ``shape = (n,)``."""
        return np.diff(self.starts)

    def count(self, code: int) -> Ints:
        """How often a code stands in each utterance, ``shape = (n,)``."""
        return _sums(self.codes == code, self.starts)

    @property
    def insertions(self) -> Ints:
        """Words inserted into each utterance, ``shape = (n,)``."""
        return _sums(self.gaps, self.starts + np.arange(self.starts.size))

    @property
    def errors(self) -> Ints:
        """Substitutions, deletions and insertions of each utterance, ``shape = (n,)``."""
        return _sums(self.codes != HIT, self.starts) + self.insertions

    def one(self, index: int) -> tuple[Codes, Ints]:
        """Codes and gaps of one utterance."""
        start, end = int(self.starts[index]), int(self.starts[index + 1])
        return self.codes[start:end], self.gaps[start + index : end + index + 1]


def align(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> Alignments:
    """Align each hypothesis with its reference.

    Costs are sclite's: substitution 4, insertion and deletion 3. Of several cheapest alignments it is
    sclite's too: traced back from the end, a pair of words is taken before a single one and an insertion
    before a deletion. That matters: three substitutions cost what two deletions and two insertions
    cost, so the number of errors depends on the choice, and matched-pairs segments do all the more.

    Args:
        references: words of each utterance.
        hypotheses: words of each answer, in the same order.

    Raises:
        ManifestError: an utterance is so long that its table would not fit into memory.

    Example:
        >>> found = align([["a", "b"], ["c"]], [["a", "x", "b"], []])
        >>> found.codes.tolist(), found.gaps.tolist()
        ([0, 0, 2], [0, 1, 0, 0, 0])

    Source:
        NIST SCTK 2.4, ``net_dp.c``; compared with its alignments word by word.
    """
    numbers = _Numbers()
    known = _numbered(references, numbers), _numbered(hypotheses, numbers)
    starts = known[0][1]
    lengths = np.stack([np.diff(starts), np.diff(known[1][1])], axis=1)
    words = int(starts[-1])
    result = Alignments(np.zeros(words, dtype=np.int8), np.zeros(words + starts.size - 1, dtype=np.int64), starts)
    for block in _blocks(lengths):
        _align_block(block, lengths, known, result)
    return result


def _sums(values: npt.NDArray[np.generic], starts: Ints) -> Ints:
    total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.asarray(total[starts[1:]] - total[starts[:-1]], dtype=np.int64)


class _Numbers(dict[str, int]):
    """Words as numbers in the order of their first appearance."""

    def __missing__(self, word: str) -> int:
        self[word] = len(self)
        return self[word]


def _numbered(texts: Sequence[Sequence[str]], numbers: _Numbers) -> tuple[Ints, Ints]:
    """Words as numbers, flat, and where each utterance starts."""
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    flat = np.fromiter(map(numbers.__getitem__, chain.from_iterable(texts)), np.int64, int(starts[-1]))
    return flat, starts


def _blocks(lengths: Ints) -> Iterator[Ints]:
    """Indices of utterances of similar length, few enough for one table."""
    order = np.lexsort((lengths[:, 1], lengths[:, 0]))
    start = 0
    while start < order.size:
        window = order[start : start + _BLOCK_CELLS]
        sides = np.maximum.accumulate(lengths[window] + 1, axis=0)
        cells = sides[:, 0] * sides[:, 1] * np.arange(1, window.size + 1)
        end = start + max(1, int(np.searchsorted(cells, _BLOCK_CELLS, side="right")))
        yield order[start:end]
        start = end


def _align_block(
    block: Ints, lengths: Ints, known: tuple[tuple[Ints, Ints], tuple[Ints, Ints]], result: Alignments
) -> None:
    rows, columns = lengths[block].max(axis=0)
    if int(rows + 1) * int(columns + 1) > _MAX_CELLS:
        msg = f"An utterance of {rows} words with an answer of {columns} is too long to be aligned."
        raise ManifestError(msg, code="too-long", hint="Cut the recording into utterances.")
    reference = _padded(*known[0], block, int(rows), fill=-1)
    hypothesis = _padded(*known[1], block, int(columns), fill=-2)
    _trace(_choices(reference, hypothesis), block, lengths, result)


def _padded(flat: Ints, starts: Ints, block: Ints, width: int, *, fill: int) -> Words:
    """The utterances of a block as rows, ``shape = (utterances, width)``."""
    columns = np.arange(width)
    inside = columns < (starts[block + 1] - starts[block])[:, None]
    table: Words = np.full(inside.shape, fill, dtype=np.int32)
    table[inside] = flat[(starts[block][:, None] + columns)[inside]]
    return table


def _choices(reference: Words, hypothesis: Words) -> Codes:
    """The best last step at each point, ``shape = (rows + 1, utterances, columns + 1)``: a code or an insertion."""
    count, rows = reference.shape
    kind = np.int16 if GAP * (rows + hypothesis.shape[1] + 2) < np.iinfo(np.int16).max else np.int32
    ramp = np.arange(0, GAP * (hypothesis.shape[1] + 1), GAP, dtype=kind)
    best = np.broadcast_to(ramp, (count, ramp.size)).copy()
    choices = np.full((rows + 1, count, ramp.size), _INS, dtype=np.int8)
    for row in range(1, rows + 1):
        differs = hypothesis != reference[:, row - 1, None]
        pair = best[:, :-1] + kind(SUBSTITUTION) * differs
        deleted = best + kind(GAP)
        # An insertion follows the best of its own row: a running minimum once the slope is taken off.
        np.minimum(deleted[:, 1:], pair, out=best[:, 1:])
        best[:, 0] = deleted[:, 0]
        best -= ramp
        np.minimum.accumulate(best, axis=1, out=best)
        best += ramp
        here = choices[row, :, 1:]
        choices[row, :, 0] = DEL
        np.add(deleted[:, 1:] >= best[:, :-1] + kind(GAP), np.int8(DEL), out=here)  # DEL, or the next: INS
        np.copyto(here, differs, where=pair == best[:, 1:], casting="unsafe")  # HIT or SUB
    return choices


def _trace(choices: Codes, block: Ints, lengths: Ints, result: Alignments) -> None:
    """Walk back from the end of every utterance of a block at once and write what is met."""
    row, column = lengths[block, 0].copy(), lengths[block, 1].copy()
    table, (_, count, columns) = choices.reshape(-1), choices.shape
    base = np.arange(count) * columns
    code_at, gap_at = result.starts[block], result.starts[block] + block
    alive = (row > 0) | (column > 0)
    while alive.any():
        if not alive.all():
            row, column, base, code_at, gap_at = (x[alive] for x in (row, column, base, code_at, gap_at))
        step = table[base + row * (count * columns) + column]
        inserted = step == _INS
        result.gaps[(gap_at + row)[inserted]] += 1
        used = ~inserted
        result.codes[(code_at + row - 1)[used]] = step[used]
        row = row - used
        column = column - (step != DEL)
        alive = (row > 0) | (column > 0)
