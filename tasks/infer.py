"""Tasks that call models. Each is a batch of clips; arrays stay inside."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import runtime, task

from grym.batching import Batch
from grym.compare.arms import through_probe
from grym.compare.plan import Usable
from grym.compare.session import Arm, Session
from grym.config import DatasetSpec, Settings
from grym.corpus.manifest import Dataset
from tasks.policies import PLAIN


@task(name="warm up", **PLAIN)
def warm_up(session: Session, letter: str) -> None:
    """One call per arm apart from every figure."""
    session.warm_up(letter)


@task(name="infer", **PLAIN)
def infer(session: Session, letter: str, batch: Batch) -> int:
    """Answer one planned batch with one arm and land it; returns the clips without an answer."""
    attempt = runtime.task_run.run_count or 1
    return session.infer(letter, batch, attempt=attempt, last=attempt >= session.settings.worker.attempts)


@task(name="measure latency", **PLAIN)
def measure_latency(session: Session) -> None:
    """The latency pass: batch 1, A-B-B-A."""
    session.measure_latency()


@task(name="measure noise", **PLAIN)
def measure_noise(session: Session) -> None:
    """Repeated answers to the latency sample, for the noise floor."""
    session.repeat()


@task(name="probe", **PLAIN)
def probe(arm: Arm, spec: DatasetSpec, training: Dataset, clips: Sequence[Usable], settings: Settings) -> Arm:
    """The arm, answering through the stored probe on its features, or one that is fitted now."""
    return through_probe(arm, spec, training, clips, settings)
