"""From grym.toml to routes and health checks: workers, shared state, rows; everything is let go at the end."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from grym.errors import GrymError
from grym.resilience.breaker import Breakers
from grym.resilience.failover import Route
from grym.resilience.health import HealthChecks
from grym.resilience.ladder import Ladder
from grym.resilience.ledger import Ledger
from grym.resilience.members import THREADS, Member
from grym.resilience.memory import MemoryManager
from grym.resilience.records import Alerts, Recorder, land_events
from grym.resilience.state import CALL_BUSY_SECONDS, States
from grym.scratch import scratch_folder
from grym.store import Store
from grym.worker import Pool, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from grym.config import ModelSpec, Settings
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
        states = States(settings.home, busy_seconds=CALL_BUSY_SECONDS)
        stack.callback(states.close)
        stack.callback(_mirror, states, store)
        recorder = stack.enter_context(Recorder(store))
        manager = memory_manager(settings, states)
        threads = max(THREADS, settings.worker.workers) + settings.worker.queue
        members = {model: Member(model, _maker(settings, model, scratch, manager), threads) for model in route.models}
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


def memory_manager(settings: Settings, states: States) -> MemoryManager:
    """The memory manager of a home."""
    return MemoryManager(Ledger(states, settings.worker.memory_expiry_seconds))


def _maker(settings: Settings, model: str, scratch: Path, manager: MemoryManager) -> Callable[[], Ladder]:
    """Makes a model of a route: on a ladder, one worker or several."""
    limits = settings.worker
    kind = Worker if limits.workers == 1 and not limits.recycle_after else Pool

    def make(spec: ModelSpec) -> Worker | Pool:
        folder, cache = scratch / model, settings.home / "cache"
        return kind(spec, limits, folder, plugins=settings.plugins.paths, cache=cache)

    return lambda: Ladder(settings.model(model), make, manager, degrade=limits.degrade)
