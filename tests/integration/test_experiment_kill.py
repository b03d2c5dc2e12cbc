"""Experiments under kill -9 and across processes: no event lost or counted twice, a kill switch in under a second."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from grym.experiment.collector import Collector
from grym.experiment.config import Arm, Experiment, Metric, Ramp, Sticky
from grym.experiment.control import kill
from grym.experiment.evidence import gather
from grym.experiment.registry import register
from grym.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(__file__).parents[2] / "src"
ARMS = (Arm("a", 0.5, "one"), Arm("b", 0.5, "two"))
DEMO = Experiment(
    "demo", 1, "user", ARMS, (Metric("m", "mean", "lower", "x"),), ramp=Ramp((1.0,)), sticky=Sticky(enabled=True)
)
# Records requests from a number on, four at a time, and says on stdout which are acknowledged.
PRODUCER = """
import sys
from pathlib import Path
from grym.experiment.assignment import Assigner
from grym.experiment.collector import Collector
from grym.experiment.control import State
from grym.experiment.events import exposure, measurements
from grym.experiment.registry import registered
from grym.store import Store
store, first = Store(Path(sys.argv[1])), int(sys.argv[2])
experiment = registered(store)["demo", 1]
assigner = Assigner(experiment, control=State)
with Collector(store, rows=30) as collector:
    for start in range(first, 100_000, 4):
        events = []
        for number in range(start, start + 4):
            used = exposure(assigner.assign(f"u{number}"), 1_760_000_000_000 + number, request_id=str(number))
            events += [used, *measurements(experiment, used, {"x": number}, used.at_ms, request_id=str(number))]
        collector.record(events)
        print(start + 4, flush=True)
"""
# Assigns one sticky unit again and again, and says when that changed.
SERVER = """
import sys, time
from pathlib import Path
from grym.experiment.assignment import Assigner
from grym.experiment.control import Switch
from grym.experiment.registry import registered
from grym.experiment.sticky import MemoryBook
from grym.store import Store
home = Path(sys.argv[1])
experiment = registered(Store(home))["demo", 1]
assigner = Assigner(experiment, control=Switch(home, experiment), book=MemoryBook({"u1": {"demo__0": "b"}}))
print(assigner.assign("u1").reason, flush=True)
while assigner.assign("u1").arm is not None:
    time.sleep(0.001)
print(assigner.assign("u1").reason, time.monotonic(), flush=True)
"""


@contextmanager
def started(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that knows the experiment."""
    made = Store(tmp_path)
    register(made, DEMO)
    return made


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.chaos)])
def test_kill_9_at_any_time_loses_nothing_and_doubles_nothing(store: Store, kills: int) -> None:
    """A producer is killed again and again; it repeats what was not acknowledged: each request is there once."""
    rng = random.Random(3)
    acknowledged = 0
    for _ in range(kills):
        with started(PRODUCER, str(store.home), str(acknowledged)) as producer:
            assert producer.stdout is not None
            first = int(producer.stdout.readline())
            assert first == acknowledged + 4
            time.sleep(rng.uniform(0, 0.25))
            producer.send_signal(signal.SIGKILL)
            acknowledged = int((producer.stdout.read().split() or [str(first)])[-1])
    with Collector(store):
        pass
    exposures, outcomes = store.read("exposures"), store.read("measurements")
    requests = sorted(int(value) for value in outcomes["value"])
    # The last call may have been recorded and killed before it could say so.
    assert len(requests) in {acknowledged, acknowledged + 4}
    assert requests == list(range(len(requests)))
    assert exposures["unit"].n_unique() == exposures.height == len(requests)
    evidence = gather(store, DEMO)
    assert sum(row["sum_y"] for row in evidence.rows) == sum(requests)
    assert sum(arm.units for arm in evidence.arms) == len(requests)
    assert evidence.lost == 0
    assert list((store.home / "journal").iterdir()) == []


def test_a_kill_reaches_a_sticky_unit_in_another_process_within_a_second(store: Store) -> None:
    """From the call that kills to the first assignment that says so, on the clock that all processes share."""
    with started(SERVER, str(store.home)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "sticky\n"
        at = time.monotonic()
        kill(store.home, DEMO, "test")
        reason, seen = server.stdout.readline().split()
    assert reason == "killed"
    assert float(seen) - at < 1
