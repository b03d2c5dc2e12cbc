"""The seeded generator of the ``digits`` corpus: spoken digit strings by many synthetic voices.

Knows nothing about models or Prefect. Needs ``espeak-ng`` (a development tool)
only while it generates; whoever reads a generated corpus does not. Audio is
float32 mono at 16 kHz, levels are in dB relative to full scale.

Run: ``python -m grym.corpus.digits --split test --seed 7 --out DIR``
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

Samples = npt.NDArray[np.float32]

RATE: Final = 16_000
WORDS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS: Final = (
    "en-gb",
    "en-us",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-rp",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
)
# Variants of espeak-ng that sound like a person; robots, whispers and novelty voices are left out.
VARIANTS: Final = (  # noqa: SIM905 - a hundred quoted names would hide the list
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike "
    "Nguyen RicishayMax RicishayMax2 RicishayMax3 adam anika announcer antonio aunty belinda benjamin boris "
    "caleb david ed edward edward2 f1 f2 f3 f4 f5 grandma grandpa gustave iven iven2 iven3 iven4 john "
    "kaukovalta klatt klatt2 klatt3 klatt4 linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel norbert "
    "pablo paul pedro quincy rob robert sandro shelby steph steph2 steph3 travis victor zac"
).split()
BABBLE_TEXT: Final = (
    "the meeting was moved to the afternoon because the train came late again",
    "please leave the parcel with the neighbours if nobody opens the door",
    "rain is expected along the coast with strong winds during the evening",
    "she asked whether the garden would need more water before the weekend",
    "our kitchen closes early today but the bar stays open until midnight",
    "he could not remember where he had put the keys to the old house",
)
CONDITIONS: Final = (("clean", None), ("20dB", 20.0), ("10dB", 10.0))


@dataclass(frozen=True, slots=True)
class Voice:
    """One synthetic speaker: an accent, a variant of the voice, a rate and a pitch."""

    accent: str
    variant: str
    words_per_minute: int = 160
    pitch: int = 50

    @property
    def name(self) -> str:
        """A name that is stable across runs, used as the speaker of a clip."""
        return f"{self.accent}+{self.variant}"


def held_out(variant: str) -> bool:
    """Whether a variant is reserved for testing; decided by a hash of its name, not by any result."""
    return hashlib.sha256(f"grym-digits:{variant}".encode()).digest()[0] < 64  # noqa: PLR2004 - a quarter of all byte values


def voices(split: str, count: int, seed: int) -> list[Voice]:
    """Draw ``count`` voices of a split; test variants never occur in training.

    Args:
        split: ``"train"`` or ``"test"``.
        count: how many voices; each (accent, variant) pair occurs at most once.
        seed: seed of the draw.

    Raises:
        ConfigError: the split is unknown or has fewer voices than asked for.
    """
    if split not in {"train", "test"}:
        msg = f"Unknown split {split!r}: use 'train' or 'test'."
        raise ConfigError(msg)
    rng = np.random.default_rng([seed, split == "test"])
    variants = [v for v in VARIANTS if held_out(v) == (split == "test")]
    # Every variant comes once before any comes twice, so that few voices are still many speakers.
    pairs: list[tuple[str, str]] = []
    for turn in range(len(ACCENTS)):
        order = rng.permutation(len(variants))
        pairs += [(ACCENTS[(turn + 3 * int(i)) % len(ACCENTS)], variants[int(i)]) for i in order]
    if count > len(pairs):
        msg = f"Asked for {count} voices, the {split} split has {len(pairs)}."
        raise ConfigError(msg)
    return [
        Voice(accent, variant, int(rng.integers(120, 210)), int(rng.integers(25, 80)))
        for accent, variant in pairs[:count]
    ]


def speak(text: str, voice: Voice) -> Samples:
    """Synthesize a text.

    Returns:
        float32, ``shape = (samples,)`` at 16 kHz, leading and trailing silence removed.

    Raises:
        ConfigError: espeak-ng is not installed.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        msg = "espeak-ng is not installed; it is needed to generate speech. On Debian: apt-get install espeak-ng."
        raise ConfigError(msg)
    command = [
        program,
        "-v",
        f"{voice.accent}+{voice.variant}",
        "-s",
        str(voice.words_per_minute),
        "-p",
        str(voice.pitch),
        "--stdout",
        "--",
        text,
    ]
    done = subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    # The header of a streamed file claims a wrong length, so the frames are read by hand.
    wave = io.BytesIO(done.stdout)
    samples, rate = soundfile.read(wave, dtype="float32")
    return trim(soxr.resample(samples, rate, RATE).astype(np.float32))


def trim(samples: Samples, floor_db: float = -40.0, keep_seconds: float = 0.03) -> Samples:
    """Cut silence at both ends: everything ``floor_db`` below the peak, but for ``keep_seconds``."""
    peak = float(np.abs(samples).max(initial=0.0))
    loud = np.flatnonzero(np.abs(samples) > peak * 10 ** (floor_db / 20))
    if loud.size == 0:
        return samples
    keep = int(keep_seconds * RATE)
    return samples[max(0, int(loud[0]) - keep) : int(loud[-1]) + keep]


def pink_noise(samples: int, rng: np.random.Generator) -> Samples:
    """Noise with power falling by 3 dB per octave; float32, ``shape = (samples,)``, unit RMS."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.size), 1))
    noise = np.fft.irfft(spectrum, samples)
    return (noise / max(float(np.sqrt(np.mean(noise**2))), 1e-9)).astype(np.float32)


def babble(speech: Sequence[Samples], samples: int, rng: np.random.Generator, speakers: int = 6) -> Samples:
    """Several people talking at once; float32, ``shape = (samples,)``, unit RMS."""
    total = np.zeros(samples, np.float32)
    for _ in range(speakers):
        voice = speech[int(rng.integers(len(speech)))]
        start = int(rng.integers(voice.size))
        total += np.resize(np.roll(voice, -start), samples)
    return (total / max(float(np.sqrt(np.mean(total**2))), 1e-9)).astype(np.float32)


def add_noise(clean: Samples, noise: Samples, snr_db: float) -> Samples:
    """Mix noise of unit RMS under speech at a signal-to-noise ratio in dB (over the whole clip)."""
    level = float(np.sqrt(np.mean(clean**2))) * 10 ** (-snr_db / 20)
    mixed = clean + level * noise
    return (mixed / max(1.0, float(np.abs(mixed).max()) / 0.99)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One generated clip and what is known about it."""

    name: str
    samples: Samples
    text: str
    voice: str
    accent: str
    noise: str
    noise_kind: str
    length: str


def generate(split: str, *, voice_count: int, per_voice: int, seed: int) -> list[Utterance]:
    """Generate digit strings of 1 to 7 digits for ``voice_count`` voices, clean and noisy.

    Args:
        split: ``"train"`` or ``"test"``; see :func:`voices`.
        voice_count: number of voices.
        per_voice: clips for each voice.
        seed: seed of every choice; the same seed and espeak-ng version give the same corpus.
    """
    speakers = voices(split, voice_count, seed)
    crowd = [speak(text, voice) for text, voice in zip(BABBLE_TEXT, voices(split, 6, seed + 1), strict=True)]

    def one(job: tuple[int, int]) -> Utterance:
        v, i = job
        rng = np.random.default_rng([seed, split == "test", v, i])
        count = 1 + (i % 7)
        words = [WORDS[int(d)] for d in rng.integers(0, 10, count)]
        voice = speakers[v]
        pause = ", " if rng.random() < 0.5 else " "  # noqa: PLR2004 - an even chance
        speech = speak(pause.join(words), voice)
        edges = rng.integers(800, 4000, 2)
        speech = np.pad(speech * rng.uniform(0.3, 0.9) / max(float(np.abs(speech).max()), 1e-6), tuple(edges))
        noise, snr = CONDITIONS[(v + i) % 3]
        kind = "none"
        if snr is not None:
            kind = ("pink", "babble")[(v + i) // 3 % 2]
            floor = pink_noise(speech.size, rng) if kind == "pink" else babble(crowd, speech.size, rng)
            speech = add_noise(speech.astype(np.float32), floor, snr)
        length = "1" if count == 1 else "2-4" if count <= 4 else "5-7"  # noqa: PLR2004
        name = f"{split}-{v:03d}-{i:03d}"
        return Utterance(
            name, speech.astype(np.float32), " ".join(words), voice.name, voice.accent, noise, kind, length
        )

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, [(v, i) for v in range(voice_count) for i in range(per_voice)]))


def write(utterances: Sequence[Utterance], out: Path) -> Path:
    """Write clips (Ogg Opus) and ``manifest.csv`` (one row per clip) below ``out``; returns the manifest's path."""
    audio = out / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    manifest = out / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ["id", "audio_filepath", "duration", "text", "speaker", "accent", "noise", "noise_kind", "length"]
        )
        for u in utterances:
            path = audio / f"{u.name}.ogg"
            soundfile.write(path, u.samples, RATE, format="OGG", subtype="OPUS")
            duration = f"{u.samples.size / RATE:.3f}"
            relative = path.relative_to(out).as_posix()
            writer.writerow([u.name, relative, duration, u.text, u.voice, u.accent, u.noise, u.noise_kind, u.length])
    return manifest


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the generator."""
    parser = argparse.ArgumentParser(description="Generate the digits corpus.")
    parser.add_argument("--split", choices=["train", "test"], default="test")
    parser.add_argument("--voices", type=int, default=16)
    parser.add_argument("--per-voice", type=int, default=28)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    clips = generate(options.split, voice_count=options.voices, per_voice=options.per_voice, seed=options.seed)
    manifest = write(clips, options.out)
    words = sum(len(clip.text.split()) for clip in clips)
    print(f"{len(clips)} clips, {words} words, {options.voices} voices: {manifest}")  # noqa: T201


if __name__ == "__main__":
    main()
