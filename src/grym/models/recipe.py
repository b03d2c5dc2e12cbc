"""The recipe of a training: every number that decides its result. Imports no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from grym.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """Everything that decides the result of a training.

    Attributes:
        steps: optimizer steps in all.
        alignment_steps: first steps with frame-level cross-entropy instead of CTC.
        seed: seed of weights, batches, dropout and masks.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: AdamW's, on matrices only.
        batch_seconds: rough amount of audio in a batch, in seconds.
        voices: synthetic training voices.
        strings_per_voice: digit strings by each of them, beside the ten single digits.
        fsdd_share: share of clips from real recordings.
        leave_out: speakers of the real recordings that are not trained on.
        checkpoint_every: steps between checkpoints.
        average_decay: decay of the moving average of the weights, which is what is exported.
    """

    steps: int = 6000
    alignment_steps: int = 400
    seed: int = 20261120
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    batch_seconds: float = 44.0
    voices: int = 464
    strings_per_voice: int = 5
    fsdd_share: float = 0.55
    leave_out: tuple[str, ...] = ()
    checkpoint_every: int = 250
    average_decay: float = 0.999

    @classmethod
    def from_json(cls, text: str) -> TrainSpec:
        """Read fields from a JSON object; fields that are not named keep their defaults.

        Raises:
            ConfigError: a field is unknown; the message names the right ones.
        """
        fields = json.loads(text)
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(known))
        if unknown:
            msg = f"Unknown training fields {', '.join(unknown)}; known are {', '.join(known)}."
            raise ConfigError(msg, code="unknown-option")
        return cls(**{**fields, "leave_out": tuple(fields.get("leave_out", ()))})

    @property
    def key(self) -> str:
        """Identity of the training; a checkpoint of another key is refused."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:12]
