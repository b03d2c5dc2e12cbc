"""Reads captions and answers about ``sounds`` back, and scores those of a model.

    >>> facts = read_caption("A low bell struck twice, then heavy fading rain.")
    >>> facts.relation, [event.label for event in facts.events]
    ('then', ['bell', 'rain'])

Knows nothing about audio. Understands every caption of :mod:`language` and
sensible variants; what names no sound, or one sound without an end, cannot be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grym.corpus.sounds.language import TEMPLATES
from grym.corpus.sounds.vocabulary import ATTRIBUTES, Event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.corpus.sounds.clip import SoundClip

_NOUNS: Final[Mapping[str, str]] = {
    "siren": r"sirens?",
    "bell": r"bells?",
    "engine": r"engines?|motors?",
    "rain": r"rain(?:s|ing|fall)?",
    "clap": r"clap(?:s|ping)?|applause",
    "bird chirp": r"birds?|chirp(?:s|ing)?",
    "dog bark": r"dogs?|bark(?:s|ing)?",
    "alarm": r"alarms?|beep(?:s|ing)?",
    "footsteps": r"footsteps?|steps|walk(?:s|ing)?",
    "babble": r"babble|babbling|voices|crowd|people",
    "arpeggio": r"arpeggios?",
    "silence": r"silen(?:ce|t)|nothing",
    "wind": r"winds?",
    "whistle": r"whistl(?:e|es|ing)",
    "knock": r"knock(?:s|ing)?",
    "horn": r"horns?|honk(?:s|ing)?",
    "clock": r"clocks?|tick(?:s|ing)?",
    "helicopter": r"helicopters?",
}
_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "pitch": {"low": r"low|lower|deep|low-pitched", "high": r"high|higher|high-pitched|shrill"},
    "pace": {"slow": r"slow|slowly", "fast": r"fast|quick|quickly|rapid|rapidly"},
    "count": {
        "one": r"one|once|1|single",
        "two": r"two|twice|2",
        "three": r"three|thrice|3",
        "four": r"four|4",
    },
    "direction": {"rising": r"rising|rises?|upwards?|up", "falling": r"falling|falls?|downwards?|down"},
    "change": {
        "steady": r"steady|steadily|constant",
        "fading": r"fading|fades?",
        "growing": r"growing|grows?",
        "accelerating": r"accelerating|accelerates?",
    },
    "pattern": {"wailing": r"wailing|wails?", "two-tone": r"two-tone|two tones?"},
    "intensity": {"light": r"light|lightly", "heavy": r"heavy|heavily"},
    "distance": {"near": r"near|nearby|close", "far": r"far|distant|far away"},
    "surface": {"hard": r"hard", "gravel": r"gravel"},
    "texture": {"hiss": r"hiss(?:es|ing)?", "hum": r"hum(?:s|ming)?"},
    "length": {"short": r"short", "long": r"long"},
    "motion": {"approaching": r"approaching|approaches", "leaving": r"leaving|leaves"},
}
# Looser ways to join two sounds than the templates: {a} and {b} as there.
_LOOSE: Final[Mapping[str, tuple[str, ...]]] = {
    "over": (
        "in the background {b} and in the foreground {a}",
        "{b} in the background and {a} in front",
        "{a} and {b} in the background",
        "{a} and {b} behind",
        "{a} over {b}",
        "{a} above {b}",
        "{a} while there is {b}",
        "{b} with {a} in the foreground",
        "{b} with {a} in front",
        "over {b} {a}",
    ),
    "then": ("{a} then {b}", "{a} before {b}", "{b} after {a}", "{a} afterwards {b}", "{a} next {b}", "{a} later {b}"),
}
_TONES: Final = re.compile(r"\btwo[- ]tones?\b")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a caption says.

    Attributes:
        events: one or two, in the order of the relation; attributes that are not said are left out.
        relation: ``""``, ``"then"`` or ``"over"``.
    """

    events: tuple[Event, ...]
    relation: str


@dataclass(frozen=True, slots=True)
class CaptionScore:
    """What a caption gets right: all labels and no other, all their attributes, order or foreground."""

    labels: bool
    attributes: bool
    relation: bool

    @property
    def right(self) -> bool:
        """Whether everything is right."""
        return self.labels and self.attributes and self.relation


def _compiled(table: Mapping[str, tuple[str, ...]]) -> list[tuple[str, re.Pattern[str]]]:
    # The longest first: "{a} and then {b}" must not be read as "{a}, then {b}" with an "and" in {a}.
    pairs = sorted(((len(t), r, t) for r, ts in table.items() if r for t in ts), reverse=True)
    return [(relation, _pattern(template, part)) for _, relation, template in pairs for part in (".+?", ".+")]


def _pattern(template: str, part: str) -> re.Pattern[str]:
    """A template as an expression whose first part is as short or as long as it can be."""
    whole = re.escape(_plain(template))
    return re.compile(whole.replace(r"\{a\}", f"(?P<a>{part})").replace(r"\{b\}", f"(?P<b>{part})"))


def _plain(text: str) -> str:
    """Lower case without punctuation, single spaces."""
    return " ".join(re.sub(r"[^a-z0-9{}\- ]+", " ", text.lower().replace("'s", " s")).split())


_JOINED: Final = _compiled(TEMPLATES)
_LOOSELY: Final = _compiled(_LOOSE)


def read_caption(text: str) -> Facts | None:
    """The labels, attributes and relation that a caption names.

    Args:
        text: any string.

    Returns:
        The facts; ``None`` if no sound is named, or more than one without a relation that is understood.
    """
    plain = _plain(text)
    found = _labels(plain)
    if len(found) == 1:
        return Facts((_event(plain, found[0]),), "")
    # A joint such as "with" may also be a part of a phrase: of all readings the one that explains most is taken.
    best = max((_split(plain, _JOINED), _split(plain, _LOOSELY)), key=_explained)
    return best if best and len(best.events) > 1 else None


def _explained(facts: Facts | None) -> int:
    return sum(1 + len(event.attributes) for event in facts.events) if facts else 0


def _split(plain: str, patterns: Sequence[tuple[str, re.Pattern[str]]]) -> Facts | None:
    """The reading as two sounds that explains most of a text, of equal ones the first."""
    best: Facts | None = None
    for relation, pattern in patterns:
        match = pattern.fullmatch(plain)
        labels = [_labels(part) for part in (match["a"], match["b"])] if match else []
        if match and all(len(some) == 1 for some in labels):
            facts = Facts(tuple(_event(match[g], some[0]) for g, some in zip("ab", labels, strict=True)), relation)
            best = max(best, facts, key=_explained)
    return best


def _labels(plain: str) -> list[str]:
    return [label for label, noun in _NOUNS.items() if re.search(rf"\b(?:{noun})\b", plain)]


def _event(plain: str, label: str) -> Event:
    attributes = {}
    for key in ATTRIBUTES[label]:
        values = _values(plain, key, ATTRIBUTES[label][key])
        if len(values) == 1:
            attributes[key] = values[0]
    return Event(label, attributes)


def _values(plain: str, key: str, values: Sequence[str]) -> list[str]:
    if key == "count":
        plain = _TONES.sub(" ", plain)
    return [value for value in values if re.search(rf"(?<![\w-])(?:{_WORDS[key][value]})(?![\w-])", plain)]


def score_caption(text: str, clip: SoundClip) -> CaptionScore:
    """How right a caption is about a clip.

    Args:
        text: what a model says.
        clip: what is true.
    """
    facts = read_caption(text)
    if facts is None:
        return CaptionScore(labels=False, attributes=False, relation=False)
    said = {event.label: event.attributes for event in facts.events}
    true = {event.label: event.attributes for event in clip.events}
    labels = said.keys() == true.keys()
    order = [event.label for event in facts.events] == [event.label for event in clip.events]
    return CaptionScore(labels, labels and said == true, facts.relation == clip.relation and order)


def score_answer(text: str, answer: str) -> bool:
    """Whether a text gives a short answer and does not give another one of the same kind as well.

    Args:
        text: what a model says; a sentence will do.
        answer: ``yes``, ``no``, a label, or a value of an attribute.
    """
    plain = _plain(text)
    if answer in {"yes", "no"}:
        said = re.findall(r"\b(?:yes|no)\b", plain)
        return bool(said) and set(said) == {answer}
    if answer in _NOUNS:
        return _labels(plain) == [answer]
    for key, values in _WORDS.items():
        if answer in values:
            return _values(plain, key, tuple(values)) == [answer]
    return plain == _plain(answer)
