"""The terminal that every verb prints to: what people wrote is shown as they wrote it.

Names, ids, transcripts and reasons may hold ``[noise]``, ``[/b]`` or ``:x:``, which rich would take for markup and
emoji, swallow or stumble over. So neither is read anywhere; what is to be bold is a :class:`rich.text.Text`.
"""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def terminal(*, width: int | None = None, stderr: bool = False) -> Console:
    """A console without markup and emoji.

    Args:
        width: columns; default those of the terminal.
        stderr: whether it prints to standard error.
    """
    return Console(width=width, stderr=stderr, markup=False, emoji=False)


def styled(mark: str, style: str, text: str) -> Text:
    """``mark`` in a style, then ``text`` as it is."""
    return Text.assemble((mark, style), text)
