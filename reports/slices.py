"""Errors by slice, with intervals that say what they generalise to and a correction for asking many questions.

Knows nothing about pages. Rates are fractions. Slices are the manifest's own
columns and, when known, the speaker.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from reports.formats import read_json
from reports.frames import ARMS, RunData, by_speaker, confidence, paired

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FALSE_DISCOVERY_RATE: Final = 0.05
_COLUMNS: Final[Mapping[str, Any]] = {
    "slice": pl.String, "value": pl.String, "clips": pl.Int64, "words": pl.Int64, "units": pl.Int64,
    "unit": pl.String, "wer_a": pl.Float64, "wer_b": pl.Float64, "low_a": pl.Float64, "high_a": pl.Float64,
    "low_b": pl.Float64, "high_b": pl.Float64, "difference": pl.Float64, "low": pl.Float64, "high": pl.Float64,
    "p_value": pl.Float64, "adjusted": pl.Float64, "stands_out": pl.Boolean,
}  # fmt: skip
_NUMBER: Final = re.compile(r"\s*[<>=~]*\s*(-?\d+(?:\.\d+)?)")


def _members(pairs: pl.DataFrame) -> pl.DataFrame:
    """One row per clip and slice it belongs to."""
    rows = [
        {"clip_id": row["clip_id"], "slice": name, "value": str(value)}
        for row in pairs.select("clip_id", "speaker", "slices").iter_rows(named=True)
        for name, value in ({"speaker": row["speaker"]} | read_json(row["slices"])).items()
        if value not in (None, "")
    ]
    schema = {"clip_id": pl.String, "slice": pl.String, "value": pl.String}
    return pl.DataFrame(rows, schema=schema).join(pairs, on="clip_id").sort("slice", "value", "clip_id")


def _row(name: str, value: str, part: pl.DataFrame, level: float, *, speakers: bool) -> dict[str, Any]:
    """One value of one slice; intervals over speakers where there are enough of them, else over its clips.

    Fewer than six units give no interval at all, and where no unit differs the interval of the difference
    is the rule of three (:func:`grym.compare.significance.rate_difference`).
    """
    from grym.compare.significance import rate_difference, rate_interval
    from grym.compare.wording import MIN_CLUSTERS

    people = part["speaker"].n_unique()
    general = speakers and people >= MIN_CLUSTERS
    labels = np.asarray(part["speaker" if general else "clip_id"].to_list(), dtype=np.str_)
    units = people if general else part.height
    errors, words = [part[f"errors_{arm}"] for arm in ARMS], part["words"]
    d = rate_difference(errors[0], errors[1], words, labels, level)
    low, high = (d.inner_low, d.inner_high) if d.se == 0 else (d.ci_low, d.ci_high)
    own = [rate_interval(arm, words, labels, level) for arm in errors]
    known = units >= MIN_CLUSTERS
    found = {
        "slice": name, "value": value, "clips": part.height, "words": int(words.sum()), "units": units,
        "unit": "speaker" if general else "clip", "wer_a": d.a, "wer_b": d.b, "difference": d.difference,
        "low_a": own[0][0], "high_a": own[0][1], "low_b": own[1][0], "high_b": own[1][1], "low": low, "high": high,
        # Clips of a few speakers say nothing about other speakers, so such a row is described and not tested.
        "p_value": d.p_value if general or not speakers else None,
    }  # fmt: skip
    return found if known else found | dict.fromkeys(("low_a", "high_a", "low_b", "high_b", "low", "high", "p_value"))


def _corrected(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with p-values adjusted over all that were tested (Benjamini-Hochberg)."""
    tested = rows.filter(pl.col("p_value").is_not_null())
    if not tested.height:
        return rows.with_columns(adjusted=pl.lit(None, pl.Float64), stands_out=pl.lit(value=False))
    from scipy.stats import false_discovery_control

    adjusted = tested.select("slice", "value").with_columns(
        adjusted=pl.Series(false_discovery_control(tested["p_value"].to_numpy()))
    )
    joined = rows.join(adjusted, on=["slice", "value"], how="left", maintain_order="left")
    return joined.with_columns(stands_out=(pl.col("adjusted") <= FALSE_DISCOVERY_RATE).fill_null(value=False))


def _ordered(rows: pl.DataFrame) -> pl.DataFrame:
    """Slices by name; values that start with a number in its order, other values with the highest rate first."""
    parts = []
    for part in rows.sort("slice", "value").partition_by("slice", maintain_order=True):
        starts = [_NUMBER.match(value) for value in part["value"]]
        numbered = sum(start is not None for start in starts) >= max(1, part.height - 1)
        keys = [float(start[1]) if numbered and start else None for start in starts]
        worst = pl.lit(0.0) if numbered else -pl.max_horizontal("wer_a", "wer_b")
        parts.append(
            part.with_columns(_number=pl.Series(keys, dtype=pl.Float64), _worst=worst)
            .sort("_number", "_worst", "value", nulls_last=True)
            .drop("_number", "_worst")
        )
    return pl.concat(parts) if parts else rows


def slices(data: RunData) -> pl.DataFrame:
    """One row per value of each slice, over the clips both arms answered.

    Columns: ``slice, value, clips, words``; ``wer_a, wer_b, difference`` with their intervals (``low_a, high_a,
    low_b, high_b, low, high``, ``None`` below six units); ``units`` and ``unit`` (``speaker`` or ``clip``) behind
    them; ``p_value``, ``adjusted`` and ``stands_out`` after Benjamini-Hochberg over all values that were tested.

    A value with six speakers or more is clustered by speaker and tested. One with fewer is described over its
    clips: its interval holds for these speakers, and it never stands out.
    """
    pairs = paired(data).filter(pl.col("words") > 0)
    speakers, level = by_speaker(pairs), confidence(data)
    rows = [
        _row(str(name), str(value), part, level, speakers=speakers)
        for (name, value), part in _members(pairs).partition_by("slice", "value", as_dict=True).items()
        if part.height < pairs.height  # a value that every clip has divides nothing
    ]
    schema = {name: kind for name, kind in _COLUMNS.items() if name not in {"adjusted", "stands_out"}}
    return _ordered(_corrected(pl.DataFrame(rows, schema=schema))).select(list(_COLUMNS))


def shown(rows: pl.DataFrame, *, slices: int = 12, values: int = 24) -> tuple[pl.DataFrame, Sequence[str]]:
    """What fits into a page, and sentences about what does not.

    Args:
        rows: all values, of :func:`slices`.
        slices: most slices shown; those with the fewest values are kept.
        values: most values of one slice shown; those with the most words are kept.
    """
    if not rows.height:
        return rows, ()
    sizes = rows.group_by("slice").len().sort("len", "slice")
    kept = rows.filter(pl.col("slice").is_in(sizes["slice"].head(slices).to_list()))
    within = kept.filter(pl.col("words").rank("ordinal", descending=True).over("slice") <= values)
    notes = [
        f"{row['slice']}: the {values} values with the most words of {row['len']}."
        for row in sizes.head(slices).sort("slice").to_dicts()
        if row["len"] > values
    ]
    left = sizes["slice"].to_list()[slices:]
    if left:
        notes.append(f"Not shown, because they have the most values: {', '.join(left[:values])}.")
    return within, tuple(notes)
