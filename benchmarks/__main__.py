"""``python -m benchmarks [NAME…] [--quick] [--json FILE]``: measure, print each number, say which promises hold.

Without names everything is measured, which takes about forty minutes on two quiet
cores. A busy machine makes every figure of time worse; ratios suffer least, because
what is compared takes turns within one run. Rates depend on nothing but their seed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import (
    base,
    calls,
    early_stop,
    experiment_paths,
    gama,
    gates,
    live_rates,
    overhead,
    ppi,
    processes,
    resilience,
    runs,
    simulator,
    statistics,
    waiting,
    workers,
)
from benchmarks.figures import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from benchmarks.figures import Figure

RATES: Final = {
    "statistics": statistics,
    "live_rates": live_rates,
    "early_stop": early_stop,
    "ppi": ppi,
    "simulator": simulator,
}
"""Rates of named generators; with ``--quick`` from a tenth of the replicates, and no promise is judged."""
BENCHMARKS: Mapping[str, Callable[..., Iterable[Figure]]] = {
    "base": base.measure,
    "waiting": waiting.measure,
    "overhead": overhead.measure,
    "calls": calls.measure,
    "gama": gama.measure,
    "gates": gates.measure,
    "processes": processes.measure,
    "resilience": resilience.measure,
    "runs": runs.measure,
    "workers": workers.measure,
    "experiment_paths": experiment_paths.measure,
    **{name: module.measure for name, module in RATES.items()},
}


def main() -> int:
    """Run what was asked for; 1 if a promise does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; none means all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--quick", action="store_true", help="a tenth of the replicates, no rate is judged")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.names) - set(BENCHMARKS)):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    figures: list[Figure] = []
    for name in asked.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix=f"grym-bench-{name}-") as folder:
            shorter = {"quick": True} if asked.quick and name in {*RATES, "experiment_paths"} else {}
            for figure in BENCHMARKS[name](Path(folder), **shorter):
                print(figure.line(), flush=True)
                figures.append(figure)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(report(figures), encoding="utf-8")
    return 1 if any(figure.holds is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
