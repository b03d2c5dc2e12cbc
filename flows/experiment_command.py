"""What ``python -m flows experiment`` does without a server: status, start, ramp, stop, resume, replay.

Starts quickly: Prefect is not imported. Every process obeys a change within a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from flows.terminal import styled
from grym.config import Settings, ensure_home, load_settings
from grym.errors import ConfigError
from grym.experiment.config import Experiment
from grym.experiment.control import State, kill, ramp, read_state, revive
from grym.experiment.ledger import check_registered, replay_all
from grym.experiment.loading import find_experiment
from grym.experiment.registry import check_exclusive, latest, register
from grym.store import Store

if TYPE_CHECKING:
    from flows.experiment import Decided

ACTIONS: Final = ("status", "decide", "replay", "start", "ramp", "stop", "resume")


def check_action(action: str, coverage: float | None) -> None:
    """Make sure that there is such an action.

    Raises:
        ConfigError: there is none, or it lacks its coverage.
    """
    if action not in ACTIONS:
        msg = f"An experiment cannot {action!r}."
        raise ConfigError(msg, code="unknown-action", hint=f"Use one of: {', '.join(ACTIONS)}.")
    if action == "ramp" and coverage is None:
        msg = "ramp needs the step to go to."
        raise ConfigError(msg, code="no-coverage", hint="Give --coverage 0.25, for example.")


def run_action(
    out: Console, name: str, action: str, *, coverage: float | None = None, reason: str = "", looks: int = 16
) -> bool:
    """Do one of them; whether all went as it should.

    Raises:
        GrymError: the experiment is unknown, was not started, has changed, or the home cannot be used.
    """
    settings = load_settings()
    if action == "replay":
        return replay(out, settings, name)
    if action == "status":
        status(out, settings, name, looks=looks)
    else:
        steer(out, settings, name, action, coverage=coverage, reason=reason)
    return True


def show_decided(out: Console, decided: Decided) -> None:
    """The decision on the terminal."""
    found = decided.decision
    out.print(styled(found.verdict, "bold", f" {found.arm}" if found.arm else ""), highlight=False)
    for sentence in found.advice:
        out.print(sentence.text, highlight=False, markup=False, soft_wrap=True)
    if decided.stopped:
        out.print("It was stopped: everybody gets the control's model.", style="yellow")
    out.print(f"Record {found.digest}. Report: {decided.page}", highlight=False, markup=False, soft_wrap=True)


def steer(out: Console, settings: Settings, name: str, action: str, *, coverage: float | None, reason: str) -> None:
    """Start, ramp, stop or resume an experiment; no server is needed, and every process obeys within a second.

    Raises:
        ConfigError: the experiment is unknown, has changed under its version, has no such step, names a model that is
            not registered, or wants units of another experiment.
        StorageError: the home cannot be written to.
    """
    ensure_home(settings)
    store = Store(settings.home)
    # A stop must work whatever has become of the file, so it asks what has run.
    config = latest(store, name) if action == "stop" else find_experiment(settings.root, name)
    if action == "start":
        for arm in config.arms:
            settings.model(arm.model)
        new = register(store, config)
        out.print(f"{name} version {config.version} {'is registered' if new else 'was registered before'}.")
    elif action != "stop":
        check_registered(store, config)
    state = _changed(store, config, action, coverage, reason)
    out.print(_said(config, state), highlight=False, soft_wrap=True)


def status(out: Console, settings: Settings, name: str, *, looks: int) -> Path:
    """Say what is in force and what the decision would be now, and draw the page; nothing is decided.

    Raises:
        ConfigError: the experiment is unknown, was not started, or has changed under its version.
        StorageError: a part cannot be read.
    """
    from reports.experiment import status_page

    store, config = Store(settings.home), find_experiment(settings.root, name)
    check_registered(store, config)
    page = status_page(store, config, looks=looks, say=lambda line: out.print(line, highlight=False, soft_wrap=True))
    out.print(_said(config, read_state(store.home, config)), highlight=False, soft_wrap=True)
    return page


def replay(out: Console, settings: Settings, name: str) -> bool:
    """Compute every stored record again; whether all give the same bytes.

    Raises:
        ConfigError: the experiment is unknown.
        StorageError: a part cannot be read.
    """
    found = replay_all(Store(settings.home), find_experiment(settings.root, name))
    for one in found:
        said = "the same bytes" if one.same else one.why or "OTHER BYTES"
        out.print(f"{one.at:%Y-%m-%d %H:%M} {one.verdict} {one.decision[:12]}: {said}", highlight=False)
    out.print(f"{sum(one.same for one in found)} of {len(found)} records replay to the same bytes.", highlight=False)
    return all(one.same for one in found)


def _changed(store: Store, config: Experiment, action: str, coverage: float | None, reason: str) -> State:
    if action == "stop":
        return kill(store.home, config, reason or "stopped by hand")
    if action == "resume":
        check_exclusive(store, config)
        return revive(store.home, config)
    if coverage is not None:
        return ramp(store.home, config, coverage)
    return read_state(store.home, config)


def _said(config: Experiment, state: State) -> str:
    if state.killed:
        return (
            f"{config.name} is stopped ({state.reason}): everybody gets {config.control.model}. That holds for every "
            f"version until python -m flows experiment {config.name} resume takes it back."
        )
    return f"{config.name} enrols {100 * state.coverage:g} % of its units."
