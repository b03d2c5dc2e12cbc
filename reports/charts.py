"""The charts of a report: what is drawn, in Altair; :mod:`reports.svg` makes it fit for a page.

Knows nothing about pages. Each chart carries a sentence for those who cannot see
it. WER is a fraction coming in and per cent on the axes; latencies are milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.formats import number, percent
from reports.svg import PANEL, WIDE, Chart, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COLORS: Final = ("var(--arm-a)", "var(--arm-b)")
_MAX_POINTS: Final = 400
_ROW: Final = 24
_ZERO: Final = "datum.value == 0 ? '0' : datum.label"


def _color(alt: Any, labels: Sequence[str], *, legend: bool = True) -> Any:
    return alt.Color(
        "arm:N",
        scale=alt.Scale(domain=list(labels), range=list(_COLORS)),
        legend=alt.Undefined if legend else None,
    )


def _shape(alt: Any, labels: Sequence[str]) -> Any:
    return alt.Shape("arm:N", scale=alt.Scale(domain=list(labels), range=["circle", "diamond"]))


def difference(row: Mapping[str, Any], labels: Sequence[str]) -> list[Chart]:
    """The difference of WER with its interval over the shaded margin, wide and narrow; empty without a difference.

    Args:
        row: ``difference, low, high, margin`` in points and the ``confidence`` of the interval; all may be ``None``.
        labels: names of the arms.
    """
    if row["difference"] is None:
        return []
    text = f"Difference in word error rate, {labels[1]} minus {labels[0]}: {number(row['difference'], 2, signed=True)}"
    if row["low"] is not None and row["high"] is not None:
        text += f", interval {number(row['low'], 2, signed=True)} to {number(row['high'], 2, signed=True)}"
    text += f" points; margin of equivalence {number(row['margin'], 2)} points."
    return [
        Chart(render(_difference(row, labels, width), text, width=width, prefix=f"d{kind}"), kind=kind)
        for width, kind in ((WIDE, "wide"), (PANEL, "narrow"))
    ]


def _difference(row: Mapping[str, Any], labels: Sequence[str], width: int) -> Any:
    import altair as alt

    known = [abs(row[name]) for name in ("difference", "low", "high", "margin") if row[name] is not None]
    reach = 1.2 * max(*known, 0.1)
    low, high = row["low"], row["high"]
    center = row["difference"]
    data = pl.DataFrame(
        [
            {"x": center, "low": center if low is None else low, "high": center if high is None else high,
             "margin": row["margin"] or 0.0, "minus": -(row["margin"] or 0.0), "zero": 0.0, "left": -reach,
             "right": reach, "better_a": f"{labels[0]} better →", "better_b": f"← {labels[1]} better"}
        ]
    )  # fmt: skip
    axis = alt.Axis(title="percentage points of WER", format="+~g", labelExpr=_ZERO, tickCount=width // 80, grid=False)
    x = alt.X("x:Q", scale=alt.Scale(domain=[-reach, reach], nice=False), axis=axis)
    base = alt.Chart(data, height=96)
    narrow = width < WIDE
    text = {"baseline": "top", "fontSize": 12, "limit": width - 16 if narrow else width / 2 - 16}
    layers = [
        base.mark_rect(color="var(--band)").encode(x=alt.X("minus:Q"), x2="margin:Q"),
        base.mark_rule(color="var(--rule-2)", strokeDash=[3, 3]).encode(x="zero:Q"),
        base.mark_rule(color="var(--ink)", strokeWidth=2.5).encode(x="low:Q", x2="high:Q", y=alt.value(58)),
        base.mark_tick(color="var(--ink)", thickness=2.5, size=14, orient="vertical", opacity=1).encode(
            x="low:Q", y=alt.value(58)
        ),
        base.mark_tick(color="var(--ink)", thickness=2.5, size=14, orient="vertical", opacity=1).encode(
            x="high:Q", y=alt.value(58)
        ),
        base.mark_point(color="var(--ink)", fill="var(--paper)", size=110, strokeWidth=2.5, opacity=1).encode(
            x=x, y=alt.value(58)
        ),
        base.mark_text(align="left", color=_COLORS[1], **text).encode(x="left:Q", y=alt.value(4), text="better_b:N"),
        base.mark_text(align="right", color=_COLORS[0], **text).encode(
            x="right:Q", y=alt.value(20 if narrow else 4), text="better_a:N"
        ),
    ]
    return alt.layer(*layers)


def slice_panels(slices: pl.DataFrame, labels: Sequence[str], *, limit: int = 16) -> list[Chart]:
    """A dumbbell plot per slice, all on one scale; values beyond ``limit`` (fewest words) are left to the table."""
    top = slices.select(pl.max_horizontal("wer_a", "wer_b").max()).item() if slices.height else None
    domain = [0.0, max(100 * float(top or 0) * 1.05, 1.0)]
    charts: list[Chart] = []
    for name, part in slices.partition_by("slice", as_dict=True, maintain_order=True).items():
        kept = part.filter(pl.col("words").rank("ordinal", descending=True) <= limit)
        note = f"{limit} of {part.height} values, those with the most words" if part.height > limit else ""
        text = "; ".join(
            f"{r['value']}: {percent(r['wer_a'], 1)} and {percent(r['wer_b'], 1)}" for r in kept.iter_rows(named=True)
        )
        label = f"Word error rate in % by {name[0]}, {labels[0]} and {labels[1]}. {text}."
        svg = render(_dumbbell(kept, labels, domain), label, prefix=f"s{len(charts)}")
        charts.append(Chart(svg, str(name[0]), note))
    return charts


def _dumbbell(part: pl.DataFrame, labels: Sequence[str], domain: list[float]) -> Any:
    import altair as alt

    wide = part.select("value", a=100 * pl.col("wer_a"), b=100 * pl.col("wer_b"))
    long = pl.concat([wide.select("value", wer=arm, arm=pl.lit(labels[i])) for i, arm in enumerate("ab")])
    y = alt.Y("value:N", sort=wide["value"].to_list(), title=None, axis=alt.Axis(domain=False, ticks=False))
    scale = alt.Scale(domain=domain, nice=False)
    height = _ROW * wide.height + 4
    line = alt.Chart(wide, height=height).mark_rule(color="var(--rule-2)", strokeWidth=2)
    points = alt.Chart(long, height=height).mark_point(filled=True, opacity=1, size=75)
    return alt.layer(
        line.encode(x=alt.X("a:Q", scale=scale), x2="b:Q", y=y),
        points.encode(
            x=alt.X("wer:Q", scale=scale, axis=alt.Axis(title="WER (%)", tickCount=5)),
            y=y, color=_color(alt, labels), shape=_shape(alt, labels),
        ),
    )  # fmt: skip


def latency_panels(frame: pl.DataFrame, labels: Sequence[str]) -> list[Chart]:
    """Latency as cumulative distribution and against clip length; empty without a latency pass."""
    if not frame.height:
        return []
    parts = []
    for i, arm in enumerate("ab"):
        mine = frame.filter(pl.col("arm") == arm).sort("ms")
        share = mine.with_columns(share=100 * pl.int_range(1, pl.len() + 1) / pl.len(), arm=pl.lit(labels[i]))
        parts.append(share.gather_every(max(1, share.height // _MAX_POINTS)))
    data = pl.concat(parts)
    medians = ", ".join(
        f"{label} {number(data.filter(pl.col('arm') == label)['ms'].median(), 1)} ms"  # type: ignore[arg-type]
        for label in labels
    )
    return [
        Chart(
            render(_cumulative(data, labels), f"Cumulative distribution of latency. Medians: {medians}.", prefix="l0"),
            "Share of calls answered within a time",
            "Dashed lines mark the median and the 95th percentile.",
        ),
        Chart(
            render(_by_length(data, labels), "Latency in ms against clip length in seconds, both arms.", prefix="l1"),
            "Latency against clip length",
            "One mark per call, one clip at a time.",
        ),
    ]


def _cumulative(data: pl.DataFrame, labels: Sequence[str]) -> Any:
    import altair as alt

    marks = pl.DataFrame({"y": [50.0, 95.0]})
    lines = alt.Chart(data, height=210).mark_line(strokeWidth=2)
    return alt.layer(
        alt.Chart(marks, height=210).mark_rule(color="var(--rule-2)", strokeDash=[2, 3]).encode(y="y:Q"),
        lines.encode(
            x=alt.X("ms:Q", title="latency (ms)", scale=alt.Scale(zero=False), axis=alt.Axis(grid=False, tickCount=6)),
            y=alt.Y("share:Q", title="calls (%)", scale=alt.Scale(domain=[0, 100]),
                    axis=alt.Axis(values=[0, 25, 50, 75, 95], labelOverlap=False)),
            color=_color(alt, labels),
            strokeDash=alt.StrokeDash("arm:N", scale=alt.Scale(domain=list(labels), range=[[1, 0], [7, 2]])),
        ),
    )  # fmt: skip


def _by_length(data: pl.DataFrame, labels: Sequence[str]) -> Any:
    import altair as alt

    points = alt.Chart(data.drop("call"), height=210).mark_point(filled=True, opacity=0.65, size=38)
    return points.encode(
        x=alt.X("seconds:Q", title="clip length (s)", axis=alt.Axis(grid=False, tickCount=6)),
        y=alt.Y("ms:Q", title="latency (ms)", axis=alt.Axis(tickCount=5)),
        color=_color(alt, labels),
        shape=_shape(alt, labels),
    )


def bars(title: str, unit: str, values: Sequence[float | None], labels: Sequence[str], digits: int) -> Chart | None:
    """One bar per arm with its value written beside it; ``None`` if neither is known."""
    import altair as alt

    known = [v for v in values if v is not None]
    if not known:
        return None
    texts = [number(v, digits) for v in values]
    data = pl.DataFrame({"arm": list(labels), "value": [v or 0.0 for v in values], "text": texts})
    base = alt.Chart(data, height=66).encode(
        x=alt.X("value:Q", axis=None, scale=alt.Scale(domain=[0, 1.22 * max(*known, 1e-9)])),
        y=alt.Y("arm:N", sort=list(labels), title=None, axis=alt.Axis(domain=False, ticks=False)),
    )
    chart = alt.layer(
        base.mark_bar(height=20).encode(color=_color(alt, labels, legend=False)),
        base.mark_text(align="left", dx=6).encode(text="text:N"),
    )
    label = f"{title} in {unit}: {labels[0]} {texts[0]}, {labels[1]} {texts[1]}."
    return Chart(render(chart, label, prefix=f"b{digits}"), f"{title} ({unit})")


def trend_panels(frame: pl.DataFrame, labels: Sequence[str], current: str) -> list[Chart]:
    """WER of both arms and their difference over the runs of a pair; empty below two runs.

    Args:
        frame: ``run_id, at`` (a moment), ``a, b, difference, low, high`` in per cent and points, oldest first.
        labels: names of the arms.
        current: the run to mark.
    """
    if frame.height < 2:  # noqa: PLR2004 - a line needs two points
        return []
    data = frame.with_columns(
        time=pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"), now=pl.col("run_id") == current
    ).drop("at")
    first, last = (number(data["difference"][i], 2, signed=True) for i in (0, -1))
    return [
        Chart(
            render(_lines(data, labels), f"Word error rate of both arms over {data.height} runs.", prefix="t0"),
            "Word error rate by run",
            "The larger marks are this run.",
        ),
        Chart(
            render(
                _difference_by_run(data),
                f"Difference by run, from {first} to {last} points, with intervals.",
                prefix="t1",
            ),
            "Difference by run, with its interval",
            f"Above the line {labels[0]} is better, below it {labels[1]}.",
        ),
    ]


def _time_axis(alt: Any) -> Any:
    return alt.X("time:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(grid=False, tickCount=4))


def _lines(data: pl.DataFrame, labels: Sequence[str]) -> Any:
    import altair as alt

    long = pl.concat([data.select("time", "now", wer=arm, arm=pl.lit(labels[i])) for i, arm in enumerate("ab")])
    base = alt.Chart(long, height=190).encode(
        x=_time_axis(alt),
        y=alt.Y("wer:Q", title="WER (%)", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        color=_color(alt, labels),
    )
    size = alt.Size("now:N", scale=alt.Scale(domain=[False, True], range=[36, 120]), legend=None)
    return alt.layer(
        base.mark_line(strokeWidth=1.5),
        base.mark_point(filled=True, opacity=1).encode(shape=_shape(alt, labels), size=size),
    )


def _difference_by_run(data: pl.DataFrame) -> Any:
    import altair as alt

    base = alt.Chart(data, height=214).encode(x=_time_axis(alt))
    size = alt.Size("now:N", scale=alt.Scale(domain=[False, True], range=[36, 120]), legend=None)
    zero = alt.Chart(pl.DataFrame({"y": [0.0]}), height=214).mark_rule(color="var(--rule-2)", strokeDash=[3, 3])
    return alt.layer(
        zero.encode(y="y:Q"),
        base.mark_rule(color="var(--ink)", strokeWidth=1.5).encode(y="low:Q", y2="high:Q"),
        base.mark_point(filled=True, color="var(--ink)", opacity=1).encode(
            y=alt.Y("difference:Q", title="points of WER", axis=alt.Axis(tickCount=5, format="+~g", labelExpr=_ZERO)),
            size=size,
        ),
    )
