"""The questions asked of a Prefect server, over plain HTTP.

Never raises because of the network: no answer is an answer. Seconds.
"""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING

from flows._prefect.place import HOST

if TYPE_CHECKING:
    import httpx

TERMINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
POLL_SECONDS = 0.2
# The recorder writes once a second: a count that stands still for longer than that is final.
STILL_SECONDS = 1.3


def is_healthy(url: str, *, seconds: float = 5.0) -> bool:
    """Whether a Prefect API answers at ``url`` within ``seconds``."""
    import httpx

    try:
        answer = httpx.get(
            f"{url}/health", timeout=seconds, trust_env=_is_far(url), verify=_is_far(url), headers=_headers()
        )
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return answer.status_code == httpx.codes.OK


def ended(url: str, flow_run_id: str | None = None, *, seconds: float = 10.0) -> int | None:
    """How many task runs are on record as ended.

    Args:
        url: address of the API.
        flow_run_id: of this flow run only; None counts all.
        seconds: how long the answer may take.

    Returns:
        The count, or None when the server gave no usable answer.
    """
    import httpx

    wanted: dict[str, object] = {"state": {"type": {"any_": list(TERMINAL)}}}
    if flow_run_id is not None:
        wanted["flow_run_id"] = {"any_": [flow_run_id]}
    try:
        answer = httpx.post(
            f"{url}/task_runs/count",
            json={"task_runs": wanted},
            timeout=seconds,
            trust_env=_is_far(url),
            verify=_is_far(url),  # reading certificates takes longer than the question
            headers=_headers(),
        )
        return int(answer.raise_for_status().json())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError):
        return None


def talk(url: str, *, seconds: float = 30.0) -> httpx.Client:
    """A client for further questions; close it."""
    import httpx

    return httpx.Client(base_url=url, timeout=seconds, trust_env=_is_far(url), verify=_is_far(url), headers=_headers())


def settle(url: str, *, seconds: float = 30.0) -> None:
    """Wait until no more task runs arrive on record, at most ``seconds``."""
    seen, since = ended(url), time.monotonic()
    deadline = since + seconds
    while seen is not None and time.monotonic() < min(deadline, since + STILL_SECONDS):
        time.sleep(POLL_SECONDS)
        now = ended(url)
        if now != seen:
            seen, since = now, time.monotonic()


def _is_far(url: str) -> bool:
    # A proxy of the environment has no business between us and our own machine.
    return not url.startswith(f"http://{HOST}:")


def _headers() -> dict[str, str]:
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}
