"""From what was heard in each window of a clip to one answer; the same for everything that generates text.

Knows nothing about networks. Times are seconds, probabilities lie in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import numpy.typing as npt

from grym.errors import GrymError, ModelError
from grym.models.failures import find_failure
from grym.models.gama.windows import Part, Span, mean_confidence, merge_texts
from grym.models.interface import Answer, AudioClip, Card, Options, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

H = TypeVar("H")  # what an adapter hears in a window
NOTHING: Final[npt.NDArray[np.float32]] = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a window.

    Attributes:
        text: the answer, for ``classify`` a caption or nothing.
        confidence: in [0, 1].
        tokens: number emitted.
        ended: whether the text ended by itself.
        seconds: compute time.
        features: float32 ``shape = (dim,)``.
        scores: probability of each label, float64 ``shape = (labels,)``.
    """

    text: str
    confidence: float
    tokens: int
    ended: bool
    seconds: float
    features: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float64] | None = None


def confidence_of(log_probability: float) -> float:
    """Geometric mean of probabilities from their mean logarithm; NaN if that is no number, never certainty.

    Example:
        >>> confidence_of(0.0), confidence_of(float("nan"))
        (1.0, nan)
    """
    # min() and max() let NaN through or not by the order of their arguments: nothing may depend on that.
    return math.exp(min(0.0, log_probability)) if math.isfinite(log_probability) else math.nan


def unheard() -> Heard:
    """A window of which the network made NaN; :func:`compose` turns its clip into an error."""
    return Heard(text="", confidence=math.nan, tokens=0, ended=True, seconds=0.0, features=NOTHING)


def parts_of(spans: Sequence[Span], heard: Sequence[Heard], rate: int) -> list[Part]:
    """Windows with their times and what was said about them."""
    return [
        Part(span.start / rate, span.stop / rate, one.text, one.confidence)
        for span, one in zip(spans, heard, strict=True)
    ]


def compose(
    clip: AudioClip,
    spans: Sequence[Span],
    heard: Sequence[Heard],
    options: Options,
    card: Card,
    *,
    task: str,
    labels: Sequence[str] = (),
    shares: npt.NDArray[np.float64] | None = None,
) -> Answer:
    """One answer from those of the windows.

    Args:
        clip: what was asked about.
        spans: its windows, in order.
        heard: what came of each.
        options: of the call; segments and features if wanted.
        card: of the model.
        task: what was asked; transcripts are joined, other answers listed with their times.
        labels: what was chosen from, for ``classify``.
        shares: probability of each label for the whole clip by what was said about it; default: the windows' own, by
            their length.

    Returns:
        An answer with the first failure of the texts that it rests on, or one with an error if anything is NaN.
    """
    if not all(math.isfinite(one.confidence) and np.isfinite(one.features).all() for one in heard):
        return failed(clip, ModelError("The model answered with NaN.", code="not-finite"), card)
    parts = parts_of(spans, heard, clip.rate)
    text, confidence = merge_texts(parts, task), mean_confidence(parts)
    scores: dict[str, float] = {}
    failure = ""
    if labels:
        weighed = by_length(heard, spans) if shares is None else shares
        scores = dict(zip(labels, weighed.tolist(), strict=True))
        text, confidence = max(scores.items(), key=lambda item: item[1])
    if not labels or shares is not None:
        # Labels chosen by what was said are no better than what was said.
        found = [find_failure(one.text, "describe" if labels else task, ended=one.ended) for one in heard]
        # A window in which nothing was said is no failure where others have text.
        said = any(one.text for one in heard)
        failure = next((kind for kind in found if kind and (kind != "empty" or not said)), "")
    return Answer(
        clip_id=clip.id,
        text=text,
        confidence=min(1.0, confidence),
        segments=tuple(Segment(p.start, p.end, p.text, p.confidence) for p in parts) if options.segments else (),
        tokens=sum(one.tokens for one in heard),
        seconds=sum(one.seconds for one in heard),
        rung=card.rung,
        model=card.name,
        revision=card.revision,
        features=weighted([one.features for one in heard], spans) if options.features else None,
        failure=failure,
        scores=scores,
    )


def answer_all(
    batch: Sequence[AudioClip],
    card: Card,
    *,
    refuse: Callable[[AudioClip], GrymError | None],
    windows: Callable[[AudioClip], list[Span]],
    hear: Callable[[list[AudioClip], list[list[Span]]], Iterable[H]],
    answer: Callable[[AudioClip, list[Span], list[H]], Answer],
) -> list[Answer]:
    """One answer for each clip, in the order given; a clip that cannot be used never fails the others.

    Args:
        batch: what is asked about.
        card: of the model.
        refuse: why a clip cannot be used.
        windows: how a usable clip is cut.
        hear: what comes of the windows of all usable clips, in one sequence.
        answer: what becomes of a clip, its windows and what came of each.
    """
    errors = [refuse(clip) for clip in batch]
    usable = [clip for clip, error in zip(batch, errors, strict=True) if error is None]
    spans = [windows(clip) for clip in usable]
    heard = iter(list(hear(usable, spans)))
    left = iter(spans)
    answers = []
    for clip, error in zip(batch, errors, strict=True):
        if error is not None:
            answers.append(failed(clip, error, card))
        else:
            own = next(left)
            answers.append(answer(clip, own, [next(heard) for _ in own]))
    return answers


def failed(clip: AudioClip, error: GrymError, card: Card) -> Answer:
    """An answer that says why there is none."""
    return Answer(clip.id, None, rung=card.rung, model=card.name, revision=card.revision, error=error.record())


def by_length(heard: Sequence[Heard], spans: Sequence[Span]) -> npt.NDArray[np.float64]:
    """Mean of the windows' probabilities of labels, by their length, float64 ``shape = (labels,)``."""
    weights = np.asarray([span.stop - span.start for span in spans], dtype=np.float64)
    stacked = np.stack([one.scores for one in heard if one.scores is not None])
    mean: npt.NDArray[np.float64] = np.average(stacked, axis=0, weights=weights)
    return mean


def weighted(vectors: Sequence[npt.NDArray[np.float32]], spans: Sequence[Span]) -> npt.NDArray[np.float32]:
    """Mean of the windows' vectors, by their length, float32 ``shape = (dim,)``."""
    weights = [span.stop - span.start for span in spans]
    mean: npt.NDArray[np.float32] = np.average(np.stack(vectors), axis=0, weights=weights).astype(np.float32)
    return mean
