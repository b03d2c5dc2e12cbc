"""Adapter for every Hugging Face CTC checkpoint: wav2vec2, HuBERT, WavLM, data2vec-audio.

Knows nothing about processes, flows or stores; runs inside a worker. Audio is
float32 mono at the checkpoint's rate (16 kHz), times are seconds.

Batch-invariant by construction. Checkpoints with group norm in the front end
(wav2vec2-base) normalise over time, so padding changes their transcripts. The
front end therefore always sees one clip at a time, without padding. On CPU the
transformer does as well: there a padded batch is slower than a loop over clips
(padding is computed too), and the activation scales of int8 are then per clip.
Its layers are those of :mod:`grym.models._cpu`, and the clips of a batch run
beside each other, one core each. On CUDA the transformer runs on padded batches
with an attention mask.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt

from grym.errors import AudioError, ConfigError, GrymError, ModelError
from grym.models._network import arrange, contextualize, front_end, padded_batch, place, read, receptive_field
from grym.models.ctc import Emission, decode
from grym.models.interface import Answer, AudioClip, Card, Level, Options, Samples
from grym.models.lead_in import lead_in, read_lead_in
from grym.models.lexicon import Lexicon, read_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from grym.config import ModelSpec
    from grym.models._streams import Streams

Precision = Literal["fp32", "bf16", "int8", "int8-bf16"]
CHECKPOINTS: Final = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True, slots=True)
class Wav2Vec2Options:
    """Options in grym.toml.

    Attributes:
        path: a folder in Hugging Face form, or ``bundled:NAME`` for a checkpoint that comes along.
        precision: ``fp32``; ``bf16``; ``int8`` (linear layers and convolutions, the rest in float32; CPU only);
            ``int8-bf16`` (the rest in bfloat16); ``auto`` measures which of them is fastest on this machine without
            changing what is heard, see :mod:`grym.models._calibrate`. The card's rung says what was chosen.
        device: ``auto`` takes a GPU if there is one; ``cuda`` falls back to the CPU where there is none.
        window_seconds: longer clips are read in windows of this length.
        overlap_seconds: shared by neighbouring windows; each keeps its half.
        padded_batch: clips in one padded pass of the transformer; 0 chooses 1 on CPU and 16 on CUDA. Families
            whose answers padding would change always get 1.
        lexicon: ``auto`` answers only with the words of the checkpoint's ``lexicon.json`` where it has one; ``off``
            answers whatever the letters spell.
        lead_in: ``auto`` puts as much background before a clip as the checkpoint's ``lead_in.json`` asks for; ``off``
            gives the network the clip as it is. See :mod:`grym.models.lead_in`.
        weight_noise: standard deviation of seeded noise on each weight matrix, relative to the matrix's own;
            makes a deliberately worse arm.
        seed: seed of that noise.
    """

    path: str
    precision: Precision | Literal["auto"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    window_seconds: float = 30.0
    overlap_seconds: float = 4.0
    padded_batch: int = 0
    lexicon: Literal["auto", "off"] = "auto"
    lead_in: Literal["auto", "off"] = "auto"
    weight_noise: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A checkpoint in memory, and the figures its configuration implies."""

    network: Any
    front: Callable[[torch.Tensor], torch.Tensor]
    streams: Streams
    device: torch.device
    vocabulary: tuple[str, ...]
    blank: int
    delimiter: str
    lexicon: Lexicon | None
    normalize: bool
    stride: int
    lead: int
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

    @staticmethod
    def verify(options: Wav2Vec2Options) -> None:
        """Look for the checkpoint without loading it.

        Raises:
            ConfigError: the folder does not exist or holds no weights.
        """
        checkpoint_folder(options.path)

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
        heard = self._emissions([batch[i] for i in usable])
        for index, (emission, seconds) in zip(usable, heard, strict=True):
            answers[index] = self._answer(batch[index], emission, seconds, options, loaded)
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
        vectors = [emission.hidden_mean for emission, _ in self._emissions(batch)]
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
        emission, _ = self._emissions([clip])[0]
        return self._answer(clip, force(emission, text, loaded.delimiter), 0.0, Options(), loaded)

    def ping(self) -> dict[str, str]:
        """Alive, and whether the weights are in memory."""
        return {"status": "ok", "loaded": str(self._loaded is not None).lower()}

    def close(self) -> None:
        """Drop the weights."""
        if self._loaded is not None:
            self._loaded.streams.close()
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
        # A path that is forced onto a text is left alone; the greedy one is the best of all, so it needs no search.
        if loaded.lexicon is not None and emission.path is None and not loaded.lexicon.knows(said.text):
            listed = replace(emission, path=loaded.lexicon.best_path(emission.log_probabilities))
            said = decode(listed, loaded.vocabulary, loaded.blank, loaded.delimiter)
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

    def _emissions(self, clips: Sequence[AudioClip]) -> list[tuple[Emission, float]]:
        """Frame probabilities of clips of any length, and the seconds they took: windows, then stitching."""
        loaded = self._load()
        led = [lead_in(clip.samples, loaded.lead) for clip in clips]
        pieces = [
            _Piece(owner, window, samples[window.start : window.stop])
            for owner, (clip, samples) in enumerate(zip(clips, led, strict=True))
            for window in _windows(samples.size, clip.rate, self._options, loaded.stride)
        ]
        # Longest first: neighbours of equal length need little padding, and no stream ends with a long one alone.
        order = sorted(range(len(pieces)), key=lambda i: -pieces[i].samples.size)
        groups = [[pieces[i] for i in group] for group in _groups(order, loaded.padded_batch)]
        parts: list[list[_Part]] = [[] for _ in clips]
        for group, (heard, seconds) in zip(
            groups, loaded.streams.map(lambda group: _hear(loaded, group), groups), strict=True
        ):
            for piece, (scores, total) in zip(group, heard, strict=True):
                parts[piece.owner].append(_Part(piece.window.start, scores, total, seconds / len(group)))
        return [
            (_join(loaded, clip, part), sum(p.seconds for p in part)) for clip, part in zip(clips, parts, strict=True)
        ]

    def _load(self) -> _Loaded:
        if self._loaded is None:
            self._loaded = _load(self._spec, self._options)
        return self._loaded


@dataclass(frozen=True, slots=True)
class _Piece:
    """A window of one of the clips: the clip's place in the batch, the window, float32 ``shape = (samples,)``."""

    owner: int
    window: _Window
    samples: Samples


@dataclass(frozen=True, slots=True)
class _Part:
    """What was heard in a window that starts at sample ``start``.

    Attributes:
        scores: log-probabilities of the frames that are kept, float32 ``shape = (frames, vocabulary)``.
        total: sum of their hidden states without those of the lead-in, float64 ``shape = (hidden,)``.
        seconds: what it took.
    """

    start: int
    scores: npt.NDArray[np.float32]
    total: npt.NDArray[np.float64]
    seconds: float


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


def _hear(loaded: _Loaded, pieces: Sequence[_Piece]) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]]:
    """Scores and summed hidden states of the frames of each piece that are kept."""
    heard = []
    for piece, (scores, hidden) in zip(pieces, _forward(loaded, [piece.samples for piece in pieces]), strict=True):
        window = piece.window
        keep = slice(window.skip, window.skip + window.keep if window.keep else None)
        own = hidden[keep][loaded.lead // loaded.stride if window.start == 0 else 0 :]
        heard.append((scores[keep], own.sum(axis=0, dtype=np.float64)))
    return heard


def _join(loaded: _Loaded, clip: AudioClip, parts: Sequence[_Part]) -> Emission:
    """The windows of a clip as one."""
    ordered = sorted(parts, key=lambda part: part.start)
    scores = np.concatenate([part.scores for part in ordered])
    frames = len(scores) - loaded.lead // loaded.stride
    return Emission(
        log_probabilities=scores,
        hidden_mean=(np.sum([part.total for part in ordered], axis=0) / frames).astype(np.float32),
        seconds_per_frame=loaded.stride / loaded.card.sample_rate,
        seconds=clip.seconds,
        vocabulary=loaded.vocabulary,
        blank=loaded.blank,
        lead_seconds=loaded.lead / loaded.card.sample_rate,
    )


def _forward(
    loaded: _Loaded, waves: Sequence[Samples]
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Log-probabilities ``shape = (frames, vocabulary)`` and hidden states ``(frames, hidden)`` of each wave."""
    import torch

    with torch.inference_mode():
        fronts = []
        for wave in waves:
            values = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7) if loaded.normalize else wave
            tensor = torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(loaded.device)
            fronts.append(loaded.front(tensor))
        lengths = [front.shape[0] for front in fronts]
        if len(fronts) == 1:
            states, mask = fronts[0][None], None
        else:
            states = torch.nn.utils.rnn.pad_sequence(fronts, batch_first=True)
            mask = torch.arange(states.shape[1], device=loaded.device)[None] < torch.tensor(
                lengths, device=loaded.device
            ).unsqueeze(1)
        scores, hidden = contextualize(loaded.network, states, mask)
        return [(scores[i, :n].cpu().numpy(), hidden[i, :n].cpu().numpy()) for i, n in enumerate(lengths)]


def checkpoint_folder(path: str) -> Path:
    """The folder that an option ``path`` names.

    Raises:
        ConfigError: it does not exist or holds no safetensors weights; the message says which.
    """
    bundled = path.startswith("bundled:")
    folder = CHECKPOINTS / path.removeprefix("bundled:") if bundled else Path(path)
    name = path if bundled or not folder.is_absolute() else folder.name  # absolute paths tell about the machine
    if not folder.is_dir():
        msg = f"There is no model folder {name!r}."
        hint = "Mend the option path of the model in grym.toml; it counts from the folder of the command."
        raise ConfigError(msg, code="no-model-folder", hint=hint)
    if not (folder / "config.json").is_file():
        msg = f"The model folder {name!r} holds no config.json."
        raise ConfigError(msg, code="not-a-checkpoint", hint="Give a folder in Hugging Face form.")
    if not any(folder.glob("*.safetensors")):
        from grym.models.registry import PICKLED

        pickled = any(path.suffix in PICKLED for path in folder.iterdir())
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

    from grym.models._dense import activation_bits
    from grym.models._streams import Streams
    from grym.models.registry import revision_hash

    folder = checkpoint_folder(options.path)
    device, fallback = place(options)
    network, processor = read(spec.name, folder, options)
    config = network.config
    tokenizer = processor.tokenizer
    if not hasattr(config, "conv_stride"):
        msg = f"{spec.name} ({config.model_type}) does not start with convolutions on the waveform."
        raise ModelError(msg, code="unsupported-checkpoint", hint="Use wav2vec2, HuBERT, WavLM or data2vec-audio.")
    if options.overlap_seconds * processor.feature_extractor.sampling_rate < 2 * receptive_field(config):
        msg = f"overlap_seconds {options.overlap_seconds} is shorter than two frames of {spec.name}."
        raise ConfigError(msg, code="bad-option", hint="Windows need some overlap; the default is 4 seconds.")
    if getattr(config, "add_adapter", False):
        msg = f"{spec.name} has a convolutional adapter after its encoder, which this adapter does not run."
        raise ModelError(msg, code="unsupported-checkpoint")
    parameters = sum(p.numel() for p in network.parameters())
    files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".json"} and p.name != "training.json")
    together = padded_batch(options, config, device.type)
    network, precision = arrange(network, lambda: read(spec.name, folder, options)[0], files, options, device)
    stride = int(np.prod(config.conv_stride))
    facts: dict[str, Any] = {
        "precision": precision,
        "weight_noise": options.weight_noise,
        "seed": options.seed if options.weight_noise else 0,
        "window": [options.window_seconds, options.overlap_seconds],
    }
    for name in ("lexicon", "lead_in"):
        if getattr(options, name) == "off":
            facts[name] = "off"
    if precision.startswith("int8"):
        facts["activation_bits"] = activation_bits()
    vocabulary = tuple(tokenizer.convert_ids_to_tokens(list(range(config.vocab_size))))
    blank = int(tokenizer.pad_token_id)
    delimiter = str(getattr(tokenizer, "word_delimiter_token", "|") or "|")
    words = read_words(folder) if options.lexicon == "auto" else ()
    seconds = read_lead_in(folder) if options.lead_in == "auto" else 0.0
    # Whole frames, so that the clip's own frames stay where they are.
    lead = round(seconds * int(processor.feature_extractor.sampling_rate) / stride) * stride
    card = Card(
        name=spec.name,
        revision=revision_hash(files, facts),
        adapter="wav2vec2",
        tasks=("transcribe", "features", "analyze"),
        sample_rate=int(processor.feature_extractor.sampling_rate),
        min_seconds=receptive_field(config) / int(processor.feature_extractor.sampling_rate),
        licence=spec.licence,
        feature_dim=int(config.hidden_size),
        parameters=parameters,
        rung=f"{precision}/{device.type}{fallback}",
        details={
            "architecture": str(config.model_type),
            "frame_seconds": stride / 16_000,
            "lexicon_words": len(words),
            "lead_in_seconds": seconds,
            **_flat(facts),
        },
    )
    return _Loaded(
        network=network,
        front=front_end(network),
        streams=Streams(torch.get_num_threads() if device.type == "cpu" and together == 1 else 1),
        device=device,
        vocabulary=vocabulary,
        blank=blank,
        delimiter=delimiter,
        lexicon=Lexicon.build(words, vocabulary, blank, delimiter) if words else None,
        normalize=bool(processor.feature_extractor.do_normalize),
        stride=stride,
        lead=lead,
        padded_batch=together,
        card=card,
    )


def _flat(facts: dict[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in facts.items()}
