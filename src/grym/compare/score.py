"""Word and character errors of one answer, as counts that add up.

Knows nothing about models, runs or tests of significance. Words are what a
normaliser leaves between spaces; rates are fractions (0.05 is 5 %).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import kaldialign
from rapidfuzz.distance import Levenshtein

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grym.compare.normalize import Normalizer

Operation = Literal["ok", "sub", "del", "ins"]

# Stands for "no word" in an alignment; words come from str.split, which never yields an empty one.
_NOTHING: Final = ""


@dataclass(frozen=True, slots=True)
class Aligned:
    """One position of an alignment; the missing side of ``ins`` and ``del`` is empty."""

    operation: Operation
    reference: str
    hypothesis: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Error counts of one or more answers; adding counts is the only way to pool rates.

    Attributes:
        reference_words: words of the normalised references.
        hits: words right.
        substitutions: words wrong.
        deletions: words missing.
        insertions: words added.
        reference_characters: characters of the references, without spaces.
        character_errors: unit-cost edits of characters, without spaces.
    """

    reference_words: int = 0
    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_characters: int = 0
    character_errors: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float | None:
        """Word error rate; ``None`` without reference words, where insertions are still errors."""
        return self.errors / self.reference_words if self.reference_words else None

    @property
    def cer(self) -> float | None:
        """Character error rate without spaces; ``None`` without reference characters."""
        return self.character_errors / self.reference_characters if self.reference_characters else None


@dataclass(frozen=True, slots=True)
class Score(Counts):
    """Counts of one answer with the alignment behind the word counts."""

    alignment: tuple[Aligned, ...] = ()


def score(reference: str, hypothesis: str, normalizer: Normalizer) -> Score:
    """Compare one answer with its reference.

    Words are aligned with the costs of sclite (substitution 4, insertion and deletion 3), so the
    counts are sclite's; a split compound ("white paper" for "whitepaper") is not merged. Characters
    are compared at unit cost after all spaces are taken out: word boundaries do not count, and a
    character is a Unicode code point.

    Args:
        reference: what was said, as written in the manifest.
        hypothesis: what the model answered.
        normalizer: applied to both.

    Example:
        >>> from grym.compare.normalize import get_normalizer
        >>> score("one two", "One, three.", get_normalizer("basic")).wer
        0.5

    Source:
        NIST SCTK, sclite; kaldialign for the alignment.
    """
    expected, given = normalizer(reference).split(), normalizer(hypothesis).split()
    pairs = kaldialign.align(expected, given, _NOTHING, sclite_mode=True)
    alignment = tuple(Aligned(_operation(r, h), r, h) for r, h in pairs)
    operations = [aligned.operation for aligned in alignment]
    characters, answered = "".join(expected), "".join(given)
    return Score(
        reference_words=len(expected),
        hits=operations.count("ok"),
        substitutions=operations.count("sub"),
        deletions=operations.count("del"),
        insertions=operations.count("ins"),
        reference_characters=len(characters),
        character_errors=Levenshtein.distance(characters, answered),
        alignment=alignment,
    )


def _operation(reference: str, hypothesis: str) -> Operation:
    if reference == hypothesis:
        return "ok"
    if reference == _NOTHING:
        return "ins"
    return "del" if hypothesis == _NOTHING else "sub"


def pooled(scores: Iterable[Counts]) -> Counts:
    """Sums over answers; the WER of the result is errors over words, never a mean of rates per clip.

    Example:
        >>> pooled([Counts(reference_words=1, deletions=1), Counts(reference_words=3, hits=3)]).wer
        0.25
    """
    every = list(scores)
    return Counts(
        reference_words=sum(s.reference_words for s in every),
        hits=sum(s.hits for s in every),
        substitutions=sum(s.substitutions for s in every),
        deletions=sum(s.deletions for s in every),
        insertions=sum(s.insertions for s in every),
        reference_characters=sum(s.reference_characters for s in every),
        character_errors=sum(s.character_errors for s in every),
    )


def outcome_scores(result: Counts, normalizer: Normalizer) -> dict[str, str | int]:
    """The score columns of a row of table ``outcomes``."""
    return {
        "normalizer": normalizer.label,
        "reference_words": result.reference_words,
        "hits": result.hits,
        "substitutions": result.substitutions,
        "deletions": result.deletions,
        "insertions": result.insertions,
        "reference_characters": result.reference_characters,
        "character_errors": result.character_errors,
    }


def word_rows(run_id: str, arm: str, clip_id: str, result: Score) -> list[dict[str, Any]]:
    """Rows of table ``words``: one for each position of the alignment."""
    return aligned_rows(run_id, arm, clip_id, result.alignment)


def aligned_rows(run_id: str, arm: str, clip_id: str, alignment: Iterable[Aligned]) -> list[dict[str, Any]]:
    """Rows of table ``words`` of an alignment."""
    return [
        {
            "run_id": run_id,
            "arm": arm,
            "clip_id": clip_id,
            "position": position,
            "operation": aligned.operation,
            "reference": aligned.reference,
            "hypothesis": aligned.hypothesis,
        }
        for position, aligned in enumerate(alignment)
    ]
