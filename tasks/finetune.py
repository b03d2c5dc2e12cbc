"""Tasks of the finetune flow: choose clips, run the training process, measure before and after, register."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from grym._registered import models_folder, write_model_file
from grym.compare.evaluate import SliceRate, measure, pooled
from grym.compare.plan import Usable, check_entries, distinct, fingerprint
from grym.config import ModelSpec, Settings
from grym.corpus.loaders import load_dataset
from grym.errors import ConfigError
from grym.models.finetune.process import finetune
from grym.models.finetune.recipe import FinetuneData, FinetuneSpec, TrainingClip, render_card, write_clips
from grym.models.training_process import install
from grym.scratch import scratch_folder
from grym.worker import Worker
from tasks.policies import PLAIN, retry_by_category

LEAST_TRAINING_CLIPS = 2


@dataclass(frozen=True, slots=True)
class Material:
    """Clips to train on, and clips to measure on that are none of them."""

    training: tuple[Usable, ...]
    held_out: tuple[Usable, ...]


@task(name="choose-clips", **PLAIN)
def choose_clips(dataset: str, measure_on: str, held_out: float, settings: Settings) -> Material:
    """Usable clips of a dataset, split by their contents, or all of them and another dataset to measure on.

    Args:
        dataset: what is trained on.
        measure_on: dataset to measure on; empty holds out a share of ``dataset``.
        held_out: that share. Which clips it takes depends on their contents alone.
        settings: limits of usable clips.

    Raises:
        ConfigError: ``no-data``: too few clips are left to train or to measure on.
    """
    if not 0 < held_out < 1:
        msg = f"held_out is {held_out:g}, and has to lie between 0 and 1."
        raise ConfigError(msg, code="bad-option", hint="The default is 0.2.")
    clips = _usable(dataset, settings)
    if measure_on:
        training, apart = clips, _usable(measure_on, settings)
        known = {clip.clip_id for clip in apart}
        training = [clip for clip in training if clip.clip_id not in known]
    else:
        ranked = sorted(clips, key=lambda clip: hashlib.sha256(clip.clip_id.encode()).hexdigest())
        count = max(1, round(held_out * len(ranked)))
        apart, training = ranked[:count], ranked[count:]
    if len(training) < LEAST_TRAINING_CLIPS or not apart:
        msg = f"Dataset {dataset!r} leaves {len(training)} clips to train on and {len(apart)} to measure on."
        raise ConfigError(msg, code="no-data", hint="Use a larger dataset, or another one with --measure-on.")
    return Material(tuple(sorted(training, key=lambda clip: clip.entry.key)), tuple(apart))


@task(name="finetune", **PLAIN, retries=1, retry_delay_seconds=2, retry_condition_fn=retry_by_category)
def finetune_model(
    spec: FinetuneSpec, data: FinetuneData, base: Path, clips: Sequence[Usable], out: Path
) -> dict[str, Any]:
    """Train in a process of its own; a crash is tried once more and goes on at the last checkpoint.

    Returns:
        The last event: folder, trained, parameters, loss and left_out.
    """
    logger = get_run_logger()
    lines = [TrainingClip(str(c.entry.path), c.entry.text, c.entry.offset, c.entry.duration) for c in clips]
    write_clips(lines, out / "clips.jsonl")
    progress: Any = create_progress_artifact(
        progress=0.0, key="finetuning", description=f"{data.base} on {data.dataset}, {spec.steps} steps"
    )
    done: dict[str, Any] = {}
    for event in finetune(spec, data, base=base, clips=out / "clips.jsonl", out=out):
        if event["event"] == "restart":
            logger.warning("starts from the beginning: %s; the old one is kept as %s", event["reason"], event["kept"])
        if event["event"] == "step":
            update_progress_artifact(artifact_id=progress, progress=100 * event["step"] / event["steps"])
        done = event
    return done


@task(name="measure", **PLAIN)
def measure_model(spec: ModelSpec, clips: Sequence[Usable], settings: Settings) -> list[SliceRate]:
    """Word error rates of a model on clips, in all and by slice."""
    with scratch_folder(settings.home, "measure") as scratch, Worker(spec, settings.worker, scratch) as worker:
        worker.start()
        return pooled([measure(worker, clips, settings)])


@task(name="register", **PLAIN)
def register_model(
    name: str,
    base: ModelSpec,
    spec: FinetuneSpec,
    data: FinetuneData,
    done: dict[str, Any],
    rates: dict[str, list[SliceRate]],
    settings: Settings,
) -> Path:
    """Write the card and put the model into ``HOME/models/NAME``, whole or not at all."""
    folder = Path(done["folder"])
    card = render_card(name, spec, data, done, rates, base.licence)
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_model_file(folder, base.adapter, base.licence, base.options)
    target = models_folder(settings.home) / name
    install(folder, target)
    return target


def data_of(dataset: str, base: ModelSpec, folder: Path, clips: Sequence[Usable]) -> FinetuneData:
    """What a fine-tuning hears and starts from."""
    total = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    seconds = sum(clip.seconds for clip in clips)
    return FinetuneData(dataset, len(clips), round(seconds, 3), fingerprint(clips), base.name, total.hexdigest())


def _usable(dataset: str, settings: Settings) -> list[Usable]:
    clips, _ = distinct(check_entries(load_dataset(dataset, settings).entries, settings.audio)[0])
    return [clip for clip in clips if clip.entry.text.strip()]
