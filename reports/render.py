"""One HTML file per run and one index of all runs: everything inline, readable offline, printed or on a phone.

Knows nothing about stores; frames come in, a file goes out. Text from data is
escaped by the template engine, and the page's own policy forbids every request.
"""

from __future__ import annotations

import shlex
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from grym.errors import StorageError
from reports import charts, frames
from reports.clips import AudioSource, worst_clips
from reports.formats import MISSING, count, duration, flat, interval, moment, number, percent, typeset
from reports.frames import RunData, conform
from reports.metrics import METRICS, metric_rows, scaled, verdict

if TYPE_CHECKING:
    from reports.svg import Chart

_TEMPLATES: Final = Path(__file__).parent / "templates"
_ROWS: Final = 100
_OPERATIONS: Final = {"sub": "substituted", "del": "missed", "ins": "added"}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "moment": moment, "count": count, "typeset": typeset}
    environment.globals |= {"missing": MISSING, "operations": _OPERATIONS}
    return environment


def _write(text: str, out: Path) -> Path:
    """Write aside and rename, so that a reader never sees half a page."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".writing-") as aside:
            file = Path(aside) / out.name
            file.write_text(text, encoding="utf-8")
            file.replace(out)
    except OSError as error:
        msg = f"The report {out.name} cannot be written: {error.strerror}."
        raise StorageError(msg, code="report-not-written", hint="Free or choose another folder for reports.") from error
    return out


def _difference(data: RunData) -> dict[str, Any]:
    row = data.comparison("wer")
    if row["metric"] is None:
        return {"difference": None, "low": None, "high": None, "margin": None, "confidence": None}
    named = {"difference": "difference", "low": "ci_low", "high": "ci_high", "margin": "margin"}
    return {name: scaled(row, field) for name, field in named.items()} | {"confidence": row["confidence"]}


def _bars(data: RunData, labels: tuple[str, str]) -> list[Chart]:
    found = []
    for key in ("rtfx", "peak_rss_mb"):
        row, metric = data.comparison(key), METRICS[key]
        if row["metric"] is not None:
            values = (scaled(row, "a"), scaled(row, "b"))
            found.append(charts.bars(metric.name, metric.unit, values, labels, metric.digits))
    return [chart for chart in found if chart]


def _trend(history: pl.DataFrame, data: RunData, labels: tuple[str, str]) -> list[Chart]:
    rows = frames.trend(history, data)
    shown = [
        {"run_id": row["run_id"], "at": row["at"]}
        | {name: scaled(row, name) for name in ("a", "b", "difference")}
        | {"low": scaled(row, "ci_low"), "high": scaled(row, "ci_high")}
        for row in rows.to_dicts()
    ]
    numbers = ("a", "b", "difference", "low", "high")
    schema: dict[str, Any] = {"run_id": pl.String, "at": rows.schema["at"]} | dict.fromkeys(numbers, pl.Float64)
    return charts.trend_panels(pl.DataFrame(shown, schema=schema), labels, data.run_id)


def repeat_command(typed: frames.Asked) -> str:
    """The command line that asks the same question again."""
    words = ["python", "-m", "flows", typed.flow, "--a", typed.a, "--b", typed.b]
    return shlex.join([*words, *(["--dataset", typed.dataset] if typed.dataset else []), "--new"])


def render_run(
    data: RunData,
    history: pl.DataFrame,
    out: Path,
    *,
    audio: AudioSource | None = None,
    data_docs: str | None = None,
    audio_limit: int = 3_000_000,
    command: str = "",
) -> Path:
    """Write the report of one comparison run.

    Args:
        data: the run's rows.
        history: comparisons of all runs joined with ``at`` (when the run started) and, where known, ``dataset``.
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
    measured = _difference(data)
    wer = data.comparison("wer")
    sliced = frames.slices(data)
    context = {
        "run_id": data.run_id,
        "facts": known,
        "labels": known.labels,
        "wer": wer,
        "chip": verdict(wer),
        "measured": measured,
        "interval": interval(measured["low"], measured["high"], 2),
        "level": percent(measured["confidence"], 0),
        "difference_charts": charts.difference(measured, known.labels),
        "rows": metric_rows(data),
        "edits": frames.edit_totals(data),
        "slices": sliced,
        "slice_charts": charts.slice_panels(sliced, known.labels),
        "latency_charts": charts.latency_panels(frames.latencies(data), known.labels),
        "resource_charts": _bars(data, known.labels),
        "confusions": frames.confusions(data),
        "clips": worst_clips(data, audio=audio, audio_limit=audio_limit),
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
        "trend_charts": _trend(history, data, known.labels),
        "arm_labels": dict(zip(frames.ARMS, known.labels, strict=True)),
    }
    return _write(_environment().get_template("run.html.j2").render(context), out)


def _index_rows(runs: pl.DataFrame, comparisons: pl.DataFrame) -> list[dict[str, Any]]:
    """One dict per comparison run, newest first."""
    compared = {
        row["run_id"]: row for row in conform(comparisons, "comparisons").filter(pl.col("metric") == "wer").to_dicts()
    }
    states = (
        conform(runs, "runs").filter(pl.col("flow").fill_null("compare") == "compare").sort("at", "run_id").to_dicts()
    )
    found: dict[str, dict[str, Any]] = {}
    for state in states:
        entry = found.setdefault(state["run_id"], {"run": state, "finished": False})
        entry["finished"] |= state["state"] == "finished"
    for run_id, entry in found.items():
        row = compared.get(run_id)
        run = entry["run"]
        entry["labels"] = frames.labels(run["arm_a"] or MISSING, run["arm_b"] or MISSING)
        entry["wer"] = row
        if row:
            entry |= {
                name: number(scaled(row, name), 2, signed=name == "difference") for name in ("a", "b", "difference")
            }
            entry["interval"] = interval(scaled(row, "ci_low"), scaled(row, "ci_high"), 2)
            entry["chip"] = verdict(row)
    return list(reversed(found.values()))


def render_index(runs: pl.DataFrame, comparisons: pl.DataFrame, out: Path) -> Path:
    """Write the page that lists all comparison runs, newest first.

    Args:
        runs: the ``runs`` table of all runs.
        comparisons: the ``comparisons`` table of all runs.
        out: the file to write; reports are expected beside it as ``RUN_ID.html``.

    Returns:
        The file written.

    Raises:
        StorageError: the file cannot be written.
    """
    rows = _index_rows(runs, comparisons)
    return _write(_environment().get_template("index.html.j2").render(rows=rows), out)
