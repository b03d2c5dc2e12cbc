"""What ``make bench`` says of rates: bounds, promises, and the ones that need no many replicates."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import RATES
from benchmarks.figures import rate, share
from benchmarks.live_rates import FLIPS, flips
from grym.experiment.audit import Measured


def test_bounds_are_exact_and_a_quick_run_judges_nothing() -> None:
    """Clopper and Pearson as in audits; a promise holds only if the bound keeps it, with enough replicates."""
    found, other = share([True] * 4 + [False] * 396), Measured("x", 4, 400, 0.05)
    assert found["rate"] == other.measured
    assert [found[name] for name in ("low", "high", "at_most")] == pytest.approx(
        [other.low, other.high, other.at_most], abs=1e-5
    )
    assert share([False] * 300)["at_most"] == pytest.approx(0.01, abs=1e-4)
    (kept,) = rate("peeking", found, at_most=0.05, full=True)
    (lost,) = rate("peeking", found, at_most=0.02, full=True)
    low, high = rate("coverage", found, at_least=0.0, at_most=0.05, full=False)
    assert (kept.holds, lost.holds, low.holds, high.holds) == (True, False, None, None)
    assert kept.value == pytest.approx(100 * found["at_most"])
    assert all(callable(module.measure) for module in RATES.values())


def test_no_verdict_depends_on_the_display() -> None:
    """Of 20 000 data sets near the border none is significant in one unit and not in another."""
    found = dict(flips())
    assert found["data_sets"] == FLIPS == 20_000
    assert found["flips"] == 0
    assert found["flips_of_the_delta_method"] > 1_000
