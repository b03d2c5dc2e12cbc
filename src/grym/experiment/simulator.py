"""Experiments that never happened: simulated traffic through the real splitter, collector and analysis.

Units arrive one after another; each makes a few requests, and every request draws a row of a table of recorded
outcomes, in which each arm has its own columns: the models' real errors and times, with the structure that speakers
give them. So false positives, power and coverage are measured on one's own outcomes.

Two paths, one splitter and one analysis. :meth:`Simulator.fast` skips the disk. :meth:`Simulator.through_store` records
every event with the collector and reads the sums back with DuckDB; both give the same decisions. Randomness is
numpy's PCG64, seeded by (seed, replicate). Knows nothing about flows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from grym.errors import ConfigError
from grym.experiment.assignment import Assigner, Assignments
from grym.experiment.collector import Collector
from grym.experiment.control import State
from grym.experiment.decision import decide_from
from grym.experiment.effects import Design, Effect, effect, quantile_effect
from grym.experiment.events import exposure, measurements
from grym.experiment.health import examine
from grym.experiment.moments import Moments
from grym.experiment.quantiles import Quantile, quantile_of
from grym.experiment.registry import register
from grym.experiment.verdicts import ArmVerdict, Seen, judge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from grym.experiment.config import Experiment, Metric
    from grym.experiment.decision import Decision
    from grym.experiment.health import Health
    from grym.store import Store

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

GENERATOR: Final = "numpy PCG64"
START_MS: Final = 1_795_000_000_000
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Recorded:
    """Outcomes that models gave to the same requests.

    Attributes:
        name: what to call them in reports.
        columns: for each arm, its columns by name, each ``float64, shape = (rows,)``.
        speakers: who speaks in each row, ``int64, shape = (rows,)``; a unit is one speaker.
    """

    name: str
    columns: Mapping[str, Mapping[str, Floats]]
    speakers: Ints

    def identical(self, arm: str) -> Recorded:
        """The same outcomes for every arm: those of one of them."""
        return Recorded(
            f"{self.name}, all arms as {arm}", dict.fromkeys(self.columns, self.columns[arm]), self.speakers
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """Who comes: units of one experiment, their mean number of requests (at least 1), and days it takes."""

    units: int = 1_000
    requests: float = 2.0
    days: float = 14.0


@dataclass(frozen=True, slots=True)
class SimulatedLook:
    """What the analysis says at one look; units are those that arrived, enrolled or not."""

    units: int
    health: Health
    effects: tuple[Effect, ...]
    arms: tuple[ArmVerdict, ...]

    @property
    def verdicts(self) -> tuple[str, ...]:
        """INVALID for every treatment, or each one's verdict."""
        return tuple("INVALID" if self.health.problems else one.verdict for one in self.arms)


class Simulator:
    """Simulates one experiment again and again.

    Args:
        experiment: the configuration; everybody is enrolled (coverage 1).
        recorded: what the arms answer.
        traffic: who comes.
        looks: looks at each replicate, evenly spread over its units.
        seed: of everything that is drawn.

    Raises:
        ConfigError: an arm has no outcomes, a column is missing or differs in length, or traffic makes no sense.
    """

    def __init__(
        self, experiment: Experiment, recorded: Recorded, traffic: Traffic, *, looks: int = 20, seed: int = 20261120
    ) -> None:
        _check(experiment, recorded, traffic, looks)
        self.experiment, self.recorded, self.traffic = experiment, recorded, traffic
        self.seed, self._looks = seed, looks
        self._assigner = Assigner(experiment, control=State)
        self._rows = [np.flatnonzero(recorded.speakers == who) for who in np.unique(recorded.speakers)]
        self._designs = {arm.name: Design.of(experiment, arm.name) for arm in experiment.treatments if arm.share > 0}

    def fast(self, replicate: int) -> tuple[SimulatedLook, ...]:
        """One replicate without the disk: every look, in order."""
        drawn = self._draw(replicate)
        ends = self._ends()
        sums = {metric.name: self._sums(metric, drawn, ends) for metric in self.experiment.metrics}
        return tuple(self._look(drawn, end, place, sums) for place, end in enumerate(ends))

    def through_store(self, store: Store, replicate: int) -> tuple[Decision, ...]:
        """One replicate through registry, collector, landing zone and DuckDB: the decision at every look.

        Args:
            store: an empty one for each replicate.
            replicate: which.

        Raises:
            StorageError: the store cannot be written to.
            ResourceError: the disk is full.
        """
        drawn = self._draw(replicate)
        register(store, self.experiment)
        with Collector(store, clock=lambda: START_MS + int(self.traffic.days * _DAY_MS)) as collector:
            for index, unit in enumerate(drawn.units):
                assignment = drawn.assigned.one(index)
                if assignment.arm is None:
                    continue
                used = exposure(assignment, drawn.at_ms(index, self.traffic), request_id="first")
                events = [used]
                for row in range(*drawn.requests_of(index)):
                    columns = self.recorded.columns[assignment.arm]
                    outcome = {name: float(values[drawn.rows[row]]) for name, values in columns.items()}
                    said = measurements(self.experiment, used, outcome, used.at_ms, request_id=f"{unit}-{row}")
                    collector.record(said)
                collector.record(events)
        moments = [drawn.at_ms(end - 1, self.traffic) for end in self._ends()]
        return tuple(decide_from(store, self.experiment, until_ms=at) for at in moments)

    def truth(self, metric: str, arm: str) -> float:
        """The difference of a mean-like metric between an arm and the control in the recorded outcomes, per request.

        For a ratio it is what intervals should cover: every speaker is as likely, whatever the number of its rows.
        """
        found = self.experiment.metric(metric)
        values = []
        for name in (self.experiment.control.name, arm):
            value, weight, _ = self._columns(found, name)
            parts = [(value[rows].mean(), weight[rows].mean()) for rows in self._rows]
            total = np.sum(parts, axis=0)
            values.append(float(total[0] / total[1]))
        return values[1] - values[0]

    def _ends(self) -> list[int]:
        return [round(self.traffic.units * (k + 1) / self._looks) for k in range(self._looks)]

    def _draw(self, replicate: int) -> _Drawn:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, replicate])))
        count = self.traffic.units
        units = [f"r{replicate}-u{number}" for number in range(count)]
        requests = 1 + rng.poisson(self.traffic.requests - 1, count)
        speaker = rng.integers(0, len(self._rows), count)
        sizes = np.array([rows.size for rows in self._rows])
        owner = np.repeat(np.arange(count), requests)
        place = (rng.random(owner.size) * sizes[speaker[owner]]).astype(np.int64)
        flat, starts = np.concatenate(self._rows), np.concatenate([[0], np.cumsum(sizes)])
        rows = flat[starts[speaker[owner]] + place]
        bounds = np.concatenate([[0], np.cumsum(requests)])
        return _Drawn(units, self._assigner.assign_many(units), owner, rows, bounds)

    def _sums(self, metric: Metric, drawn: _Drawn, ends: Sequence[int]) -> dict[str, list[Moments]]:
        """Moments of each arm at each look, by adding up what arrived between looks."""
        if metric.kind == "quantile":
            return {}
        found = {}
        for index, arm in enumerate(self.experiment.arms):
            columns = [values[drawn.rows] for values in self._columns(metric, arm.name)]
            y, w, x = (np.bincount(drawn.owner, column, len(drawn.units)) for column in columns)
            if metric.kind == "proportion":
                y = (y > 0).astype(np.float64)
            mine = drawn.assigned.arms == index
            each = Moments.from_arrays(*(np.where(mine, column, 0.0)[:, None] for column in (y, w, x)))
            at_looks = _added_up(replace(each, n=mine.astype(np.float64)), ends)
            found[arm.name] = at_looks
        return found

    def _look(
        self, drawn: _Drawn, end: int, place: int, sums: Mapping[str, Mapping[str, Sequence[Moments]]]
    ) -> SimulatedLook:
        config = self.experiment
        counts = np.bincount(drawn.assigned.arms[:end] + 1, minlength=len(config.arms) + 1)[1:]
        arms = [{"units": int(n), "exposures": int(n)} for n in counts]
        health = examine(config, arms, [int(n) for n in counts], mixed=0, lost=0)
        effects, verdicts = [], []
        for name, design in self._designs.items():
            found = {m.name: self._effect(m, name, design, drawn, end, place, sums) for m in config.metrics}
            smaller = min(int(counts[0]), int(counts[[arm.name for arm in config.arms].index(name)]))
            seen = Seen(smaller, self.traffic.days * end / self.traffic.units)
            verdicts.append(judge(config, name, found, design.alpha, seen))
            effects += list(found.values())
        return SimulatedLook(end, health, tuple(effects), tuple(verdicts))

    def _effect(
        self,
        metric: Metric,
        arm: str,
        design: Design,
        drawn: _Drawn,
        end: int,
        place: int,
        sums: Mapping[str, Mapping[str, Sequence[Moments]]],
    ) -> Effect:
        control = self.experiment.control.name
        if metric.kind == "quantile":
            pair = [self._quantile(metric, name, drawn, end) for name in (control, arm)]
            return quantile_effect(metric, arm, pair[0], pair[1], design)
        return effect(metric, arm, sums[metric.name][control][place], sums[metric.name][arm][place], design)

    def _quantile(self, metric: Metric, arm: str, drawn: _Drawn, end: int) -> Quantile:
        index = [one.name for one in self.experiment.arms].index(arm)
        mine = (drawn.owner < end) & (drawn.assigned.arms[drawn.owner] == index)
        values = self.recorded.columns[arm][metric.value][drawn.rows[mine]]
        return quantile_of(values, metric.level or 0.5, drawn.owner[mine], metric=metric.name, arm=arm)

    def _columns(self, metric: Metric, arm: str) -> tuple[Floats, Floats, Floats]:
        columns = self.recorded.columns[arm]
        value = columns[metric.value]
        weight = columns[metric.weight] if metric.weight else np.ones_like(value)
        return value, weight, columns[metric.covariate] if metric.covariate else np.zeros_like(value)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One replicate: who came, which arm each got, whose each request is, and which recorded row it drew."""

    units: list[str]
    assigned: Assignments
    owner: Ints
    rows: Ints
    bounds: Ints

    def requests_of(self, unit: int) -> tuple[int, int]:
        """The requests of a unit, as the ends of a range."""
        return int(self.bounds[unit]), int(self.bounds[unit + 1])

    def at_ms(self, unit: int, traffic: Traffic) -> int:
        """When a unit arrives."""
        return START_MS + int(traffic.days * _DAY_MS * (unit + 1) / (len(self.units) + 1))


def _added_up(each: Moments, ends: Sequence[int]) -> list[Moments]:
    """Moments of single units, ``shape = (units,)``, as sums over the first so many of them."""
    places = np.asarray(ends) - 1
    sums = [np.cumsum(getattr(each, field.name))[places].tolist() for field in fields(Moments)]
    return [Moments(*values) for values in zip(*sums, strict=True)]


def synthetic(
    experiment: Experiment, *, speakers: int = 40, rows: int = 25, factor: float = 1.0, seed: int = 20261120
) -> Recorded:
    """Outcomes for want of recorded ones: speakers of log-normal error rates, sd 0.3 of the logarithm.

    Value columns of ratios are Poisson counts at a rate of 0.1 per unit of weight, proportions happen in one case of
    twenty, other values are log-normal around 0.1; weights are 1 + Poisson(10).

    Args:
        experiment: whose arms and columns.
        speakers: how many.
        rows: outcomes of each.
        factor: by which the treatments' values are larger than the control's.
        seed: of everything that is drawn.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    who = np.repeat(np.arange(speakers), rows)
    level = 0.1 * np.exp(rng.normal(-(0.3**2) / 2, 0.3, speakers))[who]
    weight = (1 + rng.poisson(10, who.size)).astype(np.float64)
    columns: dict[str, dict[str, Floats]] = {}
    for arm in experiment.arms:
        times = 1.0 if arm == experiment.control else factor
        columns[arm.name] = dict(_made(experiment, rng, level * times, weight))
    return Recorded("synthetic-lognormal", columns, who)


def _made(
    experiment: Experiment, rng: np.random.Generator, level: Floats, weight: Floats
) -> Iterator[tuple[str, Floats]]:
    for metric in experiment.metrics:
        if metric.weight:
            yield metric.weight, weight
        if metric.covariate:
            yield metric.covariate, level
        if metric.kind == "ratio" and metric.weight:
            yield metric.value, rng.poisson(level * weight).astype(np.float64)
        elif metric.kind in {"proportion", "ratio"}:
            yield metric.value, (rng.random(level.size) < level / 2).astype(np.float64)
        else:
            yield metric.value, level * np.exp(rng.normal(0, 0.3, level.size))


def _check(experiment: Experiment, recorded: Recorded, traffic: Traffic, looks: int) -> None:
    wanted = {name for m in experiment.metrics for name in (m.value, m.weight, m.covariate) if name}
    for arm in experiment.arms:
        missing = wanted - set(recorded.columns.get(arm.name, {}))
        sizes = {column.shape for column in recorded.columns.get(arm.name, {}).values()} | {recorded.speakers.shape}
        if missing or len(sizes) != 1 or not recorded.speakers.size:
            what = f"lack {', '.join(sorted(missing))}" if missing else "are empty or differ in length"
            msg = f"The recorded outcomes of arm {arm.name!r} {what}."
            raise ConfigError(msg, code="bad-outcomes", hint="Give every arm every column that a metric names.")
    if not (traffic.units >= looks >= 1 and traffic.requests >= 1 and traffic.days > 0):
        msg = f"{traffic.units} units, {traffic.requests:g} requests and {looks} looks make no sense."
        raise ConfigError(msg, code="bad-option", hint="Use a unit per look and a request per unit at least.")
