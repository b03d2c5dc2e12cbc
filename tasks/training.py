"""Tasks of the train flow: run the training process, measure the result, write its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from grym.compare.evaluate import SliceRate, controls, evaluate, measure, pooled
from grym.compare.plan import check_entries, distinct
from grym.config import ModelSpec, Settings
from grym.corpus.loaders import load_dataset
from grym.models.gama.measure import Rate, measure_sounds
from grym.models.gama.recipe import GamaSpec
from grym.models.recipe import TrainSpec
from grym.models.training_process import train
from grym.scratch import scratch_folder
from grym.worker import Worker
from tasks.policies import PLAIN, retry_by_category


@task(name="train", **PLAIN, retries=1, retry_delay_seconds=2, retry_condition_fn=retry_by_category)
def train_stage(
    spec: TrainSpec | GamaSpec, out: Path, *, fsdd: Path | None, manifest: Path | None, start: Path | None
) -> Path:
    """Train one stage in a process of its own; a crash is tried once more and goes on at the last checkpoint.

    Whoever watches hears every event through :data:`grym.models.training_process.listener`.
    """
    logger = get_run_logger()
    progress: Any = create_progress_artifact(
        progress=0.0, key="training", description=f"Stage {spec.key}, {spec.stop_after or spec.steps} steps"
    )
    folder = out / "model"
    for event in train(spec, out, fsdd=fsdd, manifest=manifest, start=start):
        if event["event"] == "restart":
            logger.warning("starts from the beginning: %s; the old one is kept as %s", event["reason"], event["kept"])
        if event["event"] == "step":
            update_progress_artifact(artifact_id=progress, progress=100 * event["step"] / event["steps"])
            if event["step"] % 250 == 0:
                logger.info("step %s of %s, loss %s", event["step"], event["steps"], event["loss"])
    return folder


@task(name="evaluate", **PLAIN)
def evaluate_model(folder: Path, dataset: str, precision: str, settings: Settings) -> list[SliceRate]:
    """Word error rates of an exported checkpoint on a dataset, in all and by slice."""
    with _worker(folder, precision, settings) as worker:
        return evaluate(worker, load_dataset(dataset, settings), settings)


@task(name="evaluate-unheard", **PLAIN)
def evaluate_unheard(
    folders: Mapping[str, Path], dataset: str, settings: Settings, adapter: str = "wav2vec2"
) -> list[SliceRate]:
    """Word error rates on speakers that a model never heard: each by the model that was trained without them.

    Args:
        folders: speaker -> the checkpoint trained without that speaker.
        dataset: name of the dataset; clips of other speakers are not read.
        settings: for limits and scoring.
        adapter: of the models.
    """
    known = load_dataset(dataset, settings).entries
    parts = []
    for speaker, folder in folders.items():
        entries = [entry for entry in known if entry.speaker == speaker]
        usable, _ = distinct(check_entries(entries, settings.audio)[0])
        with _worker(folder, "fp32", settings, adapter) as worker:
            parts.append(measure(worker, usable, settings))
    return pooled(parts)


@task(name="evaluate-digits", **PLAIN)
def evaluate_digits(folder: Path, dataset: str, settings: Settings) -> tuple[list[SliceRate], tuple[float, float]]:
    """Word error rates of a GAMA checkpoint, then those of random digits and of its answers to other clips."""
    with _worker(folder, "fp32", settings, "gama") as worker:
        found = load_dataset(dataset, settings)
        usable, _ = distinct(check_entries(found.entries, settings.audio)[0])
        own = measure(worker, usable, settings)
    return pooled([own]), controls(own, settings)


@task(name="evaluate-sounds", **PLAIN)
def evaluate_sounds(folder: Path, settings: Settings, seed: int, count: int) -> list[Rate]:
    """Rates of a GAMA checkpoint on generated sounds, ``count`` with one sound and as many with two."""
    with _worker(folder, "fp32", settings, "gama") as worker:
        return measure_sounds(lambda clips, options: worker.process(clips, options)[0], seed, count)


@contextmanager
def _worker(folder: Path, precision: str, settings: Settings, adapter: str = "wav2vec2") -> Iterator[Worker]:
    options = {"path": str(folder.resolve()), "precision": precision}
    if adapter == "gama":
        options["task"] = "transcribe"
    spec = ModelSpec(name="trained", adapter=adapter, options=options)
    with scratch_folder(settings.home, "evaluate") as scratch, Worker(spec, settings.worker, scratch) as worker:
        worker.start()
        yield worker
