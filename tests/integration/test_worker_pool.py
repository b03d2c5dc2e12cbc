"""Several workers of one model with real processes: sized by memory, replaced when they die, recycled, shed."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from grym.config import WorkerLimits
from grym.errors import DeadlineError, GrymError, UnavailableError, WorkerError
from grym.models import Options
from grym.worker import Pool
from tests.integration.test_worker import alive, clip, eventually, murder, spec
from tests.support import workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLENTY = 1e6


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    """Make pools that are closed after the test."""
    made: list[Pool] = []

    def build(script: Any = None, free_mb: float = PLENTY, options: Any = None, **limits: Any) -> Pool:
        settings = WorkerLimits(threads=1, **limits)
        pool = Pool(spec(script, **(options or {})), settings, tmp_path / "pool", free_mb=lambda _: free_mb)
        made.append(pool)
        return pool

    yield build
    for pool in made:
        pool.close()


def asked(pool: Pool, names: list[str], **more: Any) -> tuple[list[str], list[GrymError]]:
    """Ask from a thread for each name; texts and errors."""
    texts: list[str] = []
    errors: list[GrymError] = []

    def ask(name: str) -> None:
        try:
            texts.append(str(pool.process([clip(name)], Options(), **more)[0][0].text))
        except GrymError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return texts, errors


def test_a_dead_worker_is_replaced_while_the_others_serve(make: Callable[..., Pool]) -> None:
    """Two workers share the calls; the one that is killed comes back, and nobody else notices."""
    script = {"*": "one two", "x": {"do": "crash"}}
    pool = make(script, workers=2, options={"latency_seconds": 0.05})
    assert pool.start().name == "toy"
    assert eventually(lambda: pool.load.down == 0)
    first = set(pool.pids)
    assert len(first) == 2
    texts, errors = asked(pool, ["a"] * 6)
    assert (len(texts), errors) == (6, [])
    assert sorted(seat.calls for seat in pool._seats) == [3, 3]
    _, errors = asked(pool, ["x"])
    assert [error.code for error in errors] == ["worker-crashed"]
    texts, errors = asked(pool, ["a"] * 4)
    assert (len(texts), errors) == (4, [])
    assert eventually(lambda: len(set(pool.pids)) == 2 and pool.load.down == 0)
    assert len(first & set(pool.pids)) == 1
    murder(pool.pids[0])  # between two calls
    texts, errors = asked(pool, ["a"] * 4)
    assert (len(texts), errors) == (4, [])
    assert pool.ping()["status"] == "ok"
    matrix, _ = pool.features([clip()])
    assert matrix.shape == (1, 8)
    assert pool.analyze([clip()])[0][0]["seconds"] == 0.5
    assert eventually(lambda: pool.load.replaced == 2)
    pids = pool.pids
    pool.close()
    pool.close()
    assert not any(map(alive, pids))
    with pytest.raises(WorkerError) as closed:
        pool.process([clip()], Options())
    assert closed.value.code == "worker-closed"


def test_the_least_important_call_is_sent_away(make: Callable[..., Pool]) -> None:
    """A full line takes a more important call and sheds the last of the others, which is told when to come again."""
    pool = make({"*": "one two", "h": {"do": "hang"}}, queue=2)
    pool.start()
    hanging = threading.Thread(target=lambda: asked(pool, ["h"]))
    hanging.start()
    assert eventually(lambda: pool.load.busy == 1)
    found: dict[int, Any] = {}

    def ask(priority: int) -> None:
        found[priority] = asked(pool, ["a"], priority=priority)

    threads = [threading.Thread(target=ask, args=(priority,)) for priority in (1, 2)]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        assert eventually(lambda number=number: pool.load.waiting == number)
    assert pool.pressed
    threads.append(threading.Thread(target=ask, args=(3,)))
    threads[-1].start()
    threads[0].join()
    (shed,) = found[1][1]
    assert isinstance(shed, UnavailableError)
    assert (shed.code, shed.metadata["retry_after_seconds"] > 0) == ("overloaded", True)
    with pytest.raises(UnavailableError):
        pool.process([clip("a")], Options(), priority=0)
    assert pool.cancel() == 1
    for thread in [*threads, hanging]:
        thread.join()
    assert found[2] == found[3] == (["one two"], [])
    assert pool.load.shed == 2


def test_workers_are_recycled_and_sized_by_memory(make: Callable[..., Pool]) -> None:
    """After their share of calls they are new processes; where memory is short there are fewer than wanted."""
    pool = make(workers=4, free_mb=100.0, recycle_after=3)
    pool.start()
    (pid,) = pool.pids  # a second one would need more than is free
    for _ in range(3):
        pool.process([clip()], Options())
    assert eventually(lambda: pool.load.recycled == 1)
    assert pool.pids != [pid]
    assert pool.process([clip()], Options(), deadline=30)[0][0].text == "one two"
    assert pool.memory_mb > 0
    assert pool.resident_mb > 10
    assert eventually(lambda: len(workers(os.getpid())) == 1)


def test_the_deadline_covers_a_start(make: Callable[..., Pool], tmp_path: Path) -> None:
    """A worker that runs is preferred; where none does, nobody waits beyond the deadline, and the start goes on."""
    script = {"*": "one two", "load": {"do": "hang", "first": 1}}
    (tmp_path / "count").write_text('"load"\n')  # only a later start hangs
    pool = make(script, options={"state": str(tmp_path / "count")}, workers=1)
    pool.start()
    (tmp_path / "count").write_text("")
    (first,) = pool.pids
    os.kill(first, signal.SIGKILL)  # the pool reaps it at once
    assert eventually(lambda: not alive(first))
    with pytest.raises(DeadlineError):
        pool.process([clip()], Options(), deadline=0.3)
    assert eventually(lambda: pool.pids not in ([], [first]) and (tmp_path / "count").read_text())
    os.kill(pool.pids[0], signal.SIGKILL)  # it hangs while it loads
    assert eventually(lambda: pool.runs and pool.load.down == 0)
    assert pool.process([clip()], Options(), deadline=60)[0][0].text == "one two"
