"""What happened: an arm was used for a unit (exposure), a metric of a request was measured (measurement).

Times are milliseconds since 1970 (UTC), by the producer's clock. An event's id is derived from what it says, so that
a producer that repeats it after a crash repeats the id, and the event counts once. Knows nothing about storage.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from grym.experiment.assignment import Assignment, Enrolled
    from grym.experiment.config import Experiment


@dataclass(frozen=True, slots=True)
class Exposure:
    """One use of an arm for one unit: a row of ``exposures``.

    Attributes:
        experiment: name.
        version: version of the configuration.
        digest: digest of the configuration.
        unit: id of the unit.
        arm: name of the arm.
        bucket: where the unit lies in [0, 1), if it was hashed.
        reason: ``assigned``, ``sticky``, ``override``, ``forced`` or ``shadow``.
        at_ms: when.
        event_id: identity of the event.
    """

    experiment: str
    version: int
    digest: str
    unit: str
    arm: str
    bucket: float | None
    reason: Enrolled
    at_ms: int
    event_id: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of one metric: a row of ``measurements``.

    Attributes:
        experiment: name.
        version: version of the configuration.
        unit: id of the unit.
        arm: name of the arm.
        metric: name of the metric.
        value: what was measured, in the metric's unit.
        weight: denominator of a ratio; none counts as 1.
        covariate: what was known before the exposure.
        at_ms: when.
        event_id: identity of the event.
        request_id: the request that was measured.
    """

    experiment: str
    version: int
    unit: str
    arm: str
    metric: str
    value: float
    weight: float | None
    covariate: float | None
    at_ms: int
    event_id: str
    request_id: str


class Clock:
    """Milliseconds since 1970 that never go back within this process, whatever the system's clock does.

    Args:
        nanoseconds: the system's clock.
    """

    def __init__(self, nanoseconds: Callable[[], int] = time.time_ns) -> None:
        self._nanoseconds = nanoseconds
        self._last = 0

    def __call__(self) -> int:
        """The time, or the last one if the clock was set back."""
        self._last = max(self._last, self._nanoseconds() // 1_000_000)
        return self._last


def exposure(
    assignment: Assignment, at_ms: int, *, request_id: str = "", shadow: bool = False, event_id: str = ""
) -> Exposure:
    """The exposure of a unit that got an arm; to be recorded when the arm is used, not when it is assigned.

    Args:
        assignment: of an enrolled unit.
        at_ms: when.
        request_id: the request that used the arm; the same request again is the same event.
        shadow: whether the arm ran beside the one that answered.
        event_id: identity, if the producer has a better one.

    Raises:
        ConfigError: the unit is not enrolled.
    """
    a = assignment
    if a.arm is None:
        msg = f"Unit {a.unit!r} is not enrolled in experiment {a.experiment!r} ({a.reason})."
        raise ConfigError(msg, code="not-enrolled", hint="Record exposures of enrolled units only.")
    reason: Enrolled = "shadow" if shadow else a.reason  # type: ignore[assignment]  # an arm means enrolled
    identity = event_id or identify(
        "exposure", a.experiment, a.version, a.unit, a.arm, reason, request_id, "" if request_id else at_ms
    )
    return Exposure(a.experiment, a.version, a.digest, a.unit, a.arm, a.bucket, reason, at_ms, identity)


def measurements(
    experiment: Experiment, used: Exposure, outcome: Mapping[str, float | None], at_ms: int, *, request_id: str
) -> tuple[Measurement, ...]:
    """What an outcome says about each metric.

    Args:
        experiment: the configuration, which names the columns.
        used: exposure of the arm that gave the outcome.
        outcome: column to number; a metric whose value is missing or none is not measured.
        at_ms: when.
        request_id: the request; the same request again gives the same events.
    """
    found = []
    for metric in experiment.metrics:
        value = outcome.get(metric.value)
        if value is None:
            continue
        identity = identify("measurement", used.experiment, used.version, used.unit, used.arm, metric.name, request_id)
        weight = outcome.get(metric.weight) if metric.weight else None
        covariate = outcome.get(metric.covariate) if metric.covariate else None
        found.append(
            Measurement(
                used.experiment,
                used.version,
                used.unit,
                used.arm,
                metric.name,
                value,
                weight,
                covariate,
                at_ms,
                identity,
                request_id,
            )
        )
    return tuple(found)


def identify(*parts: str | int) -> str:
    """The id of an event: 128 bits of sha256 over what it says, as 32 hexadecimal digits.

    Example:
        >>> identify("exposure", "demo", 1) == identify("exposure", "demo", 1)
        True
    """
    text = "\0".join(map(str, parts)).encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()[:32]
