"""Everything that decides the result of a fine-tuning, and what it leaves behind. Imports no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from grym.compare.evaluate import SliceRate

Method = Literal["lora", "full"]
ADAPTERS: Final = ("wav2vec2", "seq2seq", "audio_lm", "gama")


@dataclass(frozen=True, slots=True)
class FinetuneSpec:
    """A recipe.

    Attributes:
        adapter: of the model that is trained: one of :data:`ADAPTERS`.
        method: ``lora`` trains low-rank updates beside the linear layers of the transformer and the output layer of a
            CTC model; ``full`` trains every weight, but not the convolutions at a CTC model's beginning.
        steps: optimizer steps in all.
        learning_rate: peak, after a tenth of the steps; then it falls to zero in a line.
        batch_clips: clips in a step; they go through the network one by one, so that none is padded.
        rank: of LoRA.
        alpha: of LoRA; the update is scaled by alpha / rank.
        dropout: in front of LoRA.
        weight_decay: AdamW's.
        seed: of the order of clips, of dropout and of new weights.
        checkpoint_every: steps between checkpoints.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        instruction: what a generative model is asked about each clip; empty asks it to transcribe.
        language: code of two letters for models of several languages.
        max_seconds: longer clips are left out.
    """

    adapter: str = "wav2vec2"
    method: Method = "lora"
    steps: int = 200
    learning_rate: float = 1e-3
    batch_clips: int = 8
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    weight_decay: float = 0.0
    seed: int = 20261128
    checkpoint_every: int = 50
    gradient_checkpointing: bool = False
    instruction: str = ""
    language: str = ""
    max_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ConfigError: ``bad-option``; it names the field.
        """
        if self.adapter not in ADAPTERS:
            msg = f"Models of the adapter {self.adapter!r} cannot be fine-tuned; {', '.join(ADAPTERS)} can."
            raise ConfigError(msg, code="cannot-finetune", hint="Choose another model.")
        if self.method not in {"lora", "full"}:
            msg = f"method is {self.method!r}; it has to be 'lora' or 'full'."
            raise ConfigError(msg, code="bad-option", hint="LoRA needs less memory; full may learn more.")
        for name in ("steps", "learning_rate", "batch_clips", "rank", "alpha", "checkpoint_every", "max_seconds"):
            if getattr(self, name) <= 0:
                msg = f"{name} is {getattr(self, name)}, and has to be positive."
                raise ConfigError(msg, code="bad-option", hint="The default is a good start.")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a recipe that :meth:`to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True)
class FinetuneData:
    """What a fine-tuning hears and starts from.

    Attributes:
        dataset: its name.
        clips: number of training clips.
        seconds: of audio in all.
        fingerprint: hash of the contents and texts of these clips, in any order.
        base: registered name of the model that is trained.
        base_sha256: hash of its weights.
    """

    dataset: str
    clips: int
    seconds: float
    fingerprint: str
    base: str
    base_sha256: str

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a record that :meth:`to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def training_key(spec: FinetuneSpec, data: FinetuneData) -> str:
    """Identity of a fine-tuning: a checkpoint of another one is not gone on from."""
    return hashlib.sha256(f"{spec.to_json()}\n{data.to_json()}".encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class TrainingClip:
    """A line of the list that the training process reads; times in seconds."""

    path: str
    text: str
    offset: float = 0.0
    duration: float | None = None


def write_clips(clips: Sequence[TrainingClip], file: Path) -> None:
    """One JSON object per line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(dataclasses.asdict(clip)) + "\n" for clip in clips), encoding="utf-8")


def read_clips(file: Path) -> list[TrainingClip]:
    """Read what :func:`write_clips` wrote."""
    return [TrainingClip(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def render_card(
    name: str,
    spec: FinetuneSpec,
    data: FinetuneData,
    facts: Mapping[str, Any],
    rates: Mapping[str, Sequence[SliceRate]],
    licence: str,
) -> str:
    """The model card as Markdown: recipe, data and measured numbers, nothing else.

    Args:
        name: of the new model.
        spec: its recipe.
        data: what it heard.
        facts: of the training: ``trained`` and ``parameters``, ``loss`` of the last step, ``left_out`` clips.
        rates: title of a measurement -> rates; the first rate is the one over all clips.
        licence: of the model it was made from.
    """
    table = "\n".join(
        f"| {title} | {rate.clips} | {rate.failures} | {rate.words} | {_percent(rate.wer)} | "
        f"{_percent(rate.ci_low)} to {_percent(rate.ci_high)} |"
        for title, found in rates.items()
        for rate in found[:1]
    )
    return f"""# {name}

`{data.base}` fine-tuned by {"LoRA, merged into the weights" if spec.method == "lora" else "training all weights"}: \
{facts["trained"]:,} of {facts["parameters"]:,} parameters trained, {spec.steps} steps of {spec.batch_clips} clips.
Licence of the model it was made from: {licence}.

## Data

{data.clips} clips ({data.seconds:.0f} s) of `{data.dataset}`, fingerprint `{data.fingerprint}`; {facts["left_out"]}
left out as too long or without a letter that the model can write. Weights it started from: SHA-256
`{data.base_sha256}`.

## Recipe

```json
{json.dumps(dataclasses.asdict(spec), indent=2)}
```

Loss of the last step: {facts["loss"]:.4f}.

## Measured

Word error rate on clips that were not trained on, with a 95 % interval clustered by speaker where speakers are known.
People who speak in these clips may also speak in the training clips.

| | clips | no answer | words | WER % | 95 % interval |
|---|---|---|---|---|---|
{table}
"""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"
