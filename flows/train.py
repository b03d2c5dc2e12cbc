"""Train a bundled checkpoint: learn, measure on what was held out, write the card, install if asked.

Run: ``python -m flows train [--name gama-mini]`` (needs espeak-ng; real speech if GRYM_FSDD is set)
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from prefect import flow, runtime

from flows.judged import Plan, measure_ctc, measure_gama
from grym.config import load_settings
from grym.errors import ConfigError
from grym.models.recipe import TrainData, exported, recorded_data
from grym.models.training_process import install as install_checkpoint
from tasks.training import evaluate_unheard, train_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grym.compare.evaluate import SliceRate
    from grym.models.gama.recipe import GamaSpec
    from grym.models.recipe import TrainSpec

CHECKPOINTS = Path(__file__).resolve().parent.parent / "src" / "grym" / "models" / "checkpoints"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
ADAPTERS: Final = {"wav2vec2-mini": "wav2vec2", "gama-mini": "gama"}


@dataclass(frozen=True, slots=True)
class Trained:
    """Where the checkpoint is and how right it is: word error rates, and shares of right answers about sounds."""

    folder: str
    rates: dict[str, float]
    task_runs: int
    flow_run_id: str


@flow(name="train", persist_result=False)
def train(  # noqa: PLR0913 - a form of the Prefect UI has a field for each
    scale: float = 1.0,
    seed: int | None = None,
    voices: int = 464,
    name: str = "wav2vec2-mini",
    *,
    architecture: Literal["auto", "wav2vec2-mini", "gama-mini"] = "auto",
    manifest: str = "",
    measure_on: str = "",
    leave_one_out: bool = False,
    folds: int = 0,
    install: bool = False,
) -> Trained:
    """Train, or go on training, and measure.

    Args:
        scale: factor on every number of steps; a finished training of the same recipe is only measured.
        seed: seed of everything that is drawn; default the recipe's own.
        voices: synthetic training voices.
        name: folder below ``HOME/training``, and of the bundled checkpoint; lower case letters, digits and ``._-``.
        architecture: whose recipe is trained; ``auto`` is that of the name, and ``wav2vec2-mini`` for other names.
        manifest: further clips to train on, as CSV or JSONL; ``wav2vec2-mini`` only.
        measure_on: dataset of speech to measure on; default the bundled test split, and the test takes of FSDD where it
            is set.
        leave_one_out: also train the stages with real speech once without each speaker, and measure on all their takes.
        folds: how many speakers are left out, in the order of their names; 0 is all.
        install: copy the result over the bundled checkpoint.

    Raises:
        ConfigError: the name or the data cannot be used; nothing was trained.
        WorkerError: the training ended early, or another process trains under this name.
        QualityError: the result could not be measured.
    """
    check_name(name)
    chosen = architecture if architecture != "auto" else "gama-mini" if name == "gama-mini" else "wav2vec2-mini"
    if chosen == "gama-mini" and manifest:
        msg = f"{name} is trained on sounds and digits, and takes no manifest."
        raise ConfigError(msg, code="no-manifest", hint="Leave the manifest out, or train wav2vec2-mini.")
    settings = load_settings()
    fsdd = Path(os.environ["GRYM_FSDD"]).resolve() if os.environ.get("GRYM_FSDD") else None
    plan = Plan(chosen, scale, seed, voices, settings, settings.home / "training" / name, fsdd)
    extra = Path(manifest).resolve() if manifest else None
    stages = plan.stages()
    # What the environment offers now; only for checkpoints that do not say what they heard.
    offered = [TrainData.of(spec, fsdd, extra) for spec in stages]
    folder, runs = _train_chain(plan, stages, extra)
    unheard: list[SliceRate] | None = None
    if leave_one_out and fsdd is not None:
        models, trained = _folds(plan, speakers(fsdd)[: folds or None], extra)
        unheard = evaluate_unheard(models, "fsdd-all", settings, ADAPTERS[chosen])
        runs += trained + 1
    keys = [spec.key for spec in stages]
    heard = [recorded_data(plan.home / key / "model") or now for key, now in zip(keys, offered, strict=True)]
    judge = measure_gama if chosen == "gama-mini" else measure_ctc
    judged = judge(plan, folder, heard, measure_on, unheard)
    (folder / "README.md").write_text(judged.card, encoding="utf-8")
    if install:
        install_checkpoint(folder, CHECKPOINTS / name)
        folder = CHECKPOINTS / name
    return Trained(str(folder), judged.rates, runs + judged.task_runs, str(runtime.flow_run.id or ""))


def _folds(plan: Plan, names: Sequence[str], extra: Path | None) -> tuple[dict[str, Path], int]:
    """Models that never heard a speaker, by the speaker, and how many stages were trained."""
    common, models, trained = plan.stages(), {}, 0
    for speaker in names:
        chain = [spec for spec in plan.stages((speaker,)) if spec not in common]
        models[speaker], runs = _train_chain(plan, chain, extra)
        trained += runs
    return models, trained


def _train_chain(plan: Plan, chain: Sequence[TrainSpec | GamaSpec], extra: Path | None) -> tuple[Path, int]:
    """The folder of what the last of some stages exports, and how many were run: none before one that is exported."""
    done = [exported(plan.home / spec.key / "model", spec, TrainData.of(spec, plan.fsdd, extra)) for spec in chain]
    first = max((number for number, there in enumerate(done) if there), default=0)
    folder = plan.home
    for spec in chain[first:]:
        start = plan.home / spec.start_from / "model" if spec.start_from else None
        folder = train_stage(spec, plan.home / spec.key, fsdd=plan.fsdd, manifest=extra, start=start)
    return folder, len(chain) - first


def speakers(fsdd: Path) -> list[str]:
    """The people of a copy of the Free Spoken Digit Dataset, by name."""
    return sorted({path.stem.split("_")[1] for path in (fsdd / "recordings").glob("*_*_*.wav")})


def check_name(name: str) -> None:
    """Refuse a name that is not one plain folder.

    Raises:
        ConfigError: it is not.
    """
    if not NAME.fullmatch(name):
        msg = f"{name!r} cannot name a checkpoint."
        raise ConfigError(msg, code="bad-name", hint="Use lower case letters, digits and ._-, such as wav2vec2-mini.")
