"""Pages about judgements that open offline: every suite, rule, reason, severity and result.

Great Expectations' own Data Docs load their styles and scripts from other
hosts, so these pages are our own. One self-contained page per run, made from
the rows of table ``quality``, so that a run that was resumed shows what was
judged before as well; knows nothing about where the rows are stored.
"""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grym.errors import StorageError
from grym.parts import full, is_full
from grym.quality import Judgement, RuleResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TEMPLATE: Final = Path(__file__).parent / "datadocs.html.j2"
_COLUMNS: Final = ("suite", "subject", "rule", "severity", "status", "evaluated", "unexpected", "observed", "reason")


def build_data_docs_from(rows: Iterable[Mapping[str, Any]], folder: Path) -> Path:
    """Write one page about everything that was judged in a run.

    Args:
        rows: the run's rows of table ``quality``, in any order; rules of one subject stay in theirs.
        folder: made if missing; an ``index.html`` there is replaced as a whole.

    Returns:
        The page, ``folder/index.html``.

    Raises:
        StorageError: the page cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    suites = [(name, list(group)) for name, group in groupby(_judgements(rows), key=lambda judged: judged.suite)]
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(suites=suites)
    page = folder / "index.html"
    draft = folder / f".index.{os.getpid()}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(page)
    except OSError as error:
        msg = f"The quality page cannot be written: {error.strerror}."
        if is_full(error):
            raise full(msg) from error
        raise StorageError(msg, code="data-docs", hint="Check that the reports folder is writable.") from error
    return page


def _judgements(rows: Iterable[Mapping[str, Any]]) -> list[Judgement]:
    """One judgement for each suite and subject; which rows were held is not stored, so ``usable`` means nothing."""
    results = sorted((RuleResult(**{name: row[name] for name in _COLUMNS}) for row in rows), key=_subject)
    groups = ((key, tuple(group)) for key, group in groupby(results, key=_subject))
    return [Judgement(*key, group, max(result.evaluated for result in group)) for key, group in groups]


def _subject(result: RuleResult) -> tuple[str, str]:
    return result.suite, result.subject
