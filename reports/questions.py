"""The analysts' questions, answered from the published warehouse.

Every question is a file of ``reports/sql/questions``; :mod:`grym.describe` reads it. Knows nothing about how an
answer is shown. Units stand in each question's columns; times are UTC.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from grym.describe import Question, literal, quoted, read_questions
from grym.errors import ConfigError, StorageError
from grym.parts import reason
from reports import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb
    import polars as pl

    from grym.store import Store


@dataclass(frozen=True, slots=True)
class Answer:
    """What the warehouse says to a question.

    Attributes:
        question: the question.
        run: the run it is about, with models and dataset; empty if it is about all runs or none has finished.
        frame: the rows, with the question's columns.
    """

    question: Question
    run: str
    frame: pl.DataFrame


def questions() -> tuple[Question, ...]:
    """Every question, by name."""
    return read_questions(QUESTIONS)


def find_question(name: str) -> Question:
    """The question of that name.

    Raises:
        ConfigError: there is none.
    """
    known = {question.name: question for question in questions()}
    if name not in known:
        close = get_close_matches(name, known, 1)
        msg = f"There is no question {name!r}{f'; did you mean {close[0]!r}?' if close else '.'}"
        raise ConfigError(msg, code="unknown-question", hint="python -m flows ask lists them.")
    return known[name]


def answer(store: Store, name: str, variables: Sequence[str] = ()) -> Answer:
    """Ask the warehouse as it was published last.

    Args:
        store: where the warehouse lies.
        name: name of the question.
        variables: ``NAME=VALUE`` of the question's variables.

    Raises:
        ConfigError: an unknown question, variable or run.
        StorageError: there is no warehouse, or it was published before the views that the question needs.
    """
    import duckdb

    question = find_question(name)
    values = _values(question, variables)
    with store.connect() as warehouse:
        try:
            run = _prepare(warehouse, question, values)
            return Answer(question, run, warehouse.sql(question.sql).pl())
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            msg = f"The warehouse cannot answer {name!r}: {reason(error)}."
            hint = "It was published by another version; publish again: python -m flows report."
            raise StorageError(msg, code="old-warehouse", hint=hint) from error


def write_csv(found: Answer, path: Path) -> None:
    """The rows as CSV with a line of names; times as ISO 8601 in UTC.

    Raises:
        StorageError: the file cannot be written.
    """
    _write(path, found.frame.write_csv(datetime_format="%Y-%m-%dT%H:%M:%S%.fZ"))


def write_json(found: Answer, path: Path) -> None:
    """The rows with what they mean: question, grain, run, columns (name to meaning), rows.

    Raises:
        StorageError: the file cannot be written.
    """
    question = found.question
    said = {
        "name": question.name,
        "question": question.text,
        "grain": question.grain,
        "run": found.run,
        "columns": dict(question.columns),
        "rows": found.frame.to_dicts(),
    }
    _write(path, json.dumps(said, indent=2, ensure_ascii=False, default=_plain) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{path} cannot be written: {reason(error)}."
        raise StorageError(msg, code="not-writable", hint="Name a file in a folder that can be written to.") from error


def _plain(value: Any) -> str:
    """A date or time in JSON."""
    return str(value.isoformat())


def _values(question: Question, variables: Sequence[str]) -> dict[str, str]:
    known = dict(question.variables)
    pairs = [text.partition("=") for text in variables]
    for name, sign, _ in pairs:
        if not sign or name not in known:
            msg = f"The question {question.name!r} has no variable {name!r}; it has: {', '.join(known) or 'none'}."
            raise ConfigError(msg, code="unknown-variable", hint="Give it as NAME=VALUE, for example run=ID.")
    return {name: value for name, _, value in pairs}


def _prepare(warehouse: duckdb.DuckDBPyConnection, question: Question, values: Mapping[str, str]) -> str:
    """Set the variables; return which run the question is about, in words."""
    warehouse.execute("SET TimeZone = 'UTC'")
    for name, value in values.items():
        warehouse.execute(f"SET VARIABLE {quoted(name)} = {literal(value)}")
    if "run" not in dict(question.variables):
        return ""
    found = warehouse.sql(
        "SELECT r.run_id, r.model_a, r.model_b, r.dataset FROM ab_runs r SEMI JOIN asked_run USING (run_id)"
    ).fetchall()
    if not found and "run" in values:
        ids = [row[0] for row in warehouse.sql("SELECT run_id FROM ab_runs ORDER BY started_at").fetchall()]
        msg = f"There is no run {values['run']!r}; published are {', '.join(ids) or 'none'}."
        raise ConfigError(msg, code="unknown-run", hint="Use one of these.")
    return "{}: {} (a) and {} (b) on {}".format(*found[0]) if found else ""
