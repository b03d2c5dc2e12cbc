"""What the command line prints: tables for people. Knows nothing about Prefect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from grym.compare.plan import group_id
from grym.compare.summary import ArmSummary, arm_summary
from grym.config import Settings
from grym.errors import ConfigError
from grym.store import RunRef, Store
from reports.accuracy import failure_counts, probe_sentence
from reports.evidence import fragility_of
from reports.frames import RunData, labels

if TYPE_CHECKING:
    from flows.compare import Compared, Result
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
    """The verdict table of every run, all verdicts, and where everything lies."""
    for one in result.runs:
        _show_run(out, store, one, several=len(result.runs) > 1)
    if len(result.runs) > 1:
        out.print()
        for one in result.runs:
            _show_sentence(out, one, f"{one.dataset}: ")
    out.print(f"DuckDB:  {result.warehouse}", soft_wrap=True, highlight=False)
    out.print(f"Report:  {result.report}", soft_wrap=True, highlight=False)
    out.print("Prefect: make ui", highlight=False)


def _show_sentence(out: Console, one: Result, before: str = "") -> None:
    out.print(Text(before) + Text(one.verdict, style="bold") + Text(f": {one.sentence}"))


def _show_run(out: Console, store: Store, one: Result, *, several: bool) -> None:
    run = find_run(store, one.run_id)
    data = RunData(run.id, {name: store.read(name, run) for name in ("comparisons", "analyses", "outcomes", "probes")})
    comparisons = {row["metric"]: row for row in data.table("comparisons").to_dicts()}
    names = data.main
    title = f"{one.dataset}, run {one.run_id}" if several else f"Run {one.run_id}"
    table = Table(title=f"{title}{' (resumed)' if one.resumed else ''}", title_justify="left")
    table.add_column("")
    for column in (names["arm_a"], names["arm_b"], "difference", "change"):
        table.add_column(column, justify="right", overflow="fold")
    outcomes, clips, operations = (store.read(name, run) for name in ("outcomes", "clips", "operations"))
    level = float(names["confidence"])
    a, b = (arm_summary(outcomes, clips, operations, letter, confidence=level) for letter in "ab")
    scored = _rates(a, b, comparisons) if one.task == "transcribe" else _accuracies(comparisons)
    for label, left, right, metric in (*scored, *_resources(a, b)):
        table.add_row(label, left, right, *_change(comparisons.get(metric)))
    classes = failure_counts(data)
    for row in classes.to_dicts():
        table.add_row(f"  {row['failure']}", str(row["a"]), str(row["b"]), "", "")
    out.print(table)
    if not several:
        _show_sentence(out, one)
    tried = fragility_of(data, labels(names["arm_a"], names["arm_b"]))
    if tried is not None:
        out.print(f"Scored in other ways: {tried.sentence}", highlight=False, markup=False)
    for row in data.table("probes").sort("arm").to_dicts():
        out.print(probe_sentence(row), highlight=False, markup=False)
    out.print(_quarantined(store.read("quarantine", run)), highlight=False)


def _accuracies(comparisons: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    titles = {
        "accuracy": "label accuracy %",
        "accuracy_clean": "  without failures %",
        "accuracy_mixtures": "mixtures, all right %",
        "any_of_mixtures": "mixtures, any right %",
    }
    for metric, title in titles.items():
        if (row := comparisons.get(metric)) is not None:
            yield title, _percent(row["a"]), _percent(row["b"]), metric


def _rates(
    a: ArmSummary, b: ArmSummary, comparisons: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, str, str]]:
    yield "WER %", _percent(a.wer), _percent(b.wer), "wer"
    yield f"  {100 * a.confidence:.0f} % interval", _interval(a), _interval(b), ""
    yield "  sub / del / ins", _edits(a), _edits(b), ""
    if (clean := comparisons.get("wer_clean")) is not None:
        yield "  without failures", _percent(clean["a"]), _percent(clean["b"]), "wer_clean"
    yield "CER %", _percent(a.cer), _percent(b.cer), "cer"


def _resources(a: ArmSummary, b: ArmSummary) -> Iterator[tuple[str, str, str, str]]:
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


def _groups(store: Store) -> dict[str, str]:
    """The comparison on several datasets that each finished run belongs to, if any."""
    states = store.runs()
    if "run_group" not in states.columns:
        return {}
    ended = states.filter(pl.col("state") == "finished").select("run_id", "run_group")
    return {str(run): str(group or "") for run, group in ended.iter_rows()}


def render_again(settings: Settings, run_id: str | None) -> Iterable[Path]:
    """Publish the warehouse and render one report, or those of all finished runs, from what is stored.

    A player needs the dataset as it was typed, seen from the current folder; without it the page has no sound.

    Raises:
        ConfigError: there is no run of that id, or it has not finished.
    """
    from reports import VIEWS
    from tasks.report import render, render_group, run_data, stored_entries

    store = Store(settings.home)
    # A page says that its run is complete, so one that is not gets none.
    finished = [run for run in all_runs(store) if "finished" in store.landed("runs", run)]
    runs = [run for run in finished if run_id in {None, run.id}]
    if run_id and not runs:
        msg = f"Run {find_run(store, run_id).id} has not finished."
        raise ConfigError(msg, code="unfinished-run", hint="Give its command again; it goes on where it stopped.")
    yield store.publish(views=VIEWS).path
    groups: dict[str, list[RunRef]] = {}
    shared = _groups(store)
    for run in finished:
        groups.setdefault(shared.get(run.id, ""), []).append(run)
    for run in runs:
        data = run_data(store, run)
        yield render(store, settings, data, stored_entries(settings, data))
    for group, members in groups.items():
        # A group with a member that is not finished has no page: that it exists says that all of it is complete.
        whole = group_id([run.id for run in members]) == group
        if group and whole and (run_id is None or run_id in {run.id for run in members}):
            yield render_group(store, members, group)
