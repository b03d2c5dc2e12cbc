"""Texts that allow several wordings: ``{ uh / um / @ }`` as in NIST transcripts.

Knows nothing about files or statistics. A text becomes a :class:`Text`: plain
words, or a network of them in which ``@`` is no word at all. Networks are aligned
by :mod:`grym.compare.networks`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from grym.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NULL: Final = "@"
_PIECES: Final = re.compile(r"[{}/]|[^{}/]+")
_MAX_DEPTH: Final = 50
_NULL_WORD: Final = re.compile(rf"(?<!\S){NULL}(?!\S)")


@dataclass(frozen=True, slots=True)
class Arc:
    """A word (or a null) from one node to another.

    Attributes:
        word: the word, or ``@``.
        start: node before it.
        end: node after it.
        place: its place among all that is written.
    """

    word: str
    start: int
    end: int
    place: int


@dataclass(frozen=True, slots=True)
class Text:
    """A text to be scored.

    Attributes:
        words: its words; empty if there are several wordings.
        arcs: its network from node 0 to ``last``, in an order in which nothing comes before what it follows;
            empty if there is one wording.
        last: the final node.
    """

    words: tuple[str, ...] = ()
    arcs: tuple[Arc, ...] = ()
    last: int = 0

    @property
    def plain(self) -> bool:
        """Whether there is only one wording."""
        return not self.arcs


def plain(text: str, rule: Callable[[str], str] = str) -> Text:
    """The words of a text in which braces mean nothing; ``@`` by itself is still no word."""
    return Text(tuple(word for word in rule(text).split() if word != NULL))


def parse(text: str, rule: Callable[[str], str] = str) -> Text:
    """Read a text with alternations.

    ``{ a b / c / @ }`` stands for ``a b``, for ``c``, or for nothing; alternations may be nested, and
    spaces around the signs are optional. A slash outside braces and an ``@`` inside a word are ordinary
    characters; ``@`` by itself is no word. The rule (a normaliser) is applied to each stretch of words.

    Args:
        text: what is written.
        rule: makes a stretch of text comparable; words are what it leaves between spaces.

    Raises:
        ManifestError: a brace is not closed, was never opened, or encloses nothing.

    Example:
        >>> [arc.word for arc in parse("so { uh / @ } yes").arcs]
        ['so', 'uh', '@', 'yes']
    """
    if "{" not in text and "}" not in text and not _NULL_WORD.search(text):
        return plain(text, rule)
    builder = _Builder(rule)
    builder.sequence(iter([*_PIECES.findall(text), ""]), 0, depth=0)
    return Text(arcs=builder.sorted_arcs(), last=builder.last)


def parse_reference(text: str, rule: Callable[[str], str], where: str) -> Text:
    """A text with alternations, where a broken one is an error that names its place.

    Args:
        text: what is written.
        rule: makes a stretch of text comparable.
        where: for example ``The reference 'a1' in ref.trn``.

    Raises:
        ManifestError: an alternation is broken.
    """
    try:
        return parse(text, rule)
    except ManifestError as error:
        msg = f"{where} cannot be read. {error.message}"
        raise ManifestError(msg, code=error.code, hint=error.hint) from error


def parse_answer(text: str, rule: Callable[[str], str], *, alternations: bool) -> Text:
    """What a system answered, with alternations if its format has them; a broken one is plain characters."""
    if alternations:
        try:
            return parse(text, rule)
        except ManifestError:
            pass
    return plain(text, rule)


@dataclass(slots=True)
class _Builder:
    rule: Callable[[str], str]
    arcs: list[Arc] = field(default_factory=list)
    last: int = 0
    _nodes: int = 1

    def sequence(self, pieces: Iterator[str], node: int, *, depth: int) -> tuple[int, str]:
        """Add words and alternations up to a closing sign; the node they end in and that sign."""
        stretch = ""
        if depth > _MAX_DEPTH:
            msg = f"Alternations are nested more than {_MAX_DEPTH} deep."
            raise ManifestError(msg, code="bad-alternation", hint="Write out the wordings.")
        for piece in pieces:
            if piece not in {"{", "}", "/", ""} or (piece == "/" and not depth):
                stretch += piece
                continue
            node, stretch = self._words(stretch, node), ""
            if piece == "{":
                node = self._alternation(pieces, node, depth + 1)
                continue
            if (piece == "") != (depth == 0):
                _unbalanced("{" if depth else "}")
            self.last = node
            return node, piece
        raise AssertionError  # pragma: no cover - the last piece is the empty one

    def _words(self, stretch: str, node: int) -> int:
        if stretch.strip() and not self.rule(stretch).strip():
            stretch = NULL  # what the rule makes nothing of may also be left out by the speaker
        parts = _NULL_WORD.split(stretch)
        for index, part in enumerate(parts):
            for word in [*self.rule(part).split(), *([NULL] if index < len(parts) - 1 else [])]:
                self.arcs.append(Arc(word, node, self._nodes, len(self.arcs)))
                node, self._nodes = self._nodes, self._nodes + 1
        return node

    def _alternation(self, pieces: Iterator[str], start: int, depth: int) -> int:
        ends: list[int] = []
        sign = "/"
        while sign == "/":
            before = len(self.arcs)
            end, sign = self.sequence(pieces, start, depth=depth)
            if len(self.arcs) > before:  # an alternative of no words is none; nothing is written as @
                ends.append(end)
        if not ends:
            msg = "An alternation in braces holds no words."
            raise ManifestError(msg, code="bad-alternation", hint="Write @ for an alternative without words.")
        join = self._nodes
        self._nodes += 1
        self.arcs = [replace(a, end=join) if a.end in ends and a.end != start else a for a in self.arcs]
        return join

    def sorted_arcs(self) -> tuple[Arc, ...]:
        """Arcs so that all that lead to a node come before those that leave it."""
        waiting = Counter(arc.end for arc in self.arcs)
        leaving: dict[int, list[Arc]] = {}
        for arc in self.arcs:
            leaving.setdefault(arc.start, []).append(arc)
        ready, done = [0], []
        for node in ready:
            for arc in leaving.get(node, ()):
                done.append(arc)
                waiting[arc.end] -= 1
                if not waiting[arc.end]:
                    ready.append(arc.end)
        return tuple(done)


def _unbalanced(sign: str) -> None:
    msg = f"An alternation is broken: {sign!r} has no partner."
    raise ManifestError(msg, code="bad-alternation", hint="Write alternations as { a / b }.")
