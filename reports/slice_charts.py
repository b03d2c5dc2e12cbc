"""The charts of slices: for each its error rates and its differences with intervals, all on one scale.

Knows nothing about pages. Each chart carries a sentence for those who cannot see
it. WER is a fraction coming in and per cent on the axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.charts import ZERO, color, shape
from reports.formats import interval, number, percent
from reports.metrics import per_cent
from reports.rates import WER, Rate
from reports.svg import Chart, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROW: Final = 24


def slice_panels(
    slices: pl.DataFrame,
    labels: Sequence[str],
    *,
    margin: float | None = None,
    limit: int = 16,
    rate: Rate = WER,
) -> list[tuple[str, list[Chart]]]:
    """For each slice its error rates and its differences with intervals, all slices on one scale.

    Args:
        slices: rows of :func:`reports.slices.slices`.
        labels: names of the arms.
        margin: margin of equivalence as a fraction, drawn as a band.
        limit: values beyond it (those with the fewest words) are left to the table.
        rate: what ``wer_a`` and ``wer_b`` are: for label accuracy ``words`` are clips.
    """
    if not slices.height:
        return []
    levels = _levels(slices, rate)
    things = "clips" if rate.higher_is_better else "words"
    reach = _reach(slices, margin or 0.0)
    found: list[tuple[str, list[Chart]]] = []
    for (name, *_), part in slices.partition_by("slice", as_dict=True, maintain_order=True).items():
        kept = part.filter(pl.col("words").rank("ordinal", descending=True) <= limit)
        note = f"{limit} of {part.height} values, those with the most {things}." if part.height > limit else ""
        rows, n = kept.to_dicts(), len(found)
        rates = f"{rate.name.capitalize()} in % by {name}, {labels[0]} and {labels[1]}. {_rates(rows)}."
        apart = f"Difference in points of {rate.short} by {name}, {labels[1]} minus {labels[0]}. {_differences(rows)}."
        level = Chart(render(_dumbbell(kept, labels, levels, rate.short), rates, prefix=f"s{n}"), "", note)
        forest = Chart(render(_forest(kept, [-reach, reach], 100 * (margin or 0)), apart, prefix=f"f{n}"))
        found.append((str(name), [level, forest]))
    return found


def _levels(slices: pl.DataFrame, rate: Rate) -> list[float]:
    """Ends of the axis: errors from zero; accuracies up to 100 %, from the tens below the lowest."""
    if rate.higher_is_better:
        lowest = float(slices.select(pl.min_horizontal("wer_a", "wer_b").min()).item() or 0)
        return [max(0.0, 10.0 * int(10 * lowest - 0.5)), 101.5]
    top = float(slices.select(pl.max_horizontal("wer_a", "wer_b").max()).item() or 0)
    return [0.0, max(105 * top, 1.0)]


def _rates(rows: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{r['value']}: {percent(r['wer_a'], 1)} and {percent(r['wer_b'], 1)}" for r in rows)


def _differences(rows: Sequence[Mapping[str, Any]]) -> str:
    texts = []
    for row in rows:
        ends = interval(per_cent(row["low"]), per_cent(row["high"]), 1)
        known = f", interval {ends}" if row["low"] is not None else ""
        texts.append(f"{row['value']}: {number(per_cent(row['difference']), 1, signed=True)}{known}")
    return "; ".join(texts)


def _reach(slices: pl.DataFrame, margin: float) -> float:
    """How far the axis of differences goes, in points: all points, and intervals unless they are over few clips."""
    tested = slices.filter(pl.col("p_value").is_not_null())
    ends = tested.select(pl.max_horizontal(pl.col("low").abs(), pl.col("high").abs()).max()).item()
    farthest = slices.select(pl.col("difference").abs().max()).item()
    return max(110 * float(ends or 0), 130 * float(farthest or 0), 250 * margin, 0.5)


def _values(alt: Any, part: pl.DataFrame) -> Any:
    return alt.Y(
        "value:N", sort=part["value"].to_list(), title=None,
        axis=alt.Axis(domain=False, ticks=False, labelPadding=9, labelLimit=118),
    )  # fmt: skip


def _dumbbell(part: pl.DataFrame, labels: Sequence[str], domain: list[float], title: str) -> Any:
    import altair as alt

    wide = part.select("value", a=100 * pl.col("wer_a"), b=100 * pl.col("wer_b"))
    long = pl.concat([wide.select("value", wer=arm, arm=pl.lit(labels[i])) for i, arm in enumerate("ab")])
    y, scale = _values(alt, part), alt.Scale(domain=domain, nice=False)
    height = _ROW * wide.height + 4
    line = alt.Chart(wide, height=height).mark_rule(color="var(--rule-2)", strokeWidth=2)
    points = alt.Chart(long, height=height).mark_point(filled=True, opacity=0.9, size=75)
    return alt.layer(
        line.encode(x=alt.X("a:Q", scale=scale), x2="b:Q", y=y),
        points.encode(
            x=alt.X("wer:Q", scale=scale, axis=alt.Axis(title=f"{title} (%)", tickCount=5)),
            y=y, color=color(alt, labels), shape=shape(alt, labels),
        ),
    )  # fmt: skip


def _forest(part: pl.DataFrame, domain: list[float], margin: float) -> Any:
    import altair as alt

    low, high = pl.col("low").fill_null(pl.col("difference")), pl.col("high").fill_null(pl.col("difference"))
    data = part.select(
        "value", "stands_out", difference=100 * pl.col("difference"), general=pl.col("p_value").is_not_null(),
        low=(100 * low).clip(*domain), high=(100 * high).clip(*domain),
    )  # fmt: skip
    y, scale = _values(alt, part), alt.Scale(domain=domain, nice=False)
    height = _ROW * data.height + 4
    base, once = alt.Chart(data, height=height), pl.DataFrame([{"left": -margin, "right": margin, "zero": 0.0}])
    band = alt.Chart(once, height=height)
    axis = alt.Axis(title="difference (points)", format="+~f", labelExpr=ZERO, tickCount=5, grid=False)
    ink = alt.condition("datum.general", alt.value("var(--ink)"), alt.value("var(--rule-2)"))
    return alt.layer(
        band.mark_rect(color="var(--band)").encode(x=alt.X("left:Q", scale=scale), x2="right:Q"),
        band.mark_rule(color="var(--rule-2)", strokeDash=[3, 3]).encode(x="zero:Q"),
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q", y=y, color=ink),
        base.mark_point(filled=True, opacity=1, stroke="var(--ink)", strokeWidth=1.5).encode(
            x=alt.X("difference:Q", scale=scale), y=y,
            color=alt.condition("datum.stands_out", alt.value("var(--del)"), alt.value("var(--paper)")),
            size=alt.condition("datum.stands_out", alt.value(110), alt.value(55)),
        ),
    )  # fmt: skip
