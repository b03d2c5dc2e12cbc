"""What a clip of ``sounds`` can hold: the labels, their attributes and the values that these can have.

Knows nothing about audio. The values are defined by the parameters of the
renderers, with a gap between the ranges of two values (see ``tonal``, ``strokes``
and ``textures``), so that the truth of a clip is never at a border.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

RATE: Final = 16_000
_PITCH: Final = ("low", "high")
_PACE: Final = ("slow", "fast")
_DIRECTION: Final = ("rising", "falling")

# Label -> attribute -> its values. The order is part of the seeded draw: append, never insert.
ATTRIBUTES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "siren": {"pattern": ("wailing", "two-tone"), "pace": _PACE},
    "bell": {"pitch": _PITCH, "count": ("one", "two", "three")},
    "engine": {"pitch": _PITCH, "change": ("steady", "accelerating")},
    "rain": {"intensity": ("light", "heavy"), "change": ("steady", "fading")},
    "clap": {"count": ("two", "three", "four"), "pace": _PACE},
    "bird chirp": {"count": ("two", "three", "four"), "direction": _DIRECTION},
    "dog bark": {"pitch": _PITCH, "count": ("one", "two", "three")},
    "alarm": {"pitch": _PITCH, "pace": _PACE},
    "footsteps": {"pace": _PACE, "surface": ("hard", "gravel")},
    "babble": {"pitch": _PITCH, "distance": ("near", "far")},
    "arpeggio": {"direction": _DIRECTION, "pace": _PACE},
    "silence": {"texture": ("hiss", "hum"), "change": ("steady", "fading")},
    "wind": {"pitch": _PITCH, "change": ("growing", "fading")},
    "whistle": {"length": ("short", "long"), "direction": _DIRECTION},
    "knock": {"count": ("two", "three", "four"), "pace": _PACE},
    "horn": {"pitch": _PITCH, "count": ("one", "two", "three")},
    "clock": {"pitch": _PITCH, "pace": _PACE},
    "helicopter": {"pace": _PACE, "motion": ("approaching", "leaving")},
}
LABELS: Final = tuple(ATTRIBUTES)
# What can go on behind another sound; nothing of it is a foreground of "over", because two textures hide each other.
BACKGROUNDS: Final = ("rain", "wind", "engine", "babble", "helicopter")
QUIET: Final = "silence"
NUMBERS: Final[Mapping[str, int]] = {"one": 1, "two": 2, "three": 3, "four": 4}
# Four slow strokes do not fit into half a clip.
_LONG: Final = {"count": "four", "pace": "slow"}


@dataclass(frozen=True, slots=True)
class Event:
    """One sound in a clip.

    Attributes:
        label: one of :data:`LABELS`.
        attributes: a value of :data:`ATTRIBUTES` for each attribute of the label.
    """

    label: str
    attributes: Mapping[str, str]


def draw_event(label: str, rng: np.random.Generator, *, short: bool = False) -> Event:
    """An event with every combination of its attributes equally likely.

    Args:
        label: one of :data:`LABELS`.
        rng: source of the draw.
        short: leave out what does not fit into half a clip (about 1.1 s).

    Raises:
        ConfigError: the label is unknown.
    """
    if label not in ATTRIBUTES:
        msg = f"Unknown sound {label!r}: use one of {', '.join(LABELS)}."
        raise ConfigError(msg, code="unknown-label", hint="See grym.corpus.sounds.LABELS.")
    keys = tuple(ATTRIBUTES[label])
    combinations = [dict(zip(keys, values, strict=True)) for values in itertools.product(*ATTRIBUTES[label].values())]
    if short:
        combinations = [chosen for chosen in combinations if chosen != _LONG]
    return Event(label, combinations[int(rng.integers(len(combinations)))])
