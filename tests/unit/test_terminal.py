"""What people wrote reaches the terminal as they wrote it, whatever it looks like."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

from flows.__main__ import app, out
from flows.terminal import styled, terminal

ROOT = Path(__file__).resolve().parents[2]


def test_markup_and_emoji_are_text() -> None:
    """In sentences, titles, heads and cells; only what is made bold on purpose is bold."""
    out = terminal(width=60)
    out.file = io.StringIO()
    table = Table("[/b] :x:", title="[red]:x:")
    table.add_row("[/laugh] :smile:")
    out.print(table)
    out.print("[noise] :x:")
    out.print(styled("Note:", "yellow", " [/b] :x:"))
    shown = out.file.getvalue()
    for wanted in ("[/b] :x:", "[red]:x:", "[/laugh] :smile:", "\n[noise] :x:\n", "\nNote: [/b] :x:\n"):
        assert wanted in shown, wanted


def test_every_verb_prints_through_it() -> None:
    """No other module of flows makes a console, and no text holds markup."""
    for path in sorted((ROOT / "flows").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Console":
                assert path.name == "terminal.py", f"{path.name} makes a console of its own"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert "[/" not in node.value or path.name == "terminal.py", f"{path.name} has markup"


@pytest.mark.parametrize("more", [[], ["--evidence"]])
def test_transcripts_with_brackets_are_scored(tmp_path: Path, more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, ids, speakers, slices, words and repeats like markup: nothing is swallowed and nothing breaks."""
    monkeypatch.setattr(out, "width", 160)  # a narrow terminal breaks the cells of tables
    ids = [f"[/s{n % 7}]_{n}" for n in range(21)]
    texts = {"ref": "one [noise] [/laugh] two :x:", "a": "one [/cough] [/laugh] :x:", "b": "one [/cough] [noise] :x:"}
    for name, text in texts.items():
        lines = [f"{text} ({one})\n" for one in ids[: 21 if name == "ref" else 20]]
        (tmp_path / f"[{name}].trn").write_text("".join(lines), encoding="utf-8")
    files = {name: str(tmp_path / f"[{name}].trn") for name in texts}
    systems = ["--system", f"[/b]={files['a']}", "--system", f":x:[i]={files['b']}", "--repeat", f"[/b]={files['a']}"]
    asked = ["score", "--references", files["ref"], *systems, "--by", "speaker", "--metric", "correct", *more]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, (done.output, done.exception)
    said = " ".join(done.output.split())
    for wanted in (
        "[ref].trn: 21 utterances",
        "[/b] less :x:[i] by slice",
        "speaker=[/s0]",
        "Noise floor of [/b]",
        "[/s6]_20",
    ):
        assert wanted in said, wanted
    assert ("Fragility of [/b] - :x:[i]" in said) is bool(more)
    if more:
        assert "[noise]" in said
        assert "[/cough]" in said


def test_an_error_names_what_was_typed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A name like markup in the message of an error."""
    from flows import __main__

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["flows", "score", "--references", str(tmp_path / "[b]:x:.trn"), "--system", "a=[i]"])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
    assert ended.value.code == 2
    assert "[b]:x:.trn" in capfd.readouterr().err.replace("\n", "")
