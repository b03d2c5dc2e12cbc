"""A flow run and its slots when its process is killed, alone or with the server: nobody waits for them for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from flows._prefect import process, zombies
from flows._prefect.place import Place, Record
from flows.server import server, stop
from tests.support import ROOT, SECONDS, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.chaos

# Runs a flow whose only task holds the only slot of its tag, and stays in it.
HOLDER = """
import json, sys, time
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run, task_run
with get_client(sync_client=True) as client:
    client.upsert_global_concurrency_limit_by_name("tag:held", 1)
@task(tags=["held"])
def hold():
    print(json.dumps([flow_run.id, task_run.id]), flush=True)
    time.sleep(3600)
@flow
def holding():
    hold()
holding()
"""


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a fresh shell: no server is named."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where a home's server lies; it is ended."""
    yield Place(tmp_path / "prefect")
    stop(tmp_path)


def _serve(place: Place) -> Record:
    with place.locked(SECONDS):
        return process.running(place, SECONDS)


def _hold(url: str) -> tuple[subprocess.Popen[str], str, str]:
    """A process that holds the slot; its flow run and its task run."""
    environment = {
        **os.environ,
        "PREFECT_API_URL": url,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
    }
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    flow_run, task_run = json.loads(holder.stdout.readline())
    return holder, flow_run, task_run


def _kill(holder: subprocess.Popen[str], record: Record | None = None) -> float:
    """SIGKILL the holder, and the server with everything below it; when."""
    holder.kill()
    holder.communicate()
    if record is not None:
        found = psutil.Process(record.pid)
        for one in (found, *found.children(recursive=True)):
            one.kill()
        wait(lambda: not record.alive)
    return time.monotonic()


def _get(url: str, path: str) -> dict[str, Any]:
    return dict(httpx.get(f"{url}{path}", trust_env=False, timeout=60).raise_for_status().json())


def _slots(url: str) -> int:
    return int(_get(url, "/v2/concurrency_limits/tag:held")["active_slots"])


def test_a_slot_comes_back_when_its_holder_and_the_server_are_killed(
    place: Place, record_property: Callable[[str, object], None]
) -> None:
    """The lease lies on disk: the next server, of whoever starts it, takes the slot back when it has run out."""
    record = _serve(place)
    holder, _, _ = _hold(record.url)
    assert _slots(record.url) == 1
    killed = _kill(holder, record)
    record = _serve(place)
    wait(lambda: _slots(record.url) == 0, 300)
    record_property("recovery_seconds", round(time.monotonic() - killed, 1))


def test_the_next_command_puts_right_what_killed_ones_left(
    place: Place, record_property: Callable[[str, object], None]
) -> None:
    """Flow run and task run are crashed, and the slot is free, as soon as the server has been started again."""
    record = _serve(place)
    holder, flow_run, task_run = _hold(record.url)
    known = f"{record.url}/task_runs/{task_run}"  # states of task runs travel as events and are written a little later
    wait(lambda: httpx.get(known, trust_env=False).status_code == httpx.codes.OK)
    killed = _kill(holder, record)
    with server(place.folder.parent) as found:
        record_property("recovery_seconds", round(time.monotonic() - killed, 1))
        assert _get(found.url, f"/flow_runs/{flow_run}")["state_type"] == "CRASHED"
        assert _get(found.url, f"/task_runs/{task_run}")["state_type"] == "CRASHED"
        assert _slots(found.url) == 0
        assert zombies.sweep(found.url, place) == zombies.Swept(0, 0)
        names = [one["name"] for one in httpx.post(f"{found.url}/automations/filter", json={}, trust_env=False).json()]
        assert names.count(zombies.NAME) == 1


def test_a_silent_flow_run_is_crashed_by_the_server(
    place: Place, record_property: Callable[[str, object], None]
) -> None:
    """While the server lives on and nobody starts a command, the automation does it: fires once, and only then."""
    record = _serve(place)
    zombies.watch(record.url, silent_seconds=75)
    zombies.watch(record.url, silent_seconds=75)
    holder, flow_run, _ = _hold(record.url)
    time.sleep(100)  # several signs of life: a run that lives is left alone
    assert _get(record.url, f"/flow_runs/{flow_run}")["state_type"] == "RUNNING"
    killed = _kill(holder)
    wait(lambda: _get(record.url, f"/flow_runs/{flow_run}")["state_type"] == "CRASHED", 600)
    record_property("recovery_seconds", round(time.monotonic() - killed, 1))
