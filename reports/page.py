"""How a page is made: the template engine, what templates may use, and the file that appears whole or not at all.

Knows nothing about runs. Text from data is escaped by the engine.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from grym.errors import StorageError
from grym.parts import full, is_full
from reports.formats import MISSING, count, interval, moment, number, p_text, percent, shortened, span, typeset
from reports.metrics import per_cent

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPLATES: Final = Path(__file__).parent / "templates"
_OPERATIONS: Final = {"sub": "substituted", "del": "missed", "ins": "added"}


@cache
def environment() -> Environment:
    """The template engine: it escapes all text from data, and a name that a template lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "moment": moment, "count": count, "typeset": typeset}
    environment.filters["p_value"] = p_text
    environment.filters["short"] = lambda text, limit=200: shortened(str(text or ""), limit)
    environment.globals |= {
        "missing": MISSING,
        "operations": _OPERATIONS,
        "span": span,
        "signed_interval": interval,
        "rate_span": lambda low, high: span(per_cent(low), per_cent(high), 2),
        "rate_interval": lambda low, high: interval(per_cent(low), per_cent(high), 2),
    }
    return environment


def fragment(template: str, context: Mapping[str, Any]) -> Markup:
    """A part of a page, safe to put into one: what was text from data is escaped already."""
    return Markup(environment().get_template(template).render(context))  # noqa: S704 - the engine has escaped it


def write(template: str, context: Mapping[str, Any], out: Path) -> Path:
    """Write a page aside and rename it, so that a reader never sees half of one.

    Raises:
        StorageError: the file cannot be written.
    """
    text = environment().get_template(template).render(context)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".writing-") as aside:
            file = Path(aside) / out.name
            file.write_text(text, encoding="utf-8")
            file.replace(out)
    except OSError as error:
        msg = f"The report {out.name} cannot be written: {error.strerror}."
        if is_full(error):
            raise full(msg) from error
        raise StorageError(msg, code="report-not-written", hint="Free or choose another folder for reports.") from error
    return out
