"""Tasks that show results to people: the HTML report and Prefect's artifacts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from grym.schema import TABLES
from grym.store import RunRef, Store
from reports.artifacts import summary_markdown, summary_table
from reports.frames import RunData
from reports.render import render_index, render_run
from tasks.policies import PLAIN


def run_data(store: Store, run: RunRef) -> RunData:
    """All tables of one run."""
    return RunData(run.id, {name: store.read(name, run) for name in TABLES})


def history_of(store: Store) -> pl.DataFrame:
    """Comparisons of all runs with the time and dataset of their run, oldest first."""
    runs = store.runs()
    started = runs.filter(runs["state"] == "started").select("run_id", "at", "dataset")
    return store.read("comparisons").join(started, on="run_id", how="left").sort("at", "run_id", "metric")


@task(name="report", tags=["cpu"], **PLAIN)
def report(
    store: Store, run: RunRef, folder: Path, audio: Callable[[str], bytes | None] | None, data_docs: str | None
) -> Path:
    """Render the run's page and the index of all runs, and leave artifacts in Prefect."""
    data = run_data(store, run)
    page = render_run(data, history_of(store), folder / f"{run.id}.html", audio=audio, data_docs=data_docs)
    render_index(store.runs(), store.read("comparisons"), folder / "index.html")
    key = f"compare-{run.id}"
    create_table_artifact(key=key, table=summary_table(data), description=f"Comparison {run.id}")
    create_markdown_artifact(key=f"{key}-summary", markdown=summary_markdown(data, report=page.name))
    create_link_artifact(key=f"{key}-report", link=page.resolve().as_uri(), link_text=f"Report {page.name}")
    return page
