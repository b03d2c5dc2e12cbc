"""The charts of a report: what is drawn, in Altair; :mod:`reports.svg` makes it fit for a page.

Knows nothing about pages. Each chart carries a sentence for those who cannot see
it. WER is a fraction coming in and per cent on the axes; latencies are milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.formats import number
from reports.rates import WER, Rate
from reports.svg import PANEL, WIDE, Chart, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLORS: Final = ("var(--arm-a)", "var(--arm-b)")
KINDS: Final = {"substitutions": "var(--sub)", "deletions": "var(--del)", "insertions": "var(--ins)"}
ZERO: Final = "datum.value == 0 ? '0' : datum.label"


def color(alt: Any, labels: Sequence[str]) -> Any:
    """The colour of the arms; the page explains it once, so no drawing has a legend of its own."""
    return alt.Color("arm:N", scale=alt.Scale(domain=list(labels), range=list(COLORS)), legend=None)


def shape(alt: Any, labels: Sequence[str]) -> Any:
    """The shape of the arms, so that a mark can be told without its colour."""
    return alt.Shape("arm:N", scale=alt.Scale(domain=list(labels), range=["circle", "diamond"]), legend=None)


def difference(row: Mapping[str, Any], labels: Sequence[str], rate: Rate = WER) -> list[Chart]:
    """The difference of a rate with its interval over the shaded margin, wide and narrow; empty without a difference.

    Args:
        row: ``difference, low, high, margin`` in points, ``confidence`` of the interval, and the ends ``inner_low,
            inner_high`` of the narrower one that decides equivalence; all may be ``None``, the last two missing.
        labels: names of the arms.
        rate: what differs; where more is better, the sides of the drawing change.
    """
    if row["difference"] is None:
        return []
    text = f"Difference in {rate.name}, {labels[1]} minus {labels[0]}: {number(row['difference'], 2, signed=True)}"
    if row["low"] is not None and row["high"] is not None:
        text += f", interval {number(row['low'], 2, signed=True)} to {number(row['high'], 2, signed=True)}"
    text += f" points; margin of equivalence {number(row['margin'], 2)} points."
    return [
        Chart(render(_difference(row, labels, width, rate), text, width=width, prefix=f"d{kind}"), kind=kind)
        for width, kind in ((WIDE, "wide"), (PANEL, "narrow"))
    ]


def _difference(row: Mapping[str, Any], labels: Sequence[str], width: int, rate: Rate) -> Any:
    import altair as alt

    # The interval of equivalence is usually the narrower one; without a single error it is exact and far wider.
    names = ("difference", "low", "high", "margin", "inner_low", "inner_high")
    known = [abs(row[name]) for name in names if row.get(name) is not None]
    reach = 1.2 * max(*known, 0.1)
    low, high = row["low"], row["high"]
    center = row["difference"]
    left = 0 if rate.higher_is_better else 1  # who is better where b - a is negative
    inner = [center if row.get(f"inner_{end}") is None else row[f"inner_{end}"] for end in ("low", "high")]
    data = pl.DataFrame(
        [
            {"x": center, "low": center if low is None else low, "high": center if high is None else high,
             "inner_low": inner[0], "inner_high": inner[1], "margin": row["margin"] or 0.0,
             "minus": -(row["margin"] or 0.0), "zero": 0.0, "left": -reach, "right": reach,
             "on_left": f"← {labels[left]} better", "on_right": f"{labels[1 - left]} better →"}
        ]
    )  # fmt: skip
    axis = alt.Axis(
        title=f"percentage points of {rate.short}", format="+~f", labelExpr=ZERO, tickCount=width // 80, grid=False
    )
    x = alt.X("x:Q", scale=alt.Scale(domain=[-reach, reach], nice=False), axis=axis)
    base = alt.Chart(data, height=96)
    narrow = width < WIDE
    text = {"baseline": "top", "fontSize": 12, "limit": width - 16 if narrow else width / 2 - 16}
    layers = [
        base.mark_rect(color="var(--band)").encode(x=alt.X("minus:Q"), x2="margin:Q"),
        base.mark_rule(color="var(--rule-2)", strokeDash=[3, 3]).encode(x="zero:Q"),
        base.mark_rule(color="var(--ink)", strokeWidth=2.5).encode(x="low:Q", x2="high:Q", y=alt.value(58)),
        base.mark_rule(color="var(--ink)", strokeWidth=7).encode(x="inner_low:Q", x2="inner_high:Q", y=alt.value(58)),
        base.mark_tick(color="var(--ink)", thickness=2.5, size=14, orient="vertical", opacity=1).encode(
            x="low:Q", y=alt.value(58)
        ),
        base.mark_tick(color="var(--ink)", thickness=2.5, size=14, orient="vertical", opacity=1).encode(
            x="high:Q", y=alt.value(58)
        ),
        base.mark_point(color="var(--ink)", fill="var(--paper)", size=110, strokeWidth=2.5, opacity=1).encode(
            x=x, y=alt.value(58)
        ),
        base.mark_text(align="left", color=COLORS[left], **text).encode(x="left:Q", y=alt.value(4), text="on_left:N"),
        base.mark_text(align="right", color=COLORS[1 - left], **text).encode(
            x="right:Q", y=alt.value(20 if narrow else 4), text="on_right:N"
        ),
    ]
    return alt.layer(*layers)


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
        base.mark_bar(height=20).encode(color=color(alt, labels)),
        base.mark_text(align="left", dx=6).encode(text="text:N"),
    )
    label = f"{title} in {unit}: {labels[0]} {texts[0]}, {labels[1]} {texts[1]}."
    return Chart(render(chart, label, prefix=f"b{digits}"), f"{title} ({unit})")


def kinds(totals: Mapping[str, tuple[int, int]], words: int, labels: Sequence[str]) -> Chart | None:
    """The kinds of word error of both arms as stacked bars; ``None`` without an error.

    Args:
        totals: substitutions, deletions and insertions of both arms.
        words: words of the references.
        labels: names of the arms.
    """
    import altair as alt

    if not words or not any(a or b for a, b in totals.values()):
        return None
    data = pl.DataFrame(
        [
            {"arm": labels[i], "kind": name, "rate": 100 * totals[name][i] / words, "order": order,
             "text": number(totals[name][i]) if totals[name][i] else ""}
            for i in range(2) for order, name in enumerate(KINDS)
        ]
    ).with_columns(end=pl.col("rate").cum_sum().over("arm"))  # fmt: skip
    data = data.with_columns(start=pl.col("end") - pl.col("rate"), middle=pl.col("end") - pl.col("rate") / 2)
    top = float(data.select(pl.col("end").max()).item())
    data = data.with_columns(text=pl.when(pl.col("rate") > 0.06 * top).then("text").otherwise(pl.lit("")))
    y = alt.Y("arm:N", sort=list(labels), title=None, axis=alt.Axis(domain=False, ticks=False))
    scale = alt.Scale(domain=list(KINDS), range=list(KINDS.values()))
    base = alt.Chart(data, height=76).encode(y=y)
    chart = alt.layer(
        base.mark_bar(height=24, stroke="var(--paper)", strokeWidth=1).encode(
            x=alt.X("start:Q", title="errors per 100 words", axis=alt.Axis(tickCount=6)), x2="end:Q",
            color=alt.Color("kind:N", scale=scale, sort=list(KINDS), legend=None),
        ),
        base.mark_text(color="var(--paper)", fontWeight="bold").encode(x="middle:Q", text="text:N"),
    )  # fmt: skip
    said = "; ".join(f"{name} {number(a)} and {number(b)}" for name, (a, b) in totals.items())
    return Chart(render(chart, f"Word errors of {labels[0]} and {labels[1]} by kind: {said}.", prefix="k"))
