"""What a process costs: how soon a flow is ready, and how much memory a worker takes with the bundled checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, median
from benchmarks.material import ROOT
from benchmarks.project import DIGITS, project
from benchmarks.watch import Watch
from grym.audio import decode
from grym.batching import plan_batches
from grym.compare.plan import check_entries
from grym.config import ModelSpec
from grym.corpus.loaders import load_dataset
from grym.models.interface import AudioClip, Options
from grym.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READY = "import sys; import flows.compare; print('torch' in sys.modules)"
REPEATS = 5
LONG_SECONDS = 30.0


def measure(folder: Path) -> Iterator[Figure]:
    """Seconds until a flow is ready, whether it imported torch, and peaks of workers."""
    seconds, torch = zip(*(_start() for _ in range(REPEATS)), strict=True)
    yield Figure("process: a flow is ready", median(seconds), "s", 2, "at most")
    yield Figure("process: flows that imported torch", sum(torch), "", 0, "at most")
    for precision in ("fp32", "int8", "auto"):
        yield _worker(folder, precision)


def _start() -> tuple[float, bool]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", READY], env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - started, done.stdout.strip() == "True"


def _worker(folder: Path, precision: str) -> Figure:
    """All clips of the test split in the batches of a run, and a window of 30 seconds."""
    settings = project(folder / "project", DIGITS)
    spec = ModelSpec(
        name=precision, adapter="wav2vec2", options={"path": "bundled:wav2vec2-mini", "precision": precision}
    )
    usable, _ = check_entries(load_dataset("digits", settings).entries, settings.audio, lambda *_: None)
    by_id = {clip.clip_id: clip for clip in usable}
    batches = plan_batches(usable, max_seconds=settings.compare.batch_seconds, max_clips=settings.compare.batch_clips)
    with Worker(spec, settings.worker, folder / precision) as worker, Watch(worker.pid or 0) as watch:
        peak, every = 0.0, []
        for batch in batches:
            clips = [decode(by_id[name].entry.path, settings.audio)[0] for name in batch.clip_ids]
            every += clips
            peak = worker.process(clips, Options(features=True))[1].peak_rss_mb
        long = _joined(every, LONG_SECONDS)
        peak = worker.process([long, long], Options(features=True))[1].peak_rss_mb
        rung = worker.card.rung
    return Figure(
        f"process: peak memory of a worker, mini in {precision}", peak, "MB", 1000, "at most",
        detail={"pss_mb": watch.peaks.pss_mb, "rung": rung},
    )  # fmt: skip


def _joined(clips: list[AudioClip], seconds: float) -> AudioClip:
    import numpy as np

    wave = np.concatenate([clip.samples for clip in clips])[: int(seconds * clips[0].rate)]
    return AudioClip("long", wave, clips[0].rate)
