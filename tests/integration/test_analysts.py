"""Analysts who query the warehouse while several processes write to it and publish it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grym.store import Store
from reports import VIEWS

ROOT = Path(__file__).parents[2]
WRITERS = ("p", "q", "r", "s")


def start(role: str, home: Path, name: str, seconds: float) -> subprocess.Popen[str]:
    """A process of :mod:`store_load`."""
    arguments = [sys.executable, str(Path(__file__).with_name("store_load.py")), role, str(home), name, str(seconds)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a process printed before it ended well."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    return dict(json.loads(output))


def check_readers_and_writers(home: Path, readers: int, seconds: float) -> None:
    """Four processes land and publish, others read: no query fails, nothing is torn, everything arrives."""
    store = Store(home)
    store.publish(VIEWS)
    analysts = [start("read", home, str(number), seconds) for number in range(readers)]
    writers = [start("write", home, name, seconds) for name in WRITERS]
    try:
        written = [result(writer) for writer in writers]
        store.publish(VIEWS)
    finally:
        (home / "stop").touch()
    for met in map(result, analysts):
        assert (met["failed"], met["torn"]) == ([], [])
        assert met["states"] > 1
    with store.connect() as warehouse:
        finished = warehouse.sql("SELECT count(*) FROM ab_runs WHERE finished").fetchall()
    assert finished == [(sum(writer["runs"] for writer in written),)]
    assert sum(writer["published"] for writer in written) > 1
    assert not list(home.glob(".publish-*"))


def test_analysts_never_meet_a_failure_or_half_a_batch(tmp_path: Path) -> None:
    """A few seconds of four writers and one analyst."""
    check_readers_and_writers(tmp_path, 1, 3)


@pytest.mark.chaos
def test_analysts_never_meet_a_failure_or_half_a_batch_for_long(tmp_path: Path) -> None:
    """The same with three analysts for more than a minute, while the landing zone grows."""
    check_readers_and_writers(tmp_path, 3, 75)
