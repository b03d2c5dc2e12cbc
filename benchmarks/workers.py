"""Workers under stress: a hang that is killed, a restart, memory over ten thousand requests, decoding in a child.

Real processes; the bundled checkpoint where a model counts. Milliseconds, seconds and
MB (10^6 bytes).
"""

from __future__ import annotations

import time
from statistics import quantiles
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.figures import Figure, median
from benchmarks.project import DIGITS, project
from grym.config import ModelSpec, WorkerLimits
from grym.corpus.loaders import load_dataset
from grym.errors import DeadlineError
from grym.models.interface import AudioClip, Options
from grym.worker import Worker
from grym.worker.decoder import Decoder, decode_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANGS = 20
DEADLINE = 0.3
RESTARTS = 10
REQUESTS = 10_000
WARM_UP = 1_000
ROUNDS = 3
CLIP = AudioClip("clip", np.zeros(16_000, np.float32), 16_000)
FAKE = ModelSpec(name="fake", adapter="fake", options={"script": '{"*": "one two", "h": {"do": "hang"}}'})
MINI = ModelSpec(name="mini", adapter="wav2vec2", options={"path": "bundled:wav2vec2-mini", "precision": "fp32"})


def measure(folder: Path) -> Iterator[Figure]:
    """The figures, with what was promised."""
    yield from _hangs(folder / "hangs")
    yield from _restarts(folder / "restarts")
    yield from _flat(folder / "flat")
    yield from _decoding(folder / "decoding")


def _hangs(folder: Path) -> Iterator[Figure]:
    """How much later than its deadline a call that hangs comes back, its process killed and reaped."""
    hanging = AudioClip("h", CLIP.samples, CLIP.rate)
    late = []
    with Worker(FAKE, WorkerLimits(backoff_seconds=0), folder) as worker:
        for _ in range(HANGS):
            worker.start()
            started = time.perf_counter()
            try:
                worker.process([hanging], Options(), deadline=DEADLINE)
            except DeadlineError:
                late.append(1e3 * (time.perf_counter() - started - DEADLINE))
    assert len(late) == HANGS  # noqa: S101 - or nothing was measured
    yield Figure("workers: a hang is killed after its deadline, worst", max(late), "ms", 100, "at most")


def _restarts(folder: Path) -> Iterator[Figure]:
    """From the death of a worker to the next answer of the bundled checkpoint."""
    took = []
    with Worker(MINI, WorkerLimits(backoff_seconds=0), folder) as worker:
        worker.process([CLIP], Options())
        for _ in range(RESTARTS):
            started = time.perf_counter()
            worker.restart()
            worker.process([CLIP], Options())
            took.append(time.perf_counter() - started)
    yield Figure("workers: restart with wav2vec2-mini, worst", max(took), "s", 5, "at most", detail={"seconds": took})


def _flat(folder: Path) -> Iterator[Figure]:
    """Resident memory after ten thousand requests beside that after the first thousand."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=64_000).astype(np.float32)
    clips = [AudioClip(str(n), noise[: 8000 + 6000 * n], 16_000) for n in range(8)]
    with Worker(MINI, WorkerLimits(threads=1), folder) as worker:
        spent = []
        seen = {}
        for number in range(1, REQUESTS + 1):
            usage = worker.process([clips[number % len(clips)]], Options(features=True))[1]
            spent.append(1e3 * (usage.wall_seconds - usage.compute_seconds))
            if number in {WARM_UP, REQUESTS}:
                seen[number] = worker.resident_mb
    growth = 100 * (seen[REQUESTS] / seen[WARM_UP] - 1)
    yield Figure("workers: memory over 10 000 requests, growth", growth, "%", 2, "at most", detail={"mb": seen})
    yield Figure("workers: a call beside the model, p95", quantiles(spent, n=20)[-1], "ms")


def _decoding(folder: Path) -> Iterator[Figure]:
    """The test split decoded by a limited child, and by this process; they take turns."""
    settings = project(folder, DIGITS)
    entries = load_dataset("digits", settings).entries
    seconds: dict[str, list[float]] = {"child": [], "here": []}
    with Decoder(settings.worker, folder / "decode", children=1) as decoder:
        list(decoder(entries[:8], settings.audio))
        for number in range(2 * ROUNDS):
            for name in ("child", "here") if number % 2 else ("here", "child"):
                started = time.perf_counter()
                for _ in (decoder if name == "child" else decode_here)(entries, settings.audio):
                    pass
                seconds[name].append(time.perf_counter() - started)
    clips = len(entries)
    for name, values in seconds.items():
        yield Figure(f"workers: decoding a clip, {name}", 1e3 * median(values) / clips, "ms", detail={"clips": clips})
    more = 100 * (median(seconds["child"]) / median(seconds["here"]) - 1)
    yield Figure("workers: decoding in a child beside decoding here", more, "% more")
