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
        string_share: share of the synthetic voices' longer clips that were spoken as one string.
        leave_out: speakers of the real recordings that are not trained on.
        checkpoint_every: steps between checkpoints.
        average_decay: decay of the moving average of the weights, which is what is exported.
        stop_after: step after which the stage is exported although its schedule goes on; 0 goes to the end.
        start_from: key of the stage whose exported weights this one starts from; empty starts from scratch.
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
    string_share: float = 0.4
    leave_out: tuple[str, ...] = ()
    checkpoint_every: int = 250
    average_decay: float = 0.999
    stop_after: int = 0
    start_from: str = ""

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


def mini_stages(seed: int = 20261120, voices: int = 464, scale: float = 1.0) -> tuple[TrainSpec, ...]:
    """The stages of ``wav2vec2-mini``.

    The first learns letters and words, mostly from joined digits. The second
    hears more strings that synthetic voices spoke as one: after the first,
    most errors were words run together ("foursix"). The third goes on with new
    strings at half the rate.

    Args:
        seed: seed of everything that is drawn.
        voices: synthetic training voices.
        scale: factor on every number of steps, for quick trials.
    """

    def steps(count: int) -> int:
        return max(1, round(count * scale))

    first = TrainSpec(steps=steps(5000), alignment_steps=steps(400), stop_after=steps(3000), seed=seed, voices=voices)
    second = TrainSpec(
        steps=steps(3500),
        alignment_steps=0,
        learning_rate=1.2e-3,
        seed=seed + 1,
        voices=voices,
        strings_per_voice=12,
        fsdd_share=0.4,
        string_share=0.75,
        start_from=first.key,
    )
    third = TrainSpec(
        steps=steps(1400),
        alignment_steps=0,
        learning_rate=7e-4,
        seed=seed + 2,
        voices=voices,
        strings_per_voice=12,
        fsdd_share=0.35,
        string_share=0.8,
        start_from=second.key,
    )
    return first, second, third
