"""May the numbers be believed? Mismatched shares, impossible arms, mixed units, lost events, unequal gaps.

Any of these makes an experiment INVALID, whatever its metrics say. Knows nothing about metrics' values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from grym.experiment import srm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.experiment.config import Experiment

MIXED: Final = 0.01  # of the units: more saw two arms than a few that lost their cookie
LOST: Final = 0.01  # of the measured requests: more measurements have no exposure than a restart explains
GAPS_ALPHA: Final = 0.001  # false alarms of the comparison of gaps, over all looks


@dataclass(frozen=True, slots=True)
class Health:
    """What was checked.

    Attributes:
        units: units of all arms.
        srm_p: always-valid p-value of the configured shares.
        impossible: arms that have a share of 0 and units.
        mixed: fraction of the units that were randomised into two arms.
        lost: fraction of the measured requests that have no exposure.
        gaps_p: always-valid p-value of equal gaps in the primary metric: of its measured units against the shares.
        problems: the reasons to call the experiment invalid, as codes.
    """

    units: int
    srm_p: float
    impossible: tuple[str, ...]
    mixed: float
    lost: float
    gaps_p: float
    problems: tuple[str, ...]


def examine(
    experiment: Experiment, arms: Sequence[Mapping[str, Any]], measured: Sequence[int], *, mixed: int, lost: int
) -> Health:
    """Check the counts of one look.

    Args:
        experiment: the configuration.
        arms: ``units`` and ``exposures`` of every arm, in the configuration's order.
        measured: units of every arm that have the primary metric.
        mixed: units in more than one arm.
        lost: measurements without an exposure.
    """
    shares = [arm.share for arm in experiment.arms]
    counts = [int(arm["units"]) for arm in arms]
    balance = srm.check(counts, shares)
    gaps = srm.check(measured, shares, alpha=GAPS_ALPHA)
    requests = lost / len(experiment.metrics)
    mixed_share = mixed / max(1, sum(counts) - mixed)
    lost_share = requests / max(1.0, requests + sum(int(arm["exposures"]) for arm in arms))
    found = {
        "impossible": bool(balance.impossible),
        "sample-ratio-mismatch": balance.mismatch and not balance.impossible,
        "mixed-units": mixed_share > MIXED,
        "lost-exposures": lost_share > LOST,
        "unequal-gaps": gaps.mismatch and not balance.mismatch,
    }
    return Health(
        units=sum(counts),
        srm_p=balance.p_value,
        impossible=tuple(experiment.arms[index].name for index in balance.impossible),
        mixed=mixed_share,
        lost=lost_share,
        gaps_p=gaps.p_value,
        problems=tuple(name for name, holds in found.items() if holds),
    )
