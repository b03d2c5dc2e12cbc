"""Every way a model's process can break, while a route is asked: who answers, in what time, and what is on record.

The faults marked ``chaos`` are the long form; the others run with every test.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from grym.config import load_settings
from grym.models.interface import AudioClip, Options
from grym.resilience.opening import open_route
from grym.store import Store
from tests.support import ROOT, assert_nothing_left, is_alive, wait, workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from grym.config import Settings

CLIPS = [AudioClip(name, np.sin(np.arange(1600, dtype=np.float32)), 16_000) for name in ("one", "two")]
REQUESTS = 4
DEADLINE, PATIENT, BUDGET = 0.4, 300.0, 900.0
LATE = 30.0  # of patience, in seconds: what a busy machine may take to notice; nothing here takes minutes


@dataclass(frozen=True)
class Fault:
    """What the primary does, and what has to be on record.

    Attributes:
        script: of the primary; ``deed`` is one of ``tests/faulty_models.py``.
        category: of the error, as rows and strategies see it.
        codes: short reasons that fit.
        deadline: seconds that the primary has; a fault that shows by itself gets enough for a slow start.
    """

    script: dict[str, Any]
    category: str
    codes: frozenset[str]
    deadline: float = PATIENT


def _do(deed: str) -> dict[str, Any]:
    return {"*": {"do": deed, "text": "one"}}


def _fault(script: dict[str, Any], category: str, *codes: str, deadline: float = PATIENT) -> Fault:
    return Fault(script, category, frozenset(codes), deadline)


SHORT = {
    "crash": _fault(_do("crash"), "worker", "worker-crashed"),
    "hang": _fault(_do("hang"), "deadline", "deadline", deadline=DEADLINE),
    "garbage-answer": _fault({"deed": "garbage"}, "worker", "oversized"),
    "out-of-memory": _fault({"deed": "too-much-memory"}, "resource", "out-of-memory"),
}
LONG = {
    "exit": _fault(_do("exit"), "worker", "worker-crashed"),
    "abort": _fault({"deed": "abort"}, "worker", "worker-crashed"),
    "stopped": _fault({"deed": "stop"}, "deadline", "deadline", deadline=DEADLINE),
    "slow": _fault({"deed": "slow"}, "deadline", "deadline", deadline=DEADLINE),
    "raises": _fault(_do("bug"), "model", "model-raised"),
    "raises-typed": _fault({"*": {"do": "raise", "category": "model", "code": "odd"}}, "model", "odd"),
    "memory-error": _fault(_do("memory"), "resource", "out-of-memory"),
    "wrong-reply": _fault({"deed": "wrong-reply"}, "worker", "wrong-id"),
    "truncated-header": _fault({"deed": "cut-header"}, "worker", "worker-crashed", "truncated"),
    "truncated-frame": _fault({"deed": "cut-frame"}, "deadline", "deadline", deadline=DEADLINE),
    "closed-pipe": _fault({"deed": "closed-pipe"}, "worker", "worker-crashed"),
    "answer-for-nobody": _fault(_do("wrong-id"), "model", "garbled-answer"),
    "too-few-answers": _fault(_do("too-few"), "model", "garbled-answer"),
    "junk-answer": _fault(_do("junk"), "model", "garbled-answer"),
    "nan-confidence": _fault(_do("nan"), "model", "garbled-answer"),
    "nan-features": _fault({"deed": "nan-features"}, "model", "garbled-answer"),
    "does-not-load": _fault({"load": {"do": "raise", "code": "no-weights"}}, "model", "no-weights"),
    "dies-loading": _fault({"load": {"do": "crash"}}, "worker", "worker-crashed"),
    "hangs-loading": _fault({"load": {"do": "hang"}}, "deadline", "deadline", deadline=DEADLINE),
    "fails-all-clips": _fault({"*": {"do": "fail", "code": "odd"}}, "model", "odd"),
}
FAULTS = [
    *(pytest.param(fault, id=name) for name, fault in SHORT.items()),
    *(pytest.param(fault, id=name, marks=pytest.mark.chaos) for name, fault in LONG.items()),
]


def _settings(folder: Path, primary: dict[str, Any], deadline: float, **options: object) -> Settings:
    def model(name: str, script: dict[str, Any]) -> list[str]:
        fields = {"script": json.dumps(script), **(options if name == "a" else {})}
        written = ", ".join(f"{key} = {json.dumps(value)}" for key, value in fields.items())
        lines = [f"[models.{name}]", 'adapter = "tests_faulty:Faulty"', f"options = {{ {written} }}"]
        return [*lines, "breaker = { max_failures = 3, reset_timeout = 600.0 }"]

    plugins = folder / "plugins"
    plugins.mkdir()
    shutil.copy(ROOT / "tests" / "faulty_models.py", plugins / "tests_faulty.py")
    lines = [
        "[worker]", "threads = 1", "start_seconds = 200.0",
        *(["confine = false"] if options else []),  # the model counts in a file of the test's
        "[plugins]", 'paths = ["plugins"]',
        "[recovery]", "attempts = 1", "[routes.speech]", 'primary = "a"', 'fallbacks = [{ model = "b" }]',
        f"deadline_seconds = {deadline}", f"budget_seconds = {BUDGET}",
        *model("a", primary), *model("b", {"*": "one two"}),
    ]  # fmt: skip
    (folder / "grym.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_settings(folder / "grym.toml")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_model_answers_and_everything_is_on_record(
    fault: Fault, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """No clip is lost or answered twice, nobody waits for ever, the category is right, an alert is raised."""
    settings = _settings(tmp_path, fault.script, fault.deadline)
    took = []
    with open_route(settings, "speech") as route:
        for member in route._members.values():
            member.worker  # noqa: B018 - both start, so that a start counts for no deadline
        route._members["b"].worker.start()
        for _ in range(REQUESTS):
            started = time.monotonic()
            served = route.ask(CLIPS, Options(features=True))
            took.append(served[0].wall_seconds)
            assert time.monotonic() - started < fault.deadline + LATE
            assert [(one.served_by, one.answer.text) for one in served] == [("b", "one two")] * len(CLIPS)
        children = workers(os.getpid())  # the process of a test may have others
    record_property("answered_seconds", round(max(took), 2))  # the slowest request, starts of the process included
    wait(lambda: not any(map(is_alive, children)), LATE)
    store = Store(settings.home)
    rows = store.read("requests")
    assert rows.height == REQUESTS * len(CLIPS)
    assert rows.select("request_id", "clip_id").is_unique().all()
    assert rows["failed_over"].all()
    tries = store.read("attempts")
    assert set(tries["category"]) == {fault.category}, tries
    assert set(tries["code"]) <= fault.codes, tries
    assert 3 <= tries.height <= 9  # three requests, each with both clips and then one by one; then the breaker is open
    refused = [json.loads(row)[0][1] for row in rows.sort("at")["refused"]]
    assert refused[-len(CLIPS) :] == ["breaker-open"] * len(CLIPS)
    alerts = store.read("alerts").select("kind", "subject").rows()
    assert alerts == [("failover", "speech")]
    opened = store.read("events").filter(pl.col("kind") == "breaker")["after"].to_list()
    assert opened == ["open"]
    assert_nothing_left(settings.home)


@pytest.mark.chaos
def test_a_model_that_recovers_serves_again(tmp_path: Path) -> None:
    """It crashes twice and is then well: the third request is its own again; who served is in every row."""
    script = {"*": "from a", "deed": "abort", "times": 2}
    settings = _settings(tmp_path, script, PATIENT, state=str(tmp_path / "state"))
    with open_route(settings, "speech") as route:
        served = []
        for _ in range(3):
            served.append(route.ask(CLIPS[:1])[0].served_by)
            wait(lambda: route._members["a"].runs)  # it is started again in the background, after its back-off
    assert served == ["b", "b", "a"]
    events = Store(settings.home).read("events").filter(pl.col("kind") == "failover").sort("at")
    assert events["after"].to_list() == ["b", "a"]


@pytest.mark.chaos
def test_a_leak_is_answered_by_the_model_itself(
    tmp_path: Path, record_property: Callable[[str, object], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A primary that keeps 40 MB of every call is started anew whenever it is full: no failover, no clip lost."""
    settings = _settings(tmp_path, {"deed": "leak", "*": "one"}, PATIENT)
    limited = settings.model("a").model_copy(update={"memory_mb": 300})
    settings = settings.model_copy(update={"models": {**settings.models, "a": limited}})
    took = []
    with open_route(settings, "speech") as route:
        for _ in range(20):
            served = route.ask(CLIPS, Options())
            took.append(served[0].wall_seconds)
            assert [(one.served_by, one.answer.text) for one in served] == [("a", "one")] * len(CLIPS)
        children = workers(os.getpid())
    record_property("answered_seconds", round(max(took), 2))
    wait(lambda: not any(map(is_alive, children)), LATE)
    store = Store(settings.home)
    assert store.read("requests").height == 20 * len(CLIPS)
    assert sum("started anew" in message for message in caplog.messages) >= 2
    assert store.read("alerts").height == 0
    assert_nothing_left(settings.home)
