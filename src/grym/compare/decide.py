"""From a difference with its intervals to a verdict.

Knows nothing about metrics, runs or wording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grym.compare.wording import MIN_CLUSTERS

if TYPE_CHECKING:
    from grym.compare.significance import Difference
    from grym.compare.wording import Verdict


def verdict_of(d: Difference, margin: float | None, *, lower_is_better: bool = True) -> Verdict:
    """Decide from a difference.

    1. Fewer than six clusters, or no interval: cannot tell.
    2. The interval at 1 - 2 * alpha (90 % when the confidence is 95 %) lies within -+margin, which
       is two one-sided tests at alpha: equivalent, even if the difference is significant.
    3. The interval at 1 - alpha excludes 0 and p < alpha: the better arm. Both are asked for
       because they can disagree where the variance is 0 and, by a hair, under the bootstrap.
    4. Else: cannot tell.

    Args:
        d: the difference b - a with its intervals.
        margin: equivalence margin in the same unit; ``None`` if equivalence is not asked.
        lower_is_better: false for metrics such as RTFx.

    Source:
        Schuirmann 1987, two one-sided tests.
    """
    if d.clusters < MIN_CLUSTERS or d.difference is None or d.ci_low is None or d.ci_high is None:
        return "cannot tell"
    if margin is not None and _within(d.inner_low, d.inner_high, margin):
        return "equivalent"
    excludes_zero = d.ci_low > 0 or d.ci_high < 0
    if not excludes_zero or d.p_value is None or d.p_value >= 1 - d.confidence:
        return "cannot tell"
    return "b better" if (d.difference < 0) == lower_is_better else "a better"


def _within(low: float | None, high: float | None, margin: float) -> bool:
    return low is not None and high is not None and -margin <= low and high <= margin
