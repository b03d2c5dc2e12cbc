"""What a page shows of a run whose models named labels, and the failure classes of any run.

Knows nothing about pages. Accuracies are fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from grym.models.failures import FAILURES
from reports.clips import AUDIO_LIMIT, AudioSource, Sound, anchor, heard_within
from reports.formats import count, percent, read_json, shortened
from reports.frames import ARMS, EDITS, RunData

if TYPE_CHECKING:
    from collections.abc import Mapping

_EVENTS: Final = "events"
_SHOWN: Final = 3  # probabilities of an answer


def failure_counts(data: RunData) -> pl.DataFrame:
    """Answers with a failure class: ``failure, a, b`` and how many of them are wrong, ``wrong_a, wrong_b``.

    Wrong is an answer with a word error, or without all its labels. Classes in their usual order, those that do not
    occur left out.
    """
    failed = data.table("outcomes").filter((pl.col("status") == "ok") & (pl.col("failure").fill_null("") != ""))
    wrong = (pl.sum_horizontal(pl.col(*EDITS).fill_null(0)) > 0) | ~pl.col("correct").fill_null(value=True)
    mine = {arm: pl.col("arm") == arm for arm in ARMS}
    counted = failed.group_by("failure").agg(
        *(mine[arm].sum().cast(pl.Int64).alias(arm) for arm in ARMS),
        *((mine[arm] & wrong).sum().cast(pl.Int64).alias(f"wrong_{arm}") for arm in ARMS),
    )
    order = {kind: place for place, kind in enumerate(FAILURES)}
    places = [order.get(kind, len(order)) for kind in counted["failure"]]
    return counted.with_columns(_place=pl.Series(places, dtype=pl.Int64)).sort("_place", "failure").drop("_place")


def probe_sentence(row: Mapping[str, Any]) -> str:
    """What a row of table ``probes`` means for a reader."""
    return (
        f"{row['model']} names no labels itself: a linear probe on its features answers for it. It was fitted on "
        f"{count(row['clips'] or 0, 'clip')} of {row['trained_on']} and on nothing else; held-out parts of them it got "
        f"right in {percent(row['cv_accuracy'], 1)} %."
    )


def accuracy_slices(data: RunData) -> pl.DataFrame:
    """Table ``accuracies`` without the row on the number of events, with the columns of :func:`reports.slices.slices`.

    ``wer_a`` and ``wer_b`` are accuracies and ``words`` clips, so that the same charts serve both.
    """
    rows = data.table("accuracies").filter(pl.col("slice") != _EVENTS)
    return rows.select(
        "slice", "value", "clips", pl.col("clips").alias("words"), pl.col("clips").alias("units"),
        pl.lit("clip").alias("unit"), pl.col("accuracy_a").alias("wer_a"), pl.col("accuracy_b").alias("wer_b"),
        "difference", pl.col("ci_low").alias("low"), pl.col("ci_high").alias("high"), "p_value", "adjusted",
        pl.col("stands_out").fill_null(value=False), "only_a_right", "only_b_right",
    ).sort("slice", pl.min_horizontal("wer_a", "wer_b"), "value")  # fmt: skip


def events(data: RunData) -> list[dict[str, Any]]:
    """One row for clips with one label and one for mixtures, as far as there are any."""
    rows = data.table("accuracies").filter(pl.col("slice") == _EVENTS).sort("value")
    titles = {"one": "One label", "several": "Mixtures"}
    return [row | {"title": titles.get(row["value"], row["value"])} for row in rows.to_dicts()]


def mistaken(data: RunData, limit: int = 15) -> pl.DataFrame:
    """Which label was taken for which, over the clips both answered: ``label, predicted, a, b``, frequent first."""
    answered = data.table("outcomes").filter((pl.col("status") == "ok") & pl.col("correct").is_not_null())
    both = answered.group_by("clip_id").agg(pl.col("arm").n_unique()).filter(pl.col("arm") == len(ARMS))
    wrong = answered.filter(~pl.col("correct")).join(both, on="clip_id", how="semi")
    return (
        wrong.group_by("label", "predicted")
        .agg((pl.col("arm") == arm).sum().cast(pl.Int64).alias(arm) for arm in ARMS)
        .sort(pl.max_horizontal("a", "b"), pl.col("a") + pl.col("b"), "label", "predicted",
              descending=[True, True, False, False])
        .head(limit)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelAnswer:
    """One arm's answer to one clip: what it predicted, whether that is right, and its most probable labels."""

    arm: str
    status: str
    predicted: str
    correct: bool | None
    said: str
    scores: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """A clip to hear, with its right labels and both answers; ``silence`` says why it has no sound."""

    clip_id: str
    key: str
    seconds: float | None
    label: str
    text: str
    part: str
    answers: tuple[LabelAnswer, ...]
    sound: Sound | None
    silence: str

    @property
    def anchor(self) -> str:
        """Where on the page it is."""
        return anchor(self.clip_id)


def labelled_clips(
    data: RunData, *, limit: int = 12, audio: AudioSource | None = None, audio_limit: int = AUDIO_LIMIT
) -> list[LabelledClip]:
    """The clips to hear: those that only one arm got right, then those that both got wrong.

    Args:
        data: the run.
        limit: how many clips; of each kind at least half as many, if there are.
        audio: gives the encoded file of a clip id, or ``None``.
        audio_limit: bytes that all sounds together may take.
    """
    outcomes = data.table("outcomes").filter(pl.col("correct").is_not_null() | (pl.col("status") != "ok"))
    rows = {(row["clip_id"], row["arm"]): row for row in outcomes.to_dicts()}
    clips = {row["clip_id"]: row for row in data.table("clips").sort("key").to_dicts()}
    kinds: dict[str, list[str]] = {"Clips that only one arm got right": [], "Clips that both got wrong": []}
    for clip_id in clips:
        right = [bool((rows.get((clip_id, arm)) or {}).get("correct")) for arm in ARMS]
        if right[0] != right[1]:
            kinds["Clips that only one arm got right"].append(clip_id)
        elif not any(right):
            kinds["Clips that both got wrong"].append(clip_id)
    (first, apart), (second, hard) = kinds.items()
    some = apart[: max((limit + 1) // 2, limit - len(hard))]
    chosen = [*((first, clip_id) for clip_id in some), *((second, clip_id) for clip_id in hard[: limit - len(some)])]
    left = audio_limit
    found = []
    for part, clip_id in chosen:
        heard, silence = heard_within(clip_id, audio, left)
        left -= len(heard.uri) if heard else 0
        clip = clips[clip_id]
        answers = tuple(_answer(arm, rows.get((clip_id, arm))) for arm in ARMS)
        label = next((row["label"] for arm in ARMS if (row := rows.get((clip_id, arm))) and row["label"]), "")
        found.append(
            LabelledClip(
                clip_id=clip_id,
                key=shortened(clip["key"] or clip_id[:12]),
                seconds=clip["seconds"],
                label=shortened(label or clip["reference"] or ""),
                text=shortened(clip["reference"] or "", 300),
                part=part,
                answers=answers,
                sound=heard,
                silence=silence,
            )
        )
    return found


def _answer(arm: str, row: Mapping[str, Any] | None) -> LabelAnswer:
    if row is None or row["status"] != "ok":
        reason = (row or {}).get("error_message") or "no row was stored"
        return LabelAnswer(arm, "failed", "", None, f"no answer: {shortened(reason)}", ())
    scores = {str(k): float(v) for k, v in read_json(row["label_scores"]).items() if isinstance(v, int | float)}
    best = tuple(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN])
    return LabelAnswer(
        arm, "ok", shortened(row["predicted"] or ""), row["correct"], shortened(row["hypothesis"] or ""), best
    )
