"""How the interval of each metric narrowed over the looks, in Altair; :mod:`reports.svg` makes it fit for a page.

Knows nothing about pages or stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from reports.formats import number
from reports.svg import PANEL, WIDE, Chart, render

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grym.experiment.config import Experiment, Metric
    from grym.experiment.ledger import Look

_DAY_MS = 86_400_000


def narrowing(experiment: Experiment, looks: Sequence[Look]) -> list[Chart]:
    """A chart for each treatment and metric that has an interval; the primary metric wide and narrow, first."""
    found = list(_charts(experiment, looks))
    return sorted(found, key=lambda chart: chart.kind == "panel")


def _charts(experiment: Experiment, looks: Sequence[Look]) -> Iterator[Chart]:
    if not looks:
        return
    for index, one in enumerate(looks[-1].decision.effects):
        metric = experiment.metric(one.metric)
        factor, unit = (100.0, "points") if metric.kind in {"proportion", "ratio"} else (1.0, metric.name)
        rows = list(_rows(looks, one.metric, one.arm, factor))
        if not rows:
            continue
        title = f"{metric.name}: {one.arm} minus {experiment.control.name}"
        last = rows[-1]
        said = (
            f"{title}, {unit}, over {len(rows)} looks; at the last one {number(last['delta'], 3, signed=True)}, "
            f"interval {number(last['low'], 3, signed=True)} to {number(last['high'], 3, signed=True)}."
        )
        sizes = ((WIDE, "wide"), (PANEL, "narrow")) if metric == experiment.primary else ((PANEL, "panel"),)
        for width, kind in sizes:
            drawn = _drawn(rows, metric, factor, unit)
            yield Chart(render(drawn, said, width=width, prefix=f"n{index}{kind}"), title, "", kind)


def _rows(looks: Sequence[Look], metric: str, arm: str, factor: float) -> Iterator[dict[str, Any]]:
    start = looks[0].decision
    first_ms = looks[0].at_ms if len(looks) == 1 else 2 * looks[0].at_ms - looks[1].at_ms
    for look in looks:
        one = next((e for e in look.decision.effects if (e.metric, e.arm) == (metric, arm)), None)
        if one is not None and one.low is not None and one.high is not None and one.delta is not None:
            yield {
                "day": (look.at_ms - first_ms) / _DAY_MS,
                "low": factor * one.low,
                "high": factor * one.high,
                "delta": factor * one.delta,
                "experiment": start.experiment,
            }


def _drawn(rows: Sequence[dict[str, Any]], metric: Metric, factor: float, unit: str) -> Any:
    import altair as alt

    # Early intervals are many times wider than the last: the later half sets the scale, what is beyond is cut.
    late = rows[len(rows) // 2 :]
    reach = 1.6 * max(max(abs(row["low"]), abs(row["high"]), abs(row["delta"])) for row in late) or 1.0
    reach = max(reach, 1.3 * factor * metric.margin)
    data = pl.DataFrame(list(rows)).with_columns(
        zero=pl.lit(0.0), minus=pl.lit(-factor * metric.margin), plus=pl.lit(factor * metric.margin)
    )
    end = max(row["day"] for row in rows)
    x = alt.X(
        "day:Q", title="days", scale=alt.Scale(domain=[0, end], nice=False), axis=alt.Axis(grid=False, tickCount=6)
    )
    y = alt.Y("low:Q", title=unit, scale=alt.Scale(domain=[-reach, reach], nice=False, clamp=True))
    base = alt.Chart(data, height=190)
    layers = [
        base.mark_area(color="var(--arm-b)", opacity=0.18, clip=True).encode(x=x, y=y, y2="high:Q"),
        base.mark_rule(color="var(--rule-2)", strokeDash=[3, 3]).encode(y="zero:Q"),
        base.mark_line(color="var(--arm-b)", strokeWidth=1, clip=True).encode(x=x, y="low:Q"),
        base.mark_line(color="var(--arm-b)", strokeWidth=1, clip=True).encode(x=x, y="high:Q"),
        base.mark_line(color="var(--ink)", strokeWidth=2, clip=True, point={"color": "var(--ink)", "size": 22}).encode(
            x=x, y="delta:Q"
        ),
    ]
    if metric.margin:
        band = (
            alt.Chart(data.head(1))
            .mark_rect(color="var(--band)")
            .encode(y=alt.Y("minus:Q", scale=alt.Scale(domain=[-reach, reach], nice=False)), y2="plus:Q")
        )
        layers.insert(0, band)
    return alt.layer(*layers)
