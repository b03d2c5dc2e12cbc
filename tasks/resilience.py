"""Tasks about what fails: health checks, and changes of state mirrored to the warehouse's tables and to Prefect."""

from __future__ import annotations

from uuid import UUID

from prefect import task
from prefect.events import emit_event

from grym.config import Settings
from grym.resilience.health import Health
from grym.resilience.opening import open_checks
from grym.resilience.records import land_events, tell_events
from grym.resilience.state import Event, States
from grym.store import Store
from tasks.policies import PLAIN, STORAGE

_RECOVERED = """
SELECT
    coalesce(model, '') AS model,
    category,
    sum(calls)::BIGINT AS "failed calls",
    sum(recovered)::BIGINT AS recovered,
    round(100.0 * sum(recovered) / sum(calls), 1) AS "recovered, %"
FROM recovery_success
GROUP BY ALL
ORDER BY 3 DESC, 1, 2
"""


@task(name="check health", **PLAIN)
def check_health(settings: Settings, model: str, *, fresh: bool) -> Health:
    """Whether a model answers its known clip rightly and in time; an earlier check counts unless ``fresh``."""
    with open_checks(settings) as made:
        return made.check(model, asked_by="watch") if fresh else made.current(model, asked_by="watch")


@task(name="mirror changes", tags=["cpu"], **STORAGE)
def mirror_changes(store: Store) -> int:
    """Land changes of breakers, health and routes, and emit them as Prefect events; how many were emitted."""
    states = States(store.home)
    try:
        land_events(states, store)
        return tell_events(states, emit)
    finally:
        states.close()


@task(name="recovery rates", tags=["cpu"], **PLAIN)
def recovery_rates(store: Store) -> list[dict[str, object]]:
    """How often failed calls were answered in the end, by model and category, over everything that is published."""
    with store.connect() as warehouse:
        found = warehouse.execute(_RECOVERED)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def emit(event: Event) -> None:
    """One change as a Prefect event, such as ``grym.breaker.open`` of ``grym.breaker.mini/process_audio``."""
    emit_event(
        event=f"grym.{event.kind}.{event.after}" if event.kind != "failover" else "grym.failover",
        resource={"prefect.resource.id": f"grym.{event.kind}.{event.subject}", "prefect.resource.name": event.subject},
        occurred=event.at,
        payload={"before": event.before, "after": event.after, "reason": event.reason},
        id=UUID(event.event_id),  # emitted again after a kill, it is the same event
    )
