"""Threads that wait: spinning or sleeping, alone and beside a process that keeps one core busy.

One clip on all cores is the only time when a worker's threads wait for each
other; clips of a batch run beside each other. Milliseconds for a clip of five
seconds on wav2vec2-base.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, median
from benchmarks.material import ROOT, checkpoint
from grym.worker.process import COMPUTING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLICIES = ("ACTIVE", "PASSIVE")
ORDER = ("ACTIVE", "PASSIVE", "PASSIVE", "ACTIVE")
BUSY = "while True: pass"
LONE = """
import sys, time
import numpy as np
from grym.config import ModelSpec
from grym.models import AudioClip, Options, load_model
options = {"path": sys.argv[1], "precision": "fp32", "device": "cpu"}
model = load_model(ModelSpec(name="base", adapter="wav2vec2", options=options))
clip = AudioClip("a", np.random.default_rng(0).standard_normal(80_000).astype(np.float32), 16_000)
model.process([clip], Options())
taken = []
for _ in range(5):
    started = time.perf_counter()
    model.process([clip], Options())
    taken.append(time.perf_counter() - started)
print(sorted(taken)[2])
"""


def measure(folder: Path) -> Iterator[Figure]:
    """Sleeping must cost little alone, and much less than spinning beside somebody."""
    made = checkpoint(folder / "base")
    seconds: dict[tuple[str, bool], list[float]] = {}
    for busy in (False, True):
        with ExitStack() as stack:
            if busy:
                other = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
                stack.callback(other.kill)
            for policy in ORDER:
                seconds.setdefault((policy, busy), []).append(_lone(made, policy))
    middle = {key: median(values) for key, values in seconds.items()}
    for (policy, busy), value in middle.items():
        place = "beside a busy process" if busy else "alone"
        yield Figure(f"waiting: {policy.lower()}, {place}", 1e3 * value, "ms")
    alone = middle["PASSIVE", False] / middle["ACTIVE", False]
    yield Figure("waiting: passive to active, alone", alone, "times", 1.1, "at most")
    beside = middle["PASSIVE", True] / middle["ACTIVE", True]
    yield Figure("waiting: passive to active, beside a busy process", beside, "times", 1.0, "at most")


def _lone(folder: Path, policy: str) -> float:
    environment = {**os.environ, **COMPUTING, "OMP_WAIT_POLICY": policy, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LONE, str(folder)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])
