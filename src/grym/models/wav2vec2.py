"""Adapter for every Hugging Face CTC checkpoint: wav2vec2, HuBERT, WavLM, data2vec-audio.

Knows nothing about processes, flows or stores; runs inside a worker. Audio is
float32 mono at the checkpoint's rate (16 kHz), times are seconds.

Batch-invariant by construction. Checkpoints with group norm in the front end
(wav2vec2-base) normalise over time, so padding changes their transcripts. The
front end therefore always sees one clip at a time, without padding. On CPU the
transformer does as well: there a padded batch is slower than a loop over clips
(padding is computed too), and the activation scales of int8 are then per clip.
On CUDA the transformer runs on padded batches with an attention mask.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt

from grym.errors import AudioError, ConfigError, GrymError, ModelError
from grym.models.ctc import Emission, decode
from grym.models.interface import Answer, AudioClip, Card, Level, Options, Samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from grym.config import ModelSpec

Precision = Literal["fp32", "bf16", "int8"]
MASKED_FAMILIES: Final = frozenset({"wav2vec2", "hubert", "wavlm"})
CHECKPOINTS: Final = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True, slots=True)
class Wav2Vec2Options:
    """Options in grym.toml.

    Attributes:
        path: a folder in Hugging Face form, or ``bundled:NAME`` for a checkpoint that comes along.
        precision: ``fp32``, ``bf16``, or ``int8`` (linear layers; CPU only).
        device: ``auto`` takes a GPU if there is one; ``cuda`` falls back to the CPU where there is none.
        window_seconds: longer clips are read in windows of this length.
        overlap_seconds: shared by neighbouring windows; each keeps its half.
        padded_batch: clips in one padded pass of the transformer; 0 chooses 1 on CPU and 16 on CUDA. Families
            whose answers padding would change always get 1.
        weight_noise: standard deviation of seeded noise on each weight matrix, relative to the matrix's own;
            makes a deliberately worse arm.
        seed: seed of that noise.
    """

    path: str
    precision: Precision = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    window_seconds: float = 30.0
    overlap_seconds: float = 4.0
    padded_batch: int = 0
    weight_noise: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A checkpoint in memory, and the figures its configuration implies."""

    network: Any
    base: Any
    device: torch.device
    dtype: torch.dtype
    vocabulary: tuple[str, ...]
    blank: int
    delimiter: str
    normalize: bool
    stride: int
    padded_batch: int
    card: Card


class Wav2Vec2:
    """A CTC checkpoint: text, confidence, word segments, features.

    Args:
        spec: registered name, licence and raw options.
        options: the validated options.

    Raises:
        ConfigError: on first use, when the folder does not exist or holds no weights.
        ModelError: on first use, when the folder is not a CTC checkpoint.
    """

    options_type: ClassVar[type] = Wav2Vec2Options

    def __init__(self, spec: ModelSpec, options: Wav2Vec2Options) -> None:
        self._spec = spec
        self._options = options
        self._loaded: _Loaded | None = None
        if options.overlap_seconds * 2 > options.window_seconds:
            msg = f"overlap_seconds {options.overlap_seconds} is more than half of window_seconds."
            raise ConfigError(msg, code="bad-option", hint="Use a longer window or a shorter overlap.")

    @property
    def card(self) -> Card:
        """What this checkpoint is; loads it."""
        return self._load().card

    def process(self, batch: Sequence[AudioClip], options: Options) -> list[Answer]:
        """Transcribe every clip; see :class:`grym.models.interface.Model`."""
        loaded = self._load()
        answers: list[Answer | None] = [None] * len(batch)
        usable: list[int] = []
        for index, clip in enumerate(batch):
            error = self._refuse(clip, loaded)
            if error is None:
                usable.append(index)
            else:
                answers[index] = self._failed(clip, error, loaded)
        for group in _groups(usable, loaded.padded_batch):
            started = time.perf_counter()
            emissions = self._emissions([batch[i] for i in group])
            share = (time.perf_counter() - started) / len(group)
            for index, emission in zip(group, emissions, strict=True):
                answers[index] = self._answer(batch[index], emission, share, options, loaded)
        return [answer for answer in answers if answer is not None]

    def features(self, batch: Sequence[AudioClip]) -> npt.NDArray[np.float32]:
        """Last hidden states averaged over time, float32 ``shape = (batch, hidden)``.

        Raises:
            AudioError: a clip has another rate or is shorter than one frame.
        """
        loaded = self._load()
        for clip in batch:
            error = self._refuse(clip, loaded)
            if error is not None:
                raise error
        vectors = [
            emission.hidden_mean
            for group in _groups(list(range(len(batch))), loaded.padded_batch)
            for emission in self._emissions([batch[i] for i in group])
        ]
        return np.stack(vectors) if vectors else np.zeros((0, loaded.card.feature_dim), np.float32)

    def analyze(self, batch: Sequence[AudioClip], level: Level) -> list[dict[str, float]]:
        """Signal measurements; they do not depend on the checkpoint."""
        from grym.models.analysis import analyze

        return analyze(batch, level)

    def align(self, clip: AudioClip, text: str) -> Answer:
        """Force a given text onto a clip: word segments with the best path of that text.

        Raises:
            ModelError: a letter is not in the vocabulary, or the text does not fit into the clip.
        """
        from grym.models.ctc import force

        loaded = self._load()
        emission = self._emissions([clip])[0]
        return self._answer(clip, force(emission, text, loaded.delimiter), 0.0, Options(), loaded)

    def ping(self) -> dict[str, str]:
        """Alive, and whether the weights are in memory."""
        return {"status": "ok", "loaded": str(self._loaded is not None).lower()}

    def close(self) -> None:
        """Drop the weights."""
        self._loaded = None

    def _refuse(self, clip: AudioClip, loaded: _Loaded) -> GrymError | None:
        if clip.rate != loaded.card.sample_rate:
            return AudioError(
                f"The clip has {clip.rate} Hz, the model wants {loaded.card.sample_rate} Hz.", code="wrong-rate"
            )
        if clip.samples.ndim != 1 or clip.samples.size < loaded.card.min_seconds * clip.rate:
            return AudioError(f"The clip has {clip.samples.size} samples, fewer than one frame.", code="too-short")
        if not np.isfinite(clip.samples).all():
            return AudioError("The clip holds NaN or infinite samples.", code="not-finite")
        return None

    def _failed(self, clip: AudioClip, error: GrymError, loaded: _Loaded) -> Answer:
        card = loaded.card
        return Answer(clip.id, None, rung=card.rung, model=card.name, revision=card.revision, error=error.record())

    def _answer(self, clip: AudioClip, emission: Emission, seconds: float, options: Options, loaded: _Loaded) -> Answer:
        if not np.isfinite(emission.log_probabilities).all():
            return self._failed(clip, ModelError("The model answered with NaN.", code="not-finite"), loaded)
        said = decode(emission, loaded.vocabulary, loaded.blank, loaded.delimiter)
        return Answer(
            clip_id=clip.id,
            text=said.text,
            confidence=said.confidence,
            segments=said.segments if options.segments else (),
            tokens=said.tokens,
            seconds=seconds,
            rung=loaded.card.rung,
            model=loaded.card.name,
            revision=loaded.card.revision,
            features=emission.hidden_mean if options.features else None,
        )

    def _emissions(self, clips: Sequence[AudioClip]) -> list[Emission]:
        """Frame probabilities of clips of any length: windows, then stitching."""
        loaded = self._load()
        pieces = [
            (owner, window)
            for owner, clip in enumerate(clips)
            for window in _windows(clip.samples.size, clip.rate, self._options, loaded.stride)
        ]
        parts: list[list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]] = [[] for _ in clips]
        for group in _groups(list(range(len(pieces))), loaded.padded_batch):
            waves = [clips[pieces[i][0]].samples[pieces[i][1].start : pieces[i][1].stop] for i in group]
            for i, (scores, hidden) in zip(group, _forward(loaded, waves), strict=True):
                owner, window = pieces[i]
                keep = slice(window.skip, window.skip + window.keep if window.keep else None)
                parts[owner].append((scores[keep], hidden[keep]))
        seconds_per_frame = loaded.stride / loaded.card.sample_rate
        return [
            Emission(
                log_probabilities=np.concatenate([scores for scores, _ in part]),
                hidden_mean=np.concatenate([hidden for _, hidden in part])
                .mean(axis=0, dtype=np.float64)
                .astype(np.float32),
                seconds_per_frame=seconds_per_frame,
                seconds=clip.seconds,
                vocabulary=loaded.vocabulary,
                blank=loaded.blank,
            )
            for clip, part in zip(clips, parts, strict=True)
        ]

    def _load(self) -> _Loaded:
        if self._loaded is None:
            self._loaded = _load(self._spec, self._options)
        return self._loaded


@dataclass(frozen=True, slots=True)
class _Window:
    """Samples ``[start, stop)`` of a clip; of its frames, ``keep`` after ``skip`` (0 keeps the rest)."""

    start: int
    stop: int
    skip: int
    keep: int


def _windows(samples: int, rate: int, options: Wav2Vec2Options, stride: int) -> Iterator[_Window]:
    """Cover a clip with windows whose borders lie on frames, so that frame numbers stay global."""
    size = max(1, int(options.window_seconds * rate) // stride) * stride
    half = int(options.overlap_seconds * rate) // stride // 2
    hop = size - 2 * half * stride
    if samples <= size:
        yield _Window(0, samples, 0, 0)
        return
    start = 0
    while True:
        skip = 0 if start == 0 else half
        if start + size >= samples:
            yield _Window(start, samples, skip, 0)
            return
        yield _Window(start, start + size, skip, hop // stride + (half if start == 0 else 0))
        start += hop


def _groups(indices: list[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(indices), size):
        yield indices[first : first + size]


def _forward(
    loaded: _Loaded, waves: Sequence[Samples]
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Log-probabilities ``shape = (frames, vocabulary)`` and hidden states ``(frames, hidden)`` of each wave."""
    import torch

    with torch.inference_mode():
        fronts = []
        for wave in waves:
            values = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7) if loaded.normalize else wave
            tensor = torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(loaded.device, loaded.dtype)
            fronts.append(loaded.base.feature_extractor(tensor[None])[0].transpose(0, 1))
        lengths = [front.shape[0] for front in fronts]
        if len(fronts) == 1:
            states, mask = fronts[0][None], None
        else:
            states = torch.nn.utils.rnn.pad_sequence(fronts, batch_first=True)
            mask = torch.arange(states.shape[1], device=loaded.device)[None] < torch.tensor(
                lengths, device=loaded.device
            ).unsqueeze(1)
        projected = loaded.base.feature_projection(states)
        # wav2vec2 and WavLM return (states, features before projection), HuBERT the states alone.
        projected = projected[0] if isinstance(projected, tuple) else projected
        hidden = loaded.base.encoder(projected, attention_mask=mask)[0]
        scores = loaded.network.lm_head(hidden).float().log_softmax(-1)
        hidden = hidden.float()
        return [(scores[i, :n].cpu().numpy(), hidden[i, :n].cpu().numpy()) for i, n in enumerate(lengths)]


def checkpoint_folder(path: str) -> Path:
    """The folder that an option ``path`` names.

    Raises:
        ConfigError: it does not exist or holds no safetensors weights; the message says which.
    """
    bundled = path.startswith("bundled:")
    folder = CHECKPOINTS / path.removeprefix("bundled:") if bundled else Path(path)
    name = path if bundled else folder.name
    if not folder.is_dir():
        msg = f"There is no model folder {name!r}."
        raise ConfigError(msg, code="no-model-folder", hint="Mend the option path of the model in grym.toml.")
    if not (folder / "config.json").is_file():
        msg = f"The model folder {name!r} holds no config.json."
        raise ConfigError(msg, code="not-a-checkpoint", hint="Give a folder in Hugging Face form.")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        msg = f"The model folder {name!r} holds no weights in safetensors form."
        hint = (
            "Its weights are pickled, which is refused: convert them to safetensors."
            if pickled
            else "Put model.safetensors there, or train the model with `make train`."
        )
        raise ConfigError(msg, code="no-weights", hint=hint)
    return folder


def _load(spec: ModelSpec, options: Wav2Vec2Options) -> _Loaded:
    import torch
    import transformers

    from grym.models.registry import revision_hash

    folder = checkpoint_folder(options.path)
    device, rung = _place(options)
    with _quiet(transformers):
        try:
            network, info = transformers.AutoModelForCTC.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            msg = f"{spec.name} cannot be loaded as a CTC checkpoint: {type(error).__name__}."
            raise ModelError(msg, code="not-a-ctc-checkpoint", hint="Give a folder saved with a CTC head.") from error
    _refuse_partial(spec.name, info)
    network.eval()
    config = network.config
    tokenizer = processor.tokenizer
    if not hasattr(config, "conv_stride"):
        msg = f"{spec.name} ({config.model_type}) does not start with convolutions on the waveform."
        raise ModelError(msg, code="unsupported-checkpoint", hint="Use wav2vec2, HuBERT, WavLM or data2vec-audio.")
    if options.overlap_seconds * processor.feature_extractor.sampling_rate < 2 * _receptive_field(config):
        msg = f"overlap_seconds {options.overlap_seconds} is shorter than two frames of {spec.name}."
        raise ConfigError(msg, code="bad-option", hint="Windows need some overlap; the default is 4 seconds.")
    if getattr(config, "add_adapter", False):
        msg = f"{spec.name} has a convolutional adapter after its encoder, which this adapter does not run."
        raise ModelError(msg, code="unsupported-checkpoint")
    if options.weight_noise:
        _disturb(network, options.weight_noise, options.seed)
    parameters = sum(p.numel() for p in network.parameters())
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    network = network.to(device, dtype)
    if options.precision == "int8":
        _quantize(network)
    stride = int(np.prod(config.conv_stride))
    facts = {
        "precision": options.precision,
        "weight_noise": options.weight_noise,
        "seed": options.seed if options.weight_noise else 0,
        "window": [options.window_seconds, options.overlap_seconds],
    }
    files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".json"} and p.name != "training.json")
    vocabulary = tuple(tokenizer.convert_ids_to_tokens(list(range(config.vocab_size))))
    card = Card(
        name=spec.name,
        revision=revision_hash(files, facts),
        adapter="wav2vec2",
        tasks=("transcribe", "features", "analyze"),
        sample_rate=int(processor.feature_extractor.sampling_rate),
        min_seconds=_receptive_field(config) / int(processor.feature_extractor.sampling_rate),
        licence=spec.licence,
        feature_dim=int(config.hidden_size),
        parameters=parameters,
        rung=rung,
        details={"architecture": str(config.model_type), "frame_seconds": stride / 16_000, **_flat(facts)},
    )
    return _Loaded(
        network=network,
        base=getattr(network, network.base_model_prefix),
        device=device,
        dtype=dtype,
        vocabulary=vocabulary,
        blank=int(tokenizer.pad_token_id),
        delimiter=str(getattr(tokenizer, "word_delimiter_token", "|") or "|"),
        normalize=bool(processor.feature_extractor.do_normalize),
        stride=stride,
        padded_batch=_padded_batch(options, config, device.type),
        card=card,
    )


def _refuse_partial(name: str, info: dict[str, Any]) -> None:
    """Refuse a checkpoint that lacks weights: the library would fill them with random numbers and say nothing."""
    # This vector is only used in training.
    lacking = sorted(str(key) for key in info["missing_keys"] if not str(key).endswith("masked_spec_embed"))
    lacking += [str(item[0] if isinstance(item, tuple) else item) for item in info["mismatched_keys"]]
    if lacking:
        msg = f"{name} lacks {len(lacking)} weights of a CTC model, for example {lacking[0]}."
        raise ModelError(msg, code="not-a-ctc-checkpoint", hint="Give a folder saved with its CTC head.")


def _place(options: Wav2Vec2Options) -> tuple[torch.device, str]:
    """Device and the rung that names it; int8 kernels exist on CPU only."""
    import torch

    wanted = "cpu" if options.precision == "int8" else options.device
    device = "cuda" if wanted in {"auto", "cuda"} and torch.cuda.is_available() else "cpu"
    fallback = options.device == "cuda" and device == "cpu"
    if options.precision == "int8" and options.padded_batch > 1:
        msg = "int8 has one activation scale per call, so padded_batch must be 1 for a scale per clip."
        raise ConfigError(msg, code="bad-option", hint="Remove padded_batch from the model's options.")
    return torch.device(device), f"{options.precision}/{device}" + (" (no GPU)" if fallback else "")


def _padded_batch(options: Wav2Vec2Options, config: Any, device: str) -> int:
    """Clips in one padded pass; 1 where padding would reach the answer in spite of the mask.

    The position embedding of data2vec-audio is a stack of convolutions with norms in between, and HuBERT's may
    start with a batch norm: both turn masked zeros into something that leaks into the last valid frames.
    """
    masked = config.model_type in MASKED_FAMILIES and not getattr(config, "conv_pos_batch_norm", False)
    if not masked:
        return 1
    return options.padded_batch or (16 if device == "cuda" else 1)


def _receptive_field(config: Any) -> int:
    """Samples that the first frame sees."""
    field, stride = 1, 1
    for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (int(kernel) - 1) * stride
        stride *= int(step)
    return field


def _disturb(network: Any, strength: float, seed: int) -> None:
    """Add seeded normal noise to every weight matrix, relative to the matrix's own standard deviation."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.add_(strength * weight.std() * torch.randn(weight.shape, generator=generator))


def _quantize(network: Any) -> None:
    """Replace the linear layers of the transformer by int8 ones; the CTC head stays in fp32."""
    import torch

    from grym.models._int8 import Int8Linear

    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and name != "lm_head":
                setattr(module, name, Int8Linear(child))


def _flat(facts: dict[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in facts.items()}


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without progress bars and advice on stderr while loading."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
