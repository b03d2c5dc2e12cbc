"""Pages of runs whose models named labels, and the page of a comparison on several datasets."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from grym.compare.accuracy import accuracy_rows, compare_labels
from grym.compare.verdict import compare_run
from reports.accuracy import accuracy_slices, failure_counts, labelled_clips, mistaken
from reports.artifacts import summary_markdown, together_markdown
from reports.frames import RunData, asked, facts
from reports.index import render_index
from reports.metrics import deciding_accuracies, metric_rows
from reports.render import clips_query, render_run, repeat_command
from reports.together import render_together
from reports.trend import history, trend

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
EVIL = "<script>alert(1)</script>"
SOUNDS = ("bell", "rain", "siren")


def states(task: str, dataset: str, group: str = "all-1") -> list[Row]:
    """A run that started and finished."""
    options = json.dumps({"a": "mini", "b": "gama", "dataset": dataset, "confidence": 0.95})
    told = {"flow": "compare", "arm_a": "mini", "arm_b": "gama", "task": task, "dataset": dataset, "run_group": group,
            "options": options, "run_key": task}  # fmt: skip
    return [
        {**told, "run_id": task, "state": state, "at": NOON + timedelta(minutes=i)}
        for i, state in enumerate(("started", "finished"))
    ]


def calls(count: int) -> pl.DataFrame:
    """A latency pass and a throughput pass."""
    rows = [
        {"arm": arm, "pass": "latency", "clip_id": f"c{i:02}", "status": "ok", "wall_seconds": seconds * (1 + i / 20),
         "audio_seconds": 4.0, "peak_rss_mb": 300.0, "call": f"c{i}"}
        for arm, seconds in (("a", 0.02), ("b", 0.3)) for i in range(count)
    ]  # fmt: skip
    batch = {"pass": "throughput", "clip_id": "", "status": "ok", "audio_seconds": 40.0, "call": "b0"}
    return pl.DataFrame(
        [
            *rows,
            *({**batch, "arm": arm, "wall_seconds": t, "peak_rss_mb": 400.0} for arm, t in (("a", 1.0), ("b", 8.0))),
        ]
    )


@pytest.fixture(scope="module")
def labelled() -> RunData:
    """Forty-eight clips: b is better, takes rain for bell once, refuses once and leaves one clip out."""
    clips, outcomes = [], []
    for i in range(48):
        several = i >= 40
        label = f"{SOUNDS[i % 3]} + wind" if several else SOUNDS[i % 3]
        clips.append({"clip_id": f"c{i:02}", "key": f"clip {i}", "reference": f"A {label} is heard.", "seconds": 4.0,
                      "slices": json.dumps({"label": label, "snr": "10" if i % 2 else "20"})})  # fmt: skip
        for arm, right in (("a", i % 3 > 0 and not several), ("b", i not in {4, 7})):
            said = label if right else "bell + siren" if several else "hum"
            said = "sorry" if (arm, i) == ("b", 7) else said
            row = {"arm": arm, "model": arm, "clip_id": f"c{i:02}", "status": "ok", "label": label, "predicted": said,
                   "hypothesis": said, "correct": said == label, "any_correct": said == label, "normalizer": "labels",
                   "failure": "refusal" if said == "sorry" else "",
                   "label_scores": json.dumps({said: 0.8, "wind": 0.2})}  # fmt: skip
            if (arm, i) == ("b", 9):
                row |= {"status": "failed", "correct": None, "any_correct": None, "error_code": "deadline",
                        "error_category": "resource", "error_message": "It took too long."}  # fmt: skip
            outcomes.append(row)
    tables = {"outcomes": pl.DataFrame(outcomes), "clips": pl.DataFrame(clips), "operations": calls(20)}
    names = {"a": "mini", "b": "gama"}
    found = compare_labels(tables, names=names, run_id="classify", confidence=0.95, margin=0.02, seed=7)
    parts = accuracy_rows(tables, label="label", confidence=0.95)
    probe = {
        "arm": "a",
        "model": "mini",
        "probe": "p1",
        "trained_on": "sounds-train",
        "clips": 900,
        "cv_accuracy": 0.912,
    }
    more = {"runs": states("classify", "sounds"), "comparisons": found, "accuracies": parts, "probes": [probe]}
    return RunData(
        "classify", {**tables, **{name: pl.DataFrame(rows, infer_schema_length=None) for name, rows in more.items()}}
    )


@pytest.fixture(scope="module")
def spoken() -> RunData:
    """Twenty clips of words; b loops once."""
    clips = [
        {"clip_id": f"c{i:02}", "key": f"k{i}", "speaker": f"s{i % 8}", "slices": "{}", "reference": "one two"}
        for i in range(20)
    ]
    outcomes = [
        {"arm": arm, "model": arm, "clip_id": f"c{i:02}", "status": "ok", "hypothesis": "one two",
         "normalizer": "basic", "reference_words": 2, "hits": 2, "substitutions": int(i == 3), "deletions": 0,
         "insertions": 0,
         "reference_characters": 6, "character_errors": 0, "failure": "repetition" if (arm, i) == ("b", 3) else ""}
        for arm in "ab" for i in range(20)
    ]  # fmt: skip
    tables = {"outcomes": pl.DataFrame(outcomes), "clips": pl.DataFrame(clips), "operations": calls(20)}
    wanted: Row = {"name_a": "mini", "name_b": "gama", "confidence": 0.95, "margin_wer": 0.005, "seed": 7}
    found = compare_run(*tables.values(), run_id="transcribe", **wanted)
    assert "wer_clean" in {row["metric"] for row in found}
    more = {"runs": states("transcribe", "digits"), "comparisons": found}
    return RunData(
        "transcribe", {**tables, **{name: pl.DataFrame(rows, infer_schema_length=None) for name, rows in more.items()}}
    )


def test_the_figures_of_a_labelled_run(labelled: RunData) -> None:
    """Mistakes, failure classes, slices, intervals and clips to hear are counted from the outcomes."""
    assert facts(labelled).group == "all-1"
    wrong = {(row["label"], row["predicted"]): (row["a"], row["b"]) for row in mistaken(labelled).to_dicts()}
    assert wrong["bell", "hum"] == (13, 0)  # of fourteen, and one has no answer of b
    assert wrong["rain", "sorry"] == (0, 1)
    (refusal,) = failure_counts(labelled).to_dicts()
    assert refusal == {"failure": "refusal", "a": 0, "b": 1, "wrong_a": 0, "wrong_b": 1}
    slices = accuracy_slices(labelled)
    assert set(slices["slice"]) == {"label", "snr"}
    low, high = deciding_accuracies(labelled)
    row = labelled.comparison("accuracy")
    assert row["ci_low"] < low / 100 < high / 100 < row["ci_high"]
    rows = {row.key: row for row in metric_rows(labelled)}
    assert rows["accuracy"].verdict.text == "gama is better"
    assert rows["accuracy_clean"].minor
    assert rows["accuracy"].a_interval
    clips = labelled_clips(labelled, limit=8)
    assert len(clips) == 8
    assert clips[0].part == "Clips that only one arm got right"
    assert clips[0].answers[1].scores[0][1] == 0.8
    assert clips[0].silence == "the page was made without sound"


def test_a_labelled_run_has_a_page_of_its_own(labelled: RunData, tmp_path: Path) -> None:
    """Verdict, probe, accuracy by label, mistakes and failure classes; nothing about words; links lead somewhere."""
    page = render_run(labelled, past(labelled), tmp_path / "classify.html").read_text(encoding="utf-8")
    for text in (
        "gama is better than mini", "a linear probe on its features", "sounds-train", "By label and slice",
        "Single events and mixtures", "Taken for something else", "refusal", "exact McNemar", "all-1.html",
        "percentage points of accuracy", "--task classify", "It took too long", "Label accuracy",
    ):  # fmt: skip
        assert text in page, text
    for text in ("Word error", "percentage points of WER", "Reference in doubt"):
        assert text not in page, text
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in re.findall(r'href="(#[^"]+)"', page)} <= set(ids)


def past(data: RunData) -> pl.DataFrame:
    """Comparisons of all runs: this one."""
    return history(data.table("comparisons").with_columns(run_id=pl.lit(data.run_id)), data.table("runs"))


def test_both_tasks_stand_on_one_page(labelled: RunData, spoken: RunData, tmp_path: Path) -> None:
    """Two verdicts, one table, a section for each run with unique ids, and links to their pages."""
    out = render_together([spoken, labelled], "all-1", tmp_path / "all-1.html")
    page = out.read_text(encoding="utf-8")
    for text in ("digits and sounds", "transcription", "naming labels", 'href="transcribe.html"',
                 'href="classify.html"', "repetition", "refusal",
                 "percentage points of WER", "percentage points of accuracy"):  # fmt: skip
        assert text in page, text
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in re.findall(r'href="(#[^"]+)"', page)} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    runs = pl.concat([spoken.table("runs"), labelled.table("runs")])
    index = render_index(runs, past(labelled), tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="all-1.html"' in index
    assert ", accuracy</th>" in index


def test_text_from_data_is_shown_not_run(labelled: RunData, spoken: RunData, tmp_path: Path) -> None:
    """Labels, names and texts that hold markup stay text, on either page."""
    changed = dict(labelled.tables)
    for table, columns in {
        "outcomes": ["hypothesis", "predicted", "label", "failure"], "clips": ["key", "reference"],
        "runs": ["dataset"], "probes": ["trained_on", "model"], "comparisons": ["sentence"], "accuracies": ["value"],
    }.items():  # fmt: skip
        changed[table] = changed[table].with_columns(pl.lit(EVIL).alias(column) for column in columns)
    evil = RunData("classify", changed)
    for out in (
        render_run(evil, pl.DataFrame(), tmp_path / "one.html"),
        render_together([spoken, evil], "all-1", tmp_path / "both.html"),
    ):
        text = out.read_text(encoding="utf-8")
        assert "<script" not in text
        assert "&lt;script&gt;" in text


def test_a_labelled_run_with_nothing_still_has_a_page(tmp_path: Path) -> None:
    """A run that started and has no outcome says so in every part."""
    empty = RunData("r", {"runs": pl.DataFrame(states("classify", "sounds", "")[:1])})
    text = render_run(empty, pl.DataFrame(), tmp_path / "r.html").read_text(encoding="utf-8")
    for sentence in (
        "no verdict",
        "No clip was answered by both arms",
        "Neither arm made a mistake",
        "no latency pass",
    ):
        assert sentence in text


def test_artifacts_and_commands_speak_of_labels(labelled: RunData, spoken: RunData) -> None:
    """The summary names probe, failure classes and slices; the one of both runs has a row for each."""
    text = summary_markdown(labelled, report="/r.html")
    assert "linear probe" in text
    assert "refusal 0 and 1" in text
    both = together_markdown([spoken, labelled], report="/all.html")
    assert both.count("\n| ") == 2
    assert "label accuracy (%)" in both
    assert "correct_a <> correct_b" in clips_query("r", labelled.rate)
    assert repeat_command(asked(labelled)).endswith("--dataset sounds --task classify --new")


def test_a_dataset_asked_about_in_two_ways_has_two_histories(labelled: RunData, spoken: RunData) -> None:
    """Error rates and accuracies of one pair never stand in one line."""
    rows = pl.concat([past(spoken).with_columns(dataset=pl.lit("sounds")), past(labelled)], how="diagonal_relaxed")
    assert trend(rows, labelled)["run_id"].to_list() == ["classify"]
