"""Decoding in limited children: what a file does to its decoder happens to that file alone."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
import soundfile

import grym
from grym.compare.plan import check_entries, refused_row
from grym.config import AudioLimits, WorkerLimits
from grym.corpus.manifest import Entry
from grym.errors import AudioError, WorkerError
from grym.worker import process
from grym.worker.decoder import Decoder, decode_here

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = AudioLimits()
# Starts a worker whose decoder does what a hostile file would make it do; the file's name says what.
HOSTILE = f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path(grym.__file__).parents[1])!r})
import numpy as np
import grym.audio
from grym.worker.child import main
decode = grym.audio.decode
def attacked(path, limits, **span):
    name = path.name
    if name.startswith("killer"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("hang"):
        time.sleep(600)
    if name.startswith("bomb"):
        np.ones(2_000_000_000, np.uint8)
    if name.startswith("babble"):
        os.write(4, b"\\xff" * 100)
        time.sleep(600)
    return decode(path, limits, **span)
grym.audio.decode = attacked
sys.exit(main())
"""


@dataclass(frozen=True)
class File:
    """What a decoder is asked for."""

    path: Path
    offset: float = 0.0
    duration: float | None = None


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that some files do harm to."""
    script = tmp_path / "hostile.py"
    script.write_text(HOSTILE)
    monkeypatch.setattr(process, "ENTRY", str(script))


@pytest.fixture
def decoder(tmp_path: Path) -> Iterator[Decoder]:
    """A decoder with one child."""
    limits = WorkerLimits(decode_seconds=3, decode_memory_mb=500)
    with Decoder(limits, tmp_path / "scratch", children=1) as made:
        yield made


def write(folder: Path, name: str, seconds: float = 0.5) -> Path:
    """A file of seeded noise, its own for each name."""
    numbers = np.random.default_rng(sum(map(ord, name)))
    soundfile.write(folder / name, numbers.normal(scale=0.1, size=int(seconds * 8000)), 8000)
    return folder / name


def test_a_child_decodes_as_this_process_does(decoder: Decoder, tmp_path: Path) -> None:
    """The same samples, measurements and refusals, spans too, many files in one child."""
    (tmp_path / "text.wav").write_text("no audio at all")
    files = [File(write(tmp_path, f"{n}.wav", 0.3 + n / 10)) for n in range(12)]
    files += [File(tmp_path / "text.wav"), File(tmp_path / "gone.wav"), File(files[9].path, 0.2, 0.5)]
    here, there = list(decode_here(files, LIMITS)), list(decoder(files, LIMITS))
    for one, other in zip(here, there, strict=True):
        if isinstance(one, AudioError):
            assert isinstance(other, AudioError)
            assert other.record() == one.record()
        else:
            assert not isinstance(other, Exception)
            assert (other[0].id, other[0].rate, other[1]) == (one[0].id, one[0].rate, one[1])
            assert np.array_equal(other[0].samples, one[0].samples)
    assert decoder.deaths == 0
    assert decoder.decode(files[0], LIMITS)[0].id == here[0][0].id  # type: ignore[index]
    with pytest.raises(AudioError, match=r"gone\.wav does not exist"):
        decoder.decode(File(tmp_path / "gone.wav"), LIMITS)


@pytest.mark.usefixtures("hostile")
def test_a_hostile_file_is_quarantined_and_the_others_go_on(decoder: Decoder, tmp_path: Path) -> None:
    """One kills its decoder, one hangs it, one takes all memory, one breaks the protocol; their neighbours are used."""
    names = ["a.wav", "killer.wav", "b.wav", "hang.wav", "c.wav", "bomb.wav", "d.wav", "babble.wav", "e.wav"]
    entries = [Entry(name, write(tmp_path, name), name, "one") for name in names]
    usable, refused = check_entries(entries, LIMITS, None, decoder)
    assert [clip.entry.key for clip in usable] == ["a.wav", "b.wav", "c.wav", "d.wav", "e.wav"]
    rows = {row["key"]: row for row in map(refused_row, refused)}
    codes = {key: row["code"] for key, row in rows.items()}
    assert codes == {
        "killer.wav": "decoder-died",
        "hang.wav": "decoder-timeout",
        "bomb.wav": "decoder-memory",
        "babble.wav": "decoder-died",
    }
    assert all(row["stage"] == "audio" and str(tmp_path) not in str(row["message"]) for row in rows.values())


def _decoders() -> list[psutil.Process]:
    """Children that decode; a test's process may have others, such as the Prefect server of all tests."""
    return [child for child in psutil.Process().children() if any("worker" in part for part in child.cmdline())]


def test_a_child_that_is_killed_from_outside_costs_no_file(decoder: Decoder, tmp_path: Path) -> None:
    """The file it was busy with is tried once more; nothing is left at the end, and a closed decoder says so."""
    files = [File(write(tmp_path, f"{n}.wav")) for n in range(20)]  # more than are asked for ahead
    found = decoder(files, LIMITS)
    next(found)
    for child in _decoders():
        child.kill()
    assert all(not isinstance(one, Exception) for one in found)
    assert decoder.deaths == 1
    left = decoder(files, LIMITS)
    next(left)
    left.close()  # somebody who does not want the rest
    decoder.close()
    assert _decoders() == []
    with pytest.raises(WorkerError) as caught:
        list(decoder(files, LIMITS))
    assert caught.value.code == "worker-closed"


def test_a_decoder_that_cannot_start_blames_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a worker error, not a reason to refuse every clip."""
    monkeypatch.setattr(process, "ENTRY", os.devnull)
    with Decoder(WorkerLimits(), tmp_path / "scratch") as broken, pytest.raises(WorkerError) as caught:
        broken.decode(File(write(tmp_path, "a.wav")), LIMITS)
    assert caught.value.code == "no-decoder"


def test_a_child_that_was_stopped_costs_no_file(tmp_path: Path) -> None:
    """Silence is tried once more with another child, like a death: the file may be innocent."""
    files = [File(write(tmp_path, f"{n}.wav")) for n in range(3)]
    with Decoder(WorkerLimits(decode_seconds=3), tmp_path / "scratch", children=1) as decoder:
        list(decoder(files[:1], LIMITS))
        os.kill(decoder._idle[0].pid, signal.SIGSTOP)
        found = list(decoder(files, LIMITS))
        assert [one for one in found if isinstance(one, Exception)] == []
        assert decoder.deaths == 1
