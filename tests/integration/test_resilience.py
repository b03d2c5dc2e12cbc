"""Breakers, failover and health over real processes: shared, killed, resumed, and on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import psutil
import pytest

from grym.config import Settings, load_settings
from grym.errors import ConfigError, GrymError, UnavailableError, WorkerError
from grym.models.interface import AudioClip
from grym.resilience.breaker import Breakers
from grym.resilience.opening import open_checks, open_route
from grym.resilience.state import States
from grym.store import Store
from tests.support import ROOT, workers

if TYPE_CHECKING:
    from pathlib import Path

CLIP = AudioClip("c", np.zeros(1600, np.float32), 16_000)
RIGHT = {"*": "seven six seven"}
# Opens the breaker of a home, then holds the only probe until it is killed.
PROBER = """
import sys, time
from pathlib import Path
from grym.config import load_settings
from grym.resilience.breaker import Breakers
from grym.resilience.state import States
settings = load_settings()
breakers = Breakers(States(settings.home), settings.models)
def probe():
    print("probing", flush=True)
    time.sleep(600)
breakers.call("down", "process_audio", probe, seconds=2)
"""


def write_settings(folder: Path, models: dict[str, dict[str, Any]], extra: str = "") -> Settings:
    """A grym.toml with fake models and a home of its own."""
    lines = ["[worker]", "threads = 1", extra]
    for name, script in models.items():
        own = script.pop("options", {})
        fields = {"script": json.dumps(script), **own}
        options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in fields.items())
        lines += [f"[models.{name}]", 'adapter = "fake"', f"options = {{ {options} }}"]
        lines += ["breaker = { max_failures = 2, reset_timeout = 0.2 }"]
    path = folder / "grym.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_settings(path)


def fail_twice(breakers: Breakers) -> None:
    """Open the breaker of the model that is down."""

    def ask() -> None:
        message = "It died."
        raise WorkerError(message)

    for _ in range(2):
        with pytest.raises(WorkerError):
            breakers.call("down", "process_audio", ask)


def test_processes_share_a_breaker_and_its_only_probe(tmp_path: Path) -> None:
    """While another process holds the probe nobody else is let through; when it is killed, its lease runs out."""
    settings = write_settings(tmp_path, {"down": {"*": ""}})
    states = States(settings.home)
    breakers = Breakers(states, settings.models)
    fail_twice(breakers)
    time.sleep(0.25)
    environment = {**os.environ, "GRYM_CONFIG": str(tmp_path / "grym.toml"), "PYTHONPATH": str(ROOT / "src")}
    other = subprocess.Popen([sys.executable, "-c", PROBER], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "probing"
        assert states.circuit("down", "process_audio").state == "half-open"
        with pytest.raises(UnavailableError) as caught:
            breakers.call("down", "process_audio", lambda: 1)
        assert caught.value.code == "probing"
    finally:
        other.kill()
        other.wait()
    until = time.monotonic() + 60
    while states.circuit("down", "process_audio").state != "closed" and time.monotonic() < until:
        try:
            breakers.call("down", "process_audio", lambda: 1)
        except UnavailableError:
            time.sleep(0.1)
    assert states.circuit("down", "process_audio").state == "closed"
    states.close()


def test_a_worker_that_is_killed_or_stopped_fails_over_and_comes_back(tmp_path: Path) -> None:
    """SIGKILL and SIGSTOP of the primary's child: each request is answered in time; the primary serves again."""
    extra = (
        '[routes.speech]\nprimary = "a"\nfallbacks = [{ model = "b" }]\n'
        "deadline_seconds = 20.0\nbudget_seconds = 60.0\n[recovery]\nattempts = 1"
    )
    settings = write_settings(tmp_path, {"a": {"*": "from a"}, "b": {"*": "from b"}}, extra)
    with open_route(settings, "speech") as route:
        assert route.ask([CLIP])[0].answer.text == "from a"
        worker: Any = route._members["a"].worker
        os.kill(worker.pid, signal.SIGSTOP)
        object.__setattr__(route._order[0], "deadline_seconds", 0.3)
        stopped = route.ask([CLIP])[0]
        assert (stopped.answer.text, stopped.refused[0].code) == ("from b", "deadline")
        object.__setattr__(route._order[0], "deadline_seconds", 20.0)
        assert route.ask([CLIP])[0].answer.text == "from a"
        children = workers(os.getpid())  # the process of a test may have others
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    rows = Store(settings.home).read("requests").sort("at")
    assert rows["served_by"].to_list() == ["a", "b", "a"]
    assert Store(settings.home).read("events")["after"].to_list().count("b") == 1


def test_health_is_what_a_model_answers_to_a_known_clip(tmp_path: Path) -> None:
    """Right and in time is healthy; wrong words, an error, a hang and a model that cannot load are not, and why."""
    models: dict[str, dict[str, Any]] = {
        "good": dict(RIGHT),
        "wrong": {"*": "nine"},
        "raises": {"*": {"do": "raise", "code": "scripted"}},
        "slow": {"*": {"do": "hang"}},
        "dead": {"load": {"do": "exit"}},
    }
    settings = write_settings(tmp_path, models, "[health]\ndeadline_seconds = 0.5")
    with open_checks(settings) as checks:
        found = {name: checks.check(name) for name in checks.models()}
        again = checks.current("good")
        with pytest.raises(ConfigError, match="Unknown model"):
            checks.check("nobody")
    codes = {name: check.code for name, check in found.items()}
    assert codes == {
        "good": "", "wrong": "wrong-answer", "raises": "scripted", "slow": "deadline", "dead": "worker-crashed",
    }  # fmt: skip
    assert [name for name, check in found.items() if check.healthy] == ["good"]
    assert all(check.hint for name, check in found.items() if name != "good")
    assert again == found["good"]
    rows = Store(settings.home).read("health")
    assert rows.height == len(models)
    assert set(rows["asked_by"]) == {"command"}
    assert Store(settings.home).read("alerts").height == len(models) - 1
    changes = Store(settings.home).read("events").filter(pl.col("kind") == "health")
    assert set(changes["subject"]) == set(models) - {"good"}


def test_checks_are_cached_and_a_recovered_model_is_asked_again(tmp_path: Path) -> None:
    """Within the interval no model is started; a healthy check lets the open breaker's next request through."""
    settings = write_settings(tmp_path, {"down": dict(RIGHT)})
    with open_checks(settings) as checks:
        first = checks.current("down", asked_by="watch")
        assert checks.current("down") == first
        breakers = checks._breakers
        assert checks.latest("down", within=0.0) is None
        fail_twice(breakers)
        breakers._models = {}  # the default breaker stays open for half a minute
        with pytest.raises(UnavailableError):
            breakers.call("down", "process_audio", lambda: 1)
        assert checks.check("down").healthy
        assert breakers.call("down", "process_audio", lambda: 1) == 1
    assert Store(settings.home).read("health")["asked_by"].to_list().count("watch") == 1


def test_a_known_clip_that_is_not_there_blames_no_model(tmp_path: Path) -> None:
    """A wrong path or a file that is no audio is a mistake in grym.toml."""
    settings = write_settings(tmp_path, {"good": dict(RIGHT)}, '[health]\nclip = "nowhere.ogg"')
    with open_checks(settings) as checks, pytest.raises(ConfigError, match="not there") as caught:
        checks.check("good")
    assert caught.value.code == "no-known-clip"
    (tmp_path / "nowhere.ogg").write_text("no audio")
    with open_checks(settings) as checks, pytest.raises(GrymError, match="cannot be used"):
        checks.check("good")
    assert Store(settings.home).read("health").is_empty()


def test_the_command_says_who_is_healthy(tmp_path: Path) -> None:
    """Exit code 1 and what to do for a model that is not; 0 with the healthy ones only; names are checked."""
    write_settings(tmp_path, {"good": dict(RIGHT), "wrong": {"*": "nine"}})
    from typer.testing import CliRunner

    from flows import __main__

    environment = {"GRYM_CONFIG": str(tmp_path / "grym.toml"), "COLUMNS": "200"}
    said = CliRunner().invoke(__main__.app, ["health"], env=environment)
    assert said.exit_code == 1, said.output
    assert CliRunner().invoke(__main__.app, ["health", "--cached", "good"], env=environment).exit_code == 0
    unknown = CliRunner().invoke(__main__.app, ["health", "nobody"], env=environment)
    assert isinstance(unknown.exception, ConfigError)


@pytest.mark.chaos
def test_the_bundled_model_is_healthy_and_the_watch_flow_says_so(project: Any) -> None:
    """The bundled checkpoint hears its known clip; changes reach Prefect as events; everything is published."""
    project.models(down={"script": json.dumps({"*": "nine"})})
    project.run("watch", "--model", "mini", "--model", "down")
    store = Store(project.home)
    rows = dict(store.read("health").select("model", "healthy").rows())
    assert rows == {"mini": True, "down": False}
    states = States(project.home)
    assert states.events("told") == []
    states.close()
    with store.connect() as connection:
        assert connection.sql("SELECT subject FROM events WHERE kind = 'health'").fetchall() == [("down",)]


def test_one_clip_that_kills_processes_costs_only_itself(tmp_path: Path) -> None:
    """Its neighbours are answered by the primary, and both breakers stay closed."""
    extra = (
        '[routes.speech]\nprimary = "a"\nfallbacks = [{ model = "b" }]\n'
        "deadline_seconds = 60.0\nbudget_seconds = 120.0\n[recovery]\nattempts = 1"
    )
    script = {"*": "one", "p": {"do": "crash"}}
    settings = write_settings(tmp_path, {"a": dict(script), "b": dict(script)}, extra)
    batch = [AudioClip(name, CLIP.samples + value, CLIP.rate) for value, name in enumerate("pxyz")]
    with open_route(settings, "speech") as route:
        served = route.ask(batch)
        assert [one.served_by for one in served] == ["", "a", "a", "a"]
        assert {circuit.state for circuit in route._breakers.circuits()} == {"closed"}
    assert set(Store(settings.home).read("requests")["served_by"].to_list()) == {"", "a"}


def test_the_more_important_request_is_served_first(tmp_path: Path) -> None:
    """With one worker for each model, as by default."""
    extra = '[routes.speech]\nprimary = "a"\ndeadline_seconds = 60.0\nbudget_seconds = 60.0'
    settings = write_settings(tmp_path, {"a": {"*": "one", "options": {"latency_seconds": 0.3}}}, extra)
    order: list[int] = []
    with open_route(settings, "speech") as route:
        route.ask([CLIP], priority=1)
        line = route._members["a"].worker._worker._line  # type: ignore[attr-defined]

        def ask(priority: int) -> None:
            assert route.ask([CLIP], priority=priority)[0].served_by == "a"
            order.append(priority)

        threads = [threading.Thread(target=ask, args=(priority,)) for priority in (0, 1, 2)]
        for waiting, thread in enumerate(threads):
            thread.start()
            until = time.monotonic() + 30
            while (line.waiting, line._served) != (waiting, 1) and time.monotonic() < until:
                time.sleep(0.002)
        for thread in threads:
            thread.join()
    assert order == [0, 2, 1]
