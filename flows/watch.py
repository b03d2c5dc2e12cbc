"""Whether everything that is registered answers: health of the models, breakers, changes mirrored and published.

Order and policy only; what each step means is in ``grym.resilience``.

Run: ``python -m flows watch``
"""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow, runtime
from prefect.artifacts import create_table_artifact

from grym.config import ensure_home, load_settings
from grym.resilience.health import Health, table
from grym.store import Store
from reports import VIEWS
from tasks.resilience import check_health, mirror_changes, recovery_rates
from tasks.store import publish


@dataclass(frozen=True, slots=True)
class Watched:
    """What a round found.

    Attributes:
        checks: one for each model.
        recovered: failed calls and how many were answered in the end, by model and category.
        changes: changes of state that were told to Prefect.
        task_runs: how many task runs the server has to know about.
        flow_run_id: id of the flow run in Prefect.
    """

    checks: tuple[Health, ...]
    recovered: tuple[dict[str, object], ...]
    changes: int
    task_runs: int
    flow_run_id: str


@flow(name="watch", flow_run_name="round", persist_result=False, validate_parameters=True)
def watch(models: list[str] | None = None, *, fresh: bool = False) -> Watched:
    """Check models, mirror what changed, publish.

    Args:
        models: registered names; default all whose ``[models.NAME.health]`` is enabled.
        fresh: ask every model, also those that were checked within the interval of ``[health]``.

    Returns:
        What was found; a model that is not healthy does not fail the flow, it raises an alert.

    Raises:
        ConfigError: a model is not registered, or the known clip is not there.
    """
    settings = load_settings()
    ensure_home(settings)
    names = models or [name for name, spec in settings.models.items() if spec.health.enabled]
    found = []
    for name in names:
        tag = "gpu" if "cuda" in str(settings.model(name).options.get("device", "")) else "cpu"
        asked = check_health.with_options(tags=[tag], task_run_name=f"check {name}")
        found.append(asked(settings, name, fresh=fresh))
    store = Store(settings.home)
    changes = mirror_changes(store)
    publish(store, VIEWS)
    create_table_artifact(key="health", table=table(found), description="Whether the registered models answer")
    recovered = recovery_rates(store)
    create_table_artifact(key="recovery", table=recovered, description="Failed calls that were answered in the end")
    return Watched(tuple(found), tuple(recovered), changes, len(found) + 3, str(runtime.flow_run.id or ""))
