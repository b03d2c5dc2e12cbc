"""GAMA as a model of the platform: describes, classifies, answers questions, transcribes, gives features.

Runs inside a worker. Audio is float32 mono at 16 kHz, times are seconds.

What is longer than a window (10.24 s) is cut at quiet places into windows that do
not overlap; see :mod:`.windows`. Every window is asked the same; transcripts are
joined, other answers listed with their times, probabilities of labels averaged by
length. Confidence is the geometric mean of the probabilities that the network gave
to the tokens it emitted, the end of the text included; for labels, the probability
of the label among those given. Neither is calibrated.

Decoding is greedy unless a preset that samples is chosen. Those run window by
window, each with a seed of its own, so that a clip gets the same answer alone and
in any batch.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from grym.errors import ConfigError, GrymError
from grym.models.answers import NOTHING, Heard, answer_all, compose, confidence_of, parts_of, unheard, weighted
from grym.models.gama.loading import Device, Precision  # noqa: TC001 - options are validated by their types
from grym.models.gama.prompts import TASKS, Task, check_labels, choose_instruction, choose_task, fill
from grym.models.gama.windows import Part, Span, split
from grym.models.interface import Answer, AudioClip, Card, Level, Options
from grym.models.licences import licence_class
from grym.models.usable import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from grym.config import ModelSpec
    from grym.models.gama.loading import Loaded

PUBLISHED_LICENCE = "Llama 2 Community Licence, research data"
LEAST_NEW_TOKENS = 8  # room that a prompt must leave


@dataclass(frozen=True, slots=True)
class GamaOptions:
    """Options in grym.toml.

    Attributes:
        path: a folder that ``python -m flows convert-gama`` or a training wrote, or ``bundled:NAME``.
        precision: of the language model: ``fp32``, ``bf16``, ``int8`` or ``int4`` (GPU and bitsandbytes); ``auto`` is
            bf16 on a GPU and fp32 on a CPU. The audio parts are always in float32.
        device: ``auto`` takes a GPU if there is one; ``cuda`` falls back to the CPU where there is none.
        task: what is done with a clip if the call does not say: describe, classify, question or transcribe.
        prompt: instruction or question if the call does not give one; empty for the task's own.
        labels: labels for ``classify`` if the call gives none, separated by commas.
        preset: ``greedy``, or one of the published sampling settings, ``gama-benchmark`` and ``gama-demo``.
        classify_by: ``likelihood`` of each label, or ``caption``: describe, then take the label nearest in an
            embedding.
        embedder: for ``caption``: ``clap:FOLDER``, the text tower of a CLAP model, or ``package.module:function``
            from texts to vectors; empty compares word by word in the language model's own token embeddings.
        together: windows in one pass.
        max_seconds: longer clips are refused.
        seed: seed of presets that sample.
    """

    path: str
    precision: Precision = "auto"
    device: Device = "auto"
    task: Task = "describe"
    prompt: str = ""
    labels: str = ""
    preset: Literal["greedy", "gama-benchmark", "gama-demo"] = "greedy"
    classify_by: Literal["likelihood", "caption"] = "likelihood"
    embedder: str = ""
    together: int = 8
    max_seconds: float = 600.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a call wants of every window."""

    task: str
    text: str
    ids: tuple[int, ...]
    labels: tuple[str, ...]
    new_tokens: int


class Gama:
    """A GAMA folder behind the interface of every model.

    Args:
        spec: registered name, licence and raw options.
        options: the validated options.

    Raises:
        ConfigError: a wrong option; on first use, a folder that holds no GAMA model.
        ModelError: on first use, weights that are broken or incomplete.
        ResourceError: on first use, not enough memory; said before loading.
    """

    options_type: ClassVar[type] = GamaOptions

    def __init__(self, spec: ModelSpec, options: GamaOptions) -> None:
        self._spec = spec
        self._options = options
        self._loaded: Loaded | None = None
        self._known: Card | None = None
        self._embed: Callable[[Sequence[str]], npt.NDArray[np.float32]] | None = None
        for name in ("together", "max_seconds"):
            if not getattr(options, name) > 0:  # NaN is not
                msg = f"{name} is {getattr(options, name)}, and has to be positive."
                raise ConfigError(msg, code="bad-option", hint="The default is a good start.")

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
        from grym.models.gama.loading import few_threads

        loaded = self._load()
        asked = self._ask(options, loaded)
        with few_threads(loaded.model):
            return answer_all(
                batch,
                self.card,
                refuse=self._refuse,
                windows=lambda clip: split(clip.samples, clip.rate, loaded.model.config.window_seconds),
                hear=lambda clips, spans: self._hear(loaded, asked, clips, spans),
                answer=lambda clip, spans, heard: self._answer(clip, spans, heard, asked, options),
            )

    def features(self, batch: Sequence[AudioClip]) -> npt.NDArray[np.float32]:
        """Pooled audio tokens averaged over time, float32 ``shape = (batch, width of the encoder)``.

        Tokens that hold filling instead of sound are left out; windows count by their length.

        Raises:
            AudioError: a clip cannot be used.
        """
        import torch

        from grym.models.gama.loading import few_threads

        loaded = self._load()
        vectors = []
        for clip in batch:
            error = self._refuse(clip)
            if error is not None:
                raise error
            spans = split(clip.samples, clip.rate, loaded.model.config.window_seconds)
            with torch.inference_mode(), few_threads(loaded.model):
                parts = [self._listen(loaded, [clip.samples[s.start : s.stop]])[1][0] for s in spans]
            vectors.append(weighted(parts, spans))
        return np.stack(vectors) if vectors else np.zeros((0, self.card.feature_dim), np.float32)

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
        self._embed = None

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Mean of the language model's token embeddings, float32 ``shape = (texts, width)``; a plain embedder."""
        import torch

        loaded = self._load()
        table: Any = loaded.model.get_input_embeddings().weight
        with torch.inference_mode():
            means = [
                table[torch.tensor(loaded.tokenizer.encode(text, add_special_tokens=False), device=table.device)]
                .float()
                .mean(dim=0)
                for text in texts
            ]
            vectors: npt.NDArray[np.float32] = torch.stack(means).cpu().numpy()
            return vectors

    def _ask(self, options: Options, loaded: Loaded) -> _Asked:
        """Check what a call wants, before any clip is looked at."""
        from grym.models.gama.loading import encode

        task = choose_task(options.task, self._options.task)
        labels: tuple[str, ...] = ()
        if task == "classify":
            given = options.labels or tuple(self._options.labels.split(",") if self._options.labels else ())
            labels = check_labels(given)
        spoken = "describe" if labels and self._options.classify_by == "caption" else task
        instruction = choose_instruction(
            spoken, options.prompt or self._options.prompt, loaded.model.config.prompts or {}
        )
        text, sizes = fill(instruction), loaded.model.config.text_config
        ids = encode(loaded.tokenizer, text, sizes.bos_token_id)
        room = sizes.max_position_embeddings - loaded.model.config.audio_tokens - len(ids)
        if room < min(LEAST_NEW_TOKENS, options.max_new_tokens):
            limit = sizes.max_position_embeddings - loaded.model.config.audio_tokens - LEAST_NEW_TOKENS
            msg = f"The prompt has {len(ids)} tokens; {self._spec.name} takes at most {limit}."
            raise ConfigError(msg, code="prompt-too-long", hint="Shorten it.")
        if options.max_new_tokens < 1:
            msg = f"max_new_tokens is {options.max_new_tokens}, and has to be positive."
            raise ConfigError(msg, code="bad-option", hint="The default is 256.")
        return _Asked(task, text, tuple(ids), labels, min(options.max_new_tokens, room))

    def _hear(
        self, loaded: Loaded, asked: _Asked, clips: Sequence[AudioClip], spans: Sequence[Sequence[Span]]
    ) -> Iterator[Heard]:
        """The windows of all clips, in order, several in one pass."""
        import torch

        pieces = [
            (clip.samples[span.start : span.stop], zlib.crc32(f"{self._options.seed}/{clip.id}/{n}".encode()))
            for clip, own in zip(clips, spans, strict=True)
            for n, span in enumerate(own)
        ]
        together = self._options.together if self._options.preset == "greedy" else 1
        for first in range(0, len(pieces), together):
            group = pieces[first : first + together]
            started = time.perf_counter()
            with torch.inference_mode():
                tokens, features = self._listen(loaded, [samples for samples, _ in group])
                usable = tokens.isfinite().flatten(1).all(dim=1)
                found = iter(self._decode(loaded, asked, tokens[usable], group[0][1]) if usable.any() else [])
            each = (time.perf_counter() - started) / len(group)
            for good, vector in zip(usable.tolist(), features, strict=True):
                yield replace(next(found) if good else unheard(), seconds=each, features=vector)

    def _listen(
        self, loaded: Loaded, windows: Sequence[npt.NDArray[np.float32]]
    ) -> tuple[torch.Tensor, list[npt.NDArray[np.float32]]]:
        """Audio tokens ``shape = (windows, A, H)``, and a feature vector of each window."""
        from grym.models.gama.frontend import log_mels
        from grym.models.gama.loading import pooled_features

        config = loaded.model.config
        heard = loaded.model.listen(log_mels(windows, config.audio_config).to(loaded.model.device))
        per_token = config.window_seconds / config.audio_config.columns
        features = [
            pooled_features(pooled, window.size / 16_000, per_token).cpu().numpy()
            for pooled, window in zip(heard.pooled, windows, strict=True)
        ]
        return heard.tokens, features

    def _decode(self, loaded: Loaded, asked: _Asked, tokens: torch.Tensor, seed: int) -> list[Heard]:
        from grym.models.gama.generation import generate

        if asked.labels and self._options.classify_by == "likelihood":
            return [self._weigh(loaded, asked, row[None]) for row in tokens]
        said = generate(
            loaded.model,
            tokens,
            [asked.ids] * len(tokens),
            preset=self._options.preset,
            max_new_tokens=asked.new_tokens,
            seed=seed,
        )
        return [
            Heard(
                text=str(loaded.tokenizer.decode(one.ids, skip_special_tokens=True)).strip(),
                confidence=confidence_of(one.log_probability),
                tokens=len(one.ids),
                ended=one.ended,
                seconds=0.0,
                features=NOTHING,
            )
            for one in said
        ]

    def _weigh(self, loaded: Loaded, asked: _Asked, tokens: torch.Tensor) -> Heard:
        """Probability of each label among those given, from the likelihood that it is the whole answer."""
        from grym.models.gama.generation import score_texts
        from grym.models.gama.loading import encode_answer

        texts = [encode_answer(loaded.tokenizer, asked.text, label) for label in asked.labels]
        room = loaded.model.config.text_config.max_position_embeddings
        room -= loaded.model.config.audio_tokens + len(asked.ids) + 1
        long = max(texts, key=len)
        if len(long) > room:
            msg = (
                f"Label {asked.labels[texts.index(long)][:40]!r} has {len(long)} tokens, and there is room for {room}."
            )
            raise ConfigError(msg, code="label-too-long", hint="Use shorter labels or a shorter prompt.")
        scores = np.asarray(score_texts(loaded.model, tokens, asked.ids, texts, self._options.together))
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        best = int(shares.argmax())
        return Heard(asked.labels[best], float(shares[best]), len(texts[best]), True, 0.0, NOTHING, shares)  # noqa: FBT003

    def _answer(
        self, clip: AudioClip, spans: Sequence[Span], heard: Sequence[Heard], asked: _Asked, options: Options
    ) -> Answer:
        by_caption = asked.labels and self._options.classify_by == "caption"
        shares = self._shares(parts_of(spans, heard, clip.rate), asked) if by_caption else None
        return compose(clip, spans, heard, options, self.card, task=asked.task, labels=asked.labels, shares=shares)

    def _shares(self, parts: Sequence[Part], asked: _Asked) -> npt.NDArray[np.float64]:
        """Share of each label for the whole clip by what was said about it, float64 ``shape = (labels,)``."""
        from grym.models.gama.captions import nearest, nearest_by_words

        caption = " ".join(part.text for part in parts)
        if self._embed is not None:
            return nearest(caption, asked.labels, self._embed)
        # As they stand in a sentence: the space in front belongs to a word's first token.
        return nearest_by_words(caption, asked.labels, lambda words: self.embed_texts([f" {word}" for word in words]))

    def _refuse(self, clip: AudioClip) -> GrymError | None:
        from grym.models.gama.configuration import FRAME_SAMPLES, SAMPLE_RATE

        return refuse(clip, rate=SAMPLE_RATE, least_samples=FRAME_SAMPLES, max_seconds=self._options.max_seconds)

    def _load(self) -> Loaded:
        if self._loaded is None:
            from grym.models.gama.loading import load
            from grym.models.wav2vec2 import CHECKPOINTS

            path = self._options.path
            bundled = path.startswith("bundled:")
            folder = CHECKPOINTS / path.removeprefix("bundled:") if bundled else Path(path)
            if not folder.is_dir():
                msg = f"There is no model folder {path if bundled else folder.name!r}."
                raise ConfigError(msg, code="no-model-folder", hint="Mend the option path of the model in grym.toml.")
            revision = ""
            if self._options.classify_by == "caption" and self._options.embedder:
                from grym.models.gama.embedders import find_embedder

                self._embed, revision = find_embedder(self._options.embedder, self._options.device)
            loaded = load(
                self._spec.name, folder, self._options.precision, self._options.device, self._options.together
            )
            self._known = self._describe(loaded, revision)
            self._loaded = loaded
        return self._loaded

    def _describe(self, loaded: Loaded, embedder: str) -> Card:
        from grym.models.gama.configuration import FRAME_SAMPLES, SAMPLE_RATE
        from grym.models.registry import revision_hash

        config, options = loaded.model.config, self._options
        own = self._spec.licence
        licence = PUBLISHED_LICENCE if own == "unknown" and config.stage else own
        facts: dict[str, Any] = {
            "precision": loaded.rung.split("/")[0],
            "task": options.task,
            "prompt": options.prompt,
            "labels": options.labels,
            "preset": options.preset,
            "seed": options.seed if options.preset != "greedy" else 0,
            "classify_by": options.classify_by,
            "embedder": f"{options.embedder} {embedder}".strip(),
        }
        return Card(
            name=self._spec.name,
            revision=revision_hash(loaded.files, facts),
            adapter="gama",
            tasks=(*TASKS, "features", "analyze"),
            sample_rate=SAMPLE_RATE,
            min_seconds=FRAME_SAMPLES / SAMPLE_RATE,
            max_seconds=options.max_seconds,
            languages=("en",),
            licence=licence,
            feature_dim=config.audio_config.hidden_size,
            parameters=sum(p.numel() for p in loaded.model.parameters()),
            rung=loaded.rung,
            details={
                "architecture": "gama",
                "stage": config.stage,
                "licence_class": licence_class(licence),
                "window_seconds": config.window_seconds,
                "audio_tokens": config.audio_tokens,
                **facts,
            },
        )
