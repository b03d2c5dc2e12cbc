"""Fine-tuning in its own process, with checkpoints and exact resume.

Knows nothing about Prefect: progress goes to stdout as one JSON object per line. A
training that was killed goes on at its last checkpoint; every batch, dropout and mask
is a function of (seed, step), so it ends with the same weights.

Run by :mod:`grym.models.finetune.process`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from grym.audio import decode
from grym.config import AudioLimits
from grym.errors import ConfigError, GrymError
from grym.models.finetune.kinds import Example, Kind, read_kind
from grym.models.finetune.recipe import FinetuneData, FinetuneSpec, TrainingClip, read_clips, training_key
from grym.models.lexicon import FILE as LEXICON_FILE
from grym.models.lexicon import read_words
from grym.models.training import alone, emit, follow_parent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXIT_REFUSED: Final = 5
WARMUP: Final = 0.1
MAX_NORM: Final = 1.0
KEPT_BYTES: Final = 1_000_000_000  # of examples; the rest is decoded again in every step


class Finetuner:
    """Network, optimizer, schedule and their checkpoint.

    Args:
        spec: the recipe.
        data: what is heard; a checkpoint of something else is put aside.
        base: folder of the model that is trained.
        out: folder of the checkpoint.
    """

    def __init__(self, spec: FinetuneSpec, data: FinetuneData, base: Path, out: Path) -> None:
        self._spec, self._data, self._base = spec, data, base
        self._key = training_key(spec, data)
        self._checkpoint = out / "checkpoint.pt"
        torch.manual_seed(spec.seed)
        self.kind: Kind = read_kind(base, spec)
        self.network = _prepared(self.kind, spec)
        self._device = next(self.network.parameters()).device
        self._trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self._trained.values(), lr=spec.learning_rate, weight_decay=spec.weight_decay, betas=(0.9, 0.98)
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._share)
        self.step = 0
        self.loss = float("nan")
        self.left_out = 0
        self._kept: dict[TrainingClip, Example] = {}
        if self._checkpoint.is_file():
            self._restore()

    def _share(self, step: int) -> float:
        warm = max(1, round(WARMUP * self._spec.steps))
        rest = max(1, self._spec.steps - warm)
        return min((step + 1) / warm, max(0.0, (self._spec.steps - step) / rest))

    def _restore(self) -> None:
        state = torch.load(self._checkpoint, weights_only=True)
        if state["key"] != self._key:
            kept = self._checkpoint.with_suffix(".refused.pt")
            self._checkpoint.replace(kept)
            emit(event="restart", reason="the checkpoint belongs to another recipe or other data", kept=str(kept))
            return
        with torch.no_grad():
            for name, value in state["trained"].items():
                self._trained[name].copy_(value)
        for buffer, value in state["buffers"].items():
            self.network.get_buffer(buffer).copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.step, self.loss, self.left_out = state["step"], state["loss"], state["left_out"]
        emit(event="resume", step=self.step)

    def save(self) -> None:
        """Write the checkpoint aside and swap it in, so that a kill leaves the old or the new one."""
        aside = self._checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "key": self._key,
                "step": self.step,
                "loss": self.loss,
                "left_out": self.left_out,
                "trained": {name: p.detach() for name, p in self._trained.items()},
                "buffers": _moving(self.network),
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
            },
            aside,
        )
        aside.replace(self._checkpoint)

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self._spec.steps

    def run(self, clips: Sequence[TrainingClip]) -> None:
        """Train to the last step.

        Raises:
            ConfigError: ``no-data``: the model can learn from none of the clips.
        """
        usable = self._look_through(clips)
        if not usable:
            msg = f"The model can learn from none of the {len(clips)} clips."
            hint = "They are too long for it, or their texts hold no letter that it can write."
            raise ConfigError(msg, code="no-data", hint=hint)
        self.network.train()
        for step, batch in _batches(len(usable), self._spec, self.step):
            torch.manual_seed(self._spec.seed + step)
            np.random.seed((self._spec.seed + step) % 2**32)  # noqa: NPY002 - transformers draws its masks here
            self.loss = self._train([clips[usable[i]] for i in batch])
            self.step = step + 1
            last = self.step == self._spec.steps
            if self.step % 10 == 0 or last:
                emit(event="step", step=self.step, loss=round(self.loss, 4))
            if self.step % self._spec.checkpoint_every == 0 or last:
                self.save()

    def _look_through(self, clips: Sequence[TrainingClip]) -> list[int]:
        """Places of the clips that the model can learn from; what they give is kept while there is room."""
        usable, held = [], 0
        for place, clip in enumerate(clips):
            example = self._example(clip)
            if example is None:
                continue
            usable.append(place)
            held += sum(value.nbytes for value in example.values())
            if held < KEPT_BYTES:
                self._kept[clip] = example
        self.left_out = len(clips) - len(usable)
        return usable

    def _example(self, clip: TrainingClip) -> Example | None:
        if clip in self._kept:
            return self._kept[clip]
        audio, _ = decode(Path(clip.path), AudioLimits(), offset=clip.offset, duration=clip.duration)
        if audio.seconds > self._spec.max_seconds:
            return None
        learning = self.network.training
        self.network.eval()  # what is heard by frozen parts is the same in every step
        example = self.kind.example(audio.samples, clip.text)
        self.network.train(learning)
        return example

    def _train(self, batch: Sequence[TrainingClip]) -> float:
        self._optimizer.zero_grad()
        total = 0.0
        for clip in batch:
            example = self._example(clip) or {}
            placed = {key: value.to(self._device) for key, value in example.items()}
            loss = self.kind.loss(self.network, placed) / len(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self._trained.values(), MAX_NORM)
        self._optimizer.step()
        self._schedule.step()
        return total

    def facts(self) -> dict[str, Any]:
        """What the card tells of the training."""
        return {
            "trained": sum(p.numel() for p in self._trained.values()),
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "loss": self.loss,
            "left_out": self.left_out,
        }

    def export(self, folder: Path, texts: Sequence[str]) -> None:
        """Write the model in Hugging Face form, low-rank updates merged, with everything else of the base's folder."""
        facts = self.facts()
        network = self.network.merge_and_unload() if hasattr(self.network, "merge_and_unload") else self.network
        folder.mkdir(parents=True, exist_ok=True)
        network.eval().save_pretrained(folder, safe_serialization=True)
        for file in self._base.iterdir():
            if file.suffix in {".json", ".txt", ".jinja", ".model"} and _is_kept(file, folder, texts):
                shutil.copy(file, folder / file.name)
        record = {"spec": json.loads(self._spec.to_json()), "data": json.loads(self._data.to_json()), **facts}
        (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _prepared(kind: Kind, spec: FinetuneSpec) -> Any:
    """The network with the weights that learn marked, and low-rank updates where they belong."""
    network = kind.network
    if spec.gradient_checkpointing:
        enable = getattr(network, "activation_checkpointing_enable", network.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    if spec.method == "full":
        return network
    own = [name for name, _ in network.named_parameters() if "lora_" in name]
    if own:
        for name, weight in network.named_parameters():
            weight.requires_grad_("lora_" in name)
        return network
    from peft import LoraConfig, get_peft_model

    targets = kind.targets if isinstance(kind.targets, str) else list(kind.targets)
    settings = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]  # it is divided, and need not be whole
        lora_dropout=spec.dropout,
        target_modules=targets,
        modules_to_save=list(kind.heads) or None,
        bias="none",
    )
    return get_peft_model(network, settings)


def _moving(network: Any) -> dict[str, torch.Tensor]:
    """Buffers that training moves: means and variances of batch norms."""
    return {name: value for name, value in network.named_buffers() if "running_" in name or "num_batches" in name}


def _batches(count: int, spec: FinetuneSpec, first: int) -> Iterator[tuple[int, list[int]]]:
    """Places of the clips of each step: every clip once in each round, rounds in orders drawn from the seed."""
    orders: dict[int, list[int]] = {}

    def at(place: int) -> int:
        turn, rest = divmod(place, count)
        if turn not in orders:
            orders[turn] = np.random.default_rng([spec.seed, turn]).permutation(count).tolist()
        return orders[turn][rest]

    for step in range(first, spec.steps):
        yield step, [at(step * spec.batch_clips + i) for i in range(spec.batch_clips)]


def _is_kept(file: Path, folder: Path, texts: Sequence[str]) -> bool:
    """Whether a file of the base belongs to the new model: not what was just written, and no list that is too short."""
    if file.name in {"config.json", "training.json", "conversion.json"} or file.name.startswith("model.safetensors"):
        return False
    if file.name == LEXICON_FILE:
        listed = set(read_words(file.parent))
        return all(word in listed for text in texts for word in text.lower().split())
    return file.name == "generation_config.json" or not (folder / file.name).exists()


def main() -> int:
    """Command line of the training process; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fine-tune a model.")
    parser.add_argument("--spec", required=True, help="FinetuneSpec as a JSON object")
    parser.add_argument("--data", required=True, help="FinetuneData as a JSON object")
    parser.add_argument("--base", type=Path, required=True, help="folder of the model that is trained")
    parser.add_argument("--clips", type=Path, required=True, help="list of clips, as the flow writes it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=0, help="of torch; default: the cores it may use")
    parser.add_argument("--parent", type=int, default=None, help="process id to end with")
    options = parser.parse_args()
    follow_parent(options.parent)
    try:
        return alone(options.out, lambda: _run(options))
    except GrymError as error:
        import dataclasses

        emit(event="failed", error=dataclasses.asdict(error.record()))
        return EXIT_REFUSED


def _run(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
    spec, data = FinetuneSpec.from_json(options.spec), FinetuneData.from_json(options.data)
    clips = read_clips(options.clips)
    trainer = Finetuner(spec, data, options.base, options.out)
    if not trainer.finished:
        trainer.run(clips)
    trainer.export(options.out / "model", [clip.text for clip in clips])
    emit(event="done", step=trainer.step, folder=str(options.out / "model"), **trainer.facts())


if __name__ == "__main__":
    sys.exit(main())
