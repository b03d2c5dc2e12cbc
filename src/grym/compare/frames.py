"""From the tables of one run to paired arrays: the only place here that knows columns.

Knows nothing about statistics. Every frame that leaves this module is sorted, so
that results do not depend on the order of rows on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from grym.compare.labels import JOINT
from grym.errors import QualityError
from grym.schema import TABLES

ClusterKind = Literal["speaker", "clip"]

_TYPES: Final[dict[str, pl.DataType]] = {
    "text": pl.String(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "time": pl.Datetime("us", "UTC"),
}
_COUNTS: Final = (
    "reference_words",
    "substitutions",
    "deletions",
    "insertions",
    "reference_characters",
    "character_errors",
)


@dataclass(frozen=True, slots=True)
class Clusters:
    """What is independent in a run: its speakers if every clip has one, else its clips."""

    kind: ClusterKind
    of: pl.DataFrame

    def labels(self, frame: pl.DataFrame) -> npt.NDArray[np.str_]:
        """Cluster of each row of a frame with ``clip_id``, ``shape = (rows,)``."""
        if self.kind == "clip":
            return np.asarray(frame["clip_id"].to_list(), dtype=np.str_)
        joined = frame.select("clip_id").join(self.of, on="clip_id", how="left", maintain_order="left")
        return np.asarray(joined["speaker"].to_list(), dtype=np.str_)


def conform(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """The frame with exactly the columns and types of a table; missing columns are null.

    Reading rows of which all failed gives columns of type Null, and an empty landing zone gives no
    columns at all; both become ordinary empty columns here.
    """
    columns = {column.name: _TYPES[column.type] for column in TABLES[table].columns}
    if not frame.width:
        return pl.DataFrame(schema=columns)
    return frame.select(
        pl.col(name).cast(kind) if name in frame.columns else pl.lit(None, dtype=kind).alias(name)
        for name, kind in columns.items()
    )


def clusters_of(clips: pl.DataFrame, outcomes: pl.DataFrame) -> Clusters:
    """Speakers if every clip of the run has one, else clips."""
    of = conform(clips, "clips").select("clip_id", pl.col("speaker").fill_null("").str.strip_chars()).sort("clip_id")
    every = conform(outcomes, "outcomes").select("clip_id").unique()
    known = of.height > 0 and bool((of["speaker"] != "").all()) and every.join(of, on="clip_id", how="anti").is_empty()
    return Clusters("speaker" if known else "clip", of)


def answered(outcomes: pl.DataFrame, arm: str) -> pl.DataFrame:
    """Scored answers of one arm with their counts and ``errors``, sorted by clip."""
    return (
        conform(outcomes, "outcomes")
        .filter((pl.col("arm") == arm) & (pl.col("status") == "ok") & pl.all_horizontal(pl.col(_COUNTS).is_not_null()))
        .select("clip_id", *_COUNTS, errors=pl.col("substitutions") + pl.col("deletions") + pl.col("insertions"))
        .sort("clip_id")
    )


def answered_by_both(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Clips that both arms answered; the columns of the second arm end in ``_b``. Sorted by clip.

    Raises:
        QualityError: the answers were scored with different normalisers.
    """
    frame = conform(outcomes, "outcomes")
    labels = sorted(frame.filter(pl.col("status") == "ok")["normalizer"].drop_nulls().unique().to_list())
    if len(labels) > 1:
        msg = f"The answers of this run were scored with {len(labels)} normalisers: {', '.join(labels)}."
        raise QualityError(msg, code="mixed-normalizers", hint="Score both arms again with one normaliser.")
    return answered(frame, "a").join(answered(frame, "b"), on="clip_id", suffix="_b").sort("clip_id")


def answered_badly(outcomes: pl.DataFrame) -> list[str]:
    """Ids of clips to which an arm gave a text with a failure class, sorted."""
    frame = conform(outcomes, "outcomes").filter((pl.col("status") == "ok") & (pl.col("failure").fill_null("") != ""))
    return sorted(set(frame["clip_id"].to_list()))


def labelled_by_both(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Clips whose labels both arms gave, sorted by clip.

    Columns: ``clip_id``, ``label``, ``several`` (whether it has several labels), and of each arm ``right`` and
    ``any_right``, those of the second arm with ``_b``.
    """
    frame = conform(outcomes, "outcomes").filter((pl.col("status") == "ok") & pl.col("correct").is_not_null())
    both = [
        frame.filter(pl.col("arm") == arm).select(
            "clip_id", "label", right=pl.col("correct"), any_right=pl.col("any_correct").fill_null(value=False)
        )
        for arm in ("a", "b")
    ]
    several = pl.col("label").fill_null("").str.contains(JOINT, literal=True)
    joined = both[0].join(both[1].drop("label"), on="clip_id", suffix="_b")
    return joined.with_columns(several=several).sort("clip_id")


def expected_clips(clips: pl.DataFrame, outcomes: pl.DataFrame) -> int:
    """Number of clips that each arm should have answered."""
    both = [conform(clips, "clips").select("clip_id"), conform(outcomes, "outcomes").select("clip_id")]
    return pl.concat(both).n_unique()


def failures(outcomes: pl.DataFrame, arm: str) -> int:
    """Number of outcomes of one arm that are not ``ok``."""
    frame = conform(outcomes, "outcomes")
    return frame.filter((pl.col("arm") == arm) & pl.col("status").ne_missing("ok")).height


def latencies(operations: pl.DataFrame, arm: str) -> pl.DataFrame:
    """Latency of each clip in ms, the median over its repeats: ``clip_id``, ``ms``, sorted by clip."""
    return (
        conform(operations, "operations")
        .filter((pl.col("arm") == arm) & (pl.col("pass") == "latency") & (pl.col("status") == "ok"))
        .drop_nulls(["clip_id", "wall_seconds"])
        .group_by("clip_id")
        .agg(ms=1000 * pl.col("wall_seconds").median())
        .sort("clip_id")
    )


def rtfx(operations: pl.DataFrame, arm: str) -> float | None:
    """Seconds of audio per second of the throughput pass, ``None`` if there was none."""
    calls = conform(operations, "operations").filter(
        (pl.col("arm") == arm) & (pl.col("pass") == "throughput") & (pl.col("status") == "ok")
    )
    # Sorted, so that a repeated report adds the same floats in the same order.
    audio, wall = (float(calls[name].sort().sum() or 0.0) for name in ("audio_seconds", "wall_seconds"))
    return audio / wall if wall > 0 else None


def peak_rss_mb(operations: pl.DataFrame, arm: str) -> float | None:
    """Highest resident memory of an arm's worker in MB, ``None`` if it was not measured."""
    peak = conform(operations, "operations").filter(pl.col("arm") == arm)["peak_rss_mb"].max()
    return float(peak) if isinstance(peak, int | float) else None
