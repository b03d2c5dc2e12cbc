"""One page for a comparison on several datasets: all verdicts, one table of both arms, and a section for each run.

Knows nothing about stores. The page of each run lies beside it and is linked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from reports.frames import facts
from reports.page import fragment, write
from reports.render import section_context

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reports.frames import RunData

_RESOURCES = (("latency_p50", 1), ("rtfx", 1), ("peak_rss_mb", 0), ("failures", 0))


def render_together(runs: Sequence[RunData], group: str, out: Path) -> Path:
    """Write the page.

    Args:
        runs: rows of each run, in the order in which they are shown; all with the same two models.
        group: id that the runs share.
        out: the file to write; the pages of the runs are expected beside it.

    Returns:
        The file written.

    Raises:
        StorageError: the file cannot be written.
    """
    parts = [_part(data, place) for place, data in enumerate(runs)]
    known = facts(runs[0])
    context = {
        "group": group,
        "labels": known.labels,
        "names": " and ".join(part["dataset"] for part in parts),
        "started": known.started,
        "probes": list(dict.fromkeys(text for part in parts for text in part["probes"])),
        "parts": parts,
    }
    return write("together.html.j2", context, out)


def _part(data: RunData, place: int) -> dict[str, Any]:
    """A run as the page shows it; its ids start with the dataset's name."""
    known = facts(data)
    at = f"{re.sub(r'[^a-z0-9]+', '-', known.dataset.lower()).strip('-') or 'run'}-{place}-"
    context = section_context(data, at)
    classes = context["classes"]
    return {
        "at": at,
        "run_id": data.run_id,
        "dataset": known.dataset or "dataset",
        "rate": context["rate"],
        "main": context["main"],
        "chip": context["chip"],
        "digits": 1 if context["rate"].higher_is_better else 2,
        "probes": context["probes"],
        "link": f"{quote(data.run_id)}.html",
        "resources": [(data.comparison(metric), digits) for metric, digits in _RESOURCES],
        "failed": [int(classes[arm].sum()) for arm in ("a", "b")],
        "body": fragment("together_run.html.j2", context),
    }
