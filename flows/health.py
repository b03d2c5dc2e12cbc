"""``python -m flows health``: which models answer, asked now or as last seen, and what their breakers say."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from grym.config import Settings
from grym.resilience.health import Health, table
from grym.resilience.opening import open_checks
from grym.resilience.state import Circuit


def health(out: Console, settings: Settings, names: Sequence[str], *, cached: bool) -> bool:
    """Check models and print what came out; whether all are healthy.

    Args:
        out: terminal.
        settings: grym.toml.
        names: registered names; none means all that are enabled.
        cached: checks that are not older than the interval of ``[health]`` count.

    Raises:
        ConfigError: a model is not registered, or the known clip is not there.
    """
    for name in names:
        settings.model(name)
    found: list[Health] = []
    with open_checks(settings) as made:
        for name in names or made.models():
            with out.status(f"Asking {name}"):
                found.append(made.current(name, asked_by="command") if cached else made.check(name))
        circuits = made.circuits()
    _show(out, found, circuits)
    return all(check.healthy for check in found)


def _show(out: Console, found: Sequence[Health], circuits: Sequence[Circuit]) -> None:
    rows = table(found)
    shown = Table(*(rows[0] if rows else ("model", "state")), box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*row.values(), style=None if row["state"] == "healthy" else "red")
    out.print(shown)
    for circuit in circuits:
        if circuit.state != "closed":
            last = f", last error {circuit.code}" if circuit.code else ""
            out.print(f"Breaker of {circuit.model} for {circuit.operation}: {circuit.state}{last}", highlight=False)
