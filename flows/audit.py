"""The nightly self-audit: simulated experiments with identical arms, and how often a difference is found.

Order and policy only; what is measured is in ``grym.experiment.audit``.

Run: ``python -m flows audit``
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from prefect import flow, runtime
from pydantic import Field

from grym.config import ensure_home, load_settings
from grym.experiment.audit import Audit
from grym.experiment.loading import find_experiment
from grym.experiment.simulator import Traffic
from grym.store import Store
from reports import VIEWS
from tasks.experiment import keep_audit, measure_rates, tell_audit
from tasks.store import publish


@dataclass(frozen=True, slots=True)
class Audited:
    """What the flow made: the rates, the run they landed under, and how many alerts were raised."""

    audit: Audit
    run_id: str
    alerts: int
    task_runs: int
    flow_run_id: str


@flow(name="audit", flow_run_name="{name}", persist_result=False, validate_parameters=True)
def audit(
    name: str = "mini-int8",
    replicates: Annotated[int, Field(ge=1)] = 1_000,
    units: Annotated[int, Field(ge=200)] = 1_000,
    looks: Annotated[int, Field(ge=1)] = 20,
    seed: int | None = None,
) -> Audited:
    """Measure the error rates of the decisions themselves.

    Args:
        name: the configuration to audit, a file of the folder ``experiments``, without ``.toml``.
        replicates: simulated experiments.
        units: units in each of them.
        looks: looks at each of them.
        seed: of everything that is drawn; default the date, so that every night draws anew.

    Raises:
        GrymError: the configuration is not valid, or the store cannot be used.
    """
    settings = load_settings()
    ensure_home(settings)
    store, config, now = Store(settings.home), find_experiment(settings.root, name), datetime.now(UTC)
    drawn = int(f"{now:%Y%m%d}") if seed is None else seed
    found = measure_rates(store, config, Traffic(units=units), (replicates, looks, drawn))
    run_id, alerts = keep_audit(store, found, now)
    tell_audit(found)
    publish(store, VIEWS)
    return Audited(found, run_id, alerts, task_runs=4, flow_run_id=str(runtime.flow_run.id or ""))
