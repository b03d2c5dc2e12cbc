"""Stopping early: the confidence sequence, the walk, and a run that is killed on the way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
import soundfile
from scipy.stats import norm

from benchmarks.early_stop import EQUAL, run
from grym.compare.early_stop import MIN_CLIPS, look, p_value, tuning, walk, width
from grym.compare.plan import check_entries, make_plan
from grym.compare.session import ARMS, Arm, Session
from grym.config import CompareSettings, ModelSpec, Settings
from grym.corpus.manifest import Entry
from grym.errors import WorkerError
from grym.memory.features import FeatureStore
from grym.models.fake import FakeModel, FakeOptions
from grym.quality import Judgement, RuleResult
from grym.store import Store
from grym.worker import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grym.models.interface import Answer, AudioClip, Options

SETTINGS = Settings(compare=CompareSettings(stop_early=True, repeats=3, latency_clips=4))


def test_the_sequence_is_the_published_one_and_narrowest_at_the_plan() -> None:
    """Half-widths follow the formula, the price of looking is below 1.6, and no other tuning is narrower there."""
    rho = tuning(1000, 0.05)
    for n in (10, 100, 1000):
        published = np.sqrt(2 * (n * rho**2 + 1) / (n**2 * rho**2) * np.log(np.sqrt(n * rho**2 + 1) / 0.05))
        assert width(n, rho, 0.05) / np.sqrt(n) == pytest.approx(published, rel=1e-12)
        assert p_value(width(n, rho, 0.05), n, rho) == pytest.approx(0.05, rel=1e-9)
    assert width(1000, rho, 0.05) < 1.6 * norm.ppf(0.975)
    assert all(width(1000, rho, 0.05) < width(1000, rho * factor, 0.05) for factor in (0.9, 1.1))


def test_a_look_decides_only_on_enough() -> None:
    """A clear difference is decided from fifty clips on; few clips, few clusters or few differing clips are not."""
    rng = np.random.default_rng(1)
    words = np.full(400, 10)
    a, b = rng.poisson(0.5, 400), rng.poisson(2.0, 400)
    speakers = np.arange(400) % 10
    early = look(a[:49], b[:49], words[:49], speakers[:49], planned=400)
    enough = look(a[:60], b[:60], words[:60], speakers[:60], planned=400)
    assert (early.decided, enough.verdict) == (False, "a better")
    assert enough.difference.p_value is not None
    assert enough.difference.p_value < 0.05
    assert not look(a, b, words, np.arange(400) % 5, planned=400).decided
    rare = np.zeros(400, dtype=int)
    rare[:9] = 3
    assert not look(rare, np.zeros(400), words, speakers, planned=400, margin=0.1).decided


def test_systems_without_a_difference_are_equivalent_once_enough_was_heard() -> None:
    """Where no clip differs the rule of three decides, with the words that the margin needs and not before."""
    same = np.ones(200)
    verdicts = [
        look(same[:n], same[:n], same[:n] * 10, np.arange(n) % 10, planned=200, margin=0.005).verdict for n in (55, 65)
    ]
    assert verdicts == ["cannot tell", "equivalent"]
    assert look([], [], [], [], planned=10).difference.difference is None
    assert look([1], [0], [5], ["s"], planned=1).verdict == "cannot tell"


def test_intervals_and_p_value_agree_and_speakers_count() -> None:
    """The sequence excludes 0 exactly when p is below alpha; speakers that differ make it wider than clips do."""
    rng = np.random.default_rng(5)
    words, speakers = rng.integers(5, 15, 300), np.repeat(np.arange(10), 30)
    strengths = rng.normal(0, 2, 10)[speakers].clip(-0.9)
    for shift in np.linspace(0, 3, 20):
        a, b = rng.poisson(1.0, 300), rng.poisson(1 + shift + strengths.clip(0))
        d = look(a, b, words, speakers, planned=300).difference
        assert d.ci_low is not None
        assert d.ci_high is not None
        assert d.p_value is not None
        assert (d.ci_low > 0 or d.ci_high < 0) == (d.p_value < 0.05)
        alone = look(a, b, words, np.arange(300), planned=300).difference
        assert alone.se is not None
        assert d.se is not None
        assert d.se >= alone.se


def test_the_walk_is_seeded_and_complete() -> None:
    """Every clip comes once, in an order that depends on the seed and not on the order given."""
    ids = [f"c{i}" for i in range(130)]
    steps = walk(ids, 7)
    assert sorted(clip for step in steps for clip in step) == sorted(ids)
    assert len(steps[0]) == MIN_CLIPS
    assert steps == walk(ids[::-1], 7) != walk(ids, 8)
    assert walk([], 7) == [()]


def test_the_benchmark_walks_as_a_comparison_does() -> None:
    """Its fast walk is checked against look itself; equal systems are hardly ever told apart."""
    found = run(12)
    assert len(found["equal_systems"]) == len(EQUAL)
    assert all(item["wrong"]["rate"] <= 0.2 for item in found["equal_systems"])
    assert found["apart"][1]["clips_saved_mean"] > 0.3
    assert json.loads(json.dumps(found)) == found


def judge(suite: str, frame: object, subject: str) -> Judgement:
    """A gate with one rule that everything passes: gates have tests of their own, and their library is slow to load."""
    result = RuleResult(suite, subject, "there", "critical", "pass", 1, 0, "", "")
    return Judgement(suite, subject, (result,), 1)


class _Worker:
    """The scripted fake without a child process; dies at a given call, and answers differently each time if asked."""

    load_seconds = 0.0

    def __init__(self, models: Sequence[FakeModel], dies_at: int = 0) -> None:
        self.models, self.dies_at, self.calls = models, dies_at, 0

    def process(self, clips: Sequence[AudioClip], options: Options) -> tuple[list[Answer], Usage]:
        """Answer with one of the models."""
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        return self.models[self.calls % len(self.models)].process(clips, options), Usage(0.1, 0.05, 0.05, 100.0, 1)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """Sixty very short clips of noise by nine speakers."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(3)
    made = []
    for i in range(60):
        path = folder / f"{i}.wav"
        soundfile.write(path, rng.normal(0, 0.1, 1600), 16_000)
        made.append(Entry(f"k{i}", path, path.name, "one two three four", f"s{i % 9}", {"room": str(i % 2)}))
    return made


def _model(letter: str, rate: float, seed: int = 0) -> FakeModel:
    spec = ModelSpec(name=f"fake-{letter}", adapter="fake")
    return FakeModel(spec, FakeOptions(script=json.dumps({"*": "one two three four"}), error_rate=rate, seed=seed))


def _session(entries: Sequence[Entry], store: Store, dies_at: int = 0) -> Session:
    usable, _ = check_entries(entries, SETTINGS.audio)
    plan = make_plan(usable, "c" * 64, SETTINGS.compare, store, new=False, complete=frozenset())
    models = {"a": [_model("a", 0.02)], "b": [_model("b", 0.9, seed) for seed in (1, 2, 3)]}
    arms = {
        letter: Arm(letter, _Worker(found, dies_at if letter == "b" else 0), found[0].card)  # type: ignore[arg-type]
        for letter, found in models.items()
    }
    return Session(SETTINGS, plan, arms, store, FeatureStore(store.home), judge, "set")


def _walk(session: Session) -> int:
    """The steps of the flow; returns how many were walked."""
    session.open([], [], {})
    number = 0
    for number, step in enumerate(session.plan.steps, start=1):
        for letter in ARMS:
            for batch in session.pending(letter, step):
                session.infer(letter, batch, attempt=2, last=True)
        if session.look(number):
            break
    if session.needs_latency():
        session.measure_latency()
    if session.needs_repeats():
        session.repeat()
    session.compare()
    session.close({})
    return number


def test_a_clear_difference_stops_the_run_and_a_kill_changes_nothing(tmp_path: Path, entries: list[Entry]) -> None:
    """Fifty of sixty clips are enough; killed in the middle and resumed, the same looks and rows are stored."""
    whole, killed = Store(tmp_path / "whole"), Store(tmp_path / "killed")
    assert _walk(_session(entries, whole)) == 1
    with pytest.raises(KeyboardInterrupt):
        _walk(_session(entries, killed, dies_at=2))
    assert killed.read("looks").height <= 1
    assert _walk(_session(entries, killed)) == 1
    looks = whole.read("looks")
    assert (looks["clips"].to_list(), looks["planned"].to_list(), looks["decided"].to_list()) == ([50], [60], [True])
    for table in ("looks", "analyses", "radar", "clips"):
        left, right = whole.read(table), killed.read(table)
        if table in {"looks", "clips"}:
            assert left.drop("run_id").equals(right.drop("run_id")), table
        assert left.height == right.height or table == "radar"
    assert whole.read("clips").height == 50
    row = whole.read("comparisons").filter(pl.col("metric") == "wer").to_dicts()[0]
    assert row["verdict"] == "a better"
    assert row["method"] == "speaker-clustered confidence sequence"
    assert row["sentence"].endswith("; judged by a confidence sequence after 50 of 60 clips.")


def test_repeats_make_a_noise_floor(tmp_path: Path, entries: list[Entry]) -> None:
    """The model that answers differently each time has one, the other has none; a failed clip is left out."""
    store = Store(tmp_path / "home")
    session = _session(entries, store)
    _walk(session)
    noise = {row["arm"]: row for row in store.read("noise").to_dicts()}
    assert (noise["a"]["within_sd"], noise["a"]["changed"], noise["a"]["repeats"]) == (0.0, 0, 3)
    assert noise["b"]["within_sd"] > 0
    assert noise["b"]["floor"] > 2 * noise["b"]["within_sd"]
    assert not session.needs_repeats()

    class Poisoned(_Worker):
        def process(self, clips: Sequence[AudioClip], options: Options) -> tuple[list[Answer], Usage]:
            if clips[0].id == session.plan.latency_sample[0]:
                msg = "The worker died."
                raise WorkerError(msg)
            return super().process(clips, options)

    session.arms["a"].worker.process = Poisoned([_model("a", 0.02)]).process  # type: ignore[method-assign]
    session.repeat()
    session.compare()
    noise = {row["arm"]: row for row in store.read("noise").to_dicts()}
    assert (noise["a"]["clips"], noise["b"]["clips"]) == (3, 4)
