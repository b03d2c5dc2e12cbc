"""How right a model is about generated sounds: labels, both labels of a mixture, questions, captions.

Beside each rate stand the rate of random answers and that of the model when it hears another clip than the one it is
asked about (shuffled audio): what is left there is guessing. Knows nothing about networks or Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from grym.corpus.sounds import ATTRIBUTES, LABELS, SoundClip, captions, draw, draw_event, score_answer, score_caption
from grym.errors import QualityError
from grym.models.interface import AudioClip, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from grym.models.interface import Answer

    Process = Callable[[Sequence[AudioClip], Options], Sequence[Answer]]

TOGETHER: Final = 32
Z_95: Final = 1.959963984540054
NUMBERS: Final = ("one", "two", "three", "four")
# What is measured, in the order of the card.
LABEL, BOTH, QUESTION, CAPTION = (
    "label of a single sound",
    "both labels of a mixture",
    "questions",
    "captions all right",
)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something was right.

    Attributes:
        what: what was asked.
        slice: ``all`` or ``column=value``.
        total: how many were asked.
        right: how many answers were right.
        random: rate of random answers to the same, as a fraction.
        shuffled: rate of the model hearing other clips, as a fraction.
    """

    what: str
    slice: str
    total: int
    right: int
    random: float
    shuffled: float

    @property
    def rate(self) -> float:
        """As a fraction."""
        return self.right / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of Wilson (1927), as fractions."""
        return wilson(self.right, self.total)


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Example:
        >>> [round(end, 3) for end in wilson(95, 100)]
        [0.888, 0.978]
    """
    if not total:
        return 0.0, 1.0
    share, spread = right / total, Z_95**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * float(np.sqrt(share * (1 - share) / total + spread / (4 * total)))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(slots=True)
class _Tally:
    """Right answers of the model, of chance and of shuffled audio, by slice."""

    what: str
    rows: dict[str, list[tuple[bool, bool, bool]]] = field(default_factory=dict)

    def add(self, slices: Mapping[str, str], right: bool, random: bool, shuffled: bool) -> None:  # noqa: FBT001 - three of a kind
        for name in ("all", *(f"{column}={value}" for column, value in slices.items() if value)):
            self.rows.setdefault(name, []).append((right, random, shuffled))

    def rates(self) -> list[Rate]:
        names = [name for name in ("all", *sorted(set(self.rows) - {"all"})) if name in self.rows]
        found = []
        for name in names:
            right, random, shuffled = np.asarray(self.rows[name]).T
            found.append(
                Rate(self.what, name, right.size, int(right.sum()), float(random.mean()), float(shuffled.mean()))
            )
        return found


def held_out(seed: int, count: int) -> tuple[list[SoundClip], list[SoundClip]]:
    """Clips of the test split: as many with one sound as mixtures."""
    singles = [draw(seed, index, "test", mixture=False) for index in range(count)]
    return singles, [draw(seed, count + index, "test", mixture=True) for index in range(count)]


def measure_sounds(process: Process, seed: int, count: int) -> list[Rate]:
    """Rates on ``count`` clips with one sound and as many mixtures, drawn with a seed that was not trained on.

    Args:
        process: asks the model about clips, as :meth:`grym.models.interface.Model.process` does.
        seed: of the clips, and of the random answers.
        count: clips of either kind.

    Raises:
        QualityError: the model did not answer a clip.
    """
    singles, mixtures = held_out(seed, count)
    every = [*singles, *mixtures]
    audio = [AudioClip(clip.id, clip.samples, clip.rate) for clip in every]
    rng = np.random.default_rng([seed, 1])
    labels = _told(process, audio, Options(task="classify", labels=LABELS))
    said = _told(process, audio, Options(task="describe", max_new_tokens=64))
    tallies = [
        _labels(singles, labels[:count], rng),
        _both(mixtures, labels[count:], rng),
        _questions(process, every, audio, rng),
        _captions(every, said, rng),
    ]
    return [rate for tally in tallies for rate in tally.rates()]


def best(scores: Mapping[str, float], count: int) -> set[str]:
    """The ``count`` most likely labels."""
    return set(sorted(scores, key=lambda label: -scores[label])[:count])


def slices_of(clip: SoundClip) -> dict[str, str]:
    """The slices of a clip in a model card."""
    snr = "clean" if clip.snr_db is None else f"{clip.snr_db:.0f} dB"
    return {"snr": snr, "relation": clip.relation or "one"}


def _labels(clips: Sequence[SoundClip], told: Sequence[Answer], rng: np.random.Generator) -> _Tally:
    tally = _Tally(LABEL)
    for clip, own, other in zip(clips, told, _next(told), strict=True):
        true = clip.events[0].label
        guess = LABELS[int(rng.integers(len(LABELS)))]
        slices = {"snr": slices_of(clip)["snr"], "label": true}
        tally.add(slices, own.text == true, guess == true, other.text == true)
    return tally


def _both(clips: Sequence[SoundClip], told: Sequence[Answer], rng: np.random.Generator) -> _Tally:
    tally = _Tally(BOTH)
    for clip, own, other in zip(clips, told, _next(told), strict=True):
        true = {event.label for event in clip.events}
        guess = {str(label) for label in rng.choice(LABELS, 2, replace=False)}
        tally.add(slices_of(clip), best(own.scores, 2) == true, guess == true, best(other.scores, 2) == true)
    return tally


def _captions(clips: Sequence[SoundClip], told: Sequence[Answer], rng: np.random.Generator) -> _Tally:
    tally = _Tally(CAPTION)
    for clip, own, other in zip(clips, told, _next(told), strict=True):
        drawn = tuple(draw_event(str(x), rng) for x in rng.choice(LABELS, len(clip.events), replace=False))
        guess = captions(drawn, clip.relation, rng)
        right = [score_caption(text or "", clip).right for text in (own.text, guess, other.text)]
        tally.add({**slices_of(clip), "sounds": str(len(clip.events))}, right[0], right[1], right[2])
    return tally


def _questions(
    process: Process, clips: Sequence[SoundClip], audio: Sequence[AudioClip], rng: np.random.Generator
) -> _Tally:
    """Both questions of every clip; each is asked of its own clip and of the next one."""
    tally = _Tally(QUESTION)
    asked: dict[str, list[tuple[int, str]]] = {}
    for number, clip in enumerate(clips):
        for question, answer in clip.questions:
            asked.setdefault(question, []).append((number, answer))
    for question, group in asked.items():
        options = Options(task="question", prompt=question, max_new_tokens=16)
        own = _told(process, [audio[n] for n, _ in group], options)
        other = _told(process, [audio[(n + 1) % len(audio)] for n, _ in group], options)
        for (number, answer), told, shuffled in zip(group, own, other, strict=True):
            kind, choices = _choices(clips[number], answer)
            guess = choices[int(rng.integers(len(choices)))]
            slices = {"snr": slices_of(clips[number])["snr"], "about": kind}
            hits = [score_answer(text or "", answer) for text in (told.text, guess, shuffled.text)]
            tally.add(slices, hits[0], hits[1], hits[2])
    return tally


def _choices(clip: SoundClip, answer: str) -> tuple[str, tuple[str, ...]]:
    """What a question is about, and all answers that it could have."""
    if answer in {"yes", "no"}:
        return "presence", ("yes", "no")
    if answer in LABELS:
        return "label", LABELS
    for event in clip.events:
        for key, value in event.attributes.items():
            if value == answer:
                return key, ATTRIBUTES[event.label][key]
    return "number of sounds", NUMBERS[:2]


def _told(process: Process, audio: Sequence[AudioClip], options: Options) -> list[Answer]:
    answers: list[Answer] = []
    for first in range(0, len(audio), TOGETHER):
        answers += process(audio[first : first + TOGETHER], options)
    for answer in answers:
        if answer.error is not None:
            msg = f"The model did not answer clip {answer.clip_id}: {answer.error.message}"
            raise QualityError(msg, code="no-answer", hint="Look at the error; generated clips can all be used.")
    return answers


def _next(answers: Sequence[Answer]) -> Iterable[Any]:
    """The answers to other clips: each clip gets that of the next one."""
    return [*answers[1:], *answers[:1]]
