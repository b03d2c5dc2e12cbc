"""Training of a small ``Wav2Vec2ForCTC`` from scratch, in its own process, with checkpoints and exact resume.

Knows nothing about Prefect: progress goes to stdout as one JSON object per line,
and the ``train`` flow reads it. A training that was killed goes on at its last
checkpoint; every batch is a function of (seed, step).

CTC alone stays on a plateau (all blank) for thousands of steps. The first steps
therefore use frame-level cross-entropy against a uniform alignment of the letters
inside each joined digit, whose borders are known; then CTC takes over.

Run: ``python -m grym.models.training --fsdd FOLDER --out FOLDER --steps 6000``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import pickle
import queue
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from grym.config import AudioLimits
from grym.corpus.augment import PRESETS
from grym.corpus.bank import Bank, Clip, Take, load_fsdd, load_manifest, synthesize
from grym.corpus.digits import RATE, WORDS, Samples
from grym.corpus.recorded import kept, recorded_takes, voices_sha256
from grym.corpus.synthesizers import installed
from grym.errors import ConfigError
from grym.models import muon
from grym.models._dense import has_bf16
from grym.models.lead_in import FILE as LEAD_IN_FILE
from grym.models.lexicon import FILE as LEXICON_FILE
from grym.models.recipe import FSDD_FIRST_TAKE, TrainData, TrainSpec, exported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from grym.models.gama.recipe import GamaSpec

# Training clips lie in longer ones with background around them, so the network expects some.
LEAD_IN_SECONDS: Final = 0.1
VOCABULARY: Final = ("<pad>", "<s>", "</s>", "<unk>", "|", *"etaonihsrdlumwcfgypbvk'xjqz")
BLANK: Final = 0
FRAME: Final = 320
PARENT_CHECK_SECONDS: Final = 0.5
# A child whose parent was killed lives on for up to PARENT_CHECK_SECONDS and keeps the lock meanwhile.
LOCK_SECONDS: Final = 5.0
AHEAD: Final = 4  # batches that are composed ahead by each helper
EXIT_BUSY: Final = 3
EXIT_PARENT_DIED: Final = 4


def mini_config() -> Wav2Vec2Config:
    """The architecture of ``wav2vec2-mini``: 2.25 M parameters, 20 ms frames, group norm as in wav2vec2-base."""
    return Wav2Vec2Config(
        vocab_size=len(VOCABULARY),
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=768,
        conv_dim=(64, 96, 128, 160, 192),
        conv_kernel=(10, 4, 4, 4, 4),
        conv_stride=(5, 4, 4, 2, 2),
        num_conv_pos_embeddings=64,
        num_conv_pos_embedding_groups=16,
        feat_extract_norm="group",
        hidden_dropout=0.1,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        apply_spec_augment=True,
        mask_time_prob=0.06,
        mask_time_length=5,
        mask_time_min_masks=0,
        mask_feature_prob=0.06,
        mask_feature_length=12,
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
        pad_token_id=BLANK,
        bos_token_id=1,
        eos_token_id=2,
    )


def normalize(samples: Samples) -> Samples:
    """Zero mean, unit variance, exactly as ``Wav2Vec2FeatureExtractor`` does it."""
    normalized: Samples = ((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)).astype(np.float32)
    return normalized


def labels(words: tuple[str, ...]) -> list[int]:
    """Token ids of the words, joined by the word delimiter."""
    return [VOCABULARY.index(letter) for letter in "|".join(words)]


def frame_targets(clip: Clip, frames: int) -> list[int]:
    """One token per 20 ms frame: the letters of each word spread evenly over its span, blank elsewhere."""
    targets = [BLANK] * frames
    for start, end, word in clip.spans:
        first, last = start // FRAME, min(frames, max(end // FRAME, start // FRAME + 1))
        for frame in range(first, last):
            targets[frame] = VOCABULARY.index(word[(frame - first) * len(word) // (last - first)])
        if last < frames and targets[last] == BLANK:
            targets[last] = VOCABULARY.index("|")
    return targets


def emit(**event: object) -> None:
    """Write one event line for whoever started this process."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Trainer:
    """Model, optimizer, schedule and their checkpoint.

    Args:
        spec: the recipe.
        out: folder of the checkpoint.
        data: what the training hears; a checkpoint that heard something else is put aside.
        start: exported model to start from; default random weights.
        device: where the network is trained.
    """

    def __init__(
        self, spec: TrainSpec, out: Path, data: TrainData, start: Path | None = None, device: str = "cpu"
    ) -> None:
        self._spec = spec
        self._data: TrainData | None = data
        self._checkpoint = out / "checkpoint.pt"
        torch.manual_seed(spec.seed)
        self.model = Wav2Vec2ForCTC(mini_config())
        if start is not None:
            self.model.load_state_dict(load_file(start / "model.safetensors"))
        self.model.set_attn_implementation("eager")  # sdpa takes 43 % of a step on CPU
        self._device = device
        self.model.to(device)
        self._optimizer = _optimizer(self.model, spec)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, spec.learning_rate, total_steps=spec.steps + 1, pct_start=0.12, cycle_momentum=False
        )
        self._average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.step = 0
        self._last = spec.stop_after or spec.steps
        if self._checkpoint.is_file():
            self._restore()

    def _restore(self) -> None:
        try:
            state = torch.load(self._checkpoint, weights_only=True, map_location=self._device)
            reason = self._refusal(state)
        except (pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError) as error:
            reason = f"the checkpoint cannot be read ({type(error).__name__})"
        if reason:
            # Hours of work: a person who only forgot a setting can put it back.
            kept = self._checkpoint.with_suffix(".refused.pt")
            self._checkpoint.replace(kept)
            emit(event="restart", reason=reason, kept=str(kept))
            return
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._average = state["average"]
        self.step = state["step"]
        # What a checkpoint without a record heard stays unknown, whatever it hears from here on.
        self._data = TrainData.from_record(state.get("data"))
        emit(event="resume", step=self.step)

    def _refusal(self, state: dict[str, Any]) -> str:
        """Why a checkpoint cannot be gone on from; empty if it can."""
        if state["key"] != self._spec.key:
            return "the checkpoint belongs to another specification"
        heard = TrainData.from_record(state.get("data"))
        if heard is None or self._data is None:
            return ""
        difference = heard.difference(self._data)
        return f"the checkpoint was trained on other data: {difference}" if difference else ""

    def save(self) -> None:
        """Write the checkpoint aside and swap it in, so that a kill leaves the old or the new one."""
        aside = self._checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "key": self._spec.key,
                "data": self._record(),
                "step": self.step,
                "model": self.model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
                "average": self._average,
            },
            aside,
        )
        aside.replace(self._checkpoint)

    def _record(self) -> dict[str, Any] | None:
        return None if self._data is None else dataclasses.asdict(self._data)

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self._last

    def run(self, bank: Bank, helpers: int = 0) -> None:
        """Train to the last step.

        Args:
            bank: what batches are composed from.
            helpers: processes that compose them; 0 composes in a thread of this one, which feeds one or two cores.
        """
        self.model.train()
        started, seen = time.monotonic(), self.step
        steps = range(self.step, self._last)
        compose = _Composer(bank, self._spec)
        batches = in_order(compose, steps, helpers) if helpers else _ahead(compose, steps)
        for step, clips in zip(steps, batches, strict=True):
            # Dropout and masks are drawn from the step, so that a resumed run repeats them.
            torch.manual_seed(self._spec.seed + step)
            np.random.seed((self._spec.seed + step) % 2**32)  # noqa: NPY002 - transformers draws its masks here
            loss = self._train(clips, align=step < self._spec.alignment_steps)
            self.step = step + 1
            if self.step % 50 == 0:
                rate = (self.step - seen) / (time.monotonic() - started)
                emit(
                    event="step",
                    step=self.step,
                    steps=self._last,
                    loss=round(loss, 4),
                    steps_per_second=round(rate, 3),
                )
            if self.step % self._spec.checkpoint_every == 0 or self.step == self._last:
                self.save()

    def _train(self, clips: list[Clip], *, align: bool) -> float:
        device = self._device
        waves = torch.from_numpy(np.stack([normalize(clip.samples) for clip in clips])).to(device)
        # Without the instructions for it bfloat16 is emulated: ten times slower than float32, measured on AVX2.
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu" or has_bf16()):
            logits = self.model(waves).logits
        scores = logits.float().log_softmax(-1)
        frames = scores.shape[1]
        if align:
            targets = torch.tensor([frame_targets(clip, frames) for clip in clips], device=device)
            loss = torch.nn.functional.nll_loss(scores.flatten(0, 1), targets.flatten())
        else:
            tokens = [labels(clip.words) for clip in clips]
            sizes = torch.tensor([len(t) for t in tokens])
            flat = torch.tensor([token for t in tokens for token in t], device=device)
            loss = torch.nn.functional.ctc_loss(
                scores.transpose(0, 1), flat, torch.full((len(clips),), frames), sizes, blank=BLANK, zero_infinity=True
            )
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        decay = min(self._spec.average_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self._average[name].lerp_(value, 1 - decay)
        return float(loss.detach())

    def export(self, folder: Path) -> None:
        """Write the averaged weights as a Hugging Face folder: config, tokenizer, feature extractor, safetensors."""
        model = Wav2Vec2ForCTC(mini_config())
        model.load_state_dict({name: value.cpu() for name, value in self._average.items()})
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = folder / "vocab.json"
        vocabulary.write_text(json.dumps({token: i for i, token in enumerate(VOCABULARY)}), encoding="utf-8")
        tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary), word_delimiter_token="|")  # noqa: S106
        extractor = Wav2Vec2FeatureExtractor(
            feature_size=1, sampling_rate=RATE, padding_value=0.0, do_normalize=True, return_attention_mask=False
        )
        Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
        model.save_pretrained(folder, safe_serialization=True)
        facts = {"spec": dataclasses.asdict(self._spec), "key": self._spec.key, "step": self.step}
        if self._data is not None:
            facts["data"] = self._record()
        (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        (folder / LEAD_IN_FILE).write_text(json.dumps({"seconds": LEAD_IN_SECONDS}) + "\n", encoding="utf-8")
        # A manifest may hold any words, and whoever gives one wants a model that spells.
        if self._data is None or not self._data.manifest:
            (folder / LEXICON_FILE).write_text(json.dumps(WORDS) + "\n", encoding="utf-8")


@dataclasses.dataclass(frozen=True, slots=True)
class _Composer:
    """The batch of a step; also in another process."""

    bank: Bank
    spec: TrainSpec

    def __call__(self, step: int) -> list[Clip]:
        return self.bank.batch(self.spec.seed, step, joined_only=step < self.spec.alignment_steps)


def _ahead(compose: Callable[[int], list[Clip]], steps: range) -> Iterator[list[Clip]]:
    ready: queue.Queue[list[Clip]] = queue.Queue(maxsize=4)

    def fill() -> None:
        for step in steps:
            ready.put(compose(step))

    threading.Thread(target=fill, daemon=True).start()
    for _ in steps:
        yield ready.get()


_composer: Callable[[int], list[Clip]] | None = None  # of a helper


def _begin(compose: Callable[[int], list[Clip]], parent: int) -> None:
    global _composer  # noqa: PLW0603 - a helper gets it once, not with every step
    _composer = compose
    follow_parent(parent)


def _compose(step: int) -> list[Clip]:
    assert _composer is not None  # noqa: S101 - _begin has run in this process
    return _composer(step)


def in_order(compose: Callable[[int], list[Clip]], steps: range, helpers: int) -> Iterator[list[Clip]]:
    """What ``compose`` gives for each step, from several processes, some steps ahead; a GPU waits for nothing else.

    Args:
        compose: a function of the step alone.
        steps: in this order.
        helpers: processes; they are forked, so that they share what ``compose`` holds.
    """
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(helpers, context, _begin, (compose, os.getpid())) as pool:
        waiting: deque[Future[list[Clip]]] = deque()
        for step in steps:
            waiting.append(pool.submit(_compose, step))
            if len(waiting) > AHEAD * helpers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _optimizer(model: torch.nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    if spec.optimizer == "muon":
        return muon.Muon(muon.groups(model.named_parameters(), spec.weight_decay), spec.learning_rate)
    if spec.optimizer != "adamw":
        msg = f"There is no optimizer {spec.optimizer!r}; known are adamw, muon."
        raise ConfigError(msg, code="unknown-option")
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decay, "weight_decay": spec.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=spec.learning_rate,
        betas=(0.9, 0.98),
    )


def build_bank(
    spec: TrainSpec | GamaSpec, fsdd: Path | None, manifest: Path | None = None, cache: Path | None = None
) -> Bank:
    """Real takes, synthetic voices and a manifest's clips, each where it is given, in the shares of the recipe."""
    if spec.augmentation not in PRESETS:
        msg = f"There is no augmentation {spec.augmentation!r}; known are {', '.join(sorted(PRESETS))}."
        raise ConfigError(msg, code="unknown-option")
    real: list[Take] = []
    if fsdd is not None and spec.fsdd_share:
        real = load_fsdd(
            fsdd, leave_out=spec.leave_out, first_take=FSDD_FIRST_TAKE, warps=spec.fsdd_warps, seed=spec.seed
        )
    rest = 1.0 - spec.fsdd_share - spec.recorded_share
    groups = [(real, spec.fsdd_share)]
    seed = spec.voice_seed
    if spec.recorded_share:
        name = f"recorded-{voices_sha256(installed())[:12]}-{seed}"
        groups.append((kept(cache, name, lambda: recorded_takes(seed)), spec.recorded_share))
    name = f"espeak-{spec.voices}-{spec.strings_per_voice}-{seed}"
    groups.append((kept(cache, name, lambda: synthesize(spec.voices, spec.strings_per_voice, seed)), rest))
    if manifest is not None:
        groups.append((load_manifest(manifest, AudioLimits()), rest))
    return Bank(groups, PRESETS[spec.augmentation], spec.batch_seconds, spec.string_share)


def main() -> int:
    """Command line of the training process; returns the exit code."""
    parser = argparse.ArgumentParser(description="Train wav2vec2-mini.")
    parser.add_argument("--spec", default="{}", help="fields of TrainSpec as a JSON object")
    parser.add_argument("--fsdd", type=Path, default=None)
    parser.add_argument("--manifest", type=Path, default=None, help="further clips, as CSV or JSONL")
    parser.add_argument("--start", type=Path, default=None, help="folder of the exported stage to start from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=0, help="of torch; default: the cores it may use")
    parser.add_argument("--device", default="auto", help="cpu or cuda; auto is cuda where there is one")
    parser.add_argument("--helpers", type=int, default=-1, help="processes that compose batches; default: 0 on a CPU")
    parser.add_argument("--parent", type=int, default=None, help="process id to end with")
    options = parser.parse_args()
    follow_parent(options.parent)
    return alone(options.out, lambda: _train(options))


def follow_parent(parent: int | None) -> None:
    """End this process soon after the process of that id has ended; ``None`` follows nobody."""
    if parent is not None:
        threading.Thread(target=watch_parent, args=(parent,), daemon=True).start()


def alone(out: Path, work: Callable[[], int | None]) -> int:
    """Do some work while no other process trains in a folder; returns the exit code of the process."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / "training.lock", timeout=LOCK_SECONDS):
            return work() or 0
    except Timeout:
        emit(event="busy", folder=str(out))
        return EXIT_BUSY


def _train(options: argparse.Namespace) -> None:
    spec = TrainSpec.from_json(options.spec)
    torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
    data = TrainData.of(spec, options.fsdd, options.manifest)
    if exported(options.out / "model", spec, data):
        emit(event="done", step=spec.stop_after or spec.steps, folder=str(options.out / "model"))
        return
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    helpers = options.helpers if options.helpers >= 0 else 0 if device == "cpu" else len(os.sched_getaffinity(0)) - 1
    trainer = Trainer(spec, options.out, data, options.start, device)
    if not trainer.finished:
        emit(event="data", **dataclasses.asdict(data))
        trainer.run(build_bank(spec, options.fsdd, options.manifest, options.out.parent / "voices"), helpers)
    trainer.export(options.out / "model")
    emit(event="done", step=trainer.step, folder=str(options.out / "model"))


def watch_parent(parent: int) -> None:
    """End with the process that started this one. A checkpoint is swapped in whole, so any moment will do."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(EXIT_PARENT_DIED)


if __name__ == "__main__":
    sys.exit(main())
