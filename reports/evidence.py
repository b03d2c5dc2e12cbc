"""What stands behind a verdict, as a page shows it: looks, fragility, noise floor, blame list and reference radar.

Knows nothing about HTML. Everything comes from stored rows; a run of an older
version has none of them. Rates are fractions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from grym.compare.fragility import Analysis, Choice, Fragility, by_choice, said, summed
from grym.compare.significance import Difference
from reports.formats import interval, number, percent
from reports.metrics import per_cent
from reports.svg import Chart, render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reports.frames import RunData

_WORDS: Final = 8
_VALUES: Final = 4
_SPANS: Final = 12
_SLICES: Final = 8
_CLIPS: Final = 36
CHOICES: Final = {
    "normalizer": "Normaliser", "compounds": "Compounds", "fillers": "Fillers", "weighting": "Weight",
    "cluster": "Independent",
}  # fmt: skip
_TESTS: Final = {
    "mapsswe": "Matched pairs of segments (MAPSSWE), Z",
    "mcnemar": "McNemar, exact: only the first arm right",
    "sign": "Sign, exact: second arm worse",
    "wilcoxon": "Wilcoxon, signed ranks",
    "bootstrap": "Bootstrap of whole clusters, 10 000 draws",
    "equivalence": "Equivalence, two one-sided tests",
}
_KINDS: Final = {"a better": "a", "b better": "b", "equivalent": "same", "cannot tell": "open"}


@dataclass(frozen=True, slots=True)
class Group:
    """The parts of one kind that a page shows.

    Attributes:
        title: what the parts are.
        rows: rows of table ``blame`` with ``examples`` as a list, the largest first.
        shown: sum of what they contribute, as a fraction.
        rest: sum of what the others contribute.
        others: how many others there are.
    """

    title: str
    rows: tuple[Mapping[str, Any], ...]
    shown: float
    rest: float
    others: int


@dataclass(frozen=True, slots=True)
class Behind:
    """Everything that the sections about evidence show; empty where a run has none.

    Attributes:
        fragility: all analyses, counted.
        strip: for each analysis its verdict's kind, whether it is the chosen one, and what it is.
        choices: for each choice what it is, how many analyses with it agree, and how many there are.
        looks: rows of table ``looks``.
        looks_charts: the interval at each look.
        noise: rows of table ``noise``.
        tests: the tests that papers report: name, what they are of, how many, and what they say.
        groups: the blame list.
        difference: what its parts add up to, as a fraction.
        spans: rows of table ``radar`` that are shown.
        span_count: how many there are.
        span_clips: clips with one.
        rates: WER of both arms with all words, and without those of the spans.
        asked: ids of clips that these sections lead to.
    """

    fragility: Fragility | None
    strip: tuple[tuple[str, bool, str], ...]
    choices: tuple[tuple[str, str, int, int], ...]
    looks: tuple[Mapping[str, Any], ...]
    looks_charts: tuple[Chart, ...]
    noise: tuple[Mapping[str, Any], ...]
    tests: tuple[Mapping[str, Any], ...]
    groups: tuple[Group, ...]
    difference: float
    spans: tuple[Mapping[str, Any], ...]
    span_count: int
    span_clips: int
    rates: Mapping[str, tuple[float | None, float | None]]
    asked: tuple[str, ...]


def behind(data: RunData, labels: tuple[str, str]) -> Behind:
    """What stands behind the verdict of a run.

    Args:
        data: the run.
        labels: names of the arms.
    """
    found = fragility_of(data, labels)
    groups = tuple(_groups(data))
    spans = data.table("radar").sort("kind", "errors", "clip_id", "position", descending=[False, True, False, False])
    # What was heard otherwise says more than what was added or missed.
    ordered = sorted(spans.to_dicts(), key=lambda row: row["kind"] != "heard otherwise")
    looks = tuple(data.table("looks").sort("look").to_dicts())
    listed = tuple(ordered[:_SPANS])
    first = [row["examples"][0] for group in groups for row in group.rows if row["examples"]]
    return Behind(
        fragility=found,
        strip=tuple(_strip(found, labels)) if found else (),
        choices=tuple((CHOICES[c], shown(c, v), n, of) for c, v, n, of in by_choice(found)) if found else (),
        looks=looks,
        looks_charts=tuple(_looks_charts(looks, labels)),
        noise=tuple(data.table("noise").sort("arm").to_dicts()),
        tests=tuple(_tests(data)),
        groups=groups,
        difference=groups[0].shown + groups[0].rest if groups else 0.0,
        spans=listed,
        span_count=spans.height,
        span_clips=spans["clip_id"].n_unique(),
        rates=_rates(data, int(spans["errors"].sum()), int(spans["reference_words"].sum())),
        asked=tuple(dict.fromkeys([*first, *(str(row["clip_id"]) for row in listed)]))[:_CLIPS],
    )


def fragility_of(data: RunData, labels: tuple[str, str]) -> Fragility | None:
    """All analyses of a run, counted; ``None`` if it has none."""
    keys = ["normalizer", "compounds", "fillers", "weighting", "cluster"]
    rows = data.table("analyses").sort("chosen", *keys, descending=[True, *[False] * len(keys)]).to_dicts()
    if not rows:
        return None
    analyses = [
        Analysis(
            Choice(*(row[key] for key in keys)),
            Difference(
                a=row["a"],
                b=row["b"],
                difference=row["difference"],
                ci_low=row["ci_low"],
                ci_high=row["ci_high"],
                confidence=0.95,
                p_value=row["p_value"],
                method="clustered t",
                clusters=row["clusters"],
            ),
            row["verdict"],
        )
        for row in rows
    ]
    return summed(analyses, analyses[0].choice, labels)


def _tests(data: RunData) -> Iterator[Mapping[str, Any]]:
    rows = {row["test"]: row for row in data.table("tests").to_dicts()}
    for name, title in _TESTS.items():
        if name in rows:
            row = rows[name]
            yield row | {"title": title, "interval": interval(per_cent(row["ci_low"]), per_cent(row["ci_high"]), 2)}


def _strip(found: Fragility, labels: tuple[str, str]) -> Iterator[tuple[str, bool, str]]:
    """Analyses by verdict, the winners first, so that the picture is one of shares."""
    order = list(_KINDS)
    ranked = sorted(enumerate(found.analyses), key=lambda item: (order.index(item[1].verdict), item[0]))
    for place, analysis in ranked:
        c, d = analysis.choice, analysis.difference
        how = f"{c.normalizer}, compounds {c.compounds}, fillers {c.fillers}, weight by {c.weighting}, by {c.cluster}"
        points = f"{number(per_cent(d.difference), 2, signed=True)} points ({_span(d)})"
        verdict = {"a better": f"{labels[0]} better", "b better": f"{labels[1]} better"}.get(analysis.verdict)
        yield _KINDS[analysis.verdict], not place, f"{how}: {verdict or analysis.verdict}, {points}"


def _span(d: Difference) -> str:
    return interval(per_cent(d.ci_low), per_cent(d.ci_high), 2)


def shown(name: str, value: str) -> str:
    """A choice of scoring in words."""
    return value if name == "normalizer" else said(name, value)


def _groups(data: RunData) -> Iterator[Group]:
    rows = data.table("blame")
    if not rows.height:
        return
    size = pl.col("contribution").abs()
    ranked = rows.sort(size, "name", "value", descending=[True, False, False])
    yield _group("Words", ranked.filter(pl.col("dimension") == "words"), _WORDS)
    speakers = ranked.filter(pl.col("dimension") == "speakers")
    if not (speakers["value"] == "(none)").all():
        yield _group("Speakers", speakers, _VALUES)
    slices = ranked.filter(pl.col("dimension") == "slices")
    for name in slices["name"].unique().sort().head(_SLICES).to_list():
        if name != "speaker":  # a column that says what the speakers say
            yield _group(name, slices.filter(pl.col("name") == name), _VALUES)


def _group(title: str, parts: pl.DataFrame, limit: int) -> Group:
    rows = [row | {"examples": _examples(row["examples"])} for row in parts.to_dicts()]
    shown = [row for row in rows[:limit] if row["contribution"]]
    rest = rows[len(shown) :]
    sums = [sum(float(row["contribution"]) for row in some) for some in (shown, rest)]
    return Group(title, tuple(shown), sums[0], sums[1], len(rest))


def _examples(text: str | None) -> list[str]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [str(clip) for clip in found] if isinstance(found, list) else []


def _rates(data: RunData, errors: int, words: int) -> dict[str, tuple[float | None, float | None]]:
    from reports.frames import paired

    pairs = paired(data)
    total = int(pairs["words"].sum())
    sums = [int(pairs[f"errors_{arm}"].sum()) for arm in "ab"]
    return {
        "with": _pair(sums[0], sums[1], total),
        "without": _pair(sums[0] - errors, sums[1] - errors, total - words),
    }


def _pair(a: int, b: int, words: int) -> tuple[float | None, float | None]:
    return (a / words, b / words) if words > 0 else (None, None)


def _looks_charts(looks: tuple[Mapping[str, Any], ...], labels: tuple[str, str]) -> Iterator[Chart]:
    rows = [row for row in looks if row["ci_low"] is not None and row["difference"] is not None]
    if len(rows) < 2:  # noqa: PLR2004 - a line needs two points
        return
    last = rows[-1]
    text = (
        f"Difference in points after each look, {labels[1]} minus {labels[0]}; after {last['clips']} clips "
        f"{percent(last['difference'], 2, signed=True)}, interval {interval(*_ends(last), 2)}."
    )
    yield Chart(
        render(_narrowing(rows), text, prefix="k0"),
        "The interval narrows",
        f"Above the line {labels[0]} is better, below it {labels[1]}.",
    )


def _ends(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return per_cent(row["ci_low"]), per_cent(row["ci_high"])


def _narrowing(rows: list[Mapping[str, Any]]) -> Any:
    import altair as alt

    data = pl.DataFrame(
        [{"clips": r["clips"], "d": 100 * r["difference"], "low": _ends(r)[0], "high": _ends(r)[1]} for r in rows]
    )
    base = alt.Chart(data, height=210)
    axis = alt.Axis(title="difference (points)", tickCount=5, grid=False)
    zero = alt.Chart(pl.DataFrame([{"zero": 0.0}]), height=210)
    return alt.layer(
        base.mark_area(color="var(--band)").encode(
            x=alt.X("clips:Q", title="clips", axis=alt.Axis(grid=False, tickCount=6)),
            y=alt.Y("low:Q", axis=axis),
            y2="high:Q",
        ),
        zero.mark_rule(color="var(--rule-2)", strokeDash=[3, 3]).encode(y="zero:Q"),
        base.mark_line(color="var(--ink)", strokeWidth=2).encode(x="clips:Q", y="d:Q"),
    )
