"""Pages about judgements that open offline: every suite, rule, reason, severity and result.

Great Expectations' own Data Docs load their styles and scripts from other
hosts, so these pages are our own. One self-contained page per flow; knows
nothing about where the judgements came from.
"""

from __future__ import annotations

import os
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grym.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grym.quality import Judgement

_TEMPLATE: Final = Path(__file__).parent / "datadocs.html.j2"


def build_data_docs(judgements: Sequence[Judgement], folder: Path) -> Path:
    """Write one page about the judgements of a flow; call it once per flow.

    Args:
        judgements: in the order in which they were made.
        folder: made if missing; an ``index.html`` there is replaced as a whole.

    Returns:
        The page, ``folder/index.html``.

    Raises:
        StorageError: the page cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    ordered = sorted(judgements, key=attrgetter("suite"))
    suites = [(name, list(group)) for name, group in groupby(ordered, key=attrgetter("suite"))]
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(suites=suites, state=_state)
    page = folder / "index.html"
    draft = folder / f".index.{os.getpid()}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(page)
    except OSError as error:
        msg = f"The quality page cannot be written: {error.strerror}."
        raise StorageError(msg, code="data-docs", hint="Check that the reports folder is writable.") from error
    return page


def _state(judgement: Judgement) -> str:
    if judgement.passed:
        return "passed"
    return f"{len(judgement.held_rows)} held" if judgement.usable else "refused"
