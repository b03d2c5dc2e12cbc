"""The bundled files of sounds: what stands in them, and that they can be made again."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile

from grym.corpus.cards import read_card
from grym.corpus.manifest import Manifest, read_manifest
from grym.corpus.sounds import LABELS, draw, read_caption, score_answer
from grym.corpus.sounds.bundle import clips, main, row

ROOT = Path(__file__).resolve().parents[2] / "datasets"
PLAN = {"test": (10, 108), "train": (20, 20)}


def bundled(split: str) -> Manifest:
    """The manifest of a split."""
    return read_manifest(ROOT / "sounds" / split / "manifest.csv")


def bands(samples: np.ndarray) -> np.ndarray:
    """Level in dB of 16 bands of 500 Hz."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    return 10 * np.log10(np.array([part.mean() for part in np.array_split(power, 16)]) + 1e-12)


@pytest.mark.parametrize("split", ["test", "train"])
def test_the_bundle_has_what_its_card_says(split):
    """Rows, labels, mixtures, captions and questions of the stored manifest, and every file that it names."""
    per_label, mixtures = PLAN[split]
    manifest = bundled(split)
    assert not manifest.rejected
    entries = manifest.entries
    single = Counter(e.slices["label"] for e in entries if e.slices["mixture"] == "no")
    assert single == dict.fromkeys(LABELS, per_label)
    assert sum(e.slices["mixture"] == "yes" for e in entries) == mixtures
    assert mixtures >= 0.25 * len(entries) or split == "train"
    assert set().union(*(e.slices for e in entries)) == set(read_card(ROOT / "cards" / "sounds.toml").slices)
    for entry in entries:
        assert entry.path.is_file()
        facts = read_caption(entry.text)
        assert facts is not None
        assert "+".join(event.label for event in facts.events) == entry.slices["label"]
        assert len(entry.questions) == 2
        assert all(score_answer(answer, answer) for _, answer in entry.questions)


@pytest.mark.parametrize("split", ["test", "train"])
def test_the_bundle_can_be_made_again(split):
    """Drawn anew with seed 7, the rows are the stored ones, and the stored audio is the same wave but for its codec."""
    per_label, _ = PLAN[split]
    entries = {entry.key: entry for entry in bundled(split).entries}
    size = per_label * len(LABELS)
    wanted = [(i, (LABELS[i],), False) for i in range(len(LABELS))] + [(size + i, None, True) for i in range(3)]
    for index, labels, mixture in wanted:
        clip = draw(7, index, split, labels=labels, mixture=mixture)
        entry = entries[clip.id]
        assert entry.text == clip.caption
        assert entry.questions == clip.questions
        stored, rate = soundfile.read(entry.path, dtype="float32")
        assert rate == clip.rate
        assert abs(stored.size - clip.samples.size) < 400
        heard, made = bands(stored), bands(clip.samples)
        loud = made > made.max() - 30  # Opus may leave out what other bands hide
        assert np.abs(heard - made)[loud].max() < 6, clip.id
        size_heard = min(stored.size, clip.samples.size)
        assert np.corrcoef(stored[:size_heard], clip.samples[:size_heard])[0, 1] > 0.8, clip.id


def test_a_split_can_be_written(tmp_path, capsys):
    """The command writes a manifest that the loader reads, with the rows of the clips that were drawn."""
    main(["--split", "train", "--per-label", "1", "--mixtures", "2", "--seed", "3", "--out", str(tmp_path)])
    assert "20 clips" in capsys.readouterr().out
    entries = read_manifest(tmp_path / "manifest.csv").entries
    assert len(entries) == 20
    first = next(islice(clips("train", per_label=1, mixtures=2, seed=3), 1))
    assert row(first, "x")["text"] == entries[0].text
    assert entries[0].slices["label"] == LABELS[0]
    assert "+" in entries[-1].slices["label"]
    assert soundfile.info(entries[0].path).samplerate == 16_000
