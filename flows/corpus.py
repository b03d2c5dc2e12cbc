"""``python -m flows datasets``: what there is, one dataset in full, and fetching. Knows nothing about Prefect.

Not named ``datasets``: a module of that name, found first, would take the place of
the library that reads the Hugging Face Hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

if TYPE_CHECKING:
    from grym.config import Settings
    from grym.corpus.describe import Described, Facts
    from grym.corpus.download import Tell

_HOUR = 3600.0
_VALUES = 12  # of a slice, on its card


class _ByName(TyperGroup):
    """``datasets NAME`` is short for ``datasets show NAME``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb; a name that is none is a dataset to show."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


def commands(out: Console) -> typer.Typer:
    """The verbs below ``datasets``, which print to ``out``."""
    app = typer.Typer(cls=_ByName, invoke_without_command=True)

    @app.callback()
    def datasets(context: typer.Context) -> None:
        """List the datasets that grym.toml knows; NAME shows the card of one, `fetch NAME` brings it here."""
        if context.invoked_subcommand is None:
            from grym.config import load_settings

            show_datasets(out, load_settings())

    @app.command()
    def show(name: Annotated[str, typer.Argument(help="A dataset of grym.toml.")]) -> None:
        """Show the card of a dataset in full; `datasets NAME` is short for it."""
        from grym.config import load_settings
        from grym.corpus.describe import describe

        show_card(out, describe(name, load_settings()))

    @app.command()
    def fetch(
        name: Annotated[str, typer.Argument(help="A dataset of grym.toml whose card names a download, or of the Hub.")],
        to: Annotated[Path | None, typer.Option(help="Folder to put it in; default: its path in grym.toml.")] = None,
        source: Annotated[str, typer.Option(help="Another copy of the same archive: a file, or an address.")] = "",
    ) -> None:
        """Bring a dataset to this machine: resumed, verified, whole or absent."""
        fetch_shown(out, name, to, source)

    return app


def fetch_shown(out: Console, name: str, to: Path | None, source: str) -> None:
    """Fetch a dataset, show how far it is, and say where it lies and how it was verified."""
    from grym.config import load_settings
    from grym.corpus.fetch import fetch

    settings = load_settings()
    with telling(out) as tell:
        found = fetch(name, settings, to=to, source=source, tell=tell)
    spec = settings.dataset(name)
    how = {
        "there": "It was there already, and is whole.",
        "archive": f"{found.files:,} files; the archive and they have the recorded checksums.",
        "files": f"{found.files:,} files, which have the recorded checksum; the archive was another one.",
        "rows": f"{found.files:,} rows were read; it needs no network from now on.",
    }
    out.print(f"{name}: {found.folder}", soft_wrap=True, highlight=False, markup=False)
    out.print(how[found.verified], highlight=False)
    if not found.folder.is_relative_to(spec.path):
        out.print(f"To use it there, set path in [datasets.{name}] of grym.toml.", highlight=False, markup=False)


@contextmanager
def telling(out: Console) -> Iterator[Tell]:
    """Hear how far a fetch is: bars on a terminal, a line per quarter elsewhere."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}"))
    bytes_columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    known: dict[str, tuple[Progress, TaskID]] = {}
    quarters: dict[str, int] = {}

    def tell(what: str, done: int, total: int, /) -> None:
        if out.is_terminal:
            if what not in known:
                for bars, _ in known.values():
                    bars.stop()
                bars = Progress(*(bytes_columns if what == "download" else columns), console=out)
                known[what] = bars, bars.add_task(what, total=total or None)
                bars.start()
            bars, task = known[what]
            bars.update(task, completed=done, total=total or None)
        elif total and 4 * done // total > quarters.get(what, 0):
            quarters[what] = 4 * done // total
            out.print(f"{what}: {done:,} of {total:,}", highlight=False)

    try:
        yield tell
    finally:
        for bars, _ in known.values():
            bars.stop()


def show_datasets(out: Console, settings: Settings) -> None:
    """Registered datasets with the heads of their cards, and the loaders that there are."""
    from grym.corpus.describe import LOADERS, describe

    table = Table(title="Datasets", title_justify="left")
    for column in ("name", "loader", "here", "clips", "refused", "hours", "speakers", "words", "licence", "slices"):
        right = column in {"clips", "refused", "hours", "speakers", "words"}
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    notes = []
    for name, spec in sorted(settings.datasets.items()):
        found = describe(name, settings)
        slices = ", ".join(found.facts.slices if found.facts else found.card.slices)
        here = "yes" if found.facts else "no"
        table.add_row(name, spec.loader, here, *_numbers(found.facts), found.card.licence, slices)
        notes.append(f"{name}: {_where(found, settings)}{_from(found)}")
        if found.problem:
            notes.append(f"  {found.problem.message} {found.problem.hint}".rstrip())
    out.print(table)
    for note in notes:
        out.print(note, highlight=False, markup=False, soft_wrap=True)
    out.print("\nLoaders (docs/loaders.md):", highlight=False)
    for name, what in LOADERS.items():
        out.print(f"  {name:<12} {what}", highlight=False, markup=False)


def _numbers(facts: Facts | None) -> tuple[str, ...]:
    if facts is None:
        return ("",) * 5
    return (
        f"{facts.clips:,}",
        f"{sum(facts.refused.values()):,}",
        f"{facts.seconds / _HOUR:.2f}",
        f"{facts.speakers:,}" if facts.speakers else "",
        f"{facts.words:,}",
    )


def _where(found: Described, settings: Settings) -> str:
    path = found.spec.path
    return str(path.relative_to(settings.root) if path.is_relative_to(settings.root) else path)


def _from(found: Described) -> str:
    return f", from {found.card.source}" if found.card.source else ""


def show_card(out: Console, found: Described) -> None:
    """One dataset in full."""
    card, facts = found.card, found.facts
    table = Table(title=f"{found.spec.name}: {card.title}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, text in _lines(found):
        if text:
            table.add_row(label, text)
    for name in facts.slices if facts else card.slices:
        table.add_row(f"slice {name}", _slice(name, found))
    out.print(table, highlight=False)


def _lines(found: Described) -> Iterator[tuple[str, str]]:
    card, facts, spec = found.card, found.facts, found.spec
    yield "about", card.about
    yield "loader", spec.loader
    yield "options", ", ".join(f"{name} = {value!r}" for name, value in spec.options.items())
    yield "where", str(spec.path)
    yield "here", "yes" if facts else "no"
    if found.problem:
        yield "", f"{found.problem.message} {found.problem.hint}".strip()
    if facts:
        yield "clips", f"{facts.clips:,}"
        yield "refused", ", ".join(f"{count:,} {code}" for code, count in facts.refused.items())
        unmeasured = f" (without {facts.unmeasured:,} clips of unknown length)" if facts.unmeasured else ""
        yield "audio", f"{facts.seconds / _HOUR:.2f} h, {facts.seconds:,.0f} s{unmeasured}"
        yield "speakers", f"{facts.speakers:,}" if facts.speakers else "not named: every clip is its own cluster"
        yield "words", f"{facts.words:,}"
    yield "language", card.language
    yield "version", card.version
    yield "licence", card.licence
    yield "source", card.source
    yield "citation", card.citation
    yield "known limits", "\n".join(card.limits)


def _slice(name: str, found: Described) -> str:
    meaning = found.card.slices.get(name, "")
    if found.facts is None:
        return meaning
    counts = found.facts.slices[name]
    shown = ", ".join(f"{value} {count:,}" for value, count in list(counts.items())[:_VALUES])
    more = f", and {len(counts) - _VALUES:,} more" if len(counts) > _VALUES else ""
    return f"{meaning}: {shown}{more}" if meaning else f"{shown}{more}"
