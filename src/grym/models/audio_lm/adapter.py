"""Qwen2-Audio, Qwen2.5-Omni, Audio Flamingo 3, Voxtral and Granite Speech as models of the platform.

They describe, classify, answer questions and transcribe, as far as their makers offer
it, and give features. Runs inside a worker. Audio is float32 mono at 16 kHz, times are
seconds.

What is longer than a window is cut at quiet places into windows that do not overlap,
as for GAMA; every window is asked the same. Confidence is the geometric mean of the
probabilities that the network gave to the tokens it emitted, the end included; for
labels, the probability of the label among those given. Neither is calibrated.

Decoding is greedy unless ``temperature`` is set. A clip gets the same answer alone and
in any batch: the encoder sees one window at a time, the language model one in any
precision but float32, where a batch rounds differently and may turn a word.
"""

from __future__ import annotations

import math
import time
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from grym.errors import ConfigError
from grym.models.answers import Heard, answer_all, compose, confidence_of, unheard, weighted
from grym.models.audio_lm.families import build_prompt, check_task, strip_opening
from grym.models.checkpoint import Device, Precision, find_folder
from grym.models.gama.prompts import check_labels, choose_instruction, choose_task
from grym.models.gama.windows import Span, split
from grym.models.interface import Answer, AudioClip, Card, Level, Options
from grym.models.usable import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    import torch

    from grym.config import ModelSpec
    from grym.errors import AudioError
    from grym.models.audio_lm.network import Loaded
    from grym.models.generated import Generated

FRAME_SAMPLES = 400  # 25 ms
LEAST_NEW_TOKENS = 8  # room that a prompt must leave
TOKENS_PER_SECOND = 25  # of audio, at most, in every family


@dataclass(frozen=True, slots=True)
class AudioLmOptions:
    """Options in grym.toml.

    Attributes:
        path: a folder in Hugging Face form: config.json, safetensors, tokenizer.json, preprocessor_config.json.
        precision: ``fp32``, ``bf16``, ``int8`` or ``int4`` (GPU and bitsandbytes; audio parts stay in bf16); ``auto``
            is bf16 on a GPU and fp32 on a CPU.
        device: ``auto`` takes a GPU if there is one; ``cuda`` falls back to the CPU where there is none.
        task: what is done with a clip if the call does not say; empty is the first that the family offers.
        prompt: instruction or question if the call does not give one; empty for the task's own.
        labels: labels for ``classify`` if the call gives none, separated by commas.
        language: code of two letters for families whose transcription prompt names a language.
        window_seconds: longest audio in one prompt; 0 is the family's, more than the family takes is refused.
        max_seconds: longer clips are refused.
        prompt_tokens: longer prompts are refused.
        together: windows that the language model answers in one pass; 0 is 8 in fp32, where a batch changes nothing,
            and 1 otherwise.
        temperature: 0 takes the most probable token.
        seed: of what is drawn at other temperatures.
    """

    path: str
    precision: Precision = "auto"
    device: Device = "auto"
    task: str = ""
    prompt: str = ""
    labels: str = ""
    language: str = ""
    window_seconds: float = 0.0
    max_seconds: float = 600.0
    prompt_tokens: int = 1024
    together: int = 0
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a call wants of every window."""

    task: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    text: str
    labels: tuple[str, ...]
    new_tokens: int


class AudioLm:
    """A folder of one of the families behind the interface of every model.

    Args:
        spec: registered name, licence and raw options.
        options: the validated options.

    Raises:
        ConfigError: a wrong option; on first use, a folder of another family.
        ModelError: on first use, weights or tokenizer that are broken or incomplete.
        ResourceError: on first use, not enough memory; said before loading.
    """

    options_type: ClassVar[type] = AudioLmOptions

    def __init__(self, spec: ModelSpec, options: AudioLmOptions) -> None:
        self._spec = spec
        self._options = options
        self._loaded: Loaded | None = None
        self._known: Card | None = None
        for name in ("max_seconds", "prompt_tokens"):
            if not getattr(options, name) > 0:  # NaN is not
                msg = f"{name} is {getattr(options, name)}, and has to be positive."
                raise ConfigError(msg, code="bad-option", hint="The default is a good start.")
        for name in ("together", "temperature", "window_seconds"):
            if not getattr(options, name) >= 0:
                msg = f"{name} is {getattr(options, name)}, and must not be negative."
                raise ConfigError(msg, code="bad-option", hint="The default is a good start.")

    @staticmethod
    def verify(options: AudioLmOptions) -> None:
        """Look for the folder without loading it.

        Raises:
            ConfigError: it does not exist.
        """
        find_folder(options.path)

    @property
    def card(self) -> Card:
        """What this model is; loads it."""
        self._load()
        return self._known  # type: ignore[return-value]  # _load() has set it

    def process(self, batch: Sequence[AudioClip], options: Options) -> list[Answer]:
        """Answer every clip; see :class:`grym.models.interface.Model`.

        Raises:
            ConfigError: task, prompt or labels cannot be used; they are the same for all clips.
        """
        loaded = self._load()
        asked = self._ask(options, loaded)
        return answer_all(
            batch,
            self.card,
            refuse=self._refuse,
            windows=self._windows,
            hear=lambda clips, spans: self._hear(loaded, asked, clips, spans),
            answer=lambda clip, spans, heard: compose(
                clip, spans, heard, options, self.card, task=asked.task, labels=asked.labels
            ),
        )

    def features(self, batch: Sequence[AudioClip]) -> npt.NDArray[np.float32]:
        """Audio tokens as the language model gets them, averaged over time, float32 ``shape = (batch, H)``.

        Raises:
            AudioError: a clip cannot be used.
        """
        from grym.models.audio_lm.network import embed_audio

        loaded = self._load()
        vectors = []
        for clip in batch:
            error = self._refuse(clip)
            if error is not None:
                raise error
            spans = self._windows(clip)
            parts = []
            for span in spans:
                samples = clip.samples[span.start : span.stop]
                parts.append(_mean(loaded, embed_audio(loaded, samples), samples))
            vectors.append(weighted(parts, spans))
        return np.stack(vectors) if vectors else np.zeros((0, loaded.width), np.float32)

    def analyze(self, batch: Sequence[AudioClip], level: Level) -> list[dict[str, float]]:
        """Signal measurements; they do not depend on the checkpoint."""
        from grym.models.analysis import analyze

        return analyze(batch, level)

    def ping(self) -> dict[str, str]:
        """Alive, and whether the weights are in memory."""
        return {"status": "ok", "loaded": str(self._loaded is not None).lower()}

    def close(self) -> None:
        """Drop the weights."""
        self._loaded = None

    def _refuse(self, clip: AudioClip) -> AudioError | None:
        rate = int(self._load().extractor.sampling_rate)
        return refuse(clip, rate=rate, least_samples=FRAME_SAMPLES, max_seconds=self._options.max_seconds)

    def _windows(self, clip: AudioClip) -> list[Span]:
        return split(clip.samples, clip.rate, self._window_seconds(self._load()))

    def _window_seconds(self, loaded: Loaded) -> float:
        asked, family = self._options.window_seconds, loaded.family
        if asked > family.max_seconds:
            msg = f"window_seconds is {asked:g}, and {family.name} takes at most {family.max_seconds:g} s."
            raise ConfigError(msg, code="bad-option", hint="Leave the option out.")
        return asked or family.window_seconds

    def _ask(self, options: Options, loaded: Loaded) -> _Asked:
        """Check what a call wants, before any clip is looked at."""
        family, own = loaded.family, self._options
        task = choose_task(options.task, own.task or family.tasks[0])
        check_task(family, task, self._spec.name)
        labels: tuple[str, ...] = ()
        if task == "classify":
            labels = check_labels(options.labels or tuple(own.labels.split(",") if own.labels else ()))
        prompt = options.prompt or own.prompt
        silent = task == "transcribe" and bool(family.transcription) and not prompt
        instruction = "" if silent else choose_instruction(task, prompt, family.instructions)
        if labels:
            instruction = f"{instruction} Choose one of: {', '.join(labels)}."
        before, after = build_prompt(family, task, instruction, own.language)
        ids = [tuple(loaded.tokenizer.encode(text, add_special_tokens=False)) for text in (before, after)]
        room = self._room(loaded, sum(map(len, ids)), options)
        return _Asked(task, ids[0], ids[1], after, labels, min(options.max_new_tokens, room))

    def _room(self, loaded: Loaded, prompt: int, options: Options) -> int:
        """New tokens that fit behind a prompt and a window of audio."""
        if options.max_new_tokens < 1:
            msg = f"max_new_tokens is {options.max_new_tokens}, and has to be positive."
            raise ConfigError(msg, code="bad-option", hint="The default is 256.")
        audio = math.ceil(self._window_seconds(loaded) * TOKENS_PER_SECOND)
        most = min(self._options.prompt_tokens, loaded.positions - audio - LEAST_NEW_TOKENS)
        if prompt > most:
            msg = f"The prompt has {prompt} tokens; {self._spec.name} takes at most {most}."
            hint = "Shorten it, or raise prompt_tokens in the model's options."
            raise ConfigError(msg, code="prompt-too-long", hint=hint)
        return loaded.positions - audio - prompt

    def _hear(
        self, loaded: Loaded, asked: _Asked, clips: Sequence[AudioClip], spans: Sequence[Sequence[Span]]
    ) -> Iterator[Heard]:
        """The windows of all clips, in order, several in one pass."""
        pieces = [
            (clip.samples[span.start : span.stop], zlib.crc32(f"{self._options.seed}/{clip.id}/{n}".encode()))
            for clip, own in zip(clips, spans, strict=True)
            for n, span in enumerate(own)
        ]
        fp32 = loaded.rung.startswith("fp32")
        together = 1 if self._options.temperature or asked.labels else self._options.together or (8 if fp32 else 1)
        for first in range(0, len(pieces), together):
            group = pieces[first : first + together]
            started = time.perf_counter()
            found = self._answers(loaded, asked, [samples for samples, _ in group], group[0][1])
            each = (time.perf_counter() - started) / len(group)
            for heard in found:
                yield replace(heard, seconds=each)

    def _answers(
        self, loaded: Loaded, asked: _Asked, windows: Sequence[npt.NDArray[np.float32]], seed: int
    ) -> list[Heard]:
        from grym.models.audio_lm.network import embed_audio, embed_prompt

        every = [embed_audio(loaded, samples) for samples in windows]
        usable = [bool(tokens.isfinite().all()) for tokens in every]
        audio = [tokens for tokens, good in zip(every, usable, strict=True) if good]
        heard = [samples for samples, good in zip(windows, usable, strict=True) if good]
        features = [_mean(loaded, tokens, samples) for tokens, samples in zip(audio, heard, strict=True)]
        prompts = [embed_prompt(loaded, asked.before, tokens, asked.after) for tokens in audio]
        found = iter(self._read_out(loaded, asked, prompts, features, seed) if prompts else [])
        return [next(found) if good else unheard() for good in usable]

    def _read_out(
        self,
        loaded: Loaded,
        asked: _Asked,
        prompts: Sequence[torch.Tensor],
        features: Sequence[npt.NDArray[np.float32]],
        seed: int,
    ) -> list[Heard]:
        """What the language model says to whole prompts."""
        from grym.models.audio_lm.network import generate

        if asked.labels:
            return [_weigh(loaded, asked, prompt, vector) for prompt, vector in zip(prompts, features, strict=True)]
        said = generate(loaded, prompts, asked.new_tokens, temperature=self._options.temperature, seed=seed)
        return [_said(loaded, asked, one, vector) for one, vector in zip(said, features, strict=True)]

    def _load(self) -> Loaded:
        if self._loaded is None:
            from grym.models.audio_lm.network import load

            folder = find_folder(self._options.path)
            loaded = load(self._spec.name, folder, self._options.precision, self._options.device)
            self._window_seconds(loaded)
            self._known = self._describe(loaded)
            self._loaded = loaded
        return self._loaded

    def _describe(self, loaded: Loaded) -> Card:
        from grym.models.registry import revision_hash

        options, family = self._options, loaded.family
        facts: dict[str, Any] = {
            "precision": loaded.rung.split("/")[0],
            "task": options.task,
            "prompt": options.prompt,
            "labels": options.labels,
            "language": options.language,
            "window_seconds": self._window_seconds(loaded),
            "temperature": options.temperature,
            "seed": options.seed if options.temperature else 0,
        }
        return Card(
            name=self._spec.name,
            revision=revision_hash(loaded.files, facts),
            adapter="audio_lm",
            tasks=(*family.tasks, "features", "analyze"),
            sample_rate=int(loaded.extractor.sampling_rate),
            min_seconds=FRAME_SAMPLES / int(loaded.extractor.sampling_rate),
            max_seconds=options.max_seconds,
            languages=family.languages,
            licence=self._spec.licence if self._spec.licence != "unknown" else family.licence,
            feature_dim=loaded.width,
            parameters=sum(p.numel() for p in loaded.network.parameters()),
            rung=loaded.rung,
            details={
                "architecture": family.name,
                "licence_class": family.licence_class,
                "multi_audio": family.multi_audio,
                "native_seconds": family.max_seconds,
                **facts,
            },
        )


def _said(loaded: Loaded, asked: _Asked, one: Generated, vector: npt.NDArray[np.float32]) -> Heard:
    text = str(loaded.tokenizer.decode(one.ids, skip_special_tokens=True)).strip()
    if asked.task == "transcribe":
        text = strip_opening(loaded.family, text)
    return Heard(
        text=text,
        confidence=confidence_of(one.log_probability),
        tokens=len(one.ids),
        ended=one.ended,
        seconds=0.0,
        features=vector,
    )


def _weigh(loaded: Loaded, asked: _Asked, prompt: torch.Tensor, vector: npt.NDArray[np.float32]) -> Heard:
    """Probability of each label among those given, from the likelihood that it is the whole answer."""
    from grym.models.audio_lm.network import score_texts
    from grym.models.gama.loading import encode_answer

    texts = [encode_answer(loaded.tokenizer, asked.text, label) for label in asked.labels]
    room = loaded.positions - len(prompt) - 1
    long = max(texts, key=len)
    if len(long) > room:
        msg = f"Label {asked.labels[texts.index(long)][:40]!r} has {len(long)} tokens, and there is room for {room}."
        raise ConfigError(msg, code="label-too-long", hint="Use shorter labels or a shorter prompt.")
    scores = np.asarray(score_texts(loaded, prompt, texts))
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    best = int(shares.argmax())
    return Heard(
        text=asked.labels[best],
        confidence=float(shares[best]),
        tokens=len(texts[best]),
        ended=True,
        seconds=0.0,
        features=vector,
        scores=shares,
    )


def _mean(loaded: Loaded, audio: torch.Tensor, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean of the audio tokens that hold sound, not filling, float32 ``shape = (H,)``."""
    from grym.models.audio_lm.network import seconds_per_token

    seconds = samples.size / loaded.extractor.sampling_rate
    kept = max(1, min(len(audio), math.ceil(seconds / seconds_per_token(loaded, audio, samples))))
    mean: npt.NDArray[np.float32] = audio[:kept].float().mean(dim=0).cpu().numpy()
    return mean
