"""What is done when a call fails: a strategy for each category of error, replaceable, and the loop that follows it.

A strategy looks at a :class:`Failure` and names an action. grym.toml says which
strategy a category has: a built-in one, one that an installed package offers under
the entry point group ``grym.strategies``, or ``package.module:function``. Other
settings, another device and another model are other entries of a route
(:mod:`grym.resilience.failover`), which takes over when a strategy gives up.

Waiting between tries is tenacity's: drawn evenly between 0 and a bound that
doubles (full jitter). Knows nothing about models or processes. Times are seconds.

Source of the waits: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar, cast, get_args

import tenacity

from grym.errors import Category, ConfigError, ErrorRecord, GrymError

if TYPE_CHECKING:
    from grym._resilience_settings import RecoverySettings

Action = Literal["retry", "restart", "split", "give up"]
GROUP: Final = "grym.strategies"
SPLITTABLE: Final = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Failure:
    """One try that failed.

    Attributes:
        error: why.
        attempt: number of the try, from 1.
        attempts: tries that are allowed with the same clips.
        items: clips in the call.
    """

    error: ErrorRecord
    attempt: int
    attempts: int
    items: int


Strategy: TypeAlias = Callable[[Failure], str]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try that failed, or the one that went well after others failed.

    Attributes:
        attempt: number of the try, from 1; the halves of a split call begin at 1 again.
        items: clips in the call.
        error: why it failed; ``None`` if it went well.
        action: what was done then; ``"answered"`` if it went well.
        delay_seconds: wait before the next try.
        path: which part of a call that was split: ``""`` all, ``"0"`` the first half, ``"01"`` its second half.
    """

    attempt: int
    items: int
    error: GrymError | None
    action: str
    delay_seconds: float = 0.0
    path: str = ""


def retry(failure: Failure) -> Action:
    """The same again, while the error may pass and tries are left."""
    return "retry" if failure.error.retryable and failure.attempt < failure.attempts else "give up"


def retry_then_split(failure: Failure) -> Action:
    """The same again; after the last try, halves, so that one clip does not take the others along."""
    return "retry" if retry(failure) == "retry" else _split(failure)


def split(failure: Failure) -> Action:
    """Halves at once: what was too much for the memory is too much the next time. A single clip is tried again."""
    return "split" if _split(failure) == "split" else retry(failure)


def restart(failure: Failure) -> Action:
    """A fresh process, then the same again, whether or not the error says that it may pass."""
    return "restart" if failure.attempt < failure.attempts else "give up"


def give_up(failure: Failure) -> Action:  # noqa: ARG001 - a strategy sees the failure
    """Nothing: whoever is next in the route takes over."""
    return "give up"


def _split(failure: Failure) -> Action:
    return "split" if failure.items >= SPLITTABLE and failure.error.code != "disk-full" else "give up"


BUILTIN: Final[Mapping[str, Strategy]] = {
    "retry": retry,
    "retry-then-split": retry_then_split,
    "split": split,
    "restart": restart,
    "give-up": give_up,
}
DEFAULTS: Final[Mapping[str, str]] = {
    Category.CONFIG: "give-up",
    Category.AUDIO: "split",
    Category.MANIFEST: "give-up",
    Category.MODEL: "retry-then-split",
    Category.WORKER: "retry-then-split",
    Category.DEADLINE: "retry-then-split",
    Category.RESOURCE: "split",
    Category.QUALITY: "give-up",
    Category.STORAGE: "retry",
    Category.UNAVAILABLE: "give-up",
    Category.INTERNAL: "give-up",
}


def strategy_for(category: str, settings: RecoverySettings) -> Strategy:
    """The strategy of a category: what grym.toml says, else the default one.

    Raises:
        ConfigError: grym.toml names a strategy that does not exist.
    """
    return find_strategy(settings.strategies.get(category, DEFAULTS.get(category, "give-up")))


@cache
def find_strategy(name: str) -> Strategy:
    """A strategy by its name, or as ``package.module:function``.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    offered = {point.name: point.value for point in entry_points(group=GROUP)}
    module, _, function = (name if ":" in name else offered.get(name, "")).partition(":")
    try:
        found = getattr(import_module(module), function, None) if module else None
    except ImportError:
        found = None
    if not callable(found):
        known = ", ".join(sorted({*BUILTIN, *offered}))
        msg = f"Unknown recovery strategy {name!r}; known are {known}."
        raise ConfigError(msg, code="unknown-strategy", hint="Use one of these or 'package.module:function'.")
    return cast("Strategy", found)


def decide(failure: Failure, settings: RecoverySettings) -> Action:
    """What is to be done about a failure.

    Raises:
        ConfigError: the strategy does not exist, or names an action that does not.
    """
    action = strategy_for(failure.error.category, settings)(failure)
    if action not in get_args(Action):
        msg = f"The strategy of {failure.error.category} errors said {action!r}."
        raise ConfigError(msg, code="unknown-action", hint=f"Right are: {', '.join(get_args(Action))}.")
    return cast("Action", action)


def tried_again(error: GrymError, settings: RecoverySettings) -> bool:
    """Whether the same call is to be made again if tries are left: for loops that belong to somebody else (Prefect)."""
    return decide(Failure(error.record(), 1, 2, 1), settings) in {"retry", "restart"}


@dataclass(frozen=True, slots=True)
class Recovery(Generic[Item, Result]):
    """A call about some clips that is recovered as the strategies say.

    Attributes:
        ask: the call: one result for each item, in order.
        settings: tries, waits and strategies.
        restart: makes whoever is asked start afresh.
        tell: hears every try that failed, and the one that went well after others.
        sleep: waits so many seconds.
        seconds: how long everything may take; a wait that would end later is not begun.
    """

    ask: Callable[[Sequence[Item]], Sequence[Result]]
    settings: RecoverySettings
    restart: Callable[[], None] = lambda: None
    tell: Callable[[Attempt], None] = lambda _: None
    sleep: Callable[[float], None] = time.sleep
    seconds: float = float("inf")

    def run(self, items: Sequence[Item]) -> list[Result | GrymError]:
        """One result for each item, or the error that was left when everything had been tried."""
        return self._run(items, "", time.monotonic() + self.seconds)

    def _run(self, items: Sequence[Item], path: str, until: float) -> list[Result | GrymError]:
        loop = _Loop(self, len(items), path, until)
        try:
            return list(loop.retrying()(self.ask, items))
        except GrymError as error:
            if loop.action != "split":
                return [error] * len(items)
            half = len(items) // 2
            return [*self._run(items[:half], f"{path}0", until), *self._run(items[half:], f"{path}1", until)]


class _Loop:
    """The tries of one call with the same clips, in tenacity's terms."""

    def __init__(self, recovery: Recovery[Item, Result], items: int, path: str, until: float) -> None:
        self.action: Action = "give up"
        self._recovery, self._items, self._path, self._until = recovery, items, path, until
        settings = recovery.settings
        self._wait = tenacity.wait_random_exponential(multiplier=settings.base_seconds, max=settings.max_seconds)

    def retrying(self) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=self._again,
            wait=self._wait,
            stop=tenacity.stop_never,
            before_sleep=self._before,
            after=self._after,
            sleep=self._recovery.sleep,
            reraise=True,
        )

    def _again(self, state: tenacity.RetryCallState) -> bool:
        error = None if state.outcome is None else state.outcome.exception()
        if not isinstance(error, GrymError):
            if error is None and state.attempt_number > 1:
                self._recovery.tell(Attempt(state.attempt_number, self._items, None, "answered", path=self._path))
            return False
        settings = self._recovery.settings
        failure = Failure(error.record(), state.attempt_number, settings.attempts, self._items)
        self.action = decide(failure, settings)
        if state.attempt_number >= settings.attempts and self.action in {"retry", "restart"}:
            self.action = "give up"  # a strategy that never does would never end
        left = self._until - time.monotonic()
        bound = min(settings.max_seconds, settings.base_seconds * 2.0 ** (state.attempt_number - 1))
        if left <= (bound if self.action in {"retry", "restart"} else 0.0):
            self.action = "give up"
        again = self.action in {"retry", "restart"}
        if not again:
            self._recovery.tell(Attempt(state.attempt_number, self._items, error, self.action, path=self._path))
        return again

    def _after(self, _state: tenacity.RetryCallState) -> None:
        """Called by tenacity between the decision and the wait."""
        if self.action == "restart":
            self._recovery.restart()

    def _before(self, state: tenacity.RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        delay = 0.0 if state.next_action is None else state.next_action.sleep
        if isinstance(error, GrymError):
            told = Attempt(state.attempt_number, self._items, error, self.action, delay, self._path)
            self._recovery.tell(told)
