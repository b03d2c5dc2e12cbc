"""What a stranger may put into a dataset, a model folder or a setting: refused by a typed error, and never run."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from grym.audio import decode
from grym.config import AudioLimits, load_settings
from grym.corpus.loaders import load_dataset
from grym.corpus.recorded import kept
from grym.errors import AudioError, ConfigError, GrymError
from grym.models.gama import convert_process
from grym.models.gama.reading import weight_files
from grym.models.registry import PICKLED
from grym.models.wav2vec2 import checkpoint_folder
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

RATE = 16_000
TONE = (0.3 * np.sin(np.arange(RATE) / 5)).astype(np.float32)


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """What an attacker would have run."""
        return os.mkdir, (str(self.mark),)


def _wav(frames: bytes, claimed: int) -> bytes:
    """A WAV file of one channel and 16 bits whose header claims so many bytes of samples."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    riff = struct.pack("<4sI4s", b"RIFF", min(36 + claimed, 2**32 - 1), b"WAVE")
    return riff + form + struct.pack("<4sI", b"data", claimed) + frames


def _flac(frames: int) -> bytes:
    """A FLAC file of some bytes whose header claims so many samples."""
    stream = io.BytesIO()
    soundfile.write(stream, TONE[:200], RATE, format="FLAC")
    raw = bytearray(stream.getvalue())
    field = int.from_bytes(raw[18:26], "big") >> 36 << 36 | frames
    raw[18:26] = field.to_bytes(8, "big")
    return bytes(raw)


def _au(frames: bytes, claimed: int) -> bytes:
    return struct.pack(">4sIIIII", b".snd", 24, claimed, 3, RATE, 1) + frames


TEN_HOURS = 10 * 3600 * RATE
SMALL = TONE[:400].astype("<f4").tobytes()[:900]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("wav", _wav(SMALL, 2 * TEN_HOURS)),
        ("wav, all it can say", _wav(SMALL, 2**32 - 1)),
        ("flac", _flac(TEN_HOURS)),
        ("flac, all it can say", _flac(2**36 - 1)),
        ("au", _au(SMALL, 2 * TEN_HOURS)),
    ],
)
def test_a_header_that_claims_ten_hours_costs_nothing(name: str, data: bytes, tmp_path: Path) -> None:
    """A file of a kilobyte is refused, or gives the few samples that it holds, in a few megabytes of memory."""
    assert len(data) < 10_000
    file = tmp_path / "clip"
    file.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    samples, code = 0, ""
    try:
        samples = decode(file, AudioLimits(min_seconds=0.001))[0].samples.size
    except AudioError as error:
        code = error.code
    assert samples < RATE, name
    assert bool(samples) is (code not in {"too-long", "not-audio", "no-samples"}), name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_hours_of_silence_in_some_kilobytes_stop_at_the_limit(tmp_path: Path) -> None:
    """A file that unpacks to a thousand times its size is refused by its header or as soon as the limit is passed."""
    file = tmp_path / "bomb.flac"
    with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16", format="FLAC") as stream:
        for _ in range(600):
            stream.write(np.zeros(RATE, np.int16))
    assert file.stat().st_size < 600 * RATE * 2 / 100
    for length in (600 * RATE, 0):  # as it is, and with a length that the header does not know
        raw = bytearray(file.read_bytes())
        raw[18:26] = (int.from_bytes(raw[18:26], "big") >> 36 << 36 | length).to_bytes(8, "big")
        file.write_bytes(raw)
        with pytest.raises(AudioError) as caught:
            decode(file, AudioLimits(max_seconds=30.0))
        assert caught.value.code == "too-long"


@pytest.mark.parametrize("suffix", sorted(PICKLED))
def test_pickled_weights_are_refused_unread(suffix: str, tmp_path: Path) -> None:
    """Whatever the ending, in a folder or as the path itself: a typed error says so, and the code is not run."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"]}')
    file = folder / f"pytorch_model{suffix}"
    file.write_bytes(pickle.dumps(Payload(tmp_path / "mark")))
    for refuse in (lambda: checkpoint_folder(str(folder)), lambda: weight_files(folder)):
        with pytest.raises(ConfigError) as caught:
            refuse()
        assert caught.value.code == "no-weights"
        assert "Its weights are pickled" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        checkpoint_folder(str(file))
    assert caught.value.code == "no-model-folder"
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["clip.wav", "clip.npy", "clip.npz"])
def test_pickled_arrays_are_no_audio(name: str, tmp_path: Path) -> None:
    """An array of objects as audio is not audio; nothing of it is run."""
    array = np.array([Payload(tmp_path / "mark")], dtype=object)
    file = tmp_path / name
    with file.open("wb") as stream:
        np.savez(stream, samples=array) if name.endswith("z") else np.save(stream, array, allow_pickle=True)
    with pytest.raises(AudioError) as caught:
        decode(file, AudioLimits())
    assert caught.value.code == "not-audio"
    assert not (tmp_path / "mark").exists()


def test_kept_takes_that_hold_objects_are_made_anew(tmp_path: Path) -> None:
    """The folder of spoken takes may be damaged or changed: what cannot be read as numbers is spoken again."""
    made: list[Any] = []
    for data in (None, b"no archive"):
        file = tmp_path / "voices.npz"
        if data is None:
            with file.open("wb") as stream:
                np.savez(stream, samples=np.array([Payload(tmp_path / "mark")], dtype=object), sizes=np.array([1]))
        else:
            file.write_bytes(data)
        assert kept(tmp_path, "voices", lambda: made) == []
        assert kept(tmp_path, "voices", lambda: pytest.fail("it was kept")) == []
    assert not (tmp_path / "mark").exists()


NAMES = ["../../x", "a/b", "a\\b", "-rf", ".hidden", "", "a\x00b", "a\nb", "x" * 101]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("table", ["models", "routes", "datasets"])
def test_names_that_lead_elsewhere_are_refused(table: str, name: str, tmp_path: Path) -> None:
    """Names become folders, options and rows: none with a separator, a leading dash or dot, or a control character."""
    keys = {"models": 'adapter = "fake"', "routes": 'primary = "x"', "datasets": 'loader = "folder"\npath = "x"'}
    quoted = "".join(f"\\u{ord(letter):04x}" for letter in name)
    file = tmp_path / "grym.toml"
    file.write_text(f'[{table}."{quoted}"]\n{keys[table]}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="should be a name") as caught:
        load_settings(file)
    assert caught.value.code == "bad-config"


def test_names_that_people_use_are_accepted(tmp_path: Path) -> None:
    """Dots, dashes, blanks and letters of any script inside a name do no harm."""
    names = ["wav2vec2-mini", "v1.2", "my model", "größe", "a_b"]
    file = tmp_path / "grym.toml"
    file.write_text("".join(f'[models."{name}"]\nadapter = "fake"\n' for name in names), encoding="utf-8")
    assert list(load_settings(file).models) == names


def test_file_names_that_look_like_options_are_only_names(tmp_path: Path) -> None:
    """Files that begin with a dash are decoded like all others: no program is handed their names."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("-rf", "--help", "-e sh"):
        soundfile.write(folder / f"{name}.wav", TONE, RATE)
        (folder / f"{name}.txt").write_text("one two")
    (tmp_path / "grym.toml").write_text("")
    found = load_dataset(str(folder), load_settings(tmp_path / "grym.toml"))
    assert sorted(entry.relative for entry in found.entries) == ["--help.wav", "-e sh.wav", "-rf.wav"]
    assert all(decode(entry.path, AudioLimits())[1].seconds == 1.0 for entry in found.entries)


def test_paths_that_look_like_options_reach_other_programs_as_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converter's process gets absolute paths and options with their values attached."""
    seen: list[list[str]] = []

    def ask(_module: str, arguments: list[str]) -> dict[str, object]:
        seen.append(list(arguments))
        return {}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(convert_process, "ask", ask)
    convert_process.run_conversion(Path("-x.bin"), Path("--llama"), Path("-o"), stage="--help")
    assert seen == [[str(tmp_path / "-x.bin"), str(tmp_path / "--llama"), str(tmp_path / "-o"), "--stage=--help"]]


@pytest.mark.parametrize(
    ("verb", "parameters", "code"),
    [
        ("compare", {"dataset": "--help"}, "unknown-dataset"),
        ("train", {"name": "../../../tmp/x"}, "bad-name"),
        ("experiment", {"name": "../../grym"}, "unknown-experiment"),
    ],
)
def test_parameters_of_a_flow_lead_nowhere(verb: str, parameters: dict[str, str], code: str) -> None:
    """What arrives from the Prefect page or its API is looked up, never joined to a path."""
    from importlib import import_module

    function = getattr(import_module(f"flows.{verb}"), verb).fn
    with pytest.raises(GrymError) as caught:
        function(**parameters)
    assert caught.value.code == code


@pytest.mark.parametrize("name", NAMES)
def test_names_of_parameters_are_looked_up(name: str) -> None:
    """A model, a route or a dataset that grym.toml does not name is unknown, whatever its name looks like."""
    settings = load_settings(ROOT / "grym.toml")
    for pick in (settings.model, settings.route, settings.dataset):
        with pytest.raises(ConfigError, match="Unknown"):
            pick(name)


def test_the_command_line_takes_no_value_for_an_option() -> None:
    """A dataset named like an option is a dataset that does not exist: one sentence, exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "flows", "compare", "--dataset=--help"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "--help" in done.stderr
