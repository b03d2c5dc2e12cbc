"""What killed processes leave on a server: flow runs that "run" for ever, and the slots that they held.

Two answers. An automation crashes a flow run that was silent for too long, wherever
its machine was. And whoever starts or adopts a home's server, with no other process
using it, looks itself: a run whose process is gone is crashed at once, its slots are
given back, and slots that no lease explains are no longer counted.

Over plain HTTP; knows nothing about flows. Nothing here is needed for results, so a
server that does not answer is left alone. Seconds.
"""

from __future__ import annotations

import json
import logging
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import psutil

from flows._prefect import api
from flows._prefect.place import SAME_START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import httpx

    from flows._prefect.place import Place

NAME: Final = "crash flow runs without a heartbeat"
# A flow run gives a sign of life every minute here, every three by default: three of the latter missed.
SILENT_SECONDS: Final = 540
LIVE: Final = ("RUNNING", "PENDING", "CANCELLING")
PAGE: Final = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """What was put right: ``runs`` crashed, ``slots`` given back."""

    runs: int = 0
    slots: int = 0


def automation(silent_seconds: int = SILENT_SECONDS) -> dict[str, Any]:
    """The automation that marks a flow run as crashed when it has been silent for so long.

    Source: https://docs.prefect.io/v3/advanced/detect-zombie-flows
    """
    beat, ends = "prefect.flow-run.heartbeat", ("Completed", "Failed", "Cancelled", "Crashed")
    return {
        "name": NAME,
        "description": f"Marks a flow run as crashed that has been silent for {silent_seconds} s.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "for_each": ["prefect.resource.id"],
            "after": [beat],
            "expect": [beat, *(f"prefect.flow-run.{end}" for end in ends)],
            "threshold": 1,  # fires when fewer than one of these came; with 0 it would never fire
            "within": silent_seconds,
        },
        "actions": [
            {"type": "change-flow-run-state", "state": "CRASHED", "message": "No heartbeat: its process is gone."}
        ],
    }


def watch(url: str, *, silent_seconds: int = SILENT_SECONDS) -> None:
    """Have that automation on a server, once; a repeat renews it only if it differs."""
    wanted = automation(silent_seconds)
    with api.talk(url) as client, _tolerant():
        known = _ask(client, "/automations/filter", {"automations": {"name": {"any_": [NAME]}}})
        if not known:
            client.post("/automations/", json=wanted).raise_for_status()
        elif _differs(known[0]["trigger"], wanted["trigger"]):
            client.put(f"/automations/{known[0]['id']}", json=wanted).raise_for_status()


def sweep(url: str, place: Place) -> Swept:
    """Crash the runs of processes that are gone and give back their slots. Call it when nobody else uses the server."""
    with api.talk(url) as client, _tolerant():
        dead = [run for run in _runs(client, "flow_runs", {}) if _is_dead(run)]
        for run in dead:
            for task in _runs(client, "task_runs", {"flow_run_id": {"any_": [run["id"]]}}):
                _crash(client, "task_runs", task["id"])
            _crash(client, "flow_runs", run["id"])
        slots = _give_back(client, place.folder / "concurrency_leases")
        if dead or slots:
            _log.warning("Left by killed processes: %d flow runs, %d slots; put right.", len(dead), slots)
        return Swept(len(dead), slots)
    return Swept()


def _runs(client: httpx.Client, kind: str, which: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _ask(client, f"/{kind}/filter", {kind: {**which, "state": {"type": {"any_": list(LIVE)}}}})


def _ask(client: httpx.Client, path: str, question: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = client.post(path, json={**question, "limit": PAGE, "offset": len(found)}).raise_for_status().json()
        found += answer
        if len(answer) < PAGE:
            return found


def _is_dead(run: Mapping[str, Any]) -> bool:
    """Whether a run's process is known to be gone; in doubt it is left to the automation."""
    where = str(run.get("infrastructure_pid") or "")
    if not where:
        # One that no worker started belongs to a command, and a command would hold the server.
        return run.get("deployment_id") is None
    host, _, pid = where.rpartition(":")
    if host not in {"", socket.gethostname()} or not pid.isdecimal():
        return False
    try:
        born = psutil.Process(int(pid)).create_time()
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
    began = run.get("start_time")  # a process that is younger than the run has only inherited the number
    return bool(began and born > datetime.fromisoformat(began).timestamp() + SAME_START_SECONDS)


def _crash(client: httpx.Client, kind: str, run: str) -> None:
    state = {"type": "CRASHED", "name": "Crashed", "message": "Its process is gone."}
    client.post(f"/{kind}/{run}/set_state", json={"state": state, "force": True}).raise_for_status()


def _give_back(client: httpx.Client, folder: Path) -> int:
    """Return the slots of runs that are over, and those that no lease explains; how many."""
    held: dict[str, int] = {}
    given = 0
    for lease in _leases(folder):
        slots = int((lease["metadata"] or {}).get("slots", 0))
        if _is_over(client, (lease["metadata"] or {}).get("holder")):
            client.post("/v2/concurrency_limits/decrement-with-lease", json={"lease_id": lease["id"]})
            given += slots * len(lease["resource_ids"])
        else:
            for limit in lease["resource_ids"]:
                held[limit] = held.get(limit, 0) + slots
    for limit in _ask(client, "/v2/concurrency_limits/filter", {}):
        extra = int(limit["active_slots"]) - held.get(limit["id"], 0)
        if extra > 0 and not limit["slot_decay_per_second"]:
            place = f"/v2/concurrency_limits/{limit['id']}"
            client.patch(place, json={"active_slots": held.get(limit["id"], 0)}).raise_for_status()
            given += extra
    return given


def _leases(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*-*.json")):
        with suppress(OSError, ValueError, KeyError):
            lease = json.loads(path.read_text(encoding="utf-8"))
            yield {key: lease[key] for key in ("id", "resource_ids", "metadata")}


def _is_over(client: httpx.Client, holder: Mapping[str, Any] | None) -> bool:
    if not holder or holder.get("type") not in {"flow_run", "task_run"}:
        return False
    answer = client.get(f"/{holder['type']}s/{holder['id']}")
    if answer.status_code == 404:  # noqa: PLR2004 - nobody knows of it
        return True
    return answer.raise_for_status().json()["state_type"] in api.TERMINAL


def _differs(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    compared = ("posture", "threshold", "within")
    return any(known.get(key) != wanted[key] for key in compared) or set(known["expect"]) != set(wanted["expect"])


@contextmanager
def _tolerant() -> Iterator[None]:
    """Leave a server alone that gives no usable answer; say so in the log."""
    import httpx

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        _log.warning("The Prefect server could not be put right: %s", error)
