"""Cron expressions in words, for pages that people read.

Knows the five fields minute, hour, day of month, month and day of week. What it
has no words for it shows as it is written.

    >>> in_words("0 3 * * *", "UTC")
    'every day at 03:00 UTC'
"""

from __future__ import annotations

import re
from typing import Final

DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PATTERN: Final = re.compile(r"(\S+) (\S+) (\S+) (\S+) (\S+)")


def in_words(cron: str, timezone: str) -> str:
    """A cron expression as a person says it.

    Args:
        cron: five fields separated by blanks.
        timezone: whose clock it goes by.

    Example:
        >>> in_words("*/15 * * * *", "UTC"), in_words("20 * * * *", "UTC")
        ('every 15 minutes', 'every hour at minute 20')
        >>> in_words("30 6 * * 1", "Europe/Berlin")
        'every Monday at 06:30 Europe/Berlin'
        >>> in_words("0 0 1-7 * *", "UTC")
        'by the clock of UTC at `0 0 1-7 * *`'
    """
    found = _PATTERN.fullmatch(" ".join(cron.split()))
    minute, hour, day, month, weekday = found.groups() if found else ("", "", "", "", "")
    whole_days = day == month == "*"
    if whole_days and hour == weekday == "*" and (step := re.fullmatch(r"\*/(\d+)", minute)):
        return f"every {step[1]} minutes"
    if whole_days and hour == weekday == "*" and minute.isdecimal():
        return f"every hour at minute {int(minute)}"
    if whole_days and hour.isdecimal() and minute.isdecimal() and re.fullmatch(r"[*0-7]", weekday):
        on = "day" if weekday == "*" else DAYS[int(weekday)]
        return f"every {on} at {int(hour):02}:{int(minute):02} {timezone}"
    return f"by the clock of {timezone} at `{cron}`"
