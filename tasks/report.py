"""What shows results to people: the HTML pages, and the task that also leaves artifacts in Prefect.

A run's page is written last. That it exists means that the run is complete; a
run killed earlier repeats only the cheap end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
from reports.artifacts import summary_markdown, summary_table, together_markdown
from reports.frames import RunData, asked, facts
from reports.index import render_index
from reports.render import render_run
from reports.sound import clip_audio
from reports.together import render_together
from reports.trend import history
from tasks.policies import PLAIN


def run_data(store: Store, run: RunRef) -> RunData:
    """All tables of one run."""
    return RunData(run.id, {name: store.read(name, run) for name in TABLES})


def history_of(store: Store) -> pl.DataFrame:
    """Comparisons of all runs with when their run started and what it was about, oldest first."""
    return history(store.read("comparisons"), store.runs(), store.read("models"))


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
    past = history_of(store)
    render_index(store.runs(), past, page.with_name("index.html"))
    # Relative, so that the home can be moved or handed on.
    link = Path(os.path.relpath(docs, page.parent)).as_posix()
    audio = clip_audio(settings.audio, entries)
    return render_run(data, past, page, audio=audio, data_docs=link)


@task(name="report", tags=["cpu"], **PLAIN)
def report(store: Store, run: RunRef, settings: Settings, entries: Mapping[str, Entry]) -> Path:
    """Leave artifacts in Prefect and write the pages of a run, its own one last."""
    data, page = run_data(store, run), page_of(store.home, run.id)
    address = page.resolve()
    key = f"compare-{run.id}"
    create_table_artifact(
        key=key, table=summary_table(data), description=_description(data, "the figures of both arms")
    )
    text = summary_markdown(data, report=str(address), history=history_of(store))
    create_markdown_artifact(key=f"{key}-summary", markdown=text, description=_description(data, "verdict and summary"))
    create_link_artifact(
        key=f"{key}-report",
        link=address.as_uri(),
        link_text=f"Report {page.name}",
        # Browsers follow no link from a page of a server to a file, so the address has to be readable.
        description=f"{_description(data, 'the full report')} Open it as a file: {address}",
    )
    return render(store, settings, data, entries)


def render_group(store: Store, runs: Sequence[RunRef], group: str) -> Path:
    """Write the page of a comparison on several datasets; the pages of its runs lie beside it.

    Raises:
        StorageError: it cannot be written.
    """
    return render_together([run_data(store, run) for run in runs], group, page_of(store.home, group))


@task(name="report together", tags=["cpu"], **PLAIN)
def report_together(store: Store, runs: Sequence[RunRef], group: str) -> Path:
    """Leave the verdicts of all runs as one artifact in Prefect and write their page: all of them are complete then."""
    all_data = [run_data(store, run) for run in runs]
    page = page_of(store.home, group)
    create_markdown_artifact(
        key=f"compare-{group}-summary",
        markdown=together_markdown(all_data, report=str(page.resolve())),
        description=f"{_pair(all_data[0])}: {len(all_data)} datasets.",
    )
    return render_together(all_data, group, page)


def _pair(data: RunData) -> str:
    return " against ".join(facts(data).labels)


def _description(data: RunData, what: str) -> str:
    """Who was compared on what, for lists of artifacts."""
    known = facts(data)
    return f"{_pair(data)} on {known.dataset}: {what}."
