"""The small charts of a report, several of a kind: latencies, and the runs of a pair over time.

Knows nothing about pages. Each chart carries a sentence for those who cannot see
it. WER is a fraction coming in and per cent on the axes; latencies are milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.charts import ZERO, color, shape
from reports.formats import number
from reports.rates import WER, Rate
from reports.svg import Chart, render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_MAX_POINTS: Final = 300
_LOG_FROM: Final = 8.0
_HOURS: Final = 60.0
_POINT: Final = 1.0


def latency_panels(per_clip: pl.DataFrame, calls: pl.DataFrame, labels: Sequence[str]) -> list[Chart]:
    """Latency as cumulative distribution over clips, and of every call against clip length; empty without any.

    Args:
        per_clip: ``a, b`` of :func:`reports.timing.clip_latencies`.
        calls: ``arm, seconds, ms`` of :func:`reports.frames.latencies`.
        labels: names of the arms.
    """
    if not per_clip.height or not calls.height:
        return []
    parts = []
    for i, arm in enumerate("ab"):
        mine = per_clip.select(ms=pl.col(arm)).sort("ms")
        share = mine.with_columns(share=100 * pl.int_range(1, pl.len() + 1) / pl.len(), arm=pl.lit(labels[i]))
        parts.append(_thinned(share))
    named = [
        _thinned(calls.filter(pl.col("arm") == arm)).with_columns(arm=pl.lit(labels[i])) for i, arm in enumerate("ab")
    ]
    medians = ", ".join(f"{labels[i]} {number(per_clip[arm].median(), 1)} ms" for i, arm in enumerate("ab"))  # type: ignore[arg-type]
    said = f"Cumulative distribution of latency over {per_clip.height} clips. Medians: {medians}."
    return [
        Chart(
            render(_cumulative(pl.concat(parts), labels), said, prefix="l0"),
            "Share of clips answered within a time",
            "Each clip counts once, with the median of its calls. Dotted: the median and the 95th percentile.",
        ),
        Chart(
            render(
                _by_length(pl.concat(named), labels),
                "Latency in ms against clip length in seconds, both arms.",
                prefix="l1",
            ),
            "Latency against clip length",
            "One mark per call, one clip at a time.",
        ),
    ]


def _thinned(frame: pl.DataFrame) -> pl.DataFrame:
    """Every n-th row of many, and always the last."""
    step = -(-frame.height // _MAX_POINTS) or 1
    return frame if step == 1 else pl.concat([frame.head(-1).gather_every(step), frame.tail(1)])


def _time_scale(alt: Any, ms: pl.Series) -> tuple[Any, Any]:
    """Scale and axis of latencies: logarithmic where the slowest call would hide all others."""
    low, high = max(float(ms.min() or 0), 1e-3), float(ms.max() or 1)  # type: ignore[arg-type]
    if high / low < _LOG_FROM:
        return alt.Scale(zero=False), alt.Axis(tickCount=6)
    steps = [m * 10.0**e for e in range(-3, 8) for m in (1, 2, 5)]
    ticks = [t for t in steps if 0.9 * low <= t <= 1.1 * high]
    return alt.Scale(type="log", nice=False), alt.Axis(values=ticks, format="~g", labelOverlap=True)


def _cumulative(data: pl.DataFrame, labels: Sequence[str]) -> Any:
    import altair as alt

    marks = pl.DataFrame({"y": [50.0, 95.0]})
    scale, axis = _time_scale(alt, data["ms"])
    axis.grid = False
    lines = alt.Chart(data, height=210).mark_line(strokeWidth=2, interpolate="step-after")
    return alt.layer(
        alt.Chart(marks, height=210).mark_rule(color="var(--rule-2)", strokeDash=[2, 3]).encode(y="y:Q"),
        lines.encode(
            x=alt.X("ms:Q", title="latency (ms)", scale=scale, axis=axis),
            y=alt.Y("share:Q", title="clips (%)", scale=alt.Scale(domain=[0, 100]),
                    axis=alt.Axis(values=[0, 25, 50, 75, 95], labelOverlap=False)),
            color=color(alt, labels),
            strokeDash=alt.StrokeDash(
                "arm:N", scale=alt.Scale(domain=list(labels), range=[[1, 0], [7, 2]]), legend=None
            ),
        ),
    )  # fmt: skip


def _by_length(data: pl.DataFrame, labels: Sequence[str]) -> Any:
    import altair as alt

    points = alt.Chart(data.drop("call"), height=210).mark_point(filled=True, opacity=0.65, size=38)
    scale, axis = _time_scale(alt, data["ms"])
    return points.encode(
        x=alt.X("seconds:Q", title="clip length (s)", axis=alt.Axis(grid=False, tickCount=6)),
        y=alt.Y("ms:Q", title="latency (ms)", scale=scale, axis=axis),
        color=color(alt, labels),
        shape=shape(alt, labels),
    )


def trend_panels(
    rows: pl.DataFrame,
    labels: Sequence[str],
    current: str = "",
    *,
    limit: int = 60,
    prefix: str = "t",
    speed: bool = True,
    rate: Rate = WER,
) -> list[Chart]:
    """The runs of a pair: the difference with its interval, both error rates, latency, throughput; empty below two.

    Args:
        rows: rows of :func:`reports.trend.trend`, oldest first.
        labels: names of the arms.
        current: the run to mark.
        limit: most runs drawn, the latest ones.
        prefix: keeps ids of several pairs in one page apart.
        speed: whether to draw latency and throughput as well.
        rate: what the runs are compared by.
    """
    if rows.height < 2:  # noqa: PLR2004 - a line needs two points
        return []
    data = rows.tail(limit).with_columns(
        time=pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"), now=pl.col("run_id") == current,
        **{name: 100 * pl.col(name) for name in ("a", "b", "difference", "ci_low", "ci_high")},
    )  # fmt: skip
    cut = f" The last {limit} of {rows.height} runs." if rows.height > limit else ""
    mark = " The larger marks are this run." if current else ""
    first, last = (number(data["difference"][i], 2, signed=True) for i in (0, -1))
    above = 1 if rate.higher_is_better else 0
    said = f"Difference by run, from {first} to {last} points, with intervals."
    found = [
        Chart(
            render(_difference_by_run(data), said, prefix=f"{prefix}0"),
            "Difference by run, with its interval",
            f"Above the line {labels[above]} is better, below it {labels[1 - above]}.{cut}",
        ),
        Chart(
            render(_lines(data, "a", "b", f"{rate.short} (%)", labels, _POINT),
                   f"{rate.name.capitalize()} of both arms over {data.height} runs.", prefix=f"{prefix}1"),
            f"{rate.name.capitalize()} by run", mark.strip(),
        ),
    ]  # fmt: skip
    for metric, title, unit in (("latency_p50", "Median latency by run", "ms"), ("rtfx", "Throughput by run", "RTFx")):
        if speed and data[f"{metric}_a"].count() + data[f"{metric}_b"].count() > 1:
            drawing = _lines(data, f"{metric}_a", f"{metric}_b", unit, labels)
            text = f"{title}, both arms, over {data.height} runs."
            found.append(Chart(render(drawing, text, prefix=f"{prefix}{len(found)}"), f"{title} ({unit})"))
    return found


def _time_axis(alt: Any, at: pl.Series) -> Any:
    """Days, or hours where all runs are of about one day; times are UTC."""
    moments: list[datetime] = at.to_list()
    hours = (max(moments) - min(moments)).total_seconds() / 3600
    form = "%d %b" if hours > _HOURS else "%d %b %H:%M" if max(moments).date() > min(moments).date() else "%H:%M"
    axis = alt.Axis(grid=False, tickCount=3 if form == "%d %b %H:%M" else 4, format=form, labelOverlap=True)
    return alt.X("time:T", title=None, scale=alt.Scale(type="utc", padding=10), axis=axis)


def _level(alt: Any, values: pl.Series, least: float | None) -> Any:
    """Scale of a level: from zero, or with ``least`` around the values, never so near that noise looks like news."""
    low, high = float(values.min() or 0), float(values.max() or 0)  # type: ignore[arg-type]
    if least is None:
        return alt.Scale(domain=[0, 1.08 * high or 1.0], nice=False)
    rest = max(0.0, least - (high - low)) / 2 + 0.06 * (high - low)
    return alt.Scale(domain=[max(0.0, low - rest), high + rest], nice=False)


def _lines(data: pl.DataFrame, a: str, b: str, title: str, labels: Sequence[str], least: float | None = None) -> Any:
    import altair as alt

    long = pl.concat([data.select("time", "now", y=name, arm=pl.lit(labels[i])) for i, name in enumerate((a, b))])
    long = long.drop_nulls("y")
    base = alt.Chart(long, height=170).encode(
        x=_time_axis(alt, data["at"]),
        y=alt.Y("y:Q", title=title, scale=_level(alt, long["y"], least), axis=alt.Axis(tickCount=5, format="~f")),
        color=color(alt, labels),
    )
    size = alt.Size("now:N", scale=alt.Scale(domain=[False, True], range=[36, 120]), legend=None)
    return alt.layer(
        base.mark_line(strokeWidth=1.5),
        base.mark_point(filled=True, opacity=1).encode(shape=shape(alt, labels), size=size),
    )


def _difference_by_run(data: pl.DataFrame) -> Any:
    import altair as alt

    base = alt.Chart(data.select("time", "now", "difference", "ci_low", "ci_high"), height=170).encode(
        x=_time_axis(alt, data["at"])
    )
    size = alt.Size("now:N", scale=alt.Scale(domain=[False, True], range=[36, 120]), legend=None)
    zero = alt.Chart(pl.DataFrame({"y": [0.0]}), height=170).mark_rule(color="var(--rule-2)", strokeDash=[3, 3])
    return alt.layer(
        zero.encode(y="y:Q"),
        base.mark_rule(color="var(--ink)", strokeWidth=1.5).encode(y="ci_low:Q", y2="ci_high:Q"),
        base.mark_point(filled=True, color="var(--ink)", opacity=1).encode(
            y=alt.Y("difference:Q", title="points of WER", axis=alt.Axis(tickCount=5, format="+~f", labelExpr=ZERO)),
            size=size,
        ),
    )
