"""The Whisper family and other speech-to-text models as models of the platform.

Text, words or segments with times as far as the checkpoint has them, confidence from
token likelihoods, features. Runs inside a worker. Audio is float32 mono at 16 kHz,
times are seconds.

What is longer than the encoder's window is heard in windows that overlap, and sewn
together where both heard the same words; see :mod:`.stitch`. Models without times of
words get windows that are cut at quiet places and do not overlap. Confidence is the
geometric mean of the tokens' probabilities, of the network's own distribution before
any token is suppressed; it is not calibrated.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from grym.errors import ConfigError, ModelError
from grym.models.answers import answer_all, failed, weighted
from grym.models.checkpoint import Device, Precision, find_folder
from grym.models.failures import find_failure
from grym.models.gama.windows import Span, split
from grym.models.interface import Answer, AudioClip, Card, Level, Options, Segment
from grym.models.licences import licence_class
from grym.models.seq2seq.stitch import Word, overlapping, shifted, stitch
from grym.models.usable import refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from grym.config import ModelSpec
    from grym.errors import AudioError
    from grym.models.seq2seq.network import Loaded, Times, Transcript

PUBLISHED_LICENCES = {"whisper": "Apache-2.0", "moonshine": "MIT", "speech_to_text": "MIT"}  # of their makers
FRAME_SAMPLES = 400  # 25 ms
_ORDER = ("none", "segments", "words")


@dataclass(frozen=True, slots=True)
class Seq2SeqOptions:
    """Options in grym.toml.

    Attributes:
        path: a folder in Hugging Face form: config.json, safetensors, tokenizer.json, preprocessor_config.json.
        precision: ``fp32``, ``bf16``, ``int8`` or ``int4`` (GPU and bitsandbytes; the encoder stays in bf16); ``auto``
            is bf16 on a GPU and fp32 on a CPU.
        device: ``auto`` takes a GPU if there is one; ``cuda`` falls back to the CPU where there is none.
        language: code of two letters; empty lets a model of several languages find out, window by window.
        translate: into English, where the model has that task.
        timestamps: ``words``, ``segments`` or ``none``; ``auto`` is the best that the checkpoint has.
        overlap_seconds: shared by neighbouring windows of long clips, with times of words.
        max_seconds: longer clips are refused.
        together: windows in one pass; 0 is 8 in fp32, where a batch changes nothing, and 1 otherwise.
    """

    path: str
    precision: Precision = "auto"
    device: Device = "auto"
    language: str = ""
    translate: bool = False
    timestamps: Literal["auto", "words", "segments", "none"] = "auto"
    overlap_seconds: float = 4.0
    max_seconds: float = 3600.0
    together: int = 0


class Seq2Seq:
    """A speech-to-text folder behind the interface of every model.

    Args:
        spec: registered name, licence and raw options.
        options: the validated options.

    Raises:
        ConfigError: a wrong option; on first use, a folder of another family, or times that it does not have.
        ModelError: on first use, weights or tokenizer that are broken or incomplete.
        ResourceError: on first use, not enough memory; said before loading.
    """

    options_type: ClassVar[type] = Seq2SeqOptions

    def __init__(self, spec: ModelSpec, options: Seq2SeqOptions) -> None:
        self._spec = spec
        self._options = options
        self._loaded: Loaded | None = None
        self._known: Card | None = None
        for name, wrong in (("max_seconds", not options.max_seconds > 0), ("together", options.together < 0)):
            if wrong:
                msg = f"{name} is {getattr(options, name)}, which is too little."
                raise ConfigError(msg, code="bad-option", hint="The default is a good start.")

    @staticmethod
    def verify(options: Seq2SeqOptions) -> None:
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
        """Transcribe every clip; see :class:`grym.models.interface.Model`.

        Raises:
            ConfigError: another task than ``transcribe``, or a prompt: these models take none.
        """
        loaded = self._load()
        self._check(options)
        return answer_all(
            batch,
            self.card,
            refuse=self._refuse,
            windows=self._windows,
            hear=lambda clips, spans: self._hear(loaded, clips, spans, options.max_new_tokens),
            answer=lambda clip, spans, heard: self._answer(clip, spans, heard, options),
        )

    def features(self, batch: Sequence[AudioClip]) -> npt.NDArray[np.float32]:
        """The encoder's last states averaged over time, float32 ``shape = (batch, width)``.

        Raises:
            AudioError: a clip cannot be used.
        """
        from grym.models.seq2seq.network import encode

        loaded = self._load()
        vectors = []
        for clip in batch:
            error = self._refuse(clip)
            if error is not None:
                raise error
            spans = self._windows(clip)
            vectors.append(weighted([encode(loaded, clip.samples[s.start : s.stop]) for s in spans], spans))
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

    def _check(self, options: Options) -> None:
        if options.task not in {"", "transcribe"}:
            msg = f"{self._spec.name} transcribes speech; it cannot {options.task!r}."
            raise ConfigError(msg, code="task-not-offered", hint="Use an audio-language model for it.")
        if options.prompt:
            msg = f"{self._spec.name} takes no prompt."
            raise ConfigError(msg, code="no-prompts", hint="Leave the option prompt out.")
        if options.max_new_tokens < 1:
            msg = f"max_new_tokens is {options.max_new_tokens}, and has to be positive."
            raise ConfigError(msg, code="bad-option", hint="The default is 256.")

    def _refuse(self, clip: AudioClip) -> AudioError | None:
        rate = int(self._load().extractor.sampling_rate)
        return refuse(clip, rate=rate, least_samples=FRAME_SAMPLES, max_seconds=self._options.max_seconds)

    def _times(self, loaded: Loaded) -> Times:
        asked = self._options.timestamps
        if asked == "auto":
            return loaded.times
        if _ORDER.index(asked) > _ORDER.index(loaded.times):
            msg = f"{self._spec.name} has no times of {asked}, only {loaded.times}."
            raise ConfigError(msg, code="no-timestamps", hint='Use timestamps = "auto".')
        return asked

    def _windows(self, clip: AudioClip) -> list[Span]:
        loaded = self._load()
        seconds = loaded.window_seconds
        if self._times(loaded) == "words":
            return overlapping(clip.samples.size, clip.rate, seconds, self._options.overlap_seconds)
        return split(clip.samples, clip.rate, seconds)

    def _hear(
        self, loaded: Loaded, clips: Sequence[AudioClip], spans: Sequence[Sequence[Span]], new_tokens: int
    ) -> list[tuple[Transcript, float]]:
        """Transcript of every window of all clips, in order, and the seconds it took."""
        from grym.models.seq2seq.network import transcribe

        pieces = [clip.samples[span.start : span.stop] for clip, own in zip(clips, spans, strict=True) for span in own]
        together = self._options.together or (8 if loaded.rung.startswith("fp32") else 1)
        heard: list[tuple[Transcript, float]] = []
        for first in range(0, len(pieces), together):
            group = pieces[first : first + together]
            started = time.perf_counter()
            found = transcribe(
                loaded,
                group,
                new_tokens,
                language=self._options.language,
                translate=self._options.translate,
                times=self._times(loaded),
            )
            each = (time.perf_counter() - started) / len(group)
            heard += [(one, each) for one in found]
        return heard

    def _answer(
        self, clip: AudioClip, spans: Sequence[Span], heard: Sequence[tuple[Transcript, float]], options: Options
    ) -> Answer:
        card, found = self.card, [one for one, _ in heard]
        if not all(math.isfinite(one.log_probability) and np.isfinite(one.features).all() for one in found):
            return failed(clip, ModelError("The model answered with NaN.", code="not-finite"), card)
        words = _sewn(spans, found, clip.rate)
        text = " ".join("".join(word.text for word in words).split())
        failure = find_failure(text, "transcribe", ended=all(one.ended for one in found))
        return Answer(
            clip_id=clip.id,
            text=text,
            confidence=_confidence(words, found),
            segments=_segments(words, clip.seconds) if options.segments and self._times(self._load()) != "none" else (),
            tokens=sum(one.tokens for one in found),
            seconds=sum(seconds for _, seconds in heard),
            rung=card.rung,
            model=card.name,
            revision=card.revision,
            features=weighted([one.features for one in found], spans) if options.features else None,
            failure=failure,
        )

    def _load(self) -> Loaded:
        if self._loaded is None:
            from grym.models.seq2seq.network import choose_language, load

            folder = find_folder(self._options.path)
            loaded = load(self._spec.name, folder, self._options.precision, self._options.device)
            choose_language(loaded, self._options.language, self._spec.name)
            self._times(loaded)
            wide = not 0 <= self._options.overlap_seconds * 2 <= loaded.window_seconds
            if wide and self._times(loaded) == "words":
                msg = f"overlap_seconds {self._options.overlap_seconds:g} is more than half of a window."
                raise ConfigError(msg, code="bad-option", hint="The default is 4 seconds.")
            self._known = self._describe(loaded)
            self._loaded = loaded
        return self._loaded

    def _describe(self, loaded: Loaded) -> Card:
        from grym.models.registry import revision_hash

        options = self._options
        facts: dict[str, Any] = {
            "precision": loaded.rung.split("/")[0],
            "language": options.language,
            "translate": options.translate,
            "timestamps": self._times(loaded),
            "overlap_seconds": options.overlap_seconds,
        }
        rate = int(loaded.extractor.sampling_rate)
        own = self._spec.licence
        licence = own if own != "unknown" else PUBLISHED_LICENCES.get(loaded.kind, own)
        return Card(
            name=self._spec.name,
            revision=revision_hash(loaded.files, facts),
            adapter="seq2seq",
            tasks=("transcribe", "features", "analyze"),
            sample_rate=rate,
            min_seconds=FRAME_SAMPLES / rate,
            max_seconds=options.max_seconds,
            languages=loaded.languages or ("en",),
            licence=licence,
            feature_dim=int(loaded.network.config.hidden_size),
            parameters=sum(p.numel() for p in loaded.network.parameters()),
            rung=loaded.rung,
            details={
                "architecture": loaded.kind,
                "window_seconds": loaded.window_seconds,
                "licence_class": licence_class(licence),
                **facts,
            },
        )


def _sewn(spans: Sequence[Span], found: Sequence[Transcript], rate: int) -> list[Word]:
    windows = [shifted(one.words, span.start / rate) for one, span in zip(found, spans, strict=True)]
    apart = all(span.start >= before.stop for before, span in itertools.pairwise(spans))
    if apart:
        return [
            replace(w, text=f" {w.text}") if i and w is words[0] else w
            for i, words in enumerate(windows)
            for w in words
        ]
    return stitch(windows, [(span.start / rate, span.stop / rate) for span in spans])


def _segments(words: Sequence[Word], seconds: float) -> tuple[Segment, ...]:
    return tuple(
        Segment(
            start=min(word.start, seconds),
            end=min(word.end, seconds),
            text=word.text.strip(),
            confidence=min(1.0, math.exp(word.log_probability / max(1, word.tokens))),
        )
        for word in words
    )


def _confidence(words: Sequence[Word], found: Sequence[Transcript]) -> float:
    """Geometric mean over the tokens of the words that are kept; of all that was said where nothing is kept."""
    tokens = sum(word.tokens for word in words)
    mean = (
        sum(word.log_probability for word in words) / tokens
        if tokens
        else sum(one.log_probability for one in found) / max(1, len(found))
    )
    return math.exp(min(0.0, mean))
