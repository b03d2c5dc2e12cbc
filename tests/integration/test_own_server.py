"""A comparison that starts its own Prefect server leaves everything to be looked at afterwards."""

from __future__ import annotations

from typing import Any

import httpx
import psutil
import pytest

from flows._prefect import api
from flows.server import server, state
from grym.store import Store
from tests.support import wait


@pytest.mark.chaos
def test_a_run_with_its_own_server_is_whole_when_the_server_comes_back(
    project: Any, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is started, drained and stopped by the run; killed and brought back it lists every task run."""
    rows, write = digits
    manifest = str(write(project.folder / "set", rows(24, step=5)))
    project.models(left={"script": '{"*": "one two"}'}, right={"script": '{"*": "one three"}'})
    alone = project.bare()
    del alone.environment["PREFECT_API_URL"]
    alone.run("compare", "--a", "left", "--b", "right", "--dataset", manifest)
    flow_run = Store(alone.home).runs()["flow_run_id"][0]
    batches = len(list(alone.home.glob("landing/outcomes/*/*/*.parquet")))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)  # this process uses the session's server
    with server(alone.home, guard=True) as again:
        assert again.pid is not None
        psutil.Process(again.pid).kill()
        wait(lambda: api.is_healthy(again.url) and state(alone.home).server is not None)
        back = state(alone.home).server
        assert back is not None
        assert (back.url, back.pid == again.pid) == (again.url, False)
        query = {"flow_runs": {"id": {"any_": [flow_run]}}}
        states = [task["state_type"] for task in httpx.post(f"{again.url}/task_runs/filter", json=query).json()]
        artifacts = httpx.post(f"{again.url}/artifacts/count", json={}).json()
    assert state(alone.home).server is None  # the one that came back is stopped, too
    # Besides the batches: one check, four warm-ups, and latency, score, publish and report.
    assert states == ["COMPLETED"] * (batches + 1 + 4 + 4)
    assert artifacts >= 3
