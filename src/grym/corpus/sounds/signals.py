"""Building blocks of the sound renderers: noises, tones, resonances, envelopes, levels.

Vectorised NumPy and SciPy, no loop over samples. Audio is float32 mono at 16 kHz,
``shape = (samples,)``; frequencies are in Hz, times in seconds, levels in dB.
Knows nothing about labels.
"""

from __future__ import annotations

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
    bins = size // 2 + 1
    frequency, level = zip(*knots, strict=True)
    axis = np.log(np.maximum(np.arange(bins, dtype=np.float32) * (RATE / size), 1.0))
    gain = (10 ** (np.interp(axis, np.log(frequency), level) / 20)).astype(np.float32)
    spectrum = rng.standard_normal((bins, 2), dtype=np.float32).view(np.complex64)[:, 0] * gain
    return unit(scipy.fft.irfft(spectrum, size)[:samples])


def pink(samples: int, rng: np.random.Generator) -> Samples:
    """Noise whose power falls by 3 dB an octave above 30 Hz, of unit RMS."""
    return shaped_noise(samples, ((20.0, -20.0), (30.0, 0.0), (8000.0, -24.2)), rng)


def hum(samples: int, rng: np.random.Generator) -> Samples:
    """The hum of mains: 50 or 60 Hz with harmonics, of unit RMS."""
    base = (50.0, 60.0)[int(rng.integers(2))]
    amplitudes = rng.uniform(0.3, 1.0, 8) * np.array([1.0, 1.2, 0.6, 0.7, 0.3, 0.4, 0.15, 0.2])
    return unit(harmonics(phase(np.full(samples, base, np.float32), rng), amplitudes))


def phase(frequency: npt.NDArray[np.floating], rng: np.random.Generator | None = None) -> npt.NDArray[np.float64]:
    """The phase in radians of an oscillator whose frequency is given for each sample; from a random start."""
    start = float(rng.uniform(0, 2 * np.pi)) if rng is not None else 0.0
    return start + np.cumsum(frequency, dtype=np.float64) * (2 * np.pi / RATE)


def harmonics(angle: npt.NDArray[np.float64], amplitudes: npt.NDArray[np.floating]) -> Samples:
    """The sum of ``amplitudes[k-1] * sin(k * angle)``, by the recurrence of Chebyshev; no sine but the first."""
    base = np.remainder(angle, 2 * np.pi).astype(np.float32)
    before, now = np.zeros_like(base), np.sin(base)
    twice = 2 * np.cos(base)
    total: Samples = now * np.float32(amplitudes[0])
    for amplitude in amplitudes[1:]:
        before, now = now, twice * now - before
        total += now * np.float32(amplitude)
    return total


def glide(samples: int, points: Sequence[float]) -> Samples:
    """A value that moves through points at equal distances, evenly on a logarithmic axis."""
    axis = np.linspace(0, len(points) - 1, samples)
    return np.exp(np.interp(axis, np.arange(len(points)), np.log(points))).astype(np.float32)


def wander(samples: int, steps_per_second: float, rng: np.random.Generator) -> Samples:
    """A smooth random curve between about -1 and 1 that changes direction some times a second."""
    count = max(4, int(samples / RATE * steps_per_second) + 3)
    knots = rng.uniform(-1, 1, count).astype(np.float32)
    position = np.linspace(0, count - 1.001, samples, dtype=np.float32)
    left = position.astype(np.int32)
    part = position - left.astype(np.float32)
    part = part * part * (3 - 2 * part)
    curve: Samples = knots[left] * (1 - part) + knots[left + 1] * part
    return curve


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
    return (10 ** (np.linspace(start_db, end_db, samples, dtype=np.float32) / 20)).astype(np.float32)


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
