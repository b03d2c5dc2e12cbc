"""A bank of labelled speech held in memory, from which training batches are composed.

Joins single digits of one speaker to strings, changes speed, adds room and noise.
Every batch is a function of (seed, step) alone, so that an interrupted training
goes on exactly where it stopped. Audio is 16 kHz mono, stored as int16.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import soundfile
import soxr

from grym.audio import decode
from grym.corpus import digits
from grym.corpus.augment import Augmentation, augment, change_speed, hurry, warp_formants
from grym.corpus.digits import RATE, WORDS
from grym.corpus.manifest import read_manifest
from grym.errors import AudioError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from grym.config import AudioLimits
    from grym.corpus.digits import Samples

# How many digits the clips of a batch have, and how often: short strings are the hardest, they lack context.
LENGTHS: Final = (1, 2, 3, 4, 5, 6, 7)
LENGTH_WEIGHTS: Final = (0.3, 0.18, 0.16, 0.13, 0.1, 0.07, 0.06)
# Vocal tracts from long (a tall man's) to short (a child's), relative to the speaker's own.
FORMANT_FACTOR: Final = (0.86, 1.18)


@dataclass(frozen=True, slots=True)
class Take:
    """One recording: int16 samples, the words in it, who spoke."""

    samples: npt.NDArray[np.int16]
    words: tuple[str, ...]
    speaker: str


@dataclass(frozen=True, slots=True)
class Clip:
    """One composed training clip; ``spans`` are (start, end, word) in samples where they are known."""

    samples: Samples
    words: tuple[str, ...]
    spans: tuple[tuple[int, int, str], ...]


def to_pcm(samples: Samples) -> npt.NDArray[np.int16]:
    """As int16 at one level, whatever the level was."""
    peak = max(float(np.abs(samples).max(initial=0.0)), 1e-6)
    return (samples / peak * 30000).astype(np.int16)


def _wave(take: Take) -> Samples:
    return take.samples.astype(np.float32) / np.float32(32768)


def load_fsdd(
    folder: Path, *, leave_out: Sequence[str] = (), first_take: int = 5, warps: int = 0, seed: int = 0
) -> list[Take]:
    """Training takes of the Free Spoken Digit Dataset (``recordings/{digit}_{speaker}_{take}.wav``).

    Args:
        folder: the folder above ``recordings``.
        leave_out: speakers that are not read.
        first_take: takes below are for testing.
        warps: copies of every take with other formants. A copy of a warp belongs to a speaker of its own, so that
            joined digits have one vocal tract.
        seed: seed of the formants.
    """
    factors = np.random.default_rng([seed, 77]).uniform(*FORMANT_FACTOR, warps)
    takes = []
    for path in sorted((folder / "recordings").glob("*_*_*.wav")):
        digit, speaker, take = path.stem.split("_")
        if int(take) < first_take or speaker in leave_out:
            continue
        samples, rate = soundfile.read(path, dtype="float32")
        wave = soxr.resample(samples, rate, RATE)
        takes.append(Take(to_pcm(wave), (WORDS[int(digit)],), f"fsdd-{speaker}"))
        takes += [
            Take(to_pcm(warp_formants(wave, float(factor))), (WORDS[int(digit)],), f"fsdd-{speaker}-{number}")
            for number, factor in enumerate(factors)
        ]
    return takes


def load_manifest(manifest: Path, limits: AudioLimits) -> list[Take]:
    """Takes of a CSV or JSONL manifest; rows and clips that cannot be used are left out."""
    takes = []
    for entry in read_manifest(manifest).entries:
        with contextlib.suppress(AudioError):
            clip, _ = decode(entry.path, limits, offset=entry.offset, duration=entry.duration)
            takes.append(Take(to_pcm(clip.samples), tuple(entry.text.split()), entry.speaker or manifest.name))
    return takes


def synthesize(voice_count: int, strings_per_voice: int, seed: int) -> list[Take]:
    """Ten single digits and some strings by each of ``voice_count`` synthetic training voices."""
    voices = digits.voices("train", voice_count, seed)

    def one(v: int) -> list[Take]:
        rng = np.random.default_rng([seed, 1000, v])
        takes = []
        jobs: list[tuple[str, ...]] = [(word,) for word in WORDS]
        jobs += [tuple(WORDS[int(d)] for d in rng.integers(0, 10, 2 + i % 6)) for i in range(strings_per_voice)]
        for words in jobs:
            voice = replace(voices[v], words_per_minute=int(rng.integers(110, 230)), pitch=int(rng.integers(15, 90)))
            text = (", " if rng.random() < 0.5 else " ").join(words)  # noqa: PLR2004 - an even chance
            takes.append(Take(to_pcm(digits.speak(text, voice)), words, voice.name))
        return takes

    with ThreadPoolExecutor(2) as pool:
        return [take for takes in pool.map(one, range(voice_count)) for take in takes]


class Bank:
    """Takes grouped by speaker, and the batches made of them.

    Args:
        groups: lists of takes with the share of clips that each list provides; lists without a single digit are
            left out, because nothing can be joined from them.
        how: augmentation.
        batch_seconds: rough amount of audio in a batch, in seconds.
        string_share: share of longer clips that are strings spoken as one, where a group has them; the others are
            joined from single digits.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[Take], float]],
        how: Augmentation,
        batch_seconds: float,
        string_share: float = 0.4,
    ) -> None:
        self._how = how
        self._string_share = string_share
        self._batch_seconds = batch_seconds
        self._singles: list[list[list[Take]]] = []
        self._strings: list[list[Take]] = []
        self._weights: list[float] = []
        for takes, weight in groups:
            if not any(len(take.words) == 1 for take in takes):
                continue
            by_speaker: dict[str, list[Take]] = {}
            for take in takes:
                if len(take.words) == 1:
                    by_speaker.setdefault(take.speaker, []).append(take)
            self._singles.append(list(by_speaker.values()))
            self._strings.append([take for take in takes if len(take.words) > 1])
            self._weights.append(weight)
        if not self._weights:
            msg = "There is nothing to train on."
            raise ConfigError(msg, code="no-data", hint="Set GRYM_FSDD, ask for synthetic voices, or give a manifest.")
        if sum(self._weights) != 1.0:
            self._weights = [weight / sum(self._weights) for weight in self._weights]
        everything = [take for takes, _ in groups for take in takes]
        self._crowd = [_wave(take) for take in everything[:: max(1, len(everything) // 400)]]

    def batch(self, seed: int, step: int, *, joined_only: bool = False) -> list[Clip]:
        """The clips of one step; clips of a batch have nearly the same length."""
        rng = np.random.default_rng([seed, step])
        count = int(rng.choice(LENGTHS, p=LENGTH_WEIGHTS))
        size = int(np.clip(self._batch_seconds / (0.25 + 0.45 * count), 8, 72))
        drafts = sorted(
            (self._draft(count, rng, joined_only=joined_only) for _ in range(2 * size)), key=lambda c: c.samples.size
        )
        start = int(rng.integers(0, size + 1))
        chosen = drafts[start : start + size]
        longest = chosen[-1].samples.size
        return [self._finish(clip, longest, rng) for clip in chosen]

    def compose(self, count: int, rng: np.random.Generator, room: int = 0) -> Clip:
        """One clip of ``count`` digits by one speaker, augmented, with up to ``room`` samples of background around."""
        draft = self._draft(count, rng, joined_only=False)
        return self._finish(draft, draft.samples.size + int(rng.integers(0, room + 1)), rng)

    def _draft(self, count: int, rng: np.random.Generator, *, joined_only: bool) -> Clip:
        group = int(rng.choice(len(self._weights), p=self._weights))
        strings = self._strings[group]
        if count > 1 and strings and not joined_only and rng.random() < self._string_share:
            some = (strings[int(rng.integers(len(strings)))] for _ in range(12))
            same = [take for take in some if len(take.words) == count]
            if same:
                wave = change_speed(_wave(same[0]), float(rng.uniform(*self._how.speed_factor)))
                wave = hurry(wave, rng, self._how)
                return Clip(wave, same[0].words, ())
        speakers = self._singles[group]
        takes = speakers[int(rng.integers(len(speakers)))]
        speed = float(rng.uniform(*self._how.speed_factor))
        pieces: list[Samples] = []
        spans: list[tuple[int, int, str]] = []
        words: list[str] = []
        position = 0
        for index in range(count):
            take = takes[int(rng.integers(len(takes)))]
            wave = change_speed(_wave(take), speed * float(rng.uniform(0.94, 1.06)))
            wave = hurry(wave, rng, self._how)
            wave = wave * np.float32(10 ** (rng.uniform(-4, 0) / 20))
            gap = int(rng.exponential(0.06) * RATE) if index else 0
            gap = min(gap, RATE // 2)
            pieces += [np.zeros(gap, np.float32), wave]
            spans.append((position + gap, position + gap + wave.size, take.words[0]))
            words.append(take.words[0])
            position += gap + wave.size
        return Clip(np.concatenate(pieces), tuple(words), tuple(spans))

    def _finish(self, clip: Clip, longest: int, rng: np.random.Generator) -> Clip:
        before = int(rng.integers(0, longest - clip.samples.size + 1))
        wave = np.pad(clip.samples, (before, longest - clip.samples.size - before))
        wave = augment(wave, self._crowd, rng, self._how)
        spans = tuple((start + before, end + before, word) for start, end, word in clip.spans)
        return Clip(wave, clip.words, spans)
