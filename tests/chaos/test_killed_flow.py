"""The flow's process is killed: at random moments, at exact points, during publishing and reporting."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from grym.store import Store
from tests.support import assert_finished, assert_same, kill, pages, parts, wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.conftest import Case

pytestmark = pytest.mark.chaos

# Where a process stands still before it is killed, in the order of a run: function and which call of it.
POINTS = (
    ("grym.compare.session:Session.open", 1),
    ("grym.compare.session:Session._remember", 2),
    ("grym.compare.session:Session._outcomes", 2),
    ("grym.parts:sync", 9),
    ("grym.compare.session:Session.measure_latency", 1),
    ("grym.compare.session:Session.compare", 1),
    ("grym.compare.session:Session.close", 1),
    ("grym.warehouse:_add_views", 1),
    ("grym.store:sync", 1),
    ("grym.store:sync", 2),
    ("reports.index:render_index", 1),
    ("reports.render:render_run", 1),
)


def _kill_at_random(case: Case, seed: int, times: int) -> None:
    """Kill up to so many times; a finished batch is never run again."""
    rng = random.Random(seed)
    before: dict[str, int] = {}
    for _ in range(times):
        flow = case.start()
        time.sleep(rng.uniform(0.05, 0.95) * case.seconds)
        over = flow.poll() is not None
        kill(flow)
        now = parts(case.home)
        assert {name: now[name] for name in before} == before
        before = now
        if over or pages(case.home):
            break


def _complete(case: Case, record_property: Callable[[str, object], None]) -> None:
    """Finish the run, unless the last kill came after its last step."""
    if pages(case.home):
        assert_same(case.whole, case.home)
    else:
        record_property("recovery_seconds", round(case.finish(), 1))


@pytest.mark.parametrize("seed", [11, 12])
def test_killed_at_random_moments(fake: Case, seed: int, record_property: Callable[[str, object], None]) -> None:
    """SIGKILL again and again: the same command finishes the run, with the same rows and vectors."""
    _kill_at_random(fake, seed, 5)
    _complete(fake, record_property)


def test_real_models_killed_at_random_moments(real: Case, record_property: Callable[[str, object], None]) -> None:
    """The same with wav2vec2-mini in fp32 and int8."""
    _kill_at_random(real, 21, 3)
    _complete(real, record_property)


def test_killed_at_exact_points(fake: Case, record_property: Callable[[str, object], None]) -> None:
    """SIGKILL before, inside and after every store's write in turn, each time a little later."""
    old = None
    for function, count in POINTS:
        flow, _ = fake.pause(function, count)
        kill(flow)
        store = Store(fake.home)
        if function == "grym.store:sync" and count == 1:
            assert list(fake.home.glob(".publish-*/warehouse.duckdb"))
            assert not store.warehouse.exists()
        elif store.warehouse.exists():
            store.connect().close()  # a whole one, never half of one
            old = old or store.warehouse.stat().st_ino
    assert old is not None
    assert pages(fake.home) == set()
    record_property("recovery_seconds", round(fake.finish(), 1))


def test_killed_while_it_publishes_again(fake: Case, record_property: Callable[[str, object], None]) -> None:
    """SIGKILL between writing aside and swapping: analysts go on reading the warehouse of the run before."""
    fake.project.run(*fake.command)
    before = fake.home / "warehouse.duckdb"
    inode = before.stat().st_ino
    flow, _ = fake.pause("grym.store:sync")
    with Store(fake.home).connect() as reader:
        kill(flow)
        assert reader.sql("SELECT count(*) FROM runs").fetchall() == [(2,)]
    assert before.stat().st_ino == inode
    started = time.monotonic()
    done = fake.project.run(*fake.command)
    record_property("recovery_seconds", round(time.monotonic() - started, 1))
    assert "resumed" in done.stdout
    assert before.stat().st_ino != inode
    assert_finished(fake.home, runs=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(fake: Case, number: signal.Signals) -> None:
    """Ctrl-C and a polite kill end it at once, with its workers; the same command finishes the run."""
    flow = fake.start()
    wait(lambda: len(parts(fake.home)) >= 2)
    flow.send_signal(number)
    flow.communicate(timeout=120)
    assert flow.returncode != 0
    fake.finish()
