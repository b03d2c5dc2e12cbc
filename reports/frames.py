"""The rows of one run as the frames a report needs: pairs, slices, confusions, latencies, trend.

Knows nothing about HTML or where the rows are stored. WER is a fraction, times
are milliseconds where a name says so. Every frame is sorted explicitly: Polars
does not promise the order of joins and groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from grym.schema import TABLES
from reports.formats import read_json
from reports.rates import ACCURACY, RATES, WER, Rate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

ARMS: Final = ("a", "b")
EDITS: Final = ("substitutions", "deletions", "insertions")
_TYPES: Final[Mapping[str, Any]] = {
    "text": pl.String(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "time": pl.Datetime("us", "UTC"),
}


def conform(frame: pl.DataFrame | None, table: str) -> pl.DataFrame:
    """The frame with every column of the table: rows of an older version get empty values.

    Args:
        frame: stored rows; ``None`` means there are none. Other columns are kept.
        table: a name in :data:`grym.schema.TABLES`.
    """
    columns = {column.name: _TYPES[column.type] for column in TABLES[table].columns}
    if frame is None:
        return pl.DataFrame(schema=columns)
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in columns.items() if name not in frame.columns]
    typed = [
        pl.col(name).cast(kind, strict=False)
        for name, kind in columns.items()
        if name in frame.columns and (kind != _TYPES["time"] or frame[name].dtype == pl.Null)
    ]
    return frame.with_columns(*typed, *missing)


@dataclass(frozen=True, slots=True)
class RunData:
    """All stored rows of one run.

    Attributes:
        run_id: the run.
        tables: frames by the names in :data:`grym.schema.TABLES`, each holding this run's rows only.
    """

    run_id: str
    tables: Mapping[str, pl.DataFrame]

    def table(self, name: str) -> pl.DataFrame:
        """The table with all its columns; empty if the run has none."""
        return conform(self.tables.get(name), name)

    def comparison(self, metric: str) -> dict[str, Any]:
        """The comparison of one metric as a dict; every value is ``None`` if there is none."""
        rows = self.table("comparisons").filter(pl.col("metric") == metric).to_dicts()
        return rows[0] if rows else dict.fromkeys(column.name for column in TABLES["comparisons"].columns)

    @property
    def main(self) -> dict[str, Any]:
        """The comparison that carries the verdict: of the word error rate or of label accuracy."""
        found = next((row for row in map(self.comparison, RATES) if row["metric"] is not None), None)
        return self.comparison("wer") if found is None else found

    @property
    def rate(self) -> Rate:
        """What its verdict is about."""
        task = self.table("runs")["task"].drop_nulls().to_list()
        return ACCURACY if self.main["metric"] == "accuracy" or "classify" in task else WER


@dataclass(frozen=True, slots=True)
class Facts:
    """Who was compared, on what, and when; ``labels`` tells the arms apart even in an A/A run."""

    flow: str
    dataset: str
    fingerprint: str
    names: tuple[str, str]
    labels: tuple[str, str]
    started: datetime | None
    finished: datetime | None
    normalizer: str
    options: Mapping[str, Any]
    versions: Mapping[str, Any]
    hardware: Mapping[str, Any]
    flow_run_id: str
    task: str = "transcribe"
    group: str = ""


def labels(a: str, b: str) -> tuple[str, str]:
    """Names that tell the arms apart.

    Example:
        >>> labels("mini", "mini-int8"), labels("mini", "mini")
        (('mini', 'mini-int8'), ('mini (A)', 'mini (B)'))
    """
    return (a, b) if a != b else (f"{a} (A)", f"{b} (B)")


def facts(data: RunData) -> Facts:
    """The run's own description, from its states and comparisons."""
    states = {row["state"]: row for row in data.table("runs").sort("at").to_dicts()}
    row = states.get("started") or states.get("finished") or {}
    pair = data.main
    a, b = (row.get(f"arm_{arm}") or pair[f"arm_{arm}"] or arm.upper() for arm in ARMS)
    used = data.table("outcomes")["normalizer"].drop_nulls().unique().sort().to_list()
    return Facts(
        flow=row.get("flow") or "compare",
        dataset=row.get("dataset") or "",
        fingerprint=row.get("dataset_fingerprint") or "",
        names=(a, b),
        labels=labels(a, b),
        started=states.get("started", {}).get("at"),
        finished=states.get("finished", {}).get("at"),
        normalizer=", ".join(name for name in used if name),
        options=read_json(row.get("options")),
        versions=read_json(row.get("versions")),
        hardware=read_json(row.get("hardware")),
        flow_run_id=row.get("flow_run_id") or "",
        task=row.get("task") or "transcribe",
        # The command that finished the run says with which others it belongs.
        group=(states.get("finished") or row).get("run_group") or "",
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asked for: flow, models and dataset as typed, which may be the path of a manifest."""

    flow: str
    a: str
    b: str
    dataset: str
    task: str = ""


def asked(data: RunData) -> Asked:
    """The question as typed; where a run did not store it, the names it used."""
    known = facts(data)
    used = {"a": known.names[0], "b": known.names[1], "dataset": known.dataset}
    typed = {name: str(known.options.get(name) or value) for name, value in used.items()}
    return Asked(known.flow, **typed, task="classify" if known.task == "classify" else "")


def paired(data: RunData) -> pl.DataFrame:
    """One row per clip both arms answered: ``words, characters``, and per arm errors of both and each kind of edit."""
    answered = data.table("outcomes").filter(pl.col("status") == "ok")
    frame = data.table("clips").select("clip_id", "key", "speaker", "slices", "seconds")
    for arm in ARMS:
        mine = answered.filter(pl.col("arm") == arm).select(
            "clip_id",
            pl.col("reference_words").fill_null(0).alias(f"words_{arm}"),
            pl.sum_horizontal(pl.col(*EDITS).fill_null(0)).alias(f"errors_{arm}"),
            *(pl.col(edit).fill_null(0).alias(f"{edit}_{arm}") for edit in EDITS),
            pl.col("reference_characters").fill_null(0).alias(f"characters_{arm}"),
            pl.col("character_errors").fill_null(0).alias(f"character_errors_{arm}"),
        )
        frame = frame.join(mine, on="clip_id", how="inner")
    named = frame.rename({"words_a": "words", "characters_a": "characters"}).drop("words_b", "characters_b")
    return named.with_columns(pl.col("speaker").fill_null("").str.strip_chars()).sort("key", "clip_id")


def by_speaker(pairs: pl.DataFrame) -> bool:
    """Whether every clip has a speaker, so that speakers are what is independent (as in the verdict)."""
    return pairs.height > 0 and bool((pairs["speaker"] != "").all())


def confidence(data: RunData) -> float:
    """Level of the run's intervals."""
    stored = data.main["confidence"] or facts(data).options.get("confidence")
    return float(stored) if isinstance(stored, int | float) and 0.5 < stored < 1 else 0.95  # noqa: PLR2004 - as checked


def edit_totals(data: RunData) -> dict[str, tuple[int, int]]:
    """Substitutions, deletions and insertions of both arms over the pairs."""
    pairs = paired(data)
    return {edit: (int(pairs[f"{edit}_a"].sum()), int(pairs[f"{edit}_b"].sum())) for edit in EDITS}


def confusions(data: RunData, limit: int = 15) -> pl.DataFrame:
    """The most frequent word errors over the pairs: ``operation, reference, hypothesis, a, b``."""
    pairs = paired(data).select("clip_id")
    words = data.table("words").filter(pl.col("operation") != "ok").join(pairs, on="clip_id", how="semi")
    return (
        words.group_by("operation", "reference", "hypothesis")
        .agg((pl.col("arm") == arm).sum().alias(arm) for arm in ARMS)
        .sort(
            pl.max_horizontal("a", "b"), pl.col("a") + pl.col("b"), "reference", "hypothesis", "operation",
            descending=[True, True, False, False, False],
        )
        .head(limit)
    )  # fmt: skip


def latencies(data: RunData) -> pl.DataFrame:
    """Calls of the latency pass that answered: ``arm, seconds`` of audio and ``ms`` as the caller saw them."""
    return (
        data.table("operations")
        .filter((pl.col("pass") == "latency") & (pl.col("status") == "ok") & pl.col("wall_seconds").is_not_null())
        .select("arm", "call", pl.col("audio_seconds").alias("seconds"), (1000 * pl.col("wall_seconds")).alias("ms"))
        .sort("arm", "ms", "call")
    )


def failures(data: RunData) -> pl.DataFrame:
    """Answers that are missing or were held back, by arm and reason, with one message as an example."""
    return (
        data.table("outcomes")
        .filter(pl.col("status") != "ok")
        .sort("arm", "clip_id")
        .group_by("arm", "status", "error_category", "error_code", maintain_order=True)
        .agg(pl.len().alias("clips"), pl.col("error_message").first())
        .sort("arm", "clips", "error_code", descending=[False, True, False])
    )


def broken_rules(data: RunData) -> pl.DataFrame:
    """Rules that failed or could not be evaluated, one row per suite and rule."""
    return (
        data.table("quality")
        .filter(pl.col("status") != "pass")
        .sort("suite", "rule", "subject")
        .group_by("suite", "rule", "severity", "status", maintain_order=True)
        .agg(
            pl.len().alias("batches"),
            pl.col("subject").first(),
            pl.col("evaluated", "unexpected").sum(),
            pl.col("observed", "reason").first(),
        )
        .sort("suite", "rule", "severity", "status")
    )


def quarantine_counts(data: RunData) -> pl.DataFrame:
    """How many rows were quarantined, by stage and code."""
    return (
        data.table("quarantine")
        .group_by("stage", "code", "severity")
        .agg(pl.len().alias("rows"))
        .sort("rows", "stage", "code", "severity", descending=[True, False, False, False])
    )
