"""A model that says what a script tells it, and fails the way a script tells it.

It exists for speed and for scripted failures in tests. It hears nothing: nothing
that it says is evidence that the platform recognises anything. Needs numpy only.

The option ``script`` is a JSON object. A key names a clip by its id, by its place
in the batch (``"#0"``) or any clip (``"*"``), and is looked up in that order; the
value is the clip's text, or an object with the fields of :class:`Rule`::

    {"*": "one two", "clip-7": {"do": "crash", "first": 2}, "#0": {"text": "three", "confidence": 0.4}}

The keys ``"load"``, ``"ping"``, ``"features"``, ``"analyze"`` and ``"close"`` hold rules for these operations.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NoReturn, cast

import numpy as np
import numpy.typing as npt

from grym.errors import ConfigError, ErrorRecord, GrymError
from grym.models.interface import Answer, AudioClip, Card, Level, Options, Samples, Segment
from grym.models.registry import build_options, revision_hash

if TYPE_CHECKING:
    from grym.config import ModelSpec

Deed = Literal[
    "answer",
    "fail",
    "raise",
    "bug",
    "memory",
    "gpu-memory",
    "crash",
    "exit",
    "hang",
    "spin",
    "print",
    "too-few",
    "wrong-id",
    "nan",
    "junk",
]
WRONG_WORDS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FLOOR: Final = 1e-3
MB: Final = 1e6
TASKS: Final = "transcribe,features,analyze"


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """Options in grym.toml.

    Attributes:
        script: JSON object as the module says; empty answers every clip with the empty text.
        error_rate: probability that a word is replaced, left out or doubled.
        seed: seed of these errors; the same clip always gets the same ones.
        latency_seconds: time that each call sleeps.
        feature_dim: length of a feature vector.
        tasks: what its card says it can do, separated by commas. Asked to ``classify``, it says the scripted text
            with the scripted confidence, and shares what is left among the other labels.
        state: file that counts what rules with ``first`` did, so that they survive a restart.
        memory_mb_per_second: memory that a call takes for each second of its audio, in MB (10^6 bytes).
    """

    script: str = ""
    error_rate: float = 0.0
    seed: int = 0
    latency_seconds: float = 0.0
    feature_dim: int = 8
    tasks: str = TASKS
    state: str = ""
    memory_mb_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to a clip.

    Attributes:
        text: what is said.
        confidence: in [0, 1].
        do: ``answer``; ``fail`` gives an answer with an error; ``raise`` raises a typed error, ``bug`` a
            ValueError that names a file, ``memory`` a MemoryError, ``gpu-memory`` what torch raises when the memory
            of a GPU is full; ``spin`` computes for ever; ``crash`` is a SIGKILL to itself, ``exit`` ends
            the process with code 3, ``hang`` sleeps for an hour, ``print`` writes to standard output and answers;
            ``too-few``, ``wrong-id``, ``nan`` and ``junk`` spoil the answers.
        category: category of the error that ``raise`` and ``fail`` give.
        code: code of that error.
        retryable: whether that error is retryable.
        first: if positive, only the first so many times; afterwards it answers. Needs the option ``state``.
    """

    text: str = ""
    confidence: float = 0.9
    do: Deed = "answer"
    category: str = "model"
    code: str = "scripted"
    retryable: bool = False
    first: int = 0


class FakeModel:
    """A scripted model; see the module.

    Raises:
        ConfigError: the script is not a JSON object of texts and rules.
        GrymError: whatever the rule ``"load"`` says.
    """

    options_type: ClassVar[type[FakeOptions]] = FakeOptions

    def __init__(self, spec: ModelSpec, options: FakeOptions) -> None:
        self._spec, self._options = spec, options
        self._rules = _read_script(options.script)
        self._state = Path(options.state) if options.state else None
        if self._state is None and any(rule.first for rule in self._rules.values()):
            msg = "A rule with 'first' needs the option state."
            raise ConfigError(msg, code="bad-script", hint="Give a file that survives a restart.")
        self._act("load")

    @property
    def card(self) -> Card:
        """What it pretends to be."""
        options = self._options
        facts = {"script": options.script, "error_rate": options.error_rate, "seed": options.seed}
        if options.tasks != TASKS:
            facts["tasks"] = options.tasks
        return Card(
            name=self._spec.name,
            revision=revision_hash([], {**facts, "feature_dim": options.feature_dim}),
            adapter="fake",
            tasks=tuple(options.tasks.split(",")),
            languages=("en",),
            licence=self._spec.licence,
            feature_dim=options.feature_dim,
            rung="script/cpu",
        )

    def process(self, batch: Sequence[AudioClip], options: Options) -> list[Answer]:
        """Say what the script says about every clip."""
        seconds = sum(clip.seconds for clip in batch)
        taken = np.ones(int(self._options.memory_mb_per_second * seconds * MB), np.uint8)
        time.sleep(self._options.latency_seconds)
        del taken
        chosen = [self._rule(place, clip.id) for place, clip in enumerate(batch)]
        answers = [
            self._answer(clip, rule, self._due(key, rule), options)
            for clip, (key, rule) in zip(batch, chosen, strict=True)
        ]
        return [answer for answer in answers if answer is not None]

    def features(self, batch: Sequence[AudioClip]) -> npt.NDArray[np.float32]:
        """Log energies in ``feature_dim`` bands of the spectrum, float32 ``shape = (batch, feature_dim)``."""
        time.sleep(self._options.latency_seconds)
        self._act("features")
        return np.stack([_bands(clip.samples, self._options.feature_dim) for clip in batch])

    def analyze(self, batch: Sequence[AudioClip], level: Level) -> list[dict[str, float]]:
        """Length, level and peak; ``advanced`` adds the rate of zero crossings."""
        time.sleep(self._options.latency_seconds)
        self._act("analyze")
        return [_measure(clip, level) for clip in batch]

    def ping(self) -> dict[str, str]:
        """Answer at once, unless the script says otherwise."""
        self._act("ping")
        return {"status": "ok", "model": self._spec.name}

    def close(self) -> None:
        """Nothing to release, unless the script says otherwise."""
        self._act("close")

    def _rule(self, place: int, clip_id: str) -> tuple[str, Rule]:
        for key in (clip_id, f"#{place}", "*"):
            if key in self._rules:
                return key, self._rules[key]
        return "", Rule()

    def _due(self, key: str, rule: Rule) -> Deed:
        """What the rule does this time. Counted before it is done, because it may be the end."""
        if not rule.first or self._state is None:
            return rule.do
        with self._state.open("a+", encoding="utf-8") as stream:
            stream.write(json.dumps(key) + "\n")
            stream.seek(0)
            times = stream.read().splitlines().count(json.dumps(key))
        return rule.do if times <= rule.first else "answer"

    def _act(self, operation: str) -> None:
        rule = self._rules.get(operation)
        if rule is not None:
            _do(self._due(operation, rule), rule)

    def _answer(self, clip: AudioClip, rule: Rule, deed: Deed, options: Options) -> Answer | None:
        _do(deed, rule)
        if deed == "too-few":
            return None
        if deed == "junk":
            return cast("Answer", {"clip": clip.id})
        if deed == "fail":
            record = ErrorRecord(rule.category, rule.code, "The script says that this clip fails.", rule.retryable)
            return Answer(clip.id, None, error=record)
        words = self._spoil(rule.text.split(), clip.id)
        return Answer(
            clip_id="somebody-else" if deed == "wrong-id" else clip.id,
            text=" ".join(words),
            confidence=float("nan") if deed == "nan" else rule.confidence,
            segments=_segments(words, clip.seconds, rule.confidence) if options.segments else (),
            tokens=len(words),
            seconds=self._options.latency_seconds,
            rung="script/cpu",
            model=self._spec.name,
            revision=self.card.revision,
            features=_bands(clip.samples, self._options.feature_dim) if options.features else None,
            scores=_scores(" ".join(words), rule.confidence, options) if options.task == "classify" else {},
        )

    def _spoil(self, words: Sequence[str], clip_id: str) -> list[str]:
        """Words with seeded errors: a third each replaced, left out, doubled."""
        rng = random.Random(f"{self._options.seed}/{clip_id}")  # noqa: S311 - no secret depends on it
        spoilt: list[str] = []
        for word in words:
            if rng.random() >= self._options.error_rate:
                spoilt.append(word)
                continue
            wrong = rng.choice([w for w in WRONG_WORDS if w != word])
            spoilt.extend(rng.choice([[wrong], [], [word, word]]))
        return spoilt


def _read_script(script: str) -> dict[str, Rule]:
    try:
        raw = json.loads(script or "{}")
    except ValueError as error:
        _bad_script(f"it is not JSON: {error}")
    if not isinstance(raw, dict):
        _bad_script("it is not an object")
    return {key: _read_rule(key, value) for key, value in raw.items()}


def _read_rule(key: str, value: object) -> Rule:
    if isinstance(value, str):
        return Rule(text=value)
    if not isinstance(value, Mapping):
        _bad_script(f"{key!r} is neither a text nor an object")
    return build_options(Rule, value, f"rule {key!r}")


def _bad_script(why: str) -> NoReturn:
    msg = f"The script cannot be used: {why}."
    raise ConfigError(msg, code="bad-script", hint="See grym.models.fake for its form.")


class OutOfMemoryError(RuntimeError):
    """Named like ``torch.cuda.OutOfMemoryError``, by which a worker knows it without importing torch."""


def _do(deed: Deed, rule: Rule) -> None:
    if deed == "raise":
        message = "The script says so."
        raise GrymError.from_record(ErrorRecord(rule.category, rule.code, message, rule.retryable, hint="Change it."))
    if deed == "bug":
        msg = "cannot read '/home/somebody/secret folder/weights.bin'"
        raise ValueError(msg)
    if deed == "memory":
        raise MemoryError
    if deed == "gpu-memory":
        msg = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB."
        raise OutOfMemoryError(msg)
    while deed == "spin":
        pass
    if deed == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "exit":
        raise SystemExit(3)
    if deed == "hang":
        time.sleep(3600)
    if deed == "print":
        print("a library says hello")  # noqa: T201 - that is the point
        os.write(1, b"so does its C code\n")


def _scores(said: str, confidence: float, options: Options) -> dict[str, float]:
    """The scripted confidence for the label that was said; none if it is no label."""
    if said not in options.labels:
        return {}
    others = max(1, len(options.labels) - 1)
    return {label: confidence if label == said else (1 - confidence) / others for label in options.labels}


def _segments(words: Sequence[str], seconds: float, confidence: float) -> tuple[Segment, ...]:
    step = seconds / max(1, len(words))
    return tuple(Segment(n * step, (n + 1) * step, word, confidence) for n, word in enumerate(words))


def _bands(samples: Samples, dim: int) -> npt.NDArray[np.float32]:
    power = np.abs(np.fft.rfft(samples, n=max(samples.size, 2 * dim))) ** 2
    means = [float(band.mean()) for band in np.array_split(power, dim)]
    return (np.log1p(means) + FLOOR).astype(np.float32)


def _measure(clip: AudioClip, level: Level) -> dict[str, float]:
    samples = clip.samples.astype(np.float64)
    measured = {
        "seconds": clip.seconds,
        "rms": float(np.sqrt(np.mean(samples**2))) if samples.size else 0.0,
        "peak": float(np.abs(samples).max(initial=0.0)),
    }
    if level == "advanced":
        crossings = int(np.count_nonzero(np.diff(np.signbit(samples))))
        measured["zero_crossings_per_second"] = crossings / clip.seconds if samples.size else 0.0
    return measured
