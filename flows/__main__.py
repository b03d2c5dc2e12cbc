"""The command line: ``python -m flows VERB``.

Starts quickly: Prefect, DuckDB and LanceDB are imported by the verb that needs
them. An error that a person can mend is one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from grym.errors import GrymError

app = typer.Typer(
    name="flows",
    help="grym-synth: run audio models side by side and decide which is better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# A pipe has no width of its own, and a table that is cut helps nobody.
out = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120")))


def _import_heavy() -> None:
    for name in ("great_expectations", "lancedb", "altair", "vl_convert"):
        importlib.import_module(name)


@contextmanager
def _session(home: Path) -> Iterator[Any]:
    """A Prefect server for the flow, with a quiet terminal; the run's log is in the UI."""
    from flows.server import server

    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Their imports take seconds, which pass while the server starts. Prefect itself has to wait for its address.
    threading.Thread(target=_import_heavy, daemon=True).start()
    with out.status("Starting the Prefect server", spinner="dots"):
        entered = server(home)
        found = entered.__enter__()
    try:
        yield found
    finally:
        entered.__exit__(None, None, None)


@app.command()
def compare(
    a: Annotated[str | None, typer.Option(help="First model, a name in grym.toml.")] = None,
    b: Annotated[str | None, typer.Option(help="Second model.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A name in grym.toml, a folder, a CSV or a JSONL manifest.")
    ] = None,
    *,
    new: Annotated[bool, typer.Option("--new", help="Start another run even if an unfinished one exists.")] = False,
) -> None:
    """Compare two models on a dataset: checked, scored, tested, stored, shown."""
    from grym.config import ensure_home, load_settings
    from grym.corpus.loaders import load_dataset
    from grym.store import Store

    settings = load_settings()
    names = {"a": a or settings.compare.a, "b": b or settings.compare.b}
    chosen = dataset or settings.compare.dataset
    # Whatever a person can have typed wrong is said before a server is started.
    for name in names.values():
        settings.model(name)
    load_dataset(chosen, settings)
    ensure_home(settings)
    store = Store(settings.home)
    store.check_unlocked()
    with _session(settings.home) as server:
        from flows.compare import compare as compare_flow
        from flows.progress import shown
        from flows.server import drain
        from flows.show import show_verdict

        with shown(out):
            result = compare_flow(a=names["a"], b=names["b"], dataset=chosen, new=new)
        with out.status("Waiting until the server has recorded every task run"):
            recorded = drain(server.url, result.flow_run_id, result.task_runs)
    show_verdict(out, store, result)
    if recorded < result.task_runs:
        out.print(f"[yellow]The server recorded {recorded} of {result.task_runs} task runs.[/yellow]")


@app.command()
def train(
    scale: Annotated[float, typer.Option(help="Factor on every number of steps, for quick trials.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 20261120,
    voices: Annotated[int, typer.Option(help="Synthetic training voices.")] = 464,
    name: Annotated[str, typer.Option(help="Folder below HOME/training.")] = "wav2vec2-mini",
    manifest: Annotated[str, typer.Option(help="Further clips to train on, CSV or JSONL.")] = "",
    measure_on: Annotated[str, typer.Option(help="Dataset to measure on instead of the test splits.")] = "",
    *,
    install: Annotated[bool, typer.Option("--install", help="Replace the bundled checkpoint.")] = False,
) -> None:
    """Train wav2vec2-mini, or go on where a killed training stopped, and measure it."""
    from grym.config import ensure_home, load_settings

    settings = load_settings()
    ensure_home(settings)
    with _session(settings.home) as server:
        from flows.progress import shown, tell
        from flows.server import drain
        from flows.train import train as train_flow
        from grym.models.training_process import listener

        def hear(event: Mapping[str, Any]) -> None:
            if event["event"] == "step":
                tell(f"stage {event['stage']}, steps", int(event["step"]), int(event["steps"]))
            elif event["event"] == "data":
                out.print("Making the training data; this takes minutes.", highlight=False)

        listener.set(hear)
        with shown(out):
            result = train_flow(
                scale=scale,
                seed=seed,
                voices=voices,
                name=name,
                manifest=manifest,
                measure_on=measure_on,
                install=install,
            )
        drain(server.url, result.flow_run_id, result.task_runs)
    for title, rate in result.rates.items():
        out.print(f"{title}: WER {100 * rate:.2f} %")
    out.print(f"Checkpoint: {result.folder}")


@app.command()
def search(
    clip: Annotated[str, typer.Argument(help="Content id (or its beginning), name in the manifest, or an audio file.")],
    k: Annotated[int, typer.Option("-k", help="How many neighbours.")] = 5,
    model: Annotated[str | None, typer.Option(help="Whose features; default: the first model of [compare].")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Filter such as speaker=theo; may be repeated.")] = None,
) -> None:
    """List the clips that sound most alike, with scores."""
    from flows.show import show_matches
    from grym.config import load_settings
    from grym.memory.search import search as find

    show_matches(out, find(clip, load_settings(), k=k, model=model, where=where or []))


@app.command()
def report(run: Annotated[str | None, typer.Argument(help="Run id; default: all of them.")] = None) -> None:
    """Publish the warehouse and render reports again from what is stored."""
    from flows.show import render_again
    from grym.config import load_settings

    settings = load_settings()
    for page in render_again(settings, run):
        out.print(str(page))


@app.command()
def datasets() -> None:
    """List the datasets that grym.toml knows."""
    from flows.show import show_datasets
    from grym.config import load_settings

    show_datasets(out, load_settings())


@app.command()
def ui() -> None:
    """Serve the Prefect UI on the home's database until Ctrl-C."""
    from flows.server import serve_ui
    from grym.config import load_settings

    serve_ui(load_settings().home)


@app.command()
def doctor() -> None:
    """Say in plain words what is missing."""
    from flows.doctor import report as say

    raise typer.Exit(say())


def main() -> None:
    """Run a verb; an error with a typed cause becomes one sentence."""
    try:
        app()
    except GrymError as error:
        Console(stderr=True).print(f"[bold red]error:[/bold red] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
