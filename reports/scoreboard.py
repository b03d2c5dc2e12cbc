"""The page about transcripts that exist already: systems, pairs, slices, and the utterances that decide.

Knows nothing about files of transcripts; a scoreboard comes in, one HTML file goes out that needs no network. Text
from data is escaped by the template engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from grym.compare.fragility import by_choice
from grym.compare.heard import positions
from reports.alignment import Position, align, condense, describe
from reports.charts import difference
from reports.evidence import CHOICES, shown
from reports.formats import percent, shortened
from reports.page import write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from grym.compare.evidence import PairEvidence
    from grym.compare.scoreboard import Scoreboard
    from grym.compare.systems import Pair, System
    from reports.svg import Chart

_PAIRS: Final = 6  # pairs that are drawn; the table has all
_UTTERANCES: Final = 8
_SLICES: Final = 200
_PARTS: Final = 5
_KINDS: Final = 8
_LETTERS: Final = ("a", "b")
_CHIPS: Final = {
    "a better": ("a", "{a} better"),
    "b better": ("b", "{b} better"),
    "equivalent": ("same", "Equivalent"),
    "cannot tell": ("open", "Cannot tell"),
}


@dataclass(frozen=True, slots=True)
class Said:
    """One system's answer to one utterance."""

    arm: str
    name: str
    errors: int
    words: int
    summary: str


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance as the page shows it: ``apart`` is how the errors of the two systems differ."""

    key: str
    speaker: str
    apart: int
    answers: tuple[Said, ...]
    positions: tuple[Position, ...]


def render_scoreboard(board: Scoreboard, out: Path, *, command: str = "") -> Path:
    """Write the page of a scoreboard.

    Args:
        board: what was scored.
        out: the HTML file.
        command: the command line that made it, to be shown.

    Raises:
        StorageError: the file cannot be written.
    """
    first = board.pairs[0] if board.pairs else None
    labels = (first.a, first.b) if first else (board.systems[0].name, "")
    context = {
        "board": board,
        "labels": labels,
        "arm_labels": dict(zip(_LETTERS, labels, strict=True)),
        "level": percent(board.options.confidence, 0),
        "clusters": len(set(board.data.clusters.tolist())),
        "systems": list(board.systems),
        "pairs": [_pair(pair) for pair in board.pairs],
        "drawn": [(pair, _charts(pair, board.options.margin)) for pair in board.pairs[:_PAIRS]],
        "slices": [(pair, pair.slices[:_SLICES]) for pair in board.pairs if pair.slices],
        "slice_limit": _SLICES,
        "utterances": list(_utterances(board)),
        "measured": [pair for _, pair in board.metrics],
        "behind": [_behind(pair) for pair in board.evidence[:_PAIRS]],
        "noise": board.noise,
        "names": [shortened(system.name, 40) for system in board.systems],
        "command": command,
    }
    return write("score.html.j2", context, out)


def _pair(pair: Pair) -> dict[str, Any]:
    kind, text = _CHIPS[pair.verdict]
    return {"pair": pair, "kind": kind, "text": text.format(a=pair.a, b=pair.b)}


def _behind(found: PairEvidence) -> dict[str, Any]:
    """What stands behind the verdict on one pair: the largest parts of each kind, the first places of the radar."""
    kinds = [("words", found.blame.of("words")), ("speakers", found.blame.of("speakers"))]
    names = list(dict.fromkeys(part.name for part in found.blame.of("slices")))[:_KINDS]
    kinds += [(name, found.blame.of("slices", name)) for name in names]
    parts = [
        ("words (inserted)" if part.name == "inserted" else kind, part)
        for kind, some in kinds
        for part in some[:_PARTS]
        if part.contribution
    ]
    choices = [(CHOICES[name], shown(name, value), n, of) for name, value, n, of in by_choice(found.fragility)]
    return {
        "a": found.a,
        "b": found.b,
        "sentence": found.fragility.sentence,
        "choices": choices,
        "parts": parts,
        "radar": found.radar,
        "spans": found.radar.spans[:_UTTERANCES],
    }


def _charts(pair: Pair, margin: float) -> list[Chart]:
    """The difference second less first, as on the other pages; a scoreboard has first less second."""
    delta = pair.delta
    row: Mapping[str, Any] = {
        "difference": _points(None if delta.delta is None else -delta.delta),
        "low": _points(None if delta.high is None else -delta.high),
        "high": _points(None if delta.low is None else -delta.low),
        "margin": _points(margin),
    }
    return difference(row, (pair.a, pair.b))


def _points(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _utterances(board: Scoreboard) -> Iterator[Utterance]:
    """Utterances of the first pair: those that divide it most, then the hardest; of one system the hardest."""
    shown = board.systems[:2]
    errors = np.stack([system.aligned.alignments.errors for system in shown])
    apart = np.abs(errors[0] - errors[-1])
    order = np.lexsort((-errors.max(axis=0), -apart))
    chosen = [int(index) for index in order[:_UTTERANCES] if errors[:, index].any()]
    rows = [positions(system.aligned) for system in shown]
    for index in chosen:
        aligned = [
            [{"operation": w.operation, "reference": w.reference, "hypothesis": w.hypothesis} for w in found[index]]
            for found in rows
        ]
        answers = (
            _said(letter, system, index, said) for letter, system, said in zip(_LETTERS, shown, aligned, strict=False)
        )
        yield Utterance(
            key=shortened(board.data.ids[index]),
            speaker=shortened(board.data.speakers[index]),
            apart=int(apart[index]),
            answers=tuple(answers),
            positions=condense(align(aligned)),
        )


def _said(letter: str, system: System, index: int, aligned: list[dict[str, str]]) -> Said:
    found = system.aligned.alignments
    return Said(letter, system.name, int(found.errors[index]), int(found.words[index]), describe(aligned))
