"""Layouts of public datasets, LibriSpeech and ESC-50, on small folders of real audio."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from grym.audio import decode
from grym.config import AudioLimits, DatasetSpec, Settings
from grym.corpus import Dataset, load_dataset
from grym.errors import ConfigError, GrymError, ManifestError

if TYPE_CHECKING:
    from pathlib import Path

SPEAKERS = """; some pipe-separated information
;ID  |SEX| SUBSET           |MINUTES| NAME
61   | M | test-clean       | 8.08  | Paul-Gabriel Wiener
121  | F | test-clean       | 8.13  | Nikolle Doolin
367  | F | test-other       | 8.02  | A Name | with a bar
x    | F | nothing
"""
ESC = "filename,fold,target,category,esc10,src_file,take\n"


def sound(path: Path) -> Path:
    """Write a short real clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(3200) / 20).astype(np.float32), 16_000)
    return path


def load(folder: Path, loader: Any, **options: str | int | bool) -> Dataset:
    """Load a folder with a loader."""
    spec = DatasetSpec(name="mine", loader=loader, path=folder, options=options)
    return load_dataset("mine", Settings(datasets={"mine": spec}))


def codes(dataset: Dataset) -> dict[str, str]:
    """Place and code of everything that was refused."""
    assert all(r.error.category == "manifest" and r.error.hint for r in dataset.rejected)
    assert len({r.key for r in dataset.rejected}) == len(dataset.rejected)
    return {r.key: r.error.code for r in dataset.rejected}


def chapter(folder: Path, words: dict[str, str], suffix: str = "flac") -> None:
    """Write the utterances of one chapter and its transcript."""
    for number in words:
        sound(folder / f"{folder.parent.name}-{folder.name}-{number}.{suffix}")
    lines = [f"{folder.parent.name}-{folder.name}-{number} {text}\n" for number, text in words.items()]
    (folder / f"{folder.parent.name}-{folder.name}.trans.txt").write_text("".join(lines))


@pytest.fixture
def libri(tmp_path: Path) -> Path:
    """A small LibriSpeech: two subsets, three speakers."""
    root = tmp_path / "LibriSpeech"
    chapter(root / "test-clean" / "121" / "127105", {"0000": "HE  TOLD IT", "0001": "NO"})
    chapter(root / "test-clean" / "61" / "70968", {"0000": "GIVE NOT"})
    chapter(root / "test-other" / "367" / "130732", {"0000": "LOBSTERS"}, "wav")
    (root / "SPEAKERS.TXT").write_text(SPEAKERS)
    return root


def test_librispeech_has_speakers_texts_and_slices(libri: Path) -> None:
    """Every utterance has its words and speaker; gender and subset come from SPEAKERS.TXT."""
    dataset = load(libri, "librispeech")
    assert [(e.key, e.text, e.speaker, dict(e.slices)) for e in dataset.entries] == [
        ("61-70968-0000", "GIVE NOT", "61", {"subset": "test-clean", "gender": "male"}),
        ("121-127105-0000", "HE TOLD IT", "121", {"subset": "test-clean", "gender": "female"}),
        ("121-127105-0001", "NO", "121", {"subset": "test-clean", "gender": "female"}),
        ("367-130732-0000", "LOBSTERS", "367", {"subset": "test-other", "gender": "female"}),
    ]
    assert dataset.rejected == ()
    assert dataset.entries[0].relative == "test-clean/61/70968/61-70968-0000.flac"
    assert decode(dataset.entries[0].path, AudioLimits())[0].seconds == pytest.approx(0.2)


def test_librispeech_subsets_can_be_chosen(libri: Path) -> None:
    """By option, or by naming the subset's folder: the speakers' table is then found one folder above."""
    some = load(libri, "librispeech", subset="test-other")
    assert [e.key for e in some.entries] == ["367-130732-0000"]
    assert len(load(libri, "librispeech", subset="test-other, test-clean").entries) == 4
    named = load(libri / "test-clean", "librispeech")
    assert [e.slices["gender"] for e in named.entries] == ["male", "female", "female"]
    assert named.root == libri.resolve()
    (libri / "SPEAKERS.TXT").unlink()
    assert [dict(e.slices) for e in load(libri / "test-other", "librispeech").entries] == [{}]
    for wrong in ("dev-clean", "../LibriSpeech", ".."):
        with pytest.raises(ConfigError, match="no subset") as caught:
            load(libri, "librispeech", subset=wrong)
        assert "test-clean, test-other" in str(caught.value)


def test_librispeech_names_what_it_cannot_use(libri: Path, tmp_path: Path) -> None:
    """Lines without words or file, files without line, doubles, links that lead out: each by itself."""
    clean = libri / "test-clean"
    far = tmp_path / "far" / "9" / "9"
    chapter(far, {"0000": "SECRET"})
    transcript = clean / "61" / "70968" / "61-70968.trans.txt"
    lines = ["61-70968-0002 LOST", "61-70968-0000 AGAIN", "", "61-70968-0003", "61-70968-0004 OUT"]
    transcript.write_text(transcript.read_text() + "\n".join(lines))
    sound(transcript.with_name("61-70968-0003.flac"))
    sound(transcript.with_name("61-70968-0009.flac"))
    transcript.with_name("61-70968-0004.flac").symlink_to(far / "9-9-0000.flac")
    (clean / "9").symlink_to(far.parent)
    (clean / "10").symlink_to(clean / "61")
    (clean / "61" / "71000").mkdir()
    (clean / "61" / "71000" / "61-71000.trans.txt").write_bytes(b"61-71000-0000 \xff\n")
    dataset = load(libri, "librispeech", subset="test-clean")
    assert len(dataset.entries) == 3
    place = "test-clean/61/70968/61-70968"
    assert codes(dataset) == {
        f"{place}.trans.txt:2": "missing-file",
        f"{place}.trans.txt:3": "duplicate-id",
        f"{place}.trans.txt:5": "missing-text",
        f"{place}.trans.txt:6": "outside-dataset",
        f"{place}-0009.flac": "missing-text",
        "test-clean/61/71000": "not-utf8",
        "test-clean/9": "outside-dataset",
    }


def test_a_chapter_without_transcript_is_named(libri: Path) -> None:
    """Audio without any transcript is refused file by file."""
    bare = sound(libri / "test-clean" / "61" / "80000" / "61-80000-0000.flac")
    assert codes(load(libri, "librispeech")) == {bare.relative_to(libri).as_posix(): "missing-text"}


@pytest.mark.parametrize("place", ["test-clean/61", "test-clean/61/70968"])
def test_a_folder_without_permission_is_named(libri: Path, place: str) -> None:
    """A speaker or chapter that may not be read is not silently left out."""
    (libri / place).chmod(0)
    try:
        if os.access(libri / place, os.R_OK):
            pytest.skip("this user may read every folder (root)")
        assert codes(load(libri, "librispeech")) == {place: "unreadable"}
    finally:
        (libri / place).chmod(0o755)


@pytest.mark.parametrize("loader", ["librispeech", "esc50"])
def test_a_layout_that_is_not_there_says_where_to_get_it(tmp_path: Path, loader: str) -> None:
    """The hint names the public source; no machine's folders are in the message."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "gone", loader)
    assert caught.value.code == "no-dataset"
    assert "https://" in caught.value.hint
    assert str(tmp_path) not in str(caught.value)


def test_librispeech_without_utterances_is_an_error(tmp_path: Path) -> None:
    """A folder of something else is one sentence."""
    with pytest.raises(ManifestError) as caught:
        load(tmp_path, "librispeech")
    assert caught.value.code == "no-entries"


def esc(folder: Path, rows: str, audio: tuple[str, ...] = ()) -> Path:
    """Write an ESC-50 of these rows; their files are made unless they are named otherwise."""
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "esc50.csv").write_text(ESC + rows)
    for name in audio or [line.split(",")[0] for line in rows.splitlines() if line]:
        sound(folder / "audio" / name)
    return folder


def test_esc50_labels_are_texts_and_slices(tmp_path: Path) -> None:
    """A clip's text is its label in words; label, fold and group are slices, nobody speaks."""
    rows = "1-100032-A-0.wav,1,0,dog,True,100032,A\n5-9-B-12.wav,5,12,crackling_fire,True,9,B\n"
    rows += "2-1-A-49.wav,2,49,hand_saw,False,1,A\n"
    folder = esc(tmp_path, rows)
    every = load(folder, "esc50")
    assert [(e.key, e.text, e.speaker, dict(e.slices)) for e in every.entries] == [
        ("1-100032-A-0", "dog", "", {"label": "dog", "fold": "1", "group": "animals"}),
        ("5-9-B-12", "crackling fire", "", {"label": "crackling_fire", "fold": "5", "group": "nature"}),
        ("2-1-A-49", "hand saw", "", {"label": "hand_saw", "fold": "2", "group": "urban"}),
    ]
    assert [e.key for e in load(folder, "esc50", fold="1, 2").entries] == ["1-100032-A-0", "2-1-A-49"]
    assert [e.key for e in load(folder, "esc50", fold=5).entries] == ["5-9-B-12"]
    assert len(load(folder, "esc50", esc10=True).entries) == 2
    assert every.rejected == ()


def test_esc50_names_what_it_cannot_use(tmp_path: Path) -> None:
    """Missing and foreign files, rows without label, with wrong numbers, too short or named twice."""
    sound(tmp_path / "far.wav")
    rows = "a.wav,1,0,dog,True,1,A\nb.wav,1,0,dog,True,1,A\n../../far.wav,1,0,dog,True,1,A\na.wav,2,0,dog,True,1,A\n"
    rows += "c.wav,1,0,,True,1,A\nc.wav,x,0,dog,True,1,A\nc.wav\n,1,0,dog,True,1,A\nlink.wav,1,0,dog,True,1,A\n"
    folder = esc(tmp_path / "esc", rows, ("a.wav", "c.wav"))
    (folder / "audio" / "link.wav").symlink_to(tmp_path / "far.wav")
    dataset = load(folder, "esc50")
    assert [e.key for e in dataset.entries] == ["a"]
    assert list(codes(dataset).values()) == [
        "missing-file",
        "outside-dataset",
        "duplicate-id",
        "missing-text",
        "bad-number",
        "missing-text",
        "missing-path",
        "outside-dataset",
    ]
    assert dataset.rejected[0].key == "meta/esc50.csv:3"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"fold": "a"}, "bad-option"),
        ({"fold": True}, "bad-option"),
        ({"esc10": "yes"}, "bad-option"),
        ({"folds": 1}, "bad-option"),
        ({"fold": 4}, "no-entries"),
    ],
)
def test_esc50_options_are_checked(tmp_path: Path, options: dict[str, Any], code: str) -> None:
    """A fold that is no number is a wrong option; one without clips leaves nothing."""
    folder = esc(tmp_path, "a.wav,1,0,dog,True,1,A\n")
    with pytest.raises(GrymError) as caught:
        load(folder, "esc50", **options)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "code"), [("a,b\n1,2\n", "missing-column"), (f'{ESC}"{"x" * 140_000}', "broken-line")]
)
def test_an_esc50_table_of_no_use_is_an_error(tmp_path: Path, text: str, code: str) -> None:
    """Without its columns, or broken, the table says so and does not crash."""
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text(text)
    with pytest.raises(ManifestError) as caught:
        load(tmp_path, "esc50")
    assert caught.value.code == code
