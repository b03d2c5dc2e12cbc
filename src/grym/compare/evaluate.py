"""One model on one dataset: word error rates with intervals, in all and by slice.

For model cards; a comparison of two models is :mod:`grym.compare.session`.
Knows nothing about Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grym.audio import decode
from grym.batching import plan_batches
from grym.compare.normalize import get_normalizer
from grym.compare.plan import Usable, check_entries, distinct
from grym.compare.score import Score, score
from grym.compare.significance import rate_interval
from grym.models.interface import AudioClip, Options

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """

    slice: str
    clips: int
    words: int
    wer: float | None
    ci_low: float | None
    ci_high: float | None


def evaluate(worker: Worker, dataset: Dataset, settings: Settings) -> list[SliceRate]:
    """Transcribe a dataset and pool the errors, in all and by every slice.

    Raises:
        GrymError: the model failed; clips that cannot be used are left out.
    """
    usable, _ = distinct(check_entries(dataset.entries, settings.audio)[0])
    by_id = {clip.clip_id: clip for clip in usable}
    normalizer = get_normalizer(settings.compare.normalizer)
    scores: list[tuple[Usable, Score]] = []
    compare = settings.compare
    for batch in plan_batches(usable, max_seconds=compare.batch_seconds, max_clips=compare.batch_clips):
        clips = [_decoded(by_id[clip_id], settings) for clip_id in batch.clip_ids]
        answers, _ = worker.process(clips, Options(segments=False))
        scores += [
            (by_id[answer.clip_id], score(by_id[answer.clip_id].entry.text, answer.text or "", normalizer))
            for answer in answers
            if answer.error is None
        ]
    groups: dict[str, list[tuple[Usable, Score]]] = {"all": scores}
    for clip, result in scores:
        slices = {**clip.entry.slices, "speaker": clip.entry.speaker}
        for column, value in slices.items():
            if not value:
                continue
            groups.setdefault(f"{column}={value}", []).append((clip, result))
    known = all(clip.entry.speaker for clip in usable)
    return [_rate(name, groups[name], by_speaker=known) for name in ("all", *sorted(set(groups) - {"all"}))]


def _decoded(clip: Usable, settings: Settings) -> AudioClip:
    return decode(clip.entry.path, settings.audio, offset=clip.entry.offset, duration=clip.entry.duration)[0]


def _rate(name: str, scores: Sequence[tuple[Usable, Score]], *, by_speaker: bool) -> SliceRate:
    errors = [result.errors for _, result in scores]
    words = [result.reference_words for _, result in scores]
    clusters = [clip.entry.speaker if by_speaker else clip.clip_id for clip, _ in scores]
    low, high = rate_interval(errors, words, clusters, 0.95)
    wer = sum(errors) / sum(words) if sum(words) else None
    return SliceRate(name, len(scores), sum(words), wer, low, high)
