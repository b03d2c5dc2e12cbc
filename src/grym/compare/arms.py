"""The arms of a run for its task: models as they are, or through a linear probe where they cannot name labels.

Knows nothing about Prefect.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

from grym.compare.probe_arm import Featuring, Probed, check_train, find_probe
from grym.compare.task import can_answer, make_task, require_able
from grym.corpus.loaders import find_spec, load_dataset
from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grym.compare.plan import Usable
    from grym.compare.session import Arm
    from grym.compare.task import Task
    from grym.config import DatasetSpec, Settings, TaskName
    from grym.corpus.manifest import Dataset


def check_task(given: str) -> Literal["", "transcribe", "classify"]:
    """A task that a person typed; empty is what grym.toml says.

    Raises:
        ConfigError: ``unknown-task``: there is no such task.
    """
    known: dict[str, Literal["", "transcribe", "classify"]] = {
        "": "",
        "transcribe": "transcribe",
        "classify": "classify",
    }
    if given in known:
        return known[given]
    msg = f"Unknown task {given!r}; known are transcribe and classify."
    raise ConfigError(msg, code="unknown-task", hint="Leave it out to take what grym.toml says.")


def read_task(
    dataset: str, settings: Settings, task: TaskName | None = None
) -> tuple[DatasetSpec, Dataset, Dataset | None, Task]:
    """A dataset, its training clips if it names some, and the task that models have on it.

    Args:
        dataset: registered name or path.
        settings: grym.toml.
        task: another task than the registered one.

    Raises:
        ConfigError: an unknown name, wrong options, labels that cannot be used.
        ManifestError: the manifest cannot be used.
    """
    spec = find_spec(dataset, settings)
    found = _with_slices(load_dataset(dataset, settings), spec)
    name = task or spec.task
    training = load_dataset(spec.train, settings) if name == "classify" and spec.train else None
    return spec, found, training, make_task(name, spec, found, training, settings.compare)


def _with_slices(found: Dataset, spec: DatasetSpec) -> Dataset:
    """The clips with those columns only that results are broken down by, and the label."""
    if not spec.slices:
        return found
    wanted = {*spec.slices, spec.label}
    entries = [
        replace(entry, slices={name: value for name, value in entry.slices.items() if name in wanted})
        for entry in found.entries
    ]
    return replace(found, entries=tuple(entries))


def needs_probe(arm: Arm, task: Task, spec: DatasetSpec) -> bool:
    """Whether an arm answers through a probe.

    Raises:
        ConfigError: it can neither answer by itself nor through a probe.
    """
    require_able(arm.card, task.name)
    if can_answer(arm.card, task.name):
        return False
    check_train(spec, arm.card.name)
    return True


def through_probe(arm: Arm, spec: DatasetSpec, training: Dataset, clips: Sequence[Usable], settings: Settings) -> Arm:
    """The arm, answering through a probe that was fitted on the training clips alone.

    Raises:
        ConfigError: ``probe-leak``: a test clip is a training clip; or there is too little to learn from.
        GrymError: the model gives no features.
    """
    worker = cast("Featuring", arm.worker)
    probe = find_probe(worker, arm.card, training, spec, settings)
    probe.require_unseen((clip.clip_id for clip in clips), spec.name)
    return replace(arm, worker=Probed(worker, probe, arm.card, arm.worker.load_seconds), probe=probe)
