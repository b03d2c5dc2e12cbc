"""A folder with a grym.toml, models and audio files, as a person would have it, for benchmarks of whole steps."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import soundfile

from benchmarks.material import ROOT, clips
from grym.compare.plan import check_entries, distinct, make_plan
from grym.compare.session import Arm, Session
from grym.config import Settings, load_settings
from grym.corpus.loaders import load_dataset
from grym.memory.features import FeatureStore
from grym.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FAKE = """
[models.fake-a]
adapter = "fake"
options = { script = '{"*": "one two three"}', feature_dim = 192 }
[models.fake-b]
adapter = "fake"
options = { script = '{"*": "one two"}', feature_dim = 192 }
"""
DIGITS = f"""
[datasets.digits]
loader = "manifest"
path = "{ROOT / "datasets/digits/test/manifest.csv"}"
"""


def project(folder: Path, text: str) -> Settings:
    """Settings of a new project with its home in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "grym.toml"
    file.write_text('[paths]\nhome = "var"\n' + text, encoding="utf-8")
    return load_settings(file)


def noise_dataset(folder: Path) -> str:
    """Write the clips of :mod:`benchmarks.material` as files; what grym.toml has to say about them."""
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["audio_filepath", "text"])
        for clip in clips():
            soundfile.write(folder / f"{clip.id}.wav", clip.samples, clip.rate, subtype="FLOAT")
            rows.writerow([f"{clip.id}.wav", "one two three"])
    return f'\n[datasets.noise]\nloader = "manifest"\npath = "{folder / "manifest.csv"}"\n'


def session(settings: Settings, dataset: str, arms: Mapping[str, Arm], key: str) -> Session:
    """A run that is ready for its throughput pass; nothing of it is done yet."""
    from expectations.gate import judge

    entries = load_dataset(dataset, settings).entries
    usable, _ = distinct(check_entries(entries, settings.audio, lambda *_: None)[0])
    store = Store(settings.home)
    plan = make_plan(usable, key, settings.compare, store, new=True, complete=frozenset())
    made = Session(settings, plan, arms, store, FeatureStore(settings.home), judge, dataset)
    facts = {"versions": "{}", "hardware": "{}", "dataset_fingerprint": "", "flow_run_id": ""}
    made.open([], [], facts)
    return made
