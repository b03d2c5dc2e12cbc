"""What every model offers and what it answers: the contract between adapters, workers and flows.

Knows nothing about torch, processes or Prefect. Audio is float32 mono
``shape = (samples,)`` unless a docstring says otherwise; times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.errors import ErrorRecord

Samples = npt.NDArray[np.float32]
Quality = Literal["low", "standard", "high"]
Level = Literal["basic", "advanced"]


@dataclass(frozen=True, slots=True)
class AudioClip:
    """One decoded clip: its content id, float32 samples ``shape = (samples,)`` and rate in Hz."""

    id: str
    samples: Samples
    rate: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples.size / self.rate


@dataclass(frozen=True, slots=True)
class Segment:
    """One word (or event) with its start and end in seconds and a confidence in [0, 1]."""

    start: float
    end: float
    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one call to a model.

    Attributes:
        quality: trade of speed for care, where a model has one.
        max_new_tokens: limit for generative models.
        segments: whether word segments are wanted.
        features: whether each answer carries the clip's feature vector.
        task: ``describe``, ``classify``, ``question`` or ``transcribe`` for models that do several; empty for the
            model's own.
        prompt: instruction or question for models that take one; empty for the task's own.
        labels: what ``classify`` chooses from.
    """

    quality: Quality = "standard"
    max_new_tokens: int = 256
    segments: bool = True
    features: bool = False
    task: str = ""
    prompt: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said about one clip, or why it could not.

    Attributes:
        clip_id: content id of the clip.
        text: the transcript or description; ``None`` exactly when ``error`` is set.
        confidence: in [0, 1].
        segments: words with times, in order.
        tokens: number of tokens the model emitted.
        seconds: compute time attributed to this clip.
        rung: the settings in force, for example ``"fp32/cpu"``.
        model: registered name.
        revision: content hash of the weights and the options that change answers.
        features: float32 ``shape = (dim,)`` if asked for.
        error: why there is no answer.
        failure: what is wrong with a generated answer, empty if nothing; see :mod:`grym.models.failures`.
        scores: probability of each label if the task was ``classify``.
    """

    clip_id: str
    text: str | None
    confidence: float | None = None
    segments: tuple[Segment, ...] = ()
    tokens: int = 0
    seconds: float = 0.0
    rung: str = ""
    model: str = ""
    revision: str = ""
    features: npt.NDArray[np.float32] | None = None
    error: ErrorRecord | None = None
    failure: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Card:
    """What a model is and can do."""

    name: str
    revision: str
    adapter: str
    tasks: tuple[str, ...]
    sample_rate: int = 16_000
    min_seconds: float = 0.025
    max_seconds: float = 3600.0
    languages: tuple[str, ...] = ()
    licence: str = "unknown"
    feature_dim: int = 0
    parameters: int = 0
    rung: str = ""
    details: Mapping[str, str | int | float | bool] = field(default_factory=dict)


class Model(Protocol):
    """A model, batched first.

    Batch-invariant: a clip gets the same answer alone and in any batch. A clip
    that cannot be processed yields an :class:`Answer` with ``error``; it never
    fails the others.
    """

    @property
    def card(self) -> Card:
        """What this model is; may load the weights."""
        ...

    def process(self, batch: Sequence[AudioClip], options: Options) -> list[Answer]:
        """Answer every clip, in the order given."""
        ...

    def features(self, batch: Sequence[AudioClip]) -> npt.NDArray[np.float32]:
        """Feature vectors, float32 ``shape = (batch, dim)``."""
        ...

    def analyze(self, batch: Sequence[AudioClip], level: Level) -> list[dict[str, float]]:
        """Signal measurements of every clip; see :mod:`grym.models.analysis`."""
        ...

    def ping(self) -> dict[str, str]:
        """Answer at once if the model is alive."""
        ...

    def close(self) -> None:
        """Release everything; safe to call twice."""
        ...
