"""Put pools, limits and the deployments of ``prefect.yaml`` on a Prefect server; a repeat changes nothing.

What there is to deploy is read by :mod:`flows.deployments`, policies stand in
``tasks/policies.py``. Seconds.

Run: ``python -m flows deploy``
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from rich.console import Console
from rich.table import Table

from flows._prefect import zombies
from flows.deployments import ROOT, Deployment, Schedule
from flows.server import Server
from tasks.policies import GLOBAL_LIMITS, POOLS, TAG_LIMITS

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate

ZOMBIES: Final = zombies.NAME
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Placed:
    """One deployment on the server.

    Attributes:
        name: ``FLOW/DEPLOYMENT``.
        when: its schedules in words.
        pool: its work pool.
        id: its id on the server.
        new: whether it was not there before.
    """

    name: str
    when: str
    pool: str
    id: str
    new: bool


@dataclass(frozen=True, slots=True)
class Deployed:
    """What is on the server now.

    Attributes:
        deployments: those of ``prefect.yaml``, in its order.
        pools: pool -> flow runs at once.
        limits: limit -> slots, those of tags as ``tag:NAME``.
        others: deployments on the server that ``prefect.yaml`` does not name; they are left alone.
    """

    deployments: tuple[Placed, ...]
    pools: dict[str, int]
    limits: dict[str, int]
    others: tuple[str, ...]


def deploy(deployments: Sequence[Deployment]) -> Deployed:
    """Put everything on the server that Prefect's settings point at.

    Args:
        deployments: what to put there; see :func:`flows.deployments.read_deployments`.

    Raises:
        httpx.HTTPError: the server refused something or is gone; :mod:`flows.trouble` has words for it.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        before = _known(client)
        pools = {pool.name: _pool(client, pool.name, pool.runs, pool.purpose) for pool in POOLS}
        limits = {**{f"tag:{tag}": slots for tag, slots in TAG_LIMITS.items()}, **GLOBAL_LIMITS}
        for name, slots in limits.items():
            client.upsert_global_concurrency_limit_by_name(name, slots)
        _automation(client)
        placed = tuple(
            Placed(d.name, d.when, d.spec.work_pool.name, _put(client, d), d.name not in before) for d in deployments
        )
    others = tuple(sorted(before - {deployment.name for deployment in deployments}))
    return Deployed(placed, pools, limits, others)


def show(out: Console, deployed: Deployed, server: Server) -> None:
    """What is on the server now, and the commands that make it run."""
    table = Table(title="Deployments", title_justify="left")
    for column in ("name", "when", "pool", ""):
        table.add_column(column)
    for found in deployed.deployments:
        table.add_row(found.name, found.when, found.pool, "new" if found.new else "renewed")
    out.print(table)
    out.print(f"Flow runs at once: {_counts(deployed.pools)}", highlight=False)
    out.print(f"Slots: {_counts(deployed.limits)}", highlight=False)
    if deployed.others:
        out.print(f"Not in prefect.yaml, left alone: {', '.join(deployed.others)}", highlight=False, soft_wrap=True)
    if server.pid is not None:
        out.print("Nothing runs unless the server is up:  make ui", highlight=False)
    for pool in deployed.pools:
        out.print(f"and a worker for {pool}:  {worker_command(pool, server.url)}", highlight=False, soft_wrap=True)


def worker_command(pool: str, url: str) -> str:
    """The shell command that starts a worker of a pool, with the home and the configuration in force here."""
    kept = {name: os.environ[name] for name in ("GRYM_HOME", "GRYM_CONFIG") if os.environ.get(name)}
    variables = [f"{name}={shlex.quote(value)}" for name, value in {"PREFECT_API_URL": url, **kept}.items()]
    command = shlex.join([sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"])
    return " ".join([*variables, command])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _known(client: SyncPrefectClient) -> set[str]:
    """Full names of the deployments on the server."""
    flows = {flow.id: flow.name for flow in _pages(client.read_flows)}
    return {f"{flows[found.flow_id]}/{found.name}" for found in _pages(client.read_deployments)}


def _pages(read: Callable[..., list[T]], size: int = 200) -> Iterator[T]:
    offset = 0
    while page := read(limit=size, offset=offset):
        yield from page
        offset += size


def _put(client: SyncPrefectClient, found: Deployment) -> str:
    """Make or renew one deployment; its id. What `prefect deploy` would make of the same file."""
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.utilities.callables import parameter_schema

    spec, limit = found.spec, found.spec.concurrency_limit
    fate = ConcurrencyLimitStrategy(limit.collision_strategy if limit else "ENQUEUE")
    made = client.create_deployment(
        flow_id=client.create_flow(found.flow),
        name=spec.name,
        description=spec.description,
        tags=list(spec.tags),
        entrypoint=spec.entrypoint,
        # A worker starts elsewhere; from the checkout the flows can be imported.
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
        parameters=dict(spec.parameters),
        parameter_openapi_schema=parameter_schema(found.flow).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        work_pool_name=spec.work_pool.name,
        work_queue_name=spec.work_pool.work_queue_name,
        job_variables=dict(spec.work_pool.job_variables),
        schedules=[_schedule(schedule) for schedule in spec.schedules],
        concurrency_limit=limit.limit if limit else None,
        concurrency_options=ConcurrencyOptions(collision_strategy=fate) if limit else None,
        paused=False,
    )
    return str(made)


def _schedule(wanted: Schedule) -> DeploymentScheduleCreate:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

    rule: CronSchedule | IntervalSchedule
    if wanted.cron is not None:
        rule = CronSchedule(cron=wanted.cron, timezone=wanted.timezone)
    else:
        rule = IntervalSchedule(interval=timedelta(seconds=wanted.interval or 0), timezone=wanted.timezone)
    return DeploymentScheduleCreate(
        schedule=rule, active=wanted.active, slug=wanted.slug, parameters=dict(wanted.parameters)
    )


def _pool(client: SyncPrefectClient, name: str, runs: int, purpose: str) -> int:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    try:
        client.create_work_pool(WorkPoolCreate(name=name, type="process", description=purpose, concurrency_limit=runs))
    except ObjectAlreadyExists:  # the base job template stays as somebody may have edited it
        client.update_work_pool(name, WorkPoolUpdate(description=purpose, concurrency_limit=runs))
    return runs


def _automation(client: SyncPrefectClient) -> None:
    """Without it a flow run whose machine died stays "running", and a pool with one slot waits for it for ever."""
    from prefect.events.schemas.automations import AutomationCore

    wanted = AutomationCore.model_validate(zombies.automation())
    for known in client.read_automations_by_name(ZOMBIES):
        client.update_automation(known.id, wanted)
        return
    client.create_automation(wanted)
