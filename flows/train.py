"""Train ``wav2vec2-mini``: learn, measure on held-out speech, write the card, install if asked.

Run: ``python -m flows train`` (needs espeak-ng; real speech if GRYM_FSDD is set)
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, runtime

from grym.config import load_settings
from grym.errors import ConfigError
from grym.models.model_card import render_card
from grym.models.recipe import mini_stages
from tasks.training import evaluate_model, train_stage

CHECKPOINTS = Path(__file__).resolve().parent.parent / "src" / "grym" / "models" / "checkpoints"
NOTES = (
    "Ten words only; other speech is forced into digits.",
    "Synthetic test voices are easier than people; the rates by FSDD speaker are of people heard in training.",
    "No voice of a speaker outside these sets was measured here.",
)


@dataclass(frozen=True, slots=True)
class Trained:
    """Where the checkpoint is and how well it hears."""

    folder: str
    rates: dict[str, float]
    task_runs: int
    flow_run_id: str


@flow(name="train", persist_result=False)
def train(
    scale: float = 1.0,
    seed: int = 20261120,
    voices: int = 464,
    name: str = "wav2vec2-mini",
    *,
    manifest: str = "",
    measure_on: str = "",
    install: bool = False,
) -> Trained:
    """Train, or go on training, and measure.

    Args:
        scale: factor on every number of steps; a finished training of the same recipe is only measured.
        seed: seed of everything that is drawn.
        voices: synthetic training voices.
        name: folder below ``HOME/training``.
        manifest: further clips to train on, as CSV or JSONL.
        measure_on: dataset to measure on; default the bundled test split, and the test takes of FSDD where it is set.
        install: copy the result over the bundled checkpoint.
    """
    settings = load_settings()
    stages = mini_stages(seed, voices, scale)
    fsdd = Path(os.environ["GRYM_FSDD"]).resolve() if os.environ.get("GRYM_FSDD") else None
    home = settings.home / "training" / name
    extra = Path(manifest).resolve() if manifest else None
    folder: Path | None = None
    for spec in stages:
        folder = train_stage(spec, home / spec.key, fsdd=fsdd, manifest=extra, start=folder)
    if folder is None:
        msg = "A recipe needs at least one stage."
        raise ConfigError(msg)
    sets = {measure_on: measure_on} if measure_on else {"Bundled test split, voices unseen in training": "digits"}
    if fsdd is not None and not measure_on:
        sets["FSDD test takes (0-4), speakers heard in training"] = "fsdd"
    results = {
        f"{title}, {precision}": evaluate_model(folder, dataset, precision, settings)
        for title, dataset in sets.items()
        for precision in ("fp32", "int8")
    }
    card = render_card(stages, results, with_fsdd=fsdd is not None, notes=NOTES)
    (folder / "README.md").write_text(card, encoding="utf-8")
    if install:
        target = CHECKPOINTS / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        folder = target
    rates = {title: measured[0].wer or 0.0 for title, measured in results.items()}
    return Trained(str(folder), rates, len(stages) + len(results), str(runtime.flow_run.id or ""))
