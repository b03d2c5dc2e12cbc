"""The corpus ``sounds``: eighteen kinds of sound events by signal processing, with captions and questions.

    >>> from grym.corpus.sounds import draw
    >>> draw(seed=7, index=3, split="train").rate
    16000

A clip is a pure function of seed, index and split. Nothing was recorded and no
voice is imitated; NumPy and SciPy suffice. Knows nothing about models.
"""

from grym.corpus.sounds.clip import SoundClip, draw, render
from grym.corpus.sounds.language import PLAIN, TEMPLATES, ask, ask_presence, captions
from grym.corpus.sounds.reading import CaptionScore, Facts, read_caption, score_answer, score_caption
from grym.corpus.sounds.vocabulary import ATTRIBUTES, BACKGROUNDS, LABELS, RATE, Event, draw_event

__all__ = [
    "ATTRIBUTES",
    "BACKGROUNDS",
    "LABELS",
    "PLAIN",
    "RATE",
    "TEMPLATES",
    "CaptionScore",
    "Event",
    "Facts",
    "SoundClip",
    "ask",
    "ask_presence",
    "captions",
    "draw",
    "draw_event",
    "read_caption",
    "render",
    "score_answer",
    "score_caption",
]
