"""Labels: what is right, how two arms differ by it, and the sentence about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest

from grym.compare.accuracy import accuracy_rows, compare_labels, share_difference
from grym.compare.exact_tests import mcnemar
from grym.compare.label_wording import accuracy_sentence
from grym.compare.labels import known_labels, labels_of, score_labels
from grym.compare.task import Classify, Transcribe, make_task, require_able
from grym.compare.wording import Facts
from grym.config import CompareSettings, DatasetSpec
from grym.corpus.manifest import Dataset, Entry
from grym.errors import ConfigError, ManifestError
from grym.models.interface import Answer, Card

SPEC = DatasetSpec(name="sounds", loader="manifest", path=Path("m.csv"), task="classify", train="more")
NAMES = {"a": "old", "b": "new"}


def entry(key: str, label: str | None, text: str = "It sounds.") -> Entry:
    """A clip with a label column, or without."""
    return Entry(key, Path(f"{key}.wav"), f"{key}.wav", text, slices={} if label is None else {"label": label})


def test_labels_are_read_as_they_are_asked() -> None:
    """Mixtures are split and sorted, underscores are spaces, a text serves where there is no column."""
    assert labels_of(entry("a", "siren+door_knock"), SPEC) == ("door knock", "siren")
    assert labels_of(entry("b", None, "dog bark"), SPEC) == ("dog bark",)
    assert known_labels([entry("a", "siren+rain"), entry("b", "rain")], SPEC) == ("rain", "siren")
    with pytest.raises(ManifestError, match="no label in column 'label'"):
        labels_of(entry("c", " + "), SPEC)


def test_as_many_labels_count_as_are_right() -> None:
    """The most probable ones; a text without probabilities counts by itself."""
    scores = {"bell": 0.5, "rain": 0.3, "siren": 0.2}
    both = score_labels(("rain", "bell"), "bell", scores)
    assert (both.predicted, both.correct, both.any_correct) == (("bell", "rain"), True, True)
    half = score_labels(("bell", "siren"), "bell", scores)
    assert (half.correct, half.any_correct) == (False, True)
    assert score_labels(("door knock",), "door_knock", {}).correct
    assert not score_labels(("bell",), "a bell, I think", {}).any_correct


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (5, 0), (17, 2), (33, 35)])
def test_paired_accuracies_have_the_exact_p_and_an_interval_that_holds_it(won: int, lost: int) -> None:
    """McNemar's p is scipy's binomial one; the interval is Bonett and Price's, written out here."""
    n = 100
    a = np.array([False] * won + [True] * (n - won))
    b = np.array([True] * won + [False] * lost + [True] * (n - won - lost))
    d = share_difference(a, b, range(n), "clip", 0.95)
    assert d.p_value == pytest.approx(binomtest(won, won + lost).pvalue if won + lost else 1.0)
    assert d.difference == pytest.approx((won - lost) / n)
    p, q = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = 1.959963985 * np.sqrt((p + q - (p - q) ** 2) / (n + 2))
    assert (d.ci_low, d.ci_high) == pytest.approx((p - q - half, p - q + half))
    assert d.ci_low < d.inner_low < d.inner_high < d.ci_high


def test_speakers_are_what_is_independent_where_they_are_known() -> None:
    """Twelve clips of six people are six observations."""
    right = np.array([1, 0] * 6)
    d = share_difference(right, np.ones(12), [f"s{i // 2}" for i in range(12)], "speaker", 0.95)
    assert (d.clusters, d.difference, d.method) == (6, 0.5, "speaker-clustered t")


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Over simulated pairs with a known difference, few discordant ones included."""
    rng = np.random.default_rng(5)
    for p_won, p_lost in ((0.02, 0.02), (0.1, 0.03)):
        hits = 0
        for _ in range(600):
            draw = rng.random(120)
            a, b = draw >= p_won, ~((draw >= p_won) & (draw < p_won + p_lost))
            d = share_difference(a, b, range(120), "clip", 0.95)
            hits += d.ci_low <= p_won - p_lost <= d.ci_high
        assert hits / 600 > 0.93


def tables(rows: list[tuple[str, str, bool, bool, dict[str, str]]], **failed: str) -> dict[str, pl.DataFrame]:
    """Outcomes of clips: key, labels, whether a and b are right, slices; ``failed`` gives b a failure class."""
    outcomes = [
        {"arm": arm, "clip_id": key, "status": "ok", "label": label, "predicted": label if right else "wind",
         "correct": right, "any_correct": right, "failure": failed.get(key, "") if arm == "b" else "",
         "normalizer": "labels"}
        for key, label, *rights, _ in rows for arm, right in zip("ab", rights, strict=True)
    ]  # fmt: skip
    clips = [
        {"clip_id": key, "key": key, "slices": json.dumps({"label": label, **slices})}
        for key, label, *_, slices in rows
    ]
    return {"outcomes": pl.DataFrame(outcomes), "clips": pl.DataFrame(clips), "operations": pl.DataFrame()}


def run_of(**failed: str) -> dict[str, pl.DataFrame]:
    """Forty clips with one label of which b is right twelve times more, and ten mixtures."""
    rows = [
        (f"c{i:02}", "rain" if i % 2 else "bell", i >= 12, True, {"snr": "10" if i < 20 else "20"}) for i in range(40)
    ]
    rows += [(f"m{i}", "bell + rain", i < 5, i < 4, {"snr": "10"}) for i in range(10)]
    return tables(rows, **failed)


def compared(found: dict[str, pl.DataFrame]) -> dict[str, dict[str, Any]]:
    """Rows of comparisons by metric."""
    rows = compare_labels(found, names=NAMES, run_id="r", confidence=0.95, margin=0.02, seed=7)
    return {row["metric"]: row for row in rows}


def test_the_verdict_rests_on_single_events_and_mixtures_stand_beside_it() -> None:
    """Accuracy over forty clips, mixtures over ten, and the sentence names the clips that only one arm got right."""
    rows = compared(run_of())
    assert list(rows)[:3] == ["accuracy", "accuracy_mixtures", "any_of_mixtures"]
    main, mixed = rows["accuracy"], rows["accuracy_mixtures"]
    assert (main["clips"], main["a"], main["b"], main["verdict"]) == (40, 0.7, 1.0, "b better")
    assert main["p_value"] == pytest.approx(2 * 0.5**12)
    assert (mixed["clips"], mixed["a"], mixed["b"], mixed["verdict"]) == (10, 0.5, 0.4, "cannot tell")
    assert main["sentence"].startswith("new is better than old: it names the right label in 100.0 % of 40 clips")
    assert "12 clips that only new got right against 0, p = 0.00049" in main["sentence"]
    assert rows["failures"]["a"] == 0


def test_failure_classes_are_counted_with_and_without() -> None:
    """A clip that b refused counts in the accuracy, and is left out of both arms in the clean one."""
    rows = compared(run_of(c30="refusal"))
    assert (rows["accuracy"]["clips"], rows["accuracy_clean"]["clips"]) == (40, 39)
    assert "accuracy_clean" not in compared(run_of())


def test_too_many_clips_without_an_answer_make_no_verdict() -> None:
    """More than a twentieth is missing: the clips that are left may be the easy ones."""
    found = run_of()
    lost = pl.col("clip_id").is_in(["c00", "c01", "c02"]) & (pl.col("arm") == "a")
    outcomes = found["outcomes"].with_columns(
        status=pl.when(lost).then(pl.lit("failed")).otherwise("status"),
        correct=pl.when(lost).then(None).otherwise("correct"),
    )
    main = compared({**found, "outcomes": outcomes})["accuracy"]
    assert main["verdict"] == "cannot tell"
    assert "old did not answer 3 of 50 clips" in main["sentence"]


def test_parts_of_a_run_are_tested_together() -> None:
    """Events, labels and slices with McNemar's counts; p-values are corrected over those that were tested."""
    rows = {(row["slice"], row["value"]): row for row in accuracy_rows(run_of(), label="label", confidence=0.95)}
    assert set(rows) == {
        ("events", "one"), ("events", "several"), ("label", "bell"), ("label", "rain"), ("snr", "10"), ("snr", "20"),
    }  # fmt: skip
    assert (rows["events", "one"]["p_value"], rows["events", "several"]["any_right_a"]) == (None, 5)
    bell = rows["label", "bell"]
    assert (bell["clips"], bell["right_a"], bell["only_b_right"], bell["both_right"]) == (20, 14, 6, 14)
    assert (rows["snr", "10"]["only_b_right"], rows["snr", "10"]["stands_out"]) == (12, True)
    # Four tests: the smallest p-value is multiplied by four.
    assert rows["snr", "10"]["adjusted"] == pytest.approx(4 * 2 * 0.5**12)
    assert rows["snr", "20"]["p_value"] == 1.0
    many = run_of()
    many["clips"] = pl.DataFrame([
        {**row, "slices": json.dumps({"question": f"number {i}"})} for i, row in enumerate(many["clips"].to_dicts())
    ])  # fmt: skip
    assert {row["slice"] for row in accuracy_rows(many, label="label", confidence=0.95)} == {"events", "label"}


def test_every_verdict_is_a_plain_sentence() -> None:
    """Better, equivalent and cannot tell, each with its reason."""
    facts = Facts("old", "new", 400, 0, 0, 400, units=400)

    def said(won: int, lost: int, n: int, verdict: Any, margin: float = 0.02) -> str:
        a = np.array([0] * won + [1] * (n - won))
        b = np.array([1] * won + [0] * lost + [1] * (n - won - lost))
        d = share_difference(a, b, range(n), "clip", 0.95)
        return accuracy_sentence("accuracy", verdict, d, margin, replace(facts, units=n), mcnemar(1 - a, 1 - b))

    assert "old is better than new: it names the right label in 100.0 %" in said(0, 20, 400, "a better")
    assert "20 clips that only old got right against 0, p < 0.0001" in said(0, 20, 400, "a better")
    assert said(0, 0, 400, "equivalent").endswith("inside the margin of 2 points.")
    assert "no clip that only new or only old got right" in said(0, 0, 400, "equivalent")
    assert "the 90 % interval" in said(6, 4, 330, "equivalent")
    assert said(6, 4, 100, "cannot tell").endswith("includes zero and reaches beyond the margin of 2 points.")
    assert said(1, 0, 4, "cannot tell").endswith("4 clips are too few, at least 6 are needed.")
    assert said(1, 0, 0, "cannot tell") == "Cannot tell old and new apart: no clip was answered by both."


def test_a_dataset_says_what_is_asked() -> None:
    """The task, its labels from the training clips, and what makes it impossible."""
    settings = CompareSettings()
    clips = Dataset("sounds", Path(), (entry("a", "rain"), entry("b", "bell+rain")), ())
    training = Dataset("more", Path(), (entry("t", "rain"), entry("u", "bell"), entry("v", "siren")), ())
    task = make_task("classify", SPEC, clips, training, settings)
    assert isinstance(task, Classify)
    assert task.options().labels == ("bell", "rain", "siren")
    assert (task.options().task, task.metric) == ("classify", "accuracy")
    assert isinstance(make_task("transcribe", SPEC, clips, None, settings), Transcribe)
    with pytest.raises(ConfigError, match="siren") as caught:
        make_task("classify", SPEC, training, clips, settings)
    assert caught.value.code == "unknown-label"
    with pytest.raises(ConfigError) as caught:
        make_task("classify", SPEC, Dataset("s", Path(), (entry("a", "rain"),), ()), None, settings)
    assert caught.value.code == "too-few-labels"


def test_an_answer_is_scored_with_its_failure_class() -> None:
    """A text that is none of the labels is wrong and of another task; a refusal is one for every model."""
    clips = Dataset("sounds", Path(), (entry("a", "rain"), entry("b", "bell")), ())
    task = make_task("classify", SPEC, clips, None, CompareSettings())
    scores = {"rain": 0.7, "bell": 0.3}
    good, words = task.score(clips.entries[0], Answer("a", "rain", 0.7, scores=scores))
    assert (good["correct"], good["failure"], good["predicted"], words) == (True, "", "rain", ())
    assert json.loads(good["label_scores"]) == scores
    for text, failure in (("thunder", "wrong-task"), ("I am sorry, I cannot hear it.", "refusal"), ("", "empty")):
        row, _ = task.score(clips.entries[0], Answer("a", text, 0.1))
        assert (row["correct"], row["failure"]) == (False, failure)
    spoken = Transcribe(CompareSettings())
    row, aligned = spoken.score(entry("s", None, "one two"), Answer("s", "one", 0.9))
    assert (row["deletions"], row["failure"], len(aligned)) == (1, "", 2)
    assert (
        spoken.score(entry("s", None, "one"), Answer("s", "The audio contains a man.", 0.9))[0]["failure"]
        == "wrong-task"
    )


def test_a_model_that_can_neither_answer_nor_be_probed_is_refused() -> None:
    """It says what the model can do."""
    card = Card("deaf", "1", "fake", tasks=("describe",))
    for task in ("transcribe", "classify"):
        with pytest.raises(ConfigError, match="it can describe") as caught:
            require_able(card, task)  # type: ignore[arg-type]
        assert caught.value.code == f"cannot-{task}"
    require_able(replace(card, tasks=("features",), feature_dim=8), "classify")
