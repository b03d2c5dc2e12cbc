"""What ``python -m flows live-wer`` says. Needs no server."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from grym.experiment.ppi import Powered, Rate


def show(out: Console, found: Powered) -> None:
    """The rate, what it rests on, and what a reader should know."""
    worth = max(0.0, found.worth - found.labelled)
    lines = [
        f"Word error rate of all {found.calls:,} calls: {_said(found.estimate)}.",
        f"From the {found.labelled:,} labelled calls alone: {_said(found.labels_only)}.",
        f"The other answers are worth {worth:,.0f} further labels (weight of the prediction {found.tuning:.2f}).",
        *found.notes,
    ]
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def as_json(found: Powered) -> str:
    """All numbers; rates are fractions."""
    return json.dumps(dataclasses.asdict(found), indent=2)


def _said(rate: Rate) -> str:
    if rate.low is None or rate.high is None:
        return f"{100 * rate.rate:.2f} %"
    return f"{100 * rate.rate:.2f} % ({100 * rate.low:.2f} to {100 * rate.high:.2f} %)"
