"""A pair over time: its figures run by run, and what else changed between two runs.

Knows nothing about pages. WER is a fraction, latencies are milliseconds, RTFx is
seconds of audio per second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.frames import RunData, conform, facts
from reports.rates import RATES

if TYPE_CHECKING:
    from collections.abc import Mapping

PAIR: Final = ("arm_a", "arm_b", "dataset")
_TIME: Final = pl.Datetime("us", "UTC")
# What identifies a question; the last one is the hash of all of them and of the settings.
_IDENTITY: Final[Mapping[str, str]] = {
    "dataset_fingerprint": "the data",
    "revision_a": "the first model",
    "revision_b": "the second model",
    "run_key": "the settings",
}
_METRICS: Final = ("latency_p50", "rtfx")


def history(comparisons: pl.DataFrame, runs: pl.DataFrame, models: pl.DataFrame | None = None) -> pl.DataFrame:
    """Comparisons of all runs, each with when its run started and what it was about.

    Args:
        comparisons: table ``comparisons`` of all runs.
        runs: table ``runs`` of all runs.
        models: table ``models`` of all runs.

    Returns:
        The comparisons with ``at, dataset, dataset_fingerprint, run_key, revision_a, revision_b``, oldest first.
    """
    started = (
        conform(runs, "runs")
        .filter(pl.col("state") == "started")
        .select("run_id", "at", "dataset", "dataset_fingerprint", "run_key")
        .unique("run_id", keep="last")
    )
    found = conform(comparisons, "comparisons").join(started, on="run_id", how="left")
    used = conform(models, "models").select("run_id", "arm", "revision")
    for arm in ("a", "b"):
        mine = used.filter(pl.col("arm") == arm).select("run_id", pl.col("revision").alias(f"revision_{arm}"))
        found = found.join(mine.unique("run_id", keep="last"), on="run_id", how="left")
    return found.sort("at", "run_id", "metric", nulls_last=True)


def _wide(past: pl.DataFrame) -> pl.DataFrame:
    """One row per run: the comparison that carries its verdict, with other metrics of both arms beside it."""
    frame = conform(past, "comparisons")
    columns: dict[str, Any] = {"at": _TIME, "dataset": pl.String, **dict.fromkeys(_IDENTITY, pl.String)}
    for name, kind in columns.items():
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, dtype=kind).alias(name))
    rows = frame.filter(pl.col("metric").is_in(list(RATES)) & pl.col("at").is_not_null()).unique("run_id", keep="last")
    for metric in _METRICS:
        other = frame.filter(pl.col("metric") == metric).unique("run_id", keep="last")
        values = other.select("run_id", pl.col("a").alias(f"{metric}_a"), pl.col("b").alias(f"{metric}_b"))
        rows = rows.join(values, on="run_id", how="left")
    return rows.sort("at", "run_id")


def _changed(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with ``changed``: what is not what it was in the run before; empty in the first."""
    texts: list[str] = []
    before: dict[str, Any] | None = None
    for row in rows.select(list(_IDENTITY)).to_dicts():
        was = before or row
        found = [
            text for name, text in _IDENTITY.items() if None not in (row[name], was[name]) and row[name] != was[name]
        ]
        # Everything that changes the data or a model changes the key as well; alone it means the settings.
        texts.append(", ".join(found[:-1] if len(found) > 1 and row["run_key"] != was["run_key"] else found))
        before = row
    return rows.with_columns(changed=pl.Series(texts, dtype=pl.String))


def trend(past: pl.DataFrame, data: RunData) -> pl.DataFrame:
    """The same pair on the same dataset over all runs, oldest first, one row per run.

    Args:
        past: comparisons of all runs, of :func:`history`; only ``at`` is needed, other columns may be missing.
        data: the run whose pair and dataset are followed.

    Returns:
        The columns of ``comparisons`` for what carries the verdict, ``at``, ``latency_p50_a``, ``latency_p50_b``,
        ``rtfx_a``, ``rtfx_b`` and ``changed``.
    """
    mine = facts(data)
    same = (pl.col("arm_a") == mine.names[0]) & (pl.col("arm_b") == mine.names[1])
    if "dataset" in past.columns:
        same &= pl.col("dataset") == mine.dataset
    return _changed(_wide(past).filter(same & (pl.col("metric") == data.rate.key)))


def pairs(past: pl.DataFrame) -> dict[tuple[str, str, str], pl.DataFrame]:
    """Every pair on every dataset with its runs, oldest first, as :func:`trend` gives them."""
    rows = _wide(past)
    found = rows.partition_by(*PAIR, as_dict=True, maintain_order=True)
    # A dataset that was once asked about otherwise goes on with what was asked last.
    last = {pair: part.filter(pl.col("metric") == part["metric"][-1]) for pair, part in found.items()}
    return {(str(a), str(b), str(dataset or "")): _changed(part) for (a, b, dataset), part in last.items()}
