"""What ``python -m flows ask`` prints: the analysts' questions and their answers. Knows nothing about Prefect.

The terminal shows the first rows, short; the files have everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from grym.config import load_settings
from grym.store import Store
from reports.questions import Answer, answer, find_question, questions, write_csv, write_json

ROWS: Final = 40
"""Rows that the terminal shows as a table."""
RECORDS: Final = 10
"""Rows that the terminal shows one below the other, where even a table with cut texts would be too wide."""
_CELL: Final = 60  # characters of a cell; a JSON text says nothing on a terminal
_TEXT: Final = 16  # characters that a column of texts keeps where room is short


def show_questions(out: Console) -> None:
    """Name and text of every question."""
    table = Table(title="Questions", title_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("question")
    for question in questions():
        table.add_row(question.name, question.text)
    out.print(table)
    out.print("python -m flows ask NAME", highlight=False)


def show_sql(out: Console, name: str) -> None:
    """The query of a question, to be pasted into any client.

    Raises:
        ConfigError: there is no such question.
    """
    out.print(find_question(name).sql, soft_wrap=True, highlight=False, markup=False)


def show_answer(
    out: Console, name: str, variables: Sequence[str], *, csv: Path | None = None, json: Path | None = None
) -> None:
    """The answer as a table, or as files.

    Args:
        out: the terminal.
        name: name of the question.
        variables: ``NAME=VALUE`` of the question's variables.
        csv: file for the rows.
        json: file for the rows and their meaning.

    Raises:
        GrymError: an unknown question, variable or run; no warehouse; a file that cannot be written.
    """
    found = answer(Store(load_settings().home), name, variables)
    files = ((csv, write_csv), (json, write_json))
    for path, write in files:
        if path is not None:
            write(found, path)
            out.print(f"{path}: {found.frame.height} rows", soft_wrap=True, highlight=False, markup=False)
    if csv is None and json is None:
        _print(out, found)


def _print(out: Console, found: Answer) -> None:
    out.print(Text(found.question.text, style="bold"))
    if found.run:
        out.print(f"Run {found.run}", highlight=False, markup=False)
    out.print(f"Grain: {found.question.grain}", highlight=False, markup=False)
    if found.frame.is_empty():
        about_none = "run" in dict(found.question.variables) and not found.run
        out.print("No comparison has finished yet." if about_none else "No rows.")
        return
    widths = _widths(found, out.width)
    fits = _total(widths) <= out.width
    for table in [_table(found, widths)] if fits else _records(found):
        out.print(table)
    hidden = found.frame.height - (ROWS if fits else RECORDS)
    if hidden > 0:
        out.print(f"{hidden} more rows: --csv FILE has them all.", highlight=False)


def _widths(found: Answer, room: int) -> list[int]:
    """Characters of each column: its longest cell or word of its name; where room is short, less for long texts."""
    from polars import String

    shown = list(found.frame.head(ROWS).iter_columns())
    least = [max(map(len, column.name.split("_"))) for column in shown]
    widths = [max(words, *(cell_len(_cell(v)) for v in c.to_list())) for words, c in zip(least, shown, strict=True)]
    texts = [i for i, column in enumerate(shown) if column.dtype == String]
    while _total(widths) > room and (long := [i for i in texts if widths[i] > max(_TEXT, least[i])]):
        widths[max(long, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 3 * len(widths) + 1  # a border and two spaces each, and the last border


def _table(found: Answer, widths: Sequence[int]) -> Table:
    table = Table()
    for (name, kind), width in zip(found.frame.schema.items(), widths, strict=True):
        table.add_column(name.replace("_", " "), justify="right" if kind.is_numeric() else "left", width=width)
    for row in found.frame.head(ROWS).iter_rows():
        table.add_row(*(Text(_cell(v), no_wrap=True, overflow="ellipsis") for v in row))
    return table


def _records(found: Answer) -> Iterator[Table]:
    """Each row as lines of name and value, for answers that are wider than the terminal."""
    for number, row in enumerate(found.frame.head(RECORDS).iter_rows(), start=1):
        record = Table(title=f"{number} of {found.frame.height}", title_justify="left", show_header=False)
        for name, value in zip(found.frame.columns, row, strict=True):
            record.add_row(name, Text(_cell(value)))
        yield record


def _cell(value: Any) -> str:
    """A value for people: empty for none, four significant digits, minutes, a long text cut."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    text = str(value)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _number(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}"
