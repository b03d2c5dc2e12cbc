"""Tasks of the upkeep of a home, and the page they leave in Prefect."""

from __future__ import annotations

from datetime import timedelta

from prefect import task
from prefect.artifacts import create_markdown_artifact

from grym.maintain import Compacted, FeaturesTended, Maintained, Pruned, compact, markdown, prune, tend
from grym.store import Store
from tasks.policies import PLAIN, STORAGE


@task(name="compact parts", tags=["cpu"], **STORAGE)
def compact_parts(store: Store, min_parts: int) -> Compacted:
    """Put the many parts of runs that have finished and have their page together; the others are left alone."""
    reported = {path.stem for path in (store.home / "reports").glob("*.html")}
    runs = store.runs()
    finished = set(runs.filter(runs["state"] == "finished")["run_id"])
    return compact(store, finished & reported, min_parts=min_parts)


@task(name="tend features", tags=["cpu"], **STORAGE)
def tend_features(store: Store, keep: timedelta) -> FeaturesTended:
    """Compact the feature store and remove versions older than ``keep``."""
    return tend(store.home, keep=keep)


@task(name="prune scratch", tags=["cpu"], **STORAGE)
def prune_scratch(store: Store) -> Pruned:
    """Remove scratch folders of processes that are gone."""
    return prune(store.home)


@task(name="tell upkeep", **PLAIN)
def tell_upkeep(done: Maintained) -> None:
    """Leave what was done as a page in Prefect."""
    create_markdown_artifact(key="maintain", markdown=markdown(done), description="What the last upkeep did")
