"""From grym.toml to routes and health checks: workers, shared state, rows; everything is let go at the end."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from grym.errors import GrymError
from grym.resilience.breaker import Breakers
from grym.resilience.failover import Route
from grym.resilience.health import HealthChecks
from grym.resilience.members import Member
from grym.resilience.records import Alerts, Recorder, land_events
from grym.resilience.state import States
from grym.scratch import scratch_folder
from grym.store import Store
from grym.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from grym.config import Settings
    from grym.resilience.failover import Judge


@contextmanager
def open_route(settings: Settings, name: str, *, judge: Judge | None = None) -> Iterator[Route]:
    """A route of grym.toml, ready to be asked; its models load when they are first asked, the primary at once.

    Args:
        settings: grym.toml.
        name: the route.
        judge: evaluates expectation suites; needed if the route names one.

    Raises:
        ConfigError: there is no such route, or it names a model that is not registered.
        StorageError: the home cannot be written to.
    """
    route = settings.route(name)
    store = Store(settings.home)
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder(settings.home, "route"))
        states = States(settings.home)
        stack.callback(states.close)
        stack.callback(_mirror, states, store)
        recorder = stack.enter_context(Recorder(store))
        members = {model: Member(model, _maker(settings, model, scratch)) for model in route.models}
        for member in members.values():
            stack.callback(member.close)
        members[route.primary].revive()
        yield Route(
            route,
            members,
            breakers=Breakers(states, settings.models),
            recovery=settings.recovery,
            recorder=recorder,
            alerts=Alerts(states, recorder),
            judge=judge,
        )


@contextmanager
def open_checks(settings: Settings) -> Iterator[HealthChecks]:
    """The health checks of a home; rows and changes of state are landed at the end."""
    store = Store(settings.home)
    with ExitStack() as stack:
        states = States(settings.home)
        stack.callback(states.close)
        stack.callback(_mirror, states, store)
        recorder = stack.enter_context(Recorder(store))
        yield HealthChecks(settings, Breakers(states, settings.models), recorder, Alerts(states, recorder))


def _mirror(states: States, store: Store) -> None:
    """Land changes of state; where that cannot be done now, whoever comes next does it."""
    with suppress(GrymError):
        land_events(states, store)


def _maker(settings: Settings, model: str, scratch: Path) -> Callable[[], Worker]:
    return lambda: Worker(
        settings.model(model),
        settings.worker,
        scratch / model,
        plugins=settings.plugins.paths,
        cache=settings.home / "cache",
    )
