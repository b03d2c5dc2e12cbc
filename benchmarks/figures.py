"""One measured number beside what was promised, and what it was measured with.

Knows nothing about how anything is measured.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from scipy.special import betaincinv

from grym.environment import hardware, versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


FULL: Final = 10_000
"""Replicates behind every rate that was promised."""
QUICK: Final = 1_000
"""Replicates of a quick run, which reports rates and judges none."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and its floor.

    Attributes:
        name: what was measured.
        value: what came out.
        unit: of both numbers.
        floor: the promise; ``None`` for a number that is only reported.
        sense: whether the value has to be ``at least`` or ``at most`` the floor.
        aim: what would be good, if that is more than the promise.
        detail: what else was seen, for the JSON file.
    """

    name: str
    value: float
    unit: str
    floor: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    aim: float | None = None
    detail: dict[str, object] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Whether the promise is kept; ``None`` if there is none."""
        if self.floor is None:
            return None
        return self.value >= self.floor if self.sense == "at least" else self.value <= self.floor

    def line(self) -> str:
        """The figure for a terminal."""
        promise = "" if self.floor is None else f"{self.sense} {self.floor:g} {self.unit}".rstrip()
        aim = "" if self.aim is None else f", aim {self.aim:g}"
        verdict = {None: "", True: "holds", False: "DOES NOT HOLD"}[self.holds]
        return f"{self.name:<58} {self.value:>10.2f} {self.unit:<9} {promise + aim:<26} {verdict}".rstrip()


def share(hits: Iterable[object]) -> dict[str, float]:
    """A rate, how many replicates it rests on, and its exact 95 % bounds (Clopper and Pearson).

    ``low`` and ``high`` are two-sided; ``at_least`` and ``at_most`` one-sided: a promise "at most" is shown to hold if
    ``at_most`` keeps it.
    """
    said = [bool(hit) for hit in hits]
    count, total = sum(said), len(said)

    def lower(tail: float) -> float:
        return float(betaincinv(count, total - count + 1, tail)) if count else 0.0

    def upper(tail: float) -> float:
        return float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0

    bounds = {"low": lower(0.025), "high": upper(0.025), "at_least": lower(0.05), "at_most": upper(0.05)}
    return {"rate": count / total, "replicates": total, **{name: round(value, 5) for name, value in bounds.items()}}


def rate(
    name: str, found: Mapping[str, Any], *, at_most: float | None = None, at_least: float | None = None, full: bool
) -> Iterator[Figure]:
    """A rate in per cent: the bound that has to keep each promise, or the rate itself if nothing was promised.

    Args:
        name: what was measured.
        found: of :func:`share`.
        at_most: promised upper limit, as a fraction.
        at_least: promised lower limit, as a fraction.
        full: whether there were enough replicates; else promises are not judged.
    """
    detail = dict(found)
    if at_least is not None:
        floor = 100 * at_least if full else None
        yield Figure(f"{name}: at least", 100 * found["at_least"], "%", floor, "at least", detail=detail)
    if at_most is not None:
        floor = 100 * at_most if full else None
        yield Figure(f"{name}: at most", 100 * found["at_most"], "%", floor, "at most", detail=detail)
    if at_least is None and at_most is None:
        yield Figure(name, 100 * found["rate"], "%", detail=detail)


def median(values: Sequence[float]) -> float:
    """The median, of at least one value."""
    return float(statistics.median(values))


def report(figures: Sequence[Figure]) -> str:
    """Everything as JSON: the figures, and the machine, versions and command that they belong to."""
    facts = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "hardware": json.loads(hardware()),
        "versions": json.loads(versions()),
        "figures": [{**asdict(figure), "holds": figure.holds} for figure in figures],
    }
    return json.dumps(facts, indent=1)
