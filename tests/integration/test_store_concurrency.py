"""Several processes on one home: killed and blocked publishers, and upserts at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from grym.errors import StorageError
from grym.memory import FeatureStore, Space
from grym.store import RunRef, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(__file__).parents[2] / "src"
RUN = RunRef("abc-1", "2026-11-20")
HEAD = (
    "import pathlib, sys, time; from grym.errors import StorageError; from grym.store import RunRef, Store\n"
    "home = pathlib.Path(sys.argv[1]); name = sys.argv[2]\n"
    "store = Store(home); run = RunRef('abc-1', '2026-11-20'); stop = home / 'stop'\n"
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a warehouse; whatever loops on it ends with the test."""
    store = Store(tmp_path)
    store.publish()
    yield store
    (tmp_path / "stop").touch()


def start(script: str, home: Path, name: str = "x") -> subprocess.Popen[str]:
    """A process of its own on a home."""
    arguments = [sys.executable, "-c", script, str(home), name]
    return subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": str(SRC)}, stdout=subprocess.PIPE, text=True)


def test_a_killed_publisher_leaves_the_old_warehouse(store: Store) -> None:
    """SIGKILL in the middle of building: the old file serves, and the next publish cleans up."""
    store.land("words", [{"arm": "a", "clip_id": "c", "position": 0}], run=RUN, part="p")
    store.publish()
    before = store.warehouse.stat().st_ino
    publisher = start(
        HEAD + "import grym.store\ngrym.store.sync = lambda _: time.sleep(60)\nstore.publish()", store.home
    )
    deadline = time.monotonic() + 60
    while not any(not p.stat().st_mode & 0o222 for p in store.home.glob(".publish-*/warehouse.duckdb")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    publisher.send_signal(signal.SIGKILL)
    publisher.communicate()
    assert list(store.home.glob(".publish-*"))
    assert store.warehouse.stat().st_ino == before
    with store.connect() as warehouse:
        assert warehouse.sql("SELECT count(*) FROM words").fetchall() == [(1,)]
    assert store.publish(wait_seconds=5).rows["words"] == 1
    assert not list(store.home.glob(".publish-*"))


def test_a_warehouse_open_for_writing_elsewhere_says_what_to_close(store: Store) -> None:
    """Reading and publishing name the remedy while another program writes, and work again once it is closed."""
    store.warehouse.chmod(0o644)
    script = HEAD + (
        "import duckdb; writer = duckdb.connect(str(home / 'warehouse.duckdb')); print('open', flush=True)\n"
        "while not stop.exists(): time.sleep(0.02)\n"
    )
    writer = start(script, store.home)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    for act in (store.connect, store.publish):
        with pytest.raises(StorageError, match="Close the other program") as caught:
            act()
        assert (caught.value.code, caught.value.retryable) == ("warehouse-locked", True)
    (store.home / "stop").touch()
    writer.communicate(timeout=60)
    store.publish()
    store.connect().close()


def test_a_publish_that_never_ends_does_not_block_for_ever(store: Store) -> None:
    """A second publisher gives up after its time with what to do."""
    script = HEAD + (
        "from filelock import FileLock\n"
        "with FileLock(home / 'warehouse.lock'):\n"
        "    print('held', flush=True)\n"
        "    while not stop.exists(): time.sleep(0.02)\n"
    )
    holder = start(script, store.home)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StorageError, match="Wait for it") as caught:
        store.publish(wait_seconds=0.1)
    assert caught.value.code == "publish-busy"
    (store.home / "stop").touch()
    holder.communicate(timeout=60)
    store.publish(wait_seconds=5)


def test_concurrent_upserts_leave_each_id_once(tmp_path: Path) -> None:
    """Two processes that store the same clips, the first ones of the space, write no duplicates."""
    script = (
        "import pathlib, sys, numpy as np; from grym.memory import FeatureStore, Space\n"
        "store = FeatureStore(pathlib.Path(sys.argv[1])); rng = np.random.default_rng(0)\n"
        "for batch in range(6):\n"
        "    rows = [{'id': f'c{i}', 'vector': rng.normal(size=8), 'speaker': sys.argv[2]} for i in range(40)]\n"
        "    store.store(rows[batch * 2 :], space=Space('m', 'r', 8))\n"
    )
    for process in [start(script, tmp_path, name) for name in ("u", "v")]:
        process.communicate(timeout=60)
        assert process.returncode == 0
    store, space = FeatureStore(tmp_path), Space("m", "r", 8)
    assert store.count(space=space) == 40
    matches = store.find_similar(np.ones(8), 100, space=space)
    assert sorted(match.id for match in matches) == sorted(f"c{i}" for i in range(40))
