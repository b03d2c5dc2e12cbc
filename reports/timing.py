"""How long an answer takes: quantiles of the latency pass with intervals, the figures behind the curves.

Knows nothing about pages. Times are milliseconds; each clip counts once, with the
median of its repeats, as in the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from reports.frames import ARMS, RunData, confidence, facts

if TYPE_CHECKING:
    import polars as pl

QUANTILES: Final = (0.5, 0.75, 0.9, 0.95)
_DEFAULT_SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the ends of its interval; all may be ``None``."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Quantile:
    """One quantile of both arms and of their difference (b - a), in ms."""

    q: float
    a: Estimate
    b: Estimate
    difference: Estimate

    @property
    def title(self) -> str:
        """How people call it."""
        return {0.5: "Median", 1.0: "Slowest clip"}.get(self.q, f"{100 * self.q:.0f}th percentile")


def clip_latencies(data: RunData) -> pl.DataFrame:
    """``clip_id, a, b``: the latency of each clip that both arms answered in the latency pass, in ms."""
    from grym.compare import frames

    first, second = (frames.latencies(data.table("operations"), arm).rename({"ms": arm}) for arm in ARMS)
    return first.join(second, on="clip_id").sort("clip_id")


def quantiles(data: RunData) -> list[Quantile]:
    """Quantiles with intervals by the same clustered bootstrap as the verdict, then the slowest clip without one.

    Below six clusters there are no intervals. The median and the 95th percentile agree with table ``comparisons``.
    """
    from grym.compare import frames
    from grym.compare.significance import Difference, quantile_difference
    from grym.compare.wording import MIN_CLUSTERS

    times = clip_latencies(data)
    if not times.height:
        return []
    options = facts(data).options
    seed = options.get("seed")
    labels = frames.clusters_of(data.table("clips"), data.table("outcomes")).labels(times)
    labels = np.asarray(times["clip_id"].to_list()) if any(label is None for label in labels.tolist()) else labels
    enough = len(set(labels.tolist())) >= MIN_CLUSTERS
    level = confidence(data)
    a, b = (times[arm].to_numpy() for arm in ARMS)

    def estimate(first: np.ndarray, second: np.ndarray, q: float) -> Estimate:
        rng = np.random.default_rng(seed if isinstance(seed, int) else _DEFAULT_SEED)
        d: Difference = quantile_difference(first, second, q, labels, level, rng)
        return Estimate(d.difference, d.ci_low, d.ci_high) if enough else Estimate(d.difference)

    nothing = np.zeros_like(a)  # the difference to an arm that takes no time is the arm's own quantile
    found = [Quantile(q, estimate(nothing, a, q), estimate(nothing, b, q), estimate(a, b, q)) for q in QUANTILES]
    tops = float(a.max()), float(b.max())
    return [*found, Quantile(1.0, Estimate(tops[0]), Estimate(tops[1]), Estimate(tops[1] - tops[0]))]
