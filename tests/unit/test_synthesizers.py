"""Further synthesizers for training data: found where installed, silent where they fail, kept once spoken."""

from __future__ import annotations

import shutil
import stat
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from grym.corpus import recorded, synthesizers
from grym.corpus.bank import Take
from grym.corpus.digits import RATE, WORDS
from grym.corpus.synthesizers import SPELLINGS, Manner, RecordedVoice, installed, speak

if TYPE_CHECKING:
    from pathlib import Path

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
# A program that writes one second of 16 kHz sine to the file that its options name; Flite's and the others' calls.
PROGRAM = """#!{python}
import sys, wave, math, struct
out = sys.argv[-1] if "-w" not in sys.argv else sys.argv[sys.argv.index("-w") + 1]
with wave.open(out, "wb") as file:
    file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
    file.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(i / 8))) for i in range(16000)))
"""


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins of the programs that may not be on this machine; nothing else is on the path."""
    import sys

    for name in ("flite", "text2wave", "RHVoice-test", "pico2wave"):
        program = tmp_path / name
        program.write_text(PROGRAM.format(python=sys.executable), encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_every_spelling_has_ten_words() -> None:
    """A missing word would shift all digits after it."""
    assert {language: len(text.split()) for language, text in SPELLINGS.items()} == dict.fromkeys(SPELLINGS, 10)
    voice = RecordedVoice("mbrola", "de1", "de")
    assert voice.text([3, 3], " ") == " ".join([SPELLINGS["de"].split()[3]] * 2)
    assert RecordedVoice("flite", "slt").text([0, 9], ", ") == "zero, nine"


def test_only_what_is_installed_speaks(engines: Path) -> None:
    """Programs on the path count, with all their voices; without any there is no voice."""
    found = installed()
    assert {voice.engine for voice in found} == {"flite", "festival", "rhvoice", "pico"}
    assert len(found) == len({voice.name for voice in found})
    for program in engines.iterdir():
        program.unlink()
    assert installed() == []


@pytest.mark.parametrize("engine", ["flite", "festival", "rhvoice", "pico"])
def test_an_engine_is_asked_and_its_file_is_read(engines: Path, engine: str) -> None:
    """The answer is float32 at 16 kHz; a program that fails gives nothing instead of an error."""
    voice = next(voice for voice in installed() if voice.engine == engine)
    said = speak(voice, "one", Manner(1.2, 0.9))
    assert said is not None
    assert (said.dtype, said.ndim) == (np.float32, 1)
    assert said.size == pytest.approx(RATE, rel=0.05)
    for program in engines.iterdir():
        program.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    assert speak(voice, "one", Manner()) is None


@needs_espeak
def test_a_foreign_voice_speaks_its_spelling() -> None:
    """A rate of 1.3 makes the same words shorter; a voice that does not exist says nothing."""
    voice = RecordedVoice("espeak", "it+f2", "it")
    slow, fast = (speak(voice, voice.text([7, 8, 9], " "), Manner(rate)) for rate in (0.9, 1.3))
    assert slow is not None
    assert fast is not None
    assert fast.size < 0.85 * slow.size
    assert speak(RecordedVoice("mbrola", "no-such-voice"), "one", Manner()) is None


@needs_espeak
def test_takes_follow_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every voice says every digit and some strings; the same seed says the same."""
    voices = [RecordedVoice("espeak", "es+m3", "es")]
    monkeypatch.setattr(recorded, "installed", lambda: voices)
    monkeypatch.setattr(recorded, "PLAN", {"espeak": (1, 2)})
    one, two = recorded.recorded_takes(3), recorded.recorded_takes(3)
    assert [take.words for take in one][:10] == [(word,) for word in WORDS]
    assert [len(take.words) for take in one][10:] == [2, 3]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(one, two, strict=True))
    assert {take.speaker for take in one} == {"espeak-es+m3"}
    other = recorded.recorded_takes(4)
    assert not all(np.array_equal(a.samples, b.samples) for a, b in zip(one, other, strict=True))


def test_spoken_takes_are_kept_and_read_back(tmp_path: Path) -> None:
    """The second time nothing is spoken; without a folder nothing is kept; no takes are takes too."""
    made = [Take(np.arange(n, dtype=np.int16), ("one",) * n, f"s{n}") for n in (1, 3, 2)]
    calls: list[int] = []

    def make() -> list[Take]:
        calls.append(1)
        return made

    for _ in range(2):
        found = recorded.kept(tmp_path / "voices", "x", make)
        assert [(t.words, t.speaker, t.samples.tolist()) for t in found] == [
            (t.words, t.speaker, t.samples.tolist()) for t in made
        ]
    assert len(calls) == 1
    recorded.kept(None, "x", make)
    assert len(calls) == 2
    assert [recorded.kept(tmp_path, "none", list) for _ in range(2)] == [[], []]
    assert [path.name for path in (tmp_path / "voices").iterdir()] == ["x.npz"]


def test_the_fingerprint_changes_with_the_voices() -> None:
    """Other voices, or another spelling, are other data."""
    one = [RecordedVoice("espeak", "de+m3", "de")]
    other = [RecordedVoice("espeak", "de+m3", "nl")]
    assert recorded.voices_sha256(one) != recorded.voices_sha256(other)
    assert recorded.voices_sha256(one) != recorded.voices_sha256([])
    assert synthesizers.installed() == synthesizers.installed()


def test_silence_is_no_speech(engines: Path, tmp_path: Path) -> None:
    """An engine that writes zeros has said nothing."""
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(16000), 16000)
    (engines / "flite").write_text(f'#!/bin/sh\nfor last; do :; done\n/bin/cp "{silent}" "$last"\n', encoding="utf-8")
    assert speak(RecordedVoice("flite", "slt"), "one", Manner()) is None
