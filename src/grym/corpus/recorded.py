"""Takes spoken by :mod:`grym.corpus.synthesizers`, kept in a file because speaking them takes minutes.

Every draw is a function of (seed, voice, take), so that the same engines give
the same takes. Knows nothing about models.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from grym.corpus.augment import warp_formants
from grym.corpus.bank import FORMANT_FACTOR, Take, to_pcm
from grym.corpus.digits import WORDS
from grym.corpus.synthesizers import Manner, RecordedVoice, installed, speak

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# Takes of every digit, and strings, by a voice of each engine: Festival needs a second for every call, and formant
# synthesis varies less than recordings do.
PLAN: Final = {
    "mbrola": (5, 22),
    "espeak": (2, 10),
    "flite": (8, 50),
    "festival": (3, 12),
    "rhvoice": (7, 40),
    "pico": (8, 60),
}
RATE_FACTOR: Final = (0.75, 1.35)
PITCH_FACTOR: Final = (0.8, 1.3)


@dataclass(frozen=True, slots=True)
class _Job:
    voice: RecordedVoice
    digits: tuple[int, ...]
    number: int


def voices_sha256(voices: Sequence[RecordedVoice]) -> str:
    """Fingerprint of which voices speak, how often, and what they read."""
    facts = [[voice.name, voice.text(range(10), " "), PLAN[voice.engine]] for voice in voices]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def recorded_takes(seed: int) -> list[Take]:
    """Digits and strings by every voice that this machine has; none without any of the engines.

    Args:
        seed: seed of rates, pitches, formants and strings.
    """
    return _speak_all(installed(), seed)


def kept(cache: Path | None, name: str, make: Callable[[], list[Take]]) -> list[Take]:
    """The takes of that name from a folder, or made and put there.

    Args:
        cache: the folder; ``None`` keeps nothing.
        name: identity of the takes: everything that decides them.
        make: speaks them.
    """
    if cache is None:
        return make()
    file = cache / f"{name}.npz"
    if file.is_file():
        with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # damaged, or none of ours: anew
            return _read(file)
    takes = make()
    cache.mkdir(parents=True, exist_ok=True)
    _write(file, takes)
    return takes


def _speak_all(voices: Sequence[RecordedVoice], seed: int) -> list[Take]:
    jobs = [job for voice in voices for job in _jobs(voice, seed)]
    with ThreadPoolExecutor(2) as pool:
        return [take for take in pool.map(lambda job: _take(job, seed), jobs) if take is not None]


def _jobs(voice: RecordedVoice, seed: int) -> list[_Job]:
    singles, strings = PLAN[voice.engine]
    rng = np.random.default_rng([seed, *voice.name.encode()])
    texts: list[tuple[int, ...]] = [(digit,) for _ in range(singles) for digit in range(10)]
    texts += [tuple(int(d) for d in rng.integers(0, 10, 2 + i % 6)) for i in range(strings)]
    return [_Job(voice, digits, number) for number, digits in enumerate(texts)]


def _take(job: _Job, seed: int) -> Take | None:
    rng = np.random.default_rng([seed, job.number, *job.voice.name.encode()])
    manner = Manner(float(rng.uniform(*RATE_FACTOR)), float(rng.uniform(*PITCH_FACTOR)))
    pause = ", " if rng.random() < 0.4 else " "  # noqa: PLR2004 - less than half with a pause
    samples = speak(job.voice, job.voice.text(job.digits, pause), manner)
    if samples is None:
        return None
    if rng.random() < 0.5:  # noqa: PLR2004 - every second one by another vocal tract
        samples = warp_formants(samples, float(rng.uniform(*FORMANT_FACTOR)))
    return Take(to_pcm(samples), tuple(WORDS[digit] for digit in job.digits), job.voice.name)


def _write(file: Path, takes: Sequence[Take]) -> None:
    aside = file.with_name(f".{file.name}")
    with aside.open("wb") as stream:
        np.savez(
            stream,
            samples=np.concatenate([take.samples for take in takes]) if takes else np.zeros(0, np.int16),
            sizes=np.array([take.samples.size for take in takes], np.int64),
            words=np.array([" ".join(take.words) for take in takes], np.str_),
            speakers=np.array([take.speaker for take in takes], np.str_),
        )
    aside.replace(file)


def _read(file: Path) -> list[Take]:
    with np.load(file, allow_pickle=False) as stored:
        ends = np.cumsum(stored["sizes"])
        pieces = np.split(stored["samples"], ends[:-1]) if ends.size else []
        return [
            Take(samples, tuple(str(words).split()), str(speaker))
            for samples, words, speaker in zip(pieces, stored["words"], stored["speakers"], strict=True)
        ]
