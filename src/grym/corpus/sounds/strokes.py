"""Sounds that are struck, stepped or barked: a number of strokes at a pace.

Each renderer takes the attributes of :mod:`vocabulary`, a number of samples to
fill and a generator, and gives float32 mono at 16 kHz, ``shape = (samples,)``, at
any level. Ranges that define an attribute stand in tables, with gaps between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from grym.corpus.sounds.signals import add, band, decay, fade, glide, harmonics, low_pass, modes, phase, seconds, white
from grym.corpus.sounds.vocabulary import NUMBERS, RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from grym.corpus.sounds.signals import Samples

    Values = Mapping[str, str]
    Stroke = Callable[[np.random.Generator], Samples]

# Seconds from one stroke to the next.
STROKE_INTERVAL: Final = {"slow": (0.36, 0.43), "fast": (0.13, 0.18)}
STEP_INTERVAL: Final = {"slow": (0.42, 0.52), "fast": (0.18, 0.25)}
TICK_INTERVAL: Final = {"slow": (0.40, 0.50), "fast": (0.14, 0.20)}
BELL_INTERVAL: Final = (0.30, 0.36)
BARK_INTERVAL: Final = (0.26, 0.34)
CHIRP_INTERVAL: Final = (0.17, 0.25)
# Hz: the strike note of a bell, the pitch of a bark, the ring of a clock's tick.
BELL_HZ: Final = {"low": (190.0, 340.0), "high": (850.0, 1500.0)}
BARK_HZ: Final = {"low": (120.0, 190.0), "high": (420.0, 620.0)}
TICK_HZ: Final = {"low": (1100.0, 1600.0), "high": (3600.0, 5200.0)}
# How far a chirp moves, as a factor on its frequency.
CHIRP_SPAN: Final = (1.5, 1.9)
# Partials of a bell relative to its strike note: hum, prime, tierce, quint, nominal and above (Rossing, 2000).
_BELL: Final = ((0.5, 0.5, 1.3), (1.0, 1.0, 1.0), (1.19, 0.7, 0.8), (1.5, 0.4, 0.6), (2.0, 0.9, 0.6), (2.66, 0.4, 0.35),
                (3.0, 0.3, 0.3), (4.1, 0.25, 0.2))  # fmt: skip


def _repeat(
    samples: int, starts: np.ndarray, stroke: Stroke, rng: np.random.Generator, spread_db: float = 2.0
) -> Samples:
    total = np.zeros(samples, np.float32)
    for start in starts:
        add(total, stroke(rng), int(start), 10 ** (float(rng.uniform(-spread_db, 0)) / 20))
    return total


def _counted(samples: int, count: int, interval: float, tail: float, rng: np.random.Generator) -> np.ndarray:
    """Starts of some strokes somewhere in the clip, with time left for the last one; spacing varies by 4 %."""
    steps = interval * rng.uniform(0.96, 1.04, count - 1)
    most = samples / RATE - tail - float(steps.sum())
    start = float(rng.uniform(0.01, max(0.02, most)))
    return ((start + np.concatenate([[0.0], np.cumsum(steps)])) * RATE).astype(int)


def _going_on(samples: int, interval: float, rng: np.random.Generator, jitter: float = 0.03) -> np.ndarray:
    """Starts of strokes through the whole clip."""
    count = int(samples / RATE / interval) + 1
    times = float(rng.uniform(0.01, 0.3 * interval)) + interval * (
        np.arange(count) + rng.uniform(-jitter, jitter, count)
    )
    starts = (np.maximum(times, 0) * RATE).astype(int)
    return starts[starts < samples - seconds(0.04)]


def bell(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Strokes of a bell; ``pitch`` is its strike note."""
    base = float(rng.uniform(*BELL_HZ[values["pitch"]]))
    time = float(rng.uniform(0.9, 1.8)) * (1.0 if values["pitch"] == "low" else 0.6)
    parts = [
        (base * ratio * rng.uniform(0.995, 1.005), amplitude * rng.uniform(0.5, 1.2), time * length)
        for ratio, amplitude, length in _BELL
        if base * ratio < 7000  # noqa: PLR2004 - below half the rate
    ]
    ring = modes(min(samples, seconds(1.4 * time)), parts, rng)
    clang = band(white(seconds(0.02), rng), min(6 * base, 6000.0), 1.0) * decay(seconds(0.02), 0.02)
    add(ring, clang, 0, float(rng.uniform(0.5, 1.5)))
    count = NUMBERS[values["count"]]
    starts = _counted(samples, count, float(rng.uniform(*BELL_INTERVAL)), 0.3, rng)
    total = np.zeros(samples, np.float32)
    for start in starts:
        if start != starts[0]:  # the clapper damps what still rings
            total[start:] *= np.float32(0.45)
        add(total, ring, int(start), float(rng.uniform(0.85, 1.0)))
    return total


def clap(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Hands that clap: broad bursts of noise around 1 to 2 kHz, each of two or three slaps."""
    centre, time = float(rng.uniform(1000, 2000)), float(rng.uniform(0.04, 0.08))
    size = seconds(1.3 * time)

    def stroke(rng: np.random.Generator) -> Samples:
        noise = white(size, rng)
        slap = band(noise, centre * float(rng.uniform(0.92, 1.08)), 1.1) + np.float32(0.12) * noise
        envelope = decay(size, time, 0.0006)
        for _ in range(int(rng.integers(1, 3))):
            add(envelope, decay(size, 0.4 * time, 0.0006), int(rng.integers(60, 160)), float(rng.uniform(0.4, 0.8)))
        return slap * envelope

    interval = float(rng.uniform(*STROKE_INTERVAL[values["pace"]]))
    return _repeat(samples, _counted(samples, NUMBERS[values["count"]], interval, 0.1, rng), stroke, rng)


def knock(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Knuckles on a door: a few low modes of wood that die away quickly."""
    base = float(rng.uniform(110, 190))
    ratios = np.array([1.0, 1.9, 2.9, 4.4]) * rng.uniform(0.92, 1.08, 4)
    time = float(rng.uniform(0.07, 0.12))

    def stroke(rng: np.random.Generator) -> Samples:
        loud = rng.uniform(0.7, 1.0, 4) * np.array([1.0, 0.8, 0.5, 0.25])
        parts = [(base * r, a, time / (1 + 0.25 * i)) for i, (r, a) in enumerate(zip(ratios, loud, strict=True))]
        blow = modes(seconds(0.13), parts, rng)
        add(blow, band(white(seconds(0.008), rng), 700.0, 0.8) * decay(seconds(0.008), 0.01), 0, 0.8)
        return blow

    interval = float(rng.uniform(*STROKE_INTERVAL[values["pace"]]))
    return _repeat(samples, _counted(samples, NUMBERS[values["count"]], interval, 0.13, rng), stroke, rng)


def clock(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """A clock that ticks all the time, tick and tock a little different; ``pitch`` is the ring of its case."""
    base = float(rng.uniform(*TICK_HZ[values["pitch"]]))
    time = float(rng.uniform(0.012, 0.03))
    starts = _going_on(samples, float(rng.uniform(*TICK_INTERVAL[values["pace"]])), rng, 0.01)
    ticks = [
        modes(seconds(0.04), [(base * tune, 1.0, time), (base * tune * 1.47, 0.35, 0.6 * time)], rng)
        for tune in (1.0, 0.94)
    ]
    total = np.zeros(samples, np.float32)
    for index, start in enumerate(starts):
        add(total, ticks[index % 2], int(start), float(rng.uniform(0.85, 1.0)))
    return total


def footsteps(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Somebody who walks: heel and toe on a hard floor, or the crunch of gravel."""
    heel, thud = float(rng.uniform(900, 1700)), float(rng.uniform(70, 120))
    hard = values["surface"] == "hard"

    def on_floor(rng: np.random.Generator) -> Samples:
        step = modes(seconds(0.16), [(thud * rng.uniform(0.95, 1.05), 1.0, 0.11), (2.3 * thud, 0.4, 0.07)], rng)
        click = band(white(seconds(0.03), rng), heel, 1.6) * decay(seconds(0.03), 0.03, 0.0006)
        add(step, click, 0, 1.6)
        add(step, click, seconds(float(rng.uniform(0.05, 0.075))), 0.6)
        return step

    def on_gravel(rng: np.random.Generator) -> Samples:
        size = seconds(float(rng.uniform(0.11, 0.14)))
        grains = white(size, rng) * (rng.random(size) < 0.02).astype(np.float32) * 6  # noqa: PLR2004 - grains a sample
        crunch = band(grains + np.float32(0.25) * white(size, rng), 2.4 * heel, 0.7)
        shape = np.maximum(np.sin(np.linspace(0, np.pi, size, dtype=np.float32)), 0) ** np.float32(0.7)
        return crunch * shape

    interval = float(rng.uniform(*STEP_INTERVAL[values["pace"]]))
    return _repeat(samples, _going_on(samples, interval, rng), on_floor if hard else on_gravel, rng)


def dog_bark(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """A dog that barks: a harsh voice that jumps up and falls; ``pitch`` is a large or a small dog."""
    pitch = values["pitch"]
    base = float(rng.uniform(*BARK_HZ[pitch]))
    mouth = float(rng.uniform(500, 750)) if pitch == "low" else float(rng.uniform(1100, 1700))
    length = float(rng.uniform(0.13, 0.19))

    def stroke(rng: np.random.Generator) -> Samples:
        size = seconds(length * float(rng.uniform(0.9, 1.1)))
        tune = float(rng.uniform(0.95, 1.05)) * base
        curve = glide(size, (0.8 * tune, 1.25 * tune, 1.15 * tune, 0.7 * tune))
        curve = curve * (1 + np.float32(0.03) * white(size, rng))
        count = max(4, int(4500 / tune))
        voice = harmonics(phase(curve, rng), 1 / np.arange(1, count + 1) ** 0.5)
        voice = voice + low_pass(white(size, rng), 3000.0)
        throat = band(voice, mouth, 2.0) + np.float32(0.6) * band(voice, 2.1 * mouth, 3.0) + np.float32(0.1) * voice
        shape = np.sin(np.pi * np.linspace(0, 1, size, dtype=np.float32) ** np.float32(0.7))
        return fade((throat * shape).astype(np.float32), 0.008, 0.03)

    interval = float(rng.uniform(*BARK_INTERVAL))
    return _repeat(samples, _counted(samples, NUMBERS[values["count"]], interval, 0.22, rng), stroke, rng)


def bird_chirp(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """A bird: short whistles between 2.2 and 6.2 kHz that all rise or all fall."""
    low = float(rng.uniform(2200, 3200))
    span, length = float(rng.uniform(*CHIRP_SPAN)), float(rng.uniform(0.07, 0.11))
    bend, flutter = float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.0, 0.012))
    rate = float(rng.uniform(40, 70))

    def stroke(rng: np.random.Generator) -> Samples:
        size = seconds(length * float(rng.uniform(0.93, 1.07)))
        curve = low * float(rng.uniform(0.97, 1.03)) * glide(size, (1.0, span**bend, span))
        if values["direction"] == "falling":
            curve = curve[::-1]
        axis = np.arange(size, dtype=np.float32) / RATE
        curve = curve * (1 + np.float32(flutter) * np.sin(np.float32(2 * np.pi * rate) * axis))
        return fade(harmonics(phase(curve, rng), np.array([1.0])), 0.015, 0.02)

    interval = float(rng.uniform(*CHIRP_INTERVAL))
    return _repeat(samples, _counted(samples, NUMBERS[values["count"]], interval, 0.14, rng), stroke, rng, 3.0)
