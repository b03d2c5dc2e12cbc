"""The error rate of live calls from files: what is joined, what is said, what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from grym.compare.scoreboard import score_files
from grym.errors import ConfigError, ManifestError, QualityError, StorageError
from grym.experiment.live_wer import live_wer_of_files
from grym.experiment.ppi import Call, live_wer

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _calls(count: int, labelled: int) -> list[Call]:
    """Two models that err on the same hard calls; the first calls are labelled."""
    rng = np.random.default_rng(5)
    calls = []
    for number in range(count):
        said = [WORDS[int(d)] for d in rng.integers(0, 10, 6)]
        wrong = rng.random(6) < (0.4 if rng.random() < 0.25 else 0.02)
        heard = [word if not bad else "noise" for word, bad in zip(said, wrong, strict=True)]
        other = [word if not bad or rng.random() < 0.2 else "hiss" for word, bad in zip(said, wrong, strict=True)]
        calls.append(Call(" ".join(heard), " ".join(other), " ".join(said) if number < labelled else None, ""))
    return calls


def _write(folder: Path, calls: list[Call]) -> dict[str, Path]:
    names = ("answers", "other", "references")
    files = {name: folder / f"{name}.csv" for name in names}
    for name, path in files.items():
        texts = [{"answers": c.hypothesis, "other": c.other, "references": c.reference}[name] for c in calls]
        rows = [f"c{number:04d},{text}" for number, text in enumerate(texts) if text is not None]
        path.write_text("\n".join(["id,text", *rows]) + "\n", encoding="utf-8")
    return files


def test_files_say_what_their_calls_say(tmp_path: Path) -> None:
    """The order of lines does not matter, and nothing is lost between file and estimate."""
    calls = _calls(600, 120)
    found = live_wer_of_files(**_write(tmp_path, calls))
    assert found == live_wer(calls)
    assert found.calls == 600
    assert found.labelled == 120
    assert found.estimate.se < found.labels_only.se


def test_the_command_prints_the_rate_and_writes_numbers(tmp_path: Path) -> None:
    """Sentences for people, JSON for programs."""
    files = _write(tmp_path, _calls(300, 60))
    asked = ["live-wer", *(part for name, path in files.items() for part in (f"--{name}", str(path)))]
    told = CliRunner().invoke(app, [*asked, "--json", str(tmp_path / "found.json")])
    assert told.exit_code == 0, told.output
    assert "Word error rate of all 300 calls" in told.output
    assert "From the 60 labelled calls alone" in told.output
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["labelled"] == 60
    assert found["estimate"]["low"] <= found["estimate"]["rate"] <= found["estimate"]["high"]
    deep = tmp_path / "not" / "there" / "found.json"
    assert CliRunner().invoke(app, [*asked, "--json", str(deep)]).exit_code == 0
    assert json.loads(deep.read_text(encoding="utf-8")) == found
    with pytest.raises(StorageError, match="cannot be written"):
        CliRunner().invoke(app, [*asked, "--json", str(deep / "x.json")], catch_exceptions=False)
    piped = CliRunner().invoke(app, [*asked, "--json", "-"])
    assert json.loads(piped.output) == found


def test_speakers_are_the_units(tmp_path: Path) -> None:
    """Calls of one caller are not independent; ids without a speaker take calls as they are."""
    lines = {"answers": "one two", "other": "one too", "references": "one two"}
    for name, text in lines.items():
        rows = [f"{text} (ann_{n})\n{text} (bob_{n})\n" for n in range(8)]
        (tmp_path / f"{name}.trn").write_text("".join(rows), encoding="utf-8")
    files = {name: tmp_path / f"{name}.trn" for name in lines}
    assert live_wer_of_files(**files).units == 2
    assert live_wer_of_files(**files, speaker="none").units == 16


def test_an_unanswered_call_has_no_words(tmp_path: Path) -> None:
    """A null is a call that the model did not answer: its words are deleted."""
    rows = {
        "answers": [{"id": "a", "text": "one two"}, {"id": "b", "text": None}],
        "other": [{"id": "a", "text": "one two"}, {"id": "b", "text": "three"}],
        "references": [{"id": "a", "text": "one two"}, {"id": "b", "text": "three four"}],
    }
    files = {name: tmp_path / f"{name}.jsonl" for name in rows}
    for name, some in rows.items():
        files[name].write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    found = live_wer_of_files(**files)
    assert found.labels_only.rate == pytest.approx(0.5)
    assert found.estimate.low is None
    assert "answers.jsonl has no answer to 1 of its calls, which count as without words: b." in found.notes
    assert not any("other.jsonl" in note for note in found.notes)


def test_alternations_are_read_as_in_scoring(tmp_path: Path) -> None:
    """Several wordings of a reference, and no word at all; the same counts as ``score`` gives."""
    lines = {
        "answers": "one two (a_1)\nthree @ (b_1)\nyes } (c_1)\n",
        "other": "one two (a_1)\nthree (b_1)\nyes (c_1)\n",
        "references": "{ uh / @ } one { two / too } (a_1)\nthree @ (b_1)\nyes { sir / @ } (c_1)\n",
    }
    files = {name: tmp_path / f"{name}.trn" for name in lines}
    for name, text in lines.items():
        files[name].write_text(text, encoding="utf-8")
    counts = score_files(files["references"], {"x": files["answers"]}).systems[0].counts
    assert live_wer_of_files(**files).labels_only.rate == counts.wer == pytest.approx(1 / 4)
    files["references"].write_text("{ one (a_1)\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"The reference 'a_1' in references\.trn cannot be read"):
        live_wer_of_files(**files)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    """Other calls, references of unknown calls, no labels, an option out of range."""
    calls = _calls(40, 10)
    files = _write(tmp_path, calls)
    (tmp_path / "fewer.csv").write_text("id,text\nc0001,one\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"do not answer the same calls: c0000, .* and 34 more"):
        live_wer_of_files(files["answers"], tmp_path / "fewer.csv", files["references"])
    (tmp_path / "unknown.csv").write_text("id,text\nelsewhere,one\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"references of calls that answers\.csv does not have: elsewhere"):
        live_wer_of_files(files["answers"], files["other"], tmp_path / "unknown.csv")
    (tmp_path / "wordless.csv").write_text('id,text\nc0001,""\n', encoding="utf-8")
    with pytest.raises(QualityError):
        live_wer_of_files(files["answers"], files["other"], tmp_path / "wordless.csv")
    with pytest.raises(ConfigError, match="confidence"):
        live_wer_of_files(**files, confidence=1.5)
