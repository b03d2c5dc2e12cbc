"""The suites, their strict loader, the gate and the offline pages."""

import html
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from expectations import build_data_docs_from, judge, load_suite, suite_names
from expectations.loader import SUITES
from grym.errors import QualityError, StorageError
from grym.models.interface import Answer, AudioClip, Segment
from grym.quality import (
    Held,
    answers_frame,
    audio_frame,
    description_frame,
    features_frame,
    label_frame,
    response_frame,
    transcription_frame,
)
from grym.store import RunRef, Store

ROOT = Path(__file__).parents[2]
ROWS = 40
BROKEN = 5  # the row that the examples break
NAN = float("nan")
LABELS = ("bell", "rain")


def good_frames():
    """Frames of every suite that break no rule."""
    rng = np.random.default_rng(3)
    ids = [f"clip-{i}" for i in range(ROWS)]
    clips = [AudioClip(name, rng.normal(0, 0.1, 8000).astype(np.float32), 16_000) for name in ids]
    measured = {
        "source_rate": 8000,
        "source_channels": 1,
        "rms_dbfs": -20.0,
        "peak_dbfs": -3.0,
        "clipped_fraction": 0.0,
        "silent_fraction": 0.1,
    }
    segments = (Segment(0.05, 0.2, "one", 0.9), Segment(0.25, 0.45, "two", 0.8))
    call = {"pass": "latency", "wall_seconds": 0.1, "audio_seconds": 0.5, "compute_seconds": 0.09, "status": "ok"}
    return {
        "input_audio": audio_frame(clips, [measured] * ROWS),
        "features": features_frame(ids, rng.normal(size=(ROWS, 8)).astype(np.float32), 8),
        "transcription": transcription_frame(
            [Answer(name, "one two", 0.9, segments) for name in ids], [0.5] * ROWS, charset="enotw "
        ),
        "classification": label_frame(
            [
                Answer(name, LABELS[i % 2], 0.9, scores={LABELS[i % 2]: 0.9, LABELS[1 - i % 2]: 0.1})
                for i, name in enumerate(ids)
            ],
            [0.5] * ROWS,
            LABELS,
        ),
        "descriptions": description_frame(
            [Answer(name, f"Bell {i} rings.", 0.9) for i, name in enumerate(ids)], [5.0] * ROWS
        ),
        "response_time": response_frame([{**call, "call": name} for name in ids]),
    }


def put(**cells):
    """Break one row: these columns get these values there."""

    def change(frame):
        for column, value in cells.items():
            values = list(frame[column])
            values[BROKEN] = value
            frame[column] = values
        return frame

    return change


def fill(column, value):
    """Break the whole frame: every row of the column gets the value."""
    return lambda frame: frame.assign(**{column: value})


def nothing(frame):
    """Break the frame by leaving no row."""
    return frame.iloc[:0]


# Every rule of every suite, with data that breaks it; a rule without an example here fails the test.
BREAKS = {
    ("input_audio", "rows"): nothing,
    ("input_audio", "identity"): put(clip_id=None),
    ("input_audio", "finite"): put(rms_dbfs=NAN),
    ("input_audio", "samples-finite"): put(nonfinite_samples=1),
    ("input_audio", "rate"): put(rate=44_100),
    ("input_audio", "length"): put(seconds=0.01),
    ("input_audio", "not-too-long"): put(seconds=3600.1),
    ("input_audio", "silence"): put(silent_fraction=1.0),
    ("input_audio", "mostly-silent"): put(silent_fraction=0.97),
    ("input_audio", "clipping"): put(clipped_fraction=0.02),
    ("input_audio", "source-rate"): put(source_rate=4000),
    ("input_audio", "level"): put(rms_dbfs=-70.0),
    ("features", "rows"): nothing,
    ("features", "identity"): put(clip_id=None),
    ("features", "finite"): put(norm=NAN),
    ("features", "values-finite"): put(nonfinite_values=1),
    ("features", "dimension"): put(dimension=7),
    ("features", "norm"): put(norm=0.0),
    ("features", "not-constant"): put(spread=0.0),
    ("features", "not-collapsed"): fill("twin_share", 1.0),
    ("features", "twin"): put(twins=1),
    ("transcription", "rows"): nothing,
    ("transcription", "identity"): put(clip_id=None),
    ("transcription", "text"): put(text=None),
    ("transcription", "finite"): put(confidence=NAN),
    ("transcription", "confidence"): put(confidence=1.2),
    ("transcription", "charset"): put(foreign_characters=5),
    ("transcription", "length-ratio"): put(characters_per_second=80.0),
    ("transcription", "rate-of-speech"): put(words_per_second=9.0),
    ("transcription", "segments-inside"): put(segments_outside=1),
    ("transcription", "segments-ordered"): put(segments_unordered=1),
    ("transcription", "segments-complete"): put(segments_unmatched=1),
    ("transcription", "loop"): put(longest_run=9),
    ("transcription", "says-something"): fill("words", 0),
    ("classification", "rows"): nothing,
    ("classification", "identity"): put(clip_id=None),
    ("classification", "label"): put(text=None),
    ("classification", "finite"): put(confidence=NAN),
    ("classification", "confidence"): put(confidence=1.2),
    ("classification", "scores-positive"): put(lowest_score=-0.1),
    ("classification", "scores-sum"): put(score_sum=1.4),
    ("classification", "scores-complete"): put(scores=1),
    ("classification", "known-label"): put(known=0.0),
    ("classification", "tells-apart"): fill("twin_share", 1.0),
    ("descriptions", "rows"): nothing,
    ("descriptions", "identity"): put(clip_id=None),
    ("descriptions", "text"): put(text=None),
    ("descriptions", "finite"): put(confidence=NAN),
    ("descriptions", "confidence"): put(confidence=1.2),
    ("descriptions", "charset"): put(foreign_characters=2),
    ("descriptions", "says-something"): put(empty=1.0),
    ("descriptions", "loop"): put(repetition=1.0),
    ("descriptions", "no-refusal"): put(refusal=1.0),
    ("descriptions", "on-task"): put(wrong_task=1.0),
    ("descriptions", "ends"): put(truncated=1.0),
    ("descriptions", "length"): put(words=500),
    ("descriptions", "tells-apart"): fill("twin_share", 1.0),
    ("response_time", "rows"): nothing,
    ("response_time", "identity"): put(call=None),
    ("response_time", "finite"): put(audio_seconds=NAN),
    ("response_time", "positive-time"): put(wall_seconds=0.0),
    ("response_time", "deadline-misses"): fill("missed", 1.0),
    ("response_time", "deadline"): put(deadline_share=1.5),
    ("response_time", "p95-headroom"): fill("deadline_share", 0.9),
    ("response_time", "real-time"): fill("real_time_factor", 2.0),
    ("response_time", "compute-share"): put(compute_share=1.5),
    ("response_time", "failures"): fill("failed", 1.0),
}
# Rules that cannot be broken without others: an empty frame has no maximum, silence is also mostly silence.
COMPANY = {
    ("features", "rows"): {"not-collapsed"},
    ("transcription", "rows"): {"says-something"},
    ("classification", "rows"): {"tells-apart"},
    ("descriptions", "rows"): {"tells-apart"},
    ("response_time", "rows"): {"deadline-misses", "p95-headroom", "real-time", "failures"},
    ("input_audio", "silence"): {"mostly-silent"},
}


def entries(suite):
    """The rules of a suite as its file holds them."""
    return json.loads((SUITES / f"{suite}.json").read_text(encoding="utf-8"))["expectations"]


ALL_RULES = [(suite, entry["meta"]["rule"]) for suite in suite_names() for entry in entries(suite)]


def judged_columns(suite):
    """Columns with numbers that any rule of the suite looks at."""
    keys = ("column", "column_A", "column_B")
    named = {entry["kwargs"][key] for entry in entries(suite) for key in keys if key in entry["kwargs"]}
    return sorted(named - {"clip_id", "text", "call"})


def rule(**changes):
    """One complete rule of a suite file."""
    whole = {
        "type": "expect_table_row_count_to_be_between",
        "kwargs": {"min_value": 1},
        "meta": {"rule": "rows"},
        "notes": "An empty frame says nothing.",
        "severity": "critical",
    }
    return {**whole, **changes}


def write(folder, *rules, **changes):
    """A suite file named s, and its folder."""
    body = {"name": "s", "expectations": list(rules), "meta": {}, **changes}
    (folder / "s.json").write_text(json.dumps(body), encoding="utf-8")
    return folder


@pytest.fixture
def frames():
    """Fresh frames that break no rule."""
    return good_frames()


@pytest.mark.parametrize("suite", suite_names())
def test_good_data_passes_every_rule(suite, frames):
    """Each shipped suite lets good data through, and every one of its rules was evaluated."""
    judged = judge(suite, frames[suite], "good")
    assert judged.failures() == ()
    assert judged.passed
    assert [r.rule for r in judged.results] == [name for owner, name in ALL_RULES if owner == suite]
    assert all(r.evaluated == ROWS for r in judged.results)
    assert judged.judged == ROWS


@pytest.mark.parametrize(("suite", "name"), ALL_RULES)
def test_each_rule_fails_on_data_that_breaks_it(suite, name, frames):
    """Exactly the broken rule fails, it names the broken row, and its severity decides what follows."""
    judged = judge(suite, BREAKS[suite, name](frames[suite]), "broken")
    failed = {r.rule: r for r in judged.failures()}
    assert set(failed) == {name} | COMPANY.get((suite, name), set())
    result = failed[name]
    assert result.status == "fail"
    assert result.unexpected >= 1
    critical = result.severity == "critical"
    assert judged.passed is not critical
    assert result.rows in {(BROKEN,), ()}
    assert judged.held_rows == ({BROKEN: Held(name, result.reason)} if critical and result.rows else {})
    assert judged.usable is (not critical or bool(result.rows))


def test_every_example_belongs_to_a_rule():
    """No example is left over from a rule that is gone."""
    assert set(BREAKS) == set(ALL_RULES)


@pytest.mark.parametrize("suite", suite_names())
def test_finite_covers_every_judged_number(suite, frames):
    """NaN passes a range, so the finite rule lists every number that any rule looks at."""
    listed = next(entry for entry in entries(suite) if entry["meta"]["rule"] == "finite")["kwargs"]["column_list"]
    assert set(judged_columns(suite)) <= set(listed) <= set(frames[suite].columns)


@pytest.mark.parametrize("value", [NAN, float("inf"), float("-inf"), None])
@pytest.mark.parametrize("suite", suite_names())
def test_what_is_not_finite_never_passes(suite, value, frames):
    """NaN, infinity and a missing value in each judged column hold exactly that row."""
    frame = frames[suite]
    for position, column in enumerate(judged_columns(suite)):
        values = list(frame[column])
        values[position] = value
        frame[column] = values
    judged = judge(suite, frame, "not finite")
    finite = next(r for r in judged.results if r.rule == "finite")
    assert finite.status == "fail"
    assert finite.rows == tuple(range(len(judged_columns(suite))))
    assert not judged.passed


@pytest.mark.parametrize("suite", suite_names())
def test_a_missing_column_is_not_evaluated_and_fails(suite, frames):
    """A rule whose column is missing could not run, whatever its severity, and the gate says no."""
    for column in judged_columns(suite)[-2:]:
        judged = judge(suite, frames[suite].drop(columns=column), "missing")
        lost = [r for r in judged.results if r.status == "not evaluated"]
        assert {"finite"} < {r.rule for r in lost}
        assert all(column in r.observed and r.evaluated == 0 and r.critical for r in lost)
        assert not judged.usable
        with pytest.raises(QualityError, match="not evaluated"):
            judged.require()


def test_a_column_of_the_wrong_kind_is_not_evaluated(frames):
    """Text where numbers belong is a rule that could not run."""
    judged = judge("features", frames["features"].assign(norm="much"), "text")
    assert {r.rule for r in judged.results if r.status == "not evaluated"} == {"finite", "norm"}
    assert not judged.usable


def test_a_rule_without_a_result_is_not_evaluated(frames):
    """The gate counts: a rule of the suite that the library did not answer fails the gate."""
    suite = load_suite("features")
    ghost = replace(suite.rules[0], name="ghost", severity="info")
    suite.expectations.expectations.append(suite.expectations.expectations[0])
    judged = judge(replace(suite, rules=(*suite.rules, ghost)), frames["features"], "ghost")
    result = judged.results[-1]
    assert (result.rule, result.status, result.observed) == ("ghost", "not evaluated", "the rule gave no result")
    assert not judged.usable


def test_several_broken_rows_are_held_whatever_the_index(frames):
    """Held positions count rows from 0, even if the frame has an index of its own."""
    frame = frames["transcription"]
    frame.loc[[3, 20], "confidence"] = [NAN, 1.5]
    frame.loc[[20, 31], "segments_outside"] = 1
    frame.index = range(900, 900 + ROWS)
    judged = judge("transcription", frame, "rows")
    assert {row: held.rule for row, held in judged.held_rows.items()} == {
        3: "finite",
        20: "confidence",
        31: "segments-inside",
    }
    assert frame.index[0] == 900


def test_the_limits_of_clips_are_those_of_the_settings():
    """Another rate and other lengths in grym.toml move the gate along; rounding to a sample breaks no limit."""
    measured = {"source_rate": 8000, "source_channels": 1, "rms_dbfs": -20.0, "peak_dbfs": -3.0}
    measured |= {"clipped_fraction": 0.0, "silent_fraction": 0.1}
    clips = [AudioClip(str(size), np.ones(size, np.float32), 8_000) for size in (158, 159, 160, 16_001, 16_002)]
    limits = {"rate": 8_000, "min_seconds": 0.02, "max_seconds": 2.0}
    judged = judge("input_audio", audio_frame(clips, [measured] * 5, **limits), "own limits")
    assert {row: held.rule for row, held in judged.held_rows.items()} == {0: "length", 4: "not-too-long"}
    usual = judge("input_audio", audio_frame(clips, [measured] * 5), "usual limits")
    assert {held.rule for held in usual.held_rows.values()} == {"rate"}


def test_answers_without_text_are_held(frames):
    """A failed answer in the frame is held, and its neighbours are not."""
    frame = transcription_frame([Answer("a", "one", 0.9), Answer("b", None)], [0.5, 0.5])
    judged = judge("transcription", frame, "failed")
    assert list(judged.held_rows) == [1]
    assert {r.rule for r in judged.failures("critical")} == {"text", "finite"}


def test_observations_are_short_and_plain(frames):
    """What was observed is one line of at most 200 characters, with examples for rules about rows."""
    judged = judge("transcription", frames["transcription"].assign(confidence=2.0, words=NAN), "short")
    seen = {r.rule: r.observed for r in judged.results}
    assert seen["confidence"] == f"{ROWS} of {ROWS} rows: 2.0, 2.0, 2.0"
    assert seen["rows"] == str(ROWS)
    assert max(map(len, seen.values())) == 200
    pair = judge("features", put(dimension=7)(frames["features"]), "pair")
    assert {r.rule: r.observed for r in pair.results}["dimension"] == f"1 of {ROWS} rows: (7, 8)"


def test_quantile_verdicts_can_be_stored_as_json(frames):
    """The library's own quantile rule answers with a numpy.bool; ours answers with a bool."""
    from expectations.gate import _batches

    suite = load_suite("response_time")
    batch = _batches().get_batch({"dataframe": frames["response_time"]})
    raw = [r for r in batch.validate(suite.expectations).results if "quantile" in r.expectation_config.type]
    assert len(raw) == 1
    assert raw[0].success is True
    assert json.loads(json.dumps(raw[0].result))["observed_value"]["quantiles"] == [0.95]


def test_only_pandas_frames_are_judged():
    """A Polars frame is refused with a sentence that says what to do."""
    import polars as pl

    with pytest.raises(QualityError, match=r"judges pandas frames, not DataFrame.*to_pandas"):
        judge("features", pl.DataFrame({"norm": [1.0]}), "polars")


def test_threads_do_not_mix_their_frames():
    """Judgements made at once on several threads hold the rows of their own frame."""

    def held(row):
        frame = good_frames()["features"]
        frame.loc[row, "norm"] = 0.0
        return list(judge("features", frame, f"thread {row}").held_rows)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(held, range(8))) == [[row] for row in range(8)]


def test_rows_are_plain_values(frames):
    """Rows of table quality hold only text and int, so that any store takes them."""
    for suite, frame in frames.items():
        for row in judge(suite, frame, "plain").rows("run-1"):
            assert {type(value) for value in row.values()} <= {str, int}


def test_every_shipped_suite_loads_whole():
    """The loader gives every rule of every file, each with reason, severity and name."""
    assert suite_names() == (
        "classification",
        "descriptions",
        "features",
        "input_audio",
        "response_time",
        "transcription",
    )
    for name in suite_names():
        suite = load_suite(name)
        assert len(suite.rules) == len(suite.expectations.expectations) == len(entries(name))
        assert suite.purpose
        assert all(r.reason.endswith(".") for r in suite.rules)


def test_a_lost_rule_is_an_error(monkeypatch):
    """A custom expectation that is not registered would be dropped silently; the loader refuses the suite."""
    from great_expectations.expectations import registry

    load_suite("features")
    monkeypatch.delitem(registry._registered_expectations, "expect_columns_to_be_finite")
    with pytest.raises(QualityError, match="expect_columns_to_be_finite, which is not registered") as caught:
        load_suite("features")
    assert caught.value.code == "lost-rule"


def test_a_rule_that_the_library_drops_is_an_error(monkeypatch, tmp_path):
    """Loaded rules are counted against the file, so that a drop by the library itself is seen."""
    from great_expectations import core

    class Forgetful(core.ExpectationSuite):
        def __init__(self, name, expectations):
            super().__init__(name=name, expectations=expectations[1:])

    monkeypatch.setattr(core, "ExpectationSuite", Forgetful)
    with pytest.raises(QualityError, match="has 1 rules in its file but 0 were loaded"):
        load_suite("s", write(tmp_path, rule()))


def test_unknown_suites_name_those_that_exist(tmp_path):
    """A wrong name is answered with the right ones, and a path is no name."""
    with pytest.raises(QualityError, match="there are: classification, descriptions, features"):
        load_suite("feature")
    with pytest.raises(QualityError, match="there are: none"):
        load_suite("../suites/features", tmp_path)
    with pytest.raises(QualityError) as caught:
        load_suite("nosuch")
    assert caught.value.code == "unknown-suite"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "unreadable-suite"),
        ("[]", "unreadable-suite"),
        ('{"name": "other", "expectations": [1]}', "unreadable-suite"),
        ('{"name": "s"}', "unreadable-suite"),
        ('{"name": "s", "expectations": []}', "empty-suite"),
    ],
)
def test_unreadable_and_empty_suites_are_errors(text, code, tmp_path):
    """What is not a suite, or holds no rule, never becomes a pass."""
    (tmp_path / "s.json").write_text(text, encoding="utf-8")
    with pytest.raises(QualityError) as caught:
        load_suite("s", tmp_path)
    assert caught.value.code == code


def test_a_suite_that_cannot_be_opened_is_an_error_without_its_path(tmp_path):
    """What the operating system says is passed on, the folder is not."""
    (tmp_path / "s.json").mkdir()
    with pytest.raises(QualityError, match="Suite s cannot be read") as caught:
        load_suite("s", tmp_path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([rule(notes="")], "gives no reason"),
        ([rule(notes=["a", "b"])], "gives no reason"),
        ([rule(severity="fatal")], "has severity 'fatal'"),
        ([rule(meta={})], "has no kebab-case name"),
        ([rule(meta={"rule": "No Name"})], "has no kebab-case name"),
        ([rule(kwargs=None)], "has no kwargs"),
        ([rule(mostly=0.5)], "has not exactly the keys"),
        (["rows"], "Rule 1 of suite s has not exactly the keys"),
        ([rule(), rule()], "more than one rule named rows"),
        ([rule(severity="warning")], "an empty frame would pass"),
        ([rule(kwargs={"min_value": 0})], "an empty frame would pass"),
        ([rule(), rule(type="expect_much", meta={"rule": "much"})], "expect_much, which is not registered"),
        ([rule(kwargs={"min_value": 1, "colour": "red"})], "wrong arguments"),
    ],
)
def test_incomplete_rules_are_errors(rules, message, tmp_path):
    """Every rule has a known type, arguments, a reason, a severity and a name of its own."""
    with pytest.raises(QualityError, match=message):
        load_suite("s", write(tmp_path, *rules))


def test_a_loaded_suite_can_be_judged(tmp_path, frames):
    """The gate takes a suite from anywhere, once the loader has checked it."""
    judged = judge(load_suite("s", write(tmp_path, rule())), frames["features"], "own")
    assert judged.passed
    assert [r.rule for r in judged.results] == ["rows"]


def test_the_page_shows_every_rule_and_needs_no_network(tmp_path, frames):
    """The page names suites, rules, reasons and results, escapes what it shows and refers to no other host."""
    held = judge("transcription", put(confidence=1.2)(frames["transcription"]), "<b>batch</b> & co")
    refused = judge("features", frames["features"].iloc[:0], "empty")
    good = judge("features", frames["features"], "good")
    store, run = Store(tmp_path), RunRef("r-1", "2026-11-20")
    for part, judged in enumerate((good, held, refused)):  # as a run that was resumed twice lands them
        store.land("quality", judged.rows(run.id), run=run, part=f"{part}")
    page = build_data_docs_from(store.read("quality", run).to_dicts(), tmp_path / "docs")
    text = page.read_text(encoding="utf-8")
    plain = html.unescape(text)
    assert page == tmp_path / "docs" / "index.html"
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    assert not re.search(r"https?:|//|<script|<link|@import|url\(|src=", text)
    assert "&lt;b&gt;batch&lt;/b&gt; &amp; co" in text
    assert re.findall(r"<td>([^<]+)</td>(?:<td class=\"n\">\d+</td>)+\s*(?:<td class=\"n\">\d+</td>\s*)+"
                      r"<td class=\"\w+\">(\w+)</td>", text) == [
        ("empty", "failed"), ("good", "passed"), ("&lt;b&gt;batch&lt;/b&gt; &amp; co", "failed"),
    ]  # fmt: skip
    assert f'<td>good</td><td class="n">{ROWS}</td><td class="n">{len(good.results)}</td>' in text
    for result in (*held.results, *good.results):
        assert f"<td>{result.rule}</td><td>{result.severity}</td>" in text
        assert result.reason in plain
    assert text.index("<h2>features</h2>") < text.index("<h2>transcription</h2>")


def test_a_page_about_nothing_says_so(tmp_path):
    """A run that judged nothing gets a page that says it, and a second build replaces the first."""
    build_data_docs_from([], tmp_path)
    assert "Nothing was judged." in build_data_docs_from([], tmp_path).read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    """A file where the folder should be is a StorageError with a hint."""
    (tmp_path / "docs").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match="quality page cannot be written"):
        build_data_docs_from([], tmp_path / "docs")


def test_the_readme_lists_every_rule():
    """The README's tables are the suites' rules, word for word."""
    text = (ROOT / "expectations" / "README.md").read_text(encoding="utf-8")
    for suite in suite_names():
        section = text.split(f"### `{suite}`")[1].split("###")[0]
        rows = [f"| `{e['meta']['rule']}` | {e['severity']} | {e['notes']} |" for e in entries(suite)]
        assert [line for line in section.splitlines() if line.startswith("| `")] == rows


def test_the_gate_is_quiet_and_the_package_is_light(tmp_path):
    """Importing loads no Great Expectations, and judgements of every kind leave no trace but their answer."""
    code = """
import sys
import expectations
print("great_expectations" in sys.modules)
import numpy as np
from grym.errors import QualityError
from grym.quality import features_frame
frame = features_frame(["a", "b"], np.array([[1.0, np.inf], [0.0, 0.0]], np.float32), 2)
print(sorted(expectations.judge("features", frame, "bad").held_rows))
print(expectations.judge("features", frame.drop(columns="norm"), "missing").usable)
try:
    expectations.judge("nosuch", frame, "unknown")
except QualityError as error:
    print(error.code)
"""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.stdout.split("\n") == ["False", "[0, 1]", "False", "unknown-suite", ""]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_answers_are_judged_as_what_they_are():
    """Failure classes of descriptions, probabilities of labels and batches of one answer become columns."""
    loop = "A dog barks. " * 6
    texts = ["A bell rings.", loop, "", "Sorry, I cannot hear the audio.", "[0.0-10.2 s] Rain. [10.2-12.0 s] Wind."]
    frame = answers_frame("descriptions", [Answer(f"c{i}", text, 0.5) for i, text in enumerate(texts)], [1.0] * 5)
    assert frame["failure"].to_list() == ["", "repetition", "empty", "refusal", ""]
    assert frame["foreign_characters"].to_list() == [0] * 5
    assert judge("descriptions", frame, "b").held_rows.keys() == {1, 2, 3}
    heard = [Answer("a", "bell", 0.6, scores={"bell": 0.6, "rain": 0.4}), Answer("b", "a goat", 0.9)]
    labels = label_frame(heard, [1.0, 1.0], LABELS)
    assert labels["known"].to_list() == [1.0, 0.0]
    assert labels["score_sum"].to_list() == [1.0, 1.0]
    assert labels["scores"].to_list() == [2, 0]
    same = answers_frame("classification", [Answer(f"c{i}", "bell", 0.5) for i in range(8)], [1.0] * 8)
    assert same["twin_share"].to_list() == [1.0] * 8
    assert "words_per_second" in answers_frame("mine", heard, [1.0, 1.0]).columns
    with pytest.raises(QualityError, match="2 answers but 1 lengths"):
        label_frame(heard, [1.0])


def test_a_window_of_several_words_has_times_for_all_of_them():
    """A model that hears in windows gives one segment for many words; only words without any time count."""
    whole = Answer("a", "one two three", 0.9, (Segment(0.0, 1.0, "one two three", 0.9),))
    part = Answer("b", "one two three", 0.9, (Segment(0.0, 1.0, "one", 0.9),))
    assert transcription_frame([whole, part], [1.0, 1.0])["segments_unmatched"].to_list() == [0, 2]
