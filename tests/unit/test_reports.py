"""Reports: frames, formats, clips, charts, pages and artifacts, on one invented but realistic run."""

from __future__ import annotations

import html
import io
import json
import random
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile

from grym.audio import decode
from grym.config import AudioLimits
from grym.corpus.manifest import Entry
from grym.errors import StorageError
from grym.schema import TABLES
from reports import artifacts, charts, formats, frames, metrics, render, slice_charts, slices, trend
from reports.alignment import align, describe
from reports.clips import outline, sound, worst_clips
from reports.frames import RunData
from reports.index import render_index
from reports.sound import clip_audio

A, B = "wav2vec2-mini", "wav2vec2-mini-int8"
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
STARTED = datetime(2026, 11, 20, 9, 5, tzinfo=UTC)
EVIL = "<script>alert(1)</script>"
SLIPS = {"five": "nine", "nine": "five", "three": "tree", "eight": "ate", "four": "for", "six": "sick"}
EDITS = {"sub": "substitutions", "del": "deletions", "ins": "insertions", "ok": "hits"}


def frame(table: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as a frame; columns that the rows do not name stay away, as in older files."""
    return pl.DataFrame(rows, infer_schema_length=None) if rows else frames.conform(None, table)


def transcribe(words: list[str], rate: float, rng: random.Random) -> list[dict[str, Any]]:
    """An invented alignment with about ``rate`` errors per word."""
    found: list[tuple[str, str, str]] = []
    for word in words:
        draw = rng.random()
        if draw < 0.15 * rate:
            found.append(("del", word, ""))
        elif draw < rate:
            found.append(("sub", word, SLIPS.get(word) or rng.choice([d for d in DIGITS if d != word])))
        else:
            found.append(("ok", word, word))
        if rng.random() < 0.08 * rate:
            found.append(("ins", "", rng.choice(["oh", "and"])))
    return [{"position": i, "operation": o, "reference": r, "hypothesis": h} for i, (o, r, h) in enumerate(found)]


def outcome(run_id: str, arm: str, clip: dict[str, Any], words: list[dict[str, Any]]) -> dict[str, Any]:
    """One answered clip."""
    counts = {name: sum(w["operation"] == short for w in words) for short, name in EDITS.items()}
    text = " ".join(w["hypothesis"] for w in words if w["hypothesis"])
    return {
        "run_id": run_id, "arm": arm, "model": A if arm == "a" else B, "clip_id": clip["clip_id"], "status": "ok",
        "hypothesis": text.upper(), "normalizer": "basic/1/3fa9c2", "reference_words": len(clip["reference"].split()),
        "error_category": "", "error_code": "", "error_message": "", **counts,
    }  # fmt: skip


def comparison(run_id: str, metric: str, unit: str, a: float, b: float, **more: Any) -> dict[str, Any]:
    """One row of comparisons, without an interval unless ``more`` says so."""
    return {
        "run_id": run_id, "arm_a": A, "arm_b": B, "metric": metric, "unit": unit, "a": a, "b": b, "difference": b - a,
        "percent_change": 100 * (b - a) / a if a else None, "ci_low": None, "ci_high": None, "confidence": None,
        "p_value": None, "method": "observed", "clusters": None, "clips": 59, "margin": None,
        "verdict": "cannot tell", "sentence": "", **more,
    }  # fmt: skip


def pair_wer(outcomes: list[dict[str, Any]]) -> list[float]:
    """WER of both arms over the clips both answered."""
    unanswered = {row["clip_id"] for row in outcomes if row["status"] != "ok"}
    rates = []
    for arm in ("a", "b"):
        mine = [row for row in outcomes if row["arm"] == arm and row["clip_id"] not in unanswered]
        errors = sum(row[name] for row in mine for name in ("substitutions", "deletions", "insertions"))
        rates.append(errors / sum(row["reference_words"] for row in mine))
    return rates


def wer_row(run_id: str, a: float, b: float) -> dict[str, Any]:
    """The comparison that carries the verdict."""
    d = b - a
    return comparison(
        run_id, "wer", "fraction", a, b, ci_low=d - 0.032, ci_high=d + 0.032, confidence=0.95, margin=0.005,
        p_value=0.31, method="speaker-clustered t", clusters=8,
        sentence=f"Cannot tell {A} and {B} apart: the WER of {B} is {abs(100 * d):.1f} points "
        f"{'higher' if d > 0 else 'lower'} (95 % interval {100 * d - 3.2:.1f} to {100 * d + 3.2:.1f}), which "
        "reaches beyond the margin of 0.5 points.",
    )  # fmt: skip


def sample_run(run_id: str = "9c1e7a40b2d5-1", clip_count: int = 60) -> RunData:
    """A whole run: 60 clips of eight speakers, one failure, retries, quarantine, a broken rule."""
    rng = random.Random(5)
    clips, outcomes, words, operations = [], [], [], []
    for i in range(clip_count):
        reference = [rng.choice(DIGITS) for _ in range(rng.randint(3, 9))]
        noise = rng.choice([5, 10, 20])
        clip = {
            "run_id": run_id, "clip_id": f"{i:04x}" * 16, "key": f"test-{i:03d}", "dataset": "digits",
            "seconds": 0.5 * len(reference) + rng.random(), "reference": " ".join(reference),
            "speaker": f"s{i % 8}", "slices": json.dumps({"noise": noise, "accent": rng.choice(["de", "en", "fr"])}),
        }  # fmt: skip
        clips.append(clip)
        for arm, rate in (("a", 0.045), ("b", 0.05)):
            aligned = transcribe(reference, rate * (1 + 10 / noise), rng)
            words += [{"run_id": run_id, "arm": arm, "clip_id": clip["clip_id"], **word} for word in aligned]
            outcomes.append(outcome(run_id, arm, clip, aligned))
        operations += [
            {
                "run_id": run_id, "arm": arm, "pass": "latency", "call": f"{i}-{repeat}", "clip_id": clip["clip_id"],
                "audio_seconds": clip["seconds"], "status": "ok",
                "wall_seconds": base + 0.004 * clip["seconds"] + rng.expovariate(300),
            }
            for arm, base in (("a", 0.031), ("b", 0.022)) for repeat in range(2)
        ]  # fmt: skip
    outcomes[-1] |= {
        "status": "failed", "hypothesis": None, "error_category": "deadline", "error_code": "deadline",
        "error_message": "No answer within 31.2 s; the worker was killed.",
    }  # fmt: skip
    words = [w for w in words if (w["arm"], w["clip_id"]) != ("b", clips[-1]["clip_id"])]
    timing = {"confidence": 0.95, "method": "bootstrap", "clusters": 40, "verdict": "b better", "p_value": 0.0001}
    rows = [
        wer_row(run_id, *pair_wer(outcomes)),
        comparison(run_id, "cer", "fraction", 0.0512, 0.0561, ci_low=-0.004, ci_high=0.0138, confidence=0.95),
        comparison(run_id, "latency_p50", "ms", 49.4, 40.1, ci_low=-10.2, ci_high=-8.6, **timing),
        comparison(run_id, "latency_p95", "ms", 61.2, 52.7, ci_low=-12.9, ci_high=-3.2, **timing),
        comparison(run_id, "rtfx", "audio seconds per second", 81.5, 104.9),
        comparison(run_id, "peak_rss_mb", "MB", 1412.0, 1188.0),
        comparison(run_id, "failures", "clips", 0.0, 1.0),
    ]
    attempts = [
        {
            "run_id": run_id, "arm": "b", "call": "batch-07", "attempt": n, "worker_pid": 4100 + n, "retryable": n < 3,
            "at": STARTED + timedelta(seconds=70 * n), "category": "deadline", "code": "deadline",
            "message": "No answer within 31.2 s; the worker was killed.", "action": "retry" if n < 3 else "split",
        }
        for n in (1, 2, 3)
    ]  # fmt: skip
    quality = [
        {
            "run_id": run_id, "suite": "outcomes", "subject": f"batch-0{n}, arm b", "rule": rule, "severity": "warning",
            "status": status, "evaluated": 16, "unexpected": bad, "observed": f"{bad} of 16 rows",
            "reason": "An answer far longer than its audio is a model talking to itself.",
        }
        for n, rule, status, bad in (
            (1, "text-length-plausible", "fail", 2), (2, "text-length-plausible", "fail", 1),
            (1, "confidence-in-range", "pass", 0), (2, "confidence-in-range", "not evaluated", 0),
        )
    ]  # fmt: skip
    quarantine = [
        {
            "run_id": run_id, "key": key, "stage": "audio", "category": "audio", "code": code, "severity": "warning",
            "message": message, "hint": "Record it again or take it out of the manifest.",
        }
        for key, code, message in (
            ("test-901", "too-short", "test-901 lasts 0.02 s; the least is 0.05 s."),
            ("test-902", "silent", "test-902 is silent: its level is -71 dBFS."),
            ("test-903", "silent", "test-903 is silent: its level is -68 dBFS."),
        )
    ]  # fmt: skip
    models = [
        {
            "run_id": run_id, "arm": arm, "model": name, "revision": f"{arm}41f09cc2e7713d52", "adapter": "wav2vec2",
            "parameters": 841_472, "feature_dim": 128, "rung": rung, "licence": "Apache-2.0", "load_seconds": 2.31,
        }
        for arm, name, rung in (("a", A, "fp32/cpu"), ("b", B, "int8/cpu"))
    ]  # fmt: skip
    runs = [
        {
            "run_id": run_id, "state": state, "flow": "compare", "run_key": run_id[:12], "ordinal": 1, "at": at,
            "dataset": "digits", "dataset_fingerprint": "51d2f0", "arm_a": A, "arm_b": B,
            "options": json.dumps({"normalizer": "basic", "batch": {"clips": 64, "seconds": 60.0}, "seed": 7}),
            "versions": json.dumps({"grym": "0.1.0", "polars": "2.1.0", "torch": "2.11.0"}),
            "hardware": json.dumps({"processor": "x86-64", "cores": 2, "memory_gb": 7.8, "accelerator": None}),
            "flow_run_id": "0d0d5b0e-3f9c-4c1a-8d53-1f1f9f6a1c11",
        }
        for state, at in (("started", STARTED), ("finished", STARTED + timedelta(minutes=4, seconds=12)))
    ]  # fmt: skip
    tables = {
        "runs": runs, "clips": clips, "models": models, "outcomes": outcomes, "words": words, "operations": operations,
        "attempts": attempts, "quality": quality, "comparisons": rows, "quarantine": quarantine,
    }  # fmt: skip
    return RunData(run_id, {name: frame(name, rows) for name, rows in tables.items()})


def sample_history(data: RunData) -> pl.DataFrame:
    """Five earlier runs of the pair, one of another pair, and the run itself."""
    rows = [
        wer_row(f"earlier-{i}", 0.12 - 0.004 * i, 0.123 - 0.001 * i) | {"at": STARTED - timedelta(days=7 * (5 - i))}
        for i in range(5)
    ]
    other = wer_row("other-pair", 0.5, 0.6) | {"arm_b": "other", "at": STARTED}
    mine = data.table("comparisons").filter(pl.col("metric") == "wer").to_dicts()[0] | {"at": STARTED}
    return pl.DataFrame([*rows, other, mine], infer_schema_length=None).with_columns(dataset=pl.lit("digits"))


def sample_audio(clip_id: str) -> bytes:
    """A falling tone as WAV; another pitch for every clip."""
    time = np.arange(8_000) / 8_000
    tone = 0.4 * np.sin(2 * np.pi * (200 + int(clip_id[:4], 16)) * time) * np.exp(-3 * time)
    file = io.BytesIO()
    soundfile.write(file, tone.astype(np.float32), 8_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.fixture(scope="module")
def data() -> RunData:
    """The invented run."""
    return sample_run()


@pytest.fixture(scope="module")
def page(data: RunData, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The invented run's page."""
    out = tmp_path_factory.mktemp("reports") / "run.html"
    render.render_run(data, sample_history(data), out, audio=sample_audio, data_docs="datadocs/index.html")
    return out.read_text(encoding="utf-8")


def answered(arm: str, clip_id: str, **counts: int) -> dict[str, Any]:
    """A minimal answered clip."""
    base = {"run_id": "r", "arm": arm, "clip_id": clip_id, "status": "ok", "reference_words": 4, "hypothesis": "x"}
    return base | {"substitutions": 0, "deletions": 0, "insertions": 0} | counts


def test_conform_fills_columns_that_an_older_file_lacks():
    """Rows of an older version get every column, and empty columns get their type."""
    old = pl.DataFrame({"run_id": ["r"], "at": [None], "extra": [1]})
    full = frames.conform(old, "runs")
    assert {c.name for c in TABLES["runs"].columns} <= set(full.columns)
    assert full.schema["at"] == pl.Datetime("us", "UTC")
    assert full.schema["ordinal"] == pl.Int64
    assert full["extra"].to_list() == [1]
    assert frames.conform(None, "clips").height == 0


def test_pairs_leave_out_clips_one_arm_failed(data):
    """A clip that only one arm answered counts for neither arm."""
    pairs = frames.paired(data)
    assert pairs.height == 59
    assert "test-059" not in pairs["key"].to_list()
    totals = frames.edit_totals(data)
    assert sum(b for _, b in totals.values()) == pairs["errors_b"].sum() > 0


def test_slices_count_words_not_clips():
    """WER of a slice is errors over words, numeric values stand in numeric order, and an unknown speaker is none."""
    clips = [
        {"run_id": "r", "clip_id": str(i), "key": str(i), "speaker": "", "slices": json.dumps({"noise": noise})}
        for i, noise in enumerate([10, 10, 5])
    ]
    outcomes = [
        answered("a", "0", substitutions=1), answered("a", "1"), answered("a", "2"),
        answered("b", "0", reference_words=4, deletions=2), answered("b", "1", insertions=1), answered("b", "2"),
    ]  # fmt: skip
    run = RunData("r", {"clips": pl.DataFrame(clips), "outcomes": pl.DataFrame(outcomes)})
    rows = slices.slices(run).to_dicts()
    assert [(r["slice"], r["value"], r["clips"], r["words"]) for r in rows] == [
        ("noise", "5", 1, 4),
        ("noise", "10", 2, 8),
    ]
    assert rows[1]["wer_a"] == pytest.approx(1 / 8)
    assert rows[1]["wer_b"] == pytest.approx(3 / 8)
    assert rows[1]["difference"] == pytest.approx(2 / 8)


def test_confusions_count_each_arm(data):
    """Each kind of error is counted per arm, the most frequent first, and limited."""
    counted = frames.confusions(data, limit=5)
    assert counted.height == 5
    top = [max(r["a"], r["b"]) for r in counted.to_dicts()]
    assert top == sorted(top, reverse=True)
    first = counted.to_dicts()[0]
    words = data.table("words").join(frames.paired(data), on="clip_id", how="semi")
    same = words.filter((pl.col("reference") == first["reference"]) & (pl.col("hypothesis") == first["hypothesis"]))
    assert first["a"] == same.filter(pl.col("arm") == "a").height


def test_latency_is_the_latency_pass_in_milliseconds():
    """Warm-up, throughput and failed calls are no latencies."""
    rows = [
        {
            "run_id": "r",
            "arm": "a",
            "pass": name,
            "call": str(i),
            "status": status,
            "wall_seconds": 0.05,
            "audio_seconds": 2.0,
        }
        for i, (name, status) in enumerate(
            [("latency", "ok"), ("latency", "failed"), ("warmup", "ok"), ("throughput", "ok")]
        )
    ]
    assert frames.latencies(RunData("r", {"operations": pl.DataFrame(rows)}))["ms"].to_list() == [50.0]


def test_failures_rules_and_quarantine_are_grouped(data):
    """What went wrong is counted by reason."""
    assert frames.failures(data).to_dicts()[0] | {"error_message": ""} == {
        "arm": "b", "status": "failed", "error_category": "deadline", "error_code": "deadline", "clips": 1,
        "error_message": "",
    }  # fmt: skip
    rules = {(r["rule"], r["status"]): (r["batches"], r["unexpected"]) for r in frames.broken_rules(data).to_dicts()}
    assert rules == {("text-length-plausible", "fail"): (2, 3), ("confidence-in-range", "not evaluated"): (1, 0)}
    assert [(r["code"], r["rows"]) for r in frames.quarantine_counts(data).to_dicts()] == [
        ("silent", 2),
        ("too-short", 1),
    ]


def test_trend_follows_the_same_pair_and_dataset(data):
    """Other pairs and data sets are left out; runs are in order of time."""
    history = sample_history(data)
    followed = trend.trend(history, data)
    assert followed["run_id"].to_list() == [*(f"earlier-{i}" for i in range(5)), data.run_id]
    assert trend.trend(history.with_columns(dataset=pl.lit("other")), data).height == 0
    assert trend.trend(history.drop("dataset"), data).height == 6
    assert trend.trend(history.drop("at"), data).height == 0


def test_facts_survive_a_run_without_rows():
    """An empty run has names, no times and no options."""
    known = frames.facts(RunData("r", {}))
    assert (known.labels, known.started, known.options) == (("A", "B"), None, {})


def test_numbers_are_set_as_in_print():
    """True minus, thin spaces, no negative zero, a dash for what is missing."""
    assert formats.number(-1234567.891, 1) == "\N{MINUS SIGN}1\u202f234\u202f567.9"
    assert formats.number(-0.001, 2, signed=True) == "0.00"
    assert formats.number(None) == formats.number(float("nan")) == formats.MISSING
    assert formats.percent(0.0412) == "4.12"
    assert formats.interval(None, 1.0, 2) == formats.MISSING
    assert formats.moment(STARTED) == "20 Nov 2026, 09:05 UTC"
    assert formats.moment(None) == formats.duration(None, STARTED) == formats.MISSING
    assert formats.duration(STARTED, STARTED + timedelta(seconds=1.25)) == "1.2 s"
    assert formats.duration(STARTED, STARTED + timedelta(days=2)) == "2.0 days"
    assert formats.count(1, "try", "tries") + formats.count(2, "try", "tries") == "1 try2 tries"


def test_settings_are_shown_flat_and_never_hidden():
    """Nested JSON becomes dotted names; text that is no object is kept as it is."""
    assert formats.flat(formats.read_json('{"a": {"b": [1, 2]}, "c": null}')) == {"a.b": "1, 2", "c": formats.MISSING}
    assert formats.read_json("not json") == {"": "not json"}
    assert formats.read_json("[1]") == {"": "[1]"}
    assert formats.typeset(None) == ""


def test_rates_are_per_cent_and_seconds_are_milliseconds():
    """Stored units become the units people read, and an unknown metric keeps its own."""
    row = {"metric": "latency_p50", "unit": "s", "a": 0.05}
    assert metrics.scaled(row, "a") == pytest.approx(50)
    table = pl.DataFrame([comparison("r", "wer", "fraction", 0.04, 0.05), comparison("r", "speed", "m/s", 2.0, 3.0)])
    rows = {row.key: row for row in metrics.metric_rows(RunData("r", {"comparisons": table}))}
    assert (rows["wer"].a, rows["wer"].difference, rows["wer"].change) == ("4.00", "+1.00", "+25.0")
    assert (rows["speed"].title, rows["speed"].b) == ("speed (m/s)", "3.00")
    assert rows["insertions"].change == formats.MISSING


def test_a_number_seen_once_has_no_verdict(data):
    """Only a metric with an interval shows a verdict."""
    shown = {row.key: row.verdict.text for row in metrics.metric_rows(data)}
    assert shown["latency_p50"] == f"{B} is better"
    assert shown["wer"] == "Cannot tell"
    assert shown["rtfx"] == shown["peak_rss_mb"] == shown["substitutions"] == ""


def test_alignments_of_both_arms_share_columns():
    """Words added by one arm open a column that the other leaves empty."""
    a = [("ok", "one", "one"), ("ins", "", "oh"), ("del", "two", "")]
    b = [("sub", "one", "on"), ("ok", "two", "two"), ("ins", "", "and")]
    rows = [[{"operation": o, "reference": r, "hypothesis": h} for o, r, h in arm] for arm in (a, b)]
    found = [(p.reference, *((c.operation, c.text) for c in p.cells)) for p in align(rows)]
    assert found == [
        ("one", ("ok", "one"), ("sub", "on")),
        ("", ("ins", "oh"), ("gap", "")),
        ("two", ("del", ""), ("ok", "two")),
        ("", ("gap", ""), ("ins", "and")),
    ]
    assert align([]) == ()
    assert [p.cells[1].operation for p in align([rows[0], rows[1][:1]])] == ["sub", "gap", "gap"]
    assert describe(rows[0]) == "“oh” added, “two” missing"
    assert describe([]) == "all words right"


def test_worst_clips_come_first_and_respect_the_limit_for_sound(data):
    """Most errors first; sounds stop when their URIs have used up the room."""
    one = len(sound(sample_audio("0" * 64)).uri)
    views = worst_clips(data, limit=4, audio=sample_audio, audio_limit=2 * one)
    most = [max(a.errors or 0 for a in view.answers) for view in views]
    assert len(views) == 4
    assert most == sorted(most, reverse=True)
    assert most[0] > 0
    assert [view.sound is not None for view in views] == [True, True, False, False]
    assert all(view.sound is None for view in worst_clips(data, limit=2, audio=lambda _: None))


def test_a_clip_that_one_arm_failed_says_why():
    """The failing arm shows its reason, the other its alignment."""
    outcomes = [
        answered("a", "c", substitutions=1),
        {"run_id": "r", "arm": "b", "clip_id": "c", "status": "held", "error_message": "Too long."},
    ]
    words = [
        {
            "run_id": "r",
            "arm": "a",
            "clip_id": "c",
            "position": 0,
            "operation": "sub",
            "reference": "x",
            "hypothesis": "y",
        }
    ]
    tables = {"outcomes": pl.DataFrame(outcomes, infer_schema_length=None), "words": pl.DataFrame(words)}
    view = worst_clips(RunData("r", tables))[0]
    assert (view.key, view.answers[0].errors, view.answers[1].summary) == ("c", 1, "no answer: Too long.")
    assert len(view.positions[0].cells) == 1


def test_sound_knows_formats_and_draws_a_waveform():
    """A browser's formats become data URIs; anything else is left out; broken audio has no waveform."""
    heard = sound(sample_audio("0" * 64))
    assert heard.uri.startswith("data:audio/wav;base64,")
    assert heard.outline.startswith("M0 ")
    assert heard.outline.endswith("Z")
    assert sound(b"plain text") is None
    assert sound(b"OggS broken").outline == ""
    empty = io.BytesIO()
    soundfile.write(empty, np.zeros(0, np.float32), 8_000, format="WAV")
    assert outline(empty.getvalue()) == ""


def test_charts_carry_no_address_no_font_and_a_label(data):
    """SVG is fit for a page: coloured by variables, labelled, without namespaces or fixed size."""
    found = slice_charts.slice_panels(slices.slices(data), (A, B), margin=0.005)
    assert [name for name, _ in found] == ["accent", "noise", "speaker"]
    for panel in [drawings[0] for _, drawings in found]:
        assert panel.svg.startswith("<svg viewBox=")
        assert 'role="img"' in panel.svg
        assert f"{A} and {B}" in panel.svg
        assert "var(--arm-a)" in panel.svg
        assert not re.search(r"xmlns|https?:|font-family|<svg[^>]* width=", panel.svg)


def test_charts_escape_names_from_data():
    """A slice that looks like markup is drawn as text."""
    rows = {
        "slice": [EVIL],
        "value": [EVIL],
        "clips": [1],
        "words": [4],
        "wer_a": [0.1],
        "wer_b": [0.2],
        "difference": [0.1],
        "low": [-0.1],
        "high": [0.3],
        "p_value": [0.5],
        "stands_out": [False],
    }
    [(_, drawings)] = slice_charts.slice_panels(pl.DataFrame(rows), (EVIL, 'b"\\1'))
    for panel in drawings:
        assert EVIL not in panel.svg
        assert html.escape(EVIL) in panel.svg


def test_charts_leave_out_what_is_not_known():
    """Without figures there is no chart; many values are cut to those with the most words."""
    none = {"difference": None, "low": None, "high": None, "margin": None}
    assert charts.difference(none, (A, B)) == []
    bare = charts.difference(none | {"difference": 1.0}, (A, B))
    assert [chart.kind for chart in bare] == ["wide", "narrow"]
    assert "interval" not in bare[0].svg
    assert charts.bars("x", "s", (None, None), (A, B), 1) is None
    assert charts.bars("x", "s", (1.0, None), (A, B), 1) is not None
    rows = [
        {
            "slice": "s", "value": f"v{i:02d}", "clips": 1, "words": i + 1, "wer_a": 0.1, "wer_b": 0.2,
            "difference": 0.1, "low": 0.0, "high": 0.2, "p_value": 0.5, "stands_out": False,
        }
        for i in range(5)
    ]  # fmt: skip
    [(_, [cut, _])] = slice_charts.slice_panels(pl.DataFrame(rows), (A, B), limit=2)
    assert cut.note.startswith("2 of 5")
    assert "v04" in cut.svg
    assert "v00" not in cut.svg


def test_the_page_loads_nothing(page):
    """One file: no address of another place, no script, a policy that forbids requests."""
    assert not re.search(r"https?://", page)
    assert not re.search(r"<script|@import|<link(?! rel=\"icon\" href=\"data:,\")", page)
    assert "default-src 'none'" in page
    assert not re.search(r"\bsrc=\"(?!data:)", page)


def test_the_page_has_every_part_in_order(page):
    """Headings go down one level at a time, and the parts come in the order a reader asks."""
    parts = re.findall(r'<h2 id="([a-z]+)"', page)
    assert parts == [
        "difference", "firm", "arms", "blame", "slices", "latency", "resources", "kinds", "classes", "radar", "clips",
        "failures", "quality", "quarantine", "trend", "details",
    ]  # fmt: skip
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert '<html lang="en">' in page
    assert f"<title>{A} against {B} on digits</title>" in page
    assert re.findall(r"<th(?![^>]*\bscope=)[ >]", page) == []
    assert len(re.findall(r"<svg(?![^>]*aria-label=)", page)) == 0


def test_the_page_can_be_walked_without_eyes_or_mouse(page):
    """Landmarks, a way past the navigation, labels on players and waveforms, and boxes that a keyboard can scroll."""
    for landmark in ("header", "nav aria-label", 'main id="main"', "footer"):
        assert page.count(f"<{landmark}") == 1
    assert page.index('class="skip" href="#main"') < page.index("<header>")
    headings = re.findall(r'<h2 id="([a-z]+)"', page)
    assert re.findall(r'<section aria-labelledby="([a-z]+)"', page) == headings
    assert re.findall(r'<div class="scroll"(?! role="region" aria-label="[^"]+" tabindex="0")', page) == []
    assert re.findall(r"<audio(?![^>]*aria-label=)", page) == []
    assert page.count('<div class="align" aria-hidden="true">') == page.count('class="clip"')
    assert page.count("<caption>") >= 6


def luminance(color: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_colour_can_be_read_on_its_ground(page):
    """At least 4.5 to 1 by day and by night, on the paper, on raised ground, and for marks on their own ground."""
    palettes = [dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block)) for block in page.split("@media")[:2]]
    assert palettes[0]["paper"] != palettes[1]["paper"]
    for colors in palettes:
        grounds = dict.fromkeys(("ink", "ink-2", "arm-a", "arm-b", "link", "sub", "del", "ins"), ("paper", "raised"))
        grounds |= {name: (f"{name}-bg", "paper") for name in ("sub", "del", "ins")}
        for text, backs in grounds.items():
            for back in backs:
                low, high = sorted(luminance(colors[name]) for name in (text, back))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, back)


def test_earlier_runs_are_listed_and_linked_if_their_page_exists(data, tmp_path):
    """The table over time has every run of the pair, newest first, with what is new, and no dead link."""
    (tmp_path / "earlier-3.html").write_text("a page", encoding="utf-8")
    models = [
        {"run_id": f"earlier-{i}", "arm": arm, "revision": "old" if i < 2 else f"new-{arm}"}
        for i in range(5)
        for arm in ("a", "b")
    ]
    past = sample_history(data).drop("dataset", "at")
    started = {row["run_id"]: row["at"] for row in sample_history(data).to_dicts()}
    runs = [{"run_id": run, "state": "started", "at": at, "dataset": "digits"} for run, at in started.items()]
    joined = trend.history(past, pl.DataFrame(runs), pl.DataFrame(models))
    text = render.render_run(data, joined, tmp_path / "now.html").read_text(encoding="utf-8")
    part = text[text.index('<h2 id="trend"') : text.index('<h2 id="details"')]
    assert "6 runs of this pair" in part
    assert re.findall(r'href="([^"#]+)"', part) == ["earlier-3.html"]
    assert part.index("this run") < part.index("earlier-3.html")
    assert part.count("the first model, the second model") == 1
    assert part.count("first run") == 1


def test_a_huge_run_still_makes_a_page_within_its_limit(data, tmp_path):
    """Long answers, many slices and large sounds are cut, and the page says what it left out."""
    rng = random.Random(3)
    clips = data.table("clips").with_columns(
        slices=pl.Series(
            [json.dumps({f"column-{c}": f"{rng.randrange(40)}x" * 99 for c in range(2)}) for _ in range(60)]
        ),
        reference=pl.lit("word " * 1_500),
    )
    long = [
        {"run_id": data.run_id, "arm": arm, "clip_id": clips["clip_id"][i], **word}
        for i in range(3)
        for arm, rate in (("a", 0.3), ("b", 0.5))
        for word in transcribe(["four"] * 600, rate, rng)
    ]
    outcomes = data.table("outcomes").with_columns(
        hypothesis=pl.lit("word " * 1_500),
        substitutions=pl.when(pl.col("clip_id").is_in(clips["clip_id"].head(3).to_list()))
        .then(500)
        .otherwise("substitutions"),
    )
    noise = np.random.default_rng(1).integers(-9_999, 9_999, 500_000).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, noise, 16_000, format="WAV", subtype="PCM_16")
    huge = RunData(data.run_id, {**data.tables, "clips": clips, "outcomes": outcomes, "words": pl.DataFrame(long)})
    out = render.render_run(huge, sample_history(data), tmp_path / "huge.html", audio=lambda _: file.getvalue())
    text = out.read_text(encoding="utf-8")
    assert 2_500_000 < out.stat().st_size < render.PAGE_LIMIT
    assert "never larger than 5.0 MB" in text
    assert text.count("<audio") == 2
    assert text.count("it would not fit into the room that a page has for sound") == 10
    assert "column-1" in text
    assert "values with the most words of" in text
    assert re.search(r"… \d+ words …", text)
    assert "word " * 300 not in text


def test_ids_are_unique_and_links_within_the_page_lead_somewhere(page):
    """Charts in one page do not share ids."""
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in re.findall(r'href="(#[^"]+)"', page)} <= set(ids)


def test_the_page_says_what_was_measured(page, data):
    """The sentence, the reasons and the command are on the page."""
    assert formats.typeset(data.comparison("wer")["sentence"]) in page
    assert 'href="datadocs/index.html"' in page
    assert f"python -m flows compare --a {A} --b {B} --dataset digits --new" in page
    for text in (
        "test-901 lasts 0.02 s",
        "No answer within 31.2 s",
        "talking to itself",
        "basic/1/3fa9c2",
        "841\u202f472",
    ):
        assert text in page
    assert page.count("data:audio/wav") == 12


def test_the_command_is_what_was_typed(data):
    """A manifest is repeated by its path, quoted for the shell, and a model by its name in grym.toml."""
    typed = {"a": "first", "b": "second", "dataset": "my clips/test.csv", "seed": 7}
    runs = data.table("runs").with_columns(options=pl.lit(json.dumps(typed)), dataset=pl.lit("test"))
    asked = frames.asked(RunData(data.run_id, {**data.tables, "runs": runs}))
    command = "python -m flows compare --a first --b second --dataset 'my clips/test.csv' --new"
    assert render.repeat_command(asked) == command


def test_a_clip_sounds_like_its_span_and_nothing_else(tmp_path):
    """Only the span is encoded, at the rate of the comparison, with loud samples kept from wrapping around."""
    rng = np.random.default_rng(1)
    samples = np.clip(0.5 * rng.standard_normal(60 * 8_000), -1, 1).astype(np.float32)
    path = tmp_path / "hour.wav"
    soundfile.write(path, samples, 8_000, subtype="FLOAT")
    limits = AudioLimits(rate=8_000)
    entry = Entry("c", path, path.name, "one", offset=30.0, duration=2.0)
    clip, _ = decode(path, limits, offset=30.0, duration=2.0)
    content = clip_audio(limits, {clip.id: entry})(clip.id)
    heard, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert content.startswith(b"fLaC")
    assert rate == 8_000
    assert np.abs(heard - samples[240_000:256_000]).max() < 1e-4
    assert sound(content).uri.startswith("data:audio/flac;base64,")


def test_a_clip_that_cannot_be_heard_has_no_sound(tmp_path):
    """Unknown, gone, changed, or too long for a page: no bytes, no error."""
    tone = np.sin(np.arange(130 * 4_000)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", tone, 4_000)
    soundfile.write(tmp_path / "short.wav", tone[:4_000], 4_000)
    limits = AudioLimits(rate=4_000)
    clips = {name: decode(tmp_path / f"{name}.wav", limits)[0].id for name in ("long", "short")}
    audio = clip_audio(
        limits,
        {
            clips["long"]: Entry("long", tmp_path / "long.wav", "long.wav", "one"),
            clips["short"]: Entry("short", tmp_path / "short.wav", "short.wav", "one"),
            "changed": Entry("short", tmp_path / "short.wav", "short.wav", "one"),
            "gone": Entry("gone", tmp_path / "gone.wav", "gone.wav", "one"),
        },
    )
    assert audio(clips["short"])
    assert [audio(clip) for clip in ("unknown", "gone", "changed", clips["long"])] == [None] * 4


def test_text_from_data_is_shown_not_run(data, tmp_path):
    """A hypothesis, a name or an error that holds markup stays text everywhere."""
    tables = dict(data.tables)
    for table, columns in {
        "outcomes": ["hypothesis", "error_message"], "words": ["hypothesis"], "clips": ["key", "speaker", "reference"],
        "quarantine": ["key", "message", "hint"], "quality": ["reason", "observed"], "attempts": ["message"],
        "comparisons": ["arm_a", "sentence"], "runs": ["arm_a", "dataset", "options"],
    }.items():  # fmt: skip
        tables[table] = tables[table].with_columns(pl.lit(EVIL).alias(column) for column in columns)
    out = render.render_run(RunData(data.run_id, tables), frames.conform(None, "comparisons"), tmp_path / "evil.html")
    text = out.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 20


def test_a_run_with_nothing_still_has_a_page(tmp_path):
    """Every part says that there is nothing instead of failing."""
    out = render.render_run(RunData("r", {}), pl.DataFrame(), tmp_path / "deep" / "r.html", command="make it again")
    text = out.read_text(encoding="utf-8")
    for sentence in (
        "no verdict",
        "No difference could be measured",
        "no latency pass",
        "make it again",
        "Nothing was put",
    ):
        assert sentence in text
    assert [path.name for path in out.parent.iterdir()] == ["r.html"]


def test_a_page_that_cannot_be_written_is_a_storage_error(tmp_path):
    """A file where the folder should be is named with a hint, and nothing half-written stays."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError) as caught:
        render_index(pl.DataFrame(), pl.DataFrame(), tmp_path / "file" / "index.html")
    assert caught.value.code == "report-not-written"
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(StorageError):
        render_index(pl.DataFrame(), pl.DataFrame(), tmp_path / "taken.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.html"]


def test_the_index_lists_runs_newest_first(data, tmp_path):
    """Each run has its figures and a link; one without a comparison has neither."""
    runs = [
        {
            "run_id": run, "state": state, "flow": flow, "at": STARTED + timedelta(hours=hour), "dataset": "digits",
            "arm_a": A, "arm_b": B,
        }
        for run, state, flow, hour in (
            ("old-1", "started", "compare", 0), ("old-1", "finished", "compare", 9), ("new-1", "started", "compare", 2),
            ("empty-1", "started", "compare", 1), ("empty-1", "finished", "compare", 3),
            ("else-1", "started", "train", 4),
        )
    ]  # fmt: skip
    compared = pl.DataFrame([wer_row("old-1", 0.05, 0.06)])
    past = trend.history(compared, pl.DataFrame(runs))
    text = render_index(pl.DataFrame(runs), past, tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<code>([^<]+)</code>", text) == ["new-1", "empty-1", "old-1"]
    assert re.findall(r'href="([^"#]+\.html)"', text) == ["old-1.html"]
    assert text.count("<h2") == 1
    assert "3 runs of 1 pair" in text
    assert "5.00" in text
    assert "Not finished" in text
    assert "No verdict" in text
    assert "20 Nov 2026, 09:05 UTC" in text
    nothing = render_index(pl.DataFrame(), pl.DataFrame(), tmp_path / "none.html").read_text(encoding="utf-8")
    assert "No comparison has been run yet" in nothing


def test_artifacts_sum_up_the_run(data):
    """The table has the page's rows, and the Markdown has sentence, table and the place of the report."""
    rows = artifacts.summary_table(data)
    assert {tuple(row) for row in rows} == {("Metric", A, B, "Difference", "Verdict", "Change (%)")}
    assert [row["Metric"] for row in rows][:2] == ["Word error rate (%)", "Substitutions (words)"]
    text = artifacts.summary_markdown(data, report="reports/run.html")
    assert text.startswith("## Cannot tell\n\nCannot tell wav2vec2-mini and")
    assert text.count("\n| ") == len(rows) + 1
    assert re.fullmatch(r"\+\d\.\d\d \(−\d\.\d\d to \+\d\.\d\d\)", rows[0]["Difference"])  # noqa: RUF001 - a true minus
    assert rows[1]["Verdict"] == formats.MISSING
    assert "`reports/run.html`" in text
    for note in (
        "- Dataset digits: 59 clips that both answered.",
        "tested values: none.",
        f"- {B}: 1 clip without an answer (deadline).",
        "- 3 rows in quarantine: 2 silent, 1 too-short.",
        "- 3 evaluations of quality rules did not pass.",
    ):
        assert note in text
    assert "The run before" not in text
    followed = artifacts.summary_markdown(data, report="x", history=sample_history(data))
    assert "- The run before (13 Nov 2026, 09:05 UTC): +1.50 points; new since then: nothing." in followed


def test_artifacts_keep_names_inside_their_cells(data):
    """Pipes, markup and line breaks of a name do not break the table; the arms of an A/A run stay apart."""
    odd = data.table("comparisons").with_columns(arm_a=pl.lit(f"a|b\n{EVIL}"), arm_b=pl.lit(f"a|b\n{EVIL}"))
    run = RunData("r", {"comparisons": odd})
    text = artifacts.summary_markdown(run, report="x")
    assert "<script" not in text
    header = next(line for line in text.splitlines() if line.startswith("| Metric"))
    assert len(re.findall(r"(?<!\\)\|", header)) == 7
    assert "(A)" in header
    assert "(B)" in header
    nothing = artifacts.summary_markdown(RunData("r", {}), report="x")
    assert "no verdict" in nothing
    assert "| Metric" not in nothing
