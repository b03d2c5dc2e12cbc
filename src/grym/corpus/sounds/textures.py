"""Sounds that go on: engine, helicopter, rain, wind, babble and near-silence.

Each renderer takes the attributes of :mod:`vocabulary`, a number of samples to
fill and a generator, and gives float32 mono at 16 kHz, ``shape = (samples,)``, at
any level. Ranges that define an attribute stand in tables, with gaps between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import scipy.fft

from grym.corpus.sounds.signals import (
    band,
    fade,
    gains,
    glide,
    hum,
    low_pass,
    phase,
    shaped_noise,
    slope,
    stretch,
    unit,
    wander,
    white,
)
from grym.corpus.sounds.vocabulary import RATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from grym.corpus.sounds.signals import Samples

    Values = Mapping[str, str]
    Places = npt.NDArray[np.integer] | npt.NDArray[np.float64]

# Ignitions a second at the beginning, and by which factor they become faster.
ENGINE_HZ: Final = {"low": (26.0, 42.0), "high": (110.0, 160.0)}
ENGINE_RISE: Final = {"steady": (0.98, 1.02), "accelerating": (1.6, 1.9)}
# Blades that pass a second.
BLADES_HZ: Final = {"slow": (6.5, 9.0), "fast": (15.0, 19.0)}
# Drops a second that are heard one by one, and the hiss of the others relative to them.
DROPS_HZ: Final = {"light": (25.0, 60.0), "heavy": (900.0, 1800.0)}
HISS_DB: Final = {"light": (-34.0, -28.0), "heavy": (-8.0, -3.0)}
# The howl of the wind and the voices of a crowd.
HOWL_HZ: Final = {"low": (190.0, 320.0), "high": (800.0, 1250.0)}
VOICE_HZ: Final = {"low": (85.0, 120.0), "high": (210.0, 270.0)}
# By how many dB something fades away or grows from one end to the other.
FADE_DB: Final = (18.0, 24.0)
# First three formants of seven vowels of a man (Peterson and Barney, 1952).
_VOWELS: Final = ((270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (730, 1090, 2440), (570, 840, 2410),
                  (300, 870, 2240), (490, 1350, 1690))  # fmt: skip
_VOWELS_USED: Final = 4
# How a hiss between vowels swells and goes, 75 ms.
_HISS: Final = fade(np.ones(1200, np.float32), 0.03)


def _change(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """The gain that belongs to ``change`` or ``motion``."""
    word = values.get("change") or values.get("motion", "steady")
    drop = float(rng.uniform(*FADE_DB))
    if word in {"growing", "approaching"}:
        return slope(samples, -drop, 0)
    if word in {"fading", "leaving"}:
        return slope(samples, 0, -drop)
    return np.ones(samples, np.float32)


def engine(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """A motor: soft pulses of pressure with noise in them, through the resonances of an exhaust."""
    start = float(rng.uniform(*ENGINE_HZ[values["pitch"]]))
    rise = float(rng.uniform(*ENGINE_RISE[values["change"]]))
    speed = glide(samples, (start, start * rise)) * (1 + np.float32(0.012) * wander(samples, 7, rng))
    angle = phase(speed, rng)
    sharp = np.float32(rng.uniform(3, 9))
    pulse = np.exp(sharp * (np.cos(angle) - 1))
    # Cylinders differ, so every second and fourth pulse does.
    uneven = 1 + np.float32(rng.uniform(0.1, 0.35)) * np.cos(angle * np.float32(0.5) + np.float32(rng.uniform(0, 6)))
    noise = low_pass(white(samples, rng), float(rng.uniform(700, 1800)))
    source = pulse * uneven * (np.float32(1) + np.float32(rng.uniform(0.8, 1.8)) * noise)
    source -= source.mean()
    pipe = float(rng.uniform(90, 160))
    body = band(source, pipe, 1.0) + np.float32(0.7) * band(source, pipe * float(rng.uniform(2.5, 3.5)), 1.5)
    return fade(unit(body + np.float32(rng.uniform(0.1, 0.25)) * source), 0.03)


def helicopter(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Blades that chop the air: deep thumps with a swish, and the faint whine of a turbine."""
    rate = float(rng.uniform(*BLADES_HZ[values["pace"]]))
    angle = phase(rate * (1 + np.float32(0.01) * wander(samples, 2, rng)), rng)
    thump = np.exp(np.float32(rng.uniform(5, 9)) * (np.cos(angle) - 1))
    swish = np.exp(np.float32(4) * (np.cos(angle - np.float32(0.5)) - 1))
    noise = white(samples, rng)
    deep = unit(low_pass(noise, 160, 2)) * thump
    mid = unit(low_pass(band(noise, float(rng.uniform(500, 900)), 0.7), 2500)) * (swish + np.float32(0.05))
    # The turbine's wheel turns a whole number of times for each blade.
    whine = np.sin(angle * np.float32(round(float(rng.uniform(1800, 3200)) / rate)))
    mixed = deep + np.float32(rng.uniform(0.3, 0.5)) * mid + np.float32(rng.uniform(0.01, 0.03)) * whine
    return fade(mixed * _change(values, samples, rng), 0.03)


def rain(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Drops on leaves and ground: single ones in light rain, a rush with crackling in heavy rain."""
    intensity = values["intensity"]
    count = int(rng.poisson(samples / RATE * rng.uniform(*DROPS_HZ[intensity]))) + 8
    drops = np.zeros((2, samples), np.float32)
    size = (0.5 + rng.pareto(2.5, count)).clip(0, 5).astype(np.float32) * rng.choice([-1, 1], count)
    drops[rng.integers(0, 2, count), rng.integers(0, samples, count)] = size
    wet = band(drops[0], float(rng.uniform(1800, 2800)), 2.5) + band(drops[1], float(rng.uniform(3800, 5500)), 2.0)
    bright = float(rng.uniform(-4, 3))
    hiss = shaped_noise(samples, ((100, -25), (600, -8), (2500, 0), (7800, bright)), rng)
    if intensity == "light":
        wet = wet / np.float32(max(float(np.abs(wet).max()), 1e-6))
    else:
        wet = unit(wet) * np.float32(0.9)
    level = np.float32(10 ** (float(rng.uniform(*HISS_DB[intensity])) / 20))
    return fade((wet + level * hiss) * _change(values, samples, rng), 0.03)


def wind(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Gusts: narrow noise that howls around a frequency that wanders, over a deep rumble."""
    centre = float(rng.uniform(*HOWL_HZ[values["pitch"]]))
    width = centre * float(rng.uniform(0.08, 0.16))
    path = wander(samples, 2.0, rng)
    angle = phase(centre * np.exp(np.float32(0.16) * path), rng)
    knots = max(8, int(samples / RATE * 2.5 * width))
    inphase, across = (stretch(rng.standard_normal(knots), samples) for _ in range(2))
    howl = unit(inphase * np.cos(angle) + across * np.sin(angle))
    rush = float(rng.uniform(-8, -2))
    air = shaped_noise(
        samples, ((20, -10), (80, 0), (160, -8), (1.5 * centre, rush), (2.2 * centre, rush), (8000, -50)), rng
    )
    gusts = np.exp(np.float32(0.35) * path + np.float32(0.15) * wander(samples, 5, rng))
    mixed = howl + np.float32(rng.uniform(0.35, 0.6)) * air
    return fade(mixed * gusts * _change(values, samples, rng), 0.04)


def babble(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """Five to eight people who talk at once: glottal pulses and hiss, shared out over the formants of vowels.

    Every voice moves from vowel to vowel at the pace of syllables. One filter for each vowel serves all voices,
    fed with what they put into that vowel, so the cost does not grow with the crowd.
    """
    vowels = rng.permutation(len(_VOWELS))[:_VOWELS_USED]
    half = samples // 2 + 1  # vowels end below 4 kHz: their pulses are laid down at half the rate
    pulses = np.zeros((_VOWELS_USED, half), np.float32)
    hisses = np.zeros(samples, np.float32)
    for _ in range(int(rng.integers(5, 9))):
        ends = (np.cumsum(rng.uniform(0.12, 0.3, int(samples / RATE / 0.12) + 3)) - rng.uniform(0.12, 0.4)) * RATE
        _speak(pulses, ends, float(rng.uniform(*VOICE_HZ[values["pitch"]])), samples, rng)
        starts = ends[(ends >= 0) & (ends < samples - 1600)].astype(int)
        for start in starts[rng.random(starts.size) < 0.3]:  # noqa: PLR2004 - syllables that begin with a hiss
            hisses[start : start + _HISS.size] += _HISS * np.float32(rng.uniform(0.3, 1.0))
    return fade(_through_mouths(pulses, hisses * white(samples, rng), vowels, values, rng), 0.03)


def _speak(pulses: Samples, ends: Places, base: float, samples: int, rng: np.random.Generator) -> None:
    """Add the pulses of one voice to the inputs of the vowels; syllables end at ``ends`` (in samples)."""
    control = np.arange(0, samples + 160, 160)
    tone = base * (1 + 0.12 * wander(control.size, 300, rng) - 0.05 * np.linspace(0, 1, control.size))
    turns = np.concatenate([[0.0], np.cumsum(tone[:-1]) * (160 / RATE)]) + rng.uniform(0, 1)
    places = np.interp(np.arange(np.ceil(turns[0]), turns[-1]), turns, control)
    places = places[places < samples]
    at = np.searchsorted(ends, places)
    begin = np.concatenate([[ends[0] - 0.2 * RATE], ends])[at]
    part = (places - begin) / (ends[np.minimum(at, ends.size - 1)] - begin)
    heard = rng.uniform(0.2, 1.0, ends.size + 1) * (rng.random(ends.size + 1) > 0.15)  # noqa: PLR2004 - pauses for breath
    loud = np.abs(np.sin(np.pi * part.clip(0, 1))) ** 0.7 * heard[at]
    vowel = rng.integers(0, pulses.shape[0], ends.size + 1)[at]
    left = (places / 2).astype(int)
    right = (places / 2 - left) * loud
    np.add.at(pulses, (vowel, left), (loud - right).astype(np.float32))
    np.add.at(pulses, (vowel, np.minimum(left + 1, pulses.shape[1] - 1)), right.astype(np.float32))


def _through_mouths(
    pulses: Samples, hisses: Samples, vowels: Places, values: Values, rng: np.random.Generator
) -> Samples:
    """The sum of all inputs, each through its vowel (hisses through teeth), near or from far away."""
    samples = hisses.size
    half = 2 * scipy.fft.next_fast_len(-(-pulses.shape[1] // 2), real=True)
    frequency = np.arange(half // 2 + 1, dtype=np.float32) * np.float32(0.5 * RATE / half)
    scale = (1.0 if values["pitch"] == "low" else 1.17) * float(rng.uniform(0.95, 1.05))
    formants = np.asarray(_VOWELS, np.float32)[vowels] * np.float32(scale)
    mouths = np.full((len(vowels), frequency.size), 0.02, np.float32)
    for column, (width, level) in enumerate(((90, 1.0), (130, 0.5), (200, 0.25))):
        mouths += np.float32(level) / (1 + ((frequency - formants[:, column, None]) / np.float32(width)) ** 2)
    spectrum = scipy.fft.rfft(hisses, 2 * half) * gains(2 * half, ((20, -60), (1500, -30), (3500, 0), (8000, 0)))
    spectrum *= np.float32(0.035)
    spectrum[: frequency.size] += (scipy.fft.rfft(pulses, half, axis=1) * mouths).sum(axis=0)
    if values["distance"] == "far":
        cutoff = float(rng.uniform(650, 900))
        spectrum *= gains(2 * half, ((20, 0), (0.8 * cutoff, 0), (6.4 * cutoff, -60), (8000, -70)))
        tail = white(4800, rng) * np.exp(-np.arange(4800, dtype=np.float32) / np.float32(rng.uniform(1000, 1800)))
        tail *= np.float32(1.2) / np.float32(np.sqrt(np.sum(tail**2)))
        tail[0] += 1
        spectrum = spectrum * scipy.fft.rfft(tail, 2 * half)
    mixed: Samples = scipy.fft.irfft(spectrum, 2 * half)[:samples].astype(np.float32)
    return mixed


def silence(values: Values, samples: int, rng: np.random.Generator) -> Samples:
    """A room in which nothing happens: the faint hiss or hum of the recording, of unit RMS where it is loudest."""
    if values["texture"] == "hum":
        floor = unit(hum(samples, rng) + np.float32(rng.uniform(0.03, 0.1)) * white(samples, rng))
    else:
        floor = shaped_noise(samples, ((50, 0), (500, 0), (8000, float(rng.uniform(-10, 3)))), rng)
    return floor * _change(values, samples, rng)
