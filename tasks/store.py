"""Tasks on the stores."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from grym.store import PublishResult, Store
from tasks.policies import STORAGE


@task(name="publish", tags=["cpu", "publish"], **STORAGE)
def publish(store: Store, views: Path) -> PublishResult:
    """Rebuild the warehouse from the landing zone and swap it in; serial by a lock file in the home."""
    return store.publish(views=views)
