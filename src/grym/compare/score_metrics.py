"""Metrics other than words for transcripts that exist already: labels right or wrong, and columns of numbers.

Knows nothing about files. A metric is asked for as ``COLUMN[:mean|pQ][:lower|higher][:margin=M]``: ``correct`` is the
share of utterances without an error (label accuracy), any other name is a column of the answers, for example
``latency_ms:p95:lower`` or ``similarity:margin=0.02``. The margin of equivalence is in the column's unit.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from grym.compare.metrics import ACCURACY, Metric, MetricPair, compare_metric
from grym.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from grym.compare.systems import Dataset, Options, System
    from grym.compare.transcripts import Transcripts

CORRECT: Final = "correct"
_ASKED: Final = re.compile(r"([^:]+)(?::(mean|p\d+(?:\.\d+)?))?(?::(lower|higher))?(?::margin=([^:]+))?")
_NAMES: Final = {"mean": "mean", "p50": "median"}


def read_metric(asked: str) -> tuple[str, Metric]:
    """The column and the metric that were asked for.

    Raises:
        ConfigError: the text is not of the form that the module says.

    Example:
        >>> read_metric("latency_ms:p95:lower")
        ('latency_ms', Metric(name='p95 of latency_ms', unit='', quantile=0.95, lower_is_better=True, margin=0.0))
    """
    found = _ASKED.fullmatch(asked.strip())
    quantile = float(found[2][1:]) / 100 if found and (found[2] or "").startswith("p") else None
    margin = _margin(found[4]) if found else None
    if found is None or margin is None or (quantile is not None and not 0 < quantile < 1):
        msg = f"{asked!r} is no metric."
        hint = "Write COLUMN, COLUMN:p95, COLUMN:mean:lower, COLUMN:margin=0.02, or correct for those without an error."
        raise ConfigError(msg, code="bad-metric", hint=hint)
    column, how = found[1], found[2] or "mean"
    if column == CORRECT:
        return column, replace(ACCURACY, margin=margin)
    name = f"{_NAMES.get(how, how)} of {column}"
    return column, Metric(name, "", quantile, lower_is_better=found[3] == "lower", margin=margin)


def _margin(text: str | None) -> float | None:
    """The number, 0 for none; nothing if it is no finite number from 0 on."""
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def metric_pairs(
    asked: Sequence[str],
    data: Dataset,
    systems: Mapping[str, System],
    answers: Mapping[str, Transcripts],
    options: Options,
) -> list[tuple[str, MetricPair]]:
    """Test every pair of systems on every metric; what was asked for, and the pair.

    An utterance without a value is left out and counted. Holm's correction is over the pairs of one metric.

    Raises:
        ConfigError: a metric is not of the right form, or no answer has a value in its column.
        ManifestError: a value is no number.
    """
    found = []
    for text in asked:
        column, metric = read_metric(text)
        values = {name: _values(column, data, systems[name], answers[name]) for name in systems}
        pairs = compare_metric(values, data.clusters, metric, confidence=options.confidence, seed=options.seed)
        found += [(text, pair) for pair in pairs]
    return found


def _values(column: str, data: Dataset, system: System, answers: Transcripts) -> npt.NDArray[np.float64]:
    if column == CORRECT:
        return np.asarray(system.aligned.alignments.errors == 0, dtype=np.float64)
    values = np.full(len(data.ids), math.nan)
    for place, identity in enumerate(data.ids):
        item = answers.utterances.get(identity)
        text = item.columns.get(column, "") if item else ""
        if not text:
            continue
        try:
            values[place] = float(text)
        except ValueError:
            msg = f"{answers.name} has {text[:40]!r} in column {column!r} of {identity!r}, which is no number."
            raise ManifestError(
                msg, code="not-a-number", hint="Leave the field empty where there is no value."
            ) from None
    if np.isnan(values).all():
        msg = f"{answers.name} has no value in a column {column!r}."
        raise ConfigError(msg, code="unknown-column", hint="Name a column of numbers that every system's file has.")
    return values


def metric_json(asked: str, pair: MetricPair) -> dict[str, Any]:
    """One pair on one metric as JSON values; the difference is a - b."""
    d = pair.difference
    low, high = (None if x is None else 0.0 - x for x in (d.ci_high, d.ci_low))
    return {
        "metric": asked,
        "a": pair.a,
        "b": pair.b,
        "value_a": d.a,
        "value_b": d.b,
        "delta": None if d.difference is None else 0.0 - d.difference,
        "low": low,
        "high": high,
        "p": d.p_value,
        "p_holm": pair.p_holm,
        "utterances": pair.clips,
        "left_out": pair.left_out,
        "clusters": d.clusters,
        "verdict": pair.verdict,
        "sentence": pair.sentence,
    }
