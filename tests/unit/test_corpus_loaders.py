"""Datasets by name and path: every kind of manifest, folder and refusal, on real files."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from grym.audio import decode
from grym.config import DatasetSpec, Settings, load_settings
from grym.corpus import Dataset, load_dataset, read_manifest
from grym.errors import ConfigError, GrymError, ManifestError

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(
    datasets={"spoken": DatasetSpec(name="spoken", loader="manifest", path=Path("absent") / "manifest.csv")}
)


def sound(path: Path, seconds: float = 0.2) -> Path:
    """Write a short real clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.sin(np.arange(round(16_000 * seconds)) / 20).astype(np.float32)
    soundfile.write(path, wave, 16_000)
    return path


def manifest(folder: Path, text: str, name: str = "clips.csv") -> Path:
    """Write a manifest as it stands."""
    path = folder / name
    path.write_bytes(text.encode())
    return path


def codes(dataset: Dataset) -> dict[str, str]:
    """Place and code of everything that was refused."""
    assert all(r.error.category == "manifest" and r.error.hint for r in dataset.rejected)
    assert len({r.key for r in dataset.rejected}) == len(dataset.rejected)
    return {r.key: r.error.code for r in dataset.rejected}


def refusal(what: str, settings: Settings, kind: type[GrymError]) -> GrymError:
    """The error that loading raises, which says what to do next."""
    with pytest.raises(kind) as caught:
        load_dataset(what, settings)
    assert caught.value.hint
    return caught.value


def test_a_json_lines_manifest_with_the_keys_of_nemo(tmp_path):
    """Every key has its meaning, unknown ones become slices, and nothing is a slice without a value."""
    sound(tmp_path / "audio" / "a.wav")
    row = {
        "audio_filepath": "audio/a.wav",
        "duration": 0.1,
        "text": " Ja, zwölf. ",
        "offset": 0.05,
        "id": 7,
        "speaker_id": "anna",
        "snr": 10,
        "noisy": True,
        "note": None,
    }
    path = manifest(tmp_path, json.dumps(row) + "\n\n", "clips.jsonl")
    dataset = load_dataset(str(path), SETTINGS)
    (entry,) = dataset.entries
    assert (entry.key, entry.text, entry.speaker, entry.offset, entry.duration) == (
        "7",
        "Ja, zwölf.",
        "anna",
        0.05,
        0.1,
    )
    assert entry.path == (tmp_path / "audio" / "a.wav").resolve()
    assert entry.path.is_absolute()
    assert entry.relative == "audio/a.wav"
    assert dict(entry.slices) == {"snr": "10", "noisy": "true"}
    assert dataset.name == f"{tmp_path.name}/clips.jsonl"
    assert dataset.root == tmp_path.resolve()
    assert dataset.rejected == ()


@pytest.mark.parametrize("audio", ["audio_filepath", "path", "file", "file_name", "Path"])
@pytest.mark.parametrize("text", ["text", "transcript", "transcription", "sentence", "Sentence"])
def test_a_csv_manifest_accepts_the_names_of_other_tools(tmp_path, audio, text):
    """Aliases in any case, a byte order mark, a quoted comma and line ends of Windows are understood."""
    path = manifest(tmp_path, f'\ufeff{audio},{text},speaker,accent\r\na.wav,"one, two",anna,scots\r\n')
    (entry,) = load_dataset(str(path), SETTINGS).entries
    assert (entry.key, entry.text, entry.speaker, dict(entry.slices)) == (
        "a.wav",
        "one, two",
        "anna",
        {"accent": "scots"},
    )


def test_order_is_that_of_the_manifest_and_segments_have_names(tmp_path):
    """Rows keep their order; two segments of one recording without ids are two clips."""
    path = manifest(tmp_path, "file,text,offset,duration\nz.wav,one,0,1.5\nz.wav,two,1.5,2\na.wav,three,,\n")
    entries = load_dataset(str(path), SETTINGS).entries
    assert [entry.key for entry in entries] == ["z.wav", "z.wav@1.5", "a.wav"]
    assert [(entry.offset, entry.duration) for entry in entries] == [(0.0, 1.5), (1.5, 2.0), (0.0, None)]


def test_bad_rows_of_a_csv_are_refused_and_the_others_are_kept(tmp_path):
    """Each broken row has a place and a code; a quote that is never closed costs one line."""
    lines = [
        "id,audio_filepath,text,duration,offset",
        "good,a.wav,one,1.0,0",
        "few,a.wav",
        "many,a.wav,one,1,0,extra",
        "no-path,,one,1,0",
        "no-text,a.wav,  ,1,0",
        "good,b.wav,two,1,0",
        "word,a.wav,one,long,0",
        "negative,a.wav,one,-1,0",
        "infinite,a.wav,one,inf,0",
        "before,a.wav,one,1,-0.5",
        'open,"a.wav,one,1,0',
        'inside,"a"x.wav,one,1,0',
        "",
        'two lines,c.wav,"one\ntwo",1,0',
        "last,d.wav,nine,1,0",
    ]
    dataset = load_dataset(str(manifest(tmp_path, "\n".join(lines))), SETTINGS)
    assert [(e.key, e.text) for e in dataset.entries] == [("good", "one"), ("two lines", "one\ntwo"), ("last", "nine")]
    assert codes(dataset) == {
        "clips.csv:3": "broken-line",
        "clips.csv:4": "broken-line",
        "clips.csv:5": "missing-path",
        "clips.csv:6": "missing-text",
        "clips.csv:7": "duplicate-id",
        "clips.csv:8": "bad-number",
        "clips.csv:9": "bad-number",
        "clips.csv:10": "bad-number",
        "clips.csv:11": "bad-number",
        "clips.csv:12": "broken-line",
        "clips.csv:13": "broken-line",
    }
    assert "line 2 already" in next(r for r in dataset.rejected if r.error.code == "duplicate-id").error.message


def test_bad_rows_of_json_lines_are_refused_and_the_others_are_kept(tmp_path):
    """What is no JSON, no object, no text or no number is refused where it stands."""
    lines = [
        '{"audio_filepath": "a.wav", "text": "one"}',
        '{"audio_filepath": "b.wav", "text": "one"',
        '["b.wav", "one"]',
        '{"text": "one"}',
        '{"audio_filepath": "b.wav"}',
        '{"audio_filepath": "b.wav", "text": {"de": "eins"}}',
        '{"audio_filepath": ["l.wav", "r.wav"], "text": "one"}',
        '{"audio_filepath": "b.wav", "text": "one", "duration": true}',
        '{"audio_filepath": "b.wav", "text": "one", "duration": NaN}',
        '{"audio_filepath": "b.wav", "text": "\\ud800"}',
        '{"audio_filepath": "b\\u0000.wav", "text": "one"}',
        "[" * 100_000,
        '{"audio_filepath": "c.wav", "text": "one\u2028two", "id": "c"}',
    ]
    dataset = load_dataset(str(manifest(tmp_path, "\n".join(lines), "clips.jsonl")), SETTINGS)
    assert [entry.key for entry in dataset.entries] == ["a.wav", "c"]
    assert list(codes(dataset).values()) == [
        "broken-line",
        "broken-line",
        "missing-path",
        "missing-text",
        "broken-line",
        "broken-line",
        "broken-line",
        "bad-number",
        "broken-line",
        "missing-path",
        "broken-line",
    ]


def test_paths_that_leave_the_folder_are_refused(tmp_path):
    """Dots, absolute paths and links that lead out are refused; those that stay inside are kept."""
    inside, outside = tmp_path / "data", sound(tmp_path / "secret.wav")
    sound(inside / "a.wav")
    (inside / "link.wav").symlink_to(outside)
    (inside / "folder").symlink_to(tmp_path)
    (inside / "alias.wav").symlink_to(inside / "a.wav")
    rows = [
        "../secret.wav",
        str(outside),
        "link.wav",
        "folder/secret.wav",
        "x/../../secret.wav",
        ".",
        str(inside / "a.wav"),
        "x/../b.wav",
    ]
    table = "file,text\n" + "".join(f"{row},one\n" for row in rows)
    dataset = load_dataset(str(manifest(inside, table)), SETTINGS)
    assert [entry.relative for entry in dataset.entries] == ["a.wav", "b.wav"]
    assert list(codes(dataset).values()) == ["outside-dataset"] * 6
    assert not any(str(tmp_path) in rejected.error.message for rejected in dataset.rejected)


def test_a_missing_audio_file_is_an_entry_that_fails_when_decoded(tmp_path):
    """The loader does not look into files: the absence is found, and stored, with the other faults of audio."""
    path = manifest(tmp_path, "file,text\nabsent.wav,one\n")
    (entry,) = load_dataset(str(path), SETTINGS).entries
    with pytest.raises(GrymError) as caught:
        decode(entry.path, SETTINGS.audio)
    assert caught.value.code == "missing-file"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "empty-manifest"),
        (b"\xef\xbb\xbf \n", "empty-manifest"),
        ("file,text\na.wav,zw\xf6lf\n".encode("latin-1"), "not-utf8"),
        ("file,text\na.wav,one\n".encode("utf-16"), "not-utf8"),
        (b"file,speaker\na.wav,anna\n", "missing-column"),
        (b"name,text\na.wav,one\n", "missing-column"),
        (b'"file,text\na.wav,one\n', "missing-column"),
        (b"file,text,text\na.wav,one,two\n", "duplicate-column"),
        (b"\n\nfile,text\n", "no-entries"),
        (b"file,text\na.wav,\n", "no-entries"),
    ],
)
def test_a_manifest_that_is_of_no_use_is_one_clear_error(tmp_path, raw, code):
    """Wrong encoding, no column, no row: one sentence that names the file, and a hint."""
    (tmp_path / "clips.csv").write_bytes(raw)
    error = refusal(str(tmp_path / "clips.csv"), SETTINGS, ManifestError)
    assert error.code == code
    assert "clips.csv" in error.message
    assert str(tmp_path) not in str(error)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    """A vanished file and a file of another kind are errors of the manifest."""
    with pytest.raises(ManifestError, match="no such file") as caught:
        read_manifest(tmp_path / "gone.csv")
    assert caught.value.code == "unreadable"
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "clips.xml")
    assert caught.value.code == "unknown-format"


def test_a_folder_with_texts_beside_the_audio(tmp_path):
    """NAME.txt is the text, the sub-folder a slice; what has no text is refused, hidden files are not seen."""
    for name in (
        "b.wav",
        "a.flac",
        "women/c.ogg",
        "women/old/d.MP3",
        "e.wav",
        "f.wav",
        "g.wav",
        ".hidden.wav",
        ".h/x.wav",
    ):
        sound(tmp_path / name)
    for name in ("b", "a", "women/c", "women/old/d"):
        (tmp_path / f"{name}.txt").write_text(f"\ufeffspoken\n{name}\n")
    (tmp_path / "f.txt").write_text(" \n")
    (tmp_path / "g.txt").write_bytes(b"zw\xf6lf")
    (tmp_path / "notes.pdf").touch()
    dataset = load_dataset(str(tmp_path), SETTINGS)
    assert [e.key for e in dataset.entries] == ["a.flac", "b.wav", "women/c.ogg", "women/old/d.MP3"]
    assert [e.text for e in dataset.entries][1:3] == ["spoken b", "spoken women/c"]
    assert [dict(e.slices) for e in dataset.entries] == [{}, {}, {"folder": "women"}, {"folder": "women/old"}]
    assert codes(dataset) == {"e.wav": "missing-text", "f.wav": "missing-text", "g.wav": "not-utf8"}
    assert dataset.name == tmp_path.name


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_folder_with_metadata_as_audiofolder_has_it(tmp_path, name):
    """Metadata gives texts and slices; files it does not name fall back to the text beside them."""
    for audio in ("b.wav", "x/a.wav", "c.wav", "d.wav", "same.wav"):
        sound(tmp_path / audio)
    for text in ("c", "b", "same"):
        (tmp_path / f"{text}.txt").write_text("beside")
    rows = [
        {"file_name": "b.wav", "transcription": "one", "mood": "glad", "id": "b"},
        {"file_name": "x/a.wav", "transcription": "two", "mood": "", "id": "same.wav"},
        {"file_name": "d.wav", "transcription": "", "mood": "", "id": "d"},
    ]
    with (tmp_path / name).open("w", newline="") as stream:
        if name.endswith("csv"):
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    dataset = load_dataset(str(tmp_path), SETTINGS)
    assert [(e.key, e.text, dict(e.slices)) for e in dataset.entries] == [
        ("b", "one", {"mood": "glad"}),
        ("c.wav", "beside", {}),
        ("same.wav", "two", {"folder": "x"}),
    ]
    assert sorted(codes(dataset).values()) == ["duplicate-id", "missing-text"]


def test_a_folder_does_not_follow_links_that_lead_out(tmp_path):
    """Linked files, folders and texts from elsewhere are refused and named."""
    inside, outside = tmp_path / "data", sound(tmp_path / "far" / "secret.wav")
    outside.with_suffix(".txt").write_text("secret")
    sound(inside / "a.wav")
    (inside / "a.txt").write_text("one")
    (inside / "b.wav").symlink_to(outside)
    (inside / "b.txt").write_text("two")
    sound(inside / "c.wav")
    (inside / "c.txt").symlink_to(outside.with_suffix(".txt"))
    (inside / "far").symlink_to(outside.parent)
    (inside / "again").symlink_to(inside)
    dataset = load_dataset(str(inside), SETTINGS)
    assert [entry.key for entry in dataset.entries] == ["a.wav"]
    assert codes(dataset) == dict.fromkeys(("far", "b.wav", "c.wav"), "outside-dataset")


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path):
    """A name that no table can hold is refused and shown with its bytes written out."""
    sound(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("one")
    try:
        sound(tmp_path / "x.wav").rename(tmp_path / os.fsdecode(b"\xff.wav"))
    except OSError:
        pytest.skip("this file system stores UTF-8 names only")
    dataset = load_dataset(str(tmp_path), SETTINGS)
    assert codes(dataset) == {"\\udcff.wav": "bad-name"}


def test_a_sub_folder_that_cannot_be_read_is_named(tmp_path):
    """A sub-folder without permission is not silently left out."""
    sound(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("one")
    sound(tmp_path / "locked" / "b.wav")
    (tmp_path / "locked").chmod(0)
    try:
        if os.access(tmp_path / "locked", os.R_OK):
            pytest.skip("this user may read every folder (root)")
        assert codes(load_dataset(str(tmp_path), SETTINGS)) == {"locked": "unreadable"}
    finally:
        (tmp_path / "locked").chmod(0o755)


def test_a_folder_without_clips_says_what_it_wanted(tmp_path):
    """No usable file is one sentence, and a manifest that lies in the folder is pointed at."""
    assert refusal(str(tmp_path), SETTINGS, ManifestError).message.endswith("has no usable entry.")
    sound(tmp_path / "a.wav")
    assert "a.wav has no reference text" in refusal(str(tmp_path), SETTINGS, ManifestError).message
    (tmp_path / "manifest.csv").write_text("file,text\na.wav,one\n")
    error = refusal(str(tmp_path), SETTINGS, ManifestError)
    assert error.code == "no-entries"
    assert "manifest.csv" in error.hint


@pytest.mark.parametrize("what", ["nonsense", "", "no\0thing", "~nobody-of-that-name/x", "a" * 5000])
def test_neither_name_nor_path_names_what_there_is(what):
    """The error lists the registered names and says that a path is possible, too."""
    error = refusal(what, SETTINGS, ConfigError)
    assert error.code == "unknown-dataset"
    assert "spoken" in str(error)
    assert "path" in error.hint


def test_a_file_of_another_kind_is_no_dataset(tmp_path):
    """An audio file, for example, is told apart from a manifest."""
    error = refusal(str(sound(tmp_path / "a.wav")), SETTINGS, ConfigError)
    assert "no manifest" in error.message


@pytest.mark.parametrize(
    ("loader", "options", "code"),
    [
        ("manifest", {}, "no-dataset"),
        ("folder", {}, "no-dataset"),
        ("fsdd", {}, "no-dataset"),
        ("manifest", {"takes": "0-4"}, "bad-option"),
        ("fsdd", {"take": 1}, "bad-option"),
    ],
)
def test_a_registered_dataset_that_is_not_there_or_has_wrong_options(tmp_path, loader, options, code):
    """The message names the dataset and the hint the key of grym.toml, or GRYM_FSDD, to mend."""
    spec = DatasetSpec(name="mine", loader=loader, path=tmp_path / "gone.csv", options=options)
    error = refusal("mine", Settings(datasets={"mine": spec}), ConfigError)
    assert error.code == code
    assert "'mine'" in error.message
    assert "grym.toml" in error.hint or ("GRYM_FSDD" in error.hint and "github.com" in error.hint)
    assert str(tmp_path) not in str(error)


@pytest.mark.parametrize("unset", [True, False])
def test_an_unset_fsdd_is_looked_for_in_the_home(tmp_path, monkeypatch, unset):
    """Without GRYM_FSDD the shipped grym.toml reads HOME/datasets/fsdd, and says how to get it if it is not there."""
    monkeypatch.setenv("GRYM_HOME", str(tmp_path))
    monkeypatch.setenv("GRYM_FSDD", "")
    if unset:
        monkeypatch.delenv("GRYM_FSDD")
    settings = load_settings(ROOT / "grym.toml")
    error = refusal("fsdd", settings, ConfigError)
    assert "datasets fetch fsdd" in error.hint
    assert "set GRYM_FSDD" in error.hint
    assert "free-spoken-digit-dataset" in error.hint
    sound(tmp_path / "datasets" / "fsdd" / "recordings" / "3_zoe_0.wav")
    assert [entry.text for entry in load_dataset("fsdd", settings).entries] == ["three"]


def fsdd(folder: Path, **options: str | int) -> Settings:
    """Settings with one dataset of the loader ``fsdd``."""
    return Settings(datasets={"fsdd": DatasetSpec(name="fsdd", loader="fsdd", path=folder, options=options)})


def test_fsdd_takes_speakers_and_digits_come_from_file_names(tmp_path):
    """Any speaker is accepted, order is digit, speaker, take; stray files are refused, links that lead out, too."""
    names = ("7_zoe_10", "7_zoe_9", "0_mary_ann_0", "7_zoe_2", "0_bob_0", "x_bob_0", "readme", "12_bob_0")
    for name in names:
        sound(tmp_path / "fsdd" / "recordings" / f"{name}.wav")
    (tmp_path / "fsdd" / "recordings" / "1_eve_0.wav").symlink_to(sound(tmp_path / "far.wav"))
    every = load_dataset("fsdd", fsdd(tmp_path / "fsdd"))
    assert [e.key for e in every.entries] == ["0_bob_0", "0_mary_ann_0", "7_zoe_2", "7_zoe_9", "7_zoe_10"]
    entry = every.entries[1]
    assert (entry.text, entry.speaker, dict(entry.slices)) == ("zero", "mary_ann", {"digit": "0"})
    assert entry.relative == "recordings/0_mary_ann_0.wav"
    assert codes(every) == {
        "recordings/12_bob_0.wav": "bad-name",
        "recordings/1_eve_0.wav": "outside-dataset",
        "recordings/readme.wav": "bad-name",
        "recordings/x_bob_0.wav": "bad-name",
    }
    some = load_dataset("fsdd", fsdd(tmp_path / "fsdd", takes="0-2, 9"))
    assert [e.key for e in some.entries] == ["0_bob_0", "0_mary_ann_0", "7_zoe_2", "7_zoe_9"]
    assert [e.key for e in load_dataset("fsdd", fsdd(tmp_path / "fsdd", takes=10)).entries] == ["7_zoe_10"]


@pytest.mark.parametrize("takes", ["", "a", "4-0", "1-", "-3", "0-4;7"])
def test_takes_that_are_no_list_are_refused(tmp_path, takes):
    """A list of takes is numbers and ranges."""
    sound(tmp_path / "recordings" / "0_bob_0.wav")
    error = refusal("fsdd", fsdd(tmp_path, takes=takes), ConfigError)
    assert error.code == "bad-option"


def test_the_bundled_corpus_is_what_its_card_says():
    """Every row of both splits is usable, names a bundled file, and no voice is in both."""
    settings = load_settings(ROOT / "grym.toml")
    test, train = load_dataset("digits", settings), load_dataset("digits-train", settings)
    assert (test.name, len(test.entries), len(train.entries)) == ("digits", 448, 112)
    assert test.rejected == train.rejected == ()
    assert sum(len(entry.text.split()) for entry in test.entries) == 1792
    assert round(sum(entry.duration for entry in test.entries)) == 914
    assert all(entry.path.is_file() for entry in (*test.entries, *train.entries))
    assert set(test.entries[0].slices) == {"accent", "noise", "noise_kind", "length"}
    speakers = [{entry.speaker for entry in part.entries} for part in (test, train)]
    assert [len(names) for names in speakers] == [16, 16]
    variants = [{name.split("+")[1] for name in names} for names in speakers]
    assert not variants[0] & variants[1]
    for entry in test.entries[::50]:
        clip, measured = decode(entry.path, settings.audio, offset=entry.offset, duration=entry.duration)
        assert clip.id == decode(entry.path, settings.audio)[0].id
        assert measured.source_rate == 16_000
        assert clip.seconds == pytest.approx(entry.duration, abs=0.001)


@pytest.mark.skipif(not os.environ.get("GRYM_FSDD"), reason="GRYM_FSDD is not set: the real dataset is not here")
def test_the_real_fsdd_is_loaded():
    """Takes 0-4 of every digit and speaker of the real dataset are there and can be decoded."""
    settings = load_settings(ROOT / "grym.toml")
    dataset = load_dataset("fsdd", settings)
    speakers = {entry.speaker for entry in dataset.entries}
    assert len(dataset.entries) == 5 * 10 * len(speakers)
    assert dataset.rejected == ()
    assert {entry.slices["digit"] for entry in dataset.entries} == set("0123456789")
    clip, measured = decode(dataset.entries[0].path, settings.audio)
    assert measured.source_rate == 8000
    assert clip.rate == 16_000


def test_questions_of_a_manifest_are_a_field_and_no_slices(tmp_path):
    """Pairs come in the order of their numbers, half ones are left out, and a column without its partner is a slice."""
    manifest(
        tmp_path,
        "audio_filepath,text,question2,answer2,question10,answer10,question1,answer1,question,label\n"
        "a.wav,rain,Two?,b,Ten?,c,One?,a,alone,rain\nb.wav,wind,Two?,,,,One?,a,,wind\n",
    )
    first, second = read_manifest(tmp_path / "clips.csv").entries
    assert first.questions == (("One?", "a"), ("Two?", "b"), ("Ten?", "c"))
    assert first.slices == {"question": "alone", "label": "rain"}
    assert second.questions == (("One?", "a"),)
