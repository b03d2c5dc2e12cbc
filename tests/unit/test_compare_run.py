"""From the tables of a run to rows of ``comparisons`` and the summary of an arm."""

import math

import numpy as np
import polars as pl
import pytest

from grym.compare import arm_summary, compare_run
from grym.errors import QualityError
from grym.schema import TABLES

OPTIONS = {
    "name_a": "mini",
    "name_b": "int8",
    "run_id": "run-1",
    "confidence": 0.95,
    "margin_wer": 0.005,
    "seed": 7,
}
METRICS = ["wer", "cer", "latency_p50", "latency_p95", "rtfx", "peak_rss_mb", "failures"]


def clip_rows(speakers=10, each=5, **changes):
    """Clips of a small corpus, ``s0-0`` to ``s9-4``."""
    return [
        {"run_id": "run-1", "clip_id": f"s{s}-{i}", "speaker": f"s{s}", "seconds": 2.0} | changes
        for s in range(speakers)
        for i in range(each)
    ]


def outcome(arm, clip_id, errors=0, words=10, **changes):
    """One scored answer with that many substitutions."""
    return {
        "run_id": "run-1",
        "arm": arm,
        "clip_id": clip_id,
        "status": "ok",
        "normalizer": "basic@x#1",
        "reference_words": words,
        "hits": words - errors,
        "substitutions": errors,
        "deletions": 0,
        "insertions": 0,
        "reference_characters": 4 * words,
        "character_errors": errors,
    } | changes


def failed(arm, clip_id):
    """An outcome as it is landed without an answer: no counts."""
    return {"run_id": "run-1", "arm": arm, "clip_id": clip_id, "status": "failed", "error_code": "deadline"}


def operation(arm, kind, call, wall, **changes):
    """One call to a model."""
    return {
        "run_id": "run-1",
        "arm": arm,
        "pass": kind,
        "call": call,
        "clip_id": "",
        "clips": 5,
        "audio_seconds": 10.0,
        "wall_seconds": wall,
        "peak_rss_mb": 500.0,
        "status": "ok",
    } | changes


def corpus(rng, rate_a, rate_b, clips):
    """Outcomes of both arms with those error rates."""
    return [
        outcome(arm, c["clip_id"], int(rng.binomial(10, p))) for arm, p in (("a", rate_a), ("b", rate_b)) for c in clips
    ]


def timed(clips, slow_a=0.04, slow_b=0.03):
    """A latency pass of three repeats (one of them an outlier), a throughput pass and a warm-up."""
    rows = []
    for arm, slow in (("a", slow_a), ("b", slow_b)):
        rows.append(operation(arm, "warmup", "w", 9.0, peak_rss_mb=700.0 if arm == "a" else 400.0))
        for i, clip in enumerate(clips[:20]):
            for repeat, factor in enumerate((1.0, 1.0, 50.0)):
                call, wall = f"{clip['clip_id']}/{repeat}", slow * factor * (1 + 0.01 * i)
                rows.append(operation(arm, "latency", call, wall, clip_id=clip["clip_id"], clips=1, audio_seconds=2.0))
        rows += [operation(arm, "throughput", f"batch-{i}", slow * 10) for i in range(5)]
        rows.append(operation(arm, "throughput", "batch-9", 30.0, status="failed"))
    return rows


def compare(outcomes, clips, operations=(), **changes):
    """Rows by metric."""
    rows = compare_run(frame(outcomes), frame(clips), frame(operations), **(OPTIONS | changes))
    return {row["metric"]: row for row in rows}


def frame(rows):
    """A frame as the landing zone would give it."""
    return pl.DataFrame(list(rows), infer_schema_length=None)


def test_a_full_run():
    """Every metric has a row with exactly the table's columns, and the numbers are those of the inputs."""
    clips = clip_rows()
    outcomes = corpus(np.random.default_rng(1), 0.05, 0.25, clips)
    rows = compare(outcomes, clips, timed(clips))
    assert list(rows) == METRICS
    for row in rows.values():
        assert list(row) == [column.name for column in TABLES["comparisons"].columns]
        assert (row["run_id"], row["arm_a"], row["arm_b"]) == ("run-1", "mini", "int8")
    wer = rows["wer"]
    sums = [sum(o["substitutions"] for o in outcomes if o["arm"] == arm) / 500 for arm in "ab"]
    assert (wer["a"], wer["b"]) == pytest.approx(sums)
    assert wer["percent_change"] == pytest.approx(100 * (sums[1] - sums[0]) / sums[0])
    assert (wer["verdict"], wer["method"], wer["clusters"], wer["clips"]) == ("a better", "speaker-clustered t", 10, 50)
    assert (wer["unit"], wer["margin"], wer["confidence"]) == ("fraction", 0.005, 0.95)
    assert wer["ci_low"] < wer["difference"] < wer["ci_high"]
    assert wer["sentence"].startswith("mini is better than int8, whose WER is ")
    assert (rows["cer"]["margin"], rows["cer"]["a"]) == (None, pytest.approx(sums[0] / 4))


def test_figures_of_time_and_memory():
    """Latency is the quantile over clips of medians over repeats; failed calls and warm-up do not count as time."""
    clips = clip_rows()
    rows = compare(corpus(np.random.default_rng(1), 0.1, 0.1, clips), clips, timed(clips))
    p50, p95 = rows["latency_p50"], rows["latency_p95"]
    factors = 1 + 0.01 * np.arange(20)
    assert (p50["a"], p50["b"]) == pytest.approx((40 * np.median(factors), 30 * np.median(factors)))
    assert p95["b"] == pytest.approx(30 * np.quantile(factors, 0.95))
    assert (p50["unit"], p50["clips"], p50["clusters"], p50["method"]) == ("ms", 20, 4, "speaker-clustered bootstrap")
    assert p50["verdict"] == "cannot tell"
    assert "4 speakers are too few" in p50["sentence"]
    assert (rows["rtfx"]["a"], rows["rtfx"]["b"]) == pytest.approx((10 / 0.4, 10 / 0.3))
    assert (rows["peak_rss_mb"]["a"], rows["peak_rss_mb"]["b"]) == (700.0, 500.0)
    assert rows["peak_rss_mb"]["difference"] == -200.0
    for metric in ("rtfx", "peak_rss_mb", "failures"):
        row = rows[metric]
        assert (row["method"], row["ci_low"], row["p_value"], row["clusters"]) == ("observed", None, None, None)


def test_latency_of_enough_clips_gets_a_verdict():
    """Without speakers the clips are the units, and a clear difference of latency is found."""
    clips = clip_rows(speaker=None)
    rows = compare(corpus(np.random.default_rng(1), 0.1, 0.1, clips), clips, timed(clips))
    assert (rows["latency_p50"]["verdict"], rows["latency_p50"]["clusters"]) == ("b better", 20)
    assert rows["latency_p50"]["method"] == "clip-level bootstrap"
    assert rows["latency_p50"]["sentence"].startswith("int8 is faster than mini: its median latency is ")
    assert rows["wer"]["method"] == "clip-level t"


def test_one_missing_speaker_makes_clips_the_clusters():
    """Clusters are speakers only when every clip has one; a blank name is none."""
    clips = clip_rows()
    clips[7]["speaker"] = " "
    row = compare(corpus(np.random.default_rng(1), 0.1, 0.1, clips), clips)["wer"]
    assert (row["method"], row["clusters"]) == ("clip-level t", 50)


def test_identical_arms_are_equivalent_when_there_are_enough_words():
    """The same answers: equivalent over 1 000 words, cannot tell over 60."""
    clips = clip_rows(each=10)
    rows = compare([outcome(arm, c["clip_id"], 1) for arm in "ab" for c in clips], clips)
    assert (rows["wer"]["verdict"], rows["wer"]["p_value"], rows["wer"]["difference"]) == ("equivalent", 1.0, 0.0)
    few = clip_rows(speakers=6, each=1)
    row = compare([outcome(arm, c["clip_id"], 1) for arm in "ab" for c in few], few)["wer"]
    assert row["verdict"] == "cannot tell"
    assert "60 words are too few" in row["sentence"]


def test_only_clips_both_arms_answered_are_compared():
    """A clip one arm failed on leaves the pairs and is named; it is not an error of either."""
    clips = clip_rows(each=10)
    outcomes = [outcome("a", c["clip_id"], 1) for c in clips] + [outcome("b", c["clip_id"], 1) for c in clips[3:]]
    outcomes += [failed("b", clips[0]["clip_id"]), failed("b", clips[1]["clip_id"])]
    outcomes.append(outcome("b", clips[2]["clip_id"], 9, status="held"))
    rows = compare(outcomes, clips)
    assert (rows["wer"]["clips"], rows["wer"]["a"], rows["wer"]["b"]) == (97, 0.1, 0.1)
    assert rows["wer"]["verdict"] == "equivalent"
    assert rows["wer"]["sentence"].endswith("; left out: mini did not answer 0 and int8 3 of 100 clips.")
    assert (rows["failures"]["a"], rows["failures"]["b"], rows["failures"]["percent_change"]) == (0.0, 3.0, None)
    assert rows["failures"]["sentence"] == "mini failed on 0 and int8 on 3 of 100 clips."


@pytest.mark.parametrize("rows_landed", [True, False])
def test_more_than_five_percent_unanswered_cannot_be_told(rows_landed):
    """An arm that leaves out 6 of 100 clips gets no verdict, also when their rows are missing altogether."""
    clips = clip_rows(each=10)
    outcomes = [outcome("a", c["clip_id"], 1) for c in clips] + [outcome("b", c["clip_id"], 0) for c in clips[6:]]
    if rows_landed:
        outcomes += [failed("b", c["clip_id"]) for c in clips[:6]]
    rows = compare(outcomes, clips)
    assert (rows["wer"]["verdict"], rows["cer"]["verdict"]) == ("cannot tell", "cannot tell")
    assert "int8 did not answer 6 of 100 clips" in rows["wer"]["sentence"]
    assert rows["wer"]["b"] == 0.0


def test_all_clips_failed():
    """Nothing was answered: rows without values and a sentence that says so."""
    clips = clip_rows()
    rows = compare([failed(arm, c["clip_id"]) for arm in "ab" for c in clips], clips)
    assert list(rows) == ["wer", "cer", "failures"]
    assert (rows["wer"]["a"], rows["wer"]["verdict"], rows["wer"]["clips"]) == (None, "cannot tell", 0)
    assert "no clip was answered by both" in rows["wer"]["sentence"]
    assert rows["failures"]["a"] == 50.0
    summary = arm_summary(frame([failed("a", "s0-0")]), frame(clips), frame([]), "a")
    assert (summary.wer, summary.wer_low, summary.cer, summary.failures, summary.clips) == (None, None, None, 1, 1)


def test_no_reference_words_at_all():
    """References without words have no rate; the sentence says it."""
    clips = clip_rows()
    empty = {"reference_characters": 0, "insertions": 1}
    rows = compare([outcome(arm, c["clip_id"], 0, words=0, **empty) for arm in "ab" for c in clips], clips)
    assert (rows["wer"]["a"], rows["wer"]["difference"], rows["wer"]["verdict"]) == (None, None, "cannot tell")
    assert "have no reference words" in rows["wer"]["sentence"]
    assert "have no reference characters" in rows["cer"]["sentence"]


def test_an_empty_run():
    """Empty tables give rows without values, no crash."""
    rows = compare([], [])
    assert rows["wer"]["sentence"] == "Cannot tell mini and int8 apart: the run has no clips."
    assert arm_summary(frame([]), frame([]), frame([]), "b").clips == 0


def test_operations_of_one_arm_only():
    """What only one arm measured has no difference; latency, which needs pairs, has no row."""
    clips = clip_rows()
    only_a = [row for row in timed(clips) if row["arm"] == "a"]
    rows = compare(corpus(np.random.default_rng(1), 0.1, 0.1, clips), clips, only_a)
    assert list(rows) == ["wer", "cer", "rtfx", "peak_rss_mb", "failures"]
    assert (rows["rtfx"]["b"], rows["rtfx"]["difference"], rows["rtfx"]["percent_change"]) == (None, None, None)
    assert "of int8 not measured" in rows["rtfx"]["sentence"]


def test_mixed_normalisers_are_refused():
    """Answers scored under different rules are not comparable."""
    clips = clip_rows()
    outcomes = corpus(np.random.default_rng(1), 0.1, 0.1, clips)
    outcomes[3]["normalizer"] = "english@x#2"
    with pytest.raises(QualityError, match=r"basic@x#1, english@x#2") as caught:
        compare(outcomes, clips)
    assert caught.value.code == "mixed-normalizers"


def test_order_of_rows_does_not_matter():
    """Shuffled tables give the same rows, bit by bit."""
    clips = clip_rows()
    outcomes, operations = corpus(np.random.default_rng(1), 0.05, 0.08, clips), timed(clips)
    rng = np.random.default_rng(2)
    shuffled = [[rows[i] for i in rng.permutation(len(rows))] for rows in (outcomes, clips, operations)]
    assert compare(*shuffled) == compare(outcomes, clips, operations)


def test_swapping_the_arms_negates_the_differences():
    """The same tables with the arms' letters exchanged: negated differences, mirrored verdicts."""
    clips = clip_rows()
    outcomes, operations = corpus(np.random.default_rng(1), 0.05, 0.25, clips), timed(clips)
    swap = {"a": "b", "b": "a"}
    there = compare(outcomes, clips, operations)
    back = compare(
        *(
            [row | {"arm": swap[row["arm"]]} for row in t] if t is not clips else t
            for t in (outcomes, clips, operations)
        )
    )
    for metric, row in there.items():
        assert back[metric]["difference"] == pytest.approx(-row["difference"])
        assert (back[metric]["a"], back[metric]["b"]) == (row["b"], row["a"])
    assert back["wer"]["ci_low"] == pytest.approx(-there["wer"]["ci_high"])
    assert back["wer"]["p_value"] == there["wer"]["p_value"]
    assert (there["wer"]["verdict"], back["wer"]["verdict"]) == ("a better", "b better")


def test_the_seed_decides_the_bootstrap():
    """The same seed gives the same interval, another one another."""
    clips = clip_rows(speaker="")
    outcomes = corpus(np.random.default_rng(1), 0.1, 0.1, clips)
    noise = np.random.default_rng(3)
    operations = [row | {"wall_seconds": row["wall_seconds"] * noise.lognormal(0, 0.5)} for row in timed(clips)]
    first, again = (compare(outcomes, clips, operations)["latency_p95"] for _ in range(2))
    other = compare(outcomes, clips, operations, seed=8)["latency_p95"]
    assert first == again
    assert (first["ci_low"], first["ci_high"]) != (other["ci_low"], other["ci_high"])


def test_arm_summary():
    """One arm: counts over its own answers, a clustered interval, speed and failures."""
    clips = clip_rows()
    outcomes = [outcome("a", c["clip_id"], i % 3, deletions=1, insertions=2) for i, c in enumerate(clips[:-1])]
    outcomes += [failed("a", clips[-1]["clip_id"]), outcome("b", "s0-0", 10)]
    summary = arm_summary(frame(outcomes), frame(clips), frame(timed(clips)), "a")
    assert (summary.clips, summary.failures, summary.words) == (50, 1, 490)
    assert (summary.substitutions, summary.deletions, summary.insertions) == (48, 49, 98)
    assert summary.wer == pytest.approx(195 / 490)
    assert summary.wer_low < summary.wer < summary.wer_high
    assert (summary.clusters, summary.cluster_kind, summary.confidence) == (10, "speaker", 0.95)
    assert summary.cer == pytest.approx(48 / 1960)
    assert summary.latency_p50_ms == pytest.approx(40 * (1 + 0.01 * 9.5))
    assert summary.latency_p95_ms > summary.latency_p50_ms
    assert (summary.rtfx, summary.peak_rss_mb) == (pytest.approx(25.0), 700.0)


def test_arm_summary_without_operations():
    """No figures of time or memory: they are empty, the rest stands."""
    clips = clip_rows()
    summary = arm_summary(frame([outcome("b", c["clip_id"]) for c in clips]), frame(clips), frame([]), "b")
    assert (summary.latency_p50_ms, summary.latency_p95_ms, summary.rtfx, summary.peak_rss_mb) == (None,) * 4
    assert (summary.wer, summary.wer_low) == (0.0, 0.0)
    assert summary.wer_high == pytest.approx(math.log(20) / 500)
