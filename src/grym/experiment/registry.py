"""Which configurations have run: one version has one configuration for ever.

The table ``experiments`` holds each version's canonical configuration and digest. Knows nothing about files in
``experiments/``.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from filelock import FileLock

from grym.errors import ConfigError
from grym.experiment.control import read_state
from grym.experiment.loading import check_namespaces, parse_experiment
from grym.parts import disk
from grym.store import RunRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grym.experiment.config import Experiment
    from grym.store import Store


def run_id(experiment: str, version: int) -> str:
    """The run that rows of a version land under.

    Example:
        >>> run_id("mini-int8", 1)
        'mini-int8.v1'
    """
    return f"{experiment}.v{version}"


def register(store: Store, experiment: Experiment, *, now: datetime | None = None) -> bool:
    """Note that a version runs, once; to be called before anybody is assigned.

    Args:
        store: where it is noted.
        experiment: the version.
        now: time of the note (UTC); default the clock's.

    Returns:
        Whether it is new.

    Raises:
        ConfigError: the version has run with another configuration, is not the next one, or wants units of a namespace
            that another experiment in force has.
        StorageError: the store cannot be used.
    """
    at = now or datetime.now(UTC)
    with disk("The experiment"):
        (store.home / "locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(store.home / "locks" / "experiments.lock")
    with lock:
        digests = _digests(store)
        known = digests.get((experiment.name, experiment.version))
        if known == experiment.digest:
            return False
        if known is not None:
            raise _changed(experiment, known)
        last = max((version for name, version in digests if name == experiment.name), default=experiment.version - 1)
        if experiment.version != last + 1:
            raise _not_next(experiment, last)
        check_exclusive(store, experiment)
        row = {
            "experiment": experiment.name,
            "version": experiment.version,
            "digest": experiment.digest,
            "config": experiment.canonical,
            "at": at,
        }
        run = RunRef(run_id(experiment.name, experiment.version), at.astimezone(UTC).date().isoformat())
        store.land("experiments", [row], run=run, part="configuration")
    return True


def registered(store: Store) -> Mapping[tuple[str, int], Experiment]:
    """Every version that has run, by name and version.

    Raises:
        StorageError: a part cannot be read.
        ConfigError: a configuration was written by a newer release and has keys that this one does not know.
    """
    rows = store.read("experiments").select("experiment", "version", "config").iter_rows()
    return {(name, version): parse_experiment(json.loads(config)) for name, version, config in rows}


def latest(store: Store, name: str) -> Experiment:
    """The last version of an experiment that has run, whatever its file says by now.

    Raises:
        ConfigError: none has run.
        StorageError: a part cannot be read.
    """
    versions = [version for known, version in _digests(store) if known == name]
    if not versions:
        msg = f"Experiment {name!r} has not been started."
        raise ConfigError(msg, code="not-started", hint=f"Start it: python -m flows experiment {name} start.")
    return registered(store)[name, max(versions)]


def check_exclusive(store: Store, experiment: Experiment) -> None:
    """Make sure that no other experiment in force has units of the same namespace.

    In force is the last version of each experiment that is not stopped.

    Raises:
        ConfigError: ranges overlap, or units are hashed differently.
        StorageError: a part cannot be read.
    """
    for other in {one.name: one for _, one in sorted(registered(store).items())}.values():
        if other.name != experiment.name and not read_state(store.home, other).killed:
            check_namespaces((experiment, other))


def _digests(store: Store) -> dict[tuple[str, int], str]:
    rows = store.read("experiments").select("experiment", "version", "digest").iter_rows()
    return {(name, version): digest for name, version, digest in rows}


def _changed(experiment: Experiment, known: str) -> ConfigError:
    msg = (
        f"Experiment {experiment.name!r} has run version {experiment.version} with another configuration "
        f"(digest {known[:12]}, now {experiment.digest[:12]})."
    )
    hint = (
        f"Set version = {experiment.version + 1}, or restore what it was; keep the salt, and every unit keeps its arm."
    )
    return ConfigError(msg, code="changed-configuration", hint=hint)


def _not_next(experiment: Experiment, last: int) -> ConfigError:
    msg = f"Experiment {experiment.name!r} has run up to version {last}; version {experiment.version} is not the next."
    return ConfigError(msg, code="bad-version", hint=f"Set version = {last + 1}.")
