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
from typing import TYPE_CHECKING, Literal

from grym.environment import hardware, versions

if TYPE_CHECKING:
    from collections.abc import Sequence


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
