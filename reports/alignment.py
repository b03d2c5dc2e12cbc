"""Alignments of both arms to one reference, as columns that a page can show however long the clip is.

Knows nothing about clips, sound or pages. Words are the normalised ones that were scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_RIGHT: Final = frozenset({"ok", "gap"})
_TEXTS: Final = {
    "sub": "“{hypothesis}” for “{reference}”",
    "del": "“{reference}” missing",
    "ins": "“{hypothesis}” added",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What one arm made of one position: ``ok``, ``sub``, ``del``, ``ins``, or ``gap`` where only the other added."""

    operation: str
    text: str


@dataclass(frozen=True, slots=True)
class Position:
    """One column of an alignment: the word of the reference (empty for an added one) and a cell per arm.

    A column without cells stands for ``skipped`` positions that are not shown.
    """

    reference: str
    cells: tuple[Cell, ...]
    skipped: int = 0

    @property
    def wrong(self) -> bool:
        """Whether any arm made an error here."""
        return any(cell.operation not in _RIGHT for cell in self.cells)


def _slots(words: Iterable[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[list[str]]]:
    """Words of the reference in order, and what was added before each and after the last."""
    kept: list[Mapping[str, Any]] = []
    added: list[list[str]] = [[]]
    for word in words:
        if word["operation"] == "ins":
            added[-1].append(word["hypothesis"] or "")
        else:
            kept.append(word)
            added.append([])
    return kept, added


def align(arms: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[Position, ...]:
    """Join the alignments of several arms to the same reference into columns.

    Args:
        arms: for each arm the rows of its alignment (``operation, reference, hypothesis``), in order of position.
    """
    split = [_slots(words) for words in arms]
    found: list[Position] = []
    slots = max((len(added) for _, added in split), default=0)
    for slot in range(slots):
        extra = [added[slot] if slot < len(added) else [] for _, added in split]
        found += [
            Position("", tuple(Cell("gap", "") if text is None else Cell("ins", text) for text in texts))
            for texts in zip_longest(*extra)
        ]
        words = [kept[slot] if slot < len(kept) else None for kept, _ in split]
        if any(words):
            reference = next(word["reference"] or "" for word in words if word)
            cells = (Cell(w["operation"], w["hypothesis"] or "") if w else Cell("gap", "") for w in words)
            found.append(Position(reference, tuple(cells)))
    return tuple(found)


def condense(
    positions: Sequence[Position], *, around: int = 4, limit: int = 120, least: int = 24
) -> tuple[Position, ...]:
    """Leave out what a reader does not need: long stretches that both arms got right, and what is beyond the limit.

    Args:
        positions: columns of an alignment.
        around: right words kept on each side of an error.
        limit: most columns shown.
        least: an alignment that is no longer is shown whole.

    Returns:
        The columns; where some were left out, one without cells says how many.

    Example:
        >>> right, wrong = Position("a", (Cell("ok", "a"),)), Position("b", (Cell("del", ""),))
        >>> [p.skipped for p in condense([*[right] * 9, wrong, right], around=2, least=5)]
        [7, 0, 0, 0, 0]
    """
    if len(positions) <= least:
        return tuple(positions)
    near = [False] * len(positions)
    for i, position in enumerate(positions):
        if position.wrong:
            for j in range(max(0, i - around), min(len(positions), i + around + 1)):
                near[j] = True
    found: list[Position] = []
    shown = hidden = 0
    for position, wanted in zip(positions, near, strict=True):
        if wanted and shown < limit:
            if hidden:
                found.append(Position("", (), hidden))
            found.append(position)
            shown, hidden = shown + 1, 0
        else:
            hidden += 1
    return (*found, Position("", (), hidden)) if hidden else tuple(found)


def describe(words: Iterable[Mapping[str, Any]], *, limit: int = 20) -> str:
    """The errors of one alignment in words, for those who cannot see it.

    Args:
        words: rows of the alignment.
        limit: most errors named; the others are counted.

    Example:
        >>> describe([{"operation": "sub", "reference": "three", "hypothesis": "tree"}])
        '“tree” for “three”'
    """
    wrong = [word for word in words if word["operation"] in _TEXTS]
    found = [
        _TEXTS[w["operation"]]
        .replace("{hypothesis}", w["hypothesis"] or "")
        .replace("{reference}", w["reference"] or "")
        for w in wrong[:limit]
    ]
    more = [f"and {len(wrong) - limit} more"] if len(wrong) > limit else []
    return ", ".join([*found, *more]) or "all words right"
