"""What the platform costs around a worker: the throughput pass of the flow, and a loop that reads and asks.

The flow checks, scores, stores, remembers and shows each batch; the loop decodes
the same files and calls the same worker with the same batches. Both take turns.
Seconds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, median
from benchmarks.material import checkpoint
from benchmarks.project import noise_dataset, project, session
from flows.server import server
from grym.compare.session import Arm
from grym.models.interface import Options
from grym.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from grym.compare.session import Session
    from grym.config import Settings

PRECISIONS = ("fp32", "auto")
ORDER = ("flow", "loop", "loop", "flow")


def measure(folder: Path) -> Iterator[Figure]:
    """Overhead in percent of the loop, for the slowest and for the fastest setting."""
    made = checkpoint(folder / "base")
    models = "".join(
        f'[models.{name}]\nadapter = "wav2vec2"\n'
        f'options = {{ path = "{made}", precision = "{name}", device = "cpu" }}\n'
        for name in PRECISIONS
    )
    settings = project(folder / "project", models + noise_dataset(folder / "noise"))
    with server(settings.home):
        for name in PRECISIONS:
            yield _overhead(settings, name, folder / "scratch")


def _overhead(settings: Settings, name: str, scratch: Path) -> Figure:
    seconds: dict[str, list[float]] = {"flow": [], "loop": []}
    with Worker(settings.model(name), settings.worker, scratch / name) as worker:
        arm = Arm("a", worker, worker.card)
        for number, kind in enumerate(("flow", "loop", *ORDER)):  # the first two warm everything up
            made = session(settings, "noise", {"a": arm}, f"{name}-{number}")
            took = _by_flow(made) if kind == "flow" else _by_loop(made)
            if number > 1:
                seconds[kind].append(took)
    share = 100 * (median(seconds["flow"]) / median(seconds["loop"]) - 1)
    title = f"overhead: flow to loop, base in {name} ({arm.card.rung})"
    return Figure(title, share, "%", 10, "at most", aim=5, detail={"seconds": seconds})


def _by_flow(made: Session) -> float:
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    from flows import compare

    taken = []

    @flow(name="throughput", task_runner=ThreadPoolTaskRunner(max_workers=2), persist_result=False)  # type: ignore[arg-type]
    def throughput() -> None:
        compare._warm_up(made, "a")  # noqa: SLF001 - the flow's own step is what is measured
        started = time.perf_counter()
        compare._throughput(made, "a", compare._Counter())  # noqa: SLF001
        taken.append(time.perf_counter() - started)

    throughput()
    return taken[0]


def _by_loop(made: Session) -> float:
    worker = made.arms["a"].worker
    made.warm_up("a")
    started = time.perf_counter()
    worker.process([made._decode(made.plan.clips[0].clip_id)], Options())  # noqa: SLF001 - the flow's warm-up call
    for batch in made.plan.batches:
        worker.process([made._decode(clip_id) for clip_id in batch.clip_ids], Options(features=True))  # noqa: SLF001
    return time.perf_counter() - started
