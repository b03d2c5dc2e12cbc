"""Comparisons killed again and again at random moments, flow, worker or both: nothing lost, nothing twice.

``GRYM_KILLS=100 GRYM_KILLS_REAL=10`` sets how many kills; what came out is the test's ``kills`` in the XML report.
"""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
import pytest

from grym.store import Store
from tests.chaos.conftest import make
from tests.support import SECONDS, assert_finished, assert_same, kill, pages, workers

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.conftest import Case

pytestmark = pytest.mark.chaos
KILLS = int(os.environ.get("GRYM_KILLS", "6"))
KILLS_REAL = int(os.environ.get("GRYM_KILLS_REAL", "2"))


def _disturb(case: Case, flow: subprocess.Popen[str], rng: random.Random) -> str:
    """Kill something at a random moment; what, or nothing if the command was quicker."""
    until = time.monotonic() + rng.uniform(0.02, 1.0) * case.seconds
    while flow.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    found = workers(flow.pid)
    what = rng.choice(("flow", "flow", "worker", "both") if found else ("flow",))
    if flow.poll() is not None:
        return ""
    if what in {"worker", "both"}:
        rng.choice(found).kill()
    if what in {"flow", "both"}:
        kill(flow)
    return what


def _many(count: int, new: Callable[[int], Case], rng: random.Random) -> dict[str, int]:
    """Comparisons in homes of their own, each killed until it is finished, until there were so many kills."""
    told = {"flow": 0, "worker": 0, "both": 0, "comparisons": 0, "rows": 0, "lost": 0, "doubled": 0}
    while sum(told[what] for what in ("flow", "worker", "both")) < count:
        case = new(told["comparisons"])
        for _ in range(count):
            flow = case.start()
            what = _disturb(case, flow, rng)
            if what:
                told[what] += 1
            if what in {"", "worker"}:
                _, stderr = flow.communicate(timeout=SECONDS)
                assert flow.returncode == 0, stderr
            if pages(case.home):
                break
        if not pages(case.home):
            case.project.run(*case.command)
        _count(case, told)
        assert_same(case.whole, case.home)
        assert_finished(case.home)
    return told


def _count(case: Case, told: dict[str, int]) -> None:
    rows, whole = Store(case.home).read("outcomes"), Store(case.whole).read("outcomes")
    kept = rows.select("arm", "clip_id").unique()
    told["comparisons"] += 1
    told["rows"] += rows.height
    told["doubled"] += rows.height - kept.height
    told["lost"] += whole.join(rows, on=["arm", "clip_id"], how="anti").height
    assert rows.filter(pl.col("status") != "ok").height == whole.filter(pl.col("status") != "ok").height


def test_many_kills(
    whole_fake: Case, folder: Path, prefect_url: str, record_property: Callable[[str, object], None]
) -> None:
    """Two fake models on 36 clips."""

    def new(number: int) -> Case:
        case = make(folder / f"kills-{number}", prefect_url, 36, ("left", "right"))
        return replace(case, whole=whole_fake.home, seconds=whole_fake.seconds)

    told = _many(KILLS, new, random.Random(2026))
    record_property("kills", json.dumps(told))
    assert told["lost"] == told["doubled"] == 0


def test_many_kills_of_real_models(
    whole_real: Case, folder: Path, prefect_url: str, record_property: Callable[[str, object], None]
) -> None:
    """wav2vec2-mini in fp32 and int8 on 24 clips."""

    def new(number: int) -> Case:
        case = make(folder / f"kills-real-{number}", prefect_url, 24, ("mini", "mini-int8"))
        return replace(case, whole=whole_real.home, seconds=whole_real.seconds)

    told = _many(KILLS_REAL, new, random.Random(2027))
    record_property("kills", json.dumps(told))
    assert told["lost"] == told["doubled"] == 0
