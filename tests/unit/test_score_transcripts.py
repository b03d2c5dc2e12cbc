"""Transcripts are read as written, and what cannot be understood is said with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from grym.compare.transcripts import read_transcripts
from grym.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, name: str, text: str | bytes) -> Path:
    """A file with that content."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_trn_lines(tmp_path: Path) -> None:
    """Text, id in the last parentheses, speaker before the first - or _; comments, tags and blank lines are known."""
    text = ";; comment\r\nso (well) it; goes (anna-01_a)\r\n\n(bob_2)\na\\;b x;tag {c / d;t}(plain)\n"
    found = read_transcripts(write(tmp_path, "ref.trn", text))
    assert {key: (item.text.strip(), item.speaker) for key, item in found.utterances.items()} == {
        "anna-01_a": ("so (well) it goes", "anna"),
        "bob_2": ("", "bob"),
        "plain": ("a;b x {c / d}", ""),
    }
    assert (found.format, found.name) == ("trn", "ref.trn")


def test_the_speaker_can_be_named_otherwise(tmp_path: Path) -> None:
    """A regular expression takes it from the id, none forgets it, a broken one is refused."""
    path = write(tmp_path, "ref.txt", "a (4T0C0201)\nb (4T1C0202)\n")
    assert [u.speaker for u in read_transcripts(path, speaker="(.{3})").utterances.values()] == ["4T0", "4T1"]
    assert [u.speaker for u in read_transcripts(path, speaker="none").utterances.values()] == ["", ""]
    assert list(read_transcripts(path, ignore_case=True).utterances) == ["4t0c0201", "4t1c0202"]
    for rule in ("(", ".{3}"):
        with pytest.raises(ConfigError, match="speaker rule"):
            read_transcripts(path, speaker=rule)


def test_csv_and_tsv(tmp_path: Path) -> None:
    """Columns are found by name in any order; others are kept for slices; a quoted text may have commas."""
    path = write(tmp_path, "ref.csv", 'room,text,id,speaker\nhall,"one, two",u-1,anna\n,three,u-2,bob\n')
    found = read_transcripts(path).utterances
    assert (found["u-1"].text, found["u-1"].speaker, found["u-1"].columns["room"]) == ("one, two", "anna", "hall")
    assert "room" not in found["u-2"].columns
    assert [u.speaker for u in read_transcripts(path, speaker="(.)").utterances.values()] == ["u", "u"]
    tabs = read_transcripts(write(tmp_path, "a.tsv", "id\tpred_text\ttext\nx\tsaid\twanted\n"), answers=True)
    assert tabs.utterances["x"].text == "said"
    assert tabs.utterances["x"].speaker == ""


def test_json_lines(tmp_path: Path) -> None:
    """NeMo's manifests are understood: the file is the id, pred_text the answer, null is no answer."""
    lines = '{"audio_filepath": "a.wav", "text": "one", "pred_text": "won", "snr": 5}\n\n'
    path = write(tmp_path, "out.jsonl", lines + '{"audio_filepath": "b.wav", "text": "two", "pred_text": null}\n')
    answers = read_transcripts(path, answers=True)
    assert {key: item.text for key, item in answers.utterances.items()} == {"a.wav": "won"}
    assert answers.unanswered == ("b.wav",)
    references = read_transcripts(path)
    assert [item.text for item in references.utterances.values()] == ["one", "two"]
    assert references.utterances["a.wav"].columns["snr"] == "5"


@pytest.mark.parametrize(
    ("name", "content", "code", "says"),
    [
        ("a.trn", "one (x-1)\ntwo (x-1)\n", "duplicate-id", "line 1 and again in line 2"),
        ("a.trn", "one two\n", "no-id", "Line 1"),
        ("a.trn", "", "empty-manifest", "empty"),
        ("a.trn", b"\xff\xfe (x)", "not-utf8", "UTF-8"),
        ("a.csv", "id,text\na,b,c\n", "broken-line", "Line 2"),
        ("a.csv", "id,text\na\n", "broken-line", "Line 2"),
        ("a.csv", 'id,text\na,"b\n', "broken-line", "broken"),
        ("a.csv", "id,id,text\na,b,c\n", "duplicate-column", "twice"),
        ("a.csv", "name,text\na,b\n", "missing-column", "column for the id"),
        ("a.csv", "id,words\na,b\n", "missing-column", "column for the text"),
        ("a.csv", "id,text\n,b\n", "no-id", "has no id"),
        ("a.jsonl", "{broken\n", "broken-line", "not an object"),
        ("a.jsonl", "[1]\n", "broken-line", "not an object"),
        ("a.jsonl", '{"id": 1, "text": null}\n', "missing-text", "null"),
        ("a.jsonl", '{"id": 1, "text": 5}\n', "missing-text", "but 5"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, content: str | bytes, code: str, says: str) -> None:
    """A broken file stops the reading with its line and a hint."""
    with pytest.raises(ManifestError, match=says) as caught:
        read_transcripts(write(tmp_path, name, content))
    assert caught.value.code == code
    assert caught.value.hint


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """No traceback for a typing error in a path."""
    with pytest.raises(ManifestError, match="cannot be read"):
        read_transcripts(tmp_path / "none.trn")
