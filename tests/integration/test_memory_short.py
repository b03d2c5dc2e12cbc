"""Memory that is short for real: a model under a tight limit is asked in parts, and everything is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from grym.config import WorkerLimits
from grym.errors import ResourceError
from grym.models.interface import AudioClip, Options
from grym.resilience.ledger import Ledger
from grym.resilience.memory import MemoryManager
from grym.resilience.state import States
from grym.worker import Worker
from tests.integration.test_worker import spec

if TYPE_CHECKING:
    from pathlib import Path

PLENTY = 1e6


def manager(home: Path) -> MemoryManager:
    """A manager that takes the machine's memory for endless, so that only the worker's limit counts."""
    return MemoryManager(Ledger(States(home), 3600), lambda _: PLENTY)


def clips(count: int, seconds: float) -> list[AudioClip]:
    """Clips of seeded noise."""
    numbers = np.random.default_rng(3)
    return [
        AudioClip(f"c{n}", numbers.normal(scale=0.1, size=int(seconds * 16_000)).astype(np.float32), 16_000)
        for n in range(count)
    ]


def test_a_batch_beyond_the_limit_is_answered_in_parts(tmp_path: Path) -> None:
    """The child runs out, the batch is halved in the same child, and the next batch is planned to fit."""
    asked = manager(tmp_path)
    model = spec({"*": "one two"}, memory_mb_per_second=100)
    with Worker(model, WorkerLimits(threads=1, memory_mb=300), tmp_path / "scratch") as worker:
        answers, usage = asked.process(worker, clips(4, 1.5), Options())
        assert [a.text for a in answers] == ["one two"] * 4
        assert all("batch=" in a.rung for a in answers)
        assert usage.call_peak_mb > 100
        pids = {usage.pid, worker.pid}
        again, _ = asked.process(worker, clips(8, 1.5), Options())
        assert [a.error for a in again] == [None] * 8
        assert pids == {worker.pid}
        with pytest.raises(ResourceError):
            asked.process(worker, clips(1, 9.0), Options())


def test_what_torch_says_about_a_full_gpu_is_understood(tmp_path: Path) -> None:
    """The error that torch raises there halves the batch like any other."""
    script = {"*": "one two", "#1": {"do": "gpu-memory"}}  # two clips are one too many
    with Worker(spec(script), WorkerLimits(threads=1), tmp_path / "scratch") as worker:
        answers, _ = manager(tmp_path).process(worker, clips(4, 0.1), Options())
        assert [a.text for a in answers] == ["one two"] * 4
        assert {a.rung for a in answers} == {"script/cpu batch=0.1s"}


@pytest.mark.gpu
def test_a_full_gpu_is_halved_for_real(tmp_path: Path) -> None:
    """A model that takes most of the device for each clip is asked clip by clip."""
    from grym.models.memory import free_bytes

    room = free_bytes("cuda")
    if not np.isfinite(room):
        pytest.skip("there is no CUDA device")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "greedy.py").write_text(
        "import torch\n"
        "from grym.models.fake import FakeModel\n"
        "class Greedy(FakeModel):\n"
        "    def process(self, batch, options):\n"
        f"        taken = torch.empty(int({room * 0.6} * len(batch)), dtype=torch.uint8, device='cuda')\n"
        "        answers = super().process(batch, options)\n"
        "        del taken\n"
        "        return answers\n"
    )
    model = spec({"*": "one two"}, adapter="greedy:Greedy")
    with Worker(model, WorkerLimits(threads=1), tmp_path / "s", plugins=[tmp_path / "plugins"]) as worker:
        answers, usage = manager(tmp_path).process(worker, clips(2, 0.1), Options())
    assert [a.text for a in answers] == ["one two"] * 2
    assert usage.gpu_peak_mb > 0
