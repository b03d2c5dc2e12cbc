"""Whole runs: what one costs before any model does anything, and the memory of `make run` with its server.

Seconds and MB (10^6 bytes).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, median
from benchmarks.material import ROOT
from benchmarks.project import DIGITS, FAKE, project
from benchmarks.watch import Watch
from flows.server import server, state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from grym.config import Settings

REPEATS = 3


def measure(folder: Path) -> Iterator[Figure]:
    """Time of a run with models that take none, on a server that runs already; then `make run` from the side."""
    settings = project(folder / "fake", FAKE + DIGITS)
    with server(settings.home):
        taken = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            process = _compare(settings, "--a", "fake-a", "--b", "fake-b", "--dataset", "digits", "--new")
            _end(process)
            taken.append(time.perf_counter() - started)
    yield Figure("run: compare with models that take no time", median(taken), "s", 25, "at most")
    home = folder / "home"
    started = time.perf_counter()
    process = _make_run(home)
    with Watch(process.pid, lambda: _server(home)) as watch:
        _end(process)
    took = time.perf_counter() - started
    rss = dict(sorted(watch.peaks.rss_mb.items(), key=lambda item: -item[1]))
    yield Figure("run: make run, all processes together (PSS)", watch.peaks.pss_mb, "MB", 3500, "at most")
    yield Figure("run: make run, largest process (RSS)", max(rss.values()), "MB", 1000, "at most", detail={"rss": rss})
    yield Figure("run: make run, from nothing to the report", took, "s")


def _compare(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    return _flows(["compare", *arguments], {"GRYM_CONFIG": str(settings.root / "grym.toml")})


def _make_run(home: Path) -> subprocess.Popen[bytes]:
    """What `make run` does, in a home of its own."""
    return _flows(["compare"], {"GRYM_HOME": str(home), "GRYM_CONFIG": str(ROOT / "grym.toml")})


def _flows(arguments: list[str], settings: dict[str, str]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    # The parent's Prefect settings would send the child to another server than the one on record in its home.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.Popen(
        [sys.executable, "-m", "flows", *arguments],
        env={**inherited, **settings, "PYTHONPATH": path},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if code := process.wait():
        msg = f"a run ended with exit code {code}"
        raise RuntimeError(msg)


def _server(home: Path) -> list[int]:
    found = state(home).server
    return [] if found is None or found.pid is None else [found.pid]
