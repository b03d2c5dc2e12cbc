"""All answers of one system against the references: one alignment, its counts, its characters.

Knows nothing about files or tests. Plain texts go through the fast aligner in
one piece, texts with alternations one by one through networks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from grym.compare.alignment import DEL, HIT, SUB, Alignments, align
from grym.compare.networks import Path, align_texts
from grym.compare.score import Counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.compare.alignment import Ints
    from grym.compare.alternations import Text


@dataclass(frozen=True, slots=True)
class Aligned:
    """One system on all utterances.

    Attributes:
        alignments: of the chosen wordings, utterance after utterance.
        characters: characters of the references without spaces, ``shape = (utterances,)``.
        character_errors: unit-cost edits of characters without spaces.
        paths: the alignments that went through a network, by utterance.
        references: the words of each reference that were aligned.
        hypotheses: the words of each answer.
    """

    alignments: Alignments
    characters: Ints
    character_errors: Ints
    paths: Mapping[int, Path] = field(default_factory=dict)
    references: Sequence[Sequence[str]] = ()
    hypotheses: Sequence[Sequence[str]] = ()

    @property
    def counts(self) -> Counts:
        """Sums over all utterances."""
        found = self.alignments
        hits, substituted, deleted = (int((found.codes == code).sum()) for code in (HIT, SUB, DEL))
        return Counts(
            reference_words=int(found.starts[-1]),
            hits=hits,
            substitutions=substituted,
            deletions=deleted,
            insertions=int(found.gaps.sum()),
            reference_characters=int(self.characters.sum()),
            character_errors=int(self.character_errors.sum()),
        )


def align_all(references: Sequence[Text], hypotheses: Sequence[Text], *, characters: bool = True) -> Aligned:
    """Align every answer with its reference.

    Characters are compared after all spaces are taken out, at unit cost: word boundaries do not count.
    With alternations they are those of the wording the words were aligned with.

    Args:
        references: what was said.
        hypotheses: what was answered, in the same order.
        characters: whether characters are compared too; else their counts are 0.

    Raises:
        ManifestError: an utterance is too long.
    """
    pairs = list(zip(references, hypotheses, strict=True))
    paths = {i: align_texts(r, h) for i, (r, h) in enumerate(pairs) if not (r.plain and h.plain)}
    expected = [paths[i].reference if i in paths else r.words for i, (r, _) in enumerate(pairs)]
    given = [paths[i].hypothesis if i in paths else h.words for i, (_, h) in enumerate(pairs)]
    alignments = align(expected, given)
    for index, path in paths.items():  # the same words, but the network decides among equals
        codes, gaps = alignments.one(index)
        codes[:], gaps[:] = path.codes, path.gaps
    none = np.zeros(len(pairs), dtype=np.int64)
    lengths, errors = _characters(expected, given) if characters else (none, none)
    return Aligned(alignments, lengths, errors, paths, expected, given)


def _characters(expected: Sequence[Sequence[str]], given: Sequence[Sequence[str]]) -> tuple[Ints, Ints]:
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    first, second = (["".join(words) for words in texts] for texts in (expected, given))
    lengths = np.array([len(text) for text in first], dtype=np.int64)
    distances = cpdist(first, second, scorer=Levenshtein.distance, dtype=np.int64) if first else lengths
    return lengths, np.asarray(distances, dtype=np.int64)
