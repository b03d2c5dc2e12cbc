"""Measures live decisions on simulated experiments: false findings, power, coverage, and the speed of both paths.

Splitter and analysis are the real ones; one replicate is also sent through collector, landing zone and DuckDB. Rates
stand with exact 95 % bounds (Clopper and Pearson). Outcomes are those of the generator ``synthetic-lognormal``.

    python -m benchmarks.simulator      # ten minutes on a quiet core; REPLICATES=1000 for a tenth
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.figures import FULL, QUICK, Figure, rate, share
from grym.experiment.audit import Audit, audit
from grym.experiment.config import Arm, Experiment, Metric
from grym.experiment.simulator import GENERATOR, Simulator, Traffic, synthetic
from grym.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED: Final = 20261120
TRAFFIC: Final = Traffic(units=1_000, requests=2.0)
LOOKS: Final = 20
ARMS: Final = (Arm("a", 0.5, "one"), Arm("b", 0.5, "two"))
EXPERIMENT: Final = Experiment(
    "bench", 1, "speaker", ARMS, (Metric("wer", "ratio", "lower", "errors", weight="words", margin=0.0),)
)


def run(replicates: int = FULL) -> dict[str, Any]:
    """Everything, as JSON can say it."""
    same = audit(EXPERIMENT, synthetic(EXPERIMENT), replicates=replicates, traffic=TRAFFIC, looks=LOOKS, seed=SEED)
    return {
        "generator": f"{GENERATOR}, seed {SEED}; outcomes synthetic-lognormal, 40 speakers",
        "units": TRAFFIC.units,
        "looks": LOOKS,
        "identical_arms": _rates(same),
        "different_arms": _different(replicates),
        "speed": _speed(),
    }


def measure(folder: Path, *, quick: bool = False) -> Iterator[Figure]:  # noqa: ARG001 - makes its own
    """False findings of identical arms over the whole path, and what becomes of a treatment that is better."""
    found, full = run(QUICK if quick else FULL), not quick
    for name, rates in found["identical_arms"].items():
        limit = 0.01 if name == "srm-alarms" else 0.05
        yield from rate(f"identical arms, {name.replace('-', ' ')}", rates, at_most=limit, full=full)
    different = found["different_arms"]
    yield from rate("a quarter fewer errors, shipped", different["shipped"], full=full)
    missed = different["missed_at_any_look"]
    yield from rate("a quarter fewer errors, missed by an interval of any look", missed, at_most=0.05, full=full)
    for name, seconds in found["speed"].items():
        yield Figure(f"one simulated experiment, {name.replace('_', ' ')}", seconds, "s")


def _rates(found: Audit) -> dict[str, Any]:
    return {one.rate: share(number < one.hits for number in range(one.replicates)) for one in found.rates}


def _different(replicates: int) -> dict[str, Any]:
    """The treatment makes a quarter fewer errors: how often it ships, how often every look's interval holds that."""
    simulator = Simulator(EXPERIMENT, synthetic(EXPERIMENT, factor=0.75), TRAFFIC, looks=LOOKS, seed=SEED)
    truth, shipped, missed = simulator.truth("wer", "b"), [], []
    for number in range(replicates):
        looks = simulator.fast(number)
        shipped.append(any("SHIP" in look.verdicts for look in looks))
        ends = [(one.low, one.high) for look in looks for one in look.effects]
        missed.append(any(low is not None and high is not None and not low <= truth <= high for low, high in ends))
    return {"truth": round(truth, 6), "shipped": share(shipped), "missed_at_any_look": share(missed)}


def _speed() -> dict[str, float]:
    """Seconds of processor time for one replicate on either path."""
    simulator = Simulator(EXPERIMENT, synthetic(EXPERIMENT), TRAFFIC, looks=LOOKS, seed=SEED)
    start = time.process_time()
    for number in range(20):
        simulator.fast(number)
    fast = (time.process_time() - start) / 20
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        simulator.through_store(Store(Path(folder)), 0)
        return {"fast_cpu_seconds": round(fast, 5), "through_store_cpu_seconds": round(time.process_time() - start, 3)}


if __name__ == "__main__":
    print(json.dumps(run(int(os.environ.get("REPLICATES", FULL))), indent=1))
