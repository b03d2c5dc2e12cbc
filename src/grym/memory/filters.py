"""Filters of a search: from column and value, as a person typed them, to a safe SQL predicate.

Knows the columns of the feature store and how Lance quotes; not how it searches.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS: Final = (
    "id",
    "key",
    "dataset",
    "path",
    "text",
    "speaker",
    "seconds",
    "model",
    "revision",
    "run_id",
    "created_at",
)
NOTHING: Final = "false"


def predicate(where: Mapping[str, object] | str | None) -> str | None:
    """The SQL predicate of a filter; ``None`` lets everything through.

    Args:
        where: column to a value or a list of values, all of which must hold; an empty list matches nothing. A text
            is taken as a predicate as it stands: only ever pass one that a person wrote.

    Raises:
        ConfigError: an unknown column, or a value that does not fit it.

    Example:
        >>> predicate({"speaker": ["theo", "o'hara"], "seconds": 1.5})
        "`speaker` IN ('o''hara', 'theo') AND `seconds` = 1.5"
    """
    if where is None or isinstance(where, str):
        return where or None
    return " AND ".join(_one(column, value) for column, value in where.items()) or None


def text_literal(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def _one(column: str, value: object) -> str:
    if column not in COLUMNS:
        msg = f"Features cannot be filtered by {column!r}; the columns are {', '.join(COLUMNS)}."
        raise ConfigError(msg, code="unknown-column", hint="Use one of these.")
    if isinstance(value, (list, tuple, set, frozenset)):
        literals = sorted(_literal(column, item) for item in value)
        return f"`{column}` IN ({', '.join(literals)})" if literals else NOTHING
    if value is None:
        return f"`{column}` IS NULL"
    return f"`{column}` = {_literal(column, value)}"


def _literal(column: str, value: object) -> str:
    if column == "seconds":
        return _number(value)
    if column == "created_at":
        return _time(value)
    if not isinstance(value, str):
        msg = f"{column!r} is text and cannot be compared with {value!r}."
        raise ConfigError(msg, code="bad-filter", hint="Give a text.")
    return text_literal(value)


def _number(value: object) -> str:
    try:
        number = float(value) if isinstance(value, (str, int, float)) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        msg = f"'seconds' is a number and cannot be compared with {value!r}."
        raise ConfigError(msg, code="bad-filter", hint="Give a number of seconds.")
    return repr(number)


def _time(value: object) -> str:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        time = None
    if not isinstance(time, datetime) or time.tzinfo is None:
        msg = f"'created_at' is a time and cannot be compared with {value!r}."
        raise ConfigError(msg, code="bad-filter", hint="Give a time with its zone, as 2026-11-20T12:00:00+00:00.")
    return f"TIMESTAMP {text_literal(time.astimezone(UTC).isoformat(sep=' '))}"
