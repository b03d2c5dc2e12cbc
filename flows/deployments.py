"""``prefect.yaml`` as typed, checked objects: which flow, when, where, with which parameters.

The one reader of that file on our side; Prefect reads it itself when it deploys.
Starts nothing and asks no server. An unknown key is an error that names it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from prefect import Flow, Task
from prefect.exceptions import ParameterBindError, ParameterTypeError, SignatureMismatchError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.cron import in_words
from grym.errors import ConfigError
from tasks.policies import POOLS

ROOT: Final = Path(__file__).resolve().parent.parent
FILE: Final = ROOT / "prefect.yaml"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Schedule(_Frozen):
    """When a deployment runs by itself: a cron expression of five fields, or an interval in seconds."""

    slug: str = Field(min_length=1)
    cron: str | None = None
    interval: float | None = Field(default=None, gt=0)
    timezone: str = "UTC"
    active: bool = True
    parameters: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_rule(self) -> Schedule:
        if (self.cron is None) == (self.interval is None):
            msg = "give either cron or interval"
            raise ValueError(msg)
        return self

    @property
    def words(self) -> str:
        """The schedule as a person says it."""
        when = in_words(self.cron, self.timezone) if self.cron else f"every {self.interval:g} s"
        return when if self.active else f"{when} (paused)"


class WorkPool(_Frozen):
    """Where a deployment runs."""

    name: str
    work_queue_name: str | None = None
    job_variables: Mapping[str, Any] = Field(default_factory=dict)


class Limit(_Frozen):
    """How many flow runs of one deployment at once, and what becomes of one too many."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"

    @property
    def words(self) -> str:
        """The limit as a person says it."""
        fate = {"ENQUEUE": "waits", "CANCEL_NEW": "is cancelled"}[self.collision_strategy]
        return f"{self.limit} at a time; one more {fate}"


class Spec(_Frozen):
    """One entry of ``deployments`` in ``prefect.yaml``."""

    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    entrypoint: str = Field(pattern=r"^\w+(\.\w+)+$")
    work_pool: WorkPool
    tags: tuple[str, ...] = Field(min_length=1)
    parameters: Mapping[str, Any] = Field(default_factory=dict)
    schedules: tuple[Schedule, ...] = ()
    concurrency_limit: Limit | None = None


class _File(_Frozen):
    name: str
    prefect_version: str = Field(alias="prefect-version")
    pull: None = None
    deployments: tuple[Spec, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment with the flow that it runs.

    Attributes:
        spec: what ``prefect.yaml`` says.
        flow: the flow.
        parameters: every parameter of the flow: the deployment's value, or the flow's default.
        tasks: the tasks that the flow's module uses, by name.
    """

    spec: Spec
    flow: Flow[..., Any]
    parameters: Mapping[str, Any]
    tasks: Mapping[str, Task[..., Any]]

    @property
    def name(self) -> str:
        """Full name, ``FLOW/DEPLOYMENT``."""
        return f"{self.flow.name}/{self.spec.name}"

    @property
    def when(self) -> str:
        """All schedules in words, or that there is none."""
        return "; ".join(schedule.words for schedule in self.spec.schedules) or "on demand"


def read_deployments(path: Path = FILE) -> tuple[Deployment, ...]:
    """Every deployment of a ``prefect.yaml``, checked against the flows and the pools that exist.

    Args:
        path: the file.

    Raises:
        ConfigError: the file cannot be read, has unknown or wrong keys, or names a flow, a parameter or a pool that
            does not exist.
    """
    specs = _read(path).deployments
    found = tuple(_deployment(spec) for spec in specs)
    names = [deployment.name for deployment in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _wrong(path, f"{', '.join(twice)} is there twice")
    for spec in specs:
        if spec.work_pool.name not in {pool.name for pool in POOLS}:
            raise _wrong(path, f"{spec.name} names the pool {spec.work_pool.name!r}, which tasks/policies.py has not")
    return found


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise _wrong(path, f"it cannot be read: {(error.strerror or str(error)).lower()}") from error
    except yaml.YAMLError as error:
        raise _wrong(path, f"it is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
        raise _wrong(path, problems) from error


def _deployment(spec: Spec) -> Deployment:
    module_name, _, name = spec.entrypoint.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise _wrong(FILE, f"{spec.name} names {spec.entrypoint}, and there is no module {error.name}") from error
    flow = getattr(module, name, None)
    if not isinstance(flow, Flow):
        raise _wrong(FILE, f"{spec.name} names {spec.entrypoint}, which is not a flow")
    defaults = {p.name: p.default for p in inspect.signature(flow.fn).parameters.values()}
    given = {**defaults, **spec.parameters}
    try:
        flow.validate_parameters({k: v for k, v in given.items() if v is not inspect.Parameter.empty})
    except (ParameterTypeError, ParameterBindError, SignatureMismatchError, TypeError) as error:
        raise _wrong(FILE, f"{spec.name} has wrong parameters: {' '.join(str(error).split())}") from error
    used = [value for value in vars(module).values() if isinstance(value, Task)]
    return Deployment(spec, flow, given, {task.name: task for task in used})


def _wrong(path: Path, what: str) -> ConfigError:
    hint = "Mend it; `python -m flows deploy --check` looks at it without a server."
    return ConfigError(f"{path.name} cannot be used: {what.rstrip('.')}.", code="bad-deployment", hint=hint)
