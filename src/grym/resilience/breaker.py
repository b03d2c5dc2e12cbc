"""A circuit breaker for each operation of each model: who keeps failing is not asked for a while.

pybreaker decides; its state lies in :mod:`grym.resilience.state`, so that all
processes of a home see the same. Beyond pybreaker: one probe at a time over all
processes, waits that double while probes fail, a limit on errors within a window
(whatever went well between them), and errors that say nothing about the model and
so count neither way. Times are seconds.

    closed -> open        max_failures in a row, or max_errors within error_window
    open -> half-open     after reset_timeout, by the one request that becomes the probe
    half-open -> closed   probe_successes in a row;  -> open if a probe fails
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final, TypeVar

import pybreaker

from grym._resilience_settings import BreakerSettings
from grym.errors import Category, GrymError, UnavailableError
from grym.resilience.state import boot, insert_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from grym.config import ModelSpec
    from grym.resilience.state import Circuit, Do, States

T = TypeVar("T")
# What says something about the model. A bad clip, a wrong setting or a full disk does not; nor does Ctrl-C.
BLAMED: Final = frozenset(
    {Category.MODEL, Category.WORKER, Category.DEADLINE, Category.RESOURCE, Category.QUALITY, Category.INTERNAL}
)
PROBE_SECONDS: Final = 60.0  # a probe whose process was killed is given up after its deadline, or after that
GRACE_SECONDS: Final = 2.0
_MAKE: Final = "INSERT OR IGNORE INTO breaker (model, operation) VALUES (?, ?)"


def blames_model(error: BaseException) -> bool:
    """Whether an error is the model's failure."""
    if isinstance(error, GrymError):
        return error.category in BLAMED and error.code not in {"disk-full", "worker-closed"}
    return isinstance(error, Exception)


class Breakers:
    """The breakers of all models of a home.

    Args:
        states: the shared state.
        models: registered models, for their settings; others have the default ones.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from grym.resilience.state import States
        >>> breakers = Breakers(States(Path(tempfile.mkdtemp())), {})
        >>> breakers.call("mini", "process_audio", lambda: 42)
        42
    """

    def __init__(self, states: States, models: Mapping[str, ModelSpec]) -> None:
        self.states = states
        self._models = models

    def settings(self, model: str) -> BreakerSettings:
        """The settings of one model's breakers."""
        spec = self._models.get(model)
        return BreakerSettings() if spec is None else spec.breaker

    def call(self, model: str, operation: str, ask: Callable[[], T], *, seconds: float | None = None) -> T:
        """Ask, unless the breaker says no; count how it went.

        Args:
            model: registered name.
            operation: what is asked, as the worker protocol calls it.
            ask: the call; whatever it raises is raised on.
            seconds: how long it may take at most, for the lease of a probe.

        Raises:
            UnavailableError: ``breaker-open``, or ``probing``: another request is the probe just now.
        """
        settings = self.settings(model)
        if operation not in settings.monitored_operations:
            return ask()
        circuit = self.states.circuit(model, operation)
        if circuit.state == pybreaker.STATE_CLOSED:
            return self._call(circuit, settings, ask)
        wait = reset_timeout(circuit, settings) - circuit.open_seconds
        if circuit.state == pybreaker.STATE_OPEN and wait > 0:
            raise _refused(circuit, "breaker-open", wait)
        lease = f"probe/{model}/{operation}"
        owner = self.states.take_lease(lease, PROBE_SECONDS if seconds is None else seconds + GRACE_SECONDS)
        if not owner:
            raise _refused(circuit, "probing", 1.0)
        try:
            return self._call(circuit, settings, ask)
        finally:
            self.states.give_lease(lease, owner)

    def blame(self, model: str, operation: str, error: GrymError) -> None:
        """Count a failure that showed only later: an answer that was not accepted where another model's was."""
        settings = self.settings(model)
        if operation in settings.monitored_operations:
            storage = _Storage(self.states, self.states.circuit(model, operation), settings)
            storage.code = error.code
            storage.increment_counter()
            if storage.counter >= settings.max_failures:
                self._breaker(storage, reset_timeout(storage.circuit, settings)).open()

    def allow_probe(self, model: str) -> None:
        """Let the next request be the probe: the model was seen to be well."""
        allow = "UPDATE breaker SET boot = 'allowed' WHERE model = ? AND state = 'open'"  # opened long ago, that is
        self.states.write(lambda do: do(allow, (model,)))

    def circuits(self) -> list[Circuit]:
        """Every breaker that ever counted a failure."""
        return self.states.circuits()

    def _call(self, circuit: Circuit, settings: BreakerSettings, ask: Callable[[], T]) -> T:
        storage = _Storage(self.states, circuit, settings)

        def asked() -> T:
            try:
                return ask()
            finally:
                storage.forget()  # others may have changed the state meanwhile

        try:
            # One for each call: pybreaker holds its lock during the call. The state is common to all.
            return self._breaker(storage, reset_timeout(circuit, settings)).call(asked)
        except pybreaker.CircuitBreakerError as error:
            raise _refused(storage.circuit, "breaker-open", reset_timeout(storage.circuit, settings)) from error

    def _breaker(self, storage: _Storage, timeout: float) -> pybreaker.CircuitBreaker:
        return pybreaker.CircuitBreaker(
            fail_max=storage.settings.max_failures,
            reset_timeout=timeout,
            success_threshold=storage.settings.probe_successes,
            exclude=[storage.excuse],
            state_storage=storage,
            throw_new_error_on_trip=False,
        )


def reset_timeout(circuit: Circuit, settings: BreakerSettings) -> float:
    """How long a breaker stays open: twice as long with each probe that failed."""
    doubled = settings.reset_timeout * 2.0 ** min(max(0, circuit.trips - 1), 60)
    return min(doubled, max(settings.max_reset_timeout, settings.reset_timeout))


def _refused(circuit: Circuit, code: str, wait: float) -> UnavailableError:
    why = f"its breaker is {circuit.state}" if code == "breaker-open" else "another request is trying it"
    last = f" after {circuit.code}" if circuit.code else ""
    msg = f"{circuit.model!r} was not asked for {circuit.operation}: {why}{last}."
    wait = round(max(0.0, wait), 3)
    hint = f"Ask again in {wait:.0f} s, or ask another model."
    return UnavailableError(msg, code=code, hint=hint, metadata={"retry_after_seconds": wait})


class _Storage(pybreaker.CircuitBreakerStorage):
    """pybreaker's view of one breaker, for one call.

    Attributes:
        code: of the error of this call.
    """

    def __init__(self, states: States, circuit: Circuit, settings: BreakerSettings) -> None:
        super().__init__("sqlite")
        self.settings = settings
        self.code = ""
        self._states = states
        self._key = (circuit.model, circuit.operation)
        self._seen: Circuit | None = circuit
        self._excused = False
        self._flooded = False

    @property
    def circuit(self) -> Circuit:
        """The state as it was at the beginning of the call, at its end, or after our last change."""
        if self._seen is None:
            self._seen = self._states.circuit(*self._key)
        return self._seen

    def forget(self) -> None:
        """Look again the next time."""
        self._seen = None

    def _write(self, work: Callable[[Do], T]) -> T:
        self.forget()
        return self._states.write(work)

    def excuse(self, error: BaseException) -> bool:
        """Whether an error does not count; then nothing is counted for this call."""
        self._excused = not blames_model(error)
        self.code = error.code if isinstance(error, GrymError) else type(error).__name__
        return self._excused

    @property
    def state(self) -> str:
        """closed, open or half-open."""
        return self.circuit.state

    @state.setter
    def state(self, state: str) -> None:
        self.forget()
        before = self.circuit
        if before.state == state:
            return
        model, operation = self._key
        trips = {pybreaker.STATE_OPEN: "trips + 1", pybreaker.STATE_CLOSED: "0"}.get(state, "trips")

        def work(do: Do) -> None:
            do(_MAKE, self._key)
            changed = do(
                f"UPDATE breaker SET state = ?, trips = {trips} WHERE model = ? AND operation = ? AND state = ?",  # noqa: S608 - one of three words
                (state, *self._key, before.state),
            )
            if changed.rowcount:  # otherwise another process did it, and said so
                insert_event(do, "breaker", f"{model}/{operation}", before.state, state, self.code or before.code)
            if state == pybreaker.STATE_OPEN:
                do("DELETE FROM failure WHERE model = ? AND operation = ?", self._key)

        self._write(work)

    def increment_counter(self) -> None:
        """Count a failure, in a row and within the window."""
        now, window = self._states.clock(), self.settings.error_window

        def work(do: Do) -> int:
            do(_MAKE, self._key)
            do(
                "UPDATE breaker SET failures = failures + 1, code = ? WHERE model = ? AND operation = ?",
                (self.code, *self._key),
            )
            do(
                "DELETE FROM failure WHERE model = ? AND operation = ? AND (boot <> ? OR at < ? OR at > ?)",
                (*self._key, boot(), now - window, now + 1),
            )
            do("INSERT INTO failure VALUES (?, ?, ?, ?)", (*self._key, now, boot()))
            return int(do("SELECT count(*) FROM failure WHERE model = ? AND operation = ?", self._key).fetchone()[0])

        self._flooded = self._write(work) >= self.settings.max_errors

    @property
    def counter(self) -> int:
        """Failures in a row; as many as open the breaker if there were too many within the window."""
        failures = self.circuit.failures
        return max(failures, self.settings.max_failures) if self._flooded else failures

    def reset_counter(self) -> None:
        """Nothing failed: begin to count anew, unless the call says nothing about the model."""
        if not self._excused and self.circuit.failures:
            self._set("failures = 0")

    @property
    def success_counter(self) -> int:
        """Probes in a row that went well."""
        return self.circuit.successes

    def increment_success_counter(self) -> None:
        """A probe went well."""
        if not self._excused:
            self._set("successes = successes + 1")

    def reset_success_counter(self) -> None:
        """Begin to count probes anew."""
        if self.circuit.successes:
            self._set("successes = 0")

    @property
    def opened_at(self) -> dt.datetime | None:
        """When it opened, by today's wall clock: the time that has passed since is what counts."""
        elapsed = min(self.circuit.open_seconds, 1e9)
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=elapsed)

    @opened_at.setter
    def opened_at(self, _now: dt.datetime) -> None:

        def work(do: Do) -> None:
            do(_MAKE, self._key)
            do(
                "UPDATE breaker SET opened = ?, boot = ? WHERE model = ? AND operation = ? AND state <> 'open'",
                (self._states.clock(), boot(), *self._key),
            )

        self._write(work)

    def _set(self, change: str) -> None:
        update = f"UPDATE breaker SET {change} WHERE model = ? AND operation = ?"  # noqa: S608 - our own words
        self._write(lambda do: do(update, self._key))
