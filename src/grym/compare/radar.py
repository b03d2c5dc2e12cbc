"""Where two systems agree against the reference: spans whose reference somebody should listen to.

Knows nothing about pages or tables. Two systems that make the same mistake at the
same place are either wrong in the same way or right: related models share mistakes,
so a span is a candidate for the ear and never proof. Rates are fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grym.compare.heard import Heard, Positions

Kind = Literal["heard otherwise", "missed", "added"]


@dataclass(frozen=True, slots=True)
class Span:
    """One place at which both systems say the same and the reference something else.

    Attributes:
        clip: id of the clip.
        position: reference words before it.
        reference: words of the reference there; empty where both added something.
        said: what both systems said; empty where both missed something.
        errors: errors that each of them has there.
        words: words of the reference there.
    """

    clip: str
    position: int
    reference: str
    said: str
    errors: int
    words: int

    @property
    def kind(self) -> Kind:
        """What happened there."""
        if not self.said:
            return "missed"
        return "heard otherwise" if self.reference else "added"


@dataclass(frozen=True, slots=True)
class Rates:
    """Word error rates of both systems; ``None`` without reference words."""

    a: float | None
    b: float | None


@dataclass(frozen=True, slots=True)
class Radar:
    """All spans, and what the rates would be without them.

    Attributes:
        spans: longest first, those before others in which something was heard otherwise.
        clips: clips with such a span.
        compared: clips that were looked at.
        skipped: clips left out because the systems were scored against different wordings.
        rates: over all clips that were looked at.
        without_spans: the spans' errors and reference words taken out.
        without_clips: the whole clips taken out.
    """

    spans: tuple[Span, ...]
    clips: int
    compared: int
    skipped: int
    rates: Rates
    without_spans: Rates
    without_clips: Rates


def radar(heard: Heard) -> Radar:
    """Find where both systems agree against the reference.

    A span is a longest stretch in which, between reference words that one of them has right or that
    divide them, both have the same words in place of the reference's.

    Example:
        >>> from grym.compare.heard import Heard
        >>> from grym.compare.score import Aligned
        >>> both = [Aligned("ok", "a", "a"), Aligned("sub", "bee", "be"), Aligned("ins", "", "e")]
        >>> found = radar(Heard(["c"], [both], [both]))
        >>> [(span.reference, span.said, span.errors) for span in found.spans], found.without_spans.a
        ([('bee', 'be e', 2)], 0.0)
    """
    spans: list[Span] = []
    totals: list[tuple[int, int, int]] = []
    suspect: list[tuple[int, int, int]] = []
    skipped = 0
    for clip, a, b in zip(heard.ids, heard.first, heard.second, strict=True):
        first, second = _slots(a), _slots(b)
        if [slot.reference for slot in first] != [slot.reference for slot in second]:
            skipped += 1
            continue
        found = list(_spans(clip, first, second))
        counts = sum(p.operation != "ok" for p in a), sum(p.operation != "ok" for p in b), len(first) // 2
        totals.append(counts)
        if found:
            suspect.append(counts)
            spans += found
    every, whole = _sums(totals), _sums(suspect)
    errors, words = sum(span.errors for span in spans), sum(span.words for span in spans)
    return Radar(
        spans=tuple(sorted(spans, key=_rank)),
        clips=len(suspect),
        compared=len(totals),
        skipped=skipped,
        rates=_rates(every),
        without_spans=_rates((every[0] - errors, every[1] - errors, every[2] - words)),
        without_clips=_rates((every[0] - whole[0], every[1] - whole[1], every[2] - whole[2])),
    )


def _rank(span: Span) -> tuple[bool, int, str, int]:
    return span.kind != "heard otherwise", -span.errors, span.clip, span.position


def _sums(counts: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    return sum(c[0] for c in counts), sum(c[1] for c in counts), sum(c[2] for c in counts)


def _rates(counts: tuple[int, int, int]) -> Rates:
    a, b, words = counts
    return Rates(a / words, b / words) if words else Rates(None, None)


@dataclass(frozen=True, slots=True)
class _Slot:
    """A reference word, or the gap before one (``reference`` is empty), and the words heard there."""

    reference: str
    said: tuple[str, ...]

    @property
    def wrong(self) -> bool:
        return self.said != ((self.reference,) if self.reference else ())

    @property
    def errors(self) -> int:
        """One for a reference word, one for each word in a gap."""
        return 1 if self.reference else len(self.said)


def _slots(found: Positions) -> list[_Slot]:
    """Gap, word, gap, word, …, gap."""
    slots: list[_Slot] = []
    gap: list[str] = []
    for position in found:
        if position.operation == "ins":
            gap.append(position.hypothesis)
            continue
        said = (position.hypothesis,) if position.hypothesis else ()
        slots += [_Slot("", tuple(gap)), _Slot(position.reference, said)]
        gap = []
    return [*slots, _Slot("", tuple(gap))]


def _spans(clip: str, first: Sequence[_Slot], second: Sequence[_Slot]) -> Iterator[Span]:
    current: list[int] = []
    for place, (a, b) in enumerate(zip(first, second, strict=True)):
        if a == b and a.wrong:
            current.append(place)
        elif a.said or b.said or a.reference:  # an empty gap on both sides ends nothing
            if current:
                yield _span(clip, first, current)
            current = []
    if current:
        yield _span(clip, first, current)


def _span(clip: str, slots: Sequence[_Slot], places: Sequence[int]) -> Span:
    inside = [slots[place] for place in places]
    return Span(
        clip=clip,
        position=places[0] // 2,
        reference=" ".join(slot.reference for slot in inside if slot.reference),
        said=" ".join(word for slot in inside for word in slot.said),
        errors=sum(slot.errors for slot in inside),
        words=sum(bool(slot.reference) for slot in inside),
    )
