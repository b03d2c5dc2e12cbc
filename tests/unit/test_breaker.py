"""Circuit breakers and the state that processes share: counted, opened, probed, damaged, mirrored."""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING

import pytest

from grym._resilience_settings import BreakerSettings
from grym.config import ModelSpec
from grym.errors import AudioError, ConfigError, GrymError, ModelError, UnavailableError, WorkerError
from grym.parts import full
from grym.resilience import state
from grym.resilience.breaker import Breakers, blames_model
from grym.resilience.records import land_events, tell_events
from grym.resilience.state import FILE, States
from grym.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALL = ("mini", "process_audio")


class Clock:
    """Monotonic seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture
def states(tmp_path: Path, clock: Clock) -> Iterator[States]:
    """The shared state of an empty home."""
    made = States(tmp_path / "home", clock=clock)
    yield made
    made.close()


def breakers(states: States, **settings: object) -> Breakers:
    """Breakers that open after two failures, for 10 s."""
    chosen = {"max_failures": 2, "reset_timeout": 10.0, "max_reset_timeout": 25.0, **settings}
    breaker = BreakerSettings.model_validate(chosen)
    return Breakers(states, {"mini": ModelSpec(name="mini", adapter="fake", breaker=breaker)})


def fail(made: Breakers, error: BaseException | None = None, call: tuple[str, str] = CALL) -> str:
    """Let one call fail; the code of the error that came back."""

    def ask() -> None:
        raise error or WorkerError("It died.")

    with pytest.raises(type(error) if error else GrymError) as caught:
        made.call(*call, ask)
    return getattr(caught.value, "code", "")


def test_it_opens_refuses_and_closes_after_a_probe(states: States, clock: Clock) -> None:
    """Two failures in a row open it; nobody is asked until the time is over; a probe that goes well closes it."""
    made = breakers(states)
    assert [fail(made), fail(made), fail(made)] == ["worker-crashed", "worker-crashed", "breaker-open"]
    with pytest.raises(UnavailableError) as caught:
        made.call(*CALL, lambda: pytest.fail("it was asked"))
    assert caught.value.metadata["retry_after_seconds"] == 10.0
    assert not caught.value.retryable
    clock.now += 9.9
    assert fail(made) == "breaker-open"
    clock.now += 0.2
    assert made.call(*CALL, lambda: 42) == 42
    assert states.circuit(*CALL).state == "closed"
    assert states.circuit(*CALL).failures == 0
    assert fail(made) == "worker-crashed"
    assert states.circuit(*CALL).state == "closed"


def test_each_operation_has_its_own_and_some_have_none(states: States) -> None:
    """What fails in one operation does not close the door to another; an operation that is not monitored has none."""
    made = breakers(states, monitored_operations=("process_audio", "analyze"))
    for _ in range(3):
        fail(made)
    assert made.call("mini", "analyze", lambda: 1) == 1
    assert [fail(made, call=("mini", "ping")) for _ in range(4)] == ["worker-crashed"] * 4
    assert [circuit.operation for circuit in made.circuits()] == ["process_audio"]
    assert made.call("other", "process_audio", lambda: 2) == 2


def test_a_probe_that_fails_doubles_the_wait_up_to_a_bound(states: States, clock: Clock) -> None:
    """10 s, then 20, then no more than 25."""
    made = breakers(states)
    fail(made)
    fail(made)
    waits = []
    for _ in range(4):
        with pytest.raises(UnavailableError) as caught:
            made.call(*CALL, lambda: 1)
        waits.append(caught.value.metadata["retry_after_seconds"])
        clock.now += float(waits[-1])
        assert fail(made) == "worker-crashed"
    assert waits == [10.0, 20.0, 25.0, 25.0]


def test_only_one_is_the_probe(states: States, clock: Clock, tmp_path: Path) -> None:
    """While a probe is under way, another process is refused; the lease of a dead one runs out."""
    made, other = breakers(states), breakers(States(tmp_path / "home", clock=clock))
    fail(made)
    fail(made)
    clock.now += 11

    def probe() -> str:
        return fail(other)

    assert made.call(*CALL, probe) == "probing"
    assert other.call(*CALL, lambda: 1) == 1
    assert states.take_lease("probe/mini/process_audio", 60)
    fail(made)
    fail(made)
    clock.now += 11
    assert fail(other) == "probing"
    clock.now += 60
    assert other.call(*CALL, lambda: 3) == 3


def test_several_probes_can_be_asked_for(states: States, clock: Clock) -> None:
    """With two successes asked for, the first one leaves it half-open."""
    made = breakers(states, probe_successes=2)
    fail(made)
    fail(made)
    clock.now += 11
    made.call(*CALL, lambda: 1)
    assert states.circuit(*CALL).state == "half-open"
    made.call(*CALL, lambda: 1)
    assert states.circuit(*CALL).state == "closed"


def test_errors_that_say_nothing_about_the_model_count_neither_way(states: States, clock: Clock) -> None:
    """A bad clip, a setting, a full disk or Ctrl-C neither opens the breaker, nor resets it, nor closes it."""
    made = breakers(states)
    fail(made)
    for error in (AudioError("Bad clip."), ConfigError("Typo."), full("Full."), KeyboardInterrupt()):
        assert not blames_model(error)
        fail(made, error)
    assert states.circuit(*CALL).failures == 1
    assert fail(made, ModelError("Bad.")) == "model"
    assert states.circuit(*CALL).state == "open"
    clock.now += 11
    fail(made, AudioError("Bad clip."))
    assert states.circuit(*CALL).state == "half-open"
    assert blames_model(ValueError("a defect"))


def test_repeated_errors_open_it_whatever_went_well_between(states: States, clock: Clock) -> None:
    """Three errors within a minute are too many, also with successes between them; older ones are forgotten."""
    made = breakers(states, max_failures=5, max_errors=3, error_window=60)
    for _ in range(4):
        fail(made)
        made.call(*CALL, lambda: 1)
        clock.now += 31
    assert states.circuit(*CALL).state == "closed"
    for _ in range(2):
        fail(made)
        clock.now += 1
    assert states.circuit(*CALL).state == "open"


def test_blame_that_comes_later_counts_too(states: States, clock: Clock) -> None:
    """Answers that were not accepted open it although the calls went well; a healthy check lets a probe through."""
    made = breakers(states, max_failures=9, max_errors=3)
    for _ in range(3):
        assert states.circuit(*CALL).state == "closed"
        made.call(*CALL, lambda: 1)
        made.blame(*CALL, ModelError("Nonsense.", code="unsure"))
    assert states.circuit(*CALL).state == "open"
    assert states.circuit(*CALL).code == "unsure"
    made.allow_probe("mini")
    assert made.call(*CALL, lambda: 1) == 1
    made.blame("mini", "ping", ModelError("Not monitored."))
    assert states.circuit("mini", "ping").failures == 0


def test_a_restart_of_the_machine_lets_a_probe_through(
    states: States, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock begins anew with the machine, so what was open then is old; leases and cool-downs too."""
    made = breakers(states)
    fail(made)
    fail(made)
    assert states.take_lease("x", 60)
    assert states.cooled("y", 60) == 0
    assert states.take_lease("x", 60) == ""
    monkeypatch.setattr(state, "boot", lambda: "another")
    clock.now = 5.0
    assert made.call(*CALL, lambda: 1) == 1
    assert states.take_lease("x", 60)
    assert states.cooled("y", 60) == 0


def test_a_damaged_file_is_put_aside(states: States, caplog: pytest.LogCaptureFixture) -> None:
    """Calls go on, the count begins anew, and the old file is kept."""
    made = breakers(states)
    fail(made)
    states.close()
    states.path.write_bytes(b"this is no database" * 100)
    for tail in ("-wal", "-shm"):
        states.path.with_name(states.path.name + tail).unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING):
        fail(made)
    assert "damaged" in caplog.text
    assert states.shared
    assert states.circuit(*CALL).failures == 1
    assert states.path.with_suffix(".damaged").exists()


def test_without_a_file_the_state_is_kept_in_memory(tmp_path: Path, clock: Clock) -> None:
    """A home that is a file breaks no call; the breaker still works, and looks for the file again later."""
    home = tmp_path / "home"
    home.write_text("not a folder")
    states = States(home, clock=clock)
    made = breakers(states)
    fail(made)
    fail(made)
    assert fail(made) == "breaker-open"
    assert not states.shared
    home.unlink()
    clock.now += state.TRY_AGAIN_SECONDS + 1
    assert made.call(*CALL, lambda: 1) == 1
    assert states.shared
    states.close()


def test_a_file_that_is_locked_for_long_breaks_no_call(states: States, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the write lock delays a call by the patience at most; then this process counts alone."""
    monkeypatch.setattr(state, "BUSY_SECONDS", 0.05)
    made = breakers(states)
    made.call(*CALL, lambda: 1)
    holder = sqlite3.connect(states.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert fail(made) == "worker-crashed"
    holder.execute("ROLLBACK")
    holder.close()
    assert not states.shared
    assert states.circuit(*CALL).failures == 1


def test_changes_are_landed_once_and_told_once(states: States, tmp_path: Path) -> None:
    """Each change becomes a row and is told; one that cannot be told is told the next time, and nothing twice."""
    made = breakers(states)
    fail(made)
    fail(made)
    store = Store(tmp_path / "home")
    assert len(land_events(states, store)) == 1
    assert land_events(states, store) == []
    told: list[str] = []

    def broken(event: state.Event) -> None:
        raise ConnectionError(event.event_id)

    with pytest.raises(ConnectionError):
        tell_events(states, broken)
    assert tell_events(states, lambda event: told.append(f"{event.subject} {event.after}")) == 1
    assert tell_events(states, lambda event: told.append(event.after)) == 0
    assert told == ["mini/process_audio open"]
    rows = store.read("events").select("kind", "subject", "before", "after", "reason").rows()
    assert rows == [("breaker", "mini/process_audio", "closed", "open", "worker-crashed")]


def test_a_process_that_was_stopped_while_it_wrote_costs_nobody_the_call(tmp_path: Path) -> None:
    """Whoever cannot write goes on alone for a moment, and shares again soon after."""
    now = [1000.0]
    states = States(tmp_path, clock=lambda: now[0], busy_seconds=0.01)
    states.put_note("who", "all")
    stopped = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    stopped.execute("BEGIN IMMEDIATE")
    states.put_note("who", "one")
    assert not states.shared
    stopped.execute("ROLLBACK")
    stopped.close()
    now[0] += 3
    assert states.note("who") is not None
    assert states.shared
    states.close()
