"""The summary of a run as Markdown and as table rows, for whoever shows artifacts.

Knows nothing about Prefect: a task passes these on. Text from data is escaped,
so that a name cannot break out of its cell.
"""

from __future__ import annotations

import html

from reports.formats import MISSING, count
from reports.frames import RunData, facts
from reports.metrics import metric_rows, verdict


def _cell(text: str) -> str:
    """Text as it can stand in a Markdown table cell."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "|*_`[]\\" else letter for letter in escaped)


def summary_table(data: RunData) -> list[dict[str, str]]:
    """One dict per metric, all with the same keys: the metric, both arms, difference, interval, change, verdict."""
    a, b = facts(data).labels
    return [
        {
            "Metric": row.title,
            a: row.a,
            b: row.b,
            "Difference": row.difference,
            "Interval": row.interval,
            "Change (%)": row.change,
            "Verdict": row.verdict.text or MISSING,
        }
        for row in metric_rows(data)
    ]


def summary_markdown(data: RunData, *, report: str) -> str:
    """The verdict, the table of both arms and where the full report lies.

    Args:
        data: the run's rows.
        report: path or address of the HTML report.
    """
    known, wer = facts(data), data.comparison("wer")
    sentence = wer["sentence"] or "This run has no verdict: nothing could be compared."
    lines = [f"## {_cell(verdict(wer).text)}", "", _cell(sentence), ""]
    rows = summary_table(data)
    if rows:
        names = list(rows[0])
        lines += [
            f"| {' | '.join(_cell(name) for name in names)} |",
            f"|{'|'.join([':--', *['--:'] * (len(names) - 2), ':--'])}|",
            *(f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in rows),
            "",
        ]
    excluded = data.table("quarantine").height
    notes = [f"Dataset {known.dataset}, {count(wer['clips'] or 0, 'clip')} that both answered."]
    if excluded:
        notes.append(f"{count(excluded, 'row')} in quarantine.")
    lines += [_cell(" ".join(notes)), "", f"Full report: {_code(report)}. Run {_code(data.run_id)}."]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"
