"""Metrics that are not about words: label accuracy, latency and its quantiles, or any number of a clip.

Knows nothing about how values were obtained: a similarity of captions, for
example, is brought by whoever asks. One value for each clip and system;
a value that was not measured is NaN. Differences are b - a, as in table ``comparisons``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from grym.compare.exact_tests import McNemar, Sign, Wilcoxon, mcnemar, sign_test, wilcoxon
from grym.compare.multiple import holm
from grym.compare.significance import Difference, quantile_difference, rate_difference
from grym.compare.verdict import verdict_of
from grym.compare.wording import MAX_UNANSWERED, MIN_CLUSTERS, Verdict
from grym.errors import ConfigError, QualityError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metric:
    """What is compared.

    Attributes:
        name: for people, for example ``label accuracy`` or ``95th percentile of latency``.
        unit: of its values, for example ``ms``; empty for a fraction.
        quantile: the quantile that is compared, between 0 and 1; ``None`` is the mean.
        lower_is_better: true for latencies.
        margin: equivalence margin in the unit; 0 asks for no equivalence.
    """

    name: str
    unit: str = ""
    quantile: float | None = None
    lower_is_better: bool = False
    margin: float = 0.0


ACCURACY: Final = Metric("label accuracy")
LATENCY_P50: Final = Metric("median latency", "ms", quantile=0.5, lower_is_better=True)
LATENCY_P95: Final = Metric("95th percentile of latency", "ms", quantile=0.95, lower_is_better=True)


@dataclass(frozen=True, slots=True)
class MetricPair:
    """Two systems on one metric.

    Attributes:
        a: name of the first system.
        b: name of the second.
        clips: clips that both have a value for.
        left_out: clips that one of them has none for.
        difference: b - a with its interval: clustered t for means, cluster bootstrap for quantiles.
        p_holm: its p-value adjusted over all pairs; decides the verdict.
        mcnemar: for values of 0 and 1, clips right or wrong; else ``None``.
        sign: signs of a - b over the means of clusters.
        wilcoxon: signed ranks of the same.
        verdict: "cannot tell" below six clusters, or if more than 5 % of the clips are left out.
        sentence: the same for a person.
    """

    a: str
    b: str
    clips: int
    left_out: int
    difference: Difference
    p_holm: float | None
    mcnemar: McNemar | None
    sign: Sign
    wilcoxon: Wilcoxon
    verdict: Verdict
    sentence: str


def compare_metric(
    values: Mapping[str, npt.ArrayLike],
    clusters: npt.ArrayLike,
    metric: Metric,
    *,
    confidence: float = 0.95,
    seed: int = 7,
    replicates: int = 2000,
) -> list[MetricPair]:
    """Test every pair of systems on one metric.

    Args:
        values: for each system one value for each clip, ``shape = (clips,)``; NaN where it was not measured.
        clusters: what is independent, for example the speaker of each clip.
        metric: what is compared and how.
        confidence: level of the intervals, between 0.5 and 1.
        seed: of the bootstrap behind quantiles.
        replicates: of that bootstrap.

    Raises:
        ConfigError: lengths differ, or an option is out of range.
        QualityError: a value is infinite.

    Example:
        >>> right = {"a": [1, 1, 0, 1, 1, 0, 1], "b": [0, 1, 0, 0, 0, 0, 0]}
        >>> compare_metric(right, range(7), ACCURACY)[0].mcnemar.only_a_right
        4
    """
    if metric.quantile is not None and not 0 < metric.quantile < 1:
        msg = f"The quantile {metric.quantile} is not between 0 and 1."
        raise ConfigError(msg, code="bad-option", hint="Use a fraction such as 0.95.")
    labels = np.asarray(clusters)
    arrays = {name: _checked(name, given, labels.size) for name, given in values.items()}
    pairs = []
    for a, b in combinations(arrays, 2):
        both = np.isfinite(arrays[a]) & np.isfinite(arrays[b])
        rng = np.random.default_rng(seed)
        d = _difference(arrays[a][both], arrays[b][both], labels[both], metric, confidence, rng, replicates)
        pairs.append(_pair((a, b), (arrays[a][both], arrays[b][both]), labels[both], int((~both).sum()), d))
    adjusted = holm([pair.difference.p_value for pair in pairs])
    return [_judged(replace(pair, p_holm=p), metric, len(pairs)) for pair, p in zip(pairs, adjusted, strict=True)]


def _checked(name: str, given: npt.ArrayLike, clips: int) -> Floats:
    array = np.asarray(given, dtype=np.float64)
    if array.shape != (clips,):
        msg = f"System {name!r} has values of shape {array.shape} for {clips} clips."
        raise ConfigError(msg, code="bad-values", hint="Give one value for each clip, NaN where there is none.")
    if np.isinf(array).any():
        msg = f"System {name!r} has {int(np.isinf(array).sum())} infinite values."
        raise QualityError(msg, code="not-finite", hint="Use NaN for a clip without a value.")
    return array


def _difference(
    first: Floats,
    second: Floats,
    labels: npt.NDArray[np.generic],
    metric: Metric,
    confidence: float,
    rng: np.random.Generator,
    replicates: int,
) -> Difference:
    if metric.quantile is not None:
        return quantile_difference(first, second, metric.quantile, labels, confidence, rng, replicates)
    d = rate_difference(first, second, np.ones(first.size), labels, confidence)
    if d.se != 0 or d.difference is None:
        return d
    # The rule of three is about things that happen or not; for other values it is stretched to their size.
    size = max(1.0, float(np.abs([first, second]).max()))
    inner = -math.log(1 - confidence) / first.size * size
    return replace(d, inner_low=d.difference - inner, inner_high=d.difference + inner)


def _pair(
    names: tuple[str, str],
    values: tuple[Floats, Floats],
    labels: npt.NDArray[np.generic],
    left_out: int,
    d: Difference,
) -> MetricPair:
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    means = [np.bincount(inverse, weights=array, minlength=sizes.size) / sizes for array in values]
    binary = all(np.isin(array, (0.0, 1.0)).all() for array in values)
    return MetricPair(
        a=names[0],
        b=names[1],
        clips=values[0].size,
        left_out=left_out,
        difference=d,
        p_holm=None,
        mcnemar=mcnemar(1 - values[0], 1 - values[1]) if binary else None,
        sign=sign_test(means[0] - means[1]),
        wilcoxon=wilcoxon(means[0] - means[1]),
        verdict="cannot tell",
        sentence="",
    )


def _judged(pair: MetricPair, metric: Metric, family: int) -> MetricPair:
    verdict: Verdict = "cannot tell"
    if pair.left_out <= MAX_UNANSWERED * (pair.clips + pair.left_out):
        d = replace(pair.difference, p_value=pair.p_holm)
        verdict = verdict_of(d, metric.margin or None, lower_is_better=metric.lower_is_better)
    return replace(pair, verdict=verdict, sentence=_sentence(pair, metric, verdict, family))


def _sentence(pair: MetricPair, metric: Metric, verdict: Verdict, family: int) -> str:
    d, clips = pair.difference, pair.clips + pair.left_out
    left_out = f"; left out: {pair.left_out} of {clips} clips without a value" if pair.left_out else ""
    if pair.left_out > MAX_UNANSWERED * clips:
        left_out += f", more than the {100 * MAX_UNANSWERED:g} % up to which a verdict is given"
    if d.difference is None or d.a is None or d.b is None:
        return f"Cannot tell {pair.a} and {pair.b} apart by {metric.name}: no clip has a value of both{left_out}."
    unit = f" {metric.unit}" if metric.unit else ""
    numbers = (
        f"the {metric.name} of {pair.b} is {d.b:.4g}{unit} against {d.a:.4g}{unit} (difference {d.difference:+.3g}"
    )
    if d.ci_low is not None and d.ci_high is not None:
        numbers += f", {100 * d.confidence:g} % interval {d.ci_low:.3g} to {d.ci_high:.3g}"
    numbers += f", p = {pair.p_holm:.2g}" if pair.p_holm is not None else ""
    numbers += f" after Holm's correction over {family} pairs)" if family > 1 and pair.p_holm is not None else ")"
    opening = {
        "a better": f"{pair.a} is better than {pair.b}",
        "b better": f"{pair.b} is better than {pair.a}",
        "equivalent": f"{pair.b} is equivalent to {pair.a} inside a margin of {metric.margin:.4g}{unit}",
        "cannot tell": f"Cannot tell {pair.a} and {pair.b} apart",
    }[verdict]
    few = (
        f"; {d.clusters} clusters are too few, at least {MIN_CLUSTERS} are needed" if d.clusters < MIN_CLUSTERS else ""
    )
    return f"{opening}: {numbers}{few}{left_out}."
