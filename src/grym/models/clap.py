"""CLAP: audio and text in one space of embeddings. Features, embeddings of texts, labels without training.

Runs inside a worker. Audio is float32 mono at any rate: the network hears 48 kHz, and
what comes at another rate is resampled here (from 16 kHz the upper half of its band is
then empty). Times are seconds.

Windows of 10 s that do not overlap; a clip's embedding is the mean of its windows' by
their length, of length one. The library's front end takes a random crop of what is
longer and, in its ``fusion`` mode, marks a random clip of each batch as long; neither
happens here, so that a clip gets the same answer alone and in any batch.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from grym.errors import ConfigError, ModelError
from grym.models.answers import failed, weighted
from grym.models.checkpoint import Device, Precision, find_folder, load_network, load_part, read_type
from grym.models.gama.prompts import check_labels
from grym.models.gama.windows import Span, split
from grym.models.interface import Answer, AudioClip, Card, Level, Options
from grym.models.licences import licence_class
from grym.models.usable import refuse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from grym.config import ModelSpec
    from grym.errors import AudioError

FRAME_SECONDS: Final = 0.025
TEXT_TOKENS: Final = 77  # longest text that published checkpoints were trained with
PUBLISHED_LICENCE: Final = "Apache-2.0"  # of the checkpoints of LAION
HEAD: Final = "This is a sound of {label}."


@dataclass(frozen=True, slots=True)
class ClapOptions:
    """Options in grym.toml.

    Attributes:
        path: a folder in Hugging Face form: config.json, safetensors, tokenizer.json, preprocessor_config.json.
        precision: ``fp32`` or ``bf16``; ``auto`` is bf16 on a GPU and fp32 on a CPU.
        device: ``auto`` takes a GPU if there is one; ``cuda`` falls back to the CPU where there is none.
        labels: what is chosen from if the call gives none, separated by commas.
        template: sentence around a label; ``{label}`` is its place.
        max_seconds: longer clips are refused.
    """

    path: str
    precision: Precision = "auto"
    device: Device = "auto"
    labels: str = ""
    template: str = HEAD
    max_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in memory; ``rate`` in Hz is what the network hears."""

    network: Any
    extractor: Any
    tokenizer: Any
    rung: str
    files: tuple[Path, ...]
    rate: int

    @property
    def scale(self) -> float:
        """What cosine similarities are multiplied by, as learned."""
        return float(self.network.logit_scale_a.detach().float().exp())


class Clap:
    """A CLAP folder behind the interface of every model.

    Args:
        spec: registered name, licence and raw options.
        options: the validated options.

    Raises:
        ConfigError: a wrong option; on first use, a folder of another family.
        ModelError: on first use, weights or tokenizer that are broken or incomplete.
        ResourceError: on first use, not enough memory; said before loading.
    """

    options_type: ClassVar[type] = ClapOptions

    def __init__(self, spec: ModelSpec, options: ClapOptions) -> None:
        self._spec = spec
        self._options = options
        self._loaded: _Loaded | None = None
        self._known: Card | None = None
        if not options.max_seconds > 0:  # NaN is not
            msg = f"max_seconds is {options.max_seconds}, and has to be positive."
            raise ConfigError(msg, code="bad-option", hint="The default is 600.")
        if "{label}" not in options.template:
            msg = f"The template {options.template[:40]!r} has no place for a label."
            raise ConfigError(msg, code="bad-option", hint=f"Write it like {HEAD!r}.")

    @staticmethod
    def verify(options: ClapOptions) -> None:
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
        """Choose a label for every clip; see :class:`grym.models.interface.Model`.

        Raises:
            ConfigError: another task than ``classify``, or labels that cannot be used.
        """
        loaded = self._load()
        if options.task not in {"", "classify"}:
            msg = f"{self._spec.name} chooses among labels; it cannot {options.task!r}."
            raise ConfigError(msg, code="task-not-offered", hint="Use an audio-language model for it.")
        given = self._options.labels
        labels = check_labels(options.labels or tuple(given.split(",") if given else ()))
        texts = self.embed_texts([self._options.template.replace("{label}", label) for label in labels])
        return [self._answer(clip, labels, texts, options, loaded) for clip in batch]

    def features(self, batch: Sequence[AudioClip]) -> npt.NDArray[np.float32]:
        """Embeddings of length one, in the space of :meth:`embed_texts`, float32 ``shape = (batch, dim)``.

        Raises:
            AudioError: a clip cannot be used.
        """
        loaded = self._load()
        for clip in batch:
            error = self._refuse(clip)
            if error is not None:
                raise error
        vectors = [self._embed(clip, loaded) for clip in batch]
        return np.stack(vectors) if vectors else np.zeros((0, self.card.feature_dim), np.float32)

    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embeddings of length one, in the space of :meth:`features`, float32 ``shape = (texts, dim)``.

        Raises:
            ConfigError: ``empty-prompt`` or ``prompt-too-long``.
        """
        import torch

        loaded = self._load()
        vectors = []
        for text in texts:
            if not text.strip():
                msg = "A text to embed is empty."
                raise ConfigError(msg, code="empty-prompt", hint="Leave it out.")
            ids = loaded.tokenizer(text, return_tensors="pt")
            if ids["input_ids"].shape[1] > TEXT_TOKENS:
                msg = f"A text has {ids['input_ids'].shape[1]} tokens; {self._spec.name} takes at most {TEXT_TOKENS}."
                raise ConfigError(msg, code="prompt-too-long", hint="Shorten it.")
            with torch.inference_mode():  # one by one: no padding, so no neighbour matters
                found = loaded.network.get_text_features(
                    input_ids=ids["input_ids"].to(loaded.network.device),
                    attention_mask=ids["attention_mask"].to(loaded.network.device),
                )
            vectors.append(_unit(_tensor(found)[0].float().cpu().numpy()))
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

    def _answer(
        self, clip: AudioClip, labels: Sequence[str], texts: npt.NDArray[np.float32], options: Options, loaded: _Loaded
    ) -> Answer:
        card, error = self.card, self._refuse(clip)
        if error is not None:
            return failed(clip, error, card)
        started = time.perf_counter()
        vector = self._embed(clip, loaded)
        if not np.isfinite(vector).all():
            return failed(clip, ModelError("The model answered with NaN.", code="not-finite"), card)
        scores = loaded.scale * (texts.astype(np.float64) @ vector.astype(np.float64))
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        best = int(shares.argmax())
        return Answer(
            clip_id=clip.id,
            text=labels[best],
            confidence=float(shares[best]),
            seconds=time.perf_counter() - started,
            rung=card.rung,
            model=card.name,
            revision=card.revision,
            features=vector if options.features else None,
            scores=dict(zip(labels, shares.tolist(), strict=True)),
        )

    def _embed(self, clip: AudioClip, loaded: _Loaded) -> npt.NDArray[np.float32]:
        """Mean of the windows' embeddings by their length, of length one, float32 ``shape = (dim,)``."""
        import torch

        samples = clip.samples
        if clip.rate != loaded.rate:
            import soxr

            samples = soxr.resample(samples, clip.rate, loaded.rate, quality="HQ").astype(np.float32)
        spans: list[Span] = split(samples, loaded.rate, float(loaded.extractor.max_length_s))
        parts = []
        for span in spans:
            given = loaded.extractor(
                samples[span.start : span.stop], sampling_rate=loaded.rate, return_tensors="pt"
            )["input_features"]  # fmt: skip
            with torch.inference_mode():
                found = loaded.network.get_audio_features(
                    input_features=given.to(loaded.network.device, loaded.network.dtype),
                    is_longer=torch.zeros(1, 1, dtype=torch.bool, device=loaded.network.device),
                )
            parts.append(_unit(_tensor(found)[0].float().cpu().numpy()))
        return _unit(weighted(parts, spans))

    def _refuse(self, clip: AudioClip) -> AudioError | None:
        least = math.ceil(FRAME_SECONDS * clip.rate)
        return refuse(clip, rate=0, least_samples=least, max_seconds=self._options.max_seconds)

    def _load(self) -> _Loaded:
        if self._loaded is None:
            import transformers

            options, name = self._options, self._spec.name
            if options.precision in {"int8", "int4"}:
                msg = f"Precision {options.precision} is not offered for {name}: it is small."
                raise ConfigError(msg, code="bad-option", hint='Use precision = "bf16" or "fp32".')
            folder = find_folder(options.path)
            read_type(name, folder, {"clap"}, "a CLAP model")
            network, rung, files = load_network(
                name, folder, transformers.ClapModel, options.precision, options.device, optional=("position_ids",)
            )
            extractor = load_part(name, folder, transformers.AutoFeatureExtractor, "feature extractor")
            tokenizer = load_part(name, folder, transformers.AutoTokenizer, "tokenizer")
            loaded = _Loaded(network, extractor, tokenizer, rung, files, int(extractor.sampling_rate))
            self._known = self._describe(loaded)
            self._loaded = loaded
        return self._loaded

    def _describe(self, loaded: _Loaded) -> Card:
        from grym.models.registry import revision_hash

        options = self._options
        licence = self._spec.licence if self._spec.licence != "unknown" else PUBLISHED_LICENCE
        facts: dict[str, Any] = {
            "precision": loaded.rung.split("/")[0],
            "labels": options.labels,
            "template": options.template,
        }
        return Card(
            name=self._spec.name,
            revision=revision_hash(loaded.files, facts),
            adapter="clap",
            tasks=("classify", "features", "analyze"),
            sample_rate=loaded.rate,
            min_seconds=FRAME_SECONDS,
            max_seconds=options.max_seconds,
            languages=("en",),
            licence=licence,
            feature_dim=int(loaded.network.config.projection_dim),
            parameters=sum(p.numel() for p in loaded.network.parameters()),
            rung=loaded.rung,
            details={
                "architecture": "clap",
                "any_rate": True,
                "text_space": True,
                "licence_class": licence_class(licence),
                **facts,
            },
        )


def _tensor(found: Any) -> Any:
    """Embeddings, as a tensor or as the library's output that holds them."""
    return getattr(found, "pooler_output", found)


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    scaled: npt.NDArray[np.float32] = (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
    return scaled
