"""What is said about a clip of ``sounds``: captions from templates, questions and their short answers.

Knows nothing about audio. :mod:`grym.corpus.sounds.reading` reads what is written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grym.corpus.sounds.vocabulary import ATTRIBUTES, BACKGROUNDS, LABELS, QUIET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from grym.corpus.sounds.vocabulary import Event

# How a label is said with all of its attributes. {s} is the plural of what is counted, {times} once to four times.
PHRASES: Final[Mapping[str, tuple[str, str]]] = {
    "siren": ("a {pace} {pattern} siren", "a siren that is {pattern} and {pace}"),
    "bell": ("{count} strike{s} of a {pitch} bell", "a {pitch} bell struck {times}"),
    "engine": ("a {pitch} {change} engine", "an engine that is {pitch} and {change}"),
    "rain": ("{intensity} {change} rain", "rain that is {intensity} and {change}"),
    "clap": ("{count} {pace} claps", "hands clapping {times} at a {pace} pace"),
    "bird chirp": ("{count} {direction} bird chirps", "a bird chirping {times} with a {direction} note"),
    "dog bark": ("{count} {pitch} dog bark{s}", "a {pitch} dog barking {times}"),
    "alarm": ("a {pace} {pitch} beeping alarm", "an alarm with {pace} {pitch} beeps"),
    "footsteps": ("{pace} footsteps on {surface}", "somebody walking on {surface} at a {pace} pace"),
    "babble": ("{distance} babble of {pitch} voices", "a {distance} crowd of {pitch} voices"),
    "arpeggio": ("a {pace} {direction} arpeggio", "an arpeggio that is {direction} and {pace}"),
    "silence": ("near silence with a {change} {texture}", "nothing but a {change} faint {texture}"),
    "wind": ("{pitch} {change} wind", "wind that is {pitch} and {change}"),
    "whistle": ("a {length} {direction} whistle", "a whistle that is {length} and {direction}"),
    "knock": ("{count} {pace} knocks", "somebody knocking {times} at a {pace} pace"),
    "horn": ("{count} blast{s} of a {pitch} horn", "a {pitch} horn sounding {times}"),
    "clock": ("a {pace} {pitch} ticking clock", "a clock with {pace} {pitch} ticks"),
    "helicopter": ("a {pace} {motion} helicopter", "a helicopter that is {pace} and {motion}"),
}
# Values that are said in other words than they are named.
_SAID: Final[Mapping[tuple[str, str], str]] = {
    ("distance", "near"): "nearby",
    ("distance", "far"): "distant",
    ("surface", "hard"): "a hard floor",
}
TIMES: Final = {"one": "once", "two": "twice", "three": "three times", "four": "four times"}

_SINGLE: Final = (
    "{a}",
    "the clip is of {a}",
    "sounds of {a}",
    "you can hear {a}",
    "we hear {a}",
    "the sound of {a}",
    "a recording of {a}",
    "the clip has {a}",
    "the recording holds {a}",
    "{a} can be heard",
    "{a} and no other sound",
    "it sounds like {a}",
    "just {a}",
    "in this clip we have {a}",
    "the audio contains {a}",
    "the microphone caught {a}",
    "what is heard: {a}",
    "listen to {a}",
    "here we have {a}",
    "only {a}",
)
_THEN: Final = (
    "{a}, then {b}",
    "{a} and then {b}",
    "{a} followed by {b}",
    "first {a}, then {b}",
    "first we hear {a}, and after that {b}",
    "{a} coming before {b}",
    "{b} coming after {a}",
    "we hear {a} and afterwards {b}",
    "the clip begins with {a} and ends with {b}",
    "it starts with {a} and goes on with {b}",
    "after {a} we hear {b}",
    "the clip has {a}, later {b}",
    "two sounds in turn: {a}, next {b}",
    "{a} at first, {b} at the end",
    "before {b} we hear {a}",
)
_OVER: Final = (
    "{a} over {b}",
    "{a} with {b} in the background",
    "{a} against a background of {b}",
    "{a} on top of {b}",
    "{a} in the midst of {b}",
    "{a}, with {b} behind",
    "{a} can be heard above {b}",
    "in front of {b} we hear {a}",
    "over {b} we hear {a}",
    "behind {a} we hear {b}",
    "the foreground is {a}, the background is {b}",
    "{a} in the foreground, {b} in the background",
    "{b} all the time, and {a} on top",
    "in the background {b}, in front {a}",
    "{b} all the time behind {a}",
)
# By relation; {a} is the first of "then" and the foreground of "over".
TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {"": _SINGLE, "then": _THEN, "over": _OVER}
# Those that name {a} first and do not begin like one that means the opposite, as "{a} coming before {b}" and
# "{b} coming after {a}" do: whoever writes a word at a time has to turn there by what was said so far.
PLAIN: Final[Mapping[str, tuple[str, ...]]] = {
    "": _SINGLE,
    "then": (*_THEN[:5], *_THEN[7:10], _THEN[11], _THEN[12]),
    "over": (*_OVER[:6], _OVER[10], _OVER[11]),
}

# A question about one attribute; {x} is the label with its article.
_ABOUT: Final[Mapping[str, tuple[str, ...]]] = {
    "pitch": ("Is {x} low or high?", "Does {x} sound low or high?"),
    "pace": ("Is {x} slow or fast?", "Is the pace of {x} slow or fast?"),
    "direction": ("Does {x} rise or fall?", "Is {x} rising or falling?"),
    "length": ("Is {x} short or long?",),
    "intensity": ("Is {x} light or heavy?",),
    "distance": ("Is {x} near or far?",),
    "surface": ("Are the footsteps on a hard floor or on gravel?",),
    "texture": ("Is the faint sound a hiss or a hum?",),
    "pattern": ("Is {x} wailing or two-tone?",),
    "motion": ("Is {x} approaching or leaving?",),
}
_CHANGES: Final[Mapping[str, str]] = {
    "engine": "Is {x} steady or accelerating?",
    "wind": "Is {x} growing or fading?",
}
_COUNTS: Final[Mapping[str, str]] = {
    "bell": "How many times does the bell strike?",
    "clap": "How many claps are there?",
    "bird chirp": "How many times does the bird chirp?",
    "dog bark": "How many times does the dog bark?",
    "knock": "How many knocks are there?",
    "horn": "How many times does the horn sound?",
}
NAMES: Final[Mapping[str, str]] = {
    "bird chirp": "the bird",
    "dog bark": "the dog",
    "clap": "the clapping",
    "knock": "the knocking",
    "footsteps": "the walking",
    "silence": "the faint sound",
}
_WHICH: Final = ("What sound is this?", "Which sound is in the clip?", "What do you hear?")
_FIRST: Final = ("Which sound comes first?", "What do you hear first?")
_SECOND: Final = ("Which sound comes second?", "What do you hear last?")
_BEHIND: Final = ("What is in the background?", "Which sound is behind the other?")
_FRONT: Final = ("What is in the foreground?", "Which sound is in front?")
_PRESENT: Final = ("Is there {x} in the clip?", "Do you hear {x}?")
_HOW_MANY: Final = ("How many different sounds are there?",)
_ARTICLES: Final[Mapping[str, str]] = {
    "rain": "rain", "footsteps": "footsteps", "babble": "babble", "silence": "silence", "wind": "wind",
    "engine": "an engine", "alarm": "an alarm", "arpeggio": "an arpeggio",
}  # fmt: skip


def phrase(event: Event, form: int) -> str:
    """An event in words with all of its attributes; ``form`` is 0 or 1."""
    words = {key: _SAID.get((key, value), value) for key, value in event.attributes.items()}
    count = event.attributes.get("count", "one")
    return PHRASES[event.label][form].format(**words, s="" if count == "one" else "s", times=TIMES[count])


def captions(events: Sequence[Event], relation: str, rng: np.random.Generator, *, plain: bool = False) -> str:
    """A caption: one of :data:`TEMPLATES` with one of two phrases for each event, all equally likely.

    Args:
        events: one, or two in the order of the relation.
        relation: ``""``, ``"then"`` or ``"over"``.
        rng: source of the draw.
        plain: one of :data:`PLAIN` instead.
    """
    template = _one((PLAIN if plain else TEMPLATES)[relation], rng)
    parts = {name: phrase(event, int(rng.integers(2))) for name, event in zip("ab", events, strict=False)}
    text = template.format(**parts)
    return f"{text[0].upper()}{text[1:]}."


def ask(events: Sequence[Event], relation: str, rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
    """Two questions with short answers: one about what sounds are there, one about how they sound.

    The first is which sound it is, whether a sound is there (yes as often as no), which comes first or second, what
    is in front or behind, or how many there are; the second is about an attribute of one of the events.
    """
    return _what(events, relation, rng), _how(events, rng)


def _one(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _what(events: Sequence[Event], relation: str, rng: np.random.Generator) -> tuple[str, str]:
    dice = float(rng.random())
    if dice < 0.4:  # noqa: PLR2004 - two of five ask whether something is there
        return ask_presence(events, rng)
    if dice < 0.48:  # noqa: PLR2004 - one of twelve
        return _one(_HOW_MANY, rng), "two" if relation else "one"
    if not relation:
        return _one(_WHICH, rng), events[0].label
    place = int(rng.integers(2))
    forms = {"then": (_FIRST, _SECOND), "over": (_FRONT, _BEHIND)}[relation]
    return _one(forms[place], rng), events[place].label


def ask_presence(events: Sequence[Event], rng: np.random.Generator) -> tuple[str, str]:
    """Whether a sound is there, yes as often as no, with the answer."""
    here = [event.label for event in events]
    yes = bool(rng.integers(2))
    # A sound that is not there is drawn like one that is, or the question alone would give the answer away.
    others = [label for label in LABELS if label not in here and (label != QUIET or len(here) == 1)]
    if not yes and len(here) > 1 and rng.random() < 0.3:  # noqa: PLR2004 - backgrounds are more frequent in mixtures
        others = [label for label in BACKGROUNDS if label not in here]
    label = _one(here if yes else others, rng)
    return _one(_PRESENT, rng).format(x=_ARTICLES.get(label, f"a {label}")), "yes" if yes else "no"


def _how(events: Sequence[Event], rng: np.random.Generator) -> tuple[str, str]:
    event = events[int(rng.integers(len(events)))]
    key = _one(tuple(ATTRIBUTES[event.label]), rng)
    name = NAMES.get(event.label, f"the {event.label}")
    if key == "count":
        question = _COUNTS[event.label]
    elif key == "change":
        question = _CHANGES.get(event.label, "Is {x} steady or fading?")
    else:
        question = _one(_ABOUT[key], rng)
    return question.format(x=name), event.attributes[key]
