"""The page that lists all comparison runs, by pair and dataset, each with its latest verdict and its trend.

Knows nothing about stores; frames come in, a file goes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports import frames, panels
from reports import trend as over_time
from reports.formats import MISSING, interval, number
from reports.metrics import scaled, verdict
from reports.page import write
from reports.rates import WER, rate_of

if TYPE_CHECKING:
    from pathlib import Path

_RUNS: Final = 25
_PAIRS: Final = 30


def _index_rows(runs: pl.DataFrame, past: pl.DataFrame) -> list[dict[str, Any]]:
    """One dict per comparison run, newest first."""
    compared = {row["run_id"]: row for rows in over_time.pairs(past).values() for row in rows.to_dicts()}
    states = (
        frames.conform(runs, "runs")
        .filter(pl.col("flow").fill_null("compare") == "compare")
        .sort("at", "run_id")
        .to_dicts()
    )
    found: dict[str, dict[str, Any]] = {}
    for state in states:
        entry = found.setdefault(state["run_id"], {"run": state, "finished": False})
        entry["finished"] |= state["state"] == "finished"
    for run_id, entry in found.items():
        row = compared.get(run_id)
        entry["main"] = row
        entry["rate"] = rate_of((row or {}).get("metric"))
        if row:
            entry |= {
                name: number(scaled(row, name), 2, signed=name == "difference") for name in ("a", "b", "difference")
            }
            entry["interval"] = interval(scaled(row, "ci_low"), scaled(row, "ci_high"), 2)
            entry["chip"] = verdict(row)
    return list(reversed(found.values()))


def _index_groups(rows: list[dict[str, Any]], past: pl.DataFrame) -> list[dict[str, Any]]:
    """The runs by pair and dataset, the pair that ran last first, each with its latest verdict and its trend."""
    trends = over_time.pairs(past)
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        run = row["run"]
        pair = tuple(str(run[name] or "") for name in over_time.PAIR)
        group = found.setdefault(pair, {"dataset": pair[2], "rows": [], "sentence": ""})  # type: ignore[arg-type]
        group["labels"] = frames.labels(pair[0] or MISSING, pair[1] or MISSING)
        group["rows"].append(row)
        group["sentence"] = group["sentence"] or (row["main"] or {}).get("sentence") or ""
    groups = [
        group
        | {
            "count": len(group["rows"]),
            "rows": group["rows"][:_RUNS],
            "charts": panels.trend_panels(
                trends[pair], group["labels"], prefix=f"p{i}-", speed=False, rate=rate_of(trends[pair]["metric"][-1])
            )
            if pair in trends
            else [],
        }
        for i, (pair, group) in enumerate(list(found.items())[:_PAIRS])
    ]
    return [
        group | {"pairs": len(found), "rate": next((row["rate"] for row in group["rows"] if row["main"]), WER)}
        for group in groups
    ]


def _together(runs: pl.DataFrame, folder: Path) -> list[dict[str, Any]]:
    """The pages that show several runs of one command, newest first."""
    ended = frames.conform(runs, "runs").filter(
        (pl.col("state") == "finished") & (pl.col("run_group").fill_null("") != "")
    )
    found: dict[str, dict[str, Any]] = {}
    for row in ended.sort("at", "run_id").to_dicts():
        entry = found.setdefault(row["run_group"], {"group": row["run_group"], "datasets": []})
        entry |= {"at": row["at"], "labels": frames.labels(row["arm_a"] or MISSING, row["arm_b"] or MISSING)}
        entry["datasets"].append(row["dataset"] or MISSING)
    listed = [entry for entry in reversed(found.values()) if (folder / f"{entry['group']}.html").is_file()]
    return listed[:_RUNS]


def render_index(runs: pl.DataFrame, history: pl.DataFrame, out: Path) -> Path:
    """Write the page that lists all comparison runs by pair and dataset, the latest first.

    Args:
        runs: the ``runs`` table of all runs.
        history: comparisons of all runs with what their runs were about, of :func:`reports.trend.history`.
        out: the file to write; reports are expected beside it as ``RUN_ID.html``.

    Returns:
        The file written.

    Raises:
        StorageError: the file cannot be written.
    """
    rows = _index_rows(runs, history)
    groups = _index_groups(rows, history)
    context = {
        "together": _together(runs, out.parent),
        "groups": groups,
        "run_count": len(rows),
        "pair_count": groups[0]["pairs"] if groups else 0,
    }
    return write("index.html.j2", context, out)
