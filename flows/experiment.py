"""Live experiments: decide on what was collected, draw the status page.

Order and policy only; what a decision means is in ``grym.experiment``. It can be killed at any moment and repeated:
the same events give the same record. What needs no server is in :mod:`flows.experiment_command`.

Run: ``python -m flows experiment mini-int8 decide``
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from prefect import flow, runtime
from pydantic import Field

from grym.config import ensure_home, load_settings
from grym.experiment.control import kill
from grym.experiment.decision import Decision
from grym.experiment.loading import find_experiment
from grym.store import Store
from reports import VIEWS
from tasks.experiment import decide, draw, tell_decision
from tasks.store import publish


@dataclass(frozen=True, slots=True)
class Decided:
    """What the flow made: the decision, the page, and whether the experiment was stopped."""

    decision: Decision
    page: Path
    stopped: bool
    task_runs: int
    flow_run_id: str


@flow(name="experiment", flow_run_name="{name}", persist_result=False, validate_parameters=True)
def experiment(name: str, looks: Annotated[int, Field(ge=1, le=200)] = 16, *, act: bool = False) -> Decided:
    """Decide on the version of an experiment that its file describes.

    Args:
        name: a file of the folder ``experiments``, without ``.toml``.
        looks: moments at which the page says what the decision would have been.
        act: stop the experiment at once if the verdict is INVALID or ROLLBACK; else it is only recommended.

    Raises:
        GrymError: the experiment has not been started, has changed, or its events cannot be read.
    """
    settings = load_settings()
    ensure_home(settings)
    store, config = Store(settings.home), find_experiment(settings.root, name)
    made = decide(store, config)
    stopped = act and made.verdict in {"INVALID", "ROLLBACK"}
    if stopped:
        kill(store.home, config, f"{made.verdict}: {made.recommendation}")
    page = draw(store, config, looks)
    tell_decision(config, made, page)
    publish(store, VIEWS)
    return Decided(made, page, stopped, task_runs=4, flow_run_id=str(runtime.flow_run.id or ""))
