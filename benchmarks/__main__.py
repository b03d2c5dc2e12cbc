"""``python -m benchmarks [NAME…] [--json FILE]``: measure, print a line for each number, say which promises hold.

Without names everything is measured, which takes about ten minutes on two quiet
cores. A busy machine makes every figure worse; ratios suffer least, because
what is compared takes turns within one run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import base, calls, gama, gates, overhead, processes, resilience, runs, waiting
from benchmarks.figures import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from benchmarks.figures import Figure

BENCHMARKS: Mapping[str, Callable[[Path], Iterable[Figure]]] = {
    "base": base.measure,
    "waiting": waiting.measure,
    "overhead": overhead.measure,
    "calls": calls.measure,
    "gama": gama.measure,
    "gates": gates.measure,
    "processes": processes.measure,
    "resilience": resilience.measure,
    "runs": runs.measure,
}


def main() -> int:
    """Run what was asked for; 1 if a promise does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; none means all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.names) - set(BENCHMARKS)):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    figures: list[Figure] = []
    for name in asked.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix=f"grym-bench-{name}-") as folder:
            for figure in BENCHMARKS[name](Path(folder)):
                print(figure.line(), flush=True)
                figures.append(figure)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(report(figures), encoding="utf-8")
    return 1 if any(figure.holds is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
