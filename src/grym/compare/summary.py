"""One arm by itself: its error rates with their own interval, its speed, its failures.

Knows nothing about the other arm. Over all clips the arm answered, whereas a row
of ``comparisons`` is over the clips both arms answered: with failures the two
can differ. Rates are fractions, latencies milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from grym.compare import frames
from grym.compare.significance import quantile, rate_interval, ratio


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """What one arm did in one run.

    Attributes:
        arm: ``a`` or ``b``.
        wer: word error rate as a fraction; ``None`` without reference words.
        wer_low: lower end of its clustered interval; ``None`` below two clusters.
        wer_high: upper end.
        confidence: level of the interval.
        clusters: independent units behind it.
        cluster_kind: ``speaker`` or ``clip``.
        substitutions: words wrong.
        deletions: words missing.
        insertions: words added.
        words: words of the references.
        cer: character error rate without spaces, as a fraction.
        latency_p50_ms: median latency over clips.
        latency_p95_ms: 95th percentile of latency over clips.
        rtfx: seconds of audio per second in the throughput pass.
        peak_rss_mb: highest resident memory in MB.
        failures: outcomes without a usable answer.
        clips: outcomes, failures included.
    """

    arm: str
    wer: float | None
    wer_low: float | None
    wer_high: float | None
    confidence: float
    clusters: int
    cluster_kind: frames.ClusterKind
    substitutions: int
    deletions: int
    insertions: int
    words: int
    cer: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    rtfx: float | None
    peak_rss_mb: float | None
    failures: int
    clips: int


def arm_summary(
    outcomes: pl.DataFrame, clips: pl.DataFrame, operations: pl.DataFrame, arm: str, *, confidence: float = 0.95
) -> ArmSummary:
    """Summarise one arm of one run.

    Args:
        outcomes: rows of table ``outcomes`` of the run.
        clips: rows of table ``clips`` of the run.
        operations: rows of table ``operations`` of the run; may be empty.
        arm: ``a`` or ``b``.
        confidence: level of the interval of the WER.

    Raises:
        ConfigError: the confidence is not between 0.5 and 1.
    """
    own = frames.answered(outcomes, arm)
    clusters = frames.clusters_of(clips, outcomes)
    labels = clusters.labels(own)
    low, high = rate_interval(own["errors"], own["reference_words"], labels, confidence)
    latency = frames.latencies(operations, arm)["ms"]
    return ArmSummary(
        arm=arm,
        wer=ratio(int(own["errors"].sum()), int(own["reference_words"].sum())),
        wer_low=low,
        wer_high=high,
        confidence=confidence,
        clusters=len(set(labels.tolist())),
        cluster_kind=clusters.kind,
        substitutions=int(own["substitutions"].sum()),
        deletions=int(own["deletions"].sum()),
        insertions=int(own["insertions"].sum()),
        words=int(own["reference_words"].sum()),
        cer=ratio(int(own["character_errors"].sum()), int(own["reference_characters"].sum())),
        latency_p50_ms=quantile(latency, 0.5),
        latency_p95_ms=quantile(latency, 0.95),
        rtfx=frames.rtfx(operations, arm),
        peak_rss_mb=frames.peak_rss_mb(operations, arm),
        failures=frames.failures(outcomes, arm),
        clips=frames.conform(outcomes, "outcomes").filter(pl.col("arm") == arm).height,
    )
