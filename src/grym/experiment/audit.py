"""The platform audits itself: simulated experiments whose arms are the same, and how often it finds a difference.

Every difference found between identical arms is a false one. The rates stand with exact 95 % bounds (Clopper and
Pearson) and are kept as rows of ``audits``; a promise counts as kept if the one-sided upper bound does not exceed it,
and one that is not kept raises a row of ``alerts``. Rates are fractions. Knows nothing about flows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from scipy.special import betaincinv

from grym.experiment import srm
from grym.experiment.simulator import GENERATOR, Recorded, Simulator, Traffic, synthetic
from grym.store import RunRef

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from grym.experiment.config import Experiment
    from grym.experiment.simulator import SimulatedLook
    from grym.store import Store

MIN_ROWS: Final = 30  # recorded outcomes below which synthetic ones say more
_EDITS: Final = ("substitutions", "deletions", "insertions")


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured rate.

    Attributes:
        rate: ``false-positives`` (the primary metric's p-value below its error probability), ``false-ships``,
            ``false-rollbacks`` or ``srm-alarms``, each at any look.
        hits: replicates in which it happened.
        replicates: all of them.
        promise: what was promised.
    """

    rate: str
    hits: int
    replicates: int
    promise: float

    @property
    def measured(self) -> float:
        """The rate."""
        return self.hits / self.replicates

    @property
    def low(self) -> float:
        """Lower end of the two-sided 95 % interval."""
        return float(betaincinv(self.hits, self.replicates - self.hits + 1, 0.025)) if self.hits else 0.0

    @property
    def high(self) -> float:
        """Upper end of it."""
        return self._upper(0.975)

    @property
    def at_most(self) -> float:
        """One-sided upper 95 % bound."""
        return self._upper(0.95)

    @property
    def kept(self) -> bool:
        """Whether the promise is shown to hold."""
        return self.at_most <= self.promise

    @property
    def sentence(self) -> str:
        """The finding for people."""
        words = self.rate.replace("-", " ")
        what = "within" if self.kept else "not shown to be within"
        return (
            f"{words.capitalize()}: {self.hits} of {self.replicates} ({100 * self.measured:.2f} %, at most "
            f"{100 * self.at_most:.2f} % with 95 % confidence), {what} the promised {100 * self.promise:.2g} %."
        )

    def _upper(self, level: float) -> float:
        hits, rest = self.hits, self.replicates - self.hits
        return float(betaincinv(hits + 1, rest, level)) if rest else 1.0


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found, and with what."""

    experiment: str
    digest: str
    outcomes: str
    generator: str
    looks: int
    units: int
    rates: tuple[Measured, ...]

    @property
    def broken(self) -> tuple[Measured, ...]:
        """Rates whose promise is not shown to hold."""
        return tuple(rate for rate in self.rates if not rate.kept)


def audit(
    experiment: Experiment,
    recorded: Recorded,
    *,
    replicates: int = 1_000,
    traffic: Traffic | None = None,
    looks: int = 20,
    seed: int = 20261120,
) -> Audit:
    """Simulate experiments with identical arms and count what is found.

    Args:
        experiment: the configuration to audit.
        recorded: outcomes of its arms; all arms draw the control's.
        replicates: how many experiments.
        traffic: who comes to each.
        looks: looks at each.
        seed: of everything that is drawn.

    Raises:
        ConfigError: outcomes lack a column, or there are no replicates.
    """
    come = traffic or Traffic()
    simulator = Simulator(experiment, recorded.identical(experiment.control.name), come, looks=looks, seed=seed)
    alpha = 1 - experiment.success.confidence
    found = np.array([_counted(experiment, simulator.fast(number), alpha) for number in range(replicates)], dtype=bool)
    hits = found.reshape(-1, 4).sum(axis=0).tolist()
    rates = [
        Measured("false-positives", hits[0], replicates, round(alpha, 12)),
        Measured("false-ships", hits[1], replicates, round(alpha, 12)),
        Measured("false-rollbacks", hits[2], replicates, round(alpha, 12)),
        Measured("srm-alarms", hits[3], replicates, srm.ALPHA),
    ]
    if experiment.success.rule == "non-inferior":  # an arm that is the same is not inferior: shipping it is right
        del rates[1]
    generator = f"{GENERATOR}, seed {seed}"
    name = simulator.recorded.name
    return Audit(experiment.name, experiment.digest, name, generator, looks, come.units, tuple(rates))


def recorded_outcomes(store: Store, experiment: Experiment) -> Recorded:
    """What the control's model answered in earlier comparisons, for every arm; synthetic outcomes for want of it.

    Columns are ``errors``, ``reference_words``, ``compute_seconds``, ``wall_seconds`` (the same, of the batch) and
    ``failed``. A configuration that names others gets synthetic outcomes.

    Raises:
        StorageError: a part cannot be read.
    """
    metrics = experiment.metrics
    wanted = {name for m in metrics for name in (m.value, m.weight, m.covariate) if name}
    rows = store.read("outcomes").filter(pl.col("model") == experiment.control.model)
    speakers = store.read("clips").select("run_id", "clip_id", "speaker")
    rows = rows.join(speakers, on=["run_id", "clip_id"], how="left").sort("run_id", "arm", "clip_id")
    made = rows.select(
        errors=pl.sum_horizontal(pl.col(*_EDITS).fill_null(0)).cast(pl.Float64),
        reference_words=pl.col("reference_words").fill_null(0).cast(pl.Float64),
        compute_seconds=pl.col("compute_seconds").fill_null(0.0),
        wall_seconds=pl.col("compute_seconds").fill_null(0.0),
        failed=(pl.col("status") != "ok").cast(pl.Float64),
    )
    if rows.height < MIN_ROWS or not wanted <= set(made.columns) or not made["reference_words"].sum():
        return synthetic(experiment)
    names = rows["speaker"].fill_null("").to_numpy()
    labels = np.where(names == "", rows["clip_id"].to_numpy(), names).astype(str)
    who = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    columns = {name: made[name].to_numpy().astype(np.float64) for name in made.columns}
    arms = dict.fromkeys((arm.name for arm in experiment.arms), columns)
    return Recorded(f"outcomes of {experiment.control.model}", arms, who)


def keep(store: Store, found: Audit, *, at: datetime) -> tuple[str, int]:
    """Land an audit, and an alert for every promise that is not kept.

    Returns:
        The run that the rows land under, and the number of alerts.

    Raises:
        StorageError: the store cannot be written to.
        ResourceError: the disk is full.
    """
    run = RunRef(f"audit-{found.experiment}-{at:%Y%m%dT%H%M%S}", at.date().isoformat())
    common = {name: value for name, value in asdict(found).items() if name != "rates"} | {"at": at}
    alerts = [_alert(run, rate, found, at) for rate in found.broken]
    store.land("alerts", alerts, run=run, part="audit")
    store.land("audits", [{**common, **_row(rate)} for rate in found.rates], run=run, part="audit")
    return run.id, len(alerts)


def _counted(experiment: Experiment, looks: Sequence[SimulatedLook], alpha: float) -> tuple[bool, bool, bool, bool]:
    """Of one replicate: a false positive, a false SHIP, a false ROLLBACK, an alarm of the shares, at any look."""
    primary = experiment.primary.name
    open_arms = max(1, len({one.arm for one in looks[0].effects}))
    p_values = [one.p_value for look in looks for one in look.effects if one.metric == primary]
    verdicts = {one.verdict for look in looks for one in look.arms}
    positive = any(p is not None and p < alpha / open_arms for p in p_values)
    alarm = any(look.health.srm_p < srm.ALPHA for look in looks)
    return positive, "SHIP" in verdicts, "ROLLBACK" in verdicts, alarm


def _row(rate: Measured) -> dict[str, Any]:
    names = ("rate", "hits", "replicates", "promise", "measured", "low", "high", "at_most", "kept")
    return {name: getattr(rate, name) for name in names}


def _alert(run: RunRef, rate: Measured, found: Audit, at: datetime) -> dict[str, Any]:
    few = rate.low <= rate.promise
    hint = (
        "The measured rate itself is compatible with the promise: audit with more replicates before you worry."
        if few
        else "Trust no verdict of this configuration until the cause is found; compare earlier rows of aa_audits."
    )
    return {
        "alert_id": f"{run.id}-{rate.rate}",
        "at": at,
        "kind": "audit",
        "subject": f"{found.experiment}/{rate.rate}",
        "severity": "warning" if few else "critical",
        "status": "new",
        "message": rate.sentence,
        "hint": hint,
        "suppressed": 0,
    }
