"""How text is made comparable before it is scored: named, versioned normalisers.

Knows nothing about audio, models or tables. Every score row stores
:attr:`Normalizer.label`, because a WER without its normaliser means nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBRARY: Final = "whisper-normalizer"
_RULES: Final[dict[str, str]] = {
    "none": "split at whitespace",
    "basic": "BasicTextNormalizer()",
    "english": "EnglishTextNormalizer()",
}
# What the rules make of these is part of the digest: the library's tables and Python's Unicode data can
# change the outcome without a change of the library's version.
_PROBES: Final = (
    "Don't [noise] STOP, (um) ok!",
    "one two  twenty-three",
    "Größe café 3 €",
    "colour Mr. O\u2019Neil",
    "",
)


@dataclass(frozen=True, slots=True)
class Normalizer:
    """One normaliser: call it with a text, get words separated by single spaces.

    Attributes:
        name: ``none``, ``basic`` or ``english``.
        version: library and version that hold the rules.
        digest: 8 hex digits of name, version, rules and what they do to fixed probe texts.
    """

    name: str
    version: str
    digest: str

    @property
    def label(self) -> str:
        """What a row stores, for example ``basic@whisper-normalizer-0.1.15#1a2b3c4d``."""
        return f"{self.name}@{self.version}#{self.digest}"

    def __call__(self, text: str) -> str:
        """The normalised text."""
        return " ".join(_function(self.name)(text).split())


@cache
def get_normalizer(name: str) -> Normalizer:
    """The normaliser of that name.

    * ``none`` splits at whitespace only: case and punctuation count.
    * ``basic`` lower-cases, drops punctuation and everything in brackets; for any language whose
      script needs no combining marks.
    * ``english`` also spells out contractions, unifies British and American spelling and writes
      numbers as digits: **"one two" becomes "12"**, one word. Not for spoken digits.

    Args:
        name: ``none``, ``basic`` or ``english``.

    Raises:
        ConfigError: there is no normaliser of that name.

    Example:
        >>> get_normalizer("basic")("Hello, World!")
        'hello world'

    Source:
        Radford et al. 2022 (arXiv 2212.04356), appendix C.
    """
    if name not in _RULES:
        msg = f"Unknown normaliser {name!r}; known are: {', '.join(_RULES)}."
        raise ConfigError(msg, code="unknown-normalizer", hint="Use one of these.")
    source = "grym-1" if name == "none" else f"{_LIBRARY}-{version(_LIBRARY)}"
    function = _function(name)
    facts = "\x1f".join((name, source, _RULES[name], *(" ".join(function(probe).split()) for probe in _PROBES)))
    return Normalizer(name, source, hashlib.sha256(facts.encode()).hexdigest()[:8])


@cache
def _function(name: str) -> Callable[[str], str]:
    if name == "basic":
        from whisper_normalizer.basic import BasicTextNormalizer

        return BasicTextNormalizer()  # type: ignore[no-any-return]
    if name == "english":
        from whisper_normalizer.english import EnglishTextNormalizer

        return EnglishTextNormalizer()  # type: ignore[no-any-return]
    return str
