"""The analysts' questions, asked of a home with five runs; answers are checked against rows counted without SQL."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import polars as pl
import pytest

from grym.compare.accuracy import accuracy_rows, compare_labels
from grym.compare.normalize import get_normalizer
from grym.compare.score import outcome_scores, score, word_rows
from grym.compare.verdict import compare_run
from grym.errors import ConfigError, StorageError
from grym.store import RunRef, Store
from reports import QUESTIONS, VIEWS
from reports.questions import answer, find_question, questions, write_csv, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Row = dict[str, Any]
NAMES = [path.stem for path in sorted(QUESTIONS.glob("*.sql"))]
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = tuple(f"s{i}" for i in range(7))
NOISES = ("clean", "20dB", "10dB")
BASIC = get_normalizer("basic")
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
LAST = "new-1"


@dataclass
class Home:
    """A published home and every row that was landed in it, by run and table."""

    store: Store
    rows: dict[str, dict[str, list[Row]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def land(self, run: RunRef, table: str, rows: Iterable[Row], part: str = "all") -> None:
        """Land rows and remember them."""
        landed = list(rows)
        self.store.land(table, landed, run=run, part=part)
        self.rows[run.id][table] += landed

    def of(self, table: str, run: str = LAST) -> list[Row]:
        """The rows of one run."""
        return self.rows[run][table]

    def clips(self, run: str = LAST) -> dict[str, Row]:
        """Clips of a run by id, with the outcomes of both arms."""
        found = {row["clip_id"]: dict(row) for row in self.of("clips", run)}
        for row in self.of("outcomes", run):
            found[row["clip_id"]][row["arm"]] = row
        return found

    def scored(self, run: str = LAST) -> list[Row]:
        """Clips that both arms answered."""
        return [c for c in self.clips(run).values() if c["a"]["status"] == c["b"]["status"] == "ok"]


def errors(outcome: Row) -> int:
    """Substitutions, deletions and insertions."""
    return int(outcome["substitutions"] + outcome["deletions"] + outcome["insertions"])


def clip_rows() -> list[Row]:
    """Six clips in each noise of each speaker but the last, who has them in one noise only."""
    rng = random.Random(3)
    groups = [g for g in product(SPEAKERS, NOISES) if g[0] != SPEAKERS[-1] or g[1] == "clean"]
    return [
        {
            "clip_id": f"{speaker}-{noise}-{i}", "key": f"{speaker}-{noise}-{i}", "path": f"{i}.ogg",
            "speaker": speaker, "slices": json.dumps({"noise": noise, "length": f"{length}"}), "seconds": 0.5 * length,
            "reference": " ".join(rng.choices(DIGITS, k=length)).title(), "rms_dbfs": rng.uniform(-48, -12),
            "clipped_fraction": rng.choice((0.0, 0.0, 0.01)),
        }
        for speaker, noise in groups for i, length in enumerate(rng.sample((1, 2, 3, 4, 6, 9, 17), 6))
    ]  # fmt: skip


def heard(reference: str, rate: float, rng: random.Random) -> str:
    """What a model that errs at this rate says."""
    words: list[str] = []
    for word in reference.lower().split():
        draw = rng.random() / rate
        words += [] if draw < 0.3 else [rng.choice(DIGITS)] if draw < 0.8 else [word, "oh"] if draw < 1 else [word]
    return " ".join(words)


def answered(run: RunRef, arm: str, clip: Row, rate: float, rng: random.Random) -> tuple[Row, list[Row]]:
    """An answer and its words, scored and aligned for real."""
    key = clip["key"]
    row: Row = {"arm": arm, "model": f"m-{arm}", "revision": f"r-{arm}", "clip_id": clip["clip_id"], "batch_id": "b0"}
    if key == "s0-clean-0" or (key, arm) == ("s1-clean-0", "b"):
        lost = {"error_category": "resource", "error_code": "deadline", "error_message": "It took too long."}
        return {**row, "status": "failed", **lost}, []
    said = "nine oh nine" if key == "s2-clean-0" else heard(clip["reference"], rate, rng)
    result = score(clip["reference"], said, BASIC)
    confidence = 1.0 if key == "s3-clean-0" else rng.uniform(0.3, 1)
    row |= {"status": "ok", "hypothesis": said, "confidence": confidence, **outcome_scores(result, BASIC)}
    return row, word_rows(run.id, arm, clip["clip_id"], result)


def call_rows(clips: list[Row], rng: random.Random, slow: float) -> list[Row]:
    """A throughput pass of two batches and a latency pass of twelve clips, each twice."""
    rows = []
    for arm, factor in (("a", 1.0), ("b", slow)):
        common: Row = {"arm": arm, "status": "ok", "rung": "fp32/cpu", "compute_seconds": 0.8, "cpu_seconds": 1.5}
        memory = {"peak_rss_mb": rng.uniform(200, 300)}
        rows += [
            {**common, **memory, "pass": "throughput", "call": f"b{i}", "clip_id": "", "audio_seconds": 30.0 + i,
             "wall_seconds": factor * rng.uniform(1, 2)}
            for i in range(2)
        ]  # fmt: skip
        rows += [
            {**common, "pass": "latency", "call": f"{c['key']}-{i}", "clip_id": c["clip_id"],
             "audio_seconds": c["seconds"], "wall_seconds": factor * rng.uniform(0.01, 0.09)}
            for c in clips[10:22] for i in range(2)
        ]  # fmt: skip
    return rows


def land_comparison(home: Home, run: RunRef, number: int, second: str, slow: float, *, finished: bool = True) -> None:
    """A comparison of base with another model as the flow lands it, one day after another."""
    rng, at = random.Random(number), NOON + timedelta(days=number)
    facts = {
        "flow": "compare", "run_key": run.id[:3], "ordinal": int(run.id[-1]), "dataset": "digits", "arm_a": "base",
        "arm_b": second, "hardware": "two cores",
    }  # fmt: skip
    home.land(run, "runs", [{**facts, "state": "started", "at": at}], "started")
    clips = clip_rows()
    home.land(run, "clips", clips)
    refused = (("gone", "audio", "missing-file"), ("twin", "audio", "duplicate"), ("row 9", "manifest", "no-text"))
    home.land(run, "quarantine", [
        {"key": f"{key} {i}", "stage": stage, "category": "audio", "code": code, "severity": "error", "hint": "Mend."}
        for key, stage, code in refused for i in range(number + 1)
    ])  # fmt: skip
    if not finished:
        return
    revision = {"a": "r-base", "b": f"r-{run.id[:3]}"}
    home.land(run, "models", [
        {"arm": arm, "model": model, "revision": revision[arm], "rung": "fp32", "parameters": 10, "load_seconds": load}
        for arm, model, load in (("a", "base", 1.0 + number), ("b", second, 2.0))
    ])  # fmt: skip
    for arm, rate in (("a", 0.15), ("b", 0.25)):
        answers = [answered(run, arm, clip, rate, rng) for clip in clips]
        home.land(run, "words", [word for _, words in answers for word in words], f"{arm}-b0")
        home.land(run, "outcomes", [row for row, _ in answers], f"{arm}-b0")
    home.land(run, "operations", call_rows(clips, rng, slow))
    attempts = (("b", "b0", 1, 40, "retry"), ("b", "b0", 2, 41, "split"), ("b", "c", 1, 41, "give up"))
    home.land(run, "attempts", [
        {"arm": arm, "call": call, "attempt": attempt, "worker_pid": pid, "at": at, "category": "resource",
         "code": "deadline", "message": "It took too long.", "retryable": True, "action": action}
        for arm, call, attempt, pid, action in attempts
    ])  # fmt: skip
    verdicts = (("pace", "a-b0", "pass", 0), ("pace", "b-b0", "fail", 3), ("charset", "a-b0", "not evaluated", 0),
                ("range", "a-b0", "pass", 0))  # fmt: skip
    home.land(run, "quality", [
        {"suite": "transcription", "subject": subject, "rule": rule, "severity": "warning", "status": status,
         "evaluated": 10, "unexpected": bad, "observed": f"{bad} of 10", "reason": f"Why {rule}."}
        for rule, subject, status, bad in verdicts
    ])  # fmt: skip
    tables = [home.store.read(name, run) for name in ("outcomes", "clips", "operations")]
    wanted: Row = {"name_a": "base", "name_b": second, "confidence": 0.95, "margin_wer": 0.005, "seed": 7}
    home.land(run, "comparisons", compare_run(*tables, run_id=run.id, **wanted))
    home.land(run, "runs", [{**facts, "state": "finished", "at": at + timedelta(hours=1)}], "finished")


def land_labels(home: Home, run: RunRef) -> None:
    """A comparison on labels that finished last of all; questions about words do not mean it."""
    facts = {"flow": "compare", "run_key": "lab", "dataset": "sounds", "arm_a": "base", "arm_b": "loud",
             "task": "classify", "run_group": "all-1", "at": NOON + timedelta(days=9)}  # fmt: skip
    for state in ("started", "finished"):
        home.land(run, "runs", [{**facts, "state": state}], state)
    clips = [{"clip_id": f"x{i}", "key": f"x{i}", "slices": "{}"} for i in range(8)]
    home.land(run, "clips", clips)
    for arm in "ab":
        home.land(run, "outcomes", [
            {"arm": arm, "model": arm, "clip_id": f"x{i}", "status": "ok", "label": "rain" if i % 2 else "bell",
             "hypothesis": "bell", "predicted": "bell", "correct": i % 2 == 0 or arm == "b", "any_correct": True,
             "failure": "wrong-task" if i == 3 else "", "normalizer": "labels"}
            for i in range(8)
        ], arm)  # fmt: skip
    tables = {name: home.store.read(name, run) for name in ("outcomes", "clips", "operations")}
    asked: Row = {"names": {"a": "base", "b": "loud"}, "confidence": 0.95, "margin": 0.02, "seed": 7}
    home.land(run, "comparisons", compare_labels(tables, run_id=run.id, **asked))
    rows = accuracy_rows(tables, label="label", confidence=0.95)
    home.land(run, "accuracies", [row | {"p_value": 0.5, "adjusted": 0.5} for row in rows])


def land_experiment(home: Home) -> None:
    """Two versions of a live experiment; the first was decided on twice, the second has not met anybody yet."""
    base: Row = {"experiment": "live", "version": 1, "digest": "d"}
    run = RunRef("live.v1", "2026-11-20")
    home.land(run, "experiments", [{**base, "config": "{}", "at": NOON}])
    home.land(RunRef("live.v2", "2026-11-21"), "experiments", [{**base, "version": 2, "config": "{}", "at": NOON}])
    start = int(NOON.timestamp() * 1000)
    rows = [
        {**base, "unit": f"u{n}", "arm": "ab"[n % 3 > 0], "reason": "shadow" if n == 7 else "assigned",
         "at_ms": start + 86_400_000 * (n % 2), "event_id": f"e{n}"}
        for n in range(30)
    ]  # fmt: skip
    home.land(run, "exposures", [*rows, {**rows[1], "event_id": "again"}])
    home.land(run, "decisions", [
        {**base, "decision": f"x{day}", "at": NOON + timedelta(days=day), "verdict": verdict, "arm": "b", "units": 29,
         "srm_p": 0.8, "metric": "wer", "delta": -0.02, "ci_low": -0.04, "ci_high": 0.001 - 0.002 * day,
         "recommendation": "Wait.", "record": "{}"}
        for day, verdict in ((1, "HOLD"), (2, "SHIP"))
    ])  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Three runs of one pair, the last with another revision and slower; one of another pair; one unfinished."""
    made = Home(Store(tmp_path_factory.mktemp("home")))
    plan = (("old-1", "small", 1.0), ("old-2", "small", 1.1), ("big-1", "big", 3.0), ("new-1", "small", 1.7))
    for number, (run_id, second, slow) in enumerate(plan):
        land_comparison(made, RunRef(run_id, "2026-11-18"), number, second, slow)
    land_comparison(made, RunRef("half-1", "2026-11-22"), 4, "small", 1.0, finished=False)
    land_labels(made, RunRef("named-1", "2026-11-18"))
    land_experiment(made)
    made.store.publish(VIEWS)
    return made


def asked(home: Home, name: str, *variables: str) -> list[Row]:
    """The answer's rows."""
    return answer(home.store, name, variables).frame.to_dicts()


@pytest.mark.parametrize("name", NAMES)
def test_every_question_has_a_plausible_answer(home: Home, name: str) -> None:
    """There are rows with the columns that are described; fractions lie in [0, 1] and counts are not negative."""
    found = answer(home.store, name)
    assert found.frame.height > 0
    assert found.frame.columns == [column for column, _ in found.question.columns]
    assert found.question.text.endswith("?")
    assert found.question.grain.startswith("one ")
    assert found.run == ("new-1: base (a) and small (b) on digits" if found.question.variables else "")
    for column in found.frame.iter_columns():
        assert column.null_count() < len(column), column.name
        values = [v for v in column.to_list() if v is not None]
        if column.dtype == pl.Int64 and column.name != "errors_difference":
            assert min(values) >= 0, column.name
        if column.name in {"exact", "share", "confidence"} or column.name.endswith("on_share"):
            assert 0 <= min(values) <= max(values) <= 1, column.name


@pytest.mark.parametrize("name", NAMES)
def test_every_query_runs_as_it_stands_in_any_client(home: Home, name: str) -> None:
    """A plain connection to the file gives the same rows: nothing is set up around a query."""
    with duckdb.connect(str(home.store.warehouse), read_only=True) as client:
        client.execute("SET TimeZone = 'UTC'")
        frame = client.sql((QUESTIONS / f"{name}.sql").read_text(encoding="utf-8")).pl()
        assert frame.equals(answer(home.store, name).frame)


def test_slices_say_who_makes_fewer_errors(home: Home) -> None:
    """Each value of a slice sums the clips that both arms answered."""
    found = {(row["slice"], row["value"]): row for row in asked(home, "better-per-slice")}
    assert {name for name, _ in found} == {"noise", "length", "speaker"}
    for noise in NOISES:
        clips = [c for c in home.scored() if json.loads(c["slices"])["noise"] == noise]
        a, b = (sum(errors(c[arm]) for c in clips) for arm in "ab")
        row = found["noise", noise]
        assert (row["clips"], row["errors_difference"]) == (len(clips), b - a)
        assert row["wer_difference"] == pytest.approx((b - a) / sum(c["a"]["reference_words"] for c in clips))
        assert row["fewer_errors"] == ("a" if a < b else "b" if b < a else "same")


def test_confused_words_are_counted_from_the_alignments(home: Home) -> None:
    """Times, clips and shares are those of the alignments of clips that both arms answered."""
    scored = {clip["clip_id"] for clip in home.scored()}
    words = [w for w in home.of("words") if w["clip_id"] in scored]
    columns = ("arm", "operation", "reference", "hypothesis")
    times = Counter(tuple(w[c] for c in columns) for w in words if w["operation"] != "ok")
    said = Counter((w["arm"], w["reference"]) for w in words if w["operation"] != "ins")
    found = asked(home, "confused-words")
    assert {tuple(row[c] for c in columns): row["times"] for row in found} == times
    for row in found:
        spoken = said[row["arm"], row["reference"]]
        assert row["share"] == (None if row["operation"] == "ins" else pytest.approx(row["times"] / spoken))
    assert [row["times"] for row in found] == sorted((row["times"] for row in found), reverse=True)


def p95(home: Home, run: str, arm: str) -> float:
    """95th percentile of a run's latency in ms, by numpy."""
    calls = defaultdict(list)
    for row in home.of("operations", run):
        if row["pass"] == "latency" and row["arm"] == arm:  # noqa: S105 - a pass over the clips
            calls[row["clip_id"]].append(1000 * row["wall_seconds"])
    return float(np.quantile([np.median(repeats) for repeats in calls.values()], 0.95))


def test_slower_compares_with_the_run_before_of_the_same_model(home: Home) -> None:
    """Base was in the run of the other pair last, small in the second run of the pair; numpy gives the quantiles."""
    found = {row["model"]: row for row in asked(home, "slower-since-last-run")}
    for model, arm, before, same in (("base", "a", "big-1", True), ("small", "b", "old-2", False)):
        row = found[model]
        assert (row["arm"], row["previous_run_id"], row["same_revision"]) == (arm, before, same)
        now, then = p95(home, LAST, arm), p95(home, before, arm)
        assert (row["p95_ms"], row["previous_p95_ms"]) == pytest.approx((now, then))
        assert row["p95_percent_change"] == pytest.approx(100 * (now - then) / then)
        assert (row["clips"], row["previous_clips"], row["same_hardware"]) == (12, 12, True)
    assert found["small"]["p95_percent_change"] > 10
    assert asked(home, "slower-since-last-run", "run=old-1") == []


def test_clips_that_both_get_wrong_come_with_the_likeliest_wrong_reference_first(home: Home) -> None:
    """The same wrong answer of both is first; clips without an answer are there; the rest err in both arms."""
    found = asked(home, "both-wrong")
    wrong = {c["key"] for c in home.scored() if errors(c["a"]) and errors(c["b"])}
    assert {row["key"] for row in found} == wrong | {"s0-clean-0"}
    by_key = {row["key"]: row for row in found}
    suspect = by_key["s2-clean-0"]
    assert suspect["finding"] == "same wrong answer"
    assert suspect["answer_a"] == suspect["answer_b"] == "nine oh nine"
    assert by_key["s0-clean-0"]["finding"] == "no answer from either"
    assert by_key["s0-clean-0"]["answer_a"] == ""
    findings = [row["finding"] == "same wrong answer" for row in found]
    assert findings == sorted(findings, reverse=True)
    clips = home.clips()
    for row in found[:-1]:
        clip = clips[row["key"]]
        assert row["answer_b"] == BASIC(clip["b"]["hypothesis"])
        assert row["confidence"] == min(clip["a"]["confidence"], clip["b"]["confidence"])


def test_deciding_clips_add_up_to_the_difference(home: Home) -> None:
    """The net differences of all clips with one are the difference of the run, and their shares are 1."""
    found = asked(home, "deciding-clips")
    expected = {c["key"]: errors(c["b"]) - errors(c["a"]) for c in home.scored()}
    assert {row["key"]: row["errors_difference"] for row in found} == {k: d for k, d in expected.items() if d}
    assert sum(row["net_share"] for row in found) == pytest.approx(1)


def test_noise_and_speaker_are_crossed(home: Home) -> None:
    """Each pair of values is summed by itself; a variable names another slice."""
    for slice_, variables in (("noise", []), ("length", ["slice=length"])):
        groups = defaultdict(list)
        for clip in home.scored():
            groups[json.loads(clip["slices"])[slice_], clip["speaker"]].append(clip)
        found = {(row["value"], row["speaker"]): row for row in asked(home, "wer-by-noise-and-speaker", *variables)}
        assert set(found) == set(groups)
        for key, clips in groups.items():
            words = sum(c["a"]["reference_words"] for c in clips)
            assert (found[key]["clips"], found[key]["reference_words"]) == (len(clips), words)
            assert found[key]["wer_b"] == pytest.approx(sum(errors(c["b"]) for c in clips) / words)


def test_kinds_of_errors_are_shares_of_all_errors_of_that_length(home: Home) -> None:
    """Counts by length are those of the outcomes, in the order of length; the three shares add up to 1."""
    found = asked(home, "errors-by-length")
    ranges = {"1": (1, 1), "2-4": (2, 4), "5-7": (5, 7), "8-15": (8, 15), "16+": (16, 99)}
    assert [row["reference_words"] for row in found] == 2 * list(ranges)
    for row in found:
        low, high = ranges[row["reference_words"]]
        ours = [c[row["arm"]] for c in home.scored() if low <= c["a"]["reference_words"] <= high]
        total = sum(map(errors, ours))
        assert (row["clips"], row["errors"]) == (len(ours), total)
        assert row["deletion_share"] == pytest.approx(sum(o["deletions"] for o in ours) / total)
        assert sum(row[f"{kind}_share"] for kind in ("substitution", "deletion", "insertion")) == pytest.approx(1)


def test_calibration_bins_hold_every_answer(home: Home) -> None:
    """Bins, means and shares of exact answers agree with numpy's; a confidence of 1 is in the last bin."""
    found = asked(home, "calibration")
    for arm in "ab":
        ours = [o for o in home.of("outcomes") if o["arm"] == arm and o["status"] == "ok"]
        confidence = np.array([o["confidence"] for o in ours])
        counts, _ = np.histogram(confidence, bins=np.arange(11) / 10)
        bins = {round(10 * row["from_confidence"]): row for row in found if row["arm"] == arm}
        assert {i: row["clips"] for i, row in bins.items()} == {i: n for i, n in enumerate(counts) if n}
        place = np.minimum((10 * confidence).astype(int), 9)
        for i, row in bins.items():
            inside = [o for o, at in zip(ours, place, strict=True) if at == i]
            exact = sum(errors(o) == 0 for o in inside) / len(inside)
            assert row["mean_confidence"] == pytest.approx(confidence[place == i].mean())
            assert (row["exact"], row["gap"]) == pytest.approx((exact, confidence[place == i].mean() - exact))
            words = sum(o["reference_words"] for o in inside)
            assert row["word_accuracy"] == pytest.approx(sum(o["hits"] for o in inside) / words)


def test_the_trend_follows_a_pair_over_its_runs(home: Home) -> None:
    """Differences and intervals are those of the comparisons; only the second run repeats the question of the first."""
    found = [row for row in asked(home, "trend") if row["model_b"] == "small"]
    assert [(row["run_id"], row["number"]) for row in found] == [("old-1", 1), ("old-2", 2), ("new-1", 3)]
    assert [row["same_question"] for row in found] == [None, True, False]
    tested = [next(c for c in home.of("comparisons", r["run_id"]) if c["metric"] == "wer") for r in found]
    for row, expected in zip(found, tested, strict=True):
        assert row["wer_difference"] == expected["difference"]
        assert (row["wer_ci_low"], row["margin"], row["verdict"]) == (expected["ci_low"], 0.005, expected["verdict"])
    differences = [expected["difference"] for expected in tested]
    assert found[0]["change"] is None
    assert [row["change"] for row in found[1:]] == pytest.approx(np.diff(differences).tolist())
    assert [row["verdict_changed"] for row in found][1:] == [
        now["verdict"] != before["verdict"] for before, now in pairwise(tested)
    ]
    assert {row["revision_a"] for row in found} == {"r-base"}


def test_speed_and_memory_pool_the_runs_of_a_revision(home: Home) -> None:
    """RTFx is audio over time of all finished runs together, memory the highest of them, loading their median."""
    found = {(row["model"], row["revision"]): row for row in asked(home, "speed-and-memory")}
    assert set(found) == {("base", "r-base"), ("small", "r-old"), ("small", "r-new"), ("big", "r-big")}
    for model, arm, runs in (("base", "a", ("old-1", "old-2", "big-1", LAST)), ("small", "b", (LAST,))):
        calls = [o for run in runs for o in home.of("operations", run) if o["arm"] == arm and o["clip_id"] == ""]
        row = found[model, "r-base" if arm == "a" else "r-new"]
        audio, wall = (sum(o[name] for o in calls) for name in ("audio_seconds", "wall_seconds"))
        assert (row["runs"], row["audio_seconds"]) == (len(runs), audio)
        assert (row["rtfx"], row["compute_share"]) == pytest.approx((audio / wall, 0.8 * len(calls) / wall))
        assert row["peak_rss_mb"] == max(o["peak_rss_mb"] for o in calls)
    assert found["base", "r-base"]["load_seconds"] == 2.5


def test_refusals_are_counted_by_day(home: Home) -> None:
    """Each day has its run's refusals with their share of what was offered."""
    found = {(row["day"].day, row["stage"], row["code"]): row for row in asked(home, "quarantine-by-day")}
    counts = Counter(
        (18 + number, row["stage"], row["code"])
        for number, run in enumerate(("old-1", "old-2", "big-1", LAST, "half-1"))
        for row in home.of("quarantine", run)
    )
    assert {key: row["refused"] for key, row in found.items()} == counts
    last = found[21, "audio", "duplicate"]
    offered = len(home.of("clips")) + len(home.of("quarantine"))
    assert (last["refused"], last["runs"], last["share"]) == (4, 1, pytest.approx(4 / offered))


def test_live_experiments_stand_as_decided_last(home: Home) -> None:
    """One row for each version, with its newest decision; traffic counts units once and shadow uses apart."""
    second, first = asked(home, "live-decisions")
    assert (first["version"], first["verdict"], first["decisions"]) == (1, "SHIP", 2)
    assert first["decided_at"] == (NOON + timedelta(days=2)).replace(tzinfo=first["decided_at"].tzinfo)
    assert (second["version"], second["verdict"], second["decisions"]) == (2, None, 0)
    found = {(row["day"].day, row["arm"]): row for row in asked(home, "live-traffic")}
    rows = home.of("exposures", "live.v1")
    for (day, arm), row in found.items():
        mine = [r for r in rows if r["arm"] == arm and 18 + (r["at_ms"] > rows[0]["at_ms"]) == day]
        assert row["exposures"] == len(mine)
        assert row["units"] == len({r["unit"] for r in mine if r["reason"] == "assigned"})
        assert row["overridden"] == sum(r["reason"] == "shadow" for r in mine)
    assert len(found) == 4
    assert sum(row["share"] for (day, _), row in found.items() if day == 18) == pytest.approx(1)


def test_failed_rules_and_calls_say_what_was_lost(home: Home) -> None:
    """Rules that passed everywhere are left out; tries and clips lost are of the asked run."""
    rules = {row["rule"]: row for row in asked(home, "failed-rules")}
    assert set(rules) == {"pace", "charset"}
    pace = rules["pace"]
    assert (pace["judged"], pace["failed"], pace["evaluated"], pace["unexpected"], pace["share"]) == (2, 1, 20, 3, 0.15)
    assert (pace["observed"], pace["reason"], rules["charset"]["not_evaluated"]) == ("3 of 10", "Why pace.", 1)
    calls = {row["arm"]: row for row in asked(home, "failed-calls")}
    lost = Counter(o["arm"] for o in home.of("outcomes") if o["status"] == "failed")
    assert {arm: row["clips_lost"] for arm, row in calls.items()} == lost == {"a": 1, "b": 2}
    assert (calls["b"]["attempts"], calls["b"]["retried"], calls["b"]["workers"]) == (3, 1, 2)
    assert (calls["a"]["attempts"], calls["a"]["first_at"], calls["a"]["model"]) == (0, None, "base")


def test_levels_and_evidence_sum_the_scored_clips(home: Home) -> None:
    """Ranges of level hold every scored clip once; the evidence is their length, words and speakers."""
    levels = {(row["from_dbfs"], row["clipped"]): row for row in asked(home, "errors-by-level")}
    scored = home.scored()
    expected = Counter((10 * np.floor(c["rms_dbfs"] / 10), c["clipped_fraction"] > 0) for c in scored)
    assert {key: row["clips"] for key, row in levels.items()} == expected
    evidence = {row["run_id"]: row for row in asked(home, "evidence")}
    row, half = evidence[LAST], evidence["half-1"]
    words = Counter[str]()
    for clip in scored:
        words[clip["speaker"]] += clip["a"]["reference_words"]
    assert (row["scored_clips"], row["reference_words"], row["speakers"]) == (len(scored), words.total(), 7)
    assert row["audio_seconds"] == pytest.approx(sum(c["seconds"] for c in scored))
    assert row["largest_speaker_share"] == pytest.approx(max(words.values()) / words.total())
    assert (row["refused"], row["failures_a"], row["failures_b"]) == (12, 1, 2)
    assert (half["finished"], half["scored_clips"], half["refused"]) == (False, 0, 15)
    assert half["largest_speaker_share"] is None


def test_verdicts_are_those_of_the_comparisons(home: Home) -> None:
    """One line for each finished run, newest first."""
    found = asked(home, "verdicts")
    assert [row["run_id"] for row in found] == ["named-1", "new-1", "big-1", "old-2", "old-1"]
    for row in found:
        metric = "accuracy" if row["task"] == "classify" else "wer"
        main = next(c for c in home.of("comparisons", row["run_id"]) if c["metric"] == metric)
        assert (row[f"{metric}_a"], row["verdict"]) == (pytest.approx(main["a"]), main["verdict"])


def test_a_variable_asks_about_another_run(home: Home) -> None:
    """An earlier run answers for itself and says so."""
    found = answer(home.store, "deciding-clips", ["run=old-1"])
    assert found.run == "old-1: base (a) and small (b) on digits"
    assert {r["key"] for r in found.frame.to_dicts()} == {
        c["key"] for c in home.scored("old-1") if errors(c["a"]) != errors(c["b"])
    }


@pytest.mark.parametrize(
    ("ask", "code", "says"),
    [
        (lambda store: answer(store, "confused-word"), "unknown-question", "did you mean 'confused-words'"),
        (lambda _: find_question("quux"), "unknown-question", "no question 'quux'"),
        (lambda store: answer(store, "trend", ["run=old-1"]), "unknown-variable", "it has: none"),
        (lambda store: answer(store, "both-wrong", ["run"]), "unknown-variable", "it has: run"),
        (lambda store: answer(store, "both-wrong", ["run=o'clock"]), "unknown-run", "old-1"),
    ],
)
def test_what_cannot_be_asked_says_what_can(home: Home, ask: Callable[[Store], object], code: str, says: str) -> None:
    """A wrong name of a question, a variable or a run is an error that names those that exist."""
    with pytest.raises(ConfigError, match=says) as caught:
        ask(home.store)
    assert caught.value.code == code


def test_a_warehouse_without_the_views_says_to_publish_again(tmp_path: Path) -> None:
    """A file that an older version published is named as such, and so is none at all."""
    store = Store(tmp_path)
    with pytest.raises(StorageError, match="no warehouse yet"):
        answer(store, "trend")
    store.publish()
    for name in ("trend", "both-wrong"):
        with pytest.raises(StorageError, match="publish again") as caught:
            answer(store, name)
        assert caught.value.code == "old-warehouse"


def test_answers_are_written_with_everything_in_them(home: Home, tmp_path: Path) -> None:
    """CSV has the rows; JSON has also the question, the run and the meaning of each column; a bad place is named."""
    found = answer(home.store, "failed-calls")
    write_csv(found, tmp_path / "a.csv")
    write_json(found, tmp_path / "a.json")
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].split(",") == found.frame.columns
    assert len(lines) == 1 + found.frame.height
    assert "2026-11-21T12:00:00" in lines[1]
    said = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (said["name"], said["run"][:5], said["columns"]["code"]) == ("failed-calls", LAST, "short reason")
    assert said["rows"][0]["first_at"] == "2026-11-21T12:00:00+00:00"
    assert [row["clips_lost"] for row in said["rows"]] == [2, 1]
    with pytest.raises(StorageError, match="cannot be written"):
        write_csv(found, tmp_path / "none" / "a.csv")


def test_questions_are_told_apart_by_their_texts() -> None:
    """There are at least ten, no text comes twice, and each names its variables."""
    known = questions()
    assert len(known) >= 10
    assert len({question.text for question in known}) == len(known)
    assert [q.name for q in known] == NAMES
    for question in known:
        assert ("asked_run" in question.sql) == ("run" in dict(question.variables)), question.name


def test_the_examples_of_the_page_run(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python and SQL that a person reads above the generated half works in a folder with the home."""
    prose = (QUESTIONS.parents[2] / "docs" / "analysts.md").read_text(encoding="utf-8").partition("<!-- generated")[0]
    (tmp_path / "var").symlink_to(home.store.home)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(python|sql)\n(.*?)^```", prose, flags=re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks].count("sql") >= 2
    found: Row = {}
    with duckdb.connect() as client:
        for kind, text in blocks:
            if kind == "sql":
                found["rows"] = client.execute(text).fetchall()
            else:
                exec(compile(text, "docs/analysts.md", "exec"), found)  # noqa: S102 - our own page
    assert len(found["frame"]) == 6
    assert found["worst"]["times"].sum() == found["words"]["times"].sum() > 0
    expected = Counter((o["arm"], o["status"]) for run in home.rows for o in home.of("outcomes", run))
    assert {(arm, status): clips for arm, status, clips in found["rows"]} == expected
    counted = found["answered"].group_by("arm", "status").len().collect()
    assert {(arm, status): clips for arm, status, clips in counted.iter_rows()} == expected
