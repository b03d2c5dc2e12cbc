"""The SQL views of ``reports/sql`` and the analysts' page."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from grym.compare.verdict import compare_run
from grym.describe import main, page, read_questions, read_views
from grym.errors import ConfigError
from grym.schema import TABLES
from grym.store import RunRef, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

ROOT = Path(__file__).parents[2]
VIEWS = ROOT / "reports" / "sql"
NAMES = (
    "aa_audits",
    "ab_blame",
    "ab_by_slice",
    "ab_clips",
    "ab_fragility",
    "ab_radar",
    "ab_runs",
    "ab_summary",
    "ab_trend",
    "answer_failures",
    "asked_run",
    "clip_slices",
    "label_confusions",
    "latency_quantiles",
    "quarantine_by_reason",
    "recovery_success",
    "route_service",
    "word_confusions",
)
LABELS = {"answer_failures", "label_confusions"}  # their examples need a run that named labels  # fmt: skip
DONE, HALF, OTHER, LIVE = (RunRef(f"{name}-1", "2026-11-20") for name in ("done", "half", "other", "live"))
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
# key, speaker, slices, reference words and characters, errors (substitutions, deletions, insertions) of a and b
CLIPS: tuple[tuple[str, str, dict[str, str], int, tuple[int, int, int], tuple[int, int, int] | None], ...] = (
    ("one", "s1", {"noise": "street"}, 10, (1, 0, 0), (2, 0, 1)),
    ("two", "s1", {"noise": "none", "speaker": "shadow"}, 2, (0, 1, 1), (0, 0, 0)),
    ("three", "s2", {"noise": "street"}, 8, (0, 0, 0), (1, 0, 0)),
    ("four", "", {}, 5, (1, 1, 1), None),
    ("five", "s2", {"noise": ""}, 0, (0, 0, 2), (0, 0, 0)),
)

# clip, arm, position, operation, reference, hypothesis: "two" is said three times where both arms answered
WORDS = (
    ("one", "b", 0, "ok", "two", "two"), ("one", "b", 1, "sub", "two", "ten"), ("two", "b", 0, "sub", "two", "ten"),
    ("two", "b", 1, "del", "six", ""), ("two", "b", 2, "ins", "", "oh"), ("one", "a", 0, "ok", "two", "two"),
    ("four", "a", 0, "sub", "two", "ten"),
)  # fmt: skip
REFUSED = (
    ("x1", "audio", "silent"),
    ("x2", "audio", "silent"),
    ("x3", "manifest", "no-text"),
    ("four", "model:b", "deadline"),
)


def word(clip: str, arm: str, position: int, operation: str, reference: str, hypothesis: str) -> dict[str, object]:
    """An aligned position."""
    texts = {"reference": reference, "hypothesis": hypothesis}
    return {"clip_id": f"id-{clip}", "arm": arm, "position": position, "operation": operation, **texts}


def refused(key: str, stage: str, code: str) -> dict[str, object]:
    """A row of quarantine."""
    return {"key": key, "stage": stage, "category": "audio", "code": code, "hint": f"Mend {key}."}


def outcome(arm: str, key: str, words: int, errors: tuple[int, int, int] | None) -> dict[str, object]:
    """An answer of one arm; without errors the model failed."""
    row: dict[str, object] = {"arm": arm, "clip_id": f"id-{key}", "batch_id": "b0", "compute_seconds": 0.5}
    if errors is None:
        return {**row, "status": "failed"}
    counts = dict(zip(("substitutions", "deletions", "insertions"), errors, strict=True))
    scores = {"reference_words": words, "reference_characters": 4 * words, "character_errors": sum(errors)}
    return {**row, "status": "ok", "hypothesis": f"{arm} {key}", "normalizer": "basic", **counts, **scores}


def call(arm: str, kind: str, name: str, clip: str, seconds: float, mb: float) -> dict[str, object]:
    """A call to a model that took so many seconds for ten seconds of audio."""
    times = {"audio_seconds": 10.0, "wall_seconds": seconds, "peak_rss_mb": mb}
    return {"arm": arm, "pass": kind, "call": name, "clip_id": clip, "status": "ok", **times}


def land_done(store: Store) -> None:
    """A finished comparison of five clips, one of which b did not answer."""
    runs = {"flow": "compare", "run_key": "k", "ordinal": 1, "dataset": "digits", "arm_a": "base", "arm_b": "small"}
    store.land("runs", [{**runs, "state": "started", "at": NOON}], run=DONE, part="started")
    store.land("runs", [{**runs, "state": "finished", "at": NOON + timedelta(hours=1)}], run=DONE, part="finished")
    clips = [
        {"clip_id": f"id-{k}", "key": k, "speaker": s, "slices": json.dumps(x), "seconds": 2.0, "reference": k}
        for k, s, x, *_ in CLIPS
    ]
    store.land("clips", clips, run=DONE, part="all")
    for arm, place in (("a", 4), ("b", 5)):
        rows = [outcome(arm, clip[0], clip[3], clip[place]) for clip in CLIPS]  # type: ignore[arg-type]
        store.land("outcomes", rows, run=DONE, part=f"{arm}-b0")
    calls = [call("a", "throughput", "b0", "", 2.0, 100.0), call("b", "throughput", "b0", "", 1.0, 80.0)]
    # Clip one: 100, 300 ms and 50, 70 ms; clip two: 400 and 160 ms; clip four in arm a only.
    latencies = [("a", "one", 0.1), ("a", "one", 0.3), ("b", "one", 0.05), ("b", "one", 0.07)]
    latencies += [("a", "two", 0.4), ("b", "two", 0.16), ("a", "four", 9.0)]
    calls += [call(arm, "latency", f"{k}-{i}", f"id-{k}", s, 120.0) for i, (arm, k, s) in enumerate(latencies)]
    calls += [call("a", "warmup", "warmup", "", 50.0, 90.0)]
    store.land("operations", calls, run=DONE, part="all")
    tested = {"metric": "wer", "ci_low": -0.1, "ci_high": 0.2, "p_value": 0.4, "verdict": "cannot tell"}
    store.land("comparisons", [{**tested, "sentence": "Too few."}], run=DONE, part="all")
    way = {"normalizer": "basic", "compounds": "kept", "fillers": "kept", "weighting": "words", "difference": -0.05}
    ways = [
        {**way, "cluster": unit, "chosen": unit == "speaker", "agrees": unit == "speaker", "verdict": verdict}
        for unit, verdict in (("speaker", "cannot tell"), ("clip", "b better"))
    ]
    store.land("analyses", ways, run=DONE, part="all")
    part = {"dimension": "words", "name": "word", "contribution": -0.05, "examples": '["id-two", "id-one"]'}
    store.land("blame", [{**part, "value": "two"}, {**part, "value": "six", "examples": "[]"}], run=DONE, part="all")
    place = {"clip_id": "id-one", "position": 3, "kind": "heard otherwise", "errors": 1, "reference_words": 1}
    store.land("radar", [place], run=DONE, part="all")
    store.land("words", [word(*fields) for fields in WORDS], run=DONE, part="all")
    store.land("quarantine", [refused(*fields) for fields in REFUSED], run=DONE, part="all")
    audited = {"experiment": "mini", "rate": "srm-alarms", "at": NOON, "replicates": 100, "hits": 1, "promise": 0.01}
    store.land("audits", [audited], run=DONE, part="audit")


def land_failures(store: Store) -> None:
    """Tries that failed, in the comparison and in live requests, and who served these."""
    tries = (("a", "b0", 1, "retry"), ("b", "b0", 1, "retry"), ("b", "b0", 2, "split"))
    at = {"at": NOON, "worker_pid": 1, "category": "worker", "code": "down"}
    store.land("attempts", [{**at, "arm": a, "call": c, "attempt": n, "action": x} for a, c, n, x in tries], run=DONE,
               part="all")  # fmt: skip
    live = (("base", "", 1, "split"), ("base", "/0", 1, "answered"), ("base", "/1", 1, "give up"))
    rows = [{**at, "arm": "", "model": m, "call": f"r1/{m}{p}", "attempt": n, "action": x} for m, p, n, x in live]
    store.land("attempts", rows, run=LIVE, part="all")
    request = {"request_id": "r1", "clip_id": "c", "at": NOON, "route": "speech", "status": "ok", "primary": "base"}
    served = {"served_by": "small", "place": 1, "wall_seconds": 0.5, "lost_seconds": 0.25}
    store.land("requests", [{**request, **served, "refused": '[["base", "down", 0.25]]'}], run=LIVE, part="all")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published home with a finished comparison, one just started, and a run of another flow."""
    store = Store(tmp_path_factory.mktemp("home"))
    land_done(store)
    land_failures(store)
    started = {"state": "started", "at": NOON, "arm_a": "base", "arm_b": "small"}
    store.land("runs", [{**started, "flow": "compare"}], run=HALF, part="started")
    store.land("clips", [{"clip_id": "x", "key": "x", "slices": "not json"}], run=HALF, part="all")
    store.land("runs", [{**started, "flow": "remember"}], run=OTHER, part="started")
    store.land("clips", [{"clip_id": "x", "key": "x"}], run=OTHER, part="all")
    store.publish(VIEWS)
    return store.home


@pytest.fixture
def warehouse(home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The published warehouse."""
    with Store(home).connect() as connection:
        yield connection


def rows(warehouse: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    """The result as dicts."""
    found: list[dict[str, Any]] = warehouse.sql(query).pl().to_dicts()
    return found


def test_summary_pools_counts_over_clips_both_arms_answered(warehouse: duckdb.DuckDBPyConnection) -> None:
    """Error rates are sums over sums; the clip that b did not answer is counted as a failure only."""
    (row,) = rows(warehouse, "FROM ab_summary WHERE run_id = 'done-1'")
    assert (row["clips"], row["scored_clips"], row["failures_a"], row["failures_b"]) == (5, 4, 0, 1)
    assert row["reference_words"] == 20
    assert [row[f"{kind}_{arm}"] for arm in "ab" for kind in ("substitutions", "deletions", "insertions")] == [
        1, 1, 3, 3, 0, 1,
    ]  # fmt: skip
    assert (row["wer_a"], row["wer_b"]) == pytest.approx((5 / 20, 4 / 20))
    assert (row["wer_difference"], row["wer_percent_change"]) == pytest.approx((-0.05, -20.0))
    assert (row["cer_a"], row["cer_b"]) == pytest.approx((5 / 80, 4 / 80))


def test_summary_has_speed_memory_and_verdict(warehouse: duckdb.DuckDBPyConnection) -> None:
    """Latency is the median of repeats, then the quantile over common clips; warm-up counts for memory only."""
    (row,) = rows(warehouse, "FROM ab_summary WHERE run_id = 'done-1'")
    assert (row["latency_clips"], row["latency_p50_ms_a"], row["latency_p50_ms_b"]) == pytest.approx((2, 300, 110))
    assert (row["latency_p95_ms_a"], row["latency_p95_ms_b"]) == pytest.approx((390, 155))
    assert row["latency_p50_ms_percent_change"] == pytest.approx(100 * (110 - 300) / 300)
    assert (row["rtfx_a"], row["rtfx_b"], row["rtfx_percent_change"]) == pytest.approx((5, 10, 100))
    assert (row["peak_rss_mb_a"], row["peak_rss_mb_b"], row["peak_rss_mb_difference"]) == (120, 120, 0)
    assert (row["verdict"], row["sentence"], row["wer_ci_high"]) == ("cannot tell", "Too few.", 0.2)
    assert (row["finished_at"] - row["started_at"]) == timedelta(hours=1)


def test_summary_agrees_with_the_comparison_that_reports_show(home: Path, warehouse: duckdb.DuckDBPyConnection) -> None:
    """The view and grym.compare give one number for one metric."""
    store = Store(home)
    tables = [store.read(name, DONE) for name in ("outcomes", "clips", "operations")]
    expected = compare_run(
        *tables, name_a="base", name_b="small", run_id=DONE.id, confidence=0.95, margin_wer=0.005, seed=7
    )
    (row,) = rows(warehouse, "FROM ab_summary WHERE run_id = 'done-1'")
    named = {"latency_p50": "latency_p50_ms", "latency_p95": "latency_p95_ms"}
    for metric in expected:
        name = named.get(metric["metric"], metric["metric"])
        assert (row[f"{name}_a"], row[f"{name}_b"]) == pytest.approx((metric["a"], metric["b"])), name
    assert len(expected) == 7


def test_an_unfinished_run_is_there_and_other_flows_are_not(warehouse: duckdb.DuckDBPyConnection) -> None:
    """A run that was stopped shows with counts of zero and no rates."""
    found = {row["run_id"]: row for row in rows(warehouse, "FROM ab_summary")}
    assert set(found) == {"done-1", "half-1"}
    half = found["half-1"]
    assert (found["done-1"]["finished"], half["finished"]) == (True, False)
    assert (half["clips"], half["scored_clips"], half["reference_words"]) == (1, 0, 0)
    assert half["wer_a"] is half["verdict"] is half["finished_at"] is half["latency_p50_ms_a"] is None


def test_slices_come_from_the_manifest_and_the_speaker(warehouse: duckdb.DuckDBPyConnection) -> None:
    """Each value of each slice is a row; empty values, broken JSON and a second speaker make none."""
    found = {(row["slice"], row["value"]): row for row in rows(warehouse, "FROM ab_by_slice")}
    assert set(found) == {("noise", "street"), ("noise", "none"), ("speaker", "s1"), ("speaker", "s2")}
    street, first, second = found["noise", "street"], found["speaker", "s1"], found["speaker", "s2"]
    assert (street["clips"], street["reference_words"], street["errors_a"], street["errors_b"]) == (2, 18, 1, 4)
    assert street["wer_percent_change"] == pytest.approx(300)
    assert (first["wer_a"], first["wer_b"]) == pytest.approx((3 / 12, 3 / 12))
    assert (first["latency_p50_ms_a"], first["latency_p50_ms_difference"]) == pytest.approx((300, -190))
    assert (second["reference_words"], second["errors_a"], second["latency_clips"]) == (8, 2, 0)
    assert second["latency_p50_ms_a"] is None
    assert (first["peak_rss_mb_a"], first["peak_rss_mb_percent_change"]) == pytest.approx((100, -20))


def test_clips_show_both_answers_side_by_side(warehouse: duckdb.DuckDBPyConnection) -> None:
    """One row per clip and run, scored or not, with rates that are empty where they have no meaning."""
    found = {row["key"]: row for row in rows(warehouse, "FROM ab_clips WHERE run_id = 'done-1'")}
    assert {key: row["scored"] for key, row in found.items()} == {clip[0]: clip[0] != "four" for clip in CLIPS}
    one, four, five = found["one"], found["four"], found["five"]
    assert (one["hypothesis_a"], one["hypothesis_b"], one["errors_difference"]) == ("a one", "b one", 2)
    assert (one["wer_a"], one["wer_b"], one["wer_percent_change"]) == pytest.approx((0.1, 0.3, 200))
    assert (one["latency_ms_a"], one["latency_ms_b"]) == pytest.approx((200, 60))
    assert (one["compute_seconds_percent_change"], one["peak_rss_mb_difference"]) == (0, -20)
    assert (four["status_b"], four["errors_a"], four["errors_b"], four["wer_difference"]) == ("failed", 3, None, None)
    assert (five["errors_a"], five["wer_a"], five["wer_percent_change"]) == (2, None, None)
    (half,) = rows(warehouse, "FROM ab_clips WHERE run_id = 'half-1'")
    assert (half["status_a"], half["scored"]) == (None, False)


def test_confusions_count_words_of_clips_both_arms_answered(warehouse: duckdb.DuckDBPyConnection) -> None:
    """A share is of how often the word was said; an insertion has none; a clip that one arm failed does not count."""
    found = {
        (row["arm"], row["operation"], row["reference"], row["hypothesis"]): row
        for row in rows(warehouse, "FROM word_confusions")
    }
    assert set(found) == {("b", "sub", "two", "ten"), ("b", "del", "six", ""), ("b", "ins", "", "oh")}
    ten, six, oh = (found["b", *rest] for rest in (("sub", "two", "ten"), ("del", "six", ""), ("ins", "", "oh")))
    assert (ten["times"], ten["clips"], ten["reference_times"], ten["share"]) == (2, 2, 3, pytest.approx(2 / 3))
    assert (ten["model"], ten["dataset"], ten["finished"]) == ("small", "digits", True)
    assert (six["reference_times"], six["share"]) == (1, 1.0)
    assert (oh["times"], oh["reference_times"], oh["share"]) == (1, None, None)


def test_latency_quantiles_are_those_of_the_summary(warehouse: duckdb.DuckDBPyConnection) -> None:
    """Both views speak of the same clips in the same way."""
    (summary,) = rows(warehouse, "FROM ab_summary WHERE latency_clips > 0")
    found = {row["arm"]: row for row in rows(warehouse, "FROM latency_quantiles")}
    assert set(found) == {"a", "b"}
    for arm, row in found.items():
        assert (row["p50_ms"], row["p95_ms"]) == (summary[f"latency_p50_ms_{arm}"], summary[f"latency_p95_ms_{arm}"])
        assert (row["clips"], row["model"]) == (summary["latency_clips"], summary[f"model_{arm}"])
    assert (found["a"]["p90_ms"], found["a"]["p99_ms"], found["a"]["max_ms"]) == pytest.approx((380, 398, 400))


def test_quarantine_is_counted_by_reason_and_stage(warehouse: duckdb.DuckDBPyConnection) -> None:
    """A refused clip is a share of what was offered at that stage; the day is the run's, in UTC."""
    warehouse.execute("SET TimeZone = 'Pacific/Kiritimati'")  # where it is the next day already
    found = {(row["stage"], row["code"]): row for row in rows(warehouse, "FROM quarantine_by_reason")}
    silent, text, deadline = found["audio", "silent"], found["manifest", "no-text"], found["model:b", "deadline"]
    assert len(found) == 3
    assert (silent["refused"], silent["offered"], silent["share"]) == (2, 8, 0.25)
    assert (text["refused"], text["offered"], text["hint"]) == (1, 8, "Mend x3.")
    assert (deadline["refused"], deadline["offered"], deadline["example"]) == (1, 5, "four")
    assert {row["day"].isoformat() for row in found.values()} == {"2026-11-20"}


def test_the_asked_run_is_the_last_one_unless_a_variable_names_it(warehouse: duckdb.DuckDBPyConnection) -> None:
    """Without a variable it is the last finished comparison; with one it is that run, finished or not, or none."""
    assert rows(warehouse, "FROM asked_run") == [{"run_id": "done-1"}]
    for name, expected in (("half-1", ["half-1"]), ("other-1", []), ("nonsense", [])):
        warehouse.execute(f"SET VARIABLE run = '{name}'")
        assert [row["run_id"] for row in rows(warehouse, "FROM asked_run")] == expected


def test_what_stands_behind_a_verdict_can_be_queried(warehouse: duckdb.DuckDBPyConnection) -> None:
    """Analyses are counted, parts lead to clips, and rates are given with and without places in doubt."""
    (tried,) = rows(warehouse, "FROM ab_fragility")
    assert (tried["verdict"], tried["analyses"], tried["agreeing"], tried["b_better"]) == ("cannot tell", 2, 1, 1)
    parts = {row["value"]: row for row in rows(warehouse, "FROM ab_blame")}
    assert (parts["two"]["first_clip"], parts["six"]["first_clip"]) == ("two", None)
    assert (parts["six"]["rank"], parts["two"]["rank"]) == (1, 2)
    (place,) = rows(warehouse, "FROM ab_radar")
    assert (place["wer_a"], place["wer_b"]) == pytest.approx((5 / 20, 4 / 20))
    assert (place["wer_a_without"], place["wer_b_without"]) == pytest.approx((4 / 19, 3 / 19))


def test_views_and_questions_work_on_an_empty_warehouse(tmp_path: Path) -> None:
    """Before the first run every view is there, and every question can be asked, without rows."""
    store = Store(tmp_path)
    store.publish(VIEWS)
    with store.connect() as warehouse:
        assert [name for name in NAMES if rows(warehouse, f"FROM {name}")] == []
        for question in read_questions(VIEWS / "questions"):
            assert rows(warehouse, question.sql) == [], question.name


def test_recovery_counts_calls_and_service_counts_for_who_answered(warehouse: duckdb.DuckDBPyConnection) -> None:
    """A call is recovered when none of its clips or parts is lost; the primary that failed gets no share."""
    found = rows(
        warehouse, "SELECT run_id, calls, recovered, tries_failed FROM recovery_success ORDER BY run_id, recovered"
    )
    assert [tuple(row.values()) for row in found] == [("done-1", 2, 1, 3), ("live-1", 1, 0, 2)]
    (primary, fallback) = rows(warehouse, "FROM route_service ORDER BY place")
    assert (primary["model"], primary["answered"], primary["passed_over"], primary["share"]) == ("base", 0, 1, 0.0)
    assert (fallback["model"], fallback["share"], fallback["wall_ms_p95"], fallback["lost_ms_p95"]) == (
        "small", 1.0, 500.0, 250.0,
    )  # fmt: skip


def test_every_view_describes_every_column_and_its_example_runs(warehouse: duckdb.DuckDBPyConnection) -> None:
    """The first comment names the query's columns in order, and the example gives rows."""
    views = {view.name: view for view in read_views(VIEWS)}
    assert set(views) == set(NAMES)
    for view in views.values():
        assert [name for name, _ in view.columns] == warehouse.sql(f"FROM {view.name}").columns
        assert view.grain.endswith(".")
        if view.name in LABELS:
            continue
        if view.name != "ab_by_slice":  # its example leaves out slices of fewer than ten clips
            assert rows(warehouse, view.example)
        else:
            assert rows(warehouse, view.example.replace("10", "1"))


def test_the_analysts_page_is_up_to_date() -> None:
    """The page names every table and view as they are; renew it with python -m grym.describe."""
    text = (ROOT / "docs" / "analysts.md").read_text(encoding="utf-8")
    assert page(text, read_views(VIEWS), read_questions(VIEWS / "questions")) == text
    assert all(f"### {name}\n" in text for name in (*TABLES, *NAMES))


def test_a_page_is_renewed_below_its_mark_only(tmp_path: Path) -> None:
    """What a person wrote above the mark stays; a page without a mark is refused."""
    target = tmp_path / "page.md"
    target.write_text(
        "# Mine\n\n<!-- generated by python -m grym.describe: do not edit below -->\nold", encoding="utf-8"
    )
    main([str(VIEWS), str(target)])
    text = target.read_text(encoding="utf-8")
    assert text.startswith("# Mine\n")
    assert "old" not in text.splitlines()
    with pytest.raises(ConfigError, match="lacks the line"):
        page("# Mine", [], [])


def land_labels(store: Store) -> None:
    """Four clips, one of them a mixture; b refuses one, and takes one thing for another."""
    run = RunRef("named-1", "2026-11-21")
    told = {"flow": "compare", "dataset": "sounds", "arm_a": "base", "arm_b": "small", "task": "classify"}
    for state in ("started", "finished"):
        store.land("runs", [{**told, "state": state, "at": NOON, "run_group": "all-1"}], run=run, part=state)
    clips = (("one", "rain"), ("two", "bell"), ("three", "bell"), ("four", "bell + rain"))
    slices = json.dumps({"label": "x", "snr": "10"})
    store.land("clips", [{"clip_id": k, "key": k, "slices": slices} for k, _ in clips], run=run, part="all")
    said = {"a": ("rain", "bell", "bell", "rain + bell"), "b": ("rain", "rain", "no bell", "bell + wind")}
    for arm, predictions in said.items():
        found = [
            {"arm": arm, "model": arm, "clip_id": key, "status": "ok", "label": label, "predicted": predicted,
             "hypothesis": predicted, "failure": "refusal" if predicted.startswith("no ") else "",
             "correct": set(predicted.split(" + ")) == set(label.split(" + ")),
             "any_correct": bool(set(predicted.split(" + ")) & set(label.split(" + ")))}
            for (key, label), predicted in zip(clips, predictions, strict=True)
        ]  # fmt: skip
        store.land("outcomes", found, run=run, part=arm)
    row = {"metric": "accuracy", "a": 1.0, "b": 1 / 3, "difference": -2 / 3, "clips": 3, "verdict": "a better"}
    mixed = {"metric": "accuracy_mixtures", "a": 1.0, "b": 0.0, "clips": 1}
    store.land("comparisons", [{**row, "sentence": "a."}, mixed], run=run, part="all")


def test_labels_have_views_of_their_own_and_stand_in_the_others(tmp_path: Path) -> None:
    """Accuracy, verdict and group in the summary; clips, slices, confusions and failure classes from the outcomes."""
    store = Store(tmp_path)
    land_labels(store)
    store.publish(VIEWS)
    with store.connect() as warehouse:
        (summary,) = rows(warehouse, "FROM ab_summary")
        assert (summary["task"], summary["run_group"], summary["verdict"]) == ("classify", "all-1", "a better")
        assert (summary["accuracy_b"], summary["mixtures_right_a"]) == pytest.approx((1 / 3, 1.0))
        assert (summary["scored_clips"], summary["failure_classes_a"], summary["failure_classes_b"]) == (4, 0, 1)
        assert summary["wer_a"] is None
        found = {row["key"]: row for row in rows(warehouse, "FROM ab_clips")}
        assert (found["four"]["correct_a"], found["four"]["correct_b"], found["four"]["any_correct_b"]) == (
            True, False, True,
        )  # fmt: skip
        (slice_,) = rows(warehouse, "FROM ab_by_slice WHERE slice = 'snr'")
        assert (slice_["scored_clips"], slice_["correct_a"], slice_["correct_b"]) == (4, 4, 1)
        (failure,) = rows(warehouse, "FROM answer_failures")
        assert (failure["arm"], failure["failure"], failure["answers"], failure["wrong"]) == ("b", "refusal", 1, 1)
        assert failure["share"] == 0.25
        wrong = {(row["label"], row["predicted"]): row["share"] for row in rows(warehouse, "FROM label_confusions")}
        assert wrong == {("bell", "rain"): 0.5, ("bell", "no bell"): 0.5, ("bell + rain", "bell + wind"): 1.0}
        assert rows(warehouse, "FROM asked_run") == [{"run_id": "named-1"}]
        for view in read_views(VIEWS):
            if view.name in LABELS:
                assert rows(warehouse, view.example), view.name
