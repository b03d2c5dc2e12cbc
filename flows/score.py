"""Scores transcripts that exist already: tables for people, JSON for programs.

A plain command, not a flow: it needs no server and no ``grym.toml``. The numbers
come from :mod:`grym.compare.scoreboard`; here they are only shown.

    python -m flows score --references ref.trn --system a=a.trn --system b=b.trn --json scores.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.score_evidence import show_evidence
from flows.terminal import styled
from grym.compare.scoreboard import Scoreboard
from grym.compare.scoreboard_json import as_json
from grym.compare.systems import Pair, System
from grym.errors import ConfigError, StorageError


def named_systems(given: Sequence[str]) -> dict[str, Path]:
    """``NAME=FILE`` by name.

    Raises:
        ConfigError: one is not of that form, or a name occurs twice.
    """
    systems: dict[str, Path] = {}
    for name, path in _named(given, "--system"):
        if name in systems:
            msg = f"The system {name!r} is named twice."
            hint = "Give each system a name of its own, and further runs of one system as --repeat NAME=FILE."
            raise ConfigError(msg, code="same-name", hint=hint)
        systems[name] = path
    return systems


def named_repeats(given: Sequence[str]) -> dict[str, list[Path]]:
    """``NAME=FILE`` by name, where a name may occur more than once.

    Raises:
        ConfigError: one is not of that form.
    """
    repeats: dict[str, list[Path]] = {}
    for name, path in _named(given, "--repeat"):
        repeats.setdefault(name, []).append(path)
    return repeats


def _named(given: Sequence[str], option: str) -> Iterator[tuple[str, Path]]:
    for item in given:
        name, sign, path = item.partition("=")
        if not (name.strip() and sign and path.strip()):
            msg = f"{item!r} does not name a system and its file."
            raise ConfigError(msg, code="bad-system", hint=f"Write {option} NAME=FILE, for example {option} a=a.trn.")
        yield name.strip(), Path(path.strip()).expanduser()


def write_json(board: Scoreboard, target: str) -> None:
    """The scoreboard as one JSON object, to a file or (``-``) to standard output.

    Raises:
        StorageError: the file cannot be written.
    """
    write_text(json.dumps(as_json(board), ensure_ascii=False, indent=2, allow_nan=False), target)


def write_text(text: str, target: str) -> None:
    """A text and a line end, to a file, whose folder is made, or (``-``) to standard output.

    Raises:
        StorageError: the file cannot be written.
    """
    if target == "-":
        print(text)
        return
    path = Path(target).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        msg = f"{target} cannot be written: {(error.strerror or 'unknown reason').lower()}."
        raise StorageError(msg, code="unwritable", hint="Name a file in a folder that you can write to.") from error


def show(out: Console, board: Scoreboard) -> None:
    """Systems, pairs, and one sentence for each pair."""
    rules = board.rules
    case = ", case ignored" if rules.ignore_case else ""
    clusters = len(set(board.data.clusters.tolist()))
    title = f"{board.references}: {len(board.data.ids)} utterances, {clusters} {board.data.cluster}s"
    out.print(_systems(board, f"{title}; normaliser {rules.normalizer}{case}"))
    if board.pairs:
        out.print(_pairs(board))
    for pair in board.pairs:
        out.print(pair.sentence, highlight=False, soft_wrap=True)
    for pair in board.pairs:
        if pair.slices:
            out.print(_slices(pair, board.options.confidence))
    show_evidence(out, board)
    for note in board.notes:
        out.print(styled("Note:", "yellow", f" {note}"), highlight=False, soft_wrap=True)


def _systems(board: Scoreboard, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("system", overflow="fold")
    percent = f"{100 * board.options.confidence:g} %"
    for name in ("WER %", percent, "corr", "sub", "del", "ins", "words", "sentences wrong", "CER %", "missing"):
        table.add_column(name, justify="right")
    for system in board.systems:
        table.add_row(*_system_row(system))
    return table


def _system_row(system: System) -> tuple[str, ...]:
    counts = system.counts
    numbers = (counts.hits, counts.substitutions, counts.deletions, counts.insertions, counts.reference_words)
    return (
        system.name,
        _points(counts.wer),
        _span(system.low, system.high),
        *map(str, numbers),
        f"{system.sentences_with_error} of {system.sentences}",
        _points(counts.cer),
        str(len(system.missing) or ""),
    )


def _pairs(board: Scoreboard) -> Table:
    table = Table(title="Pairs: first less second; p-values, two-sided", title_justify="left")
    table.add_column("pair", overflow="fold")
    span = f"{100 * board.options.confidence:g} %"
    columns = ("points", span, "p", "Holm", "bootstrap", "MAPSSWE z", "p", "McNemar", "sign", "Wilcoxon", "TOST")
    for name in columns:
        table.add_column(name, justify="right")
    for pair in board.pairs:
        table.add_row(*_pair_row(pair))
    return table


def _pair_row(pair: Pair) -> tuple[str, ...]:
    segments = pair.mapsswe
    return (
        f"{pair.a} - {pair.b}",
        _points(pair.delta.delta, sign=True),
        _span(pair.delta.low, pair.delta.high),
        _p(pair.delta.p_value),
        _p(pair.p_holm),
        _span(pair.bootstrap.low, pair.bootstrap.high),
        "too few" if segments.too_few else _number(segments.z),
        "" if segments.too_few else _p(segments.p_value),
        _p(pair.mcnemar.p_value),
        _p(pair.sign.p_value),
        _p(pair.wilcoxon.p_value),
        _p(pair.equivalence_p),
    )


def _slices(pair: Pair, confidence: float) -> Table:
    table = Table(title=f"{pair.a} less {pair.b} by slice", title_justify="left")
    table.add_column("slice", overflow="fold")
    for name in (pair.a, pair.b, "points", f"{100 * confidence:g} %", "p", "Benjamini-Hochberg", "clusters"):
        table.add_column(name, justify="right")
    for found in pair.slices:
        delta = found.delta
        table.add_row(
            found.slice,
            _points(delta.a),
            _points(delta.b),
            _points(delta.delta, sign=True),
            _span(delta.low, delta.high),
            "too few" if found.too_few else _p(delta.p_value),
            _p(found.p_adjusted),
            str(delta.clusters),
        )
    return table


def _points(value: float | None, *, sign: bool = False) -> str:
    return "" if value is None else f"{100 * value:{'+' if sign else ''}.2f}"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_points(low)} to {_points(high)}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"  # noqa: PLR2004 - what three decimals can show
