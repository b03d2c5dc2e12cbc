"""Tasks of live experiments: decide, draw the page, audit, and what they leave in Prefect."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from grym.experiment.audit import Audit, audit, keep, recorded_outcomes
from grym.experiment.config import Experiment
from grym.experiment.decision import Decision
from grym.experiment.ledger import make_decision
from grym.experiment.simulator import Traffic
from grym.store import Store
from reports.experiment import audit_markdown, decision_markdown, status_page
from tasks.policies import PLAIN, STORAGE


@task(name="decide", tags=["cpu"], **STORAGE)
def decide(store: Store, experiment: Experiment) -> Decision:
    """Decide from the landed events and land the decision."""
    return make_decision(store, experiment)


@task(name="draw experiment", tags=["cpu"], **PLAIN)
def draw(store: Store, experiment: Experiment, looks: int) -> Path:
    """Write the status page of an experiment."""
    return status_page(store, experiment, looks=looks)


@task(name="tell decision", **PLAIN)
def tell_decision(experiment: Experiment, found: Decision, page: Path) -> None:
    """Leave the decision as a page in Prefect."""
    text = decision_markdown(experiment, found, page=str(page))
    key = f"experiment-{experiment.name}".replace("_", "-")
    create_markdown_artifact(key=key, markdown=text, description=f"Decision on {experiment.name}")


@task(name="audit", tags=["cpu"], **PLAIN)
def measure_rates(store: Store, experiment: Experiment, traffic: Traffic, settings: tuple[int, int, int]) -> Audit:
    """Simulate experiments with identical arms; ``settings`` are replicates, looks and seed."""
    replicates, looks, seed = settings
    outcomes = recorded_outcomes(store, experiment)
    return audit(experiment, outcomes, replicates=replicates, traffic=traffic, looks=looks, seed=seed)


@task(name="keep audit", tags=["cpu"], **STORAGE)
def keep_audit(store: Store, found: Audit, at: datetime) -> tuple[str, int]:
    """Land the rates, and an alert for each promise that is not kept."""
    return keep(store, found, at=at)


@task(name="tell audit", **PLAIN)
def tell_audit(found: Audit) -> None:
    """Leave the rates as a page in Prefect."""
    key = f"audit-{found.experiment}".replace("_", "-")
    create_markdown_artifact(key=key, markdown=audit_markdown(found), description="What the last self-audit measured")
