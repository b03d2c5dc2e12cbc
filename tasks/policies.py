"""Every policy of the tasks: what is tried again, how long it waits, what is tagged, what is limited.

Knows nothing about audio. Delays are seconds.
"""

from __future__ import annotations

from typing import Any, Final

from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from grym.errors import GrymError

RETRY_DELAY_SECONDS: Final = exponential_backoff(backoff_factor=0.5)
RETRY_JITTER: Final = 0.3

# Arrays never cross task borders, and results live in the landing zone: Prefect caches and persists nothing.
PLAIN: Final[dict[str, Any]] = {"cache_policy": NO_CACHE, "persist_result": False}


def retry_by_category(task: Any, task_run: Any, state: Any) -> bool:  # noqa: ARG001 - Prefect's signature
    """Try again exactly when the error says that it may pass."""
    try:
        state.result()
    except GrymError as error:
        return error.retryable
    except Exception:  # noqa: BLE001 - an unknown error is a defect, and a defect does not pass by itself
        return False
    return False


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
