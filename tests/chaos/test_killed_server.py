"""The Prefect server is killed during a run, alone or with everything else."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest

from flows._prefect import api, process
from flows._prefect.place import Place
from grym.store import Store
from tests.support import SECONDS, end, is_alive, kill, pages, parts, wait

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.conftest import Case

pytestmark = pytest.mark.chaos


def _alone(case: Case) -> Case:
    """The case as a person has it: the run starts its own server."""
    return replace(case, project=case.project.alone())


def _server(case: Case) -> psutil.Process:
    said = json.loads((case.home / "prefect" / "server.json").read_text(encoding="utf-8"))
    return psutil.Process(said["pid"])


def _kill_tree(case: Case, flow: subprocess.Popen[str]) -> None:
    """What a machine that loses power does: everything at once."""
    process = psutil.Process(flow.pid)
    everything = {process, _server(case), *process.children(recursive=True), *_server(case).children(recursive=True)}
    for one in everything:
        one.kill()
    flow.communicate()
    wait(lambda: not any(map(is_alive, everything)), 60)


def test_the_server_is_killed_during_a_run(fake: Case, record_property: Callable[[str, object], None]) -> None:
    """SIGKILL while a batch is answered: it is brought back at its address, and the run ends as if nothing had been."""
    case = _alone(fake)
    flow, go = case.pause("grym.compare.session:Session._outcomes", 2)
    dead = _server(case)
    dead.kill()
    started = time.monotonic()
    wait(lambda: _answers_again(case, dead.pid))
    record_property("recovery_seconds", round(time.monotonic() - started, 1))
    go.touch()
    end(flow)
    case.check()


@pytest.mark.parametrize("batches", [0, 3, 9])
def test_the_server_is_killed_at_some_moment(fake: Case, batches: int) -> None:
    """Whatever the flow was asking for: it ends well, or with a sentence and the same command finishes the run."""
    case = _alone(fake)
    flow = case.start()
    wait(lambda: list(case.home.glob("landing/clips/*/*/part-*")) and len(parts(case.home)) >= batches)
    _server(case).kill()
    _, stderr = flow.communicate(timeout=SECONDS)
    if flow.returncode == 0:
        case.check()
    else:
        assert flow.returncode == 2, stderr
        assert "Give the same command again" in stderr
        assert "Traceback" not in stderr
        case.finish()


def test_a_named_server_is_killed_during_a_run(
    fake: Case, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """One that PREFECT_API_URL names is not ours to start: a sentence says that it ended, and what to do."""
    place = Place(tmp_path)
    with place.locked(SECONDS):
        named = process.running(place, SECONDS)
    told = {"PREFECT_API_URL": named.url, "PREFECT_CLIENT_MAX_RETRIES": "2"}  # the usual five take a minute
    flow = replace(fake.project, environment={**fake.project.environment, **told}).start(*fake.command)
    wait(lambda: len(parts(fake.home)) >= 2)
    with place.locked(SECONDS):
        process.stop(place, named)
    started = time.monotonic()
    done = end(flow, 2)
    record_property("noticed_seconds", round(time.monotonic() - started, 1))
    assert "server ended" in done.stderr
    assert "Give the same command again" in done.stderr
    record_property("recovery_seconds", round(_alone(fake).finish(), 1))


def _answers_again(case: Case, dead: int) -> bool:
    record = Place(case.home / "prefect").record()
    return record is not None and record.pid != dead and api.is_healthy(record.url)


def test_the_server_is_killed_after_the_last_step(fake: Case) -> None:
    """Everything is stored by then: the verdict is shown, and nothing is to be done."""
    case = _alone(fake)
    flow, go = case.pause("reports.render:render_run")
    _server(case).kill()
    go.touch()
    end(flow)
    assert pages(case.home) == set(Store(case.home).runs()["run_id"])
    case.check()


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_everything_is_killed_at_once(fake: Case, share: float, record_property: Callable[[str, object], None]) -> None:
    """SIGKILL of flow, workers and server: a new server works on the old database, the run is finished."""
    case = _alone(fake)
    flow = case.start()
    wait(lambda: len(parts(case.home)) >= share * len(parts(case.whole)))
    _kill_tree(case, flow)
    record_property("recovery_seconds", round(case.finish(), 1))


def test_everything_is_killed_at_once_with_real_models(
    real: Case, record_property: Callable[[str, object], None]
) -> None:
    """The same with wav2vec2-mini, while the database is first made and in the middle of the run."""
    case = _alone(real)
    flow = case.start()
    wait(lambda: (case.home / "prefect" / "prefect.db").exists() and (case.home / "prefect" / "server.json").exists())
    _kill_tree(case, flow)
    flow = case.start()
    wait(lambda: len(parts(case.home)) >= 3)
    _kill_tree(case, flow)
    record_property("recovery_seconds", round(case.finish(), 1))


def test_a_killed_flow_leaves_a_server_that_the_next_one_adopts(fake: Case) -> None:
    """SIGKILL of the flow alone: its server is used by the next command and ends with it."""
    case = _alone(fake)
    flow = case.start()
    wait(lambda: len(parts(case.home)) >= 2)
    server = _server(case)
    kill(flow)
    assert is_alive(server)
    case.finish()
    assert not is_alive(server)


def test_a_stopped_server_is_named(fake: Case) -> None:
    """SIGSTOP of a server that a killed run left: the next command replaces it."""
    case = _alone(fake)
    flow = case.start()
    wait(lambda: len(parts(case.home)) >= 2)
    server = _server(case)
    kill(flow)
    server.send_signal(signal.SIGSTOP)
    case.finish()
    assert not is_alive(server)
