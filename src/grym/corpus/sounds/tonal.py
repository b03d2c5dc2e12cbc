"""Sounds with a pitch that is held or moves: siren, alarm, horn, whistle, arpeggio.

Each renderer takes the attributes of :mod:`vocabulary`, a number of samples to
fill and a generator, and gives float32 mono at 16 kHz, ``shape = (samples,)``, at
any level. Ranges that define an attribute stand in tables, with gaps between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from grym.corpus.sounds.signals import add, band, decay, fade, glide, harmonics, low_pass, phase, seconds, wander, white
from grym.corpus.sounds.vocabulary import NUMBERS, RATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grym.corpus.sounds.signals import Samples

    Values = Mapping[str, str]

# Seconds: one turn of a siren, from beep to beep, from note to note, how long a whistle is.
SIREN_PERIOD: Final = {"slow": (0.85, 1.1), "fast": (0.25, 0.36)}
BEEP_INTERVAL: Final = {"slow": (0.40, 0.50), "fast": (0.12, 0.17)}
NOTE_INTERVAL: Final = {"slow": (0.24, 0.29), "fast": (0.09, 0.12)}
WHISTLE_LENGTH: Final = {"short": (0.25, 0.36), "long": (0.75, 0.95)}
BLAST_LENGTH: Final = {"one": (0.45, 0.85), "two": (0.24, 0.34), "three": (0.18, 0.24)}
# Hz: the note of a beep and the lower tone of a horn.
BEEP_HZ: Final = {"low": (550.0, 850.0), "high": (2200.0, 3200.0)}
HORN_HZ: Final = {"low": (150.0, 220.0), "high": (400.0, 540.0)}
# How far a whistle moves, as a factor on its frequency.
WHISTLE_SPAN: Final = (1.5, 2.0)
_CHORDS: Final = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 3, 7, 10), (0, 5, 7))


def siren(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """A siren that goes up and down in a curve (wailing) or jumps between two tones."""
    turns = np.arange(samples, dtype=np.float32) / np.float32(rng.uniform(*SIREN_PERIOD[values["pace"]]) * RATE)
    turns = turns + np.float32(rng.uniform(0, 1))
    if values["pattern"] == "wailing":
        low, high = float(rng.uniform(420, 620)), float(rng.uniform(1050, 1500))
        wave = 0.5 - 0.5 * np.cos(2 * np.pi * turns)
        if rng.random() < 0.4:  # noqa: PLR2004 - some sirens move evenly
            wave = 1 - np.abs(1 - 2 * (turns % 1))
        frequency = low * np.exp(wave * np.float32(np.log(high / low)))
    else:
        low = float(rng.uniform(430, 750))
        ratio = float(rng.uniform(1.26, 1.5))
        frequency = np.where(turns % 1 < 0.5, low, low * ratio).astype(np.float32)  # noqa: PLR2004 - half a turn
    count = int(rng.integers(4, 8))
    amplitudes = 1 / np.arange(1, count + 1) ** float(rng.uniform(0.8, 1.8))
    amplitudes[1::2] *= float(rng.uniform(0.2, 1.0))
    return fade(harmonics(phase(frequency, rng), amplitudes), 0.02)


def alarm(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """An electronic alarm: equal beeps all the time; ``pitch`` is their note."""
    note = float(rng.uniform(*BEEP_HZ[values["pitch"]]))
    interval = float(rng.uniform(*BEEP_INTERVAL[values["pace"]]))
    length = seconds(interval * float(rng.uniform(0.4, 0.55)))
    amplitudes = np.zeros(max(1, min(7, int(7200 / note))))
    amplitudes[::2] = 1 / np.arange(1, amplitudes.size + 1, 2) ** float(rng.uniform(0.9, 2.5))
    beep = fade(harmonics(phase(np.full(length, note, np.float32), rng), amplitudes), 0.004)
    total = np.zeros(samples, np.float32)
    for start in np.arange(float(rng.uniform(0.005, 0.3 * interval)), samples / RATE, interval):
        if int(start * RATE) + length // 2 < samples:
            add(total, beep, int(start * RATE))
    return total


def horn(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Blasts of a car's horn: two harsh tones a third apart; ``pitch`` is the lower one."""
    low = float(rng.uniform(*HORN_HZ[values["pitch"]]))
    ratio = float(rng.uniform(1.19, 1.28))
    count, length = NUMBERS[values["count"]], float(rng.uniform(*BLAST_LENGTH[values["count"]]))
    gap = float(rng.uniform(0.1, 0.14))
    size = seconds(length)
    bright = float(rng.uniform(0.5, 1.0))
    blast = np.zeros(size, np.float32)
    for tone in (low, low * ratio):
        partials = 1 / np.arange(1, min(16, int(5000 / tone)) + 1) ** bright
        drift = np.full(size, tone, np.float32)
        drift[: seconds(0.03)] *= np.linspace(0.97, 1.0, seconds(0.03), dtype=np.float32)
        blast += harmonics(phase(drift, rng), partials)
    blast = fade(low_pass(blast, float(rng.uniform(1500, 3500))), 0.012, 0.03)
    total = np.zeros(samples, np.float32)
    room = samples / RATE - count * length - (count - 1) * gap
    start = float(rng.uniform(0.005, max(0.01, room - 0.01)))
    for index in range(count):
        add(total, blast, seconds(start + index * (length + gap)))
    return total


def whistle(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Somebody who whistles one note that glides up or down, with a little breath and vibrato."""
    size = seconds(float(rng.uniform(*WHISTLE_LENGTH[values["length"]])))
    low, span = float(rng.uniform(850, 1250)), float(rng.uniform(*WHISTLE_SPAN))
    curve = low * glide(size, (1.0, span ** float(rng.uniform(0.35, 0.65)), span))
    if values["direction"] == "falling":
        curve = curve[::-1]
    axis = np.arange(size, dtype=np.float32) / RATE
    vibrato = np.float32(rng.uniform(0, 0.01)) * np.sin(np.float32(2 * np.pi * rng.uniform(4.5, 6.5)) * axis)
    angle = phase(curve * (1 + vibrato), rng)
    tone = harmonics(angle, np.array([1.0, float(rng.uniform(0.02, 0.12))]))
    tone = tone * (1 + np.float32(0.2) * wander(size, 6, rng))
    breath = band(white(size, rng), low * span**0.5, 1.5) * np.float32(rng.uniform(0.02, 0.08))
    total = np.zeros(samples, np.float32)
    start = int(rng.integers(seconds(0.005), max(seconds(0.01), samples - size)))
    add(total, fade(tone + breath, 0.03, 0.05), start)
    return total


def arpeggio(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Notes of a chord, plucked one after the other over one to two octaves, up or down, again and again."""
    chord = _CHORDS[int(rng.integers(len(_CHORDS)))]
    interval = float(rng.uniform(*NOTE_INTERVAL[values["pace"]]))
    count = 4 if values["pace"] == "slow" else int(rng.integers(5, 8))
    steps = [12 * (i // len(chord)) + chord[i % len(chord)] for i in range(count)]
    if values["direction"] == "falling":
        steps.reverse()
    base = float(rng.uniform(200, 420))
    time = float(rng.uniform(0.25, 0.7))
    size = seconds(min(time, 2.5 * interval))
    partials = 1 / np.arange(1, int(rng.integers(3, 8)) + 1) ** float(rng.uniform(1.0, 2.5))
    notes = []
    for step in steps:
        note = np.full(size, base * 2 ** (step / 12), np.float32)
        notes.append(fade(harmonics(phase(note, rng), partials) * decay(size, time, 0.004), 0.002, 0.02))
    total = np.zeros(samples, np.float32)
    start = float(rng.uniform(0.005, 0.03))
    while start + 3.5 * interval < samples / RATE:  # a run of fewer notes would not tell its direction
        for index, note in enumerate(notes):
            add(total, note, seconds(start + index * interval))
        start += (count + float(rng.uniform(1.0, 1.6))) * interval
    return total
