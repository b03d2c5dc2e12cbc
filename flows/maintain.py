"""Upkeep of a home: publish what has landed, put small parts together, tend the feature store, prune scratch folders.

Order and policy only; what each step means is in ``grym.maintain``. It can be
killed at any moment, repeated, and run beside a comparison.

Run: ``python -m flows maintain``
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

from prefect import flow, runtime
from prefect.concurrency.sync import concurrency
from pydantic import Field

from grym.config import ensure_home, load_settings
from grym.errors import ErrorRecord, GrymError, StorageError
from grym.maintain import Maintained
from grym.store import Store
from reports import VIEWS
from tasks import policies
from tasks.maintain import compact_parts, prune_scratch, tell_upkeep, tend_features
from tasks.store import publish

TURN_SECONDS = 900.0


@flow(name="maintain", flow_run_name="upkeep", persist_result=False, validate_parameters=True)
def maintain(
    min_parts: Annotated[int, Field(ge=2)] = 16, keep_versions_hours: Annotated[float, Field(ge=0)] = 24.0
) -> Maintained:
    """Bring the stores of a home into good order.

    Args:
        min_parts: tables of complete runs with at least so many parts become one part.
        keep_versions_hours: versions of the feature store older than that are removed; no less than the longest
            reader lives.

    Returns:
        What was done at each step.

    Raises:
        GrymError: the first failure of a step; the other steps were done, and the artifact names all.
    """
    settings = load_settings()
    ensure_home(settings)
    store = Store(settings.home)
    steps = _Steps()
    with _turn():
        done = Maintained(
            compacted=steps.run("landing zone", compact_parts, store, min_parts),
            published=steps.run("warehouse", publish, store, VIEWS),
            features=steps.run("feature store", tend_features, store, timedelta(hours=keep_versions_hours)),
            pruned=steps.run("scratch folders", prune_scratch, store),
            failures=steps.records,
            task_runs=steps.count + 1,
            flow_run_id=str(runtime.flow_run.id or ""),
        )
    tell_upkeep(done)
    if steps.first is not None:
        raise steps.first
    return done


class _Steps:
    """Runs steps one after another; one that fails does not keep the next from its work."""

    def __init__(self) -> None:
        self.count = 0
        self.first: GrymError | None = None
        self.records: dict[str, ErrorRecord] = {}

    def run(self, step: str, work: Any, *arguments: object) -> Any:
        """What a task gives, ``None`` if it fails with a typed error."""
        self.count += 1
        try:
            return work(*arguments)
        except GrymError as error:
            self.first = self.first or error
            self.records[step] = error.record()
            return None


@contextmanager
def _turn() -> Iterator[None]:
    """One upkeep at a time, wherever it was started; without `make deploy` there is no limit to wait for.

    Raises:
        StorageError: another one does not end.
    """
    slot = concurrency(policies.MAINTENANCE, timeout_seconds=TURN_SECONDS, raise_on_lease_renewal_failure=False)
    try:
        slot.__enter__()
    except TimeoutError as error:
        msg = f"Another upkeep has not ended for {TURN_SECONDS:g} s."
        hint = "Look for it in the Prefect UI, and cancel it or wait."
        raise StorageError(msg, code="maintenance-busy", hint=hint, retryable=True) from error
    try:
        yield
    finally:
        slot.__exit__(None, None, None)
