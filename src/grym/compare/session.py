"""One comparison while it runs: two workers, a store, and what each step reads and lands.

Knows nothing about Prefect: the tasks call these methods in order and add
retries, tags and limits. Every method can be repeated: parts are named after the
planned batch, so a repeat overwrites itself. Times are seconds.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from grym.compare.plan import Plan, Refused, Usable, clip_row, refused_row
from grym.compare.run_evidence import look_at, look_row
from grym.compare.score import aligned_rows
from grym.compare.task import Task, Transcribe
from grym.compare.wording import MAX_UNANSWERED
from grym.errors import AudioError, GrymError, QualityError, ResourceError, WorkerError
from grym.memory.features import FeatureStore, space_name
from grym.models.interface import Answer, AudioClip, Card
from grym.quality import Held, Judgement, features_frame, response_frame
from grym.resilience.failover import own_answers
from grym.resilience.opening import memory_manager
from grym.resilience.recovery import tried_again
from grym.resilience.state import States
from grym.worker import Usage, Worker
from grym.worker.decoder import DecodeAll, decode_here

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from grym.batching import Batch
    from grym.compare.probe_arm import Asked
    from grym.compare.probe_files import Probe
    from grym.config import Settings
    from grym.resilience.memory import MemoryManager
    from grym.store import Store

Judge = Callable[[str, "pd.DataFrame", str], Judgement]
ARMS: Final = ("a", "b")
# A model that fails this many single clips in a row is not asked about the rest of the batch.
GIVE_UP_AFTER: Final = 3
# What one batch of one arm lands, the outcomes last: they say that the batch is done.
BATCH_TABLES: Final = ("quality", "quarantine", "words", "operations", "outcomes")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of the comparison: its letter, what answers, its card, and the probe it answers through, if any."""

    letter: str
    worker: Asked
    card: Card
    probe: Probe | None = None

    @property
    def facts(self) -> str:
        """What of it can change an answer, for the key of the run."""
        probe = f" probe {self.probe.id}" if self.probe is not None else ""
        return f"{self.card.revision} {self.card.rung}{probe}"

    @property
    def device_tag(self) -> str:
        """``gpu`` or ``cpu``: the tag that limits how many of its tasks run at once."""
        return "gpu" if "cuda" in self.card.rung else "cpu"


@dataclass(frozen=True, slots=True)
class _Answered:
    """What came back for one batch, and at what cost."""

    clips: Sequence[AudioClip]
    answers: Sequence[Answer]
    usage: Usage | None


@dataclass(slots=True)
class Session:
    """Everything the steps of one run share.

    Attributes:
        settings: grym.toml.
        plan: clips, batches and identity of the run.
        arms: the two sides, by letter.
        store: landing zone and warehouse.
        memory: feature store.
        judge: evaluates an expectation suite on a frame: (suite, frame, subject) -> judgement.
        dataset: name of the dataset.
        decode: who decodes.
        manager: how much of a batch a model is asked at once.
        task: what the models are asked; to transcribe, if nothing is given.
        group: id shared by the runs of one comparison on several datasets; empty if it is alone.
    """

    settings: Settings
    plan: Plan
    arms: Mapping[str, Arm]
    store: Store
    memory: FeatureStore
    judge: Judge
    dataset: str
    decode: DecodeAll = decode_here
    manager: MemoryManager = field(init=False)
    task: Task = None  # type: ignore[assignment] # settled in __post_init__
    group: str = ""
    _by_id: dict[str, Usable] = field(init=False)

    def __post_init__(self) -> None:
        self.manager = memory_manager(self.settings, States(self.store.home))
        self._by_id = {clip.clip_id: clip for clip in self.plan.clips}
        if self.task is None:
            self.task = Transcribe(self.settings.compare)

    def clip(self, clip_id: str) -> Usable:
        """The planned clip of that content id."""
        return self._by_id[clip_id]

    def open(self, refused: Sequence[Refused], judgements: Sequence[Judgement], facts: Mapping[str, str]) -> None:
        """Land what is known before the first model answers: run, clips, models, quarantine, the audio's quality."""
        run = self.plan.run
        if "started" not in self.store.landed("runs", run):
            self.store.land("runs", [self._run_row("started", facts)], run=run, part="started")
        rows = [row for judgement in judgements for row in judgement.rows(run.id)]
        self.store.land("quality", rows, run=run, part="input")
        self.store.land("clips", [clip_row(c, self.dataset) for c in self.plan.clips], run=run, part="all")
        self.store.land("quarantine", [refused_row(r) for r in refused], run=run, part="input")
        self.store.land("models", [self._model_row(arm) for arm in self.arms.values()], run=run, part="all")
        probes = [arm.probe.row(arm.letter) for arm in self.arms.values() if arm.probe is not None]
        if probes:
            self.store.land("probes", probes, run=run, part="all")

    def close(self, facts: Mapping[str, str]) -> None:
        """Land that the run reached its end."""
        self.store.land("runs", [self._run_row("finished", facts)], run=self.plan.run, part="finished")

    def pending(self, letter: str, among: Sequence[Batch] | None = None) -> list[Batch]:
        """Batches of an arm, all or some, that are not landed yet, or of which a part was lost since."""
        landed = {table: self.store.landed(table, self.plan.run) for table in BATCH_TABLES}
        return [
            batch
            for batch in (self.plan.batches if among is None else among)
            if any(_part(table, letter, batch) not in landed[table] for table in BATCH_TABLES)
        ]

    def look(self, number: int) -> bool:
        """Look at what has been answered so far and land it; true if the comparison is decided.

        What is looked at are the batches of the first ``number`` steps, so a repeat after a kill comes to
        the same look. A decision narrows the run's clips to those that were used.
        """
        run, compare = self.plan.run, self.settings.compare
        used = {clip_id for step in self.plan.steps[:number] for batch in step for clip_id in batch.clip_ids}
        outcomes = self.store.read("outcomes", run).filter(pl.col("clip_id").is_in(list(used)))
        clips = pl.DataFrame([clip_row(self.clip(clip_id), self.dataset) for clip_id in sorted(used)])
        planned = len(self.plan.clips)
        found = look_at(outcomes, clips, planned=planned, confidence=compare.confidence, margin=compare.margin_wer)
        unanswered = 1 - found.clips / len(used)
        decided = found.decided and unanswered <= MAX_UNANSWERED
        self.store.land("looks", [look_row(number, found, decided=decided)], run=run, part=f"look-{number:04d}")
        if decided:
            rows = [clip_row(clip, self.dataset) for clip in self.plan.clips if clip.clip_id in used]
            self.store.land("clips", rows, run=run, part="all")
        return decided

    def needs_repeats(self) -> bool:
        """Whether a noise floor was asked for and is not landed yet."""
        asked = self.settings.compare.repeats > 1 and self.task.words
        return asked and "repeats" not in self.store.landed("repeats", self.plan.run)

    def repeat(self) -> None:
        """Ask each arm again and again for the latency sample, and land what was answered."""
        rows = [
            self._repeated(letter, number, clip_id)
            for letter in ARMS
            for number in range(1, self.settings.compare.repeats + 1)
            for clip_id in self.plan.latency_sample
        ]
        self.store.land("repeats", rows, run=self.plan.run, part="repeats")

    def _repeated(self, letter: str, number: int, clip_id: str) -> dict[str, object]:
        row: dict[str, object] = {"arm": letter, "clip_id": clip_id, "repeat": number, "status": "failed"}
        try:
            (answer,), _ = self.arms[letter].worker.process([self._decode(clip_id)], self.task.options(segments=False))
        except GrymError as error:
            _no_fault_of_the_model(error)
            self._attempt(letter, f"{clip_id[:16]}-noise-{number}", 1, error, "give up")
            return row
        if answer.error is not None:
            return row
        scored, _ = self.task.score(self.clip(clip_id).entry, answer)
        errors = sum(scored[name] for name in ("substitutions", "deletions", "insertions"))
        counts = {"reference_words": scored["reference_words"], "errors": errors}
        return row | counts | {"status": "ok", "hypothesis": answer.text}

    def needs_latency(self) -> bool:
        """Whether the latency pass has not been landed, or a part of it was lost since."""
        landed = [self.store.landed(table, self.plan.run) for table in ("operations", "quality")]
        sampled = bool(self.plan.latency_sample)
        return "latency" not in landed[0] or (sampled and "latency" not in landed[1])

    def warm_up(self, letter: str) -> None:
        """One call apart from every figure, so that lazy allocations are not counted."""
        part = f"{letter}-warmup-{time.time_ns()}"
        row = self._timed_call(letter, "warmup", part, self.plan.clips[0].clip_id)
        self.store.land("operations", [row], run=self.plan.run, part=part)

    def infer(self, letter: str, batch: Batch, *, attempt: int, last: bool) -> int:
        """Answer one batch and land everything about it; the outcomes come last and mark it as done.

        Args:
            letter: the arm.
            batch: the planned batch.
            attempt: number of this try, from 1.
            last: whether a retryable error may still be raised for another try (no: clips one by one).

        Returns:
            Number of clips without an answer.

        Raises:
            GrymError: a retryable error before the last try.
            QualityError: a gate failed as a whole, or could not be evaluated.
        """
        answered = self._answer(letter, batch, attempt, last=last)
        held = self._gate(letter, batch, answered)
        self._remember(letter, answered, held)
        outcomes, words, refused = self._outcomes(letter, batch, answered.answers, held)
        operations: list[dict[str, object]] = []
        if answered.usage is not None:
            planned = [self.clip(clip.id) for clip in answered.clips]
            operations = [self._operation(letter, "throughput", batch.id, planned, answered.usage)]
        # Every part is landed, an empty one too: what an earlier try left is replaced, and a lost part is noticed.
        self._land("quarantine", refused, letter, batch)
        self._land("words", words, letter, batch)
        self._land("operations", operations, letter, batch)
        self._land("outcomes", outcomes, letter, batch)
        return sum(row["status"] != "ok" for row in outcomes)

    def _land(self, table: str, rows: Sequence[Mapping[str, object]], letter: str, batch: Batch) -> None:
        self.store.land(table, rows, run=self.plan.run, part=_part(table, letter, batch))

    def measure_latency(self) -> None:
        """The latency pass: batch 1, arms interleaved A-B-B-A, on the seeded sample, judged before it counts.

        Raises:
            QualityError: the gate refused the times; nothing is landed as measured, so a repeat measures again.
        """
        rows = [
            self._timed_call(letter, "latency", f"{clip_id[:16]}-{repeat}", clip_id)
            for clip_id in self.plan.latency_sample
            for repeat, letter in enumerate("abba")
        ]
        if rows:
            worker = self.settings.worker
            frame = response_frame(
                rows,
                call_seconds=worker.call_seconds,
                call_seconds_per_audio_second=worker.call_seconds_per_audio_second,
            )
            judgement = self.judge("response_time", frame, "latency")
            self.store.land("quality", judgement.rows(self.plan.run.id), run=self.plan.run, part="latency")
            judgement.require()
        self.store.land("operations", rows, run=self.plan.run, part="latency")

    def _timed_call(self, letter: str, kind: str, call: str, clip_id: str) -> dict[str, object]:
        """One clip, one call: a row of ``operations``, failed or not."""
        usage = None
        try:
            _, usage = self.arms[letter].worker.process([self._decode(clip_id)], self.task.options())
        except GrymError as error:
            _no_fault_of_the_model(error)
            self._attempt(letter, call, 1, error, "give up")
        return self._operation(letter, kind, call, [self.clip(clip_id)], usage)

    def compare(self) -> dict[str, object]:
        """Score and test the landed outcomes; lands and returns the row that carries the verdict.

        What stands behind the verdict lands before it.
        """
        run = self.plan.run
        tables = {name: self.store.read(name, run) for name in ("outcomes", "clips", "words", "operations", "repeats")}
        names = {letter: arm.card.name for letter, arm in self.arms.items()}
        for table, found in self.task.evidence(tables, names, one_look=not self.plan.steps).items():
            self.store.land(table, found, run=run, part="all")
        rows = self.task.compare(tables, names, run.id, len(self.plan.clips) if self.plan.steps else None)
        self.store.land("comparisons", rows, run=run, part="all")
        return next(row for row in rows if row["metric"] == self.task.metric)

    def _decode(self, clip_id: str) -> AudioClip:
        (found,) = self._decode_all([clip_id])
        if isinstance(found, GrymError):
            raise found
        return found

    def _decode_all(self, clip_ids: Sequence[str]) -> Iterator[AudioClip | GrymError]:
        """Clips as they were checked; a file that changed or vanished since gives an error."""
        entries = [self.clip(clip_id).entry for clip_id in clip_ids]
        decoded = self.decode(entries, self.settings.audio)
        for clip_id, entry, found in zip(clip_ids, entries, decoded, strict=True):
            if isinstance(found, GrymError):
                yield found
            elif found[0].id == clip_id:
                yield found[0]
            else:
                msg = f"{entry.key} is no longer the audio that was checked."
                yield AudioError(msg, code="changed", hint="Do not write to a dataset while it is compared.")

    def _load(self, letter: str, batch: Batch) -> tuple[list[AudioClip], list[Answer]]:
        """Clips of a batch; a file that changed or vanished since it was checked yields a failed answer."""
        clips: list[AudioClip] = []
        failed: list[Answer] = []
        for clip_id, found in zip(batch.clip_ids, self._decode_all(batch.clip_ids), strict=True):
            if isinstance(found, GrymError):
                failed.append(self._no_answer(letter, clip_id, found))
            else:
                clips.append(found)
        return clips, failed

    def _answer(self, letter: str, batch: Batch, attempt: int, *, last: bool) -> _Answered:
        clips, failed = self._load(letter, batch)
        worker = self.arms[letter].worker
        options = self.task.options(features=True)
        if not clips:
            return _Answered([], failed, None)
        tries = count(attempt)

        def halved(error: ResourceError) -> None:
            self._attempt(letter, batch.id, next(tries), error, "split")

        try:
            answers, usage = self.manager.process(worker, clips, options, card=self.arms[letter].card, tell=halved)
        except GrymError as error:
            _no_fault_of_the_model(error)
            again = tried_again(error, self.settings.recovery) and not last
            number = next(tries)
            self._attempt(letter, batch.id, number, error, "retry" if again else "split")
            if again:
                raise
            return _Answered(clips, [*self._one_by_one(letter, clips, number + 1), *failed], None)
        return _Answered(clips, [*own_answers(answers, self.arms[letter].card), *failed], usage)

    def _one_by_one(self, letter: str, clips: Sequence[AudioClip], attempt: int) -> list[Answer]:
        """Isolate the clip that breaks a batch, so that it does not take the others along."""
        answers: list[Answer] = []
        in_a_row = 0
        for clip in clips:
            if in_a_row >= GIVE_UP_AFTER:
                if not self._still_answers(letter):
                    msg = (
                        f"The model failed {in_a_row} clips in a row and its warm-up clip too; it was not asked again."
                    )
                    rest = clips[len(answers) :]
                    return [*answers, *(self._no_answer(letter, c.id, WorkerError(msg, code="gave-up")) for c in rest)]
                in_a_row = 0
            try:
                arm = self.arms[letter]
                answer, _ = self.manager.process(arm.worker, [clip], self.task.options(features=True), card=arm.card)
                answers += own_answers(answer, self.arms[letter].card)
                in_a_row = 0
            except GrymError as error:
                _no_fault_of_the_model(error)
                in_a_row += 1
                self._attempt(letter, clip.id[:16], attempt, error, "give up")
                answers.append(self._no_answer(letter, clip.id, error))
        return answers

    def _still_answers(self, letter: str) -> bool:
        """Whether the model answers the warm-up clip: it is the clips that are bad then, not the model."""
        try:
            answers, _ = self.arms[letter].worker.process(
                [self._decode(self.plan.clips[0].clip_id)], self.task.options()
            )
        except GrymError:
            return False
        return answers[0].error is None

    def _no_answer(self, letter: str, clip_id: str, error: GrymError) -> Answer:
        card = self.arms[letter].card
        return Answer(clip_id, None, rung=card.rung, model=card.name, revision=card.revision, error=error.record())

    def _gate(self, letter: str, batch: Batch, answered: _Answered) -> dict[str, Held]:
        """Judge answers and features; returns held clips with rule and reason.

        Raises:
            QualityError: a critical rule failed for the batch as a whole, or could not be evaluated.
        """
        good = [answer for answer in answered.answers if answer.error is None]
        if not good:
            self._land("quality", [], letter, batch)
            return {}
        subject = f"{letter}-{batch.id}"
        seconds = [self.clip(answer.clip_id).seconds for answer in good]
        judgements = [self.judge(self.task.suite, self.task.frame(good, seconds), subject)]
        judged = [[answer.clip_id for answer in good]]
        vectors = [(answer.clip_id, answer.features) for answer in good if answer.features is not None]
        if vectors:
            ids = [clip_id for clip_id, _ in vectors]
            dim = self.arms[letter].card.feature_dim
            frame = features_frame(ids, np.stack([vector for _, vector in vectors]), dim)
            judgements.append(self.judge("features", frame, subject))
            judged.append(ids)
        held: dict[str, Held] = {}
        for ids, judgement in zip(judged, judgements, strict=True):
            for position, broken in judgement.held_rows.items():
                held.setdefault(ids[position], broken)
        rows = [row for judgement in judgements for row in judgement.rows(self.plan.run.id)]
        self._land("quality", rows, letter, batch)
        for judgement in judgements:
            judgement.require()
        return held

    def _remember(self, letter: str, answered: _Answered, held: Mapping[str, Held]) -> None:
        card = self.arms[letter].card
        rows = []
        for answer in answered.answers:
            if answer.features is None or answer.error is not None or answer.clip_id in held:
                continue
            clip = self.clip(answer.clip_id)
            rows.append(
                {
                    "id": answer.clip_id,
                    "vector": answer.features,
                    "key": clip.entry.key,
                    "dataset": self.dataset,
                    "path": clip.entry.relative,
                    "text": answer.text or "",
                    "speaker": clip.entry.speaker,
                    "seconds": clip.seconds,
                    "model": card.name,
                    "revision": card.revision,
                    "run_id": self.plan.run.id,
                }
            )
        if rows:
            self.memory.store(rows, space=space_name(card.name, card.revision, card.feature_dim))

    def _outcomes(
        self, letter: str, batch: Batch, answers: Sequence[Answer], held: Mapping[str, Held]
    ) -> tuple[list[dict[str, object]], list[dict[str, object]], list[dict[str, object]]]:
        """Rows of ``outcomes``, ``words`` and ``quarantine`` for a batch."""
        outcomes: list[dict[str, object]] = []
        words: list[dict[str, object]] = []
        refused: list[dict[str, object]] = []
        for answer in answers:
            clip = self.clip(answer.clip_id)
            row: dict[str, object] = {
                "arm": letter,
                "model": answer.model,
                "revision": answer.revision,
                "clip_id": answer.clip_id,
                "batch_id": batch.id,
                "status": "ok",
                "hypothesis": answer.text,
                "confidence": answer.confidence,
                "tokens": answer.tokens,
                "segments": _segments(answer),
                "rung": answer.rung,
                "compute_seconds": answer.seconds,
                "error_category": "",
                "error_code": "",
                "error_message": "",
                "normalizer": self.task.rule,
            }
            problem = answer.error
            if problem is None and answer.clip_id in held:
                broken = held[answer.clip_id]
                problem = QualityError(f"The gate held the answer: {broken.reason}", code=broken.rule).record()
            if problem is not None:
                row |= {
                    "status": "failed" if answer.error is not None else "held",
                    "error_category": str(problem.category),
                    "error_code": problem.code,
                    "error_message": problem.message,
                }
                stage = f"model:{letter}" if answer.error is not None else f"gate:{letter}"
                refused.append(refused_row(Refused(clip.entry.key, stage, problem)))
            else:
                scored, alignment = self.task.score(clip.entry, answer)
                row |= scored
                words += aligned_rows(self.plan.run.id, letter, answer.clip_id, alignment)
            outcomes.append(row)
        return outcomes, words, refused

    def _operation(
        self, letter: str, kind: str, call: str, clips: Sequence[Usable], usage: Usage | None
    ) -> dict[str, object]:
        """A row of ``operations``; a call without an answer has no times."""
        card = self.arms[letter].card
        row: dict[str, object] = {
            "arm": letter,
            "model": card.name,
            "pass": kind,
            "call": call,
            "clip_id": "" if kind == "throughput" else clips[0].clip_id,
            "clips": len(clips),
            "audio_seconds": sum(clip.seconds for clip in clips),
            "rung": card.rung,
            "status": "failed" if usage is None else "ok",
        }
        if usage is not None:
            row |= {
                "wall_seconds": usage.wall_seconds,
                "compute_seconds": usage.compute_seconds,
                "cpu_seconds": usage.cpu_seconds,
                "peak_rss_mb": usage.peak_rss_mb,
            }
        return row

    def _attempt(self, letter: str, call: str, attempt: int, error: GrymError, action: str) -> None:
        pid = int(error.metadata.get("pid", 0) or 0)
        log.warning("%s %s try %d: %s (%s)", self.arms[letter].card.name, call, attempt, error.message, action)
        row = {
            "arm": letter,
            "call": call,
            "attempt": attempt,
            "worker_pid": pid,
            "at": datetime.now(UTC),
            "category": str(error.category),
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "action": action,
        }
        part = f"{letter}-{call}-{attempt}-{time.time_ns()}"
        self.store.land("attempts", [row], run=self.plan.run, part=part)

    def _run_row(self, state: str, facts: Mapping[str, str]) -> dict[str, object]:
        return {
            "state": state,
            "flow": "compare",
            "run_key": self.plan.key,
            "ordinal": self.plan.ordinal,
            "at": datetime.now(UTC),
            "dataset": self.dataset,
            "arm_a": self.arms["a"].card.name,
            "arm_b": self.arms["b"].card.name,
            "options": self.settings.compare.model_dump_json(),
            "task": self.task.name,
            "run_group": self.group,
            **facts,
        }

    def _model_row(self, arm: Arm) -> dict[str, object]:
        card = arm.card
        return {
            "arm": arm.letter,
            "model": card.name,
            "revision": card.revision,
            "adapter": card.adapter,
            "parameters": card.parameters,
            "feature_dim": card.feature_dim,
            "rung": card.rung,
            "licence": card.licence,
            "card": json.dumps({"tasks": card.tasks, "languages": card.languages, **dict(card.details)}),
            "load_seconds": arm.worker.load_seconds,
        }


def _no_fault_of_the_model(error: GrymError) -> None:
    """Raise on what would otherwise be counted as a failure of the model: a disk on which no worker can start."""
    if error.code == "disk-full":
        raise error


def _part(table: str, letter: str, batch: Batch) -> str:
    """Name of the part that a batch lands in a table."""
    return f"{letter}-{batch.id}-throughput" if table == "operations" else f"{letter}-{batch.id}"


def _segments(answer: Answer) -> str:
    return json.dumps(
        [
            {"start": round(s.start, 3), "end": round(s.end, 3), "text": s.text, "confidence": round(s.confidence, 4)}
            for s in answer.segments
        ],
        ensure_ascii=False,
    )


def start_arms(settings: Settings, names: Mapping[str, str], scratch: Path) -> dict[str, Arm]:
    """Start one worker per arm; both share nothing, even if they are the same model.

    Raises:
        GrymError: a model cannot be loaded; workers that were started are closed again.
    """
    workers = {
        letter: Worker(
            settings.model(names[letter]),
            settings.worker,
            scratch / letter,
            plugins=settings.plugins.paths,
            cache=settings.home / "cache",
        )
        for letter in ARMS
    }
    try:
        with ThreadPoolExecutor(len(ARMS)) as pool:
            cards = list(pool.map(Worker.start, workers.values()))
    except BaseException:
        for worker in workers.values():
            worker.close()
        raise
    return {letter: Arm(letter, workers[letter], card) for letter, card in zip(ARMS, cards, strict=True)}


def stop_arms(arms: Mapping[str, Arm]) -> None:
    """Close every worker, even if one of them makes trouble."""
    for arm in arms.values():
        arm.worker.close()


def with_names(settings: Settings, **changes: object) -> Settings:
    """Settings with other defaults of ``[compare]``."""
    compare = settings.compare.model_copy(update={k: v for k, v in changes.items() if v is not None})
    return settings.model_copy(update={"compare": type(settings.compare).model_validate(compare.model_dump())})
