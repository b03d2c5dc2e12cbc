"""``gama-mini`` on this CPU: generation with a cache against a loop without, latency of an answer, batches, equality.

What is compared takes turns in one process; the median of the rounds counts. Audio is cut from generated sounds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from transformers import GenerationConfig

from benchmarks.figures import Figure, median
from grym.config import ModelSpec
from grym.corpus.sounds import draw
from grym.models.gama.adapter import Gama, GamaOptions
from grym.models.gama.decoding import greedy
from grym.models.gama.frontend import log_mels
from grym.models.gama.generation import left_padded
from grym.models.gama.loading import encode, few_threads, load
from grym.models.gama.prompts import INSTRUCTIONS, fill
from grym.models.interface import AudioClip, Options
from grym.models.wav2vec2 import CHECKPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from grym.models.gama.modeling import GamaModel

FOLDER: Final = CHECKPOINTS / "gama-mini"
NEW_TOKENS: Final = 64
SHORT_TOKENS: Final = 12
ROUNDS: Final = 5
CALLS: Final = 41
SECONDS: Final = 5
BATCH: Final = 16


def measure(folder: Path) -> Iterator[Figure]:
    """Everything that was promised of ``gama-mini``; ``folder`` is not used."""
    del folder
    loaded = load("gama-mini", FOLDER, "fp32", "cpu")
    clips = [_clip(number) for number in range(BATCH)]
    spectrograms = log_mels([clip.samples for clip in clips], loaded.model.config.audio_config)
    prompt = encode(loaded.tokenizer, fill(INSTRUCTIONS["describe"]), loaded.model.config.text_config.bos_token_id)
    with torch.inference_mode(), few_threads(loaded.model):
        yield from _cache(loaded.model, spectrograms[:1], prompt)
        yield _batched(loaded.model, spectrograms)
    model = Gama(ModelSpec(name="gama-mini", adapter="gama"), GamaOptions(path="bundled:gama-mini", device="cpu"))
    yield _latency(model)
    yield _same(model, clips)


def _clip(number: int, seconds: float = 2.0) -> AudioClip:
    parts = [draw(11, 100 * number + n, "test").samples for n in range(int(seconds / 2) + 1)]
    return AudioClip(f"bench-{number}", np.concatenate(parts)[: int(seconds * 16_000)], 16_000)


def _cache(model: GamaModel, spectrogram: torch.Tensor, prompt: list[int]) -> Iterator[Figure]:
    """All give exactly 64 tokens, the loop without a cache by whole forward passes over text and audio tokens."""
    audio = model.listen(spectrogram).tokens
    ids, mask = left_padded([prompt], 0, model.device)
    exactly = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
    settings = GenerationConfig(**exactly, do_sample=False, pad_token_id=0, bos_token_id=1, eos_token_id=2)

    def cached() -> list[int]:
        given = model.sequence(audio, ids, mask)
        return [int(i) for i in greedy(model.language_model, given, **exactly, ends=(2,), pad=0)[0][0]]

    def library() -> list[int]:
        return [int(i) for i in model.generate(audio, ids, mask, settings)[0]]

    def written() -> list[int]:
        so_far = list(prompt)
        for _ in range(NEW_TOKENS):
            logits = model(input_ids=torch.tensor([so_far]), audio=audio).logits[0, -1]
            logits[2] = -torch.inf  # as min_new_tokens forbids the end
            so_far.append(int(logits.argmax()))
        return so_far[len(prompt) :]

    times, texts = _in_turns({"cached": cached, "written": written, "library": library})
    same = texts["cached"] == texts["written"] == texts["library"]
    detail = {"seconds": times, "same tokens": same}
    mine = median(times["cached"])
    yield Figure(
        "gama-mini: 64 tokens, without cache to with", median(times["written"]) / mine, "times", 5.0, detail=detail
    )
    name = "gama-mini: 64 tokens, the library's generate to ours"
    yield Figure(name, median(times["library"]) / mine, "times", 1.0)


def _batched(model: GamaModel, spectrograms: torch.Tensor) -> Figure:
    def batched() -> None:
        model.audio_tower(spectrograms)

    def loop() -> None:
        for one in spectrograms.split(1):
            model.audio_tower(one)

    times, _ = _in_turns({"batched": batched, "loop": loop})
    ratio = median(times["loop"]) / median(times["batched"])
    return Figure(f"gama-mini: encoder, loop to batch of {BATCH}", ratio, "times", 0.9, detail={"seconds": times})


def _latency(model: Gama) -> Figure:
    """A warm call with one clip, front end and all."""
    options = Options(task="describe", max_new_tokens=SHORT_TOKENS)
    clips = [_clip(1000 + number, SECONDS) for number in range(CALLS)]
    times, tokens = [], []
    for clip in clips:
        started = time.perf_counter()
        answer = model.process([clip], options)[0]
        times.append(1000 * (time.perf_counter() - started))
        tokens.append(answer.tokens)
    detail: dict[str, object] = {"tokens": tokens, "p95": sorted(times)[int(0.95 * CALLS)]}
    name = f"gama-mini: p50, at most {SHORT_TOKENS} tokens for each window, {SECONDS} s clip"
    return Figure(name, median(times[1:]), "ms", 100.0, "at most", detail=detail)


def _same(model: Gama, clips: list[AudioClip]) -> Figure:
    options = Options(task="describe")
    together = [answer.text for answer in model.process(clips, options)]
    alone = [model.process([clip], options)[0].text for clip in clips]
    same = sum(a == b for a, b in zip(together, alone, strict=True))
    return Figure("gama-mini: answers that are the same alone and in a batch", same, "clips", len(clips))


def _in_turns(what: dict[str, Callable[[], object]]) -> tuple[dict[str, list[float]], dict[str, object]]:
    """Seconds of each, there and back; what each gave last."""
    times: dict[str, list[float]] = {name: [] for name in what}
    given = {name: run() for name, run in what.items()}
    for number in range(ROUNDS):
        for name in list(what) if number % 2 == 0 else list(what)[::-1]:
            started = time.perf_counter()
            given[name] = what[name]()
            times[name].append(time.perf_counter() - started)
    return times, given
