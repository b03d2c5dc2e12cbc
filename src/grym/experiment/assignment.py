"""Who gets which arm: deterministic, the same for one unit as for a million, in this process and the next.

    bucket = first 53 bits of sha256("arm" NUL salt NUL unit) / 2^53

and an arm takes the part of [0, 1) that starts where the arms before it end and is ``coverage * share`` long: raising
the coverage enrols more units and moves none. Ids are text, hashed as UTF-8 exactly as given: two spellings of one
letter are two units. GrowthBook's profiles replace the hash only (:mod:`grym.experiment.growthbook`).

The first of these that holds decides: the experiment is killed; the id is empty or not valid Unicode; an arm is forced;
an override names the unit; the holdout has it; it is sticky, or blocked; it lies outside the namespace; the ramp has
not reached it. Who is not enrolled is served by the control's model and leaves no exposure.

Knows nothing about files, models or clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from grym.experiment import growthbook
from grym.experiment.hashing import bucket, buckets, encoded, encoded_many

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from grym.experiment.config import Experiment
    from grym.experiment.control import State
    from grym.experiment.sticky import StickyBook

Enrolled = Literal["assigned", "override", "sticky", "forced", "shadow"]
Left = Literal["killed", "no-unit", "holdout", "blocked", "namespace", "ramp"]
ENROLLED: Final[tuple[Enrolled, ...]] = get_args(Enrolled)
REASONS: Final[tuple[Enrolled | Left, ...]] = (*ENROLLED, *get_args(Left))
_CODE: Final = {reason: code for code, reason in enumerate(REASONS)}


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a unit gets.

    Attributes:
        experiment: name.
        version: version of the configuration.
        digest: digest of the configuration.
        unit: id of the unit.
        arm: name of the arm, none if the unit is not enrolled.
        model: registered name of the model to use, enrolled or not.
        bucket: where the unit lies in [0, 1); none where nothing was hashed.
        reason: why, one of :data:`REASONS`.
    """

    experiment: str
    version: int
    digest: str
    unit: str
    arm: str | None
    model: str
    bucket: float | None
    reason: Enrolled | Left


@dataclass(frozen=True, slots=True, eq=False)
class Assignments:
    """What many units get.

    Attributes:
        experiment: the configuration in force.
        units: the ids, as given.
        arms: ``int8, shape = (units,)``, index into the experiment's arms, -1 if not enrolled.
        buckets: ``float64, shape = (units,)``, NaN where nothing was hashed.
        reasons: ``uint8, shape = (units,)``, index into :data:`REASONS`.
    """

    experiment: Experiment
    units: Sequence[str]
    arms: NDArray[np.int8]
    buckets: NDArray[np.float64]
    reasons: NDArray[np.uint8]

    def one(self, index: int) -> Assignment:
        """One unit's assignment, equal to what :meth:`Assigner.assign` says."""
        bucket, arm = float(self.buckets[index]), int(self.arms[index])
        found = None if np.isnan(bucket) else bucket
        return _assignment(self.experiment, self.units[index], arm, found, REASONS[self.reasons[index]])


class Assigner:
    """Assigns units to the arms of one experiment.

    Args:
        experiment: the configuration, registered before (:func:`grym.experiment.registry.register`).
        control: the state in force, asked at every call: a :class:`grym.experiment.control.Switch`, or a function.
        book: what earlier exposures say; used if ``experiment.sticky.enabled``.

    Example:
        >>> from grym.experiment.config import Arm, Experiment, Metric
        >>> from grym.experiment.control import State
        >>> arms = (Arm("a", 0.5, "one"), Arm("b", 0.5, "two"))
        >>> experiment = Experiment("demo", 1, "user", arms, (Metric("m", "mean", "lower", "x"),))
        >>> assigner = Assigner(experiment, control=State)
        >>> [assigner.assign(unit).arm for unit in ("ada", "bob", "eve", "joe")]
        ['b', 'b', 'a', 'a']
    """

    def __init__(self, experiment: Experiment, *, control: Callable[[], State], book: StickyBook | None = None) -> None:
        self.experiment = experiment
        self._control = control
        self._book = book if experiment.sticky.enabled else None
        self._names = [arm.name for arm in experiment.arms]
        self._sticky_key = growthbook.sticky_key(experiment.name, experiment.sticky.bucket_version)
        self._ranges: tuple[float, growthbook.Ranges] = (-1.0, ())

    def assign(self, unit: str, *, force: str | None = None) -> Assignment:
        """Assign one unit.

        Args:
            unit: its id.
            force: an arm that is to be used whatever the hash says; never part of the statistics.

        Raises:
            ConfigError: the id is not text, or there is no such arm.
        """
        state = self._control()
        if state.killed:
            return self._made(unit, -1, None, "killed")
        raw = encoded(unit)
        if not raw:
            return self._made(unit, -1, None, "no-unit")
        found = bucket(self.experiment.hash, "arm", self.experiment.salt, raw)
        if force is not None:
            return self._made(unit, self._names.index(self.experiment.arm(force).name), found, "forced")
        return self._made(unit, *self._decide(unit, raw, found, state.coverage))

    def assign_many(self, units: Sequence[str]) -> Assignments:
        """Assign many units, each as :meth:`assign` would.

        Raises:
            ConfigError: an id is not text.
        """
        state = self._control()
        count = len(units)
        arms = np.full(count, -1, np.int8)
        if state.killed or not count:
            reasons = np.full(count, _CODE["killed"], np.uint8)
            return Assignments(self.experiment, units, arms, np.full(count, np.nan), reasons)
        raw = encoded_many(units)
        found = buckets(self.experiment.hash, "arm", self.experiment.salt, raw)
        for index, (start, end) in enumerate(self._ranges_at(state.coverage)):
            arms[(found >= start) & (found < end)] = index
        reasons = np.where(arms >= 0, _CODE["assigned"], _CODE["ramp"]).astype(np.uint8)
        if (namespace := self.experiment.namespace) is not None:
            place = buckets(self.experiment.hash, "namespace", namespace.name, raw)
            outside = (place < namespace.range[0]) | (place >= namespace.range[1])
            arms[outside], reasons[outside] = -1, _CODE["namespace"]
        self._look_up(units, raw, arms, reasons)
        if not all(raw):
            empty = np.fromiter((not text for text in raw), bool, count)
            arms[empty], reasons[empty], found[empty] = -1, _CODE["no-unit"], np.nan
        return Assignments(self.experiment, units, arms, found, reasons)

    def _decide(self, unit: str, raw: bytes, found: float, coverage: float) -> tuple[int, float, Enrolled | Left]:
        """The arm's index, the bucket and the reason, for a valid unit of a live experiment."""
        if unit in self.experiment.overrides:
            return self._names.index(self.experiment.overrides[unit]), found, "override"
        if self._holds_out(raw):
            return -1, found, "holdout"
        arm, reason = self._sticky(unit)
        if reason is not None:
            return arm, found, reason
        if not self._inside(raw):
            return -1, found, "namespace"
        arm = growthbook.choose(found, self._ranges_at(coverage))
        if arm >= 0 and self._book is not None:
            self._book.remember(unit, self._sticky_key, self._names[arm])
        return arm, found, "assigned" if arm >= 0 else "ramp"

    def _look_up(
        self, units: Sequence[str], raw: Sequence[bytes], arms: NDArray[np.int8], reasons: NDArray[np.uint8]
    ) -> None:
        """What is known of single units, the stronger rule last: sticky, holdout, override."""
        held = np.zeros(len(units), bool)
        if (holdout := self.experiment.holdout) is not None:
            held = buckets(self.experiment.hash, "holdout", holdout.name, raw) < holdout.share
        overrides = self.experiment.overrides
        if self._book is not None:
            for index, unit in enumerate(units):
                if raw[index] and not held[index] and unit not in overrides:
                    self._stick(index, unit, arms, reasons)
        arms[held], reasons[held] = -1, _CODE["holdout"]
        if overrides:
            for index, unit in enumerate(units):
                if unit in overrides:
                    arms[index], reasons[index] = self._names.index(overrides[unit]), _CODE["override"]

    def _stick(self, index: int, unit: str, arms: NDArray[np.int8], reasons: NDArray[np.uint8]) -> None:
        """Apply what is remembered of one unit, or remember what it gets."""
        arm, reason = self._sticky(unit)
        if reason is not None:
            arms[index], reasons[index] = arm, _CODE[reason]
        elif arms[index] >= 0 and self._book is not None:
            self._book.remember(unit, self._sticky_key, self._names[arms[index]])

    def _sticky(self, unit: str) -> tuple[int, Enrolled | Left | None]:
        """The remembered arm's index, or -1 and "blocked"; no reason if nothing is remembered.

        An arm that was closed (share 0) is not held on to.
        """
        if self._book is None:
            return -1, None
        said, rule = self._book.look_up(unit), self.experiment.sticky
        found = growthbook.sticky_variation(
            said,
            self.experiment.name,
            self._names,
            bucket_version=rule.bucket_version,
            min_bucket_version=rule.min_bucket_version,
        )
        if found.blocked:
            return -1, "blocked"
        if found.variation < 0 or self.experiment.arms[found.variation].share == 0:
            return -1, None
        return found.variation, "sticky"

    def _holds_out(self, raw: bytes) -> bool:
        rule = self.experiment.holdout
        return rule is not None and bucket(self.experiment.hash, "holdout", rule.name, raw) < rule.share

    def _inside(self, raw: bytes) -> bool:
        rule = self.experiment.namespace
        if rule is None:
            return True
        return rule.range[0] <= bucket(self.experiment.hash, "namespace", rule.name, raw) < rule.range[1]

    def _ranges_at(self, coverage: float) -> growthbook.Ranges:
        if self._ranges[0] != coverage:
            self._ranges = (coverage, ranges(self.experiment, coverage))
        return self._ranges[1]

    def _made(self, unit: str, arm: int, found: float | None, reason: Enrolled | Left) -> Assignment:
        return _assignment(self.experiment, unit, arm, found, reason)


def ranges(experiment: Experiment, coverage: float) -> growthbook.Ranges:
    """The part ``[start, end)`` of [0, 1) that each arm takes at a coverage."""
    shares = [arm.share for arm in experiment.arms]
    found = list(growthbook.bucket_ranges(len(shares), coverage, shares))
    if coverage >= 1:
        last = max(index for index, share in enumerate(shares) if share > 0)
        # Ten times 0.1 is a little less than 1: nobody must fall behind the last arm.
        found[last] = (found[last][0], 1.0)
    return tuple(found)


def _assignment(
    experiment: Experiment, unit: str, arm: int, found: float | None, reason: Enrolled | Left
) -> Assignment:
    taken = experiment.arms[arm] if arm >= 0 else experiment.control
    name = taken.name if arm >= 0 else None
    return Assignment(experiment.name, experiment.version, experiment.digest, unit, name, taken.model, found, reason)
