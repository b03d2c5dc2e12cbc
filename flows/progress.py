"""How far a flow is, for whoever watches it. Flows tell, the command line listens; nobody has to.

Knows nothing about what is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Listener = Callable[[str, int, int], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell(what: str, done: int, total: int) -> None:
    """Say that ``done`` of ``total`` steps of something are done."""
    listener = _listener.get()
    if listener is not None:
        listener(what, done, total)


@contextmanager
def shown(out: Console) -> Iterator[None]:
    """Show what flows tell: bars on a terminal, a line per quarter elsewhere."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=out,
        disable=not out.is_terminal,
    ) as bars:
        known: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)
            if not out.is_terminal and (4 * done // total) > (4 * (done - 1) // total):
                out.print(f"{what}: {done} of {total}", highlight=False)

        token = _listener.set(show)
        try:
            yield
        finally:
            _listener.reset(token)
