"""Every policy of the tasks: what is tried again, how long it waits, what is tagged, what is limited.

Knows nothing about audio. Delays are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from grym._resilience_settings import RecoverySettings
from grym.config import load_settings
from grym.errors import GrymError
from grym.resilience.recovery import tried_again

RETRY_DELAY_SECONDS: Final = exponential_backoff(backoff_factor=0.5)
RETRY_JITTER: Final = 0.3

# Arrays never cross task borders, and results live in the landing zone: Prefect caches and persists nothing.
PLAIN: Final[dict[str, Any]] = {"cache_policy": NO_CACHE, "persist_result": False}


def retry_by_category(task: Any, task_run: Any, state: Any) -> bool:  # noqa: ARG001 - Prefect's signature
    """Try again when the strategy for the error's category says so; by default when the error says that it may pass."""
    try:
        state.result()
    except GrymError as error:
        return _tried_again(error)
    except Exception:  # noqa: BLE001 - an unknown error is a defect, and a defect does not pass by itself
        return False
    return False


def _tried_again(error: GrymError) -> bool:
    try:
        settings = load_settings().recovery
    except GrymError:  # grym.toml was taken away meanwhile
        settings = RecoverySettings()
    return tried_again(error, settings)


def inference(device_tag: str, attempts: int) -> dict[str, Any]:
    """Options of a task that calls a model: device tag, retries by error category."""
    return {
        **PLAIN,
        "tags": [device_tag],
        "retries": attempts - 1,
        "retry_delay_seconds": RETRY_DELAY_SECONDS,
        "retry_jitter_factor": RETRY_JITTER,
        "retry_condition_fn": retry_by_category,
    }


# What writes to a shared store waits for its turn by a lock file; a lock that is not given in time may be later.
STORAGE: Final[dict[str, Any]] = {
    **PLAIN,
    "retries": 2,
    "retry_delay_seconds": RETRY_DELAY_SECONDS,
    "retry_jitter_factor": RETRY_JITTER,
    "retry_condition_fn": retry_by_category,
}


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool of process workers: its name, how many flow runs at once, and what for."""

    name: str
    runs: int
    purpose: str


# One flow run at a time: a second one on the same cores or device would spoil the first one's latency figures.
POOLS: Final = (
    Pool("cpu", 1, "Models on the processor, and everything that only reads and writes stores."),
    Pool("gpu", 1, "Models on CUDA; start its worker on the machine that has the device."),
)

# Task runs at once, over all processes that use the server, by tag. They guard what the pools do not see: flows from
# the command line. A killed holder's slot is free again after a minute.
TAG_LIMITS: Final[Mapping[str, int]] = {"cpu": 2, "gpu": 1, "publish": 1}

# Slots that code asks for by name.
MAINTENANCE: Final = "maintenance"
GLOBAL_LIMITS: Final[Mapping[str, int]] = {MAINTENANCE: 1}
