"""From effects to a verdict on one treatment.

The first rule that holds decides:

1. ROLLBACK: a guardrail is broken: the harm exceeds its margin, with the error probability shared by the guardrails.
   The primary metric is a guardrail with its own margin, unless one is configured for it. Any number of units will do.
2. HOLD: fewer units or days than ``[success]`` asks for, or the primary metric has no interval.
3. EQUIVALENT (rule ``superior``): the difference lies inside the margin on both sides, two one-sided tests.
4. SHIP: better, two-sided (``superior``), or not worse by the margin, one-sided (``non-inferior``), and every guardrail
   is shown to hold.
5. HOLD: not enough evidence.

Rule 3 stands before rule 4 as in comparisons: a difference too small to matter is not a reason to change. Knows nothing
about validity (:mod:`grym.experiment.health`) nor about words for people (:mod:`grym.experiment.advice`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.experiment.config import Experiment
    from grym.experiment.effects import Effect

Verdict = Literal["INVALID", "ROLLBACK", "SHIP", "HOLD", "EQUIVALENT"]
Standing = Literal["held", "broken", "open"]
# What an experiment of several treatments comes to: what needs action first.
ORDER: Final[tuple[Verdict, ...]] = ("INVALID", "ROLLBACK", "SHIP", "HOLD", "EQUIVALENT")
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Rail:
    """One guardrail.

    Attributes:
        metric: name.
        margin: harm that is allowed, in the metric's unit.
        standing: ``held`` is shown, ``broken`` is shown, ``open`` is neither.
        harm_low: lower bound of the harm; it is broken above the margin only if ``p_value`` says so too.
        harm_high: upper bound of the harm; below the margin it is held.
        p_value: always-valid p-value of the harm being within the margin.
        configured: whether the file names it; else it is the primary metric's own margin.
    """

    metric: str
    margin: float
    standing: Standing
    harm_low: float | None
    harm_high: float | None
    p_value: float | None
    configured: bool


@dataclass(frozen=True, slots=True)
class ArmVerdict:
    """What one treatment comes to.

    Attributes:
        arm: name of the treatment.
        verdict: never INVALID, which is the experiment's.
        reasons: why, as codes.
        rails: its guardrails.
    """

    arm: str
    verdict: Verdict
    reasons: tuple[str, ...]
    rails: tuple[Rail, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """How much was seen of a treatment and the control: units of the smaller one, and days."""

    units: int
    days: float

    @classmethod
    def of(cls, units: int, first_ms: int | None, last_ms: int | None) -> Seen:
        """From the first and last exposure; a clock that went back does not make it negative."""
        if first_ms is None or last_ms is None:
            return cls(units, 0.0)
        return cls(units, max(0, last_ms - first_ms) / _DAY_MS)


def judge(experiment: Experiment, arm: str, effects: Mapping[str, Effect], alpha: float, seen: Seen) -> ArmVerdict:
    """Decide on one treatment.

    Args:
        experiment: the configuration.
        arm: the treatment.
        effects: by metric.
        alpha: error probability of the comparison.
        seen: how much was seen.
    """
    rails = guardrails(experiment, effects, alpha)
    verdict, reasons = _decide(experiment, effects[experiment.primary.name], rails, alpha, seen)
    return ArmVerdict(arm, verdict, reasons, rails)


def guardrails(experiment: Experiment, effects: Mapping[str, Effect], alpha: float) -> tuple[Rail, ...]:
    """The standing of every guardrail, the primary metric's own margin last if no guardrail names it."""
    asked = [(rail.metric, rail.margin, True) for rail in experiment.guardrails]
    if all(metric != experiment.primary.name for metric, _, _ in asked):
        asked.append((experiment.primary.name, experiment.primary.margin, False))
    return tuple(_rail(effects[metric], margin, alpha / len(asked), own) for metric, margin, own in asked)


def _rail(effect: Effect, margin: float, alpha: float, configured: bool) -> Rail:  # noqa: FBT001 - private
    p = effect.worse_p(margin)
    standing: Standing = "open"
    if p is not None and p < alpha:
        standing = "broken"
    elif effect.harm_high is not None and effect.harm_high < margin:
        standing = "held"
    return Rail(effect.metric, margin, standing, effect.harm_low, effect.harm_high, p, configured)


def _decide(
    experiment: Experiment, primary: Effect, rails: Sequence[Rail], alpha: float, seen: Seen
) -> tuple[Verdict, tuple[str, ...]]:
    if broken := [f"guardrail-broken:{rail.metric}" for rail in rails if rail.standing == "broken"]:
        return "ROLLBACK", tuple(broken)
    waiting = _waiting(experiment, primary, seen)
    if waiting:
        return "HOLD", waiting
    if experiment.success.rule == "superior" and primary.inside(experiment.primary.margin):
        return "EQUIVALENT", ("inside-the-margin",)
    if not _good(experiment, primary, alpha):
        return "HOLD", ("not-enough-evidence",)
    if missing := [f"guardrail-open:{rail.metric}" for rail in rails if rail.configured and rail.standing == "open"]:
        return "HOLD", tuple(missing)
    return "SHIP", (experiment.success.rule,)


def _waiting(experiment: Experiment, primary: Effect, seen: Seen) -> tuple[str, ...]:
    success = experiment.success
    found = {
        "min-units": seen.units < success.min_units,
        "min-days": seen.days < success.min_days,
        primary.problem or "": primary.problem is not None,
    }
    return tuple(name for name, holds in found.items() if holds)


def _good(experiment: Experiment, primary: Effect, alpha: float) -> bool:
    if primary.p_value is None or primary.delta is None or primary.harm_high is None:
        return False
    if experiment.success.rule == "non-inferior":
        return primary.harm_high < experiment.primary.margin
    better = primary.delta < 0 if experiment.primary.direction == "lower" else primary.delta > 0
    return better and primary.p_value < alpha
