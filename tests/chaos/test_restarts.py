"""A thousand restarts leave nothing behind: no zombie, no descriptor, no shared memory, no thread."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from grym.config import ModelSpec, WorkerLimits
from grym.errors import ResourceError
from grym.models.interface import AudioClip, Options
from grym.resilience.ledger import Ledger
from grym.resilience.memory import MemoryManager
from grym.resilience.state import States
from grym.worker import Pool, Worker

pytestmark = pytest.mark.chaos
SECONDS = 400.0  # of patience: machines that run these tests do other things too
CLIP = AudioClip("clip", np.zeros(32_000, np.float32), 16_000)  # enough to go through shared memory
FAKE = ModelSpec(name="fake", adapter="fake", options={"script": '{"*": "one two"}'})
MINI = ModelSpec(name="mini", adapter="wav2vec2", options={"path": "bundled:wav2vec2-mini", "precision": "fp32"})


def traces() -> dict[str, int]:
    """What restarts could leave behind in this process and on this machine."""
    me = psutil.Process()
    shared = Path("/dev/shm")  # noqa: S108 - only listed
    return {
        "descriptors": me.num_fds(),
        "children": len(me.children(recursive=True)),
        "threads": threading.active_count(),
        "shared": len(list(shared.iterdir())) if shared.is_dir() else 0,
        "memories": sum("memfd" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()),
    }


@pytest.mark.parametrize(("spec", "restarts"), [(FAKE, 1000), (MINI, 20)], ids=["fake", "wav2vec2-mini"])
def test_restarts_leave_nothing_behind(tmp_path: Path, spec: ModelSpec, restarts: int) -> None:
    """Killed between calls, again and again; each new child answers."""
    start = traces()
    worker = Worker(spec, WorkerLimits(threads=1, start_seconds=SECONDS), tmp_path)
    worker.process([CLIP], Options())
    before = traces()
    for _ in range(restarts):
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert worker.process([CLIP], Options())[0][0].error is None
    assert worker.restarts == restarts
    assert traces() == before
    worker.close()
    assert traces() == start


def test_wav2vec2_mini_under_a_tight_limit(tmp_path: Path) -> None:
    """A batch that is too much for the limit is asked in parts, and everything is answered as without a limit."""
    numbers = np.random.default_rng(3)
    batch = [
        AudioClip(f"c{n}", numbers.normal(scale=0.1, size=60 * 16_000).astype(np.float32), 16_000) for n in range(12)
    ]
    options = Options(segments=False)
    with Worker(MINI, WorkerLimits(threads=1, start_seconds=SECONDS), tmp_path / "roomy") as worker:
        one = worker.process(batch[:1], options)[1].call_peak_mb
        expected, usage = worker.process(batch, options)
    assert usage.call_peak_mb > one + 40  # or the limit below would not tell the two apart
    limit = (one + usage.call_peak_mb) / 2
    manager = MemoryManager(Ledger(States(tmp_path), 3600), lambda _: 1e6)
    with Worker(MINI, WorkerLimits(threads=1, start_seconds=SECONDS, memory_mb=limit), tmp_path / "tight") as worker:
        with pytest.raises(ResourceError) as caught:
            worker.process(batch, options)
        answers, parts = manager.process(worker, batch, options)
    assert caught.value.code == "out-of-memory"
    assert [(a.clip_id, a.text) for a in answers] == [(a.clip_id, a.text) for a in expected]
    assert all("batch=" in a.rung for a in answers)
    assert parts.call_peak_mb <= limit * 1.1


def test_a_pool_survives_kills_at_random(tmp_path: Path) -> None:
    """While two workers are killed in turns, every call is answered or ends with a typed error, and none is left."""
    start = traces()
    numbers = np.random.default_rng(7)
    with Pool(FAKE, WorkerLimits(threads=1, start_seconds=SECONDS, workers=2), tmp_path) as pool:
        answered = 0
        for _ in range(60):
            pids = pool.pids
            if pids and numbers.random() < 0.5:
                victim = pids[numbers.integers(len(pids))]
                os.kill(victim, signal.SIGKILL)
                os.waitid(os.P_PID, victim, os.WEXITED | os.WNOWAIT)
            answered += pool.process([CLIP], Options())[0][0].text == "one two"
        assert answered == 60
    assert traces() == start
