"""Train ``wav2vec2-mini``: learn, measure on held-out speech, write the card, install if asked.

Run: ``python -m flows train`` (needs espeak-ng; real speech if GRYM_FSDD is set)
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prefect import flow, runtime

from grym.compare.evaluate import overall
from grym.config import load_settings
from grym.errors import ConfigError
from grym.models.model_card import render_card
from grym.models.recipe import TrainData, mini_stages, recorded_data
from grym.models.training_process import install as install_checkpoint
from tasks.training import evaluate_model, evaluate_unheard, train_stage

CHECKPOINTS = Path(__file__).resolve().parent.parent / "src" / "grym" / "models" / "checkpoints"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
UNHEARD: Final = "FSDD, each speaker by a model that never heard them (leave one speaker out), all takes, fp32"
NOTES = (
    "Ten words only; other speech is forced into digits.",
    "Synthetic test voices are easier than people; the rates by FSDD test take are of people heard in training.",
    "The bundled test split was looked at after two earlier recipes (5.08 % and 3.68 % WER, letters as they are).",
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
    leave_one_out: bool = False,
    install: bool = False,
) -> Trained:
    """Train, or go on training, and measure.

    Args:
        scale: factor on every number of steps; a finished training of the same recipe is only measured.
        seed: seed of everything that is drawn.
        voices: synthetic training voices.
        name: folder below ``HOME/training``, and of the bundled checkpoint; lower case letters, digits and ``._-``.
        manifest: further clips to train on, as CSV or JSONL.
        measure_on: dataset to measure on; default the bundled test split, and the test takes of FSDD where it is set.
        leave_one_out: also train the stages with real speech once without each speaker, and measure on all their takes.
        install: copy the result over the bundled checkpoint.

    Raises:
        ConfigError: the name or the data cannot be used; nothing was trained.
        WorkerError: the training ended early, or another process trains under this name.
        QualityError: the result could not be measured.
    """
    check_name(name)
    settings = load_settings()
    stages = mini_stages(seed, voices, scale)
    fsdd = Path(os.environ["GRYM_FSDD"]).resolve() if os.environ.get("GRYM_FSDD") else None
    home = settings.home / "training" / name
    extra = Path(manifest).resolve() if manifest else None
    # What the environment offers now; only for checkpoints that do not say what they heard.
    offered = [TrainData.of(spec, fsdd, extra) for spec in stages]
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
    runs = len(stages) + len(results)
    if leave_one_out and fsdd is not None:
        folds = {}
        for speaker in _speakers(fsdd):
            apart = [spec for spec in mini_stages(seed, voices, scale, (speaker,)) if spec not in stages]
            for spec in apart:
                start = home / spec.start_from / "model"
                folds[speaker] = train_stage(spec, home / spec.key, fsdd=fsdd, manifest=extra, start=start)
            runs += len(apart)
        results[UNHEARD] = evaluate_unheard(folds, "fsdd-all", settings)
        runs += 1
    rates = {title: overall(measured) for title, measured in results.items()}
    heard = [recorded_data(home / spec.key / "model") or now for spec, now in zip(stages, offered, strict=True)]
    card = render_card(stages, results, data=heard, notes=NOTES)
    (folder / "README.md").write_text(card, encoding="utf-8")
    if install:
        install_checkpoint(folder, CHECKPOINTS / name)
        folder = CHECKPOINTS / name
    return Trained(str(folder), rates, runs, str(runtime.flow_run.id or ""))


def _speakers(fsdd: Path) -> list[str]:
    return sorted({path.stem.split("_")[1] for path in (fsdd / "recordings").glob("*_*_*.wav")})


def check_name(name: str) -> None:
    """Refuse a name that is not one plain folder.

    Raises:
        ConfigError: it is not.
    """
    if not NAME.fullmatch(name):
        msg = f"{name!r} cannot name a checkpoint."
        raise ConfigError(msg, code="bad-name", hint="Use lower case letters, digits and ._-, such as wav2vec2-mini.")
