"""Deployments for real: put on a Prefect server, taken by a process worker, run, and their results in the home."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import duckdb
import httpx
import pytest
from prefect.deployments import run_deployment
from typer.testing import CliRunner

from flows.__main__ import app
from flows.deploy import ZOMBIES, deploy
from flows.deployments import ROOT, read_deployments
from flows.maintain import maintain
from grym.errors import StorageError
from grym.store import RunRef, Store
from tasks.policies import GLOBAL_LIMITS, POOLS, TAG_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OLD = RunRef("0123456789ab-1", "2026-11-19")
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture
def api(prefect_url: str) -> Iterator[httpx.Client]:
    """The server's API. What a test deployed is removed again: limits would hold up other tests' killed flows."""
    with httpx.Client(base_url=prefect_url, trust_env=False, timeout=60) as client:
        yield client
        for pool in POOLS:
            client.delete(f"/work_pools/{pool.name}")
        for name in [*(f"tag:{tag}" for tag in TAG_LIMITS), *GLOBAL_LIMITS]:
            client.delete(f"/v2/concurrency_limits/{name}")
        for found in client.post("/deployments/filter", json={}).json():
            client.delete(f"/deployments/{found['id']}")


@pytest.fixture
def here(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process works on the project's home, as a shell would: starting another one takes seconds."""
    for name in ("GRYM_HOME", "GRYM_CONFIG"):
        monkeypatch.setenv(name, project.environment[name])
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    monkeypatch.setenv("TQDM_DISABLE", "1")


def flows(*arguments: str) -> str:
    """What `python -m flows` prints."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.output


@pytest.fixture
def worker(project: Any) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts process workers, and ends them afterwards."""
    started: list[subprocess.Popen[str]] = []
    log = (project.folder / "worker.log").open("w")

    def start(pool: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        # grym is installed, the flows are not: the worker finds them by the deployment.
        env = {**project.bare().environment, "PREFECT_WORKER_QUERY_SECONDS": "1", "PYTHONPATH": str(ROOT / "src")}
        started.append(subprocess.Popen(command, cwd=project.folder, env=env, stdout=log, stderr=log, text=True))
        return started[-1]

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    log.close()


def land_old_run(store: Store) -> None:
    """A finished run with its page and more parts than upkeep leaves alone."""
    for state in ("started", "finished"):
        row = {"state": state, "flow": "compare", "run_key": OLD.id[:12] * 5, "ordinal": 1, "at": datetime.now(UTC)}
        store.land("runs", [row], run=OLD, part=state)
    for position in range(20):
        row = {"arm": "a", "clip_id": "c1", "position": position, "operation": "ok"}
        store.land("words", [row], run=OLD, part=f"a-{position:02}")
    page = store.home / "reports" / f"{OLD.id}.html"
    page.parent.mkdir()
    page.write_text("<html></html>")


def schedule(deployment: str, parameters: dict[str, object]) -> str:
    """Ask for a run of a deployment now; its id."""
    return str(run_deployment(deployment, parameters=parameters, timeout=0).id)  # type: ignore[union-attr] # sync here


def end_of(api: httpx.Client, flow_run: str, log: Path, seconds: float = 400) -> dict[str, Any]:
    """The flow run when it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found: dict[str, Any] = api.get(f"/flow_runs/{flow_run}").json()
        if found["state_type"] in ENDED:
            return found
        time.sleep(0.3)
    pytest.fail(f"The flow run has not ended:\n{log.read_text()}")


def test_deployments_run_through_a_worker_and_leave_their_results(
    project: Any, here: None, digits: Any, api: httpx.Client, worker: Callable[[str], subprocess.Popen[str]]
) -> None:
    """`make deploy` twice gives the same; a worker then runs the comparison on demand and the upkeep."""
    rows, write = digits
    texts = {row["audio_filepath"]: row["text"] for row in rows(6)}
    manifest = write(project.folder / "set", rows(6))
    project.models(right={"script": json.dumps({"*": next(iter(texts.values()))})}, wrong={"script": '{"*": "no"}'})
    store = Store(project.home)
    land_old_run(store)
    said = flows("deploy")
    for text in (
        "compare/nightly",
        "every day at 03:00 UTC",
        "maintain/hourly",
        "tag:gpu 1",
        "worker start --pool cpu",
    ):
        assert text in said
    again = deploy(read_deployments())
    assert [found.new for found in again.deployments] == [False] * len(again.deployments)
    assert again.others == ()

    pools = {pool["name"]: pool for pool in api.post("/work_pools/filter", json={}).json()}
    assert {name: (pools[name]["type"], pools[name]["concurrency_limit"]) for name in ("cpu", "gpu")} == {
        "cpu": ("process", 1), "gpu": ("process", 1)
    }  # fmt: skip
    limits = {found["name"]: found["limit"] for found in api.post("/v2/concurrency_limits/filter", json={}).json()}
    assert {**{f"tag:{tag}": slots for tag, slots in TAG_LIMITS.items()}, **GLOBAL_LIMITS}.items() <= limits.items()
    nightly = api.get("/deployments/name/compare/nightly").json()
    assert nightly["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
    assert nightly["global_concurrency_limit"]["limit"] == 1
    zombies = [found for found in api.post("/automations/filter", json={}).json() if found["name"] == ZOMBIES]
    assert len(zombies) == 1

    compared = schedule("compare/on-demand", {"a": "right", "b": "wrong", "dataset": str(manifest)})
    kept = schedule("maintain/hourly", {"min_parts": 10})
    worker("cpu")
    log = project.folder / "worker.log"
    for flow_run in (compared, kept):
        assert end_of(api, flow_run, log)["state_type"] == "COMPLETED", log.read_text()

    (run,) = [run_id for run_id in set(store.runs()["run_id"]) if run_id != OLD.id]
    flow_runs = store.runs().filter(store.runs()["run_id"] == run)["flow_run_id"].to_list()
    assert flow_runs == [compared, compared]
    assert (project.home / "reports" / f"{run}.html").is_file()
    assert store.landed("words", OLD) == {f"a-{position:02}" for position in range(20)}
    assert len(list(store.landing.glob(f"words/*/run={OLD.id}/*.parquet"))) == 1
    with duckdb.connect(str(store.warehouse), read_only=True) as warehouse:
        counted = warehouse.sql("SELECT run_id, count(*) FROM words GROUP BY run_id").fetchall()
        assert dict(counted)[OLD.id] == 20
        assert warehouse.execute("SELECT count(*) FROM outcomes WHERE run_id = ?", [run]).fetchall() == [(12,)]
    (page,) = api.post("/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [kept]}}}).json()
    assert "became" in page["data"]


def test_a_step_of_the_upkeep_that_fails_does_not_stop_the_others(project: Any, here: None, api: httpx.Client) -> None:
    """A damaged part stops the compaction; the warehouse is published, and the flow says what failed."""
    store = Store(project.home)
    land_old_run(store)
    next(store.landing.glob("runs/*/*/part-started.parquet")).write_bytes(b"torn")
    with pytest.raises(StorageError, match=r"part-started\.parquet cannot be read"):
        maintain()
    with duckdb.connect(str(store.warehouse), read_only=True) as warehouse:
        assert warehouse.sql("SELECT count(*) FROM words").fetchall() == [(20,)]
    pages = api.post("/artifacts/filter", json={"artifacts": {"key": {"any_": ["maintain"]}}, "sort": "CREATED_DESC"})
    said = pages.json()[0]["data"]
    assert "Failed: Part landing/runs" in said
    assert "part-started.parquet is not in the warehouse" in said


def test_the_command_line_keeps_house(project: Any, here: None) -> None:
    """`python -m flows maintain` says what it did at each step."""
    land_old_run(Store(project.home))
    said = flows("maintain", "--min-parts", "5")
    assert "landing zone: 22 parts became 3, in one run." in said
    assert "warehouse: Published 22 rows" in said
