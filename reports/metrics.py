"""The rows of a comparison as text: what the page, the index and the Prefect artifacts all print.

Knows nothing about HTML or Markdown. Stored units (a fraction, seconds) become
the units people read: per cent and milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from reports.formats import MISSING, interval, number, span
from reports.frames import ARMS, EDITS, RunData, by_speaker, confidence, edit_totals, labels, paired
from reports.rates import ACCURACY

if TYPE_CHECKING:
    from collections.abc import Mapping

_FACTORS: Final[Mapping[str, Mapping[str, float]]] = {
    "%": {"fraction": 100.0, "ratio": 100.0, "": 100.0},
    "ms": {"s": 1000.0, "seconds": 1000.0},
    "MB": {"bytes": 1e-6, "GB": 1e3},
}


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is shown: its name, the unit of a value, of a difference, and the digits."""

    name: str
    unit: str
    difference_unit: str
    digits: int

    @property
    def title(self) -> str:
        """Name and unit, as a row header shows them."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


METRICS: Final[Mapping[str, Metric]] = {
    "wer": Metric("Word error rate", "%", "points", 2),
    "wer_clean": Metric("Word error rate without failures", "%", "points", 2),
    "cer": Metric("Character error rate", "%", "points", 2),
    "accuracy": Metric("Label accuracy", "%", "points", 1),
    "accuracy_clean": Metric("Label accuracy without failures", "%", "points", 1),
    "accuracy_mixtures": Metric("Mixtures, all labels right", "%", "points", 1),
    "any_of_mixtures": Metric("Mixtures, any label right", "%", "points", 1),
    "latency_p50": Metric("Latency, median", "ms", "ms", 1),
    "latency_p95": Metric("Latency, 95th percentile", "ms", "ms", 1),
    "rtfx": Metric("Throughput, RTFx", "\N{MULTIPLICATION SIGN}", "\N{MULTIPLICATION SIGN}", 1),
    "peak_rss_mb": Metric("Peak memory", "MB", "MB", 0),
    "failures": Metric("Clips without an answer", "", "", 0),
}
_AGREES: Final = 1e-9
_MINOR: Final = frozenset({"wer_clean", "accuracy_clean"})
_VERDICTS: Final[Mapping[str, tuple[str, str]]] = {
    "a better": ("a", "{a} is better"),
    "b better": ("b", "{b} is better"),
    "equivalent": ("same", "Equivalent"),
    "cannot tell": ("open", "Cannot tell"),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict as a chip: ``kind`` is ``a``, ``b``, ``same``, ``open`` or ``none``."""

    kind: str
    text: str


_SEEN: Final = Verdict("none", "")  # a number observed once, without an interval, decides nothing


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of both arms, ready to print; ``minor`` rows break the row above down.

    ``a_interval`` and ``b_interval`` are the arms' own, where a rate has one.
    """

    key: str
    title: str
    a: str
    b: str
    difference: str
    interval: str
    change: str
    verdict: Verdict
    minor: bool = False
    a_interval: str = ""
    b_interval: str = ""


def verdict(row: Mapping[str, Any]) -> Verdict:
    """The verdict of a comparison row as a chip."""
    kind, text = _VERDICTS.get(str(row["verdict"] or ""), ("none", str(row["verdict"] or "") or "No verdict"))
    a, b = labels(str(row["arm_a"]), str(row["arm_b"]))
    return Verdict(kind, text.replace("{a}", a).replace("{b}", b))


def scaled(row: Mapping[str, Any], field: str) -> float | None:
    """A field of a comparison row in the unit that is shown (per cent, ms, MB)."""
    value = row[field]
    shown = METRICS[row["metric"]].unit if row["metric"] in METRICS else ""
    factor = _FACTORS.get(shown, {}).get(row["unit"] or "", 1.0)
    return None if value is None else float(value) * factor


def _own_intervals(data: RunData) -> dict[str, tuple[str, str]]:
    """Each arm's own interval of its error rates, over the pairs."""
    from grym.compare.significance import rate_interval
    from grym.compare.wording import MIN_CLUSTERS

    pairs = paired(data)
    labels = pairs["speaker" if by_speaker(pairs) else "clip_id"].to_numpy()
    if pairs["clip_id"].is_empty() or len(set(labels)) < MIN_CLUSTERS:
        return {}
    found = {}
    for metric, errors, units in (("wer", "errors", "words"), ("cer", "character_errors", "characters")):
        ends = [rate_interval(pairs[f"{errors}_{arm}"], pairs[units], labels, confidence(data)) for arm in ARMS]
        a, b = (span(per_cent(low), per_cent(high), METRICS[metric].digits) for low, high in ends)
        found[metric] = a, b
    return found


def per_cent(value: float | None) -> float | None:
    """A fraction in per cent."""
    return None if value is None else 100 * value


def deciding_interval(data: RunData) -> tuple[float | None, float | None]:
    """Ends, in points, of the narrower interval of the WER's difference that decides equivalence.

    It is not stored, so it is computed again; nothing where that does not agree with what is stored.
    """
    from grym.compare.significance import rate_difference

    stored, pairs = data.comparison("wer"), paired(data)
    if stored["difference"] is None or stored["ci_low"] is None or pairs.is_empty():
        return None, None
    labels = pairs["speaker" if by_speaker(pairs) else "clip_id"].to_numpy()
    d = rate_difference(pairs["errors_a"], pairs["errors_b"], pairs["words"], labels, confidence(data))
    if d.ci_low is None or abs(d.ci_low - stored["ci_low"]) > _AGREES:
        return None, None
    return per_cent(d.inner_low), per_cent(d.inner_high)


def deciding_accuracies(data: RunData) -> tuple[float | None, float | None]:
    """The same for label accuracy: ends, in points, of the narrower interval of its difference."""
    from grym.compare import frames as stored_frames
    from grym.compare.accuracy import share_difference, verdict_clips

    stored = data.comparison("accuracy")
    pairs = verdict_clips(stored_frames.labelled_by_both(data.table("outcomes")))
    if stored["difference"] is None or stored["ci_low"] is None or pairs.is_empty():
        return None, None
    clusters = stored_frames.clusters_of(data.table("clips"), data.table("outcomes"))
    d = share_difference(pairs["right"], pairs["right_b"], clusters.labels(pairs), clusters.kind, confidence(data))
    if d.ci_low is None or abs(d.ci_low - stored["ci_low"]) > _AGREES:
        return None, None
    return per_cent(d.inner_low), per_cent(d.inner_high)


def _own_accuracies(data: RunData) -> dict[str, tuple[str, str]]:
    """Each arm's own interval of its accuracies (Wilson)."""
    from scipy.stats import binomtest

    from grym.compare import frames as stored_frames
    from grym.compare.accuracy import verdict_clips

    pairs = stored_frames.labelled_by_both(data.table("outcomes"))
    parts = {"accuracy": (verdict_clips(pairs), "right"), "accuracy_mixtures": (pairs.filter("several"), "right")}
    parts["any_of_mixtures"] = (parts["accuracy_mixtures"][0], "any_right")
    found = {}
    for metric, (part, column) in parts.items():
        if not part.height:
            continue
        ends = []
        for arm in ("", "_b"):
            own = binomtest(int(part[f"{column}{arm}"].sum()), part.height)
            span_ = own.proportion_ci(confidence(data), "wilson")
            ends.append(span(per_cent(span_.low), per_cent(span_.high), METRICS[metric].digits))
        found[metric] = ends[0], ends[1]
    return found


def _metric_row(row: Mapping[str, Any], own: tuple[str, str]) -> Row:
    metric = METRICS.get(row["metric"]) or Metric(row["metric"], row["unit"] or "", row["unit"] or "", 2)
    digits = metric.digits
    return Row(
        key=row["metric"],
        title=metric.title,
        a=number(scaled(row, "a"), digits),
        b=number(scaled(row, "b"), digits),
        difference=number(scaled(row, "difference"), digits, signed=True),
        interval=interval(scaled(row, "ci_low"), scaled(row, "ci_high"), digits),
        change=number(row["percent_change"], 1, signed=True),
        verdict=verdict(row) if row["verdict"] and row["ci_low"] is not None else _SEEN,
        minor=row["metric"] in _MINOR,
        a_interval=own[0],
        b_interval=own[1],
    )


def _edit_row(name: str, a: int, b: int) -> Row:
    return Row(
        key=name,
        title=f"{name.capitalize()} (words)",
        a=number(a),
        b=number(b),
        difference=number(b - a, signed=True),
        interval=MISSING,
        change=number(100 * (b - a) / a, 1, signed=True) if a else MISSING,
        verdict=_SEEN,
        minor=True,
    )


def metric_rows(data: RunData) -> list[Row]:
    """Both arms, metric by metric; the kinds of word error stand below the word error rate."""
    stored = {row["metric"]: row for row in data.table("comparisons").sort("metric").to_dicts()}
    totals = edit_totals(data)
    own = _own_accuracies(data) if data.rate is ACCURACY else _own_intervals(data)
    rows: list[Row] = []
    for name in [*(key for key in METRICS if key in stored), *(key for key in stored if key not in METRICS)]:
        rows.append(_metric_row(stored[name], own.get(name, ("", ""))))
        if name == "wer":
            rows += [_edit_row(edit, *totals[edit]) for edit in EDITS]
    return rows
