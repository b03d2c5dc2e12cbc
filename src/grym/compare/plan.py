"""What a comparison will do: usable clips, planned batches, identity of the run.

Knows nothing about Prefect or processes. Times are seconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from grym.batching import Batch, plan_batches
from grym.compare.early_stop import walk
from grym.errors import ErrorRecord, GrymError, ManifestError
from grym.store import RunRef, Store
from grym.worker.decoder import DecodeAll, decode_here

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from grym.audio import Measured
    from grym.config import AudioLimits, CompareSettings, Settings
    from grym.corpus.manifest import Dataset, Entry
    from grym.models.interface import AudioClip


@dataclass(frozen=True, slots=True)
class Usable:
    """One clip that a run can use: its manifest entry, content id and measurements."""

    entry: Entry
    clip_id: str
    measured: Measured

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.measured.seconds


@dataclass(frozen=True, slots=True)
class Refused:
    """One clip or manifest row that a run cannot use."""

    key: str
    stage: str
    error: ErrorRecord


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided before the first model answers.

    Attributes:
        key: identity of the question.
        run: the run that answers it.
        ordinal: 1 for the first run of a key.
        resumed: whether an unfinished run goes on.
        clips: usable clips.
        batches: all of them, in the order in which they are answered.
        latency_sample: ids of the clips of the latency pass.
        steps: the batches between two looks of a run that may stop early; empty if it may not.
    """

    key: str
    run: RunRef
    ordinal: int
    resumed: bool
    clips: tuple[Usable, ...]
    batches: tuple[Batch, ...]
    latency_sample: tuple[str, ...]
    steps: tuple[tuple[Batch, ...], ...] = ()


def check_entries(
    entries: Sequence[Entry],
    limits: AudioLimits,
    see: Callable[[AudioClip, Measured], object] | None = None,
    decode: DecodeAll = decode_here,
) -> tuple[list[Usable], list[Refused]]:
    """Decode and measure every clip; a clip that cannot be used is refused with its reason.

    Args:
        entries: rows of a manifest.
        limits: what a usable clip is.
        see: called with each usable clip while its samples are in memory; they are dropped afterwards.
        decode: who decodes; a :class:`grym.worker.decoder.Decoder` where the files are not to be trusted.
    """
    usable: list[Usable] = []
    refused: list[Refused] = []
    for entry, found in zip(entries, decode(entries, limits), strict=True):
        if isinstance(found, GrymError):
            refused.append(Refused(entry.key, "audio", found.record()))
        else:
            clip, measured = found
            usable.append(Usable(entry, clip.id, measured))
            if see is not None:
                see(clip, measured)
    return usable, refused


def distinct(clips: Sequence[Usable]) -> tuple[list[Usable], list[Refused]]:
    """Keep the first clip of every content id; the same audio under a second name is refused."""
    first: dict[str, Usable] = {}
    refused: list[Refused] = []
    for clip in clips:
        known = first.setdefault(clip.clip_id, clip)
        if known is not clip:
            error = ManifestError(
                f"{clip.entry.key} holds the same audio as {known.entry.key}.",
                code="duplicate-audio",
                hint="Keep one of the two rows.",
            )
            refused.append(Refused(clip.entry.key, "audio", error.record()))
    return list(first.values()), refused


def refusals(dataset: Dataset) -> list[Refused]:
    """What the loader could not use."""
    return [Refused(rejected.key, "manifest", rejected.error) for rejected in dataset.rejected]


def fingerprint(clips: Sequence[Usable]) -> str:
    """Hash of what is asked: content, reference, speaker and slices of every clip, in any order."""
    rows = sorted(
        json.dumps([c.clip_id, c.entry.key, c.entry.text, c.entry.speaker, dict(sorted(c.entry.slices.items()))])
        for c in clips
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def run_key(
    clips: Sequence[Usable],
    arms: Mapping[str, str],
    settings: Settings,
    gates: str = "",
    task: Mapping[str, object] | None = None,
) -> str:
    """Identity of the question: whatever can change an answer or a verdict is in it.

    Args:
        clips: usable clips, in any order.
        arms: letter -> revision and rung of the model, and its probe.
        settings: grym.toml; ``[compare]``, ``[audio]`` and ``[worker]`` count, but not which other datasets are
            compared by the same command.
        gates: digest of the expectation suites.
        task: what is asked, beyond that.
    """
    options = {name: getattr(settings, name).model_dump(mode="json") for name in ("compare", "audio", "worker")}
    options["compare"].pop("datasets")
    facts = {"clips": fingerprint(clips), "arms": dict(arms), "options": options, "gates": gates, "task": task or {}}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def choose_run(store: Store, key: str, *, new: bool, complete: frozenset[str]) -> tuple[RunRef, int, bool]:
    """Resume the newest unfinished run of a key, or start the next ordinal.

    Args:
        store: where runs are landed.
        key: identity of the question.
        new: start another run even if an unfinished one exists.
        complete: ids of runs whose last step is done.

    Returns:
        The run, its ordinal, and whether it is resumed.
    """
    known = store.find_runs(key)
    if known and not new:
        run, finished = known[-1]
        if not (finished and run.id in complete):
            return run, int(run.id.rsplit("-", 1)[1]), True
    ordinal = 1 + max((int(run.id.rsplit("-", 1)[1]) for run, _ in known), default=0)
    return RunRef(f"{key[:12]}-{ordinal}", datetime.now(UTC).date().isoformat()), ordinal, False


def make_plan(
    clips: Sequence[Usable], key: str, settings: CompareSettings, store: Store, *, new: bool, complete: frozenset[str]
) -> Plan:
    """Plan a run over usable clips for the question ``key``; see :func:`choose_run` for which run it is."""
    run, ordinal, resumed = choose_run(store, key, new=new, complete=complete)
    steps = _steps(clips, settings) if settings.stop_early else ((_batches(clips, settings)),)
    rng = np.random.default_rng(settings.seed)
    # What is timed has to be answered too, and of a run that may stop early only the first step surely is.
    ids = sorted(clip_id for batch in steps[0] for clip_id in batch.clip_ids) if steps else []
    count = min(settings.latency_clips, len(ids))
    sample = tuple(ids[i] for i in sorted(rng.choice(len(ids), count, replace=False))) if count else ()
    batches = tuple(batch for step in steps for batch in step)
    return Plan(key, run, ordinal, resumed, tuple(clips), batches, sample, steps if settings.stop_early else ())


def group_id(runs: Sequence[str]) -> str:
    """Id of a comparison on several datasets: the same runs have the same one, so that a repeat finds it again."""
    return f"all-{hashlib.sha256(' '.join(sorted(runs)).encode()).hexdigest()[:12]}"


def _batches(clips: Sequence[Usable], settings: CompareSettings) -> tuple[Batch, ...]:
    return plan_batches(clips, max_seconds=settings.batch_seconds, max_clips=settings.batch_clips)


def _steps(clips: Sequence[Usable], settings: CompareSettings) -> tuple[tuple[Batch, ...], ...]:
    """The seeded random walk over the clips, each step in batches of its own."""
    by_id = {clip.clip_id: clip for clip in clips}
    return tuple(
        _batches([by_id[clip_id] for clip_id in step], settings) for step in walk(list(by_id), settings.seed) if step
    )


def clip_row(clip: Usable, dataset: str) -> dict[str, object]:
    """The clip as a row of table ``clips``."""
    measured = dataclasses.asdict(clip.measured)
    entry = clip.entry
    return {
        "clip_id": clip.clip_id,
        "key": entry.key,
        "dataset": dataset,
        "path": entry.relative,
        "reference": entry.text,
        "speaker": entry.speaker,
        "slices": json.dumps(dict(sorted(entry.slices.items())), ensure_ascii=False),
        **measured,
    }


def refused_row(refused: Refused) -> dict[str, object]:
    """The refusal as a row of table ``quarantine``."""
    error = refused.error
    return {
        "key": refused.key,
        "stage": refused.stage,
        "category": str(error.category),
        "code": error.code,
        "message": error.message,
        "hint": error.suggestion,
        "severity": str(error.severity),
    }
