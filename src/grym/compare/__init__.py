"""Comparison of two models: scoring, significance, verdict.

Knows nothing about how models run or where rows are stored. Rates are fractions,
latencies milliseconds.
"""

from grym.compare.normalize import Normalizer, get_normalizer
from grym.compare.score import Aligned, Counts, Score, outcome_scores, pooled, score, word_rows
from grym.compare.significance import Difference, quantile_difference, rate_difference, rate_interval
from grym.compare.summary import ArmSummary, arm_summary
from grym.compare.verdict import compare_run, verdict_of
from grym.compare.wording import Facts, Verdict, sentence

__all__ = [
    "Aligned",
    "ArmSummary",
    "Counts",
    "Difference",
    "Facts",
    "Normalizer",
    "Score",
    "Verdict",
    "arm_summary",
    "compare_run",
    "get_normalizer",
    "outcome_scores",
    "pooled",
    "quantile_difference",
    "rate_difference",
    "rate_interval",
    "score",
    "sentence",
    "verdict_of",
    "word_rows",
]
