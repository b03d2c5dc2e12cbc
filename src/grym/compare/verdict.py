"""Which arm is better, or are they equivalent: from the tables of a run to rows of ``comparisons``.

Knows nothing about how clips were answered or where rows are stored. Rates are
fractions, latencies ms; the verdict of a run that transcribed is the one on ``wer``,
that of one that named labels (:mod:`grym.compare.accuracy`) the one on ``accuracy``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from grym.compare import frames, wording
from grym.compare.decide import verdict_of
from grym.compare.early_stop import look
from grym.compare.score import outcome_scores, word_rows
from grym.compare.significance import Difference, quantile_difference, rate_difference
from grym.compare.summary import ArmSummary, arm_summary
from grym.compare.wording import Facts, Verdict, sentence

__all__ = [
    "ArmSummary",
    "Facts",
    "Verdict",
    "arm_summary",
    "compare_run",
    "outcome_scores",
    "sentence",
    "verdict_of",
    "word_rows",
]

Metric = Literal[
    "wer",
    "wer_clean",
    "cer",
    "accuracy",
    "accuracy_clean",
    "accuracy_mixtures",
    "any_of_mixtures",
    "latency_p50",
    "latency_p95",
    "rtfx",
    "peak_rss_mb",
    "failures",
]
MAIN: Final[tuple[Metric, ...]] = ("wer", "accuracy")
"""The metrics that carry the verdict of a run: each run has one of them."""

_UNITS: Final[dict[Metric, str]] = {
    "wer": "fraction",
    "wer_clean": "fraction",
    "cer": "fraction",
    "accuracy": "fraction",
    "accuracy_clean": "fraction",
    "accuracy_mixtures": "fraction",
    "any_of_mixtures": "fraction",
    "latency_p50": "ms",
    "latency_p95": "ms",
    "rtfx": "audio seconds per second",
    "peak_rss_mb": "MB",
    "failures": "clips",
}


def compare_run(  # noqa: PLR0913 - three tables and what the run was asked, all by keyword
    outcomes: pl.DataFrame,
    clips: pl.DataFrame,
    operations: pl.DataFrame,
    *,
    name_a: str,
    name_b: str,
    run_id: str,
    confidence: float,
    margin_wer: float,
    seed: int,
    planned: int | None = None,
) -> list[dict[str, Any]]:
    """Rows of table ``comparisons`` of one run: wer, cer, latency_p50, latency_p95, rtfx, peak_rss_mb, failures.

    Where an arm gave texts with a failure class (a refusal, a loop), ``wer_clean`` leaves those clips out of both arms.

    Error rates are over the clips both arms answered, latencies over the clips both arms answered
    in the latency pass (the median over repeats of a clip first). A metric that no arm measured has
    no row. Only ``wer`` has an equivalence margin. If an arm left more than 5 % of the clips
    unanswered, ``wer`` and ``cer`` are "cannot tell": the clips that are left may be the easy ones.

    Args:
        outcomes: rows of table ``outcomes`` of this run, both arms.
        clips: rows of table ``clips`` of this run.
        operations: rows of table ``operations`` of this run; may be empty.
        name_a: registered name of the first model.
        name_b: registered name of the second model.
        run_id: the run.
        confidence: level of the intervals, between 0.5 and 1.
        margin_wer: equivalence margin of the WER, as a fraction.
        seed: of the bootstrap behind the latencies.
        planned: clips that a run which may stop early would have answered without a stop: its error rates
            are judged by a confidence sequence, which holds however often somebody looked. ``None``: one look.

    Raises:
        QualityError: the answers were scored with different normalisers.
        ConfigError: the confidence is not between 0.5 and 1.
    """
    pairs = frames.answered_by_both(outcomes)
    clusters = frames.clusters_of(clips, outcomes)
    expected = frames.expected_clips(clips, outcomes)
    missing = [expected - frames.answered(outcomes, arm).height for arm in ("a", "b")]
    facts = Facts(name_a, name_b, expected, missing[0], missing[1], pairs.height, clusters.kind)
    run = Run(run_id, confidence, facts, clusters, planned)
    clean = pairs.filter(~pl.col("clip_id").is_in(frames.answered_badly(outcomes)))
    words = ("errors", "errors_b", "reference_words")
    return [
        _rate_row(run, "wer", pairs, words, margin_wer),
        *([_rate_row(run, "wer_clean", clean, words, margin_wer)] if clean.height < pairs.height else []),
        _rate_row(run, "cer", pairs, ("character_errors", "character_errors_b", "reference_characters"), None),
        *latency_rows(run, operations, seed),
        *observed_rows(run, outcomes, operations),
    ]


@dataclass(frozen=True, slots=True)
class Run:
    """What the rows of one run share."""

    run_id: str
    confidence: float
    facts: Facts
    clusters: frames.Clusters
    planned: int | None = None

    def method(self, test: str) -> str:
        """Name of a test with what it takes as independent."""
        return f"{'speaker-clustered' if self.clusters.kind == 'speaker' else 'clip-level'} {test}"


def _rate_row(
    run: Run, metric: Metric, pairs: pl.DataFrame, columns: tuple[str, str, str], margin: float | None
) -> dict[str, Any]:
    first, second, units = (pairs[name] for name in columns)
    labels = run.clusters.labels(pairs)
    facts = replace(run.facts, units=int(units.sum()))
    if run.planned is None:
        d = rate_difference(first, second, units, labels, run.confidence, method=run.method("t"))
        verdict: Verdict = verdict_of(d, margin)
    else:
        found = look(first, second, units, labels, planned=run.planned, confidence=run.confidence, margin=margin)
        d, verdict = replace(found.difference, method=run.method("confidence sequence")), found.verdict
    if facts.too_many_unanswered:
        verdict = "cannot tell"
    text = sentence(metric, verdict, d, margin, facts)
    if run.planned is not None and pairs.height:
        text = f"{text[:-1]}; judged by a confidence sequence after {pairs.height} of {run.planned} clips."
    return metric_row(run, metric, d, verdict, text, pairs.height, margin)


def latency_rows(run: Run, operations: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Rows of the quantiles of latency, over the clips both arms answered in the latency pass."""
    first, second = frames.latencies(operations, "a"), frames.latencies(operations, "b")
    pairs = first.join(second, on="clip_id", suffix="_b").sort("clip_id")
    if pairs.is_empty():
        return []
    # The clips of the latency pass were answered, so each has a cluster unless its rows were lost.
    labels = run.clusters.labels(pairs)
    quantiles: tuple[tuple[Metric, float], ...] = (("latency_p50", 0.5), ("latency_p95", 0.95))
    rows = []
    for metric, q in quantiles:
        rng = np.random.default_rng(seed)
        method = run.method("bootstrap")
        d = quantile_difference(pairs["ms"], pairs["ms_b"], q, labels, run.confidence, rng, method=method)
        verdict = verdict_of(d, None)
        rows.append(
            metric_row(run, metric, d, verdict, sentence(metric, verdict, d, None, run.facts), pairs.height, None)
        )
    return rows


def observed_rows(run: Run, outcomes: pl.DataFrame, operations: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of what was seen once: throughput, memory, clips without an answer."""
    values: dict[Metric, list[float | None]] = {
        "rtfx": [frames.rtfx(operations, arm) for arm in ("a", "b")],
        "peak_rss_mb": [frames.peak_rss_mb(operations, arm) for arm in ("a", "b")],
        "failures": [float(frames.failures(outcomes, arm)) for arm in ("a", "b")],
    }
    rows = []
    for metric, (a, b) in values.items():
        if a is None and b is None:
            continue
        difference = b - a if a is not None and b is not None else None
        d = Difference(a, b, difference, None, None, run.confidence, None, "observed", 0)
        text = wording.observed(metric, a, b, run.facts)
        row = metric_row(run, metric, d, "cannot tell", text, run.facts.pairs, None)
        rows.append({**row, "confidence": None, "clusters": None})
    return rows


def metric_row(
    run: Run, metric: Metric, d: Difference, verdict: Verdict, text: str, clips: int, margin: float | None
) -> dict[str, Any]:
    """A row of table ``comparisons``."""
    return {
        "run_id": run.run_id,
        "arm_a": run.facts.name_a,
        "arm_b": run.facts.name_b,
        "metric": metric,
        "unit": _UNITS[metric],
        "a": d.a,
        "b": d.b,
        "difference": d.difference,
        "percent_change": 100 * d.difference / d.a if d.a and d.difference is not None else None,
        "ci_low": d.ci_low,
        "ci_high": d.ci_high,
        "confidence": d.confidence,
        "p_value": d.p_value,
        "method": d.method,
        "clusters": d.clusters,
        "clips": clips,
        "margin": margin,
        "verdict": verdict,
        "sentence": text,
    }
