"""Which arm names more labels right: from the tables of a run to rows of ``comparisons`` and ``accuracies``.

The verdict rests on clips with one label; mixtures are reported beside it, with all
labels right and with any of them right. A dataset of mixtures alone is judged on
all its clips. Knows nothing about models. Accuracies are fractions, differences b - a.

Where speakers are unknown, clips are what is independent: the p-value is McNemar's,
exact, and the interval the adjusted Wald interval of Bonett and Price, which holds
its level with few discordant clips and none. Where every clip has a speaker, both
are clustered by speaker.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from scipy.special import ndtri

from grym.compare import frames
from grym.compare.decide import verdict_of
from grym.compare.exact_tests import McNemar, mcnemar
from grym.compare.label_wording import accuracy_sentence
from grym.compare.significance import Difference, rate_difference
from grym.compare.verdict import Metric, Run, latency_rows, metric_row, observed_rows
from grym.compare.wording import MIN_CLUSTERS, Facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

FALSE_DISCOVERY_RATE: Final = 0.05


def share_difference(
    right_a: npt.ArrayLike, right_b: npt.ArrayLike, labels: npt.ArrayLike, kind: frames.ClusterKind, confidence: float
) -> Difference:
    """Difference of two accuracies on the same clips, with its interval and p-value.

    Args:
        right_a: whether the first arm is right, ``shape = (clips,)``.
        right_b: whether the second arm is right.
        labels: cluster of each clip.
        kind: what a cluster is; ``clip`` means that every clip stands for itself.
        confidence: level of the interval, between 0.5 and 1.

    Source:
        Bonett & Price, British Journal of Mathematical and Statistical Psychology 65(3), 2012; McNemar 1947.

    Example:
        >>> d = share_difference([1] * 95 + [0] * 5, [1] * 100, range(100), "clip", 0.95)
        >>> round(d.difference, 3), round(d.ci_low, 3), round(d.ci_high, 3), d.p_value
        (0.05, -0.001, 0.099, 0.0625)
    """
    first, second = (np.asarray(right, dtype=np.float64) for right in (right_a, right_b))
    ones = np.ones(first.size)
    if kind == "speaker":
        method = "speaker-clustered t"
        return rate_difference(first, second, ones, labels, confidence, method=method)
    d = rate_difference(first, second, ones, labels, confidence, method="exact McNemar, Bonett-Price interval")
    if d.difference is None:
        return d
    test = mcnemar(1 - first, 1 - second)
    n = first.size
    lost, won = (test.only_a_right + 1) / (n + 2), (test.only_b_right + 1) / (n + 2)
    center, se = won - lost, float(np.sqrt((won + lost - (won - lost) ** 2) / (n + 2)))
    ends = [(max(-1.0, center - z * se), min(1.0, center + z * se)) for z in _z(confidence)]
    return replace(
        d, ci_low=ends[0][0], ci_high=ends[0][1], inner_low=ends[1][0], inner_high=ends[1][1], se=se,
        p_value=test.p_value,
    )  # fmt: skip


def _z(confidence: float) -> tuple[float, float]:
    """Quantiles behind the interval, and behind the narrower one that decides equivalence."""
    alpha = 1 - confidence
    return float(ndtri(1 - alpha / 2)), float(ndtri(1 - alpha))


def compare_labels(
    tables: Mapping[str, pl.DataFrame],
    *,
    names: Mapping[str, str],
    run_id: str,
    confidence: float,
    margin: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of table ``comparisons`` of a run whose models named labels.

    ``accuracy`` comes first. ``accuracy_clean`` is there if an arm gave texts with a failure class,
    ``accuracy_mixtures`` (all labels right) and ``any_of_mixtures`` if there are mixtures beside single events. As for
    word error rates, an arm that left more than 5 % of the clips unanswered makes it "cannot tell".

    Args:
        tables: ``outcomes``, ``clips`` and ``operations`` of the run.
        names: registered names by arm.
        run_id: the run.
        confidence: level of the intervals.
        margin: equivalence margin of accuracy, as a fraction.
        seed: of the bootstrap behind the latencies.
    """
    outcomes, clips = tables["outcomes"], tables["clips"]
    pairs = frames.labelled_by_both(outcomes)
    clusters = frames.clusters_of(clips, outcomes)
    expected = frames.expected_clips(clips, outcomes)
    missing = [expected - _answered(outcomes, arm) for arm in ("a", "b")]
    facts = Facts(names["a"], names["b"], expected, missing[0], missing[1], pairs.height, clusters.kind)
    run = Run(run_id, confidence, facts, clusters)
    base, mixtures = verdict_clips(pairs), pairs.filter("several")
    clean = base.filter(~pl.col("clip_id").is_in(frames.answered_badly(outcomes)))
    rows = [_row(run, "accuracy", base, margin)]
    if clean.height < base.height:
        rows.append(_row(run, "accuracy_clean", clean, margin))
    if 0 < mixtures.height < pairs.height:
        rows.append(_row(run, "accuracy_mixtures", mixtures, margin))
        anything = mixtures.with_columns(right=pl.col("any_right"), right_b=pl.col("any_right_b"))
        rows.append(_row(run, "any_of_mixtures", anything, margin))
    operations = tables["operations"]
    return [*rows, *latency_rows(run, operations, seed), *observed_rows(run, outcomes, operations)]


def verdict_clips(pairs: pl.DataFrame) -> pl.DataFrame:
    """Of the clips that both arms answered those that the verdict rests on: with one label, if there are any."""
    single = pairs.filter(~pl.col("several"))
    return single if single.height else pairs


def _answered(outcomes: pl.DataFrame, arm: str) -> int:
    frame = frames.conform(outcomes, "outcomes")
    answered = (pl.col("arm") == arm) & (pl.col("status") == "ok") & pl.col("correct").is_not_null()
    return frame.filter(answered).height


def _row(run: Run, metric: Metric, clips: pl.DataFrame, margin: float) -> dict[str, Any]:
    d = share_difference(
        clips["right"], clips["right_b"], run.clusters.labels(clips), run.clusters.kind, run.confidence
    )
    verdict = verdict_of(d, margin, lower_is_better=False)
    if run.facts.too_many_unanswered:
        verdict = "cannot tell"
    test = _mcnemar(clips)
    text = accuracy_sentence(metric, verdict, d, margin, replace(run.facts, units=clips.height), test)
    return metric_row(run, metric, d, verdict, text, clips.height, margin)


def _mcnemar(clips: pl.DataFrame, right: str = "right") -> McNemar:
    return mcnemar(~clips[right].to_numpy().astype(bool), ~clips[f"{right}_b"].to_numpy().astype(bool))


def accuracy_rows(tables: Mapping[str, pl.DataFrame], *, label: str, confidence: float) -> list[dict[str, Any]]:
    """Rows of table ``accuracies``: by number of events, label, speaker and every other slice.

    A part is tested if it has six clips or more and is not all of the clips; the p-values of those tested are
    corrected together (Benjamini-Hochberg). Parts with fewer clips have no interval; columns whose values have fewer
    than six clips on average are left out.

    Args:
        tables: ``outcomes`` and ``clips`` of one run.
        label: name of the column with the label, which is no slice of its own.
        confidence: level of the intervals.
    """
    pairs = frames.labelled_by_both(tables["outcomes"])
    clusters = frames.clusters_of(tables["clips"], tables["outcomes"])
    rows = [
        _part_row(name, value, clips, clusters, confidence, tested=tested)
        for name, value, clips, tested in _parts(pairs, tables["clips"], label)
    ]
    return _corrected(rows)


def _parts(pairs: pl.DataFrame, clips: pl.DataFrame, label: str) -> Iterator[tuple[str, str, pl.DataFrame, bool]]:
    base = verdict_clips(pairs)
    for value, part in (("one", pairs.filter(~pl.col("several"))), ("several", pairs.filter("several"))):
        if part.height:
            yield "events", value, part, False
    for (value,), part in sorted(base.partition_by("label", as_dict=True).items()):
        yield "label", str(value), part, True
    known = frames.conform(clips, "clips").select("clip_id", "speaker", "slices")
    named = {clip_id: _slices(speaker, slices, label) for clip_id, speaker, slices in known.iter_rows()}
    members: dict[tuple[str, str], list[str]] = {}
    for clip_id in base["clip_id"]:
        for item in named.get(clip_id, {}).items():
            members.setdefault(item, []).append(clip_id)
    values = Counter(name for name, _ in members)
    for (name, value), ids in sorted(members.items()):
        if base.height < MIN_CLUSTERS * values[name]:
            continue  # a free text or a number rather than a group; its tests would only weaken the others
        part = base.filter(pl.col("clip_id").is_in(ids))
        # A value that every clip has divides nothing, and one of a single clip tells nothing about a group.
        if 1 < part.height < base.height:
            yield name, value, part, True


def _slices(speaker: str | None, slices: str | None, label: str) -> dict[str, str]:
    try:
        found = json.loads(slices or "{}")
    except ValueError:
        found = {}
    values = {"speaker": (speaker or "").strip()} | (found if isinstance(found, dict) else {})
    return {str(k): str(v) for k, v in values.items() if k not in {label, "label", "events"} and v not in ("", None)}


def _part_row(
    name: str, value: str, clips: pl.DataFrame, clusters: frames.Clusters, confidence: float, *, tested: bool
) -> dict[str, Any]:
    test = _mcnemar(clips)
    labels = clusters.labels(clips)
    people = clusters.kind == "speaker" and len(set(labels)) >= MIN_CLUSTERS
    d = share_difference(
        clips["right"],
        clips["right_b"],
        labels if people else clips["clip_id"],
        "speaker" if people else "clip",
        confidence,
    )
    enough = clips.height >= MIN_CLUSTERS
    return {
        "slice": name,
        "value": value,
        "clips": clips.height,
        "right_a": test.both_right + test.only_a_right,
        "right_b": test.both_right + test.only_b_right,
        "both_right": test.both_right,
        "only_a_right": test.only_a_right,
        "only_b_right": test.only_b_right,
        "both_wrong": test.both_wrong,
        "any_right_a": int(clips["any_right"].sum()),
        "any_right_b": int(clips["any_right_b"].sum()),
        "accuracy_a": d.a,
        "accuracy_b": d.b,
        "difference": d.difference,
        "ci_low": d.ci_low if enough else None,
        "ci_high": d.ci_high if enough else None,
        "p_value": test.p_value if enough and tested else None,
    }


def _corrected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from scipy.stats import false_discovery_control

    tested = [row for row in rows if row["p_value"] is not None]
    adjusted = false_discovery_control([row["p_value"] for row in tested]).tolist() if tested else []
    found = {(row["slice"], row["value"]): float(p) for row, p in zip(tested, adjusted, strict=True)}
    return [
        row | {"adjusted": p, "stands_out": p is not None and p <= FALSE_DISCOVERY_RATE}
        for row in rows
        for p in (found.get((row["slice"], row["value"])),)
    ]
