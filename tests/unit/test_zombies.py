"""What is put right on a server after kills; the answers are those of a Prefect server, told by a transport."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from flows._prefect import api, zombies
from flows._prefect.place import Place
from flows._prefect.zombies import Swept, automation, sweep, watch

if TYPE_CHECKING:
    from pathlib import Path


class Answers:
    """A server that knows runs, limits, leases and automations, and keeps what is asked of it."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.single: dict[str, dict[str, Any]] = {}
        self.changes: list[tuple[str, str, Any]] = []
        self.status = 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer as Prefect does."""
        path, body = request.url.path.removeprefix("/api"), json.loads(request.content or b"null")
        if self.status != 200:
            return httpx.Response(self.status)
        if path.endswith("/filter"):
            found = self.lists.get(path.removesuffix("/filter").strip("/"), [])
            return httpx.Response(200, json=found[body["offset"] : body["offset"] + body["limit"]])
        if request.method == "GET":
            known = self.single.get(path.strip("/"))
            return httpx.Response(404) if known is None else httpx.Response(200, json=known)
        self.changes.append((request.method, path, body))
        return httpx.Response(200, json={})


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What the server says."""
    made = Answers()
    monkeypatch.setattr(
        api, "talk", lambda url: httpx.Client(base_url=url, transport=httpx.MockTransport(made), timeout=5)
    )
    return made


def _gone() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def _run(name: str, pid: str | None = None, **fields: object) -> dict[str, Any]:
    started = datetime.now(UTC).isoformat()
    return {"id": name, "infrastructure_pid": pid, "deployment_id": None, "start_time": started, **fields}


def test_only_runs_whose_process_is_gone_are_crashed(answers: Answers, tmp_path: Path) -> None:
    """A command's run, and one whose process ended; not one that lives, is elsewhere, or is a worker's to start."""
    here = socket.gethostname()
    old = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    answers.lists["flow_runs"] = [
        _run("command"),
        _run("ended", f"{here}:{_gone()}"),
        _run("number used again", str(os.getpid()), start_time=old),
        _run("lives", f"{here}:{os.getpid()}"),
        _run("elsewhere", "another-machine:1"),
        _run("container", f"{here}:abcdef"),
        _run("not started yet", None, deployment_id="d"),
    ]
    answers.lists["task_runs"] = [{"id": "t"}]
    assert sweep("http://x/api", Place(tmp_path)) == Swept(3, 0)
    crashed = [path for _, path, body in answers.changes if body["state"]["type"] == "CRASHED" and body["force"]]
    assert [path for path in crashed if path.startswith("/flow_runs")] == [
        f"/flow_runs/{name}/set_state" for name in ("command", "ended", "number%20used%20again")
    ] or len(crashed) == 6


def test_slots_of_runs_that_are_over_are_given_back(answers: Answers, tmp_path: Path) -> None:
    """A lease whose holder has ended or is unknown is returned, others stay; slots without a lease are not counted."""
    folder = tmp_path / "concurrency_leases"
    folder.mkdir()
    holders = {"a-1": "over", "b-2": "unknown", "c-3": "runs", "d-4": None}
    for name, run in holders.items():
        held = {"slots": 1} if run is None else {"slots": 1, "holder": {"type": "task_run", "id": run}}
        lease = {"id": name, "resource_ids": ["limit"], "metadata": held}
        (folder / f"{name}.json").write_text(json.dumps(lease))
    (folder / "e-5.json").write_text("{torn")
    (folder / "expirations.json").write_text("{}")
    answers.single = {"task_runs/over": {"state_type": "CRASHED"}, "task_runs/runs": {"state_type": "RUNNING"}}
    answers.lists["v2/concurrency_limits"] = [
        {"id": "limit", "active_slots": 3, "slot_decay_per_second": 0.0},
        {"id": "leaked", "active_slots": 2, "slot_decay_per_second": 0.0},
        {"id": "rate", "active_slots": 9, "slot_decay_per_second": 1.0},
    ]
    assert sweep("http://x/api", Place(tmp_path)) == Swept(0, 5)
    returned = [body["lease_id"] for _, path, body in answers.changes if path.endswith("decrement-with-lease")]
    assert returned == ["a-1", "b-2"]
    patched = {path.rsplit("/", 1)[1]: body for method, path, body in answers.changes if method == "PATCH"}
    assert patched == {"limit": {"active_slots": 2}, "leaked": {"active_slots": 0}}


def test_the_automation_is_there_once_and_renewed_when_it_differs(answers: Answers) -> None:
    """Made when missing, left alone when right, replaced when an earlier version put another one there."""
    watch("http://x/api")
    assert [(method, path) for method, path, _ in answers.changes] == [("POST", "/automations/")]
    known = answers.changes.pop()[2]
    answers.lists["automations"] = [{"id": "1", **known}]
    watch("http://x/api")
    assert answers.changes == []
    answers.lists["automations"][0]["trigger"]["threshold"] = 0
    watch("http://x/api")
    assert [(method, path) for method, path, _ in answers.changes] == [("PUT", "/automations/1")]


def test_the_automation_fires_on_silence() -> None:
    """Fewer than one sign of life within nine minutes: with a threshold of nought it would never fire."""
    trigger = automation()["trigger"]
    assert (trigger["posture"], trigger["threshold"], trigger["within"]) == ("Proactive", 1, 540)
    assert zombies.SILENT_SECONDS >= 540


def test_a_server_that_does_not_answer_is_left_alone(answers: Answers, tmp_path: Path) -> None:
    """Nothing here is worth failing a command for."""
    answers.status = 500
    assert sweep("http://x/api", Place(tmp_path)) == Swept(0, 0)
    watch("http://x/api")
    assert answers.changes == []
