"""What the gate costs: milliseconds for each suite on one batch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.figures import Figure, median
from grym.models.interface import Answer, Segment
from grym.quality import features_frame, transcription_frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

CLIPS = 64
HIDDEN = 768
REPEATS = 15


def measure(folder: Path) -> Iterator[Figure]:  # noqa: ARG001 - every benchmark gets a folder
    """Every suite that a batch meets; the first judgement, which imports the library, is told apart."""
    from expectations.gate import judge

    for suite, frame in frames().items():
        started = time.perf_counter()
        judge(suite, frame, "warm-up")
        first = time.perf_counter() - started
        taken = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            judge(suite, frame, "batch")
            taken.append(time.perf_counter() - started)
        detail: dict[str, object] = {"first_ms": 1e3 * first}
        yield Figure(f"gate: {suite}, {CLIPS} clips", 1e3 * median(taken), "ms", 100, "at most", detail=detail)


def frames() -> dict[str, pd.DataFrame]:
    """A good batch, as the gate sees it."""
    words = ("one", "two", "three")
    segments = tuple(Segment(number, number + 1.0, word, 0.9) for number, word in enumerate(words))
    ids = [f"clip-{number}" for number in range(CLIPS)]
    answers = [Answer(name, " ".join(words), 0.9, segments, 13, 0.1, "fp32/cpu", "model", "revision") for name in ids]
    vectors = np.random.default_rng(0).standard_normal((CLIPS, HIDDEN)).astype(np.float32)
    return {
        "transcription": transcription_frame(answers, [4.0] * CLIPS),
        "features": features_frame(ids, vectors, HIDDEN),
    }
