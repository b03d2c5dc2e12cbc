"""One HTML file per run: everything inline, readable offline, printed or on a phone.

Knows nothing about stores; frames come in, a file goes out. Text from data is
escaped by the template engine, and the page's own policy forbids every request.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import polars as pl

from reports import charts, evidence, frames, panels, slice_charts, slices, timing
from reports import trend as over_time
from reports.accuracy import accuracy_slices, events, failure_counts, labelled_clips, mistaken, probe_sentence
from reports.clips import AUDIO_LIMIT, AudioSource, worst_clips
from reports.formats import duration, flat, interval, megabytes, percent
from reports.metrics import METRICS, deciding_accuracies, deciding_interval, metric_rows, scaled, verdict
from reports.page import write
from reports.rates import ACCURACY, WER, Rate
from reports.svg import scoped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from reports.frames import RunData
    from reports.svg import Chart

_ROWS: Final = 100
_RUNS: Final = 25
_FIGURES: Final = ("wer", "accuracy", "latency_p50", "rtfx", "peak_rss_mb")
_SECTIONS: Final = {
    "difference": "The difference", "firm": "How firm it is", "arms": "Both arms",
    "blame": "Where it comes from", "slices": "Slices", "latency": "Latency",
    "resources": "Throughput and memory", "kinds": "Kinds of error",
    "classes": "Failure classes", "radar": "Reference in doubt", "clips": "Clips to hear", "failures": "Failures",
    "quality": "Quality", "quarantine": "Quarantine", "trend": "Over time", "details": "Run details",
}  # fmt: skip
_LABEL_SECTIONS: Final = {
    "difference": "The difference", "arms": "Both arms", "labels": "By label and slice", "mistaken": "Mistakes",
    "classes": "Failure classes", "latency": "Latency", "resources": "Throughput and memory",
    "clips": "Clips to hear", "failures": "Failures", "quality": "Quality", "quarantine": "Quarantine",
    "trend": "Over time", "details": "Run details",
}  # fmt: skip
PAGE_LIMIT: Final = 5_000_000
"""Bytes that a page never exceeds: its sound, and tables, texts and drawings that are cut where they would grow."""


def _difference(data: RunData) -> dict[str, Any]:
    row = data.main
    named = {"difference": "difference", "low": "ci_low", "high": "ci_high", "margin": "margin"}
    if row["metric"] is None:
        return dict.fromkeys((*named, "confidence", "inner_low", "inner_high"))
    ends = deciding_interval(data) if data.rate is WER else deciding_accuracies(data)
    inner = dict(zip(("inner_low", "inner_high"), ends, strict=True))
    return {name: scaled(row, field) for name, field in named.items()} | {"confidence": row["confidence"]} | inner


def _bars(data: RunData, labels: tuple[str, str]) -> list[Chart]:
    found = []
    for key in ("rtfx", "peak_rss_mb"):
        row, metric = data.comparison(key), METRICS[key]
        if row["metric"] is not None:
            values = (scaled(row, "a"), scaled(row, "b"))
            found.append(charts.bars(metric.name, metric.unit, values, labels, metric.digits))
    return [chart for chart in found if chart]


def _slices(data: RunData, margin: float | None, labels: tuple[str, str]) -> dict[str, Any]:
    """Everything the part about slices shows."""
    rows = slices.slices(data)
    shown, notes = slices.shown(rows)
    return {
        "slices": shown,
        "slice_notes": notes,
        "slice_charts": slice_charts.slice_panels(shown, labels, margin=margin),
        "tested": rows["p_value"].count(),
        "standing": rows.filter("stands_out").sort("adjusted", "slice", "value").head(_RUNS).to_dicts(),
        "described": rows.filter(pl.col("p_value").is_null() & pl.col("low").is_not_null()).height,
    }


def _latency(data: RunData, labels: tuple[str, str]) -> dict[str, Any]:
    """Everything the part about latency shows."""
    per_clip, rows = timing.clip_latencies(data), timing.quantiles(data)
    return {
        "latency_charts": panels.latency_panels(per_clip, frames.latencies(data), labels),
        "latency_clips": per_clip.height,
        "latency_known": bool(rows) and rows[0].difference.low is not None,
        "quantiles": rows,
    }


def _trend(past: pl.DataFrame, data: RunData, labels: tuple[str, str], folder: Path) -> dict[str, Any]:
    """Everything the part about earlier runs shows; only pages that exist are linked."""
    rows = over_time.trend(past, data)
    newest = [
        row
        | {
            "current": row["run_id"] == data.run_id,
            "chip": verdict(row),
            "first": first,
            "link": f"{quote(row['run_id'])}.html"
            if row["run_id"] != data.run_id and (folder / f"{row['run_id']}.html").is_file()
            else "",
        }
        for row, first in zip(rows.to_dicts(), [True, *[False] * rows.height], strict=False)
    ][: -_RUNS - 1 : -1]
    drawn = panels.trend_panels(rows, labels, data.run_id, rate=data.rate)
    return {"trend": rows, "trend_rows": newest, "trend_charts": drawn}


def repeat_command(typed: frames.Asked) -> str:
    """The command line that asks the same question again."""
    words = ["python", "-m", "flows", typed.flow, "--a", typed.a, "--b", typed.b]
    named = ["--dataset", typed.dataset] if typed.dataset else []
    return shlex.join([*words, *named, *(["--task", typed.task] if typed.task else []), "--new"])


def clips_query(run_id: str, rate: Rate = WER) -> str:
    """The SQL that shows every clip of a run, those that divide the arms first."""
    quoted = run_id.replace("'", "''")
    if rate is ACCURACY:
        return f"FROM ab_clips WHERE run_id = '{quoted}' ORDER BY correct_a <> correct_b DESC, correct_b, label;"
    return f"FROM ab_clips WHERE run_id = '{quoted}' ORDER BY abs(errors_b - errors_a) DESC;"


def render_run(
    data: RunData,
    history: pl.DataFrame,
    out: Path,
    *,
    audio: AudioSource | None = None,
    data_docs: str | None = None,
    audio_limit: int = AUDIO_LIMIT,
    command: str = "",
) -> Path:
    """Write the report of one comparison run.

    Args:
        data: the run's rows.
        history: comparisons of all runs with what their runs were about, of :func:`reports.trend.history`.
        out: the file to write; its folder is created.
        audio: gives the encoded file (Ogg, WAV, FLAC, MP3) of a clip id, or ``None``.
        data_docs: relative address of the validation pages, if there are any.
        audio_limit: bytes that all sounds together may add to the page.
        command: the command that repeats the run; default: one made of what the run stored as asked.

    Returns:
        The file written.

    Raises:
        StorageError: the file cannot be written.
    """
    known = frames.facts(data)
    common = {
        **section_context(data),
        "run_id": data.run_id,
        "page_limit": megabytes(PAGE_LIMIT),
        "audio_limit": megabytes(audio_limit),
        "group_link": f"{quote(known.group)}.html" if known.group else "",
        "resource_charts": _bars(data, known.labels),
        "failures": frames.failures(data),
        "attempts": data.table("attempts").sort("at", "arm", "call", "attempt").head(_ROWS),
        "attempt_count": data.table("attempts").height,
        "rules": frames.broken_rules(data),
        "rule_count": data.table("quality").height,
        "data_docs": data_docs,
        "quarantine_counts": frames.quarantine_counts(data),
        "quarantine": data.table("quarantine").sort("stage", "code", "key").head(_ROWS),
        "quarantine_count": data.table("quarantine").height,
        "models": data.table("models").sort("arm"),
        "options": flat(known.options),
        "versions": flat(known.versions),
        "hardware": flat(known.hardware),
        "took": duration(known.started, known.finished),
        "command": command or repeat_command(frames.asked(data)),
        "query": clips_query(data.run_id, data.rate),
        **_trend(history, data, known.labels, out.parent),
    }
    if data.rate is ACCURACY:
        return _labels(data, common, out, audio, audio_limit)
    return _words(data, common, out, audio, audio_limit)


def section_context(data: RunData, at: str = "") -> dict[str, Any]:
    """What the parts of a page need that every run has: difference, both arms, failure classes, latency, labels.

    Args:
        data: the run's rows.
        at: goes before every id, so that several runs can stand on one page; ``""`` for a page of its own.
    """
    known, main, rate = frames.facts(data), data.main, data.rate
    measured, rows = _difference(data), metric_rows(data)
    clean = data.comparison(f"{rate.key}_clean")
    context = {
        "at": at,
        "heading": "h3" if at else "h2",
        "full": not at,
        "facts": known,
        "labels": known.labels,
        "arm_labels": dict(zip(frames.ARMS, known.labels, strict=True)),
        "rate": rate,
        "main": main,
        "chip": verdict(main),
        "figures": [row for row in rows if row.key in _FIGURES],
        "measured": measured,
        "interval": interval(measured["low"], measured["high"], 2),
        "inner": interval(measured["inner_low"], measured["inner_high"], 2),
        "level": percent(frames.confidence(data), 0),
        "difference_charts": charts.difference(measured, known.labels, rate),
        "rows": rows,
        "classes": failure_counts(data),
        "clean": clean if clean["metric"] is not None else None,
        "probes": [probe_sentence(row) for row in data.table("probes").sort("arm").to_dicts()],
        **_latency(data, known.labels),
    }
    context["several_events"] = data.comparison("accuracy_mixtures")["metric"] is not None
    if rate is ACCURACY:
        context |= _parts(data, main["margin"], known.labels)
    if at:
        for name in ("difference_charts", "latency_charts"):
            context[name] = [scoped(chart, at) for chart in context[name]]
        drawings = context.get("slice_charts", [])
        context["slice_charts"] = [
            (name, [scoped(chart, at) for chart in found]) for name, found in drawings if name == "label"
        ]
    return context


def _parts(data: RunData, margin: float | None, labels: tuple[str, str]) -> dict[str, Any]:
    """Everything that the part about labels and slices shows."""
    rows = accuracy_slices(data)
    # The labels first: they are what the run is about.
    order = rows.with_columns(_first=(pl.col("slice") != "label")).sort("_first", maintain_order=True).drop("_first")
    shown, notes = slices.shown(order)
    return {
        "slices": shown,
        "slice_notes": [note.replace("words", "clips") for note in notes],
        "slice_charts": slice_charts.slice_panels(shown, labels, margin=margin, limit=24, rate=ACCURACY),
        "tested": rows["p_value"].count(),
        "standing": rows.filter("stands_out").sort("adjusted", "slice", "value").head(_RUNS).to_dicts(),
        "parts_of_events": events(data),
        "mistaken": mistaken(data),
    }


def _labels(data: RunData, common: Mapping[str, Any], out: Path, audio: AudioSource | None, audio_limit: int) -> Path:
    clips = labelled_clips(data, audio=audio, audio_limit=audio_limit)
    heard = megabytes(sum(len(clip.sound.uri) for clip in clips if clip.sound))
    context = {**common, "sections": _LABEL_SECTIONS.items(), "clips": clips, "heard_size": heard}
    return write("labels.html.j2", context, out)


def _words(data: RunData, common: Mapping[str, Any], out: Path, audio: AudioSource | None, audio_limit: int) -> Path:
    labels = common["labels"]
    behind = evidence.behind(data, labels)
    clips = worst_clips(data, audio=audio, audio_limit=audio_limit, asked=behind.asked)
    context = {
        **common,
        "sections": _SECTIONS.items(),
        "kinds_chart": charts.kinds(frames.edit_totals(data), int(frames.paired(data)["words"].sum()), labels),
        "confusions": frames.confusions(data),
        "clips": clips,
        "behind": behind,
        "anchors": {clip.clip_id: clip for clip in clips},
        "heard_size": megabytes(sum(len(clip.sound.uri) for clip in clips if clip.sound)),
        **_slices(data, common["main"]["margin"], labels),
    }
    return write("run.html.j2", context, out)
