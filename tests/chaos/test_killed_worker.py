"""A worker is killed or stopped in the middle of a call."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import polars as pl
import pytest

from grym.store import Store
from tests.support import end, is_alive, parts, wait, workers

if TYPE_CHECKING:
    import subprocess

    import psutil

    from tests.chaos.conftest import Case

pytestmark = pytest.mark.chaos


def _hanging(victims: list[psutil.Process]) -> psutil.Process:
    """The worker of arm a: its command line does not tell, its folder does."""
    return next(victim for victim in victims if victim.cwd().endswith("/a"))


def _wait_for_batches(case: Case, landed: int, flow: subprocess.Popen[str]) -> None:
    wait(lambda: len(parts(case.home)) >= landed or flow.poll() is not None)


@pytest.mark.parametrize(("number", "category"), [(signal.SIGKILL, "worker"), (signal.SIGSTOP, "deadline")])
def test_a_worker_lost_in_a_call(fake: Case, number: signal.Signals, category: str) -> None:
    """Killed, or stopped until its deadline: the batch is tried again in a new worker, and the run ends well."""
    fake.arm()
    flow = fake.start()
    wait(fake.begun.exists)
    victim = _hanging(workers(flow.pid))
    victim.send_signal(number)
    end(flow)
    assert not is_alive(victim)
    tries = Store(fake.home).read("attempts").select("arm", "attempt", "category", "action").rows()
    assert tries == [("a", 1, category, "retry")]
    fake.check()


def test_both_real_workers_killed_again_and_again(real: Case) -> None:
    """SIGKILL of both after every second batch: each loss costs a try, never a clip."""
    flow = real.start()
    for landed in (1, 3, 5):
        _wait_for_batches(real, landed, flow)
        for victim in workers(flow.pid):
            victim.kill()
    end(flow)
    outcomes = Store(real.home).read("outcomes")
    assert outcomes.filter(pl.col("status") == "ok").height == 48
    real.check()


def test_a_stopped_worker_does_not_outlive_its_flow(fake: Case) -> None:
    """A stopped process cannot notice that its parent was killed: the next command ends it."""
    fake.arm()
    flow = fake.start()
    wait(fake.begun.exists)
    found = workers(flow.pid)
    stopped = _hanging(found)
    stopped.send_signal(signal.SIGSTOP)
    flow.kill()
    flow.communicate()
    wait(lambda: not any(is_alive(worker) for worker in found if worker != stopped))
    assert is_alive(stopped)
    fake.finish()
    assert not is_alive(stopped)
