"""wav2vec2-base on this CPU: the pipeline of transformers, a bare loop, and our adapter in every precision.

All processes are up the whole time and wait while another one works; they take
turns A-B-…-B-A, and the median of each one's passes counts. RTFx is seconds of
audio per second.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, median
from benchmarks.material import ROOT, checkpoint, clips
from grym.config import ModelSpec, WorkerLimits
from grym.models.interface import Options
from grym.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RIVALS = ("pipeline-1", "pipeline-8", "loop")
OURS = ("fp32", "bf16", "int8", "int8-bf16", "auto")
ROUNDS = 2  # there and back
Pass = tuple[float, list[str]]


def measure(folder: Path) -> Iterator[Figure]:
    """Every contestant's RTFx, and the ratios that were promised."""
    made = checkpoint(folder / "base")
    audio = sum(clip.seconds for clip in clips())
    with ExitStack() as stack:
        passes: dict[str, Callable[[], Pass]] = {kind: _rival(stack, kind, made) for kind in RIVALS}
        rungs = {}
        for precision in OURS:
            worker = stack.enter_context(Worker(_spec(made, precision), WorkerLimits(), folder / precision))
            rungs[precision] = worker.card.rung
            passes[precision] = _ours(worker)
        seconds: dict[str, list[float]] = {name: [] for name in passes}
        texts: dict[str, list[str]] = {}
        for number in range(ROUNDS):
            order = list(passes) if number % 2 == 0 else list(passes)[::-1]
            for name in order:
                took, texts[name] = passes[name]()
                seconds[name].append(took)
    speed = {name: audio / median(values) for name, values in seconds.items()}
    for name, value in speed.items():
        yield Figure(f"base: {name}", value, "RTFx", detail={"seconds": seconds[name], "rung": rungs.get(name, "")})
    pipeline = max(speed["pipeline-1"], speed["pipeline-8"])
    best = max(OURS, key=speed.__getitem__)
    floor = 2.5 if any("bf16" in rung for rung in (rungs["auto"], best)) else 1.8
    yield Figure(f"base: our best ({best}) to the pipeline's best", speed[best] / pipeline, "times", floor, aim=3.5)
    yield Figure(f"base: auto ({rungs['auto']}) to our best", speed["auto"] / speed[best], "times", 0.9)
    yield Figure("base: our fp32 to the pipeline's best", speed["fp32"] / pipeline, "times", 1.05)
    same = sum(a == b for a, b in zip(texts["fp32"], texts["pipeline-1"], strict=True))
    yield Figure("base: transcripts of our fp32 that are the pipeline's", same, "clips", len(texts["fp32"]))


def _spec(folder: Path, precision: str) -> ModelSpec:
    return ModelSpec(
        name=precision, adapter="wav2vec2", options={"path": str(folder), "precision": precision, "device": "cpu"}
    )


def _rival(stack: ExitStack, kind: str, folder: Path) -> Callable[[], Pass]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.rival", kind, str(folder)]
    process = stack.enter_context(
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
    )
    stack.callback(process.kill)
    assert process.stdin is not None  # noqa: S101 - told apart for the type checker
    assert process.stdout is not None  # noqa: S101
    sink, source = process.stdin, process.stdout
    while source.readline().strip() != "ready":
        if process.poll() is not None:
            msg = f"{kind} ended with exit code {process.returncode}"
            raise RuntimeError(msg)

    def once() -> Pass:
        sink.write("pass\n")
        sink.flush()
        said = json.loads(source.readline())
        return said["seconds"], said["texts"]

    return once


def _ours(worker: Worker) -> Callable[[], Pass]:
    batch = clips()
    worker.process(batch[:2], Options())

    def once() -> Pass:
        started = time.perf_counter()
        answers, _ = worker.process(batch, Options(), deadline=600)
        return time.perf_counter() - started, [answer.text or "" for answer in answers]

    return once
