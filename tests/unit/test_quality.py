"""Judgements and the frames that the suites judge."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grym.errors import QualityError
from grym.models.interface import Answer, AudioClip, Segment
from grym.quality import (
    AUDIO_COLUMNS,
    FEATURES_COLUMNS,
    RESPONSE_COLUMNS,
    TRANSCRIPTION_COLUMNS,
    Held,
    Judgement,
    RuleResult,
    audio_frame,
    features_frame,
    response_frame,
    transcription_frame,
)
from grym.schema import TABLES

MEASURED = {
    "source_rate": 8000,
    "source_channels": 1,
    "seconds": 0.5,
    "rms_dbfs": -20.0,
    "peak_dbfs": -3.0,
    "clipped_fraction": 0.0,
    "silent_fraction": 0.1,
}


def result(rule="r", severity="critical", status="fail", rows=()):
    """One result with everything else filled in."""
    return RuleResult("s", "batch", rule, severity, status, 9, len(rows), "seen", f"Reason of {rule}.", rows)


def judgement(*results):
    """A judgement of nine rows."""
    return Judgement("s", "batch", results, 9)


def clip(samples, name="c"):
    """A clip at 16 kHz."""
    return AudioClip(name, np.asarray(samples, dtype=np.float32), 16_000)


def spoken(text="one two", segments=(), confidence=0.9):
    """An answer to clip c."""
    return Answer("c", text, confidence, tuple(segments))


def only(frame):
    """The only row of a frame."""
    assert len(frame) == 1
    return frame.iloc[0]


def test_a_judgement_without_results_never_passes():
    """Nothing judged is a failure, never a pass."""
    empty = judgement()
    assert not empty.passed
    assert not empty.usable
    with pytest.raises(QualityError, match="no rule was evaluated"):
        empty.require()


def test_only_passes_warnings_and_infos_pass():
    """A failed warning or info is recorded and lets the batch through."""
    judged = judgement(result("a", status="pass"), result("b", "warning", rows=(1,)), result("c", "info"))
    assert judged.passed
    assert judged.require() is judged
    assert judged.held_rows == {}
    assert [r.rule for r in judged.failures()] == ["b", "c"]
    assert [r.rule for r in judged.failures("warning")] == ["b"]
    assert judged.failures("critical") == ()


def test_critical_rows_are_held_with_the_first_rule_they_broke():
    """Rows that broke a critical rule are held, in order, and the rest goes on."""
    judged = judgement(result("a", rows=(4, 7)), result("w", "warning", rows=(2,)), result("b", rows=(1, 4)))
    assert not judged.passed
    assert judged.usable
    assert judged.held_rows == {
        1: Held("b", "Reason of b."),
        4: Held("a", "Reason of a."),
        7: Held("a", "Reason of a."),
    }
    assert list(judged.held_rows) == [1, 4, 7]


@pytest.mark.parametrize("blocking", [result("x"), result("x", "info", status="not evaluated")])
def test_a_failure_beyond_rows_refuses_the_batch(blocking):
    """A critical rule about the frame, or any rule that could not run, raises with its name."""
    judged = judgement(result("ok", status="pass"), blocking)
    assert not judged.passed
    assert not judged.usable
    assert judged.failures("critical") == (blocking,)
    with pytest.raises(QualityError, match="The gate s refused batch: x") as caught:
        judged.require()
    assert caught.value.code == "gate-s"
    assert caught.value.metadata == {"rows": 9}


def test_rows_have_the_columns_of_the_quality_table():
    """A judgement becomes one row of table quality for each rule."""
    rows = judgement(result("a", rows=(3,)), result("b", status="pass")).rows("run-1")
    assert [list(row) for row in rows] == [[column.name for column in TABLES["quality"].columns]] * 2
    assert rows[0] == {
        "run_id": "run-1",
        "suite": "s",
        "subject": "batch",
        "rule": "a",
        "severity": "critical",
        "status": "fail",
        "evaluated": 9,
        "unexpected": 1,
        "observed": "seen",
        "reason": "Reason of a.",
    }


def test_audio_frame_counts_bad_samples_and_copies_measurements():
    """Samples that are not finite are counted; a missing measurement is NaN."""
    partial = {name: value for name, value in MEASURED.items() if name != "rms_dbfs"}
    frame = audio_frame([clip([0.1] * 8000), clip([0.0, np.nan, np.inf, -np.inf], "d")], [MEASURED, partial])
    assert tuple(frame.columns) == AUDIO_COLUMNS
    assert list(frame["nonfinite_samples"]) == [0, 3]
    assert list(frame["clip_id"]) == ["c", "d"]
    assert frame["seconds"][0] == 0.5
    assert frame["peak_dbfs"][0] == -3.0
    assert np.isnan(frame["rms_dbfs"][1])


def test_features_frame_measures_every_vector():
    """Norm, spread, non-finite values and both dimensions are per vector."""
    frame = features_frame(["a", "b", "c"], np.array([[3.0, 4.0], [2.0, 2.0], [np.nan, np.inf]], np.float32), 3)
    assert tuple(frame.columns) == FEATURES_COLUMNS
    assert list(frame["dimension"]) == [2, 2, 2]
    assert list(frame["expected_dimension"]) == [3, 3, 3]
    assert list(frame["nonfinite_values"]) == [0, 0, 2]
    assert list(frame["norm"][:2]) == pytest.approx([5.0, 8**0.5])
    assert list(frame["spread"][:2]) == pytest.approx([0.5, 0.0])
    assert list(frame["twin_share"]) == [0.0, 0.0, 0.0]


def test_features_frame_finds_equal_vectors():
    """Twins are counted always, their share only where chance is no explanation."""
    few = features_frame(["a", "b"], np.ones((2, 3), np.float32), 3)
    assert list(few["twins"]) == [1, 1]
    assert list(few["twin_share"]) == [0.0, 0.0]
    vectors = np.array([[1, 2], [1, 2], [1, 2], [5, 6], [7, 8]], np.float32)
    many = features_frame(list("abcde"), vectors, 2)
    assert list(many["twins"]) == [2, 2, 2, 0, 0]
    assert list(many["twin_share"]) == [0.5, 0.5, 0.5, 0.0, 0.0]


def test_features_frame_takes_vectors_without_dimensions():
    """Vectors of length zero become rows that the suite can refuse."""
    row = only(features_frame(["a"], np.zeros((1, 0), np.float32), 2))
    assert row["norm"] == 0
    assert row["spread"] == 0


def test_transcription_frame_measures_text_and_time():
    """Words, characters and rates come from the text and the clip's length."""
    row = only(transcription_frame([spoken("one one two", confidence=0.25)], [2.0]))
    assert tuple(row.index) == TRANSCRIPTION_COLUMNS
    assert (row["words"], row["characters"], row["longest_run"]) == (3, 9, 2)
    assert row["words_per_second"] == 1.5
    assert row["characters_per_second"] == 4.5
    assert row["confidence"] == 0.25
    assert (row["foreign_characters"], row["segments"], row["segments_unmatched"]) == (0, 0, 0)


def test_short_clips_count_as_a_second():
    """A word in a fifth of a second is not five words a second."""
    assert only(transcription_frame([spoken("seven")], [0.2]))["words_per_second"] == 1.0


@pytest.mark.parametrize(
    ("text", "charset", "foreign"),
    [
        ("seven's", "abcdefghijklmnopqrstuvwxyz' ", 0),
        ("Seven 7", "abcdefghijklmnopqrstuvwxyz ", 2),
        ("Grüße, 7 - ok!", None, 0),
        ("<unk> a|b \ufffd\x00", None, 5),
    ],
)
def test_foreign_characters_are_counted(text, charset, foreign):
    """With a charset everything else is foreign; without one, leaked marks and control characters are."""
    assert only(transcription_frame([spoken(text)], [1.0], charset=charset))["foreign_characters"] == foreign


@pytest.mark.parametrize(
    ("spans", "outside", "unordered"),
    [
        ([(0.0, 0.4), (0.4, 1.04)], 0, 0),
        ([(-0.2, 0.4), (0.4, 1.2)], 2, 0),
        ([(0.5, 0.4), (0.1, 0.2)], 1, 1),
        ([(0.1, float("nan")), (float("nan"), 0.5)], 2, 1),
    ],
)
def test_segments_outside_or_out_of_order_are_counted(spans, outside, unordered):
    """A segment belongs into its clip, with 50 ms of tolerance, after the one before."""
    segments = [Segment(start, end, "w", 0.9) for start, end in spans]
    row = only(transcription_frame([spoken(segments=segments)], [1.0]))
    assert (row["segments_outside"], row["segments_unordered"], row["segments_unmatched"]) == (outside, unordered, 0)


def test_words_without_segments_are_counted():
    """Where there are segments, each word has one."""
    row = only(transcription_frame([spoken("one two three", [Segment(0, 0.5, "one", 0.9)])], [1.0]))
    assert row["segments_unmatched"] == 2


def test_an_answer_without_text_or_confidence_keeps_its_place():
    """A failed answer becomes a row that no suite lets pass, not a gap."""
    frame = transcription_frame([spoken(), Answer("d", None)], [1.0, 1.0])
    assert frame["text"].isna().tolist() == [False, True]
    assert np.isnan(frame["confidence"][1])


def test_response_frame_leaves_the_warm_up_out():
    """Deadline, real-time factor and shares are per call; a failed call has no compute share."""
    call = {"call": "b0", "wall_seconds": 1.0, "audio_seconds": 4.0, "compute_seconds": 0.5, "status": "ok"}
    frame = response_frame(
        [
            {**call, "pass": "warmup"},
            {**call, "pass": "latency"},
            {**call, "pass": "throughput", "wall_seconds": 20.0, "status": "failed", "compute_seconds": None},
        ],
        call_seconds=2.0,
        call_seconds_per_audio_second=2.0,
    )
    assert tuple(frame.columns) == RESPONSE_COLUMNS
    assert list(frame["pass"]) == ["latency", "throughput"]
    assert list(frame["deadline_seconds"]) == [10.0, 10.0]
    assert list(frame["deadline_share"]) == [0.1, 2.0]
    assert list(frame["missed"]) == [0.0, 1.0]
    assert list(frame["real_time_factor"]) == [0.25, 5.0]
    assert list(frame["compute_share"]) == [0.5, 0.0]
    assert list(frame["failed"]) == [0.0, 1.0]


def test_unknown_times_stay_unknown():
    """A missing time is NaN all the way, and no audio is an infinite factor."""
    row = only(response_frame([{"call": "b0", "wall_seconds": None, "audio_seconds": 0.0, "status": "ok"}]))
    assert np.isnan(row["missed"])
    assert np.isnan(row["deadline_share"])
    assert np.isnan(row["compute_share"])
    assert only(response_frame([{"wall_seconds": 1.0, "audio_seconds": 0.0}]))["real_time_factor"] == np.inf


@pytest.mark.parametrize(
    "build",
    [
        lambda: audio_frame([clip([0.1])], []),
        lambda: features_frame(["a"], np.ones((2, 3), np.float32), 3),
        lambda: features_frame(["a"], np.ones(3, np.float32), 3),
        lambda: transcription_frame([spoken()], [1.0, 2.0]),
    ],
)
def test_frames_of_unequal_length_are_errors(build):
    """What does not belong together is never judged."""
    with pytest.raises(QualityError) as caught:
        build()
    assert caught.value.code == "frame-shape"


@pytest.mark.parametrize(
    ("frame", "columns"),
    [
        (audio_frame([], []), AUDIO_COLUMNS),
        (features_frame([], np.zeros((0, 4), np.float32), 4), FEATURES_COLUMNS),
        (transcription_frame([], []), TRANSCRIPTION_COLUMNS),
        (response_frame([]), RESPONSE_COLUMNS),
    ],
    ids=["audio", "features", "transcription", "response"],
)
def test_empty_frames_have_their_columns(frame, columns):
    """Nothing in is an empty frame with all columns, so that the suite says "no row" and not "no column"."""
    assert tuple(frame.columns) == columns
    assert len(frame) == 0


def test_the_module_is_light():
    """Importing grym.quality loads neither Great Expectations nor torch nor Prefect nor pandas."""
    code = (
        "import sys, grym.quality; "
        "print([m for m in ('great_expectations', 'torch', 'prefect', 'pandas') if m in sys.modules])"
    )
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(source)}
    )
    assert done.stdout.strip() == "[]"
