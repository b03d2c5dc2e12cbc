"""One model on one dataset: word error rates with intervals, in all and by slice.

For model cards; a comparison of two models is :mod:`grym.compare.session`.
Knows nothing about Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grym.audio import decode
from grym.batching import plan_batches
from grym.compare.normalize import get_normalizer
from grym.compare.plan import Usable, check_entries, distinct
from grym.compare.score import Score, score
from grym.compare.significance import rate_interval
from grym.errors import QualityError
from grym.models.interface import AudioClip, Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.config import Settings
    from grym.corpus.manifest import Dataset
    from grym.worker import Worker


@dataclass(frozen=True, slots=True)
class SliceRate:
    """Word error rate of one slice; the interval is clustered by speaker where speakers are known.

    Attributes:
        slice: ``"all"`` or ``"column=value"``.
        clips: clips answered.
        words: reference words.
        wer: pooled errors / words, as a fraction; ``None`` without reference words.
        ci_low: lower end of the 95 % interval, or ``None`` with fewer than two clusters.
        ci_high: upper end.
        failures: clips without an answer; they are in no other number.
    """

    slice: str
    clips: int
    words: int
    wer: float | None
    ci_low: float | None
    ci_high: float | None
    failures: int = 0


def evaluate(worker: Worker, dataset: Dataset, settings: Settings) -> list[SliceRate]:
    """Transcribe a dataset and pool the errors, in all and by every slice.

    A clip that the model gave no answer to is counted in ``failures``.

    Raises:
        QualityError: not one word was scored.
        GrymError: the model failed; clips that cannot be used are left out.
    """
    usable, _ = distinct(check_entries(dataset.entries, settings.audio)[0])
    return pooled([measure(worker, usable, settings)])


@dataclass(frozen=True, slots=True)
class Measured:
    """Clips one model was asked about, and the scores of those it answered, by clip id."""

    usable: tuple[Usable, ...]
    scores: Mapping[str, Score]


def measure(worker: Worker, usable: Sequence[Usable], settings: Settings) -> Measured:
    """Transcribe clips and score the answers.

    Raises:
        GrymError: the model failed.
    """
    return Measured(tuple(usable), _scores(worker, usable, settings))


def controls(part: Measured, settings: Settings, seed: int = 0) -> tuple[float, float]:
    """What is no hearing: word error rates of random words, and of the answers to other clips, as fractions.

    Args:
        part: what was answered.
        settings: for the normaliser.
        seed: of the random words; as many as the reference has, of the words that occur in any.

    Raises:
        QualityError: not one word was scored.
    """
    overall(pooled([part]))
    normalizer = get_normalizer(settings.compare.normalizer)
    rng = np.random.default_rng(seed)
    answered = [part.scores[clip.clip_id] for clip in part.usable if clip.clip_id in part.scores]
    truth = [" ".join(pair.reference for pair in one.alignment if pair.reference) for one in answered]
    words = sorted({word for text in truth for word in text.split()})
    guesses = [" ".join(words[int(i)] for i in rng.integers(0, len(words), len(text.split()))) for text in truth]
    said = [" ".join(pair.hypothesis for pair in one.alignment if pair.hypothesis) for one in answered]
    order = rng.permutation(len(said)).tolist()
    next_one = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    rates = []
    for texts in (guesses, [said[next_one[i]] for i in range(len(said))]):
        scores = [score(true, text, normalizer) for true, text in zip(truth, texts, strict=True)]
        rates.append(sum(one.errors for one in scores) / max(1, sum(one.reference_words for one in scores)))
    return rates[0], rates[1]


def pooled(parts: Sequence[Measured]) -> list[SliceRate]:
    """Rates over all clips of several models, in all and by every slice; one model for each fold of a cross-validation.

    Raises:
        QualityError: not one word was scored.
    """
    usable = [clip for part in parts for clip in part.usable]
    scores = {clip_id: found for part in parts for clip_id, found in part.scores.items()}
    groups: dict[str, list[Usable]] = {"all": usable}
    for clip in usable:
        slices = {**clip.entry.slices, "speaker": clip.entry.speaker}
        for column, value in slices.items():
            if value:
                groups.setdefault(f"{column}={value}", []).append(clip)
    known = all(clip.entry.speaker for clip in usable)
    names = ("all", *sorted(set(groups) - {"all"}))
    rates = [_rate(name, groups[name], scores, by_speaker=known) for name in names]
    overall(rates)
    return rates


def overall(rates: Sequence[SliceRate]) -> float:
    """The word error rate over all clips, as a fraction.

    Raises:
        QualityError: not one word was scored, so there is no rate.
    """
    first = rates[0] if rates else SliceRate("all", 0, 0, None, None, None)
    if first.wer is None:
        msg = f"Nothing was scored: {first.clips} clips with {first.words} words answered, {first.failures} unanswered."
        raise QualityError(msg, code="nothing-scored", hint="Measure on a dataset with usable clips and texts.")
    return first.wer


def _scores(worker: Worker, usable: Sequence[Usable], settings: Settings) -> dict[str, Score]:
    """Scores by clip id of the clips that were answered."""
    by_id = {clip.clip_id: clip for clip in usable}
    compare = settings.compare
    normalizer = get_normalizer(compare.normalizer)
    scores: dict[str, Score] = {}
    for batch in plan_batches(usable, max_seconds=compare.batch_seconds, max_clips=compare.batch_clips):
        clips = [_decoded(by_id[clip_id], settings) for clip_id in batch.clip_ids]
        answers, _ = worker.process(clips, Options(segments=False))
        for answer in answers:
            if answer.error is None and answer.text is not None:
                scores[answer.clip_id] = score(by_id[answer.clip_id].entry.text, answer.text, normalizer)
    return scores


def _decoded(clip: Usable, settings: Settings) -> AudioClip:
    return decode(clip.entry.path, settings.audio, offset=clip.entry.offset, duration=clip.entry.duration)[0]


def _rate(name: str, group: Sequence[Usable], scores: Mapping[str, Score], *, by_speaker: bool) -> SliceRate:
    answered = [clip for clip in group if clip.clip_id in scores]
    errors = [scores[clip.clip_id].errors for clip in answered]
    words = [scores[clip.clip_id].reference_words for clip in answered]
    clusters = [clip.entry.speaker if by_speaker else clip.clip_id for clip in answered]
    low, high = rate_interval(errors, words, clusters, 0.95)
    wer = sum(errors) / sum(words) if sum(words) else None
    return SliceRate(name, len(answered), sum(words), wer, low, high, len(group) - len(answered))
