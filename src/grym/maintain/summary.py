"""What upkeep did, as one typed result and in words.

Knows nothing about Prefect: a task passes the Markdown on. Sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grym.errors import ErrorRecord
    from grym.maintain.features import FeaturesTended
    from grym.maintain.landing import Compacted
    from grym.maintain.scratch import Pruned
    from grym.store import PublishResult

STEPS: Final = ("landing zone", "warehouse", "feature store", "scratch folders")
_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Maintained:
    """What one pass of upkeep did; a step that failed is ``None`` and named in ``failures``.

    Attributes:
        compacted: parts of complete runs put together.
        published: the warehouse built from all parts.
        features: fragments compacted and old versions removed.
        pruned: scratch folders of processes that are gone.
        failures: step -> why it failed; the other steps were done.
        task_runs: how many task runs the Prefect server has to know about.
        flow_run_id: id of the flow run in Prefect.
    """

    compacted: Compacted | None
    published: PublishResult | None
    features: FeaturesTended | None
    pruned: Pruned | None
    failures: Mapping[str, ErrorRecord]
    task_runs: int = 0
    flow_run_id: str = ""


def lines(done: Maintained) -> dict[str, str]:
    """What was done at each step, or why it was not, as a sentence."""
    said = dict(zip(STEPS, (_landing(done), _warehouse(done), _features(done), _scratch(done)), strict=True))
    return {step: f"Failed: {_failure(done.failures[step])}" if step in done.failures else said[step] for step in STEPS}


def markdown(done: Maintained) -> str:
    """The same as a Markdown page with a table, and what was left as it is."""
    rows = [f"| {step} | {_cell(text)} |" for step, text in lines(done).items()]
    notes = [f"* {_cell(note)}" for note in _notes(done)]
    page = ["## Upkeep", "", "| step | done |", "|:--|:--|", *rows]
    return "\n".join([*page, *(["", "Left as it is:", "", *notes] if notes else [])]) + "\n"


def _landing(done: Maintained) -> str:
    found = done.compacted
    if found is None or not found.runs:
        return f"Nothing to put together in {found.parts_after if found else 0} parts."
    runs = "one run" if found.runs == 1 else f"{found.runs} runs"
    return f"{found.parts_before} parts became {found.parts_after}, in {runs}."


def _warehouse(done: Maintained) -> str:
    if done.published is None:
        return "Not published."
    rows = sum(done.published.rows.values())
    return f"Published {rows} rows in {len(done.published.rows)} tables."


def _features(done: Maintained) -> str:
    found = done.features
    if found is None or not found.spaces:
        return "No features are stored."
    before, after = (sum(getattr(space, f"versions_{when}") for space in found.spaces) for when in ("before", "after"))
    rows = sum(space.rows for space in found.spaces)
    recall = min(space.recall for space in found.spaces)
    size = f"{_size(found.bytes_before)} became {_size(found.bytes_after)}"
    return f"{rows} vectors, {before} versions became {after}, {size}; lowest recall {recall:.3f}."


def _scratch(done: Maintained) -> str:
    found = done.pruned
    if found is None or not found.folders:
        return "Nothing was left behind."
    return f"Removed {', '.join(found.folders)}: {_size(found.bytes)}."


def _notes(done: Maintained) -> list[str]:
    left = list(done.compacted.left) if done.compacted else []
    skipped = done.published.skipped if done.published else ()
    return left + [f"Part {part.path.name} is not in the warehouse: {part.reason}." for part in skipped]


def _failure(error: ErrorRecord) -> str:
    return f"{error.message} {error.hint}".strip()


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} GiB"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
