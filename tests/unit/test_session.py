"""A comparison killed after any single landing is resumed to the same tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import soundfile

from expectations.gate import judge
from grym.compare.plan import check_entries, make_plan
from grym.compare.session import ARMS, Arm, Session
from grym.config import CompareSettings, ModelSpec, Settings, WorkerLimits
from grym.corpus.manifest import Entry
from grym.errors import DeadlineError, GrymError, QualityError, ResourceError, WorkerError
from grym.memory.features import FeatureStore, space_name
from grym.models.fake import FakeModel, FakeOptions
from grym.parts import full
from grym.quality import Judgement
from grym.schema import TABLES
from grym.store import RunRef, Store
from grym.worker import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from grym.models.interface import Answer, AudioClip, Options

SETTINGS = Settings(compare=CompareSettings(batch_clips=3, latency_clips=2), worker=WorkerLimits(attempts=2))
VOLATILE = {"at", "wall_seconds", "compute_seconds", "cpu_seconds", "peak_rss_mb", "load_seconds"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class DyingStore(Store):
    """A store whose process dies right after its n-th landing."""

    def __init__(self, home: Path, lives: int) -> None:
        super().__init__(home)
        self.lives = lives

    def land(self, table: str, rows: Sequence[Mapping[str, object]], *, run: RunRef, part: str) -> Path:
        """Land, then die if it was the last life."""
        landed = super().land(table, rows, run=run, part=part)
        self.lives -= 1
        if self.lives == 0:
            raise Killed
        return landed


@dataclass
class InProcessWorker:
    """The scripted fake without a child process: one call, scripted failures, counted calls."""

    model: FakeModel
    load_seconds: float = 0.0
    calls: int = 0
    fails: tuple[GrymError, ...] = ()
    poison: str = ""

    def process(self, clips: Sequence[AudioClip], options: Options) -> tuple[list[Answer], Usage]:
        """Answer, or raise what is scripted."""
        self.calls += 1
        if self.fails:
            error, *rest = self.fails
            self.fails = tuple(rest)
            raise error
        if any(clip.id == self.poison for clip in clips):
            message = "The worker died."
            raise WorkerError(message)
        return self.model.process(clips, options), Usage(0.1, 0.05, 0.05, 100.0, 1)


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    """Seven short clips of noise by seven speakers."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(7):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, rng.normal(0, 0.1, 8000 + 800 * i), 16_000)
        made.append(Entry(f"k{i}", path, path.name, "one two", speaker=f"s{i}", slices={"room": str(i % 2)}))
    return made


def _arm(letter: str, text: str, **worker: Any) -> Arm:
    spec = ModelSpec(name=f"fake-{letter}", adapter="fake")
    model = FakeModel(spec, FakeOptions(script=json.dumps({"*": text}), error_rate=0.3, seed=ord(letter)))
    return Arm(letter, InProcessWorker(model, **worker), model.card)  # type: ignore[arg-type]


def _session(entries: Sequence[Entry], store: Store, **workers: Any) -> Session:
    usable, _ = check_entries(entries, SETTINGS.audio)
    plan = make_plan(usable, "c" * 64, SETTINGS.compare, store, new=False, complete=frozenset())
    arms = {letter: _arm(letter, "one two", **workers.get(letter, {})) for letter in ARMS}
    return Session(SETTINGS, plan, arms, store, FeatureStore(store.home), judge, "set")


def _walk(session: Session) -> None:
    """The steps of the flow, in its order."""
    session.open([], [], {})
    for letter in ARMS:
        for batch in session.pending(letter):
            session.infer(letter, batch, attempt=2, last=True)
    if "latency" not in session.store.landed("operations", session.plan.run):
        for letter in ARMS:
            session.warm_up(letter)
        session.measure_latency()
    session.compare()
    session.close({})


def _tables(store: Store) -> dict[str, pl.DataFrame]:
    tables = {}
    for name in TABLES:
        frame = store.read(name)
        if name == "operations":
            frame = frame.filter(pl.col("pass") != "warmup")
        if name == "comparisons":
            frame = frame.filter(pl.col("metric").is_in(["wer", "cer", "failures"]))
        kept = [column for column in frame.columns if column not in VOLATILE]
        tables[name] = frame.select(kept).sort(kept)
    return tables


def test_a_death_after_any_landing_is_resumed_to_the_same_tables(tmp_path: Path, entries: list[Entry]) -> None:
    """One run dies after every landing in turn, each time a little later: nothing is lost, nothing is twice."""
    whole = Store(tmp_path / "whole")
    _walk(_session(entries, whole))
    killed = DyingStore(tmp_path / "killed", 0)
    deaths = 0
    for lives in range(1, 60):
        killed.lives = lives
        try:
            _walk(_session(entries, killed))
        except Killed:
            deaths += 1
        else:
            break
    assert deaths >= 10
    left, right = _tables(whole), _tables(killed)
    for name, frame in left.items():
        assert frame.equals(right[name]), name
    arm = _arm("a", "one two")
    space = space_name(arm.card.name, arm.card.revision, arm.card.feature_dim)
    assert FeatureStore(killed.home).count(space=space) == len(entries)


def test_a_lost_part_of_any_table_makes_its_batch_pending_again(tmp_path: Path, entries: list[Entry]) -> None:
    """What somebody deleted is made again, by repeating that batch or the latency pass and nothing else."""
    store = Store(tmp_path / "home")
    session = _session(entries, store)
    _walk(session)
    run, batch = session.plan.run, session.plan.batches[1]
    assert session.pending("a") == []
    assert not session.needs_latency()
    for table in ("quality", "quarantine", "words", "operations", "outcomes"):
        (part,) = store.home.glob(f"landing/{table}/*/*/part-a-{batch.id}*.parquet")
        whole = part.read_bytes()
        part.unlink()
        assert session.pending("a") == [batch]
        assert session.pending("b") == []
        part.write_bytes(whole)
    (part,) = store.home.glob("landing/quality/*/*/part-latency.parquet")
    part.unlink()
    assert session.needs_latency()
    assert "latency" in store.landed("operations", run)


def test_a_full_disk_is_no_fault_of_a_model(tmp_path: Path, entries: list[Entry]) -> None:
    """A worker that cannot start for want of space ends the run; no clip is counted as failed."""
    store = Store(tmp_path / "home")
    session = _session(entries, store, a={"fails": (full("The disk is full."),) * 9})
    session.open([], [], {})
    for act in (lambda: session.infer("a", session.plan.batches[0], attempt=2, last=True), session.measure_latency):
        with pytest.raises(ResourceError, match="Free space"):
            act()
    assert store.read("attempts").is_empty()
    assert store.read("outcomes").is_empty()


def test_a_retryable_error_is_raised_until_the_last_try_and_then_isolated(tmp_path: Path, entries: list[Entry]) -> None:
    """Before the last try the error goes up to the retry policy; then the bad clip alone is lost."""
    store = Store(tmp_path / "home")
    session = _session(entries, store)
    batch = session.plan.batches[0]
    session.arms["a"].worker.poison = batch.clip_ids[1]  # type: ignore[attr-defined]
    session.open([], [], {})
    with pytest.raises(WorkerError):
        session.infer("a", batch, attempt=1, last=False)
    assert session.infer("a", batch, attempt=2, last=True) == 1
    outcomes = store.read("outcomes")
    assert dict(zip(outcomes["clip_id"], outcomes["status"], strict=True))[batch.clip_ids[1]] == "failed"
    assert outcomes.filter(pl.col("status") == "ok").height == len(batch.clip_ids) - 1
    assert store.read("attempts")["action"].sort().to_list() == ["give up", "retry", "split"]
    assert store.read("quarantine")["stage"].to_list() == ["model:a"]


def test_a_model_that_fails_everything_is_given_up_but_bad_clips_alone_are_not(
    tmp_path: Path, entries: list[Entry]
) -> None:
    """After three failures in a row the warm-up clip decides whether the model or the clips are bad."""
    slow = DeadlineError("Too slow.")
    store = Store(tmp_path / "dead")
    session = _session(entries, store, a={"fails": (slow,) * 50})
    batch = session.plan.batches[0]
    session.open([], [], {})
    assert session.infer("a", batch, attempt=2, last=True) == len(batch.clip_ids)
    assert session.arms["a"].worker.calls == 1 + len(batch.clip_ids)  # type: ignore[attr-defined]
    assert set(store.read("outcomes")["error_category"]) == {"deadline"}


def test_a_file_that_changed_or_vanished_is_a_failed_answer(tmp_path: Path, entries: list[Entry]) -> None:
    """The audio that was checked is the audio that is compared, or the clip fails with its reason."""
    store = Store(tmp_path / "home")
    session = _session(entries, store)
    session.open([], [], {})
    soundfile.write(entries[0].path, np.random.default_rng(9).normal(0, 0.1, 9000), 16_000)
    entries[1].path.unlink()
    for batch in session.pending("a"):
        session.infer("a", batch, attempt=1, last=False)
    session.warm_up("a")
    session.measure_latency()
    failed = store.read("outcomes").filter(pl.col("status") == "failed")
    assert sorted(failed["error_code"]) == ["changed", "missing-file"]


def test_a_refused_gate_stops_and_is_asked_again(tmp_path: Path, entries: list[Entry]) -> None:
    """A gate that says no leaves nothing behind that would let the next run pass it by."""
    store = Store(tmp_path / "home")
    session = _session(entries, store)

    def refuse(suite: str, frame: Any, subject: str) -> Judgement:
        judgement = judge(suite, frame, subject)
        return Judgement(suite, subject, (), judgement.judged)

    session.judge = refuse
    session.open([], [], {})
    with pytest.raises(QualityError):
        session.infer("a", session.plan.batches[0], attempt=1, last=True)
    with pytest.raises(QualityError):
        session.measure_latency()
    assert store.read("outcomes").is_empty()
    assert "latency" not in store.landed("operations", session.plan.run)
