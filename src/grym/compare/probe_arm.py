"""A model that cannot name labels, answering through a linear probe on its features.

Fits the probe on the training dataset, or takes the stored one, and refuses test
clips that are training clips. Knows nothing about Prefect. Times are seconds.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from grym.audio import decode
from grym.batching import plan_batches
from grym.compare.labels import labels_of
from grym.compare.plan import check_entries, distinct
from grym.compare.probe import fit_probe
from grym.compare.probe_files import Probe, load_probe, probe_id, save_probe, training_fingerprint
from grym.errors import ConfigError, GrymError, ModelError, StorageError
from grym.models.interface import Answer, AudioClip, Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from grym.compare.plan import Usable
    from grym.config import DatasetSpec, Settings
    from grym.corpus.manifest import Dataset
    from grym.models.interface import Card
    from grym.worker import Usage

MAX_LOST = 0.05  # share of the training clips that may give no features
log = logging.getLogger(__name__)


class Asked(Protocol):
    """What answers for an arm: a worker, or a probe on one."""

    load_seconds: float

    @property
    def card(self) -> Card:
        """What the model is."""
        ...

    def process(
        self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None
    ) -> tuple[list[Answer], Usage]:
        """Answers in the order of the clips within ``deadline`` seconds, and what they took."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class Featuring(Asked, Protocol):
    """Something that also gives feature vectors."""

    def features(
        self, clips: Sequence[AudioClip], *, deadline: float | None = None
    ) -> tuple[npt.NDArray[np.float32], Usage]:
        """Feature vectors within ``deadline`` seconds, float32 ``shape = (clips, dim)``, and what they took."""
        ...


@dataclass(slots=True)
class Probed:
    """A worker that is asked for features only; the probe makes labels of them.

    What the probe takes is counted as the model's time.
    """

    worker: Featuring
    probe: Probe
    card: Card
    load_seconds: float = 0.0

    def process(
        self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None
    ) -> tuple[list[Answer], Usage]:
        """The most probable label of each clip, with the probability of every label.

        Raises:
            GrymError: the worker failed.
        """
        found, usage = self.worker.features(clips, deadline=deadline)
        started = time.perf_counter()
        vectors = np.asarray(found)
        shares = self.probe.linear.probabilities(vectors)
        took = time.perf_counter() - started
        each = (usage.compute_seconds + took) / max(1, len(clips))
        answers = [
            self._answer(clip, vector, share, options, each)
            for clip, vector, share in zip(clips, vectors, shares, strict=True)
        ]
        return answers, replace(
            usage, wall_seconds=usage.wall_seconds + took, compute_seconds=usage.compute_seconds + took
        )

    def _answer(
        self,
        clip: AudioClip,
        vector: npt.NDArray[np.float32],
        share: npt.NDArray[np.float64],
        options: Options,
        seconds: float,
    ) -> Answer:
        card = self.card
        if not np.isfinite(vector).all():
            error = ModelError("The model gave features that are not finite.", code="not-finite").record()
            return Answer(clip.id, None, rung=card.rung, model=card.name, revision=card.revision, error=error)
        labels = self.probe.linear.labels
        best = int(share.argmax())
        return Answer(
            clip_id=clip.id,
            text=labels[best],
            confidence=float(share[best]),
            seconds=seconds,
            rung=card.rung,
            model=card.name,
            revision=card.revision,
            features=np.array(vector) if options.features else None,
            scores=dict(zip(labels, share.tolist(), strict=True)),
        )

    def close(self) -> None:
        """The worker is closed by whoever started it."""


def find_probe(worker: Featuring, card: Card, training: Dataset, spec: DatasetSpec, settings: Settings) -> Probe:
    """The probe of a model for some labels: the stored one if everything that matters is the same, else a new one.

    A stored one whose files are damaged is made again.

    Args:
        worker: gives the features.
        card: of the model.
        training: the clips that it may learn from.
        spec: the labelled dataset that names them; its column and separator hold for them too.
        settings: grym.toml.

    Raises:
        ConfigError: too few clips or labels.
        GrymError: the model gave no features for more than a twentieth of the training clips.
    """
    labels = {entry.key: labels_of(entry, spec) for entry in training.entries}
    fingerprint = training_fingerprint(training.entries, labels)
    identity = probe_id(card, fingerprint, settings.audio)
    folder = settings.home / "probes"
    try:
        stored = load_probe(folder, identity)
    except StorageError as error:
        log.warning("%s It is made again.", error.message)
        stored = None
    if stored is not None:
        return stored
    started = time.perf_counter()
    clips = distinct(check_entries(training.entries, settings.audio)[0])[0]
    vectors = _features(worker, clips, settings)
    kept = [clip for clip in clips if clip.clip_id in vectors]
    linear = fit_probe(
        np.stack([vectors[clip.clip_id] for clip in kept]) if kept else np.zeros((0, card.feature_dim)),
        [labels[clip.entry.key] for clip in kept],
        [clip.clip_id for clip in kept],
    )
    probe = Probe(
        id=identity,
        linear=linear,
        model=card.name,
        revision=card.revision,
        rung=card.rung,
        trained_on=training.name,
        fingerprint=fingerprint,
        seen=frozenset(clip.clip_id for clip in clips),
        seconds=time.perf_counter() - started,
    )
    save_probe(folder, probe)
    return probe


def _features(worker: Featuring, clips: Sequence[Usable], settings: Settings) -> Mapping[str, npt.NDArray[np.float32]]:
    """Feature vectors by content id: one pass in batches; a batch that fails is tried clip by clip."""
    by_id = {clip.clip_id: clip for clip in clips}
    compare = settings.compare
    found: dict[str, npt.NDArray[np.float32]] = {}
    lost = 0
    for batch in plan_batches(clips, max_seconds=compare.batch_seconds, max_clips=compare.batch_clips):
        audio = [_decode(by_id[clip_id], settings) for clip_id in batch.clip_ids]
        try:
            vectors = worker.features(audio)[0]
            found |= {clip.id: np.array(vector) for clip, vector in zip(audio, vectors, strict=True)}
        except GrymError:
            for clip in audio:
                try:
                    found[clip.id] = np.array(worker.features([clip])[0][0])
                except GrymError:
                    lost += 1
                    if lost > MAX_LOST * len(by_id):
                        raise
    return {clip_id: vector for clip_id, vector in found.items() if np.isfinite(vector).all()}


def _decode(clip: Usable, settings: Settings) -> AudioClip:
    entry = clip.entry
    return decode(entry.path, settings.audio, offset=entry.offset, duration=entry.duration)[0]


def check_train(spec: DatasetSpec, model: str) -> str:
    """The name of the dataset that a probe may learn from.

    Raises:
        ConfigError: ``cannot-classify``: there is none.
    """
    if not spec.train:
        msg = f"{model!r} cannot name labels itself, and {spec.name!r} names no training clips for a probe."
        hint = f'Add train = "NAME" to [datasets.{spec.name}] in grym.toml, the name of a labelled dataset.'
        raise ConfigError(msg, code="cannot-classify", hint=hint)
    return spec.train
