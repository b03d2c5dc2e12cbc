"""Cheaper settings of a model, one below the other: what is used when memory is short or calls pile up.

Each rung changes options of the adapter (another process is started) or of the call.
Built-in adapters have a ladder; grym.toml may name another one for a model. A cheaper
rung gives other answers, so only routes use them, never comparisons. Needs no torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grym.config import ModelSpec, Scalar
    from grym.models.interface import Options

CALL: Final = frozenset({"max_new_tokens", "quality"})  # options of a call that make it cheaper
# What is changed from rung to rung; each keeps what the ones above it changed.
LADDERS: Final[Mapping[str, tuple[Mapping[str, Scalar], ...]]] = {
    "wav2vec2": (
        {"precision": "bf16"},
        {"precision": "int8"},
        {"window_seconds": 15.0, "overlap_seconds": 2.0},
        {"window_seconds": 8.0, "overlap_seconds": 1.0},
    ),
    "gama": (
        {"precision": "bf16"},
        {"together": 2},
        {"precision": "int8"},
        {"precision": "int4"},
        {"together": 1, "max_new_tokens": 64},
    ),
}
OTHERS: Final[tuple[Mapping[str, Scalar], ...]] = ({"max_new_tokens": 64, "quality": "low"},)
# While calls pile up: nothing that needs another process.
PRESSED: Final[Mapping[str, Scalar]] = {"max_new_tokens": 64, "quality": "low"}


@dataclass(frozen=True, slots=True)
class Rung:
    """Settings below what grym.toml says.

    Attributes:
        name: what is changed, for the ``rung`` of answers; empty for the top.
        spec: options of the adapter.
        call: options of each call.
    """

    name: str = ""
    spec: Mapping[str, Scalar] = field(default_factory=dict)
    call: Mapping[str, Scalar] = field(default_factory=dict)

    def of(self, spec: ModelSpec) -> ModelSpec:
        """The model with these settings."""
        return spec.model_copy(update={"options": {**spec.options, **self.spec}}) if self.spec else spec

    def ask(self, options: Options, *, pressed: bool = False) -> tuple[Options, str]:
        """Options of a call with these settings, and what of them is cheaper than was asked for."""
        wanted = {**self.call, **({name: PRESSED[name] for name in PRESSED} if pressed else {})}
        changes = {name: value for name, value in wanted.items() if _is_less(name, value, options)}
        if not changes:
            return options, ""
        return dataclasses.replace(options, **changes), _words(changes)  # type: ignore[arg-type]  # CALL names them


def ladder(spec: ModelSpec) -> tuple[Rung, ...]:
    """The rungs of a model, from what grym.toml says down; the first one changes nothing.

    Raises:
        ConfigError: its ladder in grym.toml names an option of a call with a wrong value.
    """
    steps = LADDERS.get(spec.adapter, OTHERS) if spec.ladder is None else spec.ladder
    rungs = [Rung()]
    for step in steps:
        last = rungs[-1]
        below = Rung(
            spec={**last.spec, **{name: value for name, value in step.items() if name not in CALL}},
            call={**last.call, **{name: value for name, value in step.items() if name in CALL}},
        )
        _check(below.call, spec.name)
        if any(spec.options.get(name) != value for name, value in below.spec.items()) or below.call:
            rungs.append(dataclasses.replace(below, name=_words({**below.spec, **below.call})))
    return tuple(rungs)


def _is_less(name: str, value: Scalar, options: Options) -> bool:
    now = getattr(options, name)
    if name == "max_new_tokens":
        return int(value) < int(now)
    order = ("low", "standard", "high")
    return order.index(str(value)) < order.index(now)


def _check(call: Mapping[str, Scalar], name: str) -> None:
    tokens, quality = call.get("max_new_tokens", 1), call.get("quality", "low")
    if type(tokens) is int and tokens > 0 and quality in {"low", "standard", "high"}:
        return
    msg = f"The ladder of model {name!r} cannot be used: max_new_tokens {tokens!r}, quality {quality!r}."
    raise ConfigError(msg, code="bad-ladder", hint="max_new_tokens is a whole number, quality low, standard or high.")


def _words(changes: Mapping[str, Scalar]) -> str:
    return " ".join(f"{name}={value}" for name, value in changes.items())
