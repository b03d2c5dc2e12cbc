"""What two systems heard in the same clips, word by word: what blame lists and the reference radar read.

Knows nothing about where alignments come from: those of a run are rows of table
``words``, those of transcripts are made by :mod:`grym.compare.aligned`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from grym.compare.alignment import DEL, HIT, SUB, Alignments
from grym.compare.score import Aligned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grym.compare.aligned import Aligned as AlignedSystem
    from grym.compare.alignment import Codes, Ints
    from grym.compare.systems import Dataset

Positions = Sequence[Aligned]
_CODES: Final = {"ok": HIT, "sub": SUB, "del": DEL}
NONE: Final = "(none)"
"""Stands for a speaker or a value of a slice that a clip does not have."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Two systems on the same clips.

    Attributes:
        ids: of the clips.
        first: alignment of each answer of the first system with its reference.
        second: the same of the second system.
        speakers: who speaks in each clip; empty if nobody knows.
        slices: for each slice the value of each clip, empty if it has none.
    """

    ids: Sequence[str]
    first: Sequence[Positions]
    second: Sequence[Positions]
    speakers: Sequence[str] = ()
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)


def positions(found: AlignedSystem) -> list[Positions]:
    """The alignments of one system as words: of each utterance what was said and what was heard."""
    return [
        tuple(_utterance(found.references[i], found.hypotheses[i], *found.alignments.one(i)))
        for i in range(len(found.references))
    ]


def _utterance(reference: Sequence[str], hypothesis: Sequence[str], codes: Codes, gaps: Ints) -> Iterator[Aligned]:
    words = iter(hypothesis)
    for place, word in enumerate([*reference, None]):
        for _ in range(int(gaps[place])):
            yield Aligned("ins", "", next(words))
        if word is None:
            return
        code = int(codes[place])
        if code == DEL:
            yield Aligned("del", word, "")
        else:
            yield Aligned("ok" if code == HIT else "sub", word, next(words))


def alignments(found: Sequence[Positions]) -> Alignments:
    """The way back from :func:`positions`: what happened to each reference word, and what was put between.

    Example:
        >>> one = alignments([[Aligned("ok", "so", "so"), Aligned("ins", "", "uh"), Aligned("del", "it", "")]])
        >>> one.codes.tolist(), one.gaps.tolist()
        ([0, 2], [0, 1, 0])
    """
    codes: list[int] = []
    gaps: list[int] = []
    starts = [0]
    for utterance in found:
        gaps.append(0)
        for place in utterance:
            if place.operation == "ins":
                gaps[-1] += 1
            else:
                codes.append(_CODES[place.operation])
                gaps.append(0)
        starts.append(len(codes))
    return Alignments(np.array(codes, dtype=np.int8), np.array(gaps, dtype=np.int64), np.array(starts, dtype=np.int64))


def heard(data: Dataset, first: AlignedSystem, second: AlignedSystem) -> Heard:
    """Two scored systems on one dataset, word by word."""
    return Heard(data.ids, positions(first), positions(second), data.speakers, data.slices)
