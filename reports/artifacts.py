"""The summary of a run as Markdown and as table rows, for whoever shows artifacts.

Knows nothing about Prefect: a task passes these on. Text from data is escaped,
so that a name cannot break out of its cell.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

import polars as pl

from reports.accuracy import accuracy_slices, failure_counts, probe_sentence
from reports.formats import MISSING, count, moment, number, percent, typeset
from reports.frames import ARMS, RunData, facts, failures, quarantine_counts
from reports.metrics import metric_rows, per_cent, verdict
from reports.rates import WER
from reports.slices import slices
from reports.trend import trend

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NAMED: Final = 5
NO_VERDICT: Final = "This run has no verdict: nothing could be compared."


def cell(text: str) -> str:
    """Text as it can stand in a Markdown table cell."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "|*_`[]\\" else letter for letter in escaped)


def summary_table(data: RunData) -> list[dict[str, str]]:
    """One dict per metric, all with the same keys: metric, both arms, difference with interval, verdict, change.

    The viewer cuts wide tables on the right, so what is said comes before what can be worked out.
    """
    a, b = facts(data).labels
    return [
        {
            "Metric": row.title,
            a: row.a,
            b: row.b,
            "Difference": row.difference if row.interval == MISSING else f"{row.difference} ({row.interval})",
            "Verdict": row.verdict.text or MISSING,
            "Change (%)": row.change,
        }
        for row in metric_rows(data)
    ]


def summary_markdown(data: RunData, *, report: str, history: pl.DataFrame | None = None) -> str:
    """The verdict, the table of both arms, what needs attention, and where the full report lies.

    Args:
        data: the run's rows.
        report: path or address of the HTML report.
        history: comparisons of all runs, of :func:`reports.trend.history`, for the run before.
    """
    main = data.main
    lines = [f"## {cell(verdict(main).text)}", "", cell(typeset(main["sentence"] or NO_VERDICT)), ""]
    rows = summary_table(data)
    if rows:
        names = list(rows[0])
        lines += [
            f"| {' | '.join(cell(name) for name in names)} |",
            f"|{'|'.join(':--' if name in {'Metric', 'Verdict'} else '--:' for name in names)}|",
            *(f"| {' | '.join(cell(row[name]) for name in names)} |" for row in rows),
            "",
        ]
    lines += [f"- {cell(note)}" for note in _notes(data, history)]
    return "\n".join([*lines, "", f"Full report: {_code(report)}. Run {_code(data.run_id)}."]) + "\n"


def together_markdown(runs: Sequence[RunData], *, report: str) -> str:
    """The verdicts of a comparison on several datasets, one row and one sentence for each.

    Args:
        runs: rows of each run.
        report: path or address of the HTML page of all of them.
    """
    a, b = facts(runs[0]).labels
    lines = [
        f"| Dataset | Asked for | {cell(a)} | {cell(b)} | Verdict |",
        "|:--|:--|--:|--:|:--|",
        *(
            f"| {cell(facts(data).dataset)} | {data.rate.name} (%) | {percent(data.main['a'])} | "
            f"{percent(data.main['b'])} | {cell(verdict(data.main).text)} |"
            for data in runs
        ),
        "",
        *(f"- {cell(facts(data).dataset)}: {cell(typeset(data.main['sentence'] or NO_VERDICT))}" for data in runs),
    ]
    ids = ", ".join(data.run_id for data in runs)
    return "\n".join([*lines, "", f"Full report: {_code(report)}. Runs {_code(ids)}."]) + "\n"


def _notes(data: RunData, past: pl.DataFrame | None) -> Iterator[str]:
    """What a reader of the summary should know besides the figures, a sentence each."""
    known, clips = facts(data), data.main["clips"] or 0
    yield f"Dataset {known.dataset or MISSING}: {count(clips, 'clip')} that both answered."
    for row in data.table("probes").sort("arm").to_dicts():
        yield probe_sentence(row)
    rows = slices(data) if data.rate is WER else accuracy_slices(data)
    tested, standing = rows["p_value"].count(), rows.filter("stands_out").sort("adjusted", "slice", "value")
    if tested:
        named = [
            f"{row['slice']} {row['value']} ({number(per_cent(row['difference']), 2, signed=True)} points)"
            for row in standing.head(_NAMED).to_dicts()
        ]
        more = f" and {standing.height - _NAMED} more" if standing.height > _NAMED else ""
        yield f"Slices that stand out of {count(tested, 'tested value')}: {', '.join(named) + more or 'none'}."
    classes = failure_counts(data)
    if classes.height:
        found = ", ".join(f"{row['failure']} {row['a']} and {row['b']}" for row in classes.to_dicts())
        yield f"Texts with a failure class, {known.labels[0]} and {known.labels[1]}: {found}."
    for row in failures(data).head(_NAMED).to_dicts():
        arm = known.labels[ARMS.index(row["arm"])] if row["arm"] in ARMS else row["arm"]
        yield f"{arm}: {count(row['clips'], 'clip')} without an answer ({row['error_code'] or row['status']})."
    reasons = quarantine_counts(data)
    if reasons.height:
        found = ", ".join(f"{row['rows']} {row['code']}" for row in reasons.head(_NAMED).to_dicts())
        rest = f" and {count(reasons.height - _NAMED, 'other reason')}" if reasons.height > _NAMED else ""
        yield f"{count(int(reasons['rows'].sum()), 'row')} in quarantine: {found}{rest}."
    broken = data.table("quality").filter(pl.col("status") != "pass").height
    if broken:
        yield f"{count(broken, 'evaluation')} of quality rules did not pass."
    earlier = trend(past, data) if past is not None else None
    if earlier is not None and earlier["run_id"].to_list()[-1:] == [data.run_id] and earlier.height > 1:
        before, now = earlier.to_dicts()[-2:]
        was = number(per_cent(before["difference"]), 2, signed=True)
        yield f"The run before ({moment(before['at'])}): {was} points; new since then: {now['changed'] or 'nothing'}."


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"
