"""Decisions as they are kept: made from the events, landed as rows of ``decisions``, looked back at, replayed.

The record in a row is what counts; the other columns are copies for queries. Deciding twice on the same events gives
the same record, and the same row. Knows nothing about flows or pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from grym.errors import ConfigError
from grym.experiment.decision import Decision, decide_from, replay
from grym.experiment.registry import registered, run_id
from grym.store import RunRef

if TYPE_CHECKING:
    from grym.experiment.config import Experiment
    from grym.experiment.effects import Effect
    from grym.store import Store


@dataclass(frozen=True, slots=True)
class Look:
    """The decision as it was, or would have been, at a moment in milliseconds since 1970 (UTC)."""

    at_ms: int
    decision: Decision


@dataclass(frozen=True, slots=True)
class Replayed:
    """Whether a stored record, computed again, gives the same bytes; ``why`` it cannot be computed."""

    decision: str
    at: datetime
    verdict: str
    same: bool
    why: str = ""


def check_registered(store: Store, experiment: Experiment) -> None:
    """Make sure that the version has run, with this very configuration.

    Raises:
        ConfigError: it has not run, or with another configuration.
        StorageError: a part cannot be read.
    """
    known = registered(store).get((experiment.name, experiment.version))
    where = f"Experiment {experiment.name!r} version {experiment.version}"
    if known is None:
        msg = f"{where} has not been started."
        raise ConfigError(
            msg, code="not-started", hint=f"Start it: python -m flows experiment {experiment.name} start."
        )
    if known.digest != experiment.digest:
        msg = f"{where} has run with another configuration (digest {known.digest[:12]}, now {experiment.digest[:12]})."
        hint = f"Set version = {experiment.version + 1}, or restore what it was."
        raise ConfigError(msg, code="changed-configuration", hint=hint)


def make_decision(
    store: Store, experiment: Experiment, *, until_ms: int | None = None, now: datetime | None = None
) -> Decision:
    """Decide from the landed events, and land the decision.

    Args:
        store: whose events, and where the decision lands.
        experiment: the version, started before.
        until_ms: leave later events out.
        now: time of the row (UTC); default the clock's.

    Raises:
        ConfigError: the version has not been started, or was with another configuration.
        StorageError: the store cannot be used.
        ResourceError: memory or disk are full.
        QualityError: a stored number is not finite.
    """
    check_registered(store, experiment)
    found = decide_from(store, experiment, until_ms=until_ms)
    at = (now or datetime.now(UTC)).astimezone(UTC)
    run = RunRef(run_id(experiment.name, experiment.version), at.date().isoformat())
    row = decision_row(experiment, found) | {"at": at, "until_ms": until_ms}
    store.land("decisions", [row], run=run, part=f"decision-{found.digest[:16]}")
    return found


def decision_row(experiment: Experiment, found: Decision) -> dict[str, Any]:
    """The columns of a decision but its time."""
    one = primary_effect(experiment, found)
    return {
        "experiment": found.experiment,
        "version": found.version,
        "digest": experiment.digest,
        "decision": found.digest,
        "verdict": found.verdict,
        "arm": found.arm or "",
        "units": found.health.units,
        "srm_p": found.health.srm_p,
        "metric": experiment.primary.name,
        "delta": one.delta if one else None,
        "ci_low": one.low if one else None,
        "ci_high": one.high if one else None,
        "p_value": one.p_value if one else None,
        "recommendation": found.recommendation,
        "record": found.record.decode(),
    }


def primary_effect(experiment: Experiment, found: Decision, arm: str | None = None) -> Effect | None:
    """The primary metric of one treatment: of the one named, of the decision's, else of the first."""
    wanted = arm or found.arm
    effects = [one for one in found.effects if one.metric == experiment.primary.name]
    return next((one for one in effects if wanted in {None, one.arm}), None)


def history(store: Store, experiment: Experiment, *, looks: int = 16) -> tuple[Look, ...]:
    """What the decision would have been at moments evenly spread over the experiment, the last one with all events.

    Args:
        store: whose events.
        experiment: the version.
        looks: how many; each reads the events again.

    Raises:
        StorageError: a part cannot be read.
        ResourceError: memory ran out.
        QualityError: a stored number is not finite.
    """
    last = decide_from(store, experiment)
    first_ms, last_ms = _span(store, experiment)
    if first_ms is None or last_ms is None:
        return ()
    step = (last_ms - first_ms) / max(1, looks)
    moments = sorted({int(first_ms + step * number) for number in range(1, looks)} - {last_ms})
    earlier = [Look(at, decide_from(store, experiment, until_ms=at)) for at in moments if step > 0]
    return (*earlier, Look(last_ms, last))


def decisions(store: Store, experiment: Experiment) -> pl.DataFrame:
    """The decisions on a version, oldest first."""
    run = run_id(experiment.name, experiment.version)
    return store.read("decisions").filter(pl.col("run_id") == run).sort("at", "decision")


def replay_all(store: Store, experiment: Experiment) -> tuple[Replayed, ...]:
    """Compute every stored record of a version again, oldest first.

    Raises:
        StorageError: a part cannot be read.
    """
    return tuple(_replayed(row) for row in decisions(store, experiment).to_dicts())


def _replayed(row: dict[str, Any]) -> Replayed:
    from grym.errors import QualityError

    record = str(row["record"]).encode()
    try:
        same, why = replay(record) == record, ""
    except QualityError as error:
        same, why = False, error.message
    return Replayed(str(row["decision"]), row["at"], str(row["verdict"]), same, why)


def _span(store: Store, experiment: Experiment) -> tuple[int | None, int | None]:
    exposures = store.read("exposures").filter(
        pl.col("experiment") == experiment.name, pl.col("version") == experiment.version
    )["at_ms"]
    return (int(exposures.min()), int(exposures.max())) if exposures.len() else (None, None)  # type: ignore[arg-type]  # whole numbers
