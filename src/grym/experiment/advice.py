"""What a decision says to people: plain sentences, each with the queries that its numbers come from.

Knows nothing about how verdicts are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from grym.experiment.config import Experiment
    from grym.experiment.effects import Effect
    from grym.experiment.health import Health
    from grym.experiment.verdicts import ArmVerdict, Rail, Seen, Verdict

_INVALID: Final = {
    "impossible": "Units were randomised into an arm that has a share of 0.",
    "sample-ratio-mismatch": "Units are not spread over the arms as configured.",
    "mixed-units": "Too many units were randomised into more than one arm.",
    "lost-exposures": "Too many measurements belong to units without an exposure.",
    "unequal-gaps": "The primary metric is missing in one arm more often than in another.",
}
_PROBLEMS: Final = {
    "too-few-units": "too few units for an interval",
    "all-equal": "all values are equal, so nothing can be said about their spread",
    "too-far-out": "too few values beyond the quantile for an interval",
}


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, and the names of the queries behind its numbers."""

    text: str
    queries: tuple[str, ...] = ()


def advise(
    experiment: Experiment,
    verdict: Verdict,
    arm: str | None,
    health: Health,
    arms: Sequence[ArmVerdict],
    effects: Mapping[str, Mapping[str, Effect]],
    seen: Mapping[str, Seen],
) -> tuple[Sentence, ...]:
    """The recommendation first, then what it rests on.

    Args:
        experiment: the configuration.
        verdict: of the experiment.
        arm: the treatment that it is about, if it is about one.
        health: what was checked.
        arms: verdict on each treatment.
        effects: by treatment and metric.
        seen: how much was seen of each treatment.
    """
    found = [Sentence(_headline(experiment, verdict, arm))]
    found += [Sentence(_INVALID[code], ("moments",)) for code in health.problems]
    found.append(_balance(health))
    for said in arms:
        found += _of_arm(experiment, said, effects[said.arm], seen[said.arm])
    return tuple(found)


def _headline(experiment: Experiment, verdict: Verdict, arm: str | None) -> str:
    control = experiment.control.name
    return {
        "INVALID": f"INVALID: do not decide from these numbers. Stop {experiment.name}, find the cause, start a new "
        "version.",
        "ROLLBACK": f"ROLLBACK: stop {arm} and serve {control}.",
        "SHIP": f"SHIP: serve {arm} in place of {control}.",
        "HOLD": "HOLD: go on; there is not enough evidence yet.",
        "EQUIVALENT": f"EQUIVALENT: the difference is inside the margin; keep {control} or choose by cost.",
    }[verdict]


def _balance(health: Health) -> Sentence:
    text = (
        f"{health.units} units are {'not ' if health.srm_p == 0 or 'sample-ratio-mismatch' in health.problems else ''}"
        f"spread as configured ({_p(health.srm_p)}); {_percent(health.mixed)} of the units were in two arms, "
        f"{_percent(health.lost)} of the measured requests have no exposure."
    )
    return Sentence(text, ("moments",))


def _of_arm(experiment: Experiment, said: ArmVerdict, effects: Mapping[str, Effect], seen: Seen) -> Iterator[Sentence]:
    if len(experiment.treatments) > 1:
        yield Sentence(f"{said.arm}: {said.verdict}.")
    if {"min-units", "min-days"} & set(said.reasons):
        success = experiment.success
        yield Sentence(
            f"{said.arm} has {seen.units} units per arm of at least {success.min_units}, and {_number(seen.days)} days "
            f"of at least {_number(success.min_days)}.",
            ("moments",),
        )
    for metric in experiment.metrics:
        query = ("quantiles",) if metric.kind == "quantile" else ("moments",)
        yield Sentence(_of_effect(experiment, effects[metric.name]), query)
    for rail in said.rails:
        metric = experiment.metric(rail.metric)
        yield Sentence(_of_rail(rail), ("quantiles",) if metric.kind == "quantile" else ("moments",))


def _of_effect(experiment: Experiment, effect: Effect) -> str:
    names = f"{effect.metric}: {effect.arm} {_number(effect.treatment)} ({effect.n_treatment} units), "
    names += f"{experiment.control.name} {_number(effect.control)} ({effect.n_control} units)"
    if effect.problem is not None or effect.p_value is None:
        return f"{names}; {_PROBLEMS[effect.problem or 'too-few-units']}."
    level = f"{experiment.success.confidence:.12g}"
    text = (
        f"{names}; difference {_number(effect.delta)}, always-valid interval {_number(effect.low)} to "
        f"{_number(effect.high)} (confidence {level}, {_p(effect.p_value)})"
    )
    if effect.relative is not None and effect.relative_low is not None and effect.relative_high is not None:
        text += (
            f", {_percent(effect.relative)} of {experiment.control.name}'s ({_percent(effect.relative_low)} to "
            f"{_percent(effect.relative_high)})"
        )
    if effect.reduction > 0:
        text += f"; the covariate took away {_percent(effect.reduction)} of the variance"
    return text + "."


def _of_rail(rail: Rail) -> str:
    name = f"Guardrail {rail.metric}" if rail.configured else f"Primary metric {rail.metric}"
    margin = f"margin {_number(rail.margin)}"
    if rail.standing == "broken":
        return f"{name} is broken: worse by at least {_number(rail.harm_low)} ({margin}, {_p(rail.p_value)})."
    if rail.standing == "held":
        return f"{name} holds: {_harm(rail.harm_high, 'most')} ({margin})."
    if rail.harm_high is None:
        return f"{name} is open: no bound yet ({margin})."
    return f"{name} is open: {_harm(rail.harm_low, 'least')}, {_harm(rail.harm_high, 'most')} ({margin})."


def _harm(bound: float | None, side: str) -> str:
    """A bound of the harm; a negative one is an improvement."""
    if bound is None or bound >= 0:
        return f"worse by at {side} {_number(bound)}"
    return f"better by at {'least' if side == 'most' else 'most'} {_number(-bound)}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _p(value: float | None) -> str:
    if value is None:
        return "p unknown"
    return "p below 0.0001" if value < 0.0001 else f"p = {value:.2g}"  # noqa: PLR2004 - more digits say nothing more
