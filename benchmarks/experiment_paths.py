"""Measures the paths that live traffic takes through an experiment: assignment, collection, statistics.

Ids and events are generated from a seed. Times are the best of several, of the wall and of the processes' own CPU:
on a busy machine the wall says more about the others.

    python -m benchmarks.experiment_paths            # about two minutes; EVENTS=1000000 for a tenth of the events
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import numpy as np

from benchmarks.figures import Figure
from grym.experiment.assignment import Assigner
from grym.experiment.collector import Collector
from grym.experiment.config import Arm, Experiment, Hash, Holdout, Metric, Namespace
from grym.experiment.control import State
from grym.experiment.events import exposure, measurements
from grym.experiment.evidence import gather
from grym.experiment.registry import register
from grym.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

IDS: Final = 300_000
PROMISED: Final = 300_000  # assignments a second of one core, in batches; one at a time has no promise
BATCH: Final = 100  # events in one call of the collector, as a busy service would hand them over
RECORDED: Final = 60_000
EVENTS: Final = 10_000_000
UNITS_PER_EVENT: Final = 10  # ten measurements to a unit
THREADS: Final = 2
HASHES: Final[tuple[Hash, ...]] = ("sha256", "growthbook-v1", "growthbook-v2")
EXPERIMENT: Final = Experiment(
    "bench",
    1,
    "user",
    (Arm("a", 0.5, "one"), Arm("b", 0.5, "two")),
    (Metric("wer", "ratio", "lower", "errors", weight="words"), Metric("latency", "mean", "lower", "seconds")),
)


def run(events: int = EVENTS) -> dict[str, Any]:
    """Everything, as JSON can say it."""
    return {
        "cores": os.cpu_count(),
        "assignment": assignment(),
        "collector": collector(),
        "statistics": statistics(events),
    }


def measure(folder: Path, *, quick: bool = False) -> Iterator[Figure]:  # noqa: ARG001 - makes its own
    """What was promised of live traffic's path."""
    for name, found in assignment().items():
        batch, scalar = found["batch"], found["scalar"]
        yield Figure(f"assignment, batch, {name}", batch["per_second_wall"], "units/s", PROMISED, detail=batch)
        yield Figure(f"assignment, one by one, {name}", scalar["per_second_wall"], "units/s", detail=scalar)
    found = collector()
    yield Figure("collector", found["per_second_wall"], "events/s", 20_000, detail=found)
    sums = statistics(EVENTS // 10 if quick else EVENTS)
    promise = None if quick else 4.0
    yield Figure(f"statistics of {sums['events']:,} events", sums["wall_seconds"], "s", promise, "at most", detail=sums)


def assignment() -> dict[str, Any]:
    """Units per second of one core: in batches of 300 000 and one at a time, by hash, and with every rule in force."""
    units = [f"user-{number}" for number in range(IDS)]
    found: dict[str, Any] = {}
    for kind in HASHES:
        found[kind] = _speed(replace(EXPERIMENT, hash=kind), units)
    rules = replace(EXPERIMENT, namespace=Namespace("n", (0, 0.9)), holdout=Holdout("h", 0.05), overrides={"x": "a"})
    found["sha256, namespace, holdout, override"] = _speed(rules, units)
    return found


def collector() -> dict[str, Any]:
    """Events per second of one process, validated, journaled and landed, in calls of 100."""
    assigner = Assigner(EXPERIMENT, control=State)
    events: list[Any] = []
    for number in range(RECORDED // 3):
        used = exposure(assigner.assign(f"user-{number}"), 1_760_000_000_000 + number, request_id=str(number))
        outcome = {"errors": number % 3, "words": 10.0, "seconds": 0.1}
        events += [used, *measurements(EXPERIMENT, used, outcome, used.at_ms, request_id=str(number))]

    def once() -> None:
        folder = Path(tempfile.mkdtemp())
        try:
            store = Store(folder)
            register(store, EXPERIMENT)
            with Collector(store) as collecting:
                for start in range(0, len(events), BATCH):
                    collecting.record(events[start : start + BATCH])
        finally:
            shutil.rmtree(folder)

    return {"events": len(events), **_rate(once, len(events))}


def statistics(events: int = EVENTS) -> dict[str, Any]:
    """Seconds from Parquet parts to sums per metric and arm, on two threads; repeated rows are looked for."""
    folder = Path(tempfile.mkdtemp())
    try:
        store = Store(folder)
        register(store, EXPERIMENT)
        _generate(store, events)
        seconds = _best(lambda: gather(store, EXPERIMENT, threads=THREADS), 3)
        evidence = gather(store, EXPERIMENT, threads=THREADS)
        return {
            "events": events,
            "units": sum(arm.units for arm in evidence.arms),
            "threads": THREADS,
            "wall_seconds": round(seconds[0], 3),
            "cpu_seconds": round(seconds[1], 3),
        }
    finally:
        shutil.rmtree(folder)


def _generate(store: Store, events: int) -> None:
    """Parts as the collector writes them, half of the measurements for each metric, in the order of arrival."""
    units = events // UNITS_PER_EVENT
    for table in ("exposures", "measurements"):
        (store.landing / table / "dt=2026-11-20" / "run=bench.v1").mkdir(parents=True)
    with duckdb.connect(config={"threads": THREADS}) as connection:
        arm = f"CASE WHEN hash(i) % {units} < {units // 2} THEN 'a' ELSE 'b' END"
        measured = f"""
            SELECT 'bench.v1' AS run_id, 'bench' AS experiment, 1::BIGINT AS version,
                'user-' || (hash(i) % {units}) AS unit,
                {arm} AS arm, CASE WHEN i % 2 = 0 THEN 'wer' ELSE 'latency' END AS metric,
                (hash(i + 7) % 1000) / 100.0::DOUBLE AS value, 10.0::DOUBLE AS weight, NULL::DOUBLE AS covariate,
                1760000000000 + i AS at_ms, md5(i::VARCHAR) AS event_id, 'r' || (i // 2) AS request_id"""
        exposed = f"""
            SELECT 'bench.v1' AS run_id, 'bench' AS experiment, 1::BIGINT AS version, 'd' AS digest,
                'user-' || i AS unit,
                CASE WHEN i < {units // 2} THEN 'a' ELSE 'b' END AS arm, 0.5::DOUBLE AS bucket, 'assigned' AS reason,
                1760000000000 + i AS at_ms, md5('e' || i) AS event_id"""
        for table, query, count in (("measurements", measured, events), ("exposures", exposed, units)):
            size = max(1, count // 20)
            for part, start in enumerate(range(0, count, size)):
                path = store.landing / table / "dt=2026-11-20/run=bench.v1" / f"part-{part:04d}.parquet"
                rows = f"{query} FROM range({start}, {min(count, start + size)}) t(i)"
                connection.execute(f"COPY ({rows}) TO '{path}' (FORMAT parquet, COMPRESSION lz4_raw)")


def _speed(experiment: Experiment, units: Sequence[str]) -> dict[str, dict[str, int]]:
    """Of one batch, and of single calls for a tenth of it."""
    assigner = Assigner(experiment, control=State)
    some = units[: len(units) // 10]

    def one_by_one() -> None:
        for unit in some:
            assigner.assign(unit)

    return {"batch": _rate(lambda: assigner.assign_many(units), len(units)), "scalar": _rate(one_by_one, len(some))}


def _rate(work: Callable[[], object], count: int) -> dict[str, int]:
    wall, cpu = _best(work, 5)
    return {"per_second_wall": int(count / wall), "per_second_cpu": int(count / cpu)}


def _best(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Best seconds of the wall and of the process."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    best = np.min(times, axis=0)
    return float(best[0]), float(best[1])


if __name__ == "__main__":
    print(json.dumps(run(int(os.environ.get("EVENTS", EVENTS))), indent=1))
