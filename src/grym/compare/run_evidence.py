"""What stands behind the verdict of a run: from its tables to rows of looks, analyses, blame, radar, tests and noise.

Knows nothing about how clips were answered or where rows are stored. Only clips
that both arms answered count. Rates are fractions, differences b - a.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import polars as pl

from grym.compare import frames
from grym.compare.blame import blame
from grym.compare.early_stop import Look, look
from grym.compare.fragility import Choice, Written, fragility
from grym.compare.further_tests import further_rows
from grym.compare.heard import Heard
from grym.compare.noise import noise_floor
from grym.compare.radar import radar
from grym.compare.score import Aligned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grym.compare.blame import Part

Row = dict[str, Any]


def look_at(outcomes: pl.DataFrame, clips: pl.DataFrame, *, planned: int, confidence: float, margin: float) -> Look:
    """Look at what a run that may stop early has landed so far; see :mod:`grym.compare.early_stop`.

    Args:
        outcomes: rows of table ``outcomes``.
        clips: rows of table ``clips``, which may hold more than was answered.
        planned: clips that would be answered without a stop.
        confidence: level of the sequence.
        margin: equivalence margin as a fraction.
    """
    pairs = frames.answered_by_both(outcomes)
    labels = frames.clusters_of(clips, outcomes).labels(pairs)
    first, second, units = (pairs[name] for name in ("errors", "errors_b", "reference_words"))
    return look(first, second, units, labels, planned=planned, confidence=confidence, margin=margin)


def look_row(number: int, found: Look, *, decided: bool) -> Row:
    """A row of table ``looks``."""
    d = found.difference
    return {
        "look": number,
        "clips": found.clips,
        "planned": found.planned,
        "reference_words": found.words,
        "differing": found.differing,
        "clusters": d.clusters,
        "a": d.a,
        "b": d.b,
        "difference": d.difference,
        "ci_low": d.ci_low,
        "ci_high": d.ci_high,
        "confidence": d.confidence,
        "p_value": d.p_value,
        "verdict": found.verdict,
        "decided": decided,
    }


def evidence_rows(
    tables: Mapping[str, pl.DataFrame], *, normalizer: str, confidence: float, margin: float, seed: int | None = None
) -> dict[str, list[Row]]:
    """Rows of ``analyses``, ``blame``, ``radar`` and ``tests``; none but radar's without a scored reference word.

    Args:
        tables: ``outcomes``, ``clips`` and ``words`` of one run.
        normalizer: name of the normaliser that the run was scored with.
        confidence: level of the intervals.
        margin: equivalence margin of the WER as a fraction.
        seed: of the bootstrap; ``None`` for a run that may stop early, which has no tests of one look.
    """
    pair = _heard(tables)
    found = blame(pair)
    if found.difference is None:
        return {"analyses": [], "blame": [], "radar": [], "tests": []}
    return {
        "tests": [] if seed is None else _tests(tables, pair, confidence, margin, seed),
        "analyses": _analyses(tables, pair, normalizer, confidence, margin),
        "blame": [_blame_row(part) for part in found.parts],
        "radar": [
            {
                "clip_id": span.clip,
                "position": span.position,
                "kind": span.kind,
                "reference": span.reference,
                "said": span.said,
                "errors": span.errors,
                "reference_words": span.words,
            }
            for span in radar(pair).spans
        ],
    }


def _tests(tables: Mapping[str, pl.DataFrame], pair: Heard, confidence: float, margin: float, seed: int) -> list[Row]:
    found = frames.clusters_of(tables["clips"], frames.conform(tables["outcomes"], "outcomes"))
    labels = found.labels(pl.DataFrame({"clip_id": list(pair.ids)}, schema={"clip_id": pl.String}))
    return further_rows(pair, labels, confidence=confidence, margin=margin, seed=seed)


def noise_rows(repeats: pl.DataFrame, clips: pl.DataFrame, models: Mapping[str, str], confidence: float) -> list[Row]:
    """Rows of ``noise``, one for each arm whose clips were answered at least twice.

    Args:
        repeats: rows of table ``repeats``.
        clips: rows of table ``clips``.
        models: registered names by arm.
        confidence: level of the floor.
    """
    rows = []
    for arm, model in models.items():
        mine = frames.conform(repeats, "repeats").filter(pl.col("arm") == arm)
        count = mine["repeat"].n_unique()
        good = mine.filter((pl.col("status") == "ok") & pl.col("errors").is_not_null())
        every = good.filter(pl.len().over("clip_id") == count).sort("clip_id", "repeat")
        per_clip = every.filter(pl.col("repeat") == pl.col("repeat").min())
        if count < 2 or not per_clip["reference_words"].sum():  # noqa: PLR2004 - a variance needs two
            continue
        errors = every["errors"].to_numpy().reshape(-1, count)
        labels = frames.clusters_of(clips, per_clip.select("clip_id")).labels(per_clip)
        found = asdict(noise_floor(errors, per_clip["reference_words"], labels, confidence))
        found["reference_words"] = found.pop("words")
        del found["rates"]
        rows.append({"arm": arm, "model": model, **found})
    return rows


def _heard(tables: Mapping[str, pl.DataFrame]) -> Heard:
    ids = frames.answered_by_both(tables["outcomes"])["clip_id"].to_list()
    words = frames.conform(tables["words"], "words").filter(pl.col("clip_id").is_in(ids)).sort("clip_id", "position")
    found: dict[str, dict[str, list[Aligned]]] = {"a": {}, "b": {}}
    columns = words.select("arm", "clip_id", "operation", "reference", "hypothesis")
    for arm, clip_id, operation, reference, hypothesis in columns.iter_rows():
        found[arm].setdefault(clip_id, []).append(Aligned(operation, reference or "", hypothesis or ""))
    clips = {row["clip_id"]: row for row in frames.conform(tables["clips"], "clips").to_dicts()}
    slices = {clip: _slices(clips.get(clip, {}).get("slices")) for clip in ids}
    return Heard(
        ids=ids,
        first=[found["a"].get(clip, []) for clip in ids],
        second=[found["b"].get(clip, []) for clip in ids],
        speakers=[(clips.get(clip, {}).get("speaker") or "").strip() for clip in ids],
        slices={
            name: [str(slices[clip].get(name, "")) for clip in ids]
            for name in sorted({name for values in slices.values() for name in values})
        },
    )


def _slices(text: str | None) -> dict[str, Any]:
    try:
        values = json.loads(text or "{}")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _analyses(
    tables: Mapping[str, pl.DataFrame], pair: Heard, normalizer: str, confidence: float, margin: float
) -> list[Row]:
    references = _by_id(frames.conform(tables["clips"], "clips"), "reference")
    outcomes = frames.conform(tables["outcomes"], "outcomes")
    said = {arm: _by_id(outcomes.filter(pl.col("arm") == arm), "hypothesis") for arm in "ab"}
    kind = frames.clusters_of(tables["clips"], outcomes).kind
    written = Written(
        references=[references.get(clip, "") for clip in pair.ids],
        first=[said["a"].get(clip, "") for clip in pair.ids],
        second=[said["b"].get(clip, "") for clip in pair.ids],
        speakers=pair.speakers if kind == "speaker" else (),
    )
    chosen = Choice(normalizer, cluster=kind)
    found = fragility(written, chosen, confidence=confidence, margin=margin)
    return [
        {
            **asdict(analysis.choice),
            "chosen": analysis.choice == chosen,
            "a": d.a,
            "b": d.b,
            "difference": d.difference,
            "ci_low": d.ci_low,
            "ci_high": d.ci_high,
            "p_value": d.p_value,
            "clusters": d.clusters,
            "verdict": analysis.verdict,
            "agrees": analysis.verdict == found.verdict,
        }
        for analysis in found.analyses
        for d in (analysis.difference,)
    ]


def _by_id(frame: pl.DataFrame, column: str) -> dict[str, str]:
    return {clip: text or "" for clip, text in frame.select("clip_id", column).iter_rows()}


def _blame_row(part: Part) -> Row:
    return {
        "dimension": part.dimension,
        "name": part.name,
        "value": part.value,
        "errors_a": part.errors_a,
        "errors_b": part.errors_b,
        "reference_words": part.words,
        "contribution": part.contribution,
        "clips": part.clip_count,
        "examples": json.dumps(list(part.clips)),
    }
