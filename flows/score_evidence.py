"""What stands behind the verdicts of ``score``, on the terminal. Differences are first less second, in points."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from grym.compare.blame import Blame, Part
from grym.compare.evidence import PairEvidence
from grym.compare.noise import NoiseFloor
from grym.compare.radar import Radar
from grym.compare.scoreboard import Scoreboard

ROWS = 5


def show_evidence(out: Console, board: Scoreboard) -> None:
    """Fragility, blame list and radar of each pair, then other metrics and noise floors; nothing if nobody asked."""
    for pair in board.evidence:
        out.print(f"Fragility of {pair.a} - {pair.b}: {pair.fragility.sentence}", highlight=False, soft_wrap=True)
        if pair.blame.difference is not None:
            out.print(_blame(pair))
        out.print(radar_line(pair.radar, pair.a, pair.b), highlight=False, soft_wrap=True)
    for _, measured in board.metrics:
        out.print(measured.sentence, highlight=False, soft_wrap=True)
    for name, found in board.noise.items():
        out.print(noise_line(name, found), highlight=False, soft_wrap=True)


def _blame(pair: PairEvidence) -> Table:
    title = f"Where {pair.a} - {pair.b} comes from: the largest parts; those of one kind add up to the difference"
    table = Table(title=title, title_justify="left")
    for column in ("kind", "part", "utterances"):
        table.add_column(column, overflow="fold")
    for column in ("errors " + pair.a, "errors " + pair.b, "words", "points"):
        table.add_column(column, justify="right", overflow="fold")
    for kind, part in _largest(pair.blame):
        numbers = (part.errors_a, part.errors_b, part.words)
        points = f"{-100 * part.contribution:+.3f}"
        table.add_row(kind, part.value, ", ".join(part.clips[:3]), *map(str, numbers), points)
    return table


def _largest(blame: Blame) -> Iterator[tuple[str, Part]]:
    groups = [("words", blame.of("words")), ("speakers", blame.of("speakers"))]
    names = dict.fromkeys(part.name for part in blame.of("slices"))
    groups += [(name, blame.of("slices", name)) for name in names]
    for kind, parts in groups:
        for part in parts[:ROWS]:
            if part.contribution:
                yield f"{kind} (inserted)" if part.name == "inserted" else kind, part


def radar_line(found: Radar, a: str, b: str) -> str:
    """The radar in one sentence."""
    if not found.spans:
        return "Reference radar: nowhere do both systems agree against the reference."
    rates = (found.rates.a, found.rates.b, found.without_spans.a, found.without_spans.b)
    before_a, before_b, after_a, after_b = ("none" if x is None else f"{100 * x:.2f} %" for x in rates)
    places = ", ".join(f"{s.clip} ({s.reference or 'nothing'} / {s.said or 'nothing'})" for s in found.spans[:ROWS])
    return (
        f"Reference radar: {a} and {b} agree against the reference at {len(found.spans)} places in {found.clips} "
        f"utterances: {places}. WER with them {before_a} and {before_b}, without {after_a} and {after_b}."
    )


def noise_line(name: str, found: NoiseFloor) -> str:
    """A noise floor in one sentence."""
    share = "" if found.within_share is None else f", {100 * found.within_share:.1f} % of the variance of one run"
    return (
        f"Noise floor of {name}: {found.repeats} runs of {found.clips} utterances, WER {100 * found.wer:.2f} %, of "
        f"which decoding moves {100 * found.within_sd:.2f} points (sd{share}); two of its runs differ by up to "
        f"{100 * found.floor:.2f} points by chance."
    )
