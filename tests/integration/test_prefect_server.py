"""The local Prefect server's life: started once, shared, adopted, and stopped by the last one out."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from flows._prefect import api, process
from flows._prefect.place import CHILDREN, Place, Record, is_alive
from flows.server import Server, drain, serve_ui, server, state, stop
from grym.errors import ConfigError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
TASKS = 20
MANY = 200

# Enters a server, runs a flow of argv[2] tasks (0: none), waits for their records or not (argv[3]), tells what it
# saw, and stays until its stdin ends.
USER = """
import json, sys
from pathlib import Path
from flows.server import drain, server
count = int(sys.argv[2])
with server(Path(sys.argv[1])) as found:
    assert "prefect" not in sys.modules
    run = None
    if count:
        from prefect import flow, task
        from prefect.runtime import flow_run
        @task
        def square(x):
            return x * x
        @flow
        def squares():
            for future in [square.submit(i) for i in range(count)]:
                future.result()
            return flow_run.id
        run = squares()
    recorded = drain(found.url, run, count) if run and sys.argv[3] == "drain" else 0
    told = {"url": found.url, "pid": found.pid, "ours": found.ours, "run": run, "recorded": recorded}
    print(json.dumps(told), flush=True)
    sys.stdin.read()
"""


def environment() -> dict[str, str]:
    """A shell's environment, without what a server of this process has set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**clean, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "PREFECT_LOGGING_LEVEL": "ERROR"}


class User:
    """Another process that uses a home's server."""

    def __init__(self, home: Path, count: int = 0, then: str = "drain") -> None:
        command = [sys.executable, "-c", USER, str(home), str(count), then]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
        )

    def told(self) -> dict[str, Any]:
        """What it saw; waits until it is inside."""
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def leave(self) -> None:
        """Let it go on, out of the server's context, to its end."""
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """End it without any chance to clean up."""
        self.process.kill()
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Undo changes at the end of the module."""
    with pytest.MonkeyPatch.context() as context:
        yield context


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Server]]:
    """A home and its server, held by this process while the module's tests run."""
    patch.delenv("PREFECT_API_URL", raising=False)
    home = tmp_path_factory.mktemp("shared")
    with server(home) as found:
        yield home, found


@dataclass(frozen=True)
class Killed:
    """A home whose two users, started at once, were killed."""

    home: Path
    told: list[dict[str, Any]]


@pytest.fixture(scope="module")
def killed(shared: tuple[Path, Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """Two flow processes on another home, both killed while they use its server."""
    home = tmp_path_factory.mktemp("killed")
    (home / "prefect").mkdir()
    # The other home's tables spare this one the longest part of a first start.
    with (
        closing(sqlite3.connect(shared[0] / "prefect" / "prefect.db")) as made,
        closing(sqlite3.connect(home / "prefect" / "prefect.db")) as copy,
    ):
        made.backup(copy)
    users = [User(home, TASKS), User(home)]
    told = [user.told() for user in users]
    for user in users:
        user.kill()
    yield Killed(home, told)
    stop(home)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a fresh shell: no server is named."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_SERVER_API_PORT", raising=False)


@pytest.fixture
def sleeper() -> Iterator[Callable[[Path], Record]]:
    """Puts a process on record that lives, ignores SIGTERM and answers nothing."""
    children = []

    def make(home: Path) -> Record:
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(300)"
        child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        CHILDREN[child.pid] = child
        children.append(child)
        record = Record(child.pid, free_port(), psutil.Process(child.pid).create_time() - 0.001)
        place = Place(home / "prefect")
        place.folder.mkdir(exist_ok=True)
        place.write(record)
        return record

    yield make
    for child in children:
        child.kill()
        child.communicate()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_it_answers_and_prefect_is_pointed_at_it(shared: tuple[Path, Server]) -> None:
    """Inside, the server answers, the settings name it, and the web page calls the right address."""
    home, found = shared
    assert found.ours
    assert api.is_healthy(found.url)
    assert os.environ["PREFECT_API_URL"] == found.url
    assert os.environ["PREFECT_HOME"] == str(home.resolve() / "prefect")
    assert os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] == "false"
    assert httpx.get(f"{found.ui}/ui-settings", trust_env=False).json()["api_url"] == found.url
    settings = httpx.get(f"{found.url}/admin/settings", trust_env=False).json()["server"]
    assert settings["services"]["task_run_recorder"]["batch_size"] == 100
    assert settings["concurrency"]["lease_storage"].endswith("filesystem")
    assert settings["analytics_enabled"] is False


def test_a_second_process_shares_it_and_every_task_run_is_recorded(shared: tuple[Path, Server]) -> None:
    """A flow of another process uses the same server, loses no record, and does not stop it for us."""
    home, found = shared
    user = User(home, TASKS)
    told = user.told()
    assert (told["pid"], told["url"], told["ours"]) == (found.pid, found.url, False)
    assert told["recorded"] == TASKS
    assert set(state(home).holders) == {os.getpid(), user.process.pid}
    user.leave()
    assert state(home).holders == (os.getpid(),)
    assert drain(found.url, told["run"], TASKS) == TASKS


def test_drain_gives_up_and_says_how_many(shared: tuple[Path, Server]) -> None:
    """After the deadline the count so far is returned, from a living server and from none."""
    _, found = shared
    nobody = "00000000-0000-4000-8000-000000000000"
    assert drain(found.url, nobody, 5, seconds=0.3) == 0
    assert drain(f"http://127.0.0.1:{free_port()}/api", nobody, 5, seconds=0.3) == 0


def test_a_named_server_is_used_and_nothing_is_managed(
    shared: tuple[Path, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PREFECT_API_URL set to a living server no setting and no file is touched."""
    _, found = shared
    monkeypatch.setenv("PREFECT_API_URL", f"{found.url}/")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:word")
    before = dict(os.environ)
    with server(tmp_path) as named:
        assert named == Server(found.url, None, ours=False, ui=found.ui)
        assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []
    serve_ui(tmp_path)
    assert api.is_healthy(found.url)


def test_a_named_server_that_is_dead_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PREFECT_API_URL set to nobody the error names the address and says what to do."""
    url = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setenv("PREFECT_API_KEY", "key")
    with pytest.raises(ConfigError, match=url) as caught, server(tmp_path):
        pass
    assert "Unset it" in caught.value.hint


def test_the_ui_command_stops_politely_and_leaves_a_used_server(shared: tuple[Path, Server]) -> None:
    """A kill ends the foreground command with code 0; the server stays because this process uses it."""
    home, found = shared
    code = "import sys; from pathlib import Path; from flows.server import serve_ui; serve_ui(Path(sys.argv[1]))"
    child = subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, env=environment())
    assert child.stdout is not None
    assert found.ui in child.stdout.readline().decode()
    assert "Ctrl-C" in child.stdout.readline().decode()
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 0
    child.stdout.close()
    assert api.is_healthy(found.url)


def test_a_used_server_cannot_be_stopped(shared: tuple[Path, Server]) -> None:
    """Stop refuses while a live process holds a lease."""
    home, found = shared
    assert not stop(home)
    assert api.is_healthy(found.url)


def test_two_starters_give_one_server(killed: Killed) -> None:
    """Of two processes that start at once one starts the server and the other joins."""
    first, second = killed.told
    assert first["pid"] == second["pid"]
    assert {first["ours"], second["ours"]} == {True, False}


def test_an_orphan_is_adopted_with_its_history_and_then_stopped(killed: Killed, outside: None) -> None:
    """A server whose users were all killed is reused, knows their runs, and ends with the one that adopted it."""
    before = state(killed.home)
    assert before.server is not None
    assert before.holders == ()
    with server(killed.home) as found:
        assert found.pid == killed.told[0]["pid"]
        assert found.ours
        assert drain(found.url, killed.told[0]["run"], TASKS) == TASKS
    assert not psutil.pid_exists(found.pid) or psutil.Process(found.pid).status() == psutil.STATUS_ZOMBIE
    assert state(killed.home).server is None
    folder = killed.home / "prefect"
    assert not (folder / "server.json").exists()
    assert list((folder / "leases").iterdir()) == []


def test_runs_survive_a_restart_and_a_kept_server_stays(killed: Killed, outside: None) -> None:
    """Nothing is lost when the last one out stops the server at once; a kept server stays until it is stopped."""
    assert stop(killed.home)
    user = User(killed.home, MANY, then="leave")
    late = user.told()
    user.leave()
    assert state(killed.home).server is None
    with server(killed.home, keep=True) as found:
        assert found.pid != late["pid"]
        for run, count in ((killed.told[0]["run"], TASKS), (late["run"], MANY)):
            flow_run = httpx.get(f"{found.url}/flow_runs/{run}", trust_env=False).json()
            assert flow_run["state_type"] == "COMPLETED"
            assert api.ended(found.url, run) == count
        record = Place(killed.home.resolve() / "prefect").record()
    assert "PREFECT_API_URL" not in os.environ
    assert record is not None
    assert record.alive
    with server(killed.home) as again:
        assert again.pid == found.pid
        assert not again.ours
    assert record.alive
    assert stop(killed.home)
    assert not record.alive
    assert record.pid not in CHILDREN


def test_a_taken_port_is_an_error_at_once(tmp_path: Path, outside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that a person asked for and another program holds is named, and nothing is left behind."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        monkeypatch.setenv("PREFECT_SERVER_API_PORT", port)
        with pytest.raises(WorkerError, match=port) as caught, server(tmp_path):
            pass
    assert caught.value.code == "server-port"
    assert not caught.value.retryable
    assert state(tmp_path).server is None


def test_the_usual_port_is_left_to_whoever_has_it(tmp_path: Path) -> None:
    """A port lost between the look and the launch is told apart from other deaths; impossible ports are not free."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert not process._is_free(port)
        with pytest.raises(WorkerError, match=f"{port} is already in use") as caught:
            process._launch(Place(tmp_path), port, 120)
    assert caught.value.code == "server-port"
    assert not process._is_free(70_000)
    assert process._is_free(process._any_port())


def test_a_server_that_dies_says_why(tmp_path: Path, outside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason in the server's log becomes the error's sentence."""
    monkeypatch.setenv("PREFECT_SERVER_LOGGING_LEVEL", "LOUD")
    with pytest.raises(WorkerError, match=r"ended before it answered: .*validation error") as caught, server(tmp_path):
        pass
    assert caught.value.code == "server-died"
    assert state(tmp_path).server is None
    assert not list((tmp_path / "prefect" / "leases").glob("*"))


def test_a_server_that_hangs_is_left_to_its_user_and_else_replaced(
    tmp_path: Path, outside: None, sleeper: Callable[[Path], Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent server is an error while a live process holds it; with nobody left it is killed, term or no term."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.3)
    record = sleeper(tmp_path)
    lease = Place(tmp_path.resolve() / "prefect").lease()
    with pytest.raises(WorkerError, match="does not answer") as caught, server(tmp_path, start_seconds=0.3):
        pass
    assert caught.value.code == "server-hangs"
    assert record.alive
    lease.unlink()
    with pytest.raises(WorkerError, match="did not answer within") as caught, server(tmp_path, start_seconds=0.3):
        pass
    assert caught.value.code == "server-slow"
    assert not record.alive
    assert state(tmp_path).server is None


def test_a_held_lock_is_an_error_and_not_a_wait_for_ever(tmp_path: Path, outside: None) -> None:
    """Who cannot get hold of the folder in time is told which file to look at."""
    place = Place(tmp_path.resolve() / "prefect")
    with (
        place.locked(1),
        pytest.raises(WorkerError, match=r"server\.lock") as caught,
        server(tmp_path, start_seconds=0.05),
    ):
        pass
    assert caught.value.code == "server-lock"


def test_leases_of_the_dead_do_not_count(tmp_path: Path) -> None:
    """Leases of ended processes, of reused ids and unreadable ones are swept away; a living one counts."""
    place = Place(tmp_path)
    mine = place.lease()
    (mine.parent / "1-reused.json").write_text(json.dumps({"pid": os.getpid(), "started": time.time() - 9_999}))
    (mine.parent / "2-gone.json").write_text(json.dumps({"pid": 2**22 + 1, "started": 0.0}))
    (mine.parent / "3-torn.json").write_text('{"pid"')
    (mine.parent / "4-odd.json").write_text("{}")
    assert place.holders() == [os.getpid()]
    assert list(mine.parent.iterdir()) == [mine]


def test_a_strange_record_is_no_server(tmp_path: Path) -> None:
    """A server.json that is torn or of another shape counts as none, and stop has nothing to do."""
    assert stop(tmp_path)
    folder = tmp_path / "prefect"
    folder.mkdir()
    for text in ("{", "[1]", '{"pid": 1}'):
        (folder / "server.json").write_text(text)
        assert state(tmp_path).server is None
        assert stop(tmp_path)


def test_a_zombie_is_not_alive() -> None:
    """A process that ended counts as dead before and after it was waited for."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(child.pid).create_time()
    deadline = time.monotonic() + 30
    while is_alive(child.pid, started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child.pid, started)
    CHILDREN[child.pid] = child
    assert not is_alive(child.pid, started)
    assert child.returncode == 0
