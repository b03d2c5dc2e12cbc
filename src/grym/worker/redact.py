"""Makes the words of a library safe to show: no folders, no secrets, no audio, no line breaks, not too long.

Knows nothing about where the words come from.
"""

from __future__ import annotations

import re
from typing import Final

_QUOTED: Final = re.compile(r"""(["'])(?:~|/|[A-Za-z]:[\\/])[^"'\n]*\1""")
# After a colon too ("error:/home/ann/x"), but not what follows the name of a scheme ("https://example.org/x").
_BARE: Final = re.compile(
    r"(?:(?<![\w:/\\.…<])|(?<=:)(?!//))(?:~(?:[A-Za-z_][\w.-]*)?|[A-Za-z]:)?(?:(?:/|\\{1,4})[\w.@+,=%-]+)+[/\\]?"
)
_FILE_URL: Final = re.compile(r"\bfile://(?=[/\\~])", re.IGNORECASE)
_URL_SECRET: Final = re.compile(r"(\w+://)[^\s/@]+@")
_NAMED_SECRET: Final = re.compile(
    r"""(?ix) ( \b[\w-]*(?:(?:api|access|private|secret|signing|encryption)[_-]?key|token|secret|passw(?:or)?d
        |passphrase|credential|authorization)["']? \s*[=:]\s*["']?
        (?:bearer\s+|basic\s+)? | \bbearer\s+ ) (?!…) [^\s"',;&)]{3,}"""
)
_SECRET: Final = re.compile(
    r"\b(?:hf_|sk-|pk-|gh[pousr]_|github_pat_|xox[abprs]-|glpat-|pnu_|AKIA|ASIA|AIza)[\w-]{8,}"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"
)
# Eight numbers in a row, with or without a fraction, are samples or features; so are bytes in hexadecimal or base64.
_NUMBERS: Final = re.compile(
    r"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?[\s,;\[\]]+){7,}[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
)
_BYTES: Final = re.compile(r"(?:\\x[0-9a-f]{2}[^\\\s\x22\x27]?){4,}", re.IGNORECASE)
_BASE64: Final = re.compile(r"\b(?=[a-z0-9+/]*[A-Z])(?=[A-Z0-9+/]*[a-z])[A-Za-z0-9+/]{64,}={0,2}")


def redact(text: str, limit: int = 300) -> str:
    """One line without folders, secrets and audio content, cut in the middle if it is long.

    Args:
        text: what a library said.
        limit: longest result, in characters.

    Example:
        >>> redact("No file '/home/ann/my models/tiny.bin' and/or /etc/x.json (3/4)")
        "No file '…/tiny.bin' and/or …/x.json (3/4)"
    """
    line = " ".join(text.split())
    line = _URL_SECRET.sub(r"\1", line)
    line = _NAMED_SECRET.sub(r"\1…", line)
    line = _SECRET.sub("…", line)
    line = _NUMBERS.sub("…", line)
    line = _BYTES.sub("…", line)
    line = _BASE64.sub("…", line)
    line = _FILE_URL.sub("", line)
    line = _QUOTED.sub(lambda found: found[1] + _last(found[0].strip(found[1])) + found[1], line)
    line = _BARE.sub(lambda found: _last(found[0]), line)
    if len(line) <= limit:
        return line
    return f"{line[: limit // 2 - 1]} … {line[-(limit // 2 - 2) :]}"


def _last(path: str) -> str:
    return "…/" + re.split(r"[/\\]", path.rstrip("/\\"))[-1]
