"""The two things that change while a version runs: how much is enrolled, and whether it is stopped at once.

Each version has its own coverage and begins at the first step of its ramp. A stop is the experiment's: it holds for
every version, later ones too, until it is taken back.

One small file per experiment, ``HOME/experiments/NAME.json``, replaced whole. Every assigner looks at it at most
five times a second, so that a kill reaches every process within a second, sticky units included. What cannot be read
counts as a kill: in doubt nobody is experimented on. Knows nothing about assignment.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from filelock import FileLock

from grym.errors import ConfigError
from grym.parts import disk, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from grym.experiment.config import Experiment

LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class State:
    """What is in force.

    Attributes:
        killed: whether nobody is enrolled, whoever was before.
        coverage: fraction of each arm's units that are enrolled, in [0, 1].
        reason: why it was killed, for people.
    """

    killed: bool = False
    coverage: float = 1.0
    reason: str = ""


class Switch:
    """The state of one experiment, as its file says; call it for the state in force.

    Args:
        home: folder of everything that is stored.
        experiment: whose state; where the file does not know its version, its ramp's first coverage holds.
        clock: monotonic seconds.
    """

    def __init__(self, home: Path, experiment: Experiment, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = _path(home, experiment.name)
        self._version = experiment.version
        self._initial = State(coverage=experiment.ramp.coverage[0])
        self._clock = clock
        self._next = clock()
        self._state = self._initial

    def __call__(self) -> State:
        """The state in force, at most :data:`LOOK_SECONDS` old."""
        now = self._clock()
        if now >= self._next:
            self._state = _state(_read(self._path), self._version, self._initial)
            self._next = now + LOOK_SECONDS
        return self._state


def read_state(home: Path, experiment: Experiment) -> State:
    """The state of an experiment, as its file says now."""
    initial = State(coverage=experiment.ramp.coverage[0])
    return _state(_read(_path(home, experiment.name)), experiment.version, initial)


def kill(home: Path, experiment: Experiment, reason: str) -> State:
    """Stop an experiment, all of its versions: from now on nobody is enrolled.

    Raises:
        StorageError: the home cannot be written to.
        ResourceError: the disk is full.
    """
    return _change(home, experiment, lambda state: State(killed=True, coverage=state.coverage, reason=reason))


def revive(home: Path, experiment: Experiment) -> State:
    """Take a kill back; the coverage is the one before.

    Raises:
        StorageError: the home cannot be written to.
        ResourceError: the disk is full.
    """
    return _change(home, experiment, lambda state: State(coverage=state.coverage))


def ramp(home: Path, experiment: Experiment, coverage: float) -> State:
    """Go to a step of the ramp. Units that are enrolled at a lower step keep their arm at every higher one.

    Raises:
        ConfigError: the coverage is not a step of the experiment's ramp.
        StorageError: the home cannot be written to.
        ResourceError: the disk is full.
    """
    if coverage not in experiment.ramp.coverage:
        steps = ", ".join(f"{step:g}" for step in experiment.ramp.coverage)
        msg = f"Experiment {experiment.name!r} has no ramp step {coverage:g}; it has: {steps}."
        raise ConfigError(msg, code="bad-ramp", hint="Use one of these, or change the ramp in a new version.")
    return _change(home, experiment, lambda state: State(state.killed, coverage, state.reason))


def _change(home: Path, experiment: Experiment, change: Callable[[State], State]) -> State:
    path = _path(home, experiment.name)
    with disk(f"The state of experiment {experiment.name!r}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            state = change(read_state(home, experiment))
            before = _read(path)
            others = before.coverage if isinstance(before, _Said) and isinstance(before.coverage, dict) else {}
            coverage = others | {str(experiment.version): state.coverage}
            write(path, memoryview(json.dumps(asdict(_Said(state.killed, coverage, state.reason))).encode()))
    return state


def _path(home: Path, name: str) -> Path:
    return home / "experiments" / f"{name}.json"


@dataclass(frozen=True, slots=True)
class _Said:
    """What a file says: the coverage of each version, or one number, which earlier releases wrote, for all of them."""

    killed: bool
    coverage: dict[str, float] | float
    reason: str


def _read(path: Path) -> _Said | str:
    """What the file says, or what is wrong with it; empty if there is none."""
    try:
        said = json.loads(path.read_bytes())
        coverage = said["coverage"]
        steps = {str(v): float(c) for v, c in coverage.items()} if isinstance(coverage, dict) else float(coverage)
        return _Said(said["killed"] is not False, steps, str(said["reason"]))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError):
        return "the file with the state cannot be read"


def _state(said: _Said | str, version: int, initial: State) -> State:
    if isinstance(said, str):
        return State(killed=True, coverage=initial.coverage, reason=said) if said else initial
    steps = said.coverage
    coverage = steps.get(str(version), initial.coverage) if isinstance(steps, dict) else steps
    return State(said.killed, min(1.0, max(0.0, coverage)), said.reason)
