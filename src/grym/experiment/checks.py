"""Which events may enter the statistics; the others are quarantined with their reason.

What is decided here: an event of an unknown experiment, version, arm or metric, of another configuration than the
registered one, with a value that is not a finite number, with a negative weight, of a proportion that is neither 0
nor 1, without an id, or with a time that no clock shows, is refused. A randomised exposure in an arm of share 0
is kept: it happened, it is impossible, and the analysis must see it. The order of times is not checked: no
statistic depends on it. Knows nothing about storage.
"""

from __future__ import annotations

import math
from numbers import Real
from reprlib import repr as short
from typing import TYPE_CHECKING, Final

from grym.experiment.assignment import ENROLLED
from grym.experiment.events import Exposure, Measurement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grym.experiment.config import Experiment

Event = Exposure | Measurement
Problem = tuple[str, str, str]  # code, sentence, hint
FIRST_MS: Final = 946_684_800_000  # 2000-01-01: an earlier time is a clock that was never set
AHEAD_MS: Final = 86_400_000  # how far ahead of ours a producer's clock may be: a day
LONGEST: Final = 512  # characters of an id

_SEND: Final = "Mend the producer, then send the event again."


def problem(event: Event, known: Mapping[tuple[str, int], Experiment], now_ms: int) -> Problem | None:
    """Why an event cannot be used, or none.

    Args:
        event: the event.
        known: the registered versions, by name and version.
        now_ms: our clock.
    """
    if not isinstance(event, (Exposure, Measurement)):
        return "not-an-event", f"{short(event)} is neither an exposure nor a measurement.", _SEND
    experiment = find(event, known)
    if experiment is None:
        return (
            "unknown-experiment",
            f"There is no experiment {short(event.experiment)} of version {short(event.version)}.",
            "Register the version before anybody is assigned, then send the event again.",
        )
    if all(arm.name != event.arm for arm in experiment.arms):
        return "unknown-arm", f"Experiment {experiment.name!r} has no arm {short(event.arm)}.", _SEND
    for name, text in (("unit", event.unit), ("event_id", event.event_id)):
        if not is_id(text):
            return "bad-id", f"The {name} of an event should be text of 1 to {LONGEST} characters.", _SEND
    if not isinstance(event.at_ms, int) or not FIRST_MS <= event.at_ms <= now_ms + AHEAD_MS:
        return "bad-time", f"An event's time {short(event.at_ms)} ms is before 2000 or more than a day ahead.", _SEND
    return _of_exposure(event, experiment) if isinstance(event, Exposure) else _of_measurement(event, experiment)


def find(event: Event, known: Mapping[tuple[str, int], Experiment]) -> Experiment | None:
    """The registered version that an event speaks of, if there is one."""
    place = (event.experiment, event.version)
    return known.get(place) if isinstance(event.experiment, str) and isinstance(event.version, int) else None


def impossible(event: Event, experiment: Experiment) -> bool:
    """Whether an event says that a unit was randomised into an arm that nobody is randomised into."""
    randomised = isinstance(event, Exposure) and event.reason in {"assigned", "sticky"}
    return randomised and experiment.arm(event.arm).share == 0


def _of_exposure(event: Exposure, experiment: Experiment) -> Problem | None:
    if event.digest != experiment.digest:
        return (
            "changed-configuration",
            f"An exposure of {experiment.name!r} version {experiment.version} was made by another configuration.",
            "Give every process the registered configuration; a changed one needs a new version.",
        )
    if event.reason not in ENROLLED:
        return "bad-reason", f"An exposure's reason {short(event.reason)} is none of {', '.join(ENROLLED)}.", _SEND
    if event.bucket is not None and not (_is_number(event.bucket) and 0 <= event.bucket < 1):
        return "bad-bucket", f"An exposure's bucket {short(event.bucket)} does not lie in [0, 1).", _SEND
    return None


def _of_measurement(event: Measurement, experiment: Experiment) -> Problem | None:
    kind = next((metric.kind for metric in experiment.metrics if metric.name == event.metric), None)
    if kind is None:
        return "unknown-metric", f"Experiment {experiment.name!r} has no metric {short(event.metric)}.", _SEND
    for name, value in (("value", event.value), ("weight", event.weight), ("covariate", event.covariate)):
        if not _is_number(value) and (name == "value" or value is not None):
            text = f"The {name} of metric {event.metric!r} is {short(value)}, not a finite number."
            return "not-a-number", text, "Leave the measurement out where nothing was measured."
    if event.weight is not None and event.weight < 0:
        return "bad-weight", f"The weight of metric {event.metric!r} is negative: {event.weight:g}.", _SEND
    if kind == "proportion" and event.value not in {0, 1}:
        return "not-a-proportion", f"Metric {event.metric!r} is a proportion and was measured {event.value:g}.", _SEND
    if not isinstance(event.request_id, str) or not _is_unicode(event.request_id):
        return "bad-id", f"The request_id of an event should be text of up to {LONGEST} characters.", _SEND
    return None


def _is_number(value: object) -> bool:
    if type(value) is float:  # nearly always; the general test takes longer
        return math.isfinite(value)
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def is_id(text: object) -> bool:
    """Whether something can identify: text of 1 to :data:`LONGEST` characters that is valid Unicode."""
    return isinstance(text, str) and len(text) > 0 and _is_unicode(text)


def _is_unicode(text: str) -> bool:
    try:
        return len(text) <= LONGEST and (text.isascii() or bool(text.encode()))
    except UnicodeEncodeError:
        return False
