"""What grym.toml says about failures: ``[recovery]``, ``[health]``, ``[routes.NAME]``, each model's breaker and clip.

Read by :mod:`grym.config`, which is the one reader of the file. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads annotations at run time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

LONGEST_NAME = 100
Asked = Literal["load", "process_audio", "extract_features", "analyze", "ping"]
CATEGORIES = (
    "config", "audio", "manifest", "model", "worker", "deadline", "resource", "quality", "storage", "unavailable",
    "internal",
)  # fmt: skip


def plain_name(value: str) -> str:
    """A name that can be part of a path, a command and a page: it leads nowhere and looks like no option.

    Raises:
        ValueError: it is not such a name; the message is for the middle of a sentence.
    """
    if 0 < len(value) <= LONGEST_NAME and value[0] not in ".-" and value.isprintable() and not set(value) & set("/\\"):
        return value
    rule = f"at most {LONGEST_NAME} characters, without / and \\, not starting with . or -"
    msg = f"{value[:LONGEST_NAME]!r} should be a name of {rule}"
    raise ValueError(msg)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BreakerSettings(_Frozen):
    """``[models.NAME.breaker]``: when a model is no longer asked, for each operation by itself.

    Attributes:
        max_failures: so many failures in a row open the breaker.
        reset_timeout: seconds until a probe is let through; doubled after each probe that fails.
        max_reset_timeout: no more than that many seconds.
        probe_successes: so many probes in a row have to go well.
        max_errors: so many errors within ``error_window`` open it too, whatever went well between them.
        error_window: in seconds.
        monitored_operations: operations that have a breaker; the others are always asked.
    """

    max_failures: int = Field(default=5, ge=1)
    reset_timeout: float = Field(default=30.0, gt=0)
    max_reset_timeout: float = Field(default=600.0, gt=0)
    probe_successes: int = Field(default=1, ge=1)
    max_errors: int = Field(default=20, ge=1)
    error_window: float = Field(default=60.0, gt=0)
    monitored_operations: tuple[Asked, ...] = ("process_audio", "extract_features", "analyze")


class ModelHealth(_Frozen):
    """``[models.NAME.health]``: the known clip of one model, where it differs from ``[health]``.

    Attributes:
        enabled: whether the model is checked when all are.
        clip: audio file.
        text: what it says.
        match: ``wer`` compares words; ``contains`` looks for the text in the answer; ``any`` takes any answer.
        deadline_seconds: seconds that it has for the answer, without loading.
    """

    enabled: bool = True
    clip: Path | None = None
    text: str | None = None
    match: Literal["wer", "contains", "any"] = "wer"
    deadline_seconds: float | None = Field(default=None, gt=0)


class HealthSettings(_Frozen):
    """``[health]``: how models are checked.

    Attributes:
        clip: audio file; default the one that is bundled with the checkout.
        text: what it says.
        max_wer: word error rate up to which an answer is right, as a fraction.
        deadline_seconds: seconds that a model has for the answer, without loading.
        interval_seconds: a check not older than that is taken for the present state.
    """

    clip: Path = Path("datasets/digits/test/audio/test-000-002.ogg")
    text: str = "seven six seven"
    max_wer: float = Field(default=0.34, ge=0)
    deadline_seconds: float = Field(default=10.0, gt=0)
    interval_seconds: float = Field(default=300.0, gt=0)


class RecoverySettings(_Frozen):
    """``[recovery]``: what is tried when a call fails.

    Attributes:
        attempts: tries of one call with the same clips.
        base_seconds: longest wait before the second try; doubled for each further one. The wait is drawn evenly
            between 0 and that.
        max_seconds: longest wait of all.
        strategies: category of the error -> name of the strategy; see docs/resilience.md.
    """

    attempts: int = Field(default=3, ge=1, le=20)
    base_seconds: float = Field(default=0.1, ge=0)
    max_seconds: float = Field(default=5.0, ge=0)
    strategies: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("strategies")
    @classmethod
    def _known(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if unknown := sorted(set(value) - set(CATEGORIES)):
            msg = f"{', '.join(unknown)} should be one of {', '.join(CATEGORIES)}"
            raise ValueError(msg)
        return value


class Fallback(_Frozen):
    """One further model of a route.

    Attributes:
        model: registered name.
        deadline_seconds: seconds that it has; empty: what the budget leaves.
        only_for: categories of the last error for which it is asked; empty: all. A variant with less memory or on
            another device is asked ``only_for = ["resource"]``.
    """

    model: str
    deadline_seconds: float | None = Field(default=None, gt=0)
    only_for: tuple[str, ...] = ()


class RouteSettings(_Frozen):
    """``[routes.NAME]``: who answers, and who if that one is down, slow or bad.

    Attributes:
        primary: registered name of the model that should answer.
        fallbacks: those that are asked after it, in order.
        deadline_seconds: seconds that the primary has.
        budget_seconds: seconds that the whole request may take.
        attempts: tries of each model but the last, which has those of ``[recovery]``.
        min_confidence: an answer below it is not accepted, in [0, 1].
        suite: expectation suite that an answer has to pass; empty: none.
        cool_down_seconds: at most one alert of a kind within that time.
    """

    name: str
    primary: str
    fallbacks: tuple[Fallback, ...] = ()
    deadline_seconds: float = Field(default=5.0, gt=0)
    budget_seconds: float = Field(default=15.0, gt=0)
    attempts: int = Field(default=1, ge=1, le=20)
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    suite: str = ""
    cool_down_seconds: float = Field(default=300.0, ge=0)

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        return plain_name(value)

    @model_validator(mode="after")
    def _distinct(self) -> RouteSettings:
        names = self.models
        if len(set(names)) < len(names):
            msg = f"the route names a model twice: {', '.join(names)}"
            raise ValueError(msg)
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """Registered names of all its models, in order."""
        return (self.primary, *(fallback.model for fallback in self.fallbacks))
