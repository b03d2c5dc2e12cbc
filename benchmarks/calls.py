"""What a call to a worker costs beside the model's own time, from a tenth of a second of audio to an hour."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.figures import Figure, median
from benchmarks.material import RATE
from grym.config import ModelSpec, WorkerLimits
from grym.models.interface import AudioClip, Options
from grym.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIXED_SECONDS = 2e-3
BYTES_PER_SECOND = 0.5e9
SIZES = ((1, 0.1), (1, 5.0), (12, 5.0), (64, 5.0), (1, 600.0), (1, 3600.0))  # clips, seconds of each
REPEATS = 15


def measure(folder: Path) -> Iterator[Figure]:
    """Milliseconds of each size, against 2 ms and 0.5 GB/s."""
    spec = ModelSpec(name="fake", adapter="fake", options={"script": '{"*": "one two"}'})
    with Worker(spec, WorkerLimits(), folder) as worker:
        for count, seconds in SIZES:
            noise = np.random.default_rng(0).standard_normal(int(seconds * RATE)).astype(np.float32)
            batch = [AudioClip(str(number), noise, RATE) for number in range(count)]
            spent = [_beside_the_model(worker, batch) for _ in range(REPEATS)]
            size = sum(clip.samples.nbytes for clip in batch)
            allowed = 1e3 * (FIXED_SECONDS + size / BYTES_PER_SECOND)
            yield Figure(f"call: {size / 1e6:.1f} MB in {count} clips", 1e3 * median(spent), "ms", allowed, "at most")


def _beside_the_model(worker: Worker, batch: list[AudioClip]) -> float:
    started = time.perf_counter()
    _, usage = worker.process(batch, Options())
    return time.perf_counter() - started - usage.compute_seconds
