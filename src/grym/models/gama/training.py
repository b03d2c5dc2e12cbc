"""Training of ``gama-mini``, one stage in a process of its own, with checkpoints and exact resume.

Knows nothing about Prefect: progress goes to stdout as one JSON object per line. There is no dropout, and every batch
is a function of (seed, step), so that a training that was killed goes on exactly.

Run: ``python -m grym.models.gama.training --fsdd FOLDER --out FOLDER --spec '{"part": "encoder"}'``
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer

from grym.corpus.recorded import voices_sha256
from grym.corpus.synthesizers import installed
from grym.errors import ConfigError
from grym.models import muon
from grym.models import training as shared
from grym.models.gama.batches import SHORT_COLUMNS, SHORT_SHARE, FrontEnd, Material, Speller, corpus
from grym.models.gama.mini import Heads, mini_config
from grym.models.gama.modeling import GamaModel
from grym.models.gama.pools import facts, kept, sound_items, sounds_fingerprint, speech_items
from grym.models.gama.recipe import GamaSpec
from grym.models.gama.spelling import learn
from grym.models.gama.team import Team
from grym.models.recipe import TrainData, exported
from grym.models.training import emit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grym.models.gama.batches import Dialogue
    from grym.models.gama.mini import Targets
    from grym.models.gama.pools import Item

WARM_UP: Final = 0.05  # share of the steps in which the learning rate rises
REPORT_EVERY: Final = 20
TOKENIZER_CLIPS: Final = 3000
AUXILIARY: Final = "auxiliary.safetensors"
MEETING: Final = "meeting"  # file by which the processes of a training find each other
LEAST_RATE: Final = 0.02  # of the peak, at the last step


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from.

    Attributes:
        heard: spectrograms ``shape = (batch, frames, bins)``, or pooled tokens where the encoder is frozen.
        targets: of the auxiliary heads.
        dialogue: prompts and answers; ``None`` where the encoder learns alone.
    """

    heard: torch.Tensor
    targets: Targets | None
    dialogue: Dialogue | None


class Learner(nn.Module):
    """The model and the heads, as one module whose weights are named once."""

    def __init__(self, spec: GamaSpec) -> None:
        super().__init__()
        self.model: GamaModel = GamaModel._from_config(mini_config(spec), attn_implementation="eager")  # noqa: SLF001
        self.heads = Heads(spec.width, len(facts()))
        for block in self.model.audio_tower.blocks:
            block.eager = True
        for name, p in self.model.named_parameters():
            p.requires_grad_(name.startswith("audio_tower") == (spec.part == "encoder") or spec.part == "joint")
        self.heads.requires_grad_(spec.part != "language")

    def learnt(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Weights that this stage changes."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def hear(self, spectrogram: torch.Tensor) -> torch.Tensor:
        """Pooled tokens, ``shape = (batch, columns, width)``."""
        hidden, _ = self.model.audio_tower(spectrogram)
        return self.model.audio_tower.pool(hidden, self.model.config.pool_divisor)

    def forward(self, batch: Batch, spec: GamaSpec, *, align: bool) -> dict[str, torch.Tensor]:
        """Losses by name, weighted."""
        pooled = batch.heard if spec.part == "language" else self.hear(batch.heard)
        found: dict[str, torch.Tensor] = {}
        if batch.targets is not None:
            for name, loss in self.heads.losses(pooled, batch.targets, align=align).items():
                found[name] = spec.auxiliary * loss
        if batch.dialogue is not None:
            given = batch.dialogue
            tokens = self.model.understand(pooled, []).tokens[given.clips]
            logits = self.model(input_ids=given.ids, attention_mask=given.mask, audio=tokens).logits
            found["answer"] = answer_loss(logits, given.labels, spec.short_answers)
        return found


def answer_loss(logits: torch.Tensor, labels: torch.Tensor, short_answers: float) -> torch.Tensor:
    """Weighted mean cross-entropy of the next token where there is a label.

    Args:
        logits: ``shape = (batch, tokens, vocabulary)``.
        labels: ids, -100 where none, ``shape = (batch, tokens)``.
        short_answers: a token of an answer of n tokens weighs ``n ** -short_answers``.
    """
    wanted = labels[:, 1:]
    each = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2).float(), wanted, reduction="none")
    there = (wanted != -100).float()  # noqa: PLR2004 - the ignored index of cross-entropy
    weights = there * there.sum(dim=1, keepdim=True).clamp(min=1) ** -short_answers
    return (each * weights).sum() / weights.sum()


class Trainer:
    """Model, optimizer, schedule and their checkpoint.

    Args:
        spec: the recipe of the stage.
        out: folder of the checkpoint and of the exported model.
        data: what the training hears; a checkpoint that heard something else is put aside.
        start: exported model of the stage before.
        team: who trains together; default this process alone.
    """

    def __init__(
        self,
        spec: GamaSpec,
        out: Path,
        data: TrainData | None = None,
        start: Path | None = None,
        team: Team | None = None,
    ) -> None:
        self._spec, self._out, self._data = spec, out, data
        self._team = team or Team()
        self._checkpoint = out / "checkpoint.pt"
        torch.manual_seed(spec.seed)
        self.learner = Learner(spec)
        self._tokenizer: Any = None
        if start is not None:
            self._continue(start)
        groups = muon.groups(self.learner.learnt(), spec.weight_decay)
        self._optimizer = muon.Muon(groups, spec.learning_rate)
        self._average = {name: p.detach().clone() for name, p in self.learner.learnt()}
        self._front = FrontEnd(self.learner.model.config.audio_config)
        self._features: np.ndarray[Any, np.dtype[np.float16]] | None = None
        self.step = 0
        self._last = spec.stop_after or spec.steps
        if self._checkpoint.is_file():
            self._restore()

    def _continue(self, start: Path) -> None:
        weights = {f"model.{k}": v.float() for k, v in load_file(start / "model.safetensors").items()}
        heads = {f"heads.{k}": v.float() for k, v in load_file(start.parent / AUXILIARY).items()}
        missing = self.learner.load_state_dict({**weights, **heads}, strict=False)
        wrong = [*missing.unexpected_keys, *(k for k in missing.missing_keys if not k.endswith("lm_head.weight"))]
        if wrong:
            msg = f"The stage before is of another architecture, for example {wrong[0]}."
            raise ConfigError(msg, code="wrong-stage", hint="Train the stages of one recipe in order.")
        self._tokenizer = AutoTokenizer.from_pretrained(start, local_files_only=True)

    def _restore(self) -> None:
        state = torch.load(self._checkpoint, weights_only=True)
        reason = self._refusal(state)
        if reason:
            kept_as = self._checkpoint.with_suffix(".refused.pt")
            self._checkpoint.replace(kept_as)
            emit(event="restart", reason=reason, kept=str(kept_as))
            return
        self.learner.load_state_dict(state["learner"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average = state["average"]
        self.step = state["step"]
        emit(event="resume", step=self.step)

    def _refusal(self, state: dict[str, Any]) -> str:
        if state["key"] != self._spec.key:
            return "the checkpoint belongs to another specification"
        heard = TrainData.from_record(state["data"])
        difference = heard.difference(self._data) if heard is not None and self._data is not None else ""
        return f"the checkpoint was trained on other data: {difference}" if difference else ""

    def save(self) -> None:
        """Write the checkpoint aside and swap it in, so that a kill leaves the old or the new one."""
        aside = self._checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "key": self._spec.key,
                "data": None if self._data is None else dataclasses.asdict(self._data),
                "step": self.step,
                "learner": self.learner.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "average": self._average,
            },
            aside,
        )
        aside.replace(self._checkpoint)

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self._last

    def run(self, material: Material) -> None:
        """Train to the last step."""
        material = self._prepare(material)
        self.learner.train()
        started, seen = time.monotonic(), self.step
        for step, batch in self._batches(material):
            losses = self._train(step, batch)
            self.step = step + 1
            if self.step % REPORT_EVERY == 0 and self._team.leads:
                rate = (self.step - seen) / (time.monotonic() - started)
                emit(
                    event="step",
                    step=self.step,
                    steps=self._last,
                    loss=round(sum(losses.values()), 4),
                    parts={name: round(value, 4) for name, value in losses.items()},
                    steps_per_second=round(rate, 3),
                )
            if (self.step % self._spec.checkpoint_every == 0 or self.finished) and self._team.leads:
                self.save()

    def _prepare(self, material: Material) -> Material:
        """The tokenizer of the first stage, and the features of a frozen encoder with the clips that it heard."""
        if self._tokenizer is None:
            sounds = [item for item in material.items if item.events][:TOKENIZER_CLIPS]
            self._tokenizer = learn(corpus(np.random.default_rng([self._spec.seed, 1]), sounds))
        if self._spec.part == "language":
            material = material.fewer(self._spec.listened) if self._spec.listened else material
            self._features = self._team.shared(self._listen(material))
        return material

    @torch.no_grad()
    def _listen(self, material: Material) -> np.ndarray[Any, np.dtype[np.float16]]:
        """What the encoder gives for this member's share of the clips; the rest is zero."""
        config = self.learner.model.config.audio_config
        found = np.zeros((len(material.items), config.columns, config.hidden_size), np.float16)
        for first in range(128 * self._team.rank, len(found), 128 * self._team.size):
            numbers = range(first, min(first + 128, len(found)))
            waves = [material.wave(n, np.random.default_rng([self._spec.seed, 2, n])) for n in numbers]
            found[first : first + 128] = self.learner.hear(self._front(waves, self._spec.target_frames)).half().numpy()
        return found

    def batch(self, material: Material, step: int) -> Batch:
        """This member's share of the batch of a step."""
        spec = self._spec
        rng = np.random.default_rng([spec.seed, step])
        short = spec.part == "encoder" and rng.random() < SHORT_SHARE
        numbers = material.choose(rng, spec.batch, short=short)[self._team.rank :: self._team.size]
        rng = np.random.default_rng([spec.seed, step, self._team.rank])
        columns = SHORT_COLUMNS if short else self.learner.model.config.audio_config.columns
        columns = min(columns, self.learner.model.config.audio_config.columns)
        if self._features is not None:
            heard = torch.from_numpy(self._features[numbers].astype(np.float32))
        else:
            waves = [material.wave(n, rng) for n in numbers]
            heard = self._front(waves, columns * self.learner.model.config.audio_config.patch_size)
        dialogue = None
        if spec.part != "encoder":
            dialogue = Speller(self._tokenizer)([material.exercises(n, rng, spec) for n in numbers])
        return Batch(heard, None if spec.part == "language" else material.targets(numbers, columns), dialogue)

    def _batches(self, material: Material) -> Iterator[tuple[int, Batch]]:
        ready: queue.Queue[tuple[int, Batch] | BaseException] = queue.Queue(maxsize=4)

        def prepare() -> None:
            try:
                for step in range(self.step, self._last):
                    ready.put((step, self.batch(material, step)))
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                ready.put(error)

        threading.Thread(target=prepare, daemon=True).start()
        for _ in range(self.step, self._last):
            found = ready.get()
            if isinstance(found, BaseException):
                raise found
            yield found

    def _train(self, step: int, batch: Batch) -> dict[str, float]:
        for group in self._optimizer.param_groups:
            group["lr"] = self._spec.learning_rate * rate(step, self._spec.steps)
        losses = self.learner(batch, self._spec, align=step < self._spec.alignment_steps)
        total = torch.stack(list(losses.values())).sum()
        self._optimizer.zero_grad()
        torch.autograd.backward(total)
        self._team.average([p.grad for _, p in self.learner.learnt() if p.grad is not None])
        torch.nn.utils.clip_grad_norm_([p for _, p in self.learner.learnt()], 2.0)
        self._optimizer.step()
        decay = min(self._spec.average_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, p in self.learner.learnt():
                self._average[name].lerp_(p, 1 - decay)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def export(self, folder: Path) -> None:
        """Write the averaged weights in half precision as a folder in Hugging Face form, the heads beside it."""
        export = Learner(self._spec)
        export.load_state_dict({**self.learner.state_dict(), **self._average}, strict=True)
        export.model.tie_weights()
        folder.mkdir(parents=True, exist_ok=True)
        export.model.half().save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        heads = {k: v.half().contiguous() for k, v in export.heads.state_dict().items()}
        save_file(heads, folder.parent / AUXILIARY)
        facts_ = {
            "spec": dataclasses.asdict(self._spec),
            "key": self._spec.key,
            "step": self.step,
            "sounds": sounds_fingerprint(),
        }
        if self._data is not None:
            facts_["data"] = dataclasses.asdict(self._data)
        (folder / "training.json").write_text(json.dumps(facts_, indent=2) + "\n", encoding="utf-8")


def rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a line up, then half a cosine down."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def gather(spec: GamaSpec, fsdd: Path | None, cache: Path) -> Material:
    """The pools of a recipe, made or read."""
    name = f"sounds-{spec.sounds}-{spec.sound_seed}-{sounds_fingerprint()}"
    sounds = kept(cache, name, lambda: sound_items(spec.sounds, spec.sound_seed))
    return Material(sounds, kept(cache, _speech_name(spec, fsdd), lambda: _speech(spec, fsdd, cache)))


def _speech(spec: GamaSpec, fsdd: Path | None, cache: Path) -> list[Item]:
    longest = spec.target_frames * 160
    return speech_items(shared.build_bank(spec, fsdd, None, cache), spec.speech, spec.voice_seed, longest)


def _speech_name(spec: GamaSpec, fsdd: Path | None) -> str:
    said = {
        name: getattr(spec, name)
        for name in (
            "speech", "voices", "voice_seed", "strings_per_voice", "fsdd_share", "recorded_share", "string_share",
            "fsdd_warps", "augmentation", "leave_out", "target_frames",
        )
    }  # fmt: skip
    said["engines"] = voices_sha256(installed()) if spec.recorded_share else ""
    said["real"] = TrainData.of(spec, fsdd, None).fsdd_sha256
    return f"speech-{hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]}"


def main() -> int:
    """Command line of the training process; returns the exit code."""
    parser = argparse.ArgumentParser(description="Train one stage of gama-mini.")
    parser.add_argument("--spec", default="{}", help="fields of GamaSpec as a JSON object")
    parser.add_argument("--fsdd", type=Path, default=None)
    parser.add_argument("--start", type=Path, default=None, help="folder of the exported stage to start from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="that train together")
    parser.add_argument("--rank", type=int, default=0, help="of this process among them; for its own use")
    parser.add_argument("--parent", type=int, default=None, help="process id to end with")
    options = parser.parse_args()
    shared.follow_parent(options.parent)
    if options.rank:
        _train(options)
        return 0
    return shared.alone(options.out, lambda: _lead(options))


def _lead(options: argparse.Namespace) -> int:
    """Train with as many processes as were asked for; each has one thread, which beats one process with several."""
    (options.out / MEETING).unlink(missing_ok=True)
    command = [sys.executable, "-m", "grym.models.gama.training", *sys.argv[1:]]
    others = [
        subprocess.Popen([*command, "--rank", str(rank), "--parent", str(os.getpid())])
        for rank in range(1, options.processes)
    ]
    try:
        _train(options)
    finally:
        for process in others:
            process.terminate()
            process.wait()
    return 0


def _train(options: argparse.Namespace) -> None:
    spec = GamaSpec.from_json(options.spec)
    torch.set_num_threads(1)
    data = TrainData.of(spec, options.fsdd, None)
    team = Team.meet(options.out / MEETING, options.rank, options.processes)
    if exported(options.out / "model", spec, data):
        if team.leads:
            emit(event="done", step=spec.stop_after or spec.steps, folder=str(options.out / "model"))
        return
    trainer = Trainer(spec, options.out, data, options.start, team)
    if not (trainer.finished and (options.out / "model" / "training.json").is_file()):
        if team.leads:
            emit(event="data", **dataclasses.asdict(data))
            gather(spec, options.fsdd, options.out.parent / "voices")
        team.wait()
        trainer.run(gather(spec, options.fsdd, options.out.parent / "voices"))
        if team.leads:
            trainer.export(options.out / "model")
    team.wait()
    if team.leads:
        emit(event="done", step=trainer.step, folder=str(options.out / "model"))


if __name__ == "__main__":
    sys.exit(main())
