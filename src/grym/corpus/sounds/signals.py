"""Building blocks of the sound renderers: noises, tones, resonances, envelopes, levels.

Vectorised NumPy and SciPy, no loop over samples. Audio is float32 mono at 16 kHz,
``shape = (samples,)``; frequencies are in Hz, times in seconds, levels in dB.
Knows nothing about labels.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal

from grym.corpus.sounds.vocabulary import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

Samples = npt.NDArray[np.float32]

_TINY: Final = 1e-9
_GRID: Final = 16
_PARTS: Final = np.arange(_GRID, dtype=np.float32) / _GRID
_STEPS_PER_OCTAVE: Final = 32
_AXIS: Final = np.arange(4 * _STEPS_PER_OCTAVE, 13 * _STEPS_PER_OCTAVE + 1) / _STEPS_PER_OCTAVE  # 16 to 8192 Hz


def seconds(time: float) -> int:
    """A time as a number of samples, at least one."""
    return max(1, round(time * RATE))


def white(samples: int, rng: np.random.Generator) -> Samples:
    """White Gaussian noise of unit RMS."""
    return rng.standard_normal(samples, dtype=np.float32)


def shaped_noise(samples: int, knots: Sequence[tuple[float, float]], rng: np.random.Generator) -> Samples:
    """Gaussian noise with a spectrum, of unit RMS.

    Args:
        samples: how many.
        knots: (frequency, level in dB) pairs in rising order, joined on a logarithmic axis.
        rng: source of the noise.
    """
    size = scipy.fft.next_fast_len(samples, real=True)
    return unit(scipy.fft.irfft(random_spectrum(size, rng) * gains(size, knots), size)[:samples])


def random_spectrum(size: int, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    """The spectrum of white noise of unit RMS in ``size`` samples.

    Its parts are drawn evenly from an interval, four times as fast as Gaussian ones; the sum of thousands of them
    that a sample is, is Gaussian all the same.
    """
    parts = rng.random(2 * (size // 2 + 1), dtype=np.float32)
    parts -= np.float32(0.5)
    parts *= np.float32(np.sqrt(6 * size))
    return parts.view(np.complex64)


def gains(size: int, knots: Sequence[tuple[float, float]]) -> Samples:
    """A curve of gains for the bins of a transform of ``size`` samples.

    Args:
        size: samples of the transform.
        knots: (frequency, level in dB) pairs in rising order, joined on a logarithmic axis.

    Returns:
        float32, ``shape = (size // 2 + 1,)``, as amplitudes, in steps of a 32nd of an octave.
    """
    frequency, level = zip(*knots, strict=True)
    curve = np.interp(_AXIS, np.log2(frequency), level)
    return (10 ** (curve / 20)).astype(np.float32)[_steps(size)]


@functools.lru_cache(maxsize=256)
def _steps(size: int) -> npt.NDArray[np.intp]:
    """Which step of the logarithmic axis each bin of a transform lies in."""
    octave = np.log2(np.maximum(np.arange(size // 2 + 1) * (RATE / size), 2 ** _AXIS[0]))
    return np.asarray(np.rint((octave - _AXIS[0]) * _STEPS_PER_OCTAVE), np.intp)


def pink(samples: int, rng: np.random.Generator) -> Samples:
    """Noise whose power falls by 3 dB an octave above 30 Hz, of unit RMS."""
    return shaped_noise(samples, ((20.0, -20.0), (30.0, 0.0), (8000.0, -24.2)), rng)


def hum(samples: int, rng: np.random.Generator) -> Samples:
    """The hum of mains: 50 or 60 Hz with harmonics, of unit RMS."""
    base = (50.0, 60.0)[int(rng.integers(2))]
    amplitudes = rng.uniform(0.3, 1.0, 8) * np.array([1.0, 1.2, 0.6, 0.7, 0.3, 0.4, 0.15, 0.2])
    return unit(harmonics(phase(np.full(samples, base, np.float32), rng), amplitudes))


def phase(frequency: npt.NDArray[np.floating], rng: np.random.Generator) -> Samples:
    """The phase of an oscillator in radians, whose frequency is given for each sample; from a random start.

    Returns:
        float32, ``shape = (samples,)``, -2 pi to 2 pi over two turns, so that half of it is a phase as well.
    """
    turns = np.cumsum(frequency, dtype=np.float64)
    turns *= 0.5 / RATE
    turns += rng.uniform(0, 1)
    turns -= np.floor(turns)
    return ((turns - 0.5) * (4 * np.pi)).astype(np.float32)


def harmonics(angle: Samples, amplitudes: npt.NDArray[np.floating]) -> Samples:
    """The sum of ``amplitudes[k-1] * sin(k * angle)``, by the recurrence of Chebyshev; no sine but the first."""
    before, now = np.zeros_like(angle), np.sin(angle)
    total: Samples = now * np.float32(amplitudes[0])
    if len(amplitudes) > 1:
        twice = 2 * np.cos(angle)
        for amplitude in amplitudes[1:]:
            before, now = now, twice * now - before
            total += now * np.float32(amplitude)
    return total


def glide(samples: int, points: Sequence[float]) -> Samples:
    """A value that moves through points at equal distances, evenly on a logarithmic axis."""
    return np.exp(stretch(np.log(points), samples))


def wander(samples: int, steps_per_second: float, rng: np.random.Generator) -> Samples:
    """A smooth random curve between about -1 and 1 that changes direction some times a second."""
    count = max(4, int(samples / RATE * steps_per_second) + 3)
    knots = rng.uniform(-1, 1, count)
    place = np.linspace(0, count - 1.001, 12 * count)
    left = place.astype(int)
    part = place - left
    part = part * part * (3 - 2 * part)
    return stretch(knots[left] * (1 - part) + knots[left + 1] * part, samples)


def stretch(values: npt.NDArray[np.floating], samples: int) -> Samples:
    """Values at equal distances as a curve of so many samples.

    Straight lines between points every 16 samples: many times as fast as interpolating each sample.
    """
    points = np.arange(-(-samples // _GRID) + 1) * (_GRID * (values.size - 1) / max(samples - 1, 1))
    coarse = np.interp(points, np.arange(values.size), values).astype(np.float32)
    return (coarse[:-1, None] + np.diff(coarse)[:, None] * _PARTS).reshape(-1)[:samples]


def decay(samples: int, time: float, attack: float = 0.001) -> Samples:
    """An envelope that rises within ``attack`` and falls by 60 dB within ``time``."""
    axis = np.arange(samples, dtype=np.float32) / RATE
    envelope: Samples = np.exp(axis * np.float32(-6.9 / time)) * np.minimum(axis / np.float32(attack), np.float32(1))
    return envelope


def fade(signal: Samples, time: float = 0.01, end: float | None = None) -> Samples:
    """The signal with raised-cosine edges of ``time`` (and ``end``) seconds."""
    faded = signal.copy()
    first, last = (min(seconds(t), signal.size // 2) for t in (time, time if end is None else end))
    faded[:first] *= _ramp(first)
    faded[signal.size - last :] *= _ramp(last)[::-1]
    return faded


def _ramp(samples: int) -> Samples:
    return (0.5 - 0.5 * np.cos(np.linspace(0, np.pi, samples + 2)[1:-1])).astype(np.float32)


def slope(samples: int, start_db: float, end_db: float) -> Samples:
    """A gain that moves evenly in dB."""
    return np.exp(stretch(np.array([start_db, end_db]) * (np.log(10) / 20), samples))


def band(signal: Samples, centre: float, quality: float) -> Samples:
    """Through a band pass of two poles with unit gain in the middle (Bristow-Johnson's cookbook)."""
    w = 2 * np.pi * min(centre, 0.47 * RATE) / RATE
    alpha = np.sin(w) / (2 * quality)
    b = np.array([alpha, 0.0, -alpha], np.float32) / np.float32(1 + alpha)
    a = np.array([1 + alpha, -2 * np.cos(w), 1 - alpha], np.float32) / np.float32(1 + alpha)
    return np.asarray(scipy.signal.lfilter(b, a, signal), np.float32)


def low_pass(signal: Samples, cutoff: float, order: int = 1) -> Samples:
    """Through a low pass with one pole, ``order`` times."""
    pole = np.float32(np.exp(-2 * np.pi * cutoff / RATE))
    for _ in range(order):
        signal = np.asarray(scipy.signal.lfilter([1 - pole], [np.float32(1), -pole], signal), np.float32)
    return signal


def modes(samples: int, parts: Sequence[tuple[float, float, float]], rng: np.random.Generator) -> Samples:
    """What rings after a blow: the sum of (frequency, amplitude, time of decay by 60 dB) parts."""
    axis = np.arange(samples, dtype=np.float32) / RATE
    total = np.zeros(samples, np.float32)
    for frequency, amplitude, time in parts:
        length = min(samples, seconds(1.2 * time))
        angle = axis[:length] * np.float32(2 * np.pi * frequency) + np.float32(rng.uniform(0, 2 * np.pi))
        total[:length] += np.float32(amplitude) * np.sin(angle) * np.exp(axis[:length] * np.float32(-6.9 / time))
    rise = min(16, samples)
    total[:rise] *= _ramp(rise)
    return total


def add(total: Samples, part: Samples, start: int, gain: float = 1.0) -> None:
    """Add a part at a place, in place; what does not fit is faded out and cut off."""
    room = total.size - start
    if room <= 0:
        return
    if part.size > room:
        part = fade(part[:room], 1 / RATE, min(0.02, 0.5 * room / RATE))
    total[start : start + part.size] += part * np.float32(gain)


def rms(signal: Samples) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.dot(signal, signal) / max(signal.size, 1)))


def unit(signal: Samples) -> Samples:
    """The signal with unit RMS."""
    return signal * np.float32(1 / max(rms(signal), _TINY))


def loudness(signal: Samples, window: float = 0.1) -> float:
    """RMS of the loudest window: how loud a sound is while it sounds."""
    size = seconds(window)
    count = max(1, signal.size // size)
    if signal.size < size:
        return rms(signal)
    blocks = signal[: count * size].reshape(count, size)
    return float(np.sqrt(np.einsum("ij,ij->i", blocks, blocks).max() / size))
