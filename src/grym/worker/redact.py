"""Makes the words of a library safe to show: no folders, no line breaks, not too long.

Knows nothing about where the words come from.
"""

from __future__ import annotations

import re
from typing import Final

_QUOTED: Final = re.compile(r"""(["'])(?:~|/|[A-Za-z]:[\\/])[^"'\n]*\1""")
_BARE: Final = re.compile(r"(?<![\w:/\\.…<])(?:~|[A-Za-z]:)?(?:[/\\][\w.@+,=%-]+)+[/\\]?")
_URL_SECRET: Final = re.compile(r"(\w+://)[^\s/@]+@")


def redact(text: str, limit: int = 300) -> str:
    """One line without folders and without credentials in addresses, cut in the middle if it is long.

    Args:
        text: what a library said.
        limit: longest result, in characters.

    Example:
        >>> redact("No file '/home/ann/my models/tiny.bin' and/or /etc/x.json (3/4)")
        "No file '…/tiny.bin' and/or …/x.json (3/4)"
    """
    line = " ".join(text.split())
    line = _URL_SECRET.sub(r"\1", line)
    line = _QUOTED.sub(lambda found: found[1] + _last(found[0].strip(found[1])) + found[1], line)
    line = _BARE.sub(lambda found: _last(found[0]), line)
    if len(line) <= limit:
        return line
    return f"{line[: limit // 2 - 1]} … {line[-(limit // 2 - 2) :]}"


def _last(path: str) -> str:
    return "…/" + re.split(r"[/\\]", path.rstrip("/\\"))[-1]
