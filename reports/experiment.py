"""The status page of a live experiment, and what decisions and audits say in Markdown.

One HTML file without script or request: the verdict in plain words, how the interval narrowed, whether units are spread
as configured, guardrails, every metric, and the query behind each number. Text from data is escaped by the template
engine. Rates and proportions are shown in per cent and points, other metrics in their own unit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from grym.experiment.control import read_state
from grym.experiment.ledger import history
from grym.experiment.shadow import every_pair
from reports.artifacts import cell
from reports.experiment_charts import narrowing
from reports.formats import interval, number, p_text, percent
from reports.page import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from grym.experiment.audit import Audit
    from grym.experiment.config import Experiment, Metric
    from grym.experiment.control import State
    from grym.experiment.decision import Decision
    from grym.experiment.effects import Effect
    from grym.experiment.ledger import Look
    from grym.experiment.shadow import Paired
    from grym.store import Store

_KINDS: Final = {"SHIP": "same", "EQUIVALENT": "same", "HOLD": "open", "ROLLBACK": "bad", "INVALID": "bad"}
_PROBLEMS: Final = {
    "too-few-units": "too few units for an interval",
    "all-equal": "all values are equal",
    "too-far-out": "too few values beyond the quantile",
}
_STANDING: Final = {"held": "holds", "broken": "broken", "open": "not decided yet"}
_SHARES: Final = frozenset({"proportion", "ratio"})


@dataclass(frozen=True, slots=True)
class EffectRow:
    """One metric of one treatment as the page shows it."""

    metric: str
    arm: str
    unit: str
    control: str
    treatment: str
    difference: str
    interval: str
    relative: str
    p: str
    units: str
    primary: bool


@dataclass(frozen=True, slots=True)
class RailRow:
    """One guardrail of one treatment: its margin, the bounds of the harm, and how it stands."""

    metric: str
    arm: str
    margin: str
    harm: str
    p: str
    standing: str
    broken: bool


def status_page(
    store: Store, experiment: Experiment, *, looks: int = 16, say: Callable[[str], None] | None = None
) -> Path:
    """Write the page of an experiment as it stands now, ``HOME/reports/experiments/NAME.html``.

    Args:
        store: whose events.
        experiment: the version.
        looks: moments at which the page says what the decision would have been.
        say: told the verdict and where the page lies.

    Raises:
        StorageError: a part cannot be read, or the page cannot be written.
        ResourceError: memory ran out, or the disk is full.
        QualityError: a stored number is not finite.
    """
    seen = history(store, experiment, looks=looks)
    out = store.home / "reports" / "experiments" / f"{experiment.name}.html"
    page = render_experiment(experiment, seen, read_state(store.home, experiment), out, every_pair(store, experiment))
    if say is not None:
        say(seen[-1].decision.recommendation if seen else "Nobody was exposed yet.")
        say(f"Report: {page}")
    return page


def render_experiment(
    experiment: Experiment, looks: Sequence[Look], state: State, out: Path, shadows: Sequence[Paired] = ()
) -> Path:
    """Write the page from looks, oldest first; none says that nobody was exposed yet.

    Raises:
        StorageError: the page cannot be written.
    """
    found = looks[-1].decision if looks else None
    effects = [_effect_row(experiment, one) for one in found.effects] if found else []
    context = {
        "experiment": experiment,
        "state": state,
        "found": found,
        "kind": _KINDS.get(found.verdict, "none") if found else "none",
        "level": percent(experiment.success.confidence, 0),
        "looks": looks,
        "charts": narrowing(experiment, looks),
        "effects": effects,
        "rails": list(_rails(experiment, found)) if found else [],
        "shadows": [_shadow_row(experiment, one) for one in shadows],
        "shares": list(_shares(experiment, found)) if found else [],
        "queries": _queries(found) if found else {},
        "days": (looks[-1].at_ms - looks[0].at_ms) / 86_400_000 if looks else 0.0,
        "over_time": [_over_time(experiment, look) for look in looks],
    }
    return write("experiment.html.j2", context, out)


def decision_markdown(experiment: Experiment, found: Decision, *, page: str) -> str:
    """A decision as Markdown: the verdict, the advice with the queries behind it, every metric, the page."""
    lines = [f"## {found.verdict}{f': {cell(found.arm)}' if found.arm else ''}", ""]
    for sentence in found.advice:
        behind = f" *(queries: {', '.join(sentence.queries)})*" if sentence.queries else ""
        lines.append(f"- {cell(sentence.text)}{behind}")
    head = ("Metric", "Arm", experiment.control.name, "Treatment", "Difference", "Interval", "p", "Units")
    lines += ["", f"| {' | '.join(map(cell, head))} |", f"|{'|'.join([':--', ':--', *['--:'] * 6])}|"]
    for row in (_effect_row(experiment, one) for one in found.effects):
        cells = (f"{row.metric} ({row.unit})" if row.unit else row.metric, row.arm, row.control, row.treatment)
        lines.append(f"| {' | '.join(map(cell, (*cells, row.difference, row.interval, row.p, row.units)))} |")
    for name, sql in _queries(found).items():
        lines += ["", f"Query `{name}`:", "", "```sql", sql.strip().replace("```", ""), "```"]
    lines += [
        "",
        f"Record `{found.digest}` replays to the same bytes: `python -m flows experiment {experiment.name} replay`.",
    ]
    return "\n".join([*lines, "", f"Status page: `{page.replace('`', '')}`."]) + "\n"


def audit_markdown(found: Audit) -> str:
    """An audit as Markdown: what was simulated, and each rate with its promise."""
    head = "A promise is not shown to hold" if found.broken else "Every promise holds"
    what = f"Experiment {cell(found.experiment)}, arms identical, outcomes: {cell(found.outcomes)}; "
    how = f"{found.units} units and {found.looks} looks each; {cell(found.generator)}."
    lines = [f"## {head}", "", what + how, ""]
    return "\n".join([*lines, *(f"- {cell(rate.sentence)}" for rate in found.rates)]) + "\n"


def _unit(metric: Metric) -> tuple[float, str, int]:
    """Factor, unit and decimals of a metric as it is shown."""
    return (100.0, "%", 2) if metric.kind in _SHARES else (1.0, "", 4)


def _shown(metric: Metric, value: float | None, *, signed: bool = False) -> str:
    factor, _, digits = _unit(metric)
    return number(None if value is None else factor * value, digits, signed=signed)


def _effect_row(experiment: Experiment, one: Effect) -> EffectRow:
    metric = experiment.metric(one.metric)
    factor, unit, digits = _unit(metric)
    ends = [None if end is None else factor * end for end in (one.low, one.high)]
    relative = "" if one.relative is None else f"{number(100 * one.relative, 1, signed=True)} %"
    return EffectRow(
        metric=one.metric,
        arm=one.arm,
        unit=unit,
        control=_shown(metric, one.control),
        treatment=_shown(metric, one.treatment),
        difference=_shown(metric, one.delta, signed=True),
        interval=_PROBLEMS.get(one.problem or "", "") or interval(ends[0], ends[1], digits),
        relative=relative,
        p=p_text(one.p_value),
        units=f"{number(one.n_control)} / {number(one.n_treatment)}",
        primary=metric == experiment.primary,
    )


def _shadow_row(experiment: Experiment, one: Paired) -> EffectRow:
    """Shadow pairs as a row like those of the split; units are units and pairs."""
    metric = experiment.metric(one.metric)
    factor, unit, digits = _unit(metric)
    ends = [None if end is None else factor * end for end in (one.low, one.high)]
    return EffectRow(
        metric=one.metric,
        arm=one.arm,
        unit=unit,
        control=_shown(metric, one.control),
        treatment=_shown(metric, one.treatment),
        difference=_shown(metric, one.delta, signed=True),
        interval=interval(ends[0], ends[1], digits) if one.low is not None else _PROBLEMS["too-few-units"],
        relative="",
        p=p_text(one.p_value),
        units=f"{number(one.units)} / {number(one.pairs)}",
        primary=metric == experiment.primary,
    )


def _rails(experiment: Experiment, found: Decision) -> Iterator[RailRow]:
    for said in found.arms:
        for rail in said.rails:
            metric = experiment.metric(rail.metric)
            factor, _, digits = _unit(metric)
            ends = [None if end is None else factor * end for end in (rail.harm_low, rail.harm_high)]
            yield RailRow(
                metric=rail.metric,
                arm=said.arm,
                margin=_shown(metric, rail.margin),
                harm=interval(ends[0], ends[1], digits),
                p=p_text(rail.p_value),
                standing=_STANDING[rail.standing],
                broken=rail.standing == "broken",
            )


def _shares(experiment: Experiment, found: Decision) -> Iterator[dict[str, str]]:
    """Units of every arm beside what its share asks for."""
    counts = {row["arm"]: row for row in json.loads(found.record)["inputs"]["arms"]}
    total = sum(int(row["units"]) for row in counts.values())
    for arm in experiment.arms:
        units = int(counts[arm.name]["units"])
        yield {
            "arm": arm.name,
            "model": arm.model,
            "share": percent(arm.share, 1),
            "seen": percent(units / total if total else None, 2),
            "units": number(units),
            "exposures": number(int(counts[arm.name]["exposures"])),
        }


def _over_time(experiment: Experiment, look: Look) -> dict[str, Any]:
    from datetime import UTC, datetime

    one = next((e for e in look.decision.effects if e.metric == experiment.primary.name), None)
    row = _effect_row(experiment, one) if one else None
    counts = {str(row["arm"]): int(row["units"]) for row in json.loads(look.decision.record)["inputs"]["arms"]}
    return {
        "at": datetime.fromtimestamp(look.at_ms / 1000, UTC),
        "by_arm": " / ".join(number(counts[arm.name]) for arm in experiment.arms),
        "rails": _standings(experiment, look.decision),
        "verdict": look.decision.verdict,
        "difference": row.difference if row else "",
        "interval": row.interval if row else "",
        "srm": p_text(look.decision.health.srm_p),
    }


def _standings(experiment: Experiment, found: Decision) -> str:
    """How every guardrail stands in a few words; the arm is named where there are several treatments."""
    several = len(experiment.treatments) > 1
    rails = [(said.arm, rail) for said in found.arms for rail in said.rails]
    return "; ".join(
        f"{rail.metric}{f' of {arm}' if several else ''}: {_STANDING[rail.standing]}" for arm, rail in rails
    )


def _queries(found: Decision) -> dict[str, str]:
    said = json.loads(found.record)["inputs"]["queries"]
    return {name: str(query["sql"]) for name, query in said.items() if query["sql"]}
