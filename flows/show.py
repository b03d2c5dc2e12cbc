"""What the command line prints: tables for people. Knows nothing about Prefect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from grym.compare.summary import ArmSummary, arm_summary
from grym.config import Settings
from grym.errors import ConfigError
from grym.store import RunRef, Store
from reports.evidence import fragility_of
from reports.frames import RunData, labels

if TYPE_CHECKING:
    import polars as pl

    from flows.compare import Compared
    from grym.memory.features import Match


def find_run(store: Store, run_id: str) -> RunRef:
    """The stored run of that id.

    Raises:
        ConfigError: there is none.
    """
    known = {ref.id: ref for ref in all_runs(store)}
    if run_id not in known:
        msg = f"There is no run {run_id!r}; stored are {', '.join(sorted(known)) or 'none'}."
        raise ConfigError(msg, code="unknown-run", hint="Use one of these.")
    return known[run_id]


def all_runs(store: Store) -> list[RunRef]:
    """Every stored run, oldest first."""
    runs = store.runs().sort("at", "run_id")
    keys = runs["run_key"].unique(maintain_order=True).to_list()
    found = [ref for key in keys for ref, _ in store.find_runs(key)]
    order = {run_id: i for i, run_id in enumerate(runs["run_id"].unique(maintain_order=True).to_list())}
    return sorted(found, key=lambda ref: order[ref.id])


def show_verdict(out: Console, store: Store, result: Compared) -> None:
    """The verdict table of a run, and where everything lies."""
    run = find_run(store, result.run_id)
    comparisons = {row["metric"]: row for row in store.read("comparisons", run).to_dicts()}
    outcomes, clips, operations = (store.read(name, run) for name in ("outcomes", "clips", "operations"))
    names = comparisons["wer"]
    level = float(names["confidence"])
    a, b = (arm_summary(outcomes, clips, operations, letter, confidence=level) for letter in "ab")
    table = Table(title=f"Run {result.run_id}{' (resumed)' if result.resumed else ''}", title_justify="left")
    table.add_column("")
    for column in (names["arm_a"], names["arm_b"], "difference", "change"):
        table.add_column(column, justify="right", overflow="fold")
    for label, left, right, metric in _lines(a, b):
        table.add_row(label, left, right, *_change(comparisons.get(metric)))
    out.print(table)
    out.print(f"[bold]{result.verdict}[/bold]: {result.sentence}", highlight=False)
    tried = fragility_of(
        RunData(run.id, {"analyses": store.read("analyses", run)}), labels(names["arm_a"], names["arm_b"])
    )
    if tried is not None:
        out.print(f"Scored in other ways: {tried.sentence}", highlight=False, markup=False)
    out.print(_quarantined(store.read("quarantine", run)), highlight=False)
    out.print(f"DuckDB:  {result.warehouse}", soft_wrap=True, highlight=False)
    out.print(f"Report:  {result.report}", soft_wrap=True, highlight=False)
    out.print("Prefect: make ui", highlight=False)


def _lines(a: ArmSummary, b: ArmSummary) -> Iterator[tuple[str, str, str, str]]:
    yield "WER %", _percent(a.wer), _percent(b.wer), "wer"
    yield f"  {100 * a.confidence:.0f} % interval", _interval(a), _interval(b), ""
    yield "  sub / del / ins", _edits(a), _edits(b), ""
    yield "CER %", _percent(a.cer), _percent(b.cer), "cer"
    yield "latency p50 ms", _number(a.latency_p50_ms), _number(b.latency_p50_ms), "latency_p50"
    yield "latency p95 ms", _number(a.latency_p95_ms), _number(b.latency_p95_ms), "latency_p95"
    yield "RTFx", _number(a.rtfx), _number(b.rtfx), "rtfx"
    yield "peak memory MB", _number(a.peak_rss_mb, 0), _number(b.peak_rss_mb, 0), "peak_rss_mb"
    yield "failures", f"{a.failures} of {a.clips}", f"{b.failures} of {b.clips}", "failures"


def _interval(arm: ArmSummary) -> str:
    if arm.wer_low is None or arm.wer_high is None:
        return ""
    return f"{_percent(arm.wer_low)} to {_percent(arm.wer_high)}"


def _edits(arm: ArmSummary) -> str:
    return f"{arm.substitutions} / {arm.deletions} / {arm.insertions}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _change(row: dict[str, object] | None) -> tuple[str, str]:
    """Difference in the unit of the line, and change in percent."""
    if row is None or row["difference"] is None:
        return "", ""
    difference = float(str(row["difference"])) * (100 if row["unit"] == "fraction" else 1)
    digits = 2 if row["unit"] == "fraction" else 1
    percent = row["percent_change"]
    return f"{difference:+.{digits}f}", "" if percent is None else f"{float(str(percent)):+.1f} %"


def _quarantined(quarantine: pl.DataFrame) -> str:
    if quarantine.is_empty():
        return "Quarantine: nothing."
    counts = quarantine.group_by("code").len().sort("len", "code", descending=[True, False])
    return "Quarantine: " + ", ".join(f"{row['len']} {row['code']}" for row in counts.to_dicts())


def show_matches(out: Console, matches: Sequence[Match]) -> None:
    """The nearest clips with their scores."""
    table = Table(title="Nearest clips", title_justify="left")
    for column in ("score", "clip", "name", "text", "speaker", "seconds"):
        table.add_column(column, justify="right" if column in {"score", "seconds"} else "left")
    for match in matches:
        facts = match.metadata
        table.add_row(
            f"{match.score:.4f}",
            match.id[:16],
            str(facts.get("key", "")),
            str(facts.get("text", "")),
            str(facts.get("speaker", "")),
            f"{float(str(facts.get('seconds', 0))):.2f}",
        )
    out.print(table)


def render_again(settings: Settings, run_id: str | None) -> Iterable[Path]:
    """Publish the warehouse and render one report, or those of all finished runs, from what is stored.

    A player needs the dataset as it was typed, seen from the current folder; without it the page has no sound.

    Raises:
        ConfigError: there is no run of that id, or it has not finished.
    """
    from reports import VIEWS
    from tasks.report import render, run_data, stored_entries

    store = Store(settings.home)
    # A page says that its run is complete, so one that is not gets none.
    finished = [run for run in all_runs(store) if "finished" in store.landed("runs", run)]
    runs = [run for run in finished if run_id in {None, run.id}]
    if run_id and not runs:
        msg = f"Run {find_run(store, run_id).id} has not finished."
        raise ConfigError(msg, code="unfinished-run", hint="Give its command again; it goes on where it stopped.")
    yield store.publish(views=VIEWS).path
    for run in runs:
        data = run_data(store, run)
        yield render(store, settings, data, stored_entries(settings, data))
