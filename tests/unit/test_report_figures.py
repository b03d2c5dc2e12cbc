"""The figures that reports compute themselves: slices, quantiles, the deciding interval, runs over time, alignments."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from grym.compare.significance import rate_difference
from grym.compare.verdict import compare_run
from reports import charts, metrics, slices, timing, trend
from reports.alignment import Cell, Position, condense, describe
from reports.frames import RunData
from reports.panels import trend_panels

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def run_data(speakers: int = 8, clips: int = 96, *, hurt: str = "loud", seed: int = 2) -> RunData:
    """A run in which the second arm makes two errors more in every clip of one slice value."""
    rng = random.Random(seed)
    rows, outcomes, operations = [], [], []
    for i in range(clips):
        level = ("loud", "soft", "far")[i // speakers % 3]
        named = {"level": level, "length": f"{i % 3 * 5}-9", "host": f"h{i % speakers // 4}", "all": "x"}
        who = f"s{i % speakers}"
        rows.append(
            {
                "run_id": "r", "clip_id": f"{i:03d}", "key": f"{i:03d}", "speaker": who,
                "slices": json.dumps(named),
            }
        )  # fmt: skip
        for arm in ("a", "b"):
            wrong = rng.randint(0, 2) + (2 if arm == "b" and level == hurt else 0)
            outcomes.append(
                {
                    "run_id": "r", "arm": arm, "clip_id": f"{i:03d}", "status": "ok", "normalizer": "n",
                    "reference_words": 12, "hits": 12 - wrong, "substitutions": wrong, "deletions": 0, "insertions": 0,
                    "reference_characters": 60, "character_errors": wrong,
                }
            )  # fmt: skip
            operations += [
                {
                    "run_id": "r", "arm": arm, "pass": "latency", "call": f"{i}-{n}", "clip_id": f"{i:03d}",
                    "status": "ok", "audio_seconds": 1.0, "wall_seconds": rng.uniform(0.02, 0.06),
                }
                for n in range(2)
            ]  # fmt: skip
    tables = {"clips": rows, "outcomes": outcomes, "operations": operations}
    frames = {name: pl.DataFrame(found) for name, found in tables.items()}
    options = {"name_a": "m", "name_b": "n", "run_id": "r", "confidence": 0.95, "margin_wer": 0.005, "seed": 7}
    frames["comparisons"] = pl.DataFrame(compare_run(**frames, **options))
    frames["runs"] = pl.DataFrame([{"run_id": "r", "state": "started", "options": json.dumps({"seed": 7})}])
    return RunData("r", frames)


@pytest.fixture(scope="module")
def data() -> RunData:
    """The run that everything here is computed from."""
    return run_data()


def by_value(rows: pl.DataFrame, name: str) -> dict[str, dict[str, Any]]:
    """Rows of one slice by value."""
    return {row["value"]: row for row in rows.filter(pl.col("slice") == name).to_dicts()}


def test_a_slice_that_differs_stands_out_and_others_do_not(data):
    """After the correction only the value that was hurt is marked; its interval is the one of the clustered test."""
    rows = slices.slices(data)
    level = by_value(rows, "level")
    assert [value for value, row in level.items() if row["stands_out"]] == ["loud"]
    assert next(iter(level)) == "loud"  # the highest rate first
    assert level["loud"]["unit"] == "speaker"
    assert level["loud"]["units"] == 8
    outcomes = data.table("outcomes").join(data.table("clips").select("clip_id", "speaker", "slices"), on="clip_id")
    loud = outcomes.filter(pl.col("slices").str.contains("loud")).sort("clip_id")
    first, second = (loud.filter(pl.col("arm") == arm) for arm in ("a", "b"))
    d = rate_difference(
        first["substitutions"], second["substitutions"], first["reference_words"], first["speaker"].to_numpy(), 0.95
    )
    assert [level["loud"][name] for name in ("low", "high", "p_value")] == pytest.approx(
        [d.ci_low, d.ci_high, d.p_value]
    )
    assert (rows["adjusted"].drop_nulls() >= rows.filter(pl.col("p_value").is_not_null())["p_value"]).all()


def test_a_few_speakers_are_described_and_not_tested(data):
    """Below six speakers the interval is over clips; below six clips there is none; neither ever stands out."""
    rows = slices.slices(data)
    speakers = by_value(rows, "speaker")
    assert {row["unit"] for row in speakers.values()} == {"clip"}
    assert {row["p_value"] for row in [*speakers.values(), *by_value(rows, "host").values()]} == {None}
    assert all(row["low"] < row["high"] for row in speakers.values())
    few = slices.slices(run_data(speakers=24, clips=48))
    assert by_value(few, "speaker")["s0"]["low"] is by_value(few, "speaker")["s0"]["high_a"] is None
    assert not few.filter(pl.col("slice") == "speaker")["stands_out"].any()


def test_values_that_are_numbers_keep_their_order(data):
    """A range is ordered by where it begins, not as text; a value that every clip has is left out."""
    assert list(by_value(slices.slices(data), "length")) == ["0-9", "5-9", "10-9"]
    assert by_value(slices.slices(data), "all") == {}


def test_without_speakers_clips_are_tested(data):
    """A dataset that names no speakers is tested over its clips, as its verdict is."""
    bare = RunData("r", {**data.tables, "clips": data.table("clips").with_columns(speaker=pl.lit(""))})
    level = by_value(slices.slices(bare), "level")
    assert level["loud"]["unit"] == "clip"
    assert level["loud"]["stands_out"]


def test_what_does_not_fit_is_named(data):
    """Slices with the fewest values and values with the most words stay; sentences tell the rest."""
    shown, notes = slices.shown(slices.slices(data), slices=3, values=2)
    assert sorted(shown["slice"].unique()) == ["host", "length", "level"]
    assert shown.group_by("slice").len()["len"].to_list() == [2, 2, 2]
    assert notes == (
        "length: the 2 values with the most words of 3.",
        "level: the 2 values with the most words of 3.",
        "Not shown, because they have the most values: speaker.",
    )
    assert slices.shown(slices.slices(RunData("r", {})))[1] == ()


def test_quantiles_agree_with_the_verdict(data):
    """Median and 95th percentile are those of table comparisons, ends of the interval included."""
    found = {row.q: row for row in timing.quantiles(data)}
    for metric, q in (("latency_p50", 0.5), ("latency_p95", 0.95)):
        stored, row = data.comparison(metric), found[q]
        assert (row.a.value, row.b.value) == pytest.approx((stored["a"], stored["b"]))
        assert (row.difference.low, row.difference.high) == pytest.approx((stored["ci_low"], stored["ci_high"]))
        assert row.a.low <= row.a.value <= row.a.high
    assert [row.title for row in found.values()] == [
        "Median", "75th percentile", "90th percentile", "95th percentile", "Slowest clip",
    ]  # fmt: skip
    assert found[1.0].a.value == max(timing.clip_latencies(data)["a"])
    assert found[1.0].a.low is None


def test_few_clusters_have_quantiles_without_intervals():
    """Five speakers carry no interval; a run without a latency pass has no quantiles."""
    rows = timing.quantiles(run_data(speakers=5, clips=30))
    assert rows[0].a.value > 0
    assert rows[0].a.low is rows[0].difference.high is None
    assert timing.quantiles(RunData("r", {})) == []


def test_the_deciding_interval_lies_inside_the_shown_one(data):
    """It is the one at 90 per cent, and is not shown where what is stored is of another computation."""
    low, high = metrics.deciding_interval(data)
    wer = data.comparison("wer")
    assert 100 * wer["ci_low"] < low < 100 * wer["difference"] < high < 100 * wer["ci_high"]
    other = data.table("comparisons").with_columns(ci_low=pl.col("ci_low") - 0.01)
    assert metrics.deciding_interval(RunData("r", {**data.tables, "comparisons": other})) == (None, None)
    assert metrics.deciding_interval(RunData("r", {})) == (None, None)
    shown = {"margin": 0.5, "confidence": 0.95, "inner_low": low, "inner_high": high}
    wide, narrow = charts.difference(shown | {"difference": 3.0, "low": 1.0, "high": 5.0}, ("m", "n"))
    assert wide.svg.count('stroke-width="7"') == narrow.svg.count('stroke-width="7"') == 1


def test_an_equivalence_interval_wider_than_the_other_stays_inside_the_figure():
    """Without a single error the exact interval is the wider one; the figure keeps its width."""
    row = {"difference": 0.0, "low": 0.0, "high": 0.0, "margin": 0.5, "confidence": 0.95}
    for chart in charts.difference(row | {"inner_low": -5.99, "inner_high": 5.99}, ("m", "n")):
        frame = re.search(r'class="background" d="M0,0h(\d+)', chart.svg)
        assert frame is not None
        assert int(frame[1]) > 200


def test_rates_have_their_own_intervals(data):
    """Both arms' error rates carry an interval that holds the rate; other metrics none."""
    rows = {row.key: row for row in metrics.metric_rows(data)}
    low, high = (float(end) for end in rows["wer"].a_interval.split(" to "))
    assert low < float(rows["wer"].a) < high
    assert rows["cer"].b_interval
    assert rows["latency_p50"].a_interval == rows["substitutions"].a_interval == ""


def test_the_kinds_of_error_are_drawn_with_their_numbers():
    """Each kind is named with both counts; without an error there is nothing to draw."""
    totals = {"substitutions": (9, 4), "deletions": (0, 2), "insertions": (3, 3)}
    chart = charts.kinds(totals, 100, ("m", "n"))
    assert "substitutions 9 and 4; deletions 0 and 2; insertions 3 and 3" in chart.svg
    assert charts.kinds(dict.fromkeys(totals, (0, 0)), 100, ("m", "n")) is None
    assert charts.kinds(totals, 0, ("m", "n")) is None


def runs_over_time() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Comparisons, runs and models of four runs: then new data, a new model, other settings."""
    identity = [("d1", "m1", "k1"), ("d2", "m1", "k2"), ("d2", "m2", "k3"), ("d2", "m2", "k4")]
    comparisons, runs, models = [], [], []
    for i, (print_, revision, key) in enumerate(identity):
        run = f"{key}-1"
        comparisons += [
            {
                "run_id": run, "arm_a": "m", "arm_b": "n", "metric": metric, "unit": unit, "a": 0.1,
                "b": 0.1 + 0.01 * i, "difference": 0.01 * i, "ci_low": -0.01, "ci_high": 0.05, "verdict": "cannot tell",
            }
            for metric, unit in (("wer", "fraction"), ("latency_p50", "ms"), ("rtfx", ""))
        ]  # fmt: skip
        states = [("started", NOW + timedelta(days=i)), ("finished", NOW + timedelta(days=i, hours=1))]
        runs += [
            {
                "run_id": run, "state": state, "at": at, "run_key": key, "dataset": "set",
                "dataset_fingerprint": print_, "arm_a": "m", "arm_b": "n",
            }
            for state, at in states
        ]  # fmt: skip
        models += [{"run_id": run, "arm": "a", "revision": revision}, {"run_id": run, "arm": "b", "revision": "x"}]
    return pl.DataFrame(comparisons), pl.DataFrame(runs), pl.DataFrame(models)


def test_a_trend_says_what_is_new_in_each_run():
    """One row per run, oldest first, with speed beside the error rates, and the reason why figures may move."""
    comparisons, runs, models = runs_over_time()
    past = trend.history(comparisons, runs, models)
    mine = RunData("k4-1", {"runs": runs.filter(pl.col("run_id") == "k4-1")})
    rows = trend.trend(past.sample(fraction=1.0, shuffle=True, seed=3), mine)
    assert rows["run_id"].to_list() == ["k1-1", "k2-1", "k3-1", "k4-1"]
    assert rows["changed"].to_list() == ["", "the data", "the first model", "the settings"]
    assert rows["latency_p50_b"].to_list() == pytest.approx([0.1, 0.11, 0.12, 0.13])
    assert list(trend.pairs(past)) == [("m", "n", "set")]
    drawn = trend_panels(rows, ("m", "n"), "k4-1", limit=3)
    assert len(drawn) == 4
    assert "The last 3 of 4 runs" in drawn[0].note
    assert "over 3 runs" in drawn[1].svg
    assert trend_panels(rows.head(1), ("m", "n")) == []


def test_a_trend_of_one_evening_shows_hours():
    """Runs of one day are told apart by the hour, others by the day."""
    comparisons, runs, models = runs_over_time()
    near = runs.with_columns(at=NOW + (pl.col("at") - NOW) / 48)
    mine = RunData("k4-1", {"runs": runs.filter(pl.col("run_id") == "k4-1")})
    days, hours = (
        trend_panels(trend.trend(trend.history(comparisons, found, models), mine), ("m", "n"))[1].svg
        for found in (runs, near)
    )
    assert re.search(r">0[0-2]:[0-5]0<", hours)
    assert ":00" not in days


def test_long_alignments_show_what_surrounds_errors():
    """Right stretches are counted instead of shown, and nothing goes beyond the limit."""
    right, wrong = Position("a", (Cell("ok", "a"),) * 2), Position("b", (Cell("ok", "b"), Cell("sub", "p")))
    found = condense([*[right] * 40, wrong, *[right] * 40], around=2)
    assert [p.skipped for p in found] == [38, 0, 0, 0, 0, 0, 38]
    assert found[3].wrong
    cut = condense([wrong] * 500, limit=30)
    assert len(cut) == 31
    assert cut[-1].skipped == 470
    assert condense([right] * 9 + [wrong]) == (*[right] * 9, wrong)
    words = [{"operation": "del", "reference": "x", "hypothesis": ""}] * 50
    assert describe(words, limit=2) == "“x” missing, “x” missing, and 48 more"


def test_a_slow_call_does_not_hide_the_others():
    """Where the slowest call is many times the fastest, the axis of time is logarithmic."""
    from reports.panels import latency_panels

    def ticks(slowest: float) -> str:
        ms = [10.0, 12.0, 14.0, slowest]
        per_clip = pl.DataFrame({"clip_id": ["1", "2", "3", "4"], "a": ms, "b": ms})
        calls = [{"arm": arm, "call": "c", "seconds": 1.0, "ms": value} for arm in "ab" for value in ms]
        return latency_panels(per_clip, pl.DataFrame(calls), ("m", "n"))[0].svg

    assert ">20<" in ticks(900.0)
    assert ">500<" in ticks(900.0)
    assert ">500<" not in ticks(16.0)
    many = pl.DataFrame({"clip_id": [str(i) for i in range(5_000)], "a": np.arange(5_000) + 1.0, "b": 9.0})
    calls = pl.DataFrame({"arm": ["a"] * 5_000, "call": "c", "seconds": 1.0, "ms": np.arange(5_000) + 1.0})
    assert sum(len(chart.svg) for chart in latency_panels(many, calls, ("m", "n"))) < 200_000
