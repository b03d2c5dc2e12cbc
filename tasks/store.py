"""Tasks on the stores."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from grym.store import Store
from tasks.policies import PLAIN


@task(name="publish", tags=["cpu"], **PLAIN)
def publish(store: Store, views: Path) -> Path:
    """Rebuild the warehouse from the landing zone and swap it in; serial by a lock file in the home."""
    return store.publish(views=views).path
