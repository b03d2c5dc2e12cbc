"""What an experiment is: arms and shares, unit, salt, metrics, guardrails, ramp, criteria and power plan.

Frozen dataclasses, validated whenever one is made, from TOML or in code. Shares, coverages and probabilities are
fractions; times are days unless a name says otherwise. Knows nothing about files (:mod:`grym.experiment.loading`)
nor about what has run before (:mod:`grym.experiment.registry`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from grym.errors import ConfigError

Kind = Literal["mean", "proportion", "ratio", "quantile"]
Direction = Literal["lower", "higher"]
Hash = Literal["sha256", "growthbook-v1", "growthbook-v2"]

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
SMALLEST_EFFECT: Final = 1e-6  # in standard deviations; it would take some 1e13 units
SHARE_TOLERANCE: Final = 1e-9  # of the sum of shares; a third must be written as 0.3333333333
_STRICT: Final = ConfigDict(extra="forbid", allow_inf_nan=False)

Name = Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]  # NUL separates what is hashed
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=_STRICT)
class Arm:
    """One arm.

    Attributes:
        name: short name, as events say it.
        share: fraction of the enrolled units; 0 closes the arm: nobody is assigned to it, overrides still reach it.
        model: registered name of the model that serves it.
    """

    name: Name
    share: Fraction
    model: Text


@dataclass(frozen=True, config=_STRICT)
class Metric:
    """One metric.

    Attributes:
        name: short name, as events say it.
        kind: ``mean`` of a unit's sum; ``proportion`` of units for which it happened (0 or 1; 1 if it ever did);
            ``ratio`` of sums over units, value / weight; ``quantile`` of the single values.
        direction: which values are better.
        value: column of an outcome that holds the value.
        weight: column that holds the denominator of a ratio; without one a ratio is per measurement.
        level: level of a quantile, in (0, 1).
        covariate: column known before the exposure that explains the value (CUPED).
        margin: differences up to it count as equivalent, in the metric's own unit.
        absent: what a unit without a measurement means: ``missing`` leaves it out, ``zero`` counts it as 0.
    """

    name: Name
    kind: Kind
    direction: Direction
    value: Text
    weight: Text | None = None
    level: Annotated[float, Field(gt=0, lt=1)] | None = None
    covariate: Text | None = None
    margin: NotNegative = 0.0
    absent: Literal["missing", "zero"] = "missing"

    @model_validator(mode="after")
    def _fitting(self) -> Metric:
        if (self.kind == "quantile") != (self.level is not None):
            _refuse("bad-metric", f"metric {self.name!r} is of kind {self.kind!r}: level belongs to a quantile")
        if self.weight is not None and self.kind != "ratio":
            _refuse("bad-metric", f"metric {self.name!r} is of kind {self.kind!r}: weight belongs to a ratio")
        if self.absent == "zero" and self.kind in {"ratio", "quantile"}:
            _refuse("bad-metric", f'metric {self.name!r} is of kind {self.kind!r}: absent = "zero" has no meaning')
        return self


@dataclass(frozen=True, config=_STRICT)
class Guardrail:
    """A metric that must not get worse by more than a margin (non-inferiority), in the metric's own unit."""

    metric: Name
    margin: NotNegative


@dataclass(frozen=True, config=_STRICT)
class Ramp:
    """How enrolment grows: the coverages to pass through, and the days planned for each but the last."""

    coverage: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.01, 0.05, 0.25, 1.0)
    days: NotNegative = 1.0

    @model_validator(mode="after")
    def _growing(self) -> Ramp:
        pairs = zip(self.coverage, self.coverage[1:], strict=False)
        if not self.coverage or any(later <= earlier for earlier, later in pairs):
            _refuse("bad-ramp", "ramp.coverage should grow from step to step")
        return self


@dataclass(frozen=True, config=_STRICT)
class Namespace:
    """A slice of a namespace: experiments of one namespace with disjoint ranges never share a unit.

    Attributes:
        name: the namespace.
        range: ``(start, end)`` in [0, 1], the end not included.
    """

    name: Text
    range: tuple[Fraction, Fraction] = (0.0, 1.0)

    @model_validator(mode="after")
    def _ordered(self) -> Namespace:
        if self.range[0] >= self.range[1]:
            _refuse("bad-namespace", f"namespace.range should grow, not {list(self.range)}")
        return self

    @property
    def width(self) -> float:
        """Fraction of the units inside."""
        return self.range[1] - self.range[0]


@dataclass(frozen=True, config=_STRICT)
class Holdout:
    """Units that no experiment touches: the same ones for every experiment that names this holdout."""

    name: Text
    share: Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, config=_STRICT)
class Sticky:
    """Whether a unit keeps the arm it was exposed to though shares changed, as in GrowthBook.

    Attributes:
        enabled: whether earlier exposures are looked up.
        bucket_version: a higher number assigns everybody anew.
        min_bucket_version: units that were exposed under an older number leave the experiment.
    """

    enabled: bool = False
    bucket_version: Annotated[int, Field(ge=0)] = 0
    min_bucket_version: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _reachable(self) -> Sticky:
        if self.min_bucket_version > self.bucket_version:
            _refuse("bad-sticky", "sticky.min_bucket_version should not exceed sticky.bucket_version")
        return self


@dataclass(frozen=True, config=_STRICT)
class Success:
    """When the experiment may end.

    Attributes:
        rule: ``superior`` ships a better arm; ``non-inferior`` one that is not worse by more than the primary
            metric's margin (it is cheaper, say).
        confidence: of the intervals, over all looks; above 0.75, below which no sequence holds its promise.
        min_units: units per arm below which no arm is shipped.
        min_days: days below which no arm is shipped (a week has weekdays and a weekend).
    """

    rule: Literal["superior", "non-inferior"] = "superior"
    confidence: Annotated[float, Field(gt=0.75, lt=1)] = 0.95
    min_units: Annotated[int, Field(ge=0)] = 0
    min_days: NotNegative = 0.0


@dataclass(frozen=True, config=_STRICT)
class Power:
    """What the duration is planned from; see :mod:`grym.experiment.power`.

    Attributes:
        effect: smallest difference of the primary metric worth finding, in its own unit.
        units_per_day: new units that arrive per day, before coverage, namespace and holdout.
        sd: standard deviation of the metric over units, in its own unit (of a ratio: of its linearised values).
        baseline: the control's value of a proportion, which has no ``sd``.
        power: probability of finding the effect.
        correlation: of the metric with its covariate; a paired design's between its two arms.
        design: ``two-sample`` or ``paired`` (every unit in both arms, as in shadow pairs).
    """

    effect: Positive
    units_per_day: Positive
    sd: Positive | None = None
    baseline: Annotated[float, Field(gt=0, lt=1)] | None = None
    power: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    correlation: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    design: Literal["two-sample", "paired"] = "two-sample"


@dataclass(frozen=True, config=_STRICT)
class Experiment:
    """One version of one experiment.

    Attributes:
        name: short name, which is the file's name.
        version: goes up by one with every change; one version has one configuration for ever.
        unit: what is randomised, as a word for people: user, session, speaker, request.
        arms: the first one is the control.
        metrics: the first one is the primary.
        salt: what ids are hashed with; default the name. The same salt keeps everybody's arm over versions.
        hash: ``sha256``, or one of GrowthBook's two for compatibility with its clients.
        question: what is to be found out, in one sentence.
        guardrails: metrics that must not get worse.
        ramp: how enrolment grows.
        namespace: the slice of the units that may be enrolled; none means all.
        overrides: unit to arm, for people who test; never part of the statistics.
        holdout: units that are never enrolled.
        sticky: whether exposed units keep their arm over versions.
        success: when the experiment may end.
        power: what the duration is planned from.
    """

    name: Name
    version: Annotated[int, Field(ge=1)]
    unit: Text
    arms: tuple[Arm, ...]
    metrics: tuple[Metric, ...]
    salt: str = ""
    hash: Hash = "sha256"
    question: str = ""
    guardrails: tuple[Guardrail, ...] = ()
    ramp: Ramp = Ramp()
    namespace: Namespace | None = None
    overrides: Mapping[Text, Name] = dataclasses.field(default_factory=dict)
    holdout: Holdout | None = None
    sticky: Sticky = Sticky()
    success: Success = Success()
    power: Power | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        _check_arms(self)
        _check_metrics(self)
        if "\x00" in self.salt:
            _refuse("bad-salt", "salt should not contain a zero byte")
        if not self.salt:
            object.__setattr__(self, "salt", self.name)
        return self

    @property
    def control(self) -> Arm:
        """The first arm."""
        return self.arms[0]

    @property
    def treatments(self) -> tuple[Arm, ...]:
        """Every arm but the control."""
        return self.arms[1:]

    @property
    def primary(self) -> Metric:
        """The first metric."""
        return self.metrics[0]

    def arm(self, name: str) -> Arm:
        """The arm of that name.

        Raises:
            ConfigError: there is none; the message names those that exist.
        """
        return _pick("arm", name, self.arms, self.name)

    def metric(self, name: str) -> Metric:
        """The metric of that name.

        Raises:
            ConfigError: there is none; the message names those that exist.
        """
        return _pick("metric", name, self.metrics, self.name)

    @cached_property
    def canonical(self) -> str:
        """The configuration as canonical JSON: sorted keys, no spaces, whole numbers without a point, UTF-8.

        What has its default value is left out, so that a later release that knows more keys gives the same digest;
        a default therefore never changes.
        """
        return json.dumps(_plain(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of :attr:`canonical`, 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()


Named = TypeVar("Named", Arm, Metric)


def _pick(kind: str, name: str, known: tuple[Named, ...], experiment: str) -> Named:
    found = {item.name: item for item in known}
    if name not in found:
        msg = f"Experiment {experiment!r} has no {kind} {name!r}; it has: {', '.join(found)}."
        raise ConfigError(msg, code=f"unknown-{kind}", hint=f"Use one of these, or add the {kind} to a new version.")
    return found[name]


def _check_arms(experiment: Experiment) -> None:
    names = [arm.name for arm in experiment.arms]
    if len(names) < 2 or len(set(names)) != len(names):  # noqa: PLR2004 - there is nothing to compare in one arm
        _refuse("bad-arms", f"arms should be two or more with different names, not {', '.join(names) or 'none'}")
    total = math.fsum(arm.share for arm in experiment.arms)
    if abs(total - 1) > SHARE_TOLERANCE:
        _refuse("bad-shares", f"shares should add up to 1, not {total:.12g}")
    if experiment.control.share == 0:
        _refuse("bad-shares", f"the control {experiment.control.name!r} should have a share above 0")
    if strangers := sorted({*experiment.overrides.values()} - {*names}):
        _refuse("unknown-arm", f"overrides name arms that do not exist: {', '.join(strangers)}")


def _check_metrics(experiment: Experiment) -> None:
    names = [metric.name for metric in experiment.metrics]
    if not names or len(set(names)) != len(names):
        _refuse("bad-metrics", f"metrics should be one or more with different names, not {names}")
    if strangers := [rail.metric for rail in experiment.guardrails if rail.metric not in names]:
        _refuse("unknown-metric", f"guardrails name metrics that do not exist: {', '.join(strangers)}")
    power = experiment.power
    if power is None:
        return
    wanted = "baseline" if experiment.primary.kind == "proportion" and power.design == "two-sample" else "sd"
    if getattr(power, wanted) is None:
        _refuse("bad-power", f"power.{wanted} is needed for a primary metric of kind {experiment.primary.kind!r}")
    if power.baseline is not None and power.baseline + power.effect >= 1 and power.baseline - power.effect <= 0:
        _refuse("bad-power", "power.effect leads from power.baseline out of (0, 1) on either side")
    spread = power.sd if power.sd is not None else math.sqrt((power.baseline or 0) * (1 - (power.baseline or 0)))
    if not (power.effect**2 > 0 and SMALLEST_EFFECT <= power.effect / spread <= 1 / SMALLEST_EFFECT):
        _refuse("bad-power", f"power.effect should be {SMALLEST_EFFECT:g} to 1e6 standard deviations of the metric")


def _refuse(code: str, text: str) -> NoReturn:
    # As an argument, since braces in a template are places to fill in.
    raise PydanticCustomError(code, "{text}", {"text": text})


def _plain(value: Any) -> Any:
    """What JSON can say, numbers in one form: 1 and 1.0 are the same configuration."""
    if dataclasses.is_dataclass(value):
        said = [(field.name, getattr(value, field.name), field.default) for field in dataclasses.fields(value)]
        return {name: _plain(item) for name, item, default in said if item not in (default, {})}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
