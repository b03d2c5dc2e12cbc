"""The decision on one version at one look, and the record of it that replays to the same bytes.

    INVALID     the numbers cannot be believed        ROLLBACK    a guardrail is broken
    SHIP        the treatment may take over           HOLD        not enough evidence
    EQUIVALENT  the difference is inside the margin

The record is canonical JSON: sorted keys, no spaces, UTF-8, one line. It holds the configuration, every count and
moment that was used, the queries they came from with their sha256, and everything that follows. Means and spreads go
in with 12 significant digits, and everything is computed from what went in; results come out with 9. So whoever has
the record can compute it again: :func:`replay`. Knows nothing about where records are kept.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from grym.errors import GrymError, QualityError
from grym.experiment import evidence as statistics
from grym.experiment.advice import Sentence, advise
from grym.experiment.effects import Design, Effect, effect, quantile_effect
from grym.experiment.health import Health, examine
from grym.experiment.loading import parse_experiment
from grym.experiment.moments import Moments
from grym.experiment.quantiles import Quantile, gather_quantiles, queries
from grym.experiment.verdicts import ORDER, ArmVerdict, Seen, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.experiment.config import Experiment
    from grym.experiment.evidence import Evidence
    from grym.store import Store

METHOD: Final = "normal-mixture/1"  # a change of any number or word of a record is another method
RESULT_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why.

    Attributes:
        experiment: name.
        version: of the configuration.
        verdict: of the experiment: of its treatments' the one that needs action first.
        arm: the treatment that the verdict is about; none where it is about the experiment.
        arms: verdict on each treatment that has a share.
        health: what was checked.
        effects: by treatment and metric, in the configuration's order.
        advice: what it says to people.
        record: canonical JSON of all this, UTF-8.
    """

    experiment: str
    version: int
    verdict: Verdict
    arm: str | None
    arms: tuple[ArmVerdict, ...]
    health: Health
    effects: tuple[Effect, ...]
    advice: tuple[Sentence, ...]
    record: bytes

    @property
    def digest(self) -> str:
        """sha256 of the record, 64 hexadecimal digits: the decision's identity."""
        return hashlib.sha256(self.record).hexdigest()

    @property
    def recommendation(self) -> str:
        """The advice as one text."""
        return " ".join(sentence.text for sentence in self.advice)


def decide_from(
    store: Store, experiment: Experiment, *, until_ms: int | None = None, threads: int | None = None
) -> Decision:
    """Read the events of a version and decide.

    Args:
        store: whose landing zone.
        experiment: the version.
        until_ms: leave later events out: what the decision would have been then.
        threads: of DuckDB; default all cores.

    Raises:
        StorageError: a part cannot be read.
        ResourceError: memory ran out.
        QualityError: a stored number is not finite.
    """
    with statistics.open_events(store, experiment, until_ms=until_ms, threads=threads) as events:
        found = events.evidence()
        return decide(experiment, found, gather_quantiles(events, experiment))


def decide(experiment: Experiment, evidence: Evidence, quantiles: Sequence[Quantile] = ()) -> Decision:
    """Decide from sufficient statistics.

    Args:
        experiment: the version.
        evidence: its sums and counts.
        quantiles: one for every quantile metric and arm.

    Raises:
        QualityError: a number is not finite, or a metric and arm are missing.
    """
    inputs = {
        "config": json.loads(experiment.canonical),
        "arms": [asdict(arm) for arm in evidence.arms],
        "moments": [
            {"metric": row["metric"], "arm": row["arm"], **Moments.from_row(row).centred()} for row in evidence.rows
        ],
        "quantiles": [quantile.row() for quantile in quantiles],
        "queries": {
            "moments": {"sha256": evidence.query_digest, "sql": statistics.queries(experiment)},
            "quantiles": _query(queries(experiment)),
        },
        "mixed": evidence.mixed,
        "lost": evidence.lost,
        "repeated": evidence.repeated,
        "first_ms": evidence.first_ms,
        "last_ms": evidence.last_ms,
        "until_ms": evidence.until_ms,
    }
    return _derive(json.loads(_canonical(inputs)))


def replay(record: bytes | str) -> bytes:
    """Compute a record again from what it says went in; equal to the record if nobody touched it.

    Raises:
        QualityError: it is not a record, or was made by a method that this release does not have.
    """
    try:
        said = json.loads(record)
        method, inputs = said["method"], said["inputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise _bad_record(repr(error)) from error
    if method != METHOD:
        msg = f"The record was made by method {method!r}; this release has {METHOD!r}."
        raise QualityError(msg, code="other-method", hint="Replay it with the release that made it.")
    try:
        return _derive(inputs).record
    except (KeyError, TypeError, ValueError) as error:
        what = error.message if isinstance(error, GrymError) else repr(error)
        raise _bad_record(what) from error


def _derive(inputs: Mapping[str, Any]) -> Decision:
    """Everything that follows from the inputs, and only from them."""
    experiment = parse_experiment(inputs["config"])
    effects = {arm.name: _effects(experiment, arm.name, inputs) for arm in experiment.treatments if arm.share > 0}
    measured = [int(_find(inputs, experiment.primary.name, arm.name)["n"]) for arm in experiment.arms]
    health = examine(experiment, inputs["arms"], measured, mixed=inputs["mixed"], lost=inputs["lost"])
    units = {arm["arm"]: int(arm["units"]) for arm in inputs["arms"]}
    seen = {
        name: Seen.of(min(units[name], units[experiment.control.name]), inputs["first_ms"], inputs["last_ms"])
        for name in effects
    }
    arms = tuple(
        judge(experiment, name, found, Design.of(experiment, name).alpha, seen[name]) for name, found in effects.items()
    )
    verdict, arm = _overall(experiment, health, arms, effects)
    advice = advise(experiment, verdict, arm, health, arms, effects, seen)
    results = {
        "verdict": verdict,
        "arm": arm,
        "arms": [asdict(one) for one in arms],
        "health": asdict(health),
        "designs": {name: asdict(Design.of(experiment, name)) for name in effects},
        "effects": [_row(experiment, one) for found in effects.values() for one in found.values()],
        "advice": [asdict(sentence) for sentence in advice],
    }
    record = {
        "method": METHOD,
        "experiment": experiment.name,
        "version": experiment.version,
        "digest": experiment.digest,
        "inputs": inputs,
        "rounding": f"significant digits: inputs 12, results {RESULT_DIGITS}",
        **_rounded(results),
    }
    flat = tuple(one for found in effects.values() for one in found.values())
    made = _canonical(record)
    return Decision(experiment.name, experiment.version, verdict, arm, arms, health, flat, advice, made)


def _effects(experiment: Experiment, arm: str, inputs: Mapping[str, Any]) -> dict[str, Effect]:
    """By metric, in the configuration's order."""
    design, control, found = Design.of(experiment, arm), experiment.control.name, {}
    for metric in experiment.metrics:
        if metric.kind == "quantile":
            pair = [Quantile.from_row(_find(inputs, metric.name, name, "quantiles")) for name in (control, arm)]
            found[metric.name] = quantile_effect(metric, arm, pair[0], pair[1], design)
        else:
            sums = [Moments.from_centred(_find(inputs, metric.name, name)) for name in (control, arm)]
            found[metric.name] = effect(metric, arm, sums[0], sums[1], design)
    return found


def _find(inputs: Mapping[str, Any], metric: str, arm: str, kind: str = "moments") -> Mapping[str, Any]:
    for row in inputs[kind]:
        if row["metric"] == metric and row["arm"] == arm:
            return dict(row)
    msg = f"There are no {kind} of metric {metric!r} in arm {arm!r}."
    raise QualityError(msg, code="missing-statistics", hint="Gather them with the same configuration.")


def _overall(
    experiment: Experiment, health: Health, arms: Sequence[ArmVerdict], effects: Mapping[str, Mapping[str, Effect]]
) -> tuple[Verdict, str | None]:
    """What the experiment comes to, and the treatment it is about: of several the one with the best primary metric."""
    if health.problems:
        return "INVALID", None
    if not arms:
        return "HOLD", None
    first = min((said.verdict for said in arms), key=ORDER.index)
    if first in {"HOLD", "EQUIVALENT"}:
        return first, None
    primary = experiment.primary
    sign = 1.0 if primary.direction == "lower" else -1.0
    chosen = [said.arm for said in arms if said.verdict == first]
    return first, min(chosen, key=lambda name: sign * (effects[name][primary.name].delta or 0.0))


def _row(experiment: Experiment, one: Effect) -> dict[str, Any]:
    kind = experiment.metric(one.metric).kind
    log = one.log()
    return {**asdict(one), "log": log, "query": "quantiles" if kind == "quantile" else "moments"}


def _rounded(value: Any) -> Any:
    """Results in :data:`RESULT_DIGITS` significant digits; what is infinite or missing is null."""
    if isinstance(value, float):
        # Adding 0 makes -0 a 0.
        return float(f"{value:.{RESULT_DIGITS}g}") + 0.0 if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _query(sql: str) -> dict[str, str]:
    return {"sha256": hashlib.sha256(sql.encode()).hexdigest(), "sql": sql}


def _bad_record(why: str) -> QualityError:
    msg = f"The decision record cannot be replayed: {why.rstrip('.')}."
    return QualityError(msg, code="bad-record", hint="Use the record as it was stored.")
