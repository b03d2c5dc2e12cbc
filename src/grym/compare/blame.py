"""Where a difference of word error rates comes from: split exactly into words, speakers and slices.

Knows nothing about tests or pages. Each dimension is a partition of all errors,
so its parts add up to the whole difference b - a (within 1e-12), a fraction. It
says where the difference lies, not why, and no part is tested by itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from grym.compare.heard import NONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from grym.compare.heard import Heard, Positions

Dimension = Literal["words", "speakers", "slices"]
CLIPS: Final = 5
"""Clips named with each part."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of one dimension.

    Attributes:
        dimension: ``words``, ``speakers`` or ``slices``.
        name: ``word`` (said and not heard, or heard otherwise), ``inserted`` (heard and not said),
            ``speaker``, or the name of a slice; the parts of one name of ``slices``, all parts of
            ``words`` and all of ``speakers`` add up to the difference.
        value: the word, the speaker, or the value of the slice; ``(none)`` where there is none.
        errors_a: errors of the first system in this part.
        errors_b: errors of the second.
        words: words of the first system's references in this part; 0 for an insertion.
        contribution: share of the difference b - a in units of the rate.
        clip_count: clips in which the systems made a different number of these errors.
        clips: ids of up to five of them, those first that push the way the part does.
    """

    dimension: Dimension
    name: str
    value: str
    errors_a: int
    errors_b: int
    words: int
    contribution: float
    clip_count: int
    clips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Blame:
    """All parts of a difference.

    Attributes:
        difference: b - a over all clips, as a fraction; ``None`` without reference words.
        words_a: words of the references behind the first rate.
        words_b: words behind the second; the same unless alternations were chosen differently.
        parts: by dimension, those first that contribute most.
    """

    difference: float | None
    words_a: int
    words_b: int
    parts: tuple[Part, ...]

    def of(self, dimension: Dimension, name: str | None = None) -> list[Part]:
        """The parts of one dimension, or of one name in it."""
        return [part for part in self.parts if part.dimension == dimension and name in {None, part.name}]


@dataclass(frozen=True, slots=True)
class _Counted:
    """Errors and words of one clip by part."""

    clip: str
    errors: tuple[Counter[str], Counter[str]]
    words: Counter[str]


def blame(heard: Heard) -> Blame:
    """Split the difference of two systems.

    Example:
        >>> from grym.compare.heard import Heard
        >>> from grym.compare.score import Aligned
        >>> said = [Aligned("ok", "two", "two"), Aligned("sub", "six", "sick")]
        >>> found = blame(Heard(["c"], [said], [[Aligned("ok", "two", "two"), Aligned("ok", "six", "six")]], ["s"]))
        >>> [(part.value, part.contribution) for part in found.of("words")]
        [('six', -0.5)]
    """
    words_a, words_b = (sum(_length(p) for p in found) for found in (heard.first, heard.second))
    if not words_a or not words_b:
        return Blame(None, words_a, words_b, ())
    split = _Split(words_a, words_b)
    pairs = list(zip(heard.ids, heard.first, heard.second, strict=True))
    by_word = [_Counted(i, (_said(a), _said(b)), Counter(p.reference for p in a if p.reference)) for i, a, b in pairs]
    inserted = [_Counted(i, (_added(a), _added(b)), Counter()) for i, a, b in pairs]
    parts = [*split.parts("words", "word", by_word), *split.parts("words", "inserted", inserted)]
    speakers = heard.speakers or [""] * len(heard.ids)
    for dimension, name, values in (
        ("speakers", "speaker", speakers),
        *(("slices", name, values) for name, values in heard.slices.items()),
    ):
        parts += split.parts(dimension, name, _grouped(pairs, values))  # type: ignore[arg-type]
    errors_a, errors_b = (sum(_errors(p) for p in found) for found in (heard.first, heard.second))
    return Blame(errors_b / words_b - errors_a / words_a, words_a, words_b, tuple(sorted(parts, key=_rank)))


def _rank(part: Part) -> tuple[str, str, float, str, str]:
    name = "" if part.dimension == "words" else part.name
    return part.dimension, name, -abs(part.contribution), part.name, part.value


def _length(found: Positions) -> int:
    return sum(position.operation != "ins" for position in found)


def _errors(found: Positions) -> int:
    return sum(position.operation != "ok" for position in found)


def _said(found: Positions) -> Counter[str]:
    return Counter(p.reference for p in found if p.operation in {"sub", "del"})


def _added(found: Positions) -> Counter[str]:
    return Counter(p.hypothesis for p in found if p.operation == "ins")


def _grouped(pairs: Iterable[tuple[str, Positions, Positions]], values: Sequence[str]) -> Iterator[_Counted]:
    for (clip, a, b), value in zip(pairs, values, strict=True):
        key = value or NONE
        yield _Counted(clip, (Counter({key: _errors(a)}), Counter({key: _errors(b)})), Counter({key: _length(a)}))


@dataclass(frozen=True, slots=True)
class _Split:
    words_a: int
    words_b: int

    def parts(self, dimension: Dimension, name: str, counted: Iterable[_Counted]) -> Iterator[Part]:
        """Parts with an error, and all speakers and values of slices."""
        first: Counter[str] = Counter()
        second: Counter[str] = Counter()
        words: Counter[str] = Counter()
        apart: dict[str, list[tuple[str, int]]] = {}
        for clip in counted:
            first.update(clip.errors[0])
            second.update(clip.errors[1])
            words.update(clip.words)
            for key in {*clip.errors[0], *clip.errors[1]}:
                if d := clip.errors[1][key] - clip.errors[0][key]:
                    apart.setdefault(key, []).append((clip.clip, d))
        for value in {**first, **second}:
            contribution = second[value] / self.words_b - first[value] / self.words_a
            sign = -1 if contribution < 0 else 1
            ranked = sorted(apart.get(value, []), key=lambda found: (-sign * found[1], found[0]))
            yield Part(
                dimension=dimension,
                name=name,
                value=value,
                errors_a=first[value],
                errors_b=second[value],
                words=words[value],
                contribution=contribution,
                clip_count=len(ranked),
                clips=tuple(clip for clip, _ in ranked[:CLIPS]),
            )
