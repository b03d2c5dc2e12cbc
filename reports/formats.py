"""Numbers, units and times as a reader of a report sees them.

Knows nothing about frames or pages. A missing value is an en dash, a negative
number has a true minus sign, and a figure carries no more digits than it earns.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datetime import datetime

MISSING: Final = "\N{EN DASH}"
_MINUS: Final = "\N{MINUS SIGN}"
_THIN: Final = "\N{NARROW NO-BREAK SPACE}"
_DAY_SECONDS: Final = 86_400
_MINUTE_SECONDS: Final = 60


def number(value: float | None, digits: int = 0, *, signed: bool = False) -> str:
    """A number with fixed decimals, thin spaces between thousands and a true minus.

    Example:
        >>> number(-1234.5, 1)
        '−1\u202f234.5'
        >>> number(0.25, 2, signed=True)
        '+0.25'
    """  # noqa: RUF002 - a true minus is what it is about
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{abs(value):,.{digits}f}".replace(",", _THIN)
    if float(text.replace(_THIN, "")) == 0:
        return text
    return (_MINUS if value < 0 else "+" if signed else "") + text


def p_text(p: float | None) -> str:
    """A p-value as people write it.

    Example:
        >>> p_text(0.0301), p_text(0.0000001), p_text(None)
        ('0.030', '< 0.001', '–')
    """  # noqa: RUF002 - the dash stands for a missing value
    return "< 0.001" if p is not None and p < 0.001 else number(p, 3)  # noqa: PLR2004 - what three decimals can show


def percent(fraction: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """A fraction in per cent, without the sign (the unit stands in the header).

    Example:
        >>> percent(0.0412)
        '4.12'
    """
    return number(None if fraction is None else 100 * fraction, digits, signed=signed)


def interval(low: float | None, high: float | None, digits: int) -> str:
    """A confidence interval in words, because a dash beside a minus cannot be read.

    Example:
        >>> interval(-0.5, 1.25, 2)
        '−0.50 to +1.25'
    """  # noqa: RUF002 - a true minus is what it is about
    if low is None or high is None:
        return MISSING
    return f"{number(low, digits, signed=True)} to {number(high, digits, signed=True)}"


def span(low: float | None, high: float | None, digits: int) -> str:
    """The interval of a quantity that has no sign, such as a rate or a latency.

    Example:
        >>> span(1.25, 7.5, 2)
        '1.25 to 7.50'
    """
    return MISSING if low is None or high is None else f"{number(low, digits)} to {number(high, digits)}"


def moment(value: datetime | None) -> str:
    """A point in time, to the minute; times are stored in UTC.

    Example:
        >>> from datetime import datetime
        >>> moment(datetime(2026, 11, 2, 9, 5))
        '2 Nov 2026, 09:05 UTC'
    """
    return MISSING if value is None else f"{value.day} {value:%b %Y, %H:%M} UTC"


def duration(start: datetime | None, end: datetime | None) -> str:
    """The time between two moments, in the unit a person would use.

    Example:
        >>> from datetime import datetime
        >>> duration(datetime(2026, 1, 1, 10, 0), datetime(2026, 1, 1, 10, 2, 5))
        '2 min 5 s'
    """
    if start is None or end is None:
        return MISSING
    seconds = (end - start).total_seconds()
    if seconds < _MINUTE_SECONDS:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE_SECONDS)
    return f"{minutes} min {rest} s" if seconds < _DAY_SECONDS else f"{seconds / _DAY_SECONDS:.1f} days"


def count(n: int, one: str, many: str = "") -> str:
    """A number with its noun.

    Example:
        >>> count(1, "clip"), count(3, "try", "tries")
        ('1 clip', '3 tries')
    """
    return f"{number(n)} {one if n == 1 else many or one + 's'}"


def megabytes(size: int) -> str:
    """A size in MB (10^6 bytes) with one decimal.

    Example:
        >>> megabytes(3_000_000)
        '3.0 MB'
    """
    return f"{size / 1e6:.1f} MB"


def shortened(text: str, limit: int = 200) -> str:
    """Text cut at a limit of characters, so that no single value can make a page unreadable.

    Example:
        >>> shortened("a long story", 7)
        'a long…'
    """
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"


def read_json(text: str | None) -> dict[str, Any]:
    """A stored JSON object; text that is none is kept under the empty key, so nothing is hidden.

    Example:
        >>> read_json('{"noise": 10}'), read_json("oops"), read_json(None)
        ({'noise': 10}, {'': 'oops'}, {})
    """
    if not text:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return {"": text}
    return value if isinstance(value, dict) else {"": text}


def typeset(sentence: str | None) -> str:
    r"""A sentence with true minus signs, and no line break between a number and its unit.

    Example:
        >>> typeset("mini-8 is lower (95 % interval -0.6 to 1.2)")
        'mini-8 is lower (95\xa0% interval −0.6 to 1.2)'
    """  # noqa: RUF002 - a true minus is what it is about
    units = re.sub(r"(?<=\d) (?=(?:%|points|ms|MB|s)(?!\w))", "\N{NO-BREAK SPACE}", sentence or "")
    return re.sub(r"(?<![\w.-])-(?=\d)", _MINUS, units)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names with text values, sorted.

    Example:
        >>> flat({"b": {"y": None, "x": 1.5}, "a": ["p", "q"]})
        {'a': 'p, q', 'b.x': '1.5', 'b.y': '–'}
    """  # noqa: RUF002 - the dash stands for a missing value
    found: dict[str, str] = {}
    for name in sorted(values):
        value, path = values[name], f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}.")
        elif isinstance(value, list):
            found[path] = ", ".join(str(item) for item in value) or MISSING
        else:
            found[path] = MISSING if value is None or value == "" else str(value)
    return found
