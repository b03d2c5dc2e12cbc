"""What shows results to people: the HTML pages, and the task that also leaves artifacts in Prefect.

A run's page is written last. That it exists means that the run is complete; a
run killed earlier repeats only the cheap end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from expectations.docs import build_data_docs_from
from grym.config import Settings
from grym.corpus.loaders import load_dataset
from grym.corpus.manifest import Entry
from grym.errors import GrymError
from grym.schema import TABLES
from grym.store import RunRef, Store
from reports.artifacts import summary_markdown, summary_table
from reports.frames import RunData, asked
from reports.render import render_index, render_run
from reports.sound import clip_audio
from tasks.policies import PLAIN


def run_data(store: Store, run: RunRef) -> RunData:
    """All tables of one run."""
    return RunData(run.id, {name: store.read(name, run) for name in TABLES})


def history_of(store: Store) -> pl.DataFrame:
    """Comparisons of all runs with the time and dataset of their run, oldest first."""
    runs = store.runs()
    started = runs.filter(runs["state"] == "started").select("run_id", "at", "dataset")
    return store.read("comparisons").join(started, on="run_id", how="left").sort("at", "run_id", "metric")


def page_of(home: Path, run_id: str) -> Path:
    """Where the page of a run lies."""
    return home / "reports" / f"{run_id}.html"


def stored_entries(settings: Settings, data: RunData) -> dict[str, Entry]:
    """Where the clips of a stored run lie, by content id; empty if its dataset cannot be found any more."""
    try:
        found = {entry.key: entry for entry in load_dataset(asked(data).dataset, settings).entries}
    except GrymError:
        return {}
    named = data.table("clips").select("clip_id", "key").iter_rows()
    return {clip_id: found[key] for clip_id, key in named if key in found}


def render(store: Store, settings: Settings, data: RunData, entries: Mapping[str, Entry]) -> Path:
    """Write the quality page, the index of all runs and, last, the page of one run.

    Args:
        store: where all runs are.
        settings: grym.toml.
        data: the run's rows.
        entries: where its clips lie, by content id, for the players; see :func:`stored_entries`.

    Returns:
        The run's page, ``HOME/reports/RUN.html``.

    Raises:
        StorageError: a page cannot be written.
    """
    page = page_of(store.home, data.run_id)
    docs = build_data_docs_from(data.table("quality").to_dicts(), store.home / "datadocs" / data.run_id)
    render_index(store.runs(), store.read("comparisons"), page.with_name("index.html"))
    # Relative, so that the home can be moved or handed on.
    link = Path(os.path.relpath(docs, page.parent)).as_posix()
    audio = clip_audio(settings.audio, entries)
    return render_run(data, history_of(store), page, audio=audio, data_docs=link)


@task(name="report", tags=["cpu"], **PLAIN)
def report(store: Store, run: RunRef, settings: Settings, entries: Mapping[str, Entry]) -> Path:
    """Leave artifacts in Prefect and write the pages of a run, its own one last."""
    data, page = run_data(store, run), page_of(store.home, run.id)
    key = f"compare-{run.id}"
    create_table_artifact(key=key, table=summary_table(data), description=f"Comparison {run.id}")
    create_markdown_artifact(key=f"{key}-summary", markdown=summary_markdown(data, report=page.name))
    create_link_artifact(key=f"{key}-report", link=page.resolve().as_uri(), link_text=f"Report {page.name}")
    return render(store, settings, data, entries)
