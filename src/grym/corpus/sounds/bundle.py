"""Writes a split of ``sounds`` as files: Ogg Opus beside a manifest, as the other bundled corpora.

Knows nothing about models. Every label has equally many clips of one sound, mixtures come after them.

Run: ``python -m grym.corpus.sounds --split test --per-label 10 --mixtures 108 --seed 7 --out DIR``
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING, Final

import soundfile

from grym.corpus.sounds.clip import draw
from grym.corpus.sounds.vocabulary import LABELS, RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from grym.corpus.sounds.clip import SoundClip

# 30 kbit/s: libsndfile's scale goes from 256 kbit/s (0) to 6 kbit/s (1).
COMPRESSION: Final = 1 - (30_000 - 6_000) / 250_000
COLUMNS: Final = (
    "id", "audio_filepath", "duration", "text", "label", "mixture", "relation", "noise", "noise_kind",
    "question1", "answer1", "question2", "answer2",
)  # fmt: skip


def clips(split: str, *, per_label: int, mixtures: int, seed: int) -> Iterator[SoundClip]:
    """Draw a split: ``per_label`` clips of each label alone, then so many mixtures.

    Args:
        split: ``"train"`` or ``"test"``.
        per_label: clips of one sound for each label.
        mixtures: clips of two sounds.
        seed: seed of every choice.
    """
    for index in range(per_label * len(LABELS)):
        yield draw(seed, index, split, labels=(LABELS[index % len(LABELS)],), mixture=False)
    for index in range(mixtures):
        yield draw(seed, per_label * len(LABELS) + index, split, mixture=True)


def row(clip: SoundClip, relative: str) -> dict[str, str]:
    """What the manifest says about a clip, by column; a mixture has two labels, as ``a+b``."""
    (question1, answer1), (question2, answer2) = clip.questions[:2]
    values = (
        clip.id,
        relative,
        f"{clip.samples.size / clip.rate:.3f}",
        clip.caption,
        "+".join(event.label for event in clip.events),
        "yes" if clip.relation else "no",
        clip.relation,
        "clean" if clip.snr_db is None else f"{clip.snr_db:.0f}dB",
        clip.noise_kind,
        question1,
        answer1,
        question2,
        answer2,
    )
    return dict(zip(COLUMNS, values, strict=True))


def write(drawn: Iterable[SoundClip], out: Path) -> Path:
    """Write ``audio/ID.ogg`` and ``manifest.csv`` below ``out``; returns the manifest's path."""
    (out / "audio").mkdir(parents=True, exist_ok=True)
    manifest = out / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for clip in drawn:
            relative = f"audio/{clip.id}.ogg"
            encode(clip, out / relative)
            writer.writerow(row(clip, relative))
    return manifest


def encode(clip: SoundClip, path: Path) -> None:
    """Write the audio of a clip as Ogg Opus."""
    soundfile.write(path, clip.samples, RATE, format="OGG", subtype="OPUS", compression_level=COMPRESSION)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the generator."""
    parser = argparse.ArgumentParser(prog="python -m grym.corpus.sounds", description="Generate the sounds corpus.")
    parser.add_argument("--split", choices=["train", "test"], default="test")
    parser.add_argument("--per-label", type=int, default=10, help="clips of one sound for each label")
    parser.add_argument("--mixtures", type=int, default=108, help="clips of two sounds")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    drawn = list(clips(options.split, per_label=options.per_label, mixtures=options.mixtures, seed=options.seed))
    manifest = write(drawn, options.out)
    total = sum(clip.samples.size for clip in drawn) / RATE
    print(f"{len(drawn)} clips, {total:.0f} s, {len(LABELS)} labels: {manifest}")  # noqa: T201
