"""How text is made comparable before it is scored: named, versioned normalisers.

Knows nothing about audio, models or tables. Every score row stores
:attr:`Normalizer.label`, because a WER without its normaliser means nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache, lru_cache
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
_WORD: Final = re.compile(r"[a-z]+(?:'[a-z]+)*[.,;:?!]*")
_LETTERS: Final = re.compile(r"[a-z]+")
_PERFECT: Final = re.compile(r"'[ds]\s+(?:been|gone|done|got)")  # "he's been", "he's gotta": two words are one rule
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
        if self.name == "english":
            # Most rules look at single words, and there are few different ones: the library is asked once for each,
            # instead of trying its whole list of patterns on every text.
            lowered = text.lower()
            alone = [_alone(word) for word in lowered.split()]
            if None not in alone and not _PERFECT.search(lowered):
                return " ".join(filter(None, alone))
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


@lru_cache(maxsize=1 << 16)
def _alone(word: str) -> str | None:
    """What the English rules make of a word in lower case, or ``None`` if they read it together with its neighbours."""
    if not _WORD.fullmatch(word) or not _number_words().isdisjoint(_LETTERS.findall(word)):
        return None
    return " ".join(_function("english")(word).split())


@cache
def _number_words() -> frozenset[str]:
    """Words that numbers are made of; ``and`` matters only beside another of them."""
    return frozenset(_function("english").standardize_numbers.words) - {"and"}  # type: ignore[attr-defined]


@cache
def _function(name: str) -> Callable[[str], str]:
    if name == "basic":
        from whisper_normalizer.basic import BasicTextNormalizer

        return BasicTextNormalizer()  # type: ignore[no-any-return]
    if name == "english":
        from whisper_normalizer.english import EnglishTextNormalizer

        return EnglishTextNormalizer()  # type: ignore[no-any-return]
    return str
