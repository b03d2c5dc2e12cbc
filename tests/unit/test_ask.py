"""``python -m flows ask``: the list of questions, answers as tables and files."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.__main__ import app
from flows.ask import RECORDS, ROWS, show_answer, show_questions
from grym.errors import ConfigError
from grym.store import RunRef, Store
from reports import QUESTIONS, VIEWS

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

WORDS = 50
RUN = RunRef("abc-1", "2026-11-20")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one clip in which fifty different words are lost, and an empty second one."""
    store = Store(tmp_path_factory.mktemp("home"))
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    facts = {"flow": "compare", "dataset": "[digits]", "arm_a": "base", "arm_b": "small", "at": at}
    for state in ("started", "finished"):
        store.land("runs", [{**facts, "state": state}], run=RUN, part=state)
    reference = " ".join(f"w{i}" for i in range(WORDS))
    clip = {"clip_id": "c", "key": "[red]one", "speaker": "s", "reference": reference, "seconds": 1.5}
    store.land("clips", [clip], run=RUN, part="all")
    counts = {"reference_words": WORDS, "hits": 0, "substitutions": 0, "insertions": 0, "reference_characters": 9,
              "character_errors": 9}  # fmt: skip
    for arm in "ab":
        row = {"arm": arm, "clip_id": "c", "status": "ok", "confidence": 0.123456, "deletions": WORDS}
        store.land("outcomes", [{**row, **counts}], run=RUN, part=arm)
        words = [{"clip_id": "c", "position": i, "operation": "del", "reference": f"w{i}"} for i in range(WORDS)]
        store.land("words", [{**word, "arm": arm, "hypothesis": ""} for word in words], run=RUN, part=arm)
    store.publish(VIEWS)
    return store.home


@pytest.fixture(autouse=True)
def _settings(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line on that home."""
    config = tmp_path / "grym.toml"
    config.write_text("", encoding="utf-8")
    monkeypatch.setenv("GRYM_CONFIG", str(config))
    monkeypatch.setenv("GRYM_HOME", str(home))


def shown(name: str, *variables: str, width: int = 120) -> str:
    """What the terminal shows of an answer."""
    out = Console(file=StringIO(), width=width)
    show_answer(out, name, variables)
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


def flows(*arguments: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, ["ask", *arguments], catch_exceptions=False)


def test_all_questions_are_listed() -> None:
    """Every file of the folder is a line with its question."""
    out = Console(file=StringIO(), width=140)
    show_questions(out)
    assert isinstance(out.file, StringIO)
    text = out.file.getvalue()
    assert all(f" {path.stem} " in text for path in QUESTIONS.glob("*.sql"))
    assert "Which words are confused, lost or made up most?" in text
    assert "confused-words" in flows().stdout


def test_an_answer_is_a_table_with_its_run_and_grain() -> None:
    """Question, run and grain stand above; rows beyond the limit are counted."""
    text = shown("confused-words")
    assert text.startswith("Which words are confused")
    assert "Run abc-1: base (a) and small (b) on [digits]" in text
    assert "Grain: one reference word" in text
    assert text.count("│ del ") == ROWS
    assert f"{2 * WORDS - ROWS} more rows: --csv FILE has them all." in text
    assert "0.02000" not in text  # the share of a word that is said once is 1
    assert all(len(line) <= 120 for line in text.splitlines()[3:])


def test_a_narrow_terminal_cuts_texts_before_it_gives_up_the_table() -> None:
    """Long texts become shorter; numbers never do; below that each row is a list of names and values."""
    wide, narrow, tiny = (shown("both-wrong", width=width) for width in (400, 160, 60))
    assert "w0 w1 w2 w3 w4" in wide
    assert "…" in narrow
    for text in (wide, narrow):
        assert "0.1235" in text
        assert "[red]one" in text
        assert "1 of 1" not in text
    assert "1 of 1" in tiny
    assert "│ errors_a   │ 50 " in tiny
    assert all(len(line) <= 160 for line in narrow.splitlines()[3:])


def test_many_wide_rows_are_shown_in_part() -> None:
    """Where rows are shown one below the other there are fewer of them."""
    text = shown("confused-words", width=30)
    assert f"{RECORDS} of {2 * WORDS}" in text.replace("\n", " ")
    assert f"{RECORDS + 1} of {2 * WORDS}" not in text
    assert f"{2 * WORDS - RECORDS} more rows" in text.replace("\n", " ")


def test_nothing_to_show_is_said() -> None:
    """A question without rows says so."""
    assert shown("slower-since-last-run").endswith("No rows.\n")


def test_before_the_first_comparison_the_answer_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty warehouse is not an error."""
    Store(tmp_path).publish(VIEWS)
    monkeypatch.setenv("GRYM_HOME", str(tmp_path))
    assert shown("both-wrong").endswith("No comparison has finished yet.\n")
    assert shown("trend").endswith("No rows.\n")


def test_files_have_every_row(tmp_path: Path) -> None:
    """``--csv`` and ``--json`` write everything and say so; for an unknown run nothing is written."""
    rows, said = tmp_path / "a.csv", tmp_path / "a.json"
    done = flows("confused-words", "--csv", str(rows), "--json", str(said), "--set", "run=abc-1")
    assert done.exit_code == 0
    assert f"{2 * WORDS} rows" in done.stdout
    with rows.open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert len(found) == len(json.loads(said.read_text(encoding="utf-8"))["rows"]) == 2 * WORDS
    assert {(row["reference"], row["times"], row["share"]) for row in found} == {
        (f"w{i}", "1", "1.0") for i in range(WORDS)
    }
    with pytest.raises(ConfigError, match="no run 'abc-2'"):
        flows("confused-words", "--csv", str(tmp_path / "b.csv"), "--set", "run=abc-2")
    assert not (tmp_path / "b.csv").exists()


def test_the_query_itself_can_be_printed() -> None:
    """``--sql`` prints what the file has below its comment, ready to be pasted."""
    text = (QUESTIONS / "trend.sql").read_text(encoding="utf-8")
    assert flows("trend", "--sql").stdout.strip() == text[text.index("SELECT") :].strip()
