"""Onsets and tempo from the rise of the mel spectrum.

Knows nothing about metre or music. Mel power is float64 ``shape = (frames, bands)``; tempo is beats per
minute. Speech has onsets too; its tempo, if one is found, is no more than its strongest periodicity.

Source:
    Spectral flux: Dixon, "Onset detection revisited", DAFx 2006. Tempo from its autocorrelation under a
    log-normal preference for 120 bpm: Ellis, "Beat tracking by dynamic programming", J. New Music Res.
    36(1), 2007. The thresholds are this project's own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.signal import find_peaks

Array = npt.NDArray[np.float64]

TEMPO_LOW_BPM: Final = 40.0
TEMPO_HIGH_BPM: Final = 240.0
_PREFERRED_BPM: Final = 120.0
_RANGE: Final = 1e-8  # of the strongest band: rises below -80 dB are not heard
_QUIET: Final = 1e-12
_LAG_FRAMES: Final = 3  # one window: the whole rise of an attack is seen at once
_NEIGHBOUR_FRAMES: Final = 31
_ONSET_DB: Final = 3.0
_GAP_FRAMES: Final = 5
_FEWEST_ONSETS: Final = 3
_PERIODICITY: Final = 0.2  # of the autocorrelation at lag 0
_BLUR_FRAMES: Final = 2.0  # else a beat that falls between two frames loses to its double


def onset_strength(mel: Array) -> Array:
    """Mean rise of the mel bands over 30 ms in dB, float64 ``shape = (frames,)``; falls count as 0.

    What sounds from the very first frame on has no rise.
    """
    level = 10.0 * np.log10(np.maximum(mel, max(_QUIET, float(mel.max()) * _RANGE)))
    strength = np.zeros(mel.shape[0])
    if mel.shape[0] > _LAG_FRAMES:
        strength[_LAG_FRAMES:] = np.maximum(level[_LAG_FRAMES:] - level[:-_LAG_FRAMES], 0.0).mean(axis=1)
    return strength


def onsets(strength: Array) -> npt.NDArray[np.int64]:
    """Frames of onsets: peaks 3 dB above the mean of the 310 ms around them and 50 ms apart."""
    height = uniform_filter1d(strength, _NEIGHBOUR_FRAMES, mode="nearest") + _ONSET_DB
    peaks, _ = find_peaks(strength, height=height, distance=_GAP_FRAMES)
    return np.asarray(peaks, np.int64)


def tempo(strength: Array, onset_count: int, hop_seconds: float) -> float:
    """Strongest periodicity between 40 and 240 beats per minute, or 0.0 if there is none.

    The tempo of a plain beat is ambiguous by octaves; the one nearest 120 wins, so 200 reads 100.
    There is none with fewer than three onsets, or where the autocorrelation has no peak of at least a fifth
    of its value at lag 0.
    """
    if onset_count < _FEWEST_ONSETS:
        return 0.0
    correlation = _autocorrelation(gaussian_filter1d(strength - strength.mean(), _BLUR_FRAMES))
    peaks, _ = find_peaks(correlation, height=_PERIODICITY)
    bpm = 60.0 / (hop_seconds * np.maximum(peaks, 1))
    peaks = peaks[(bpm >= TEMPO_LOW_BPM) & (bpm <= TEMPO_HIGH_BPM)]
    if peaks.size == 0:
        return 0.0
    octaves = np.log2(60.0 / (hop_seconds * peaks) / _PREFERRED_BPM)
    best = int(peaks[np.argmax(correlation[peaks] * np.exp(-0.5 * octaves**2))])
    return 60.0 / (hop_seconds * _vertex(correlation, best))


def _autocorrelation(values: Array) -> Array:
    """Biased autocorrelation with 1 at lag 0, ``shape = values.shape``; the values must not all be 0."""
    size = next_fast_len(2 * values.size, real=True)
    spectrum = np.abs(np.asarray(rfft(values, n=size))) ** 2
    raw = np.asarray(irfft(spectrum, n=size), np.float64)[: values.size]
    return np.asarray(raw / raw[0], np.float64)


def _vertex(values: Array, peak: int) -> float:
    """Position of the vertex of the parabola through a peak and its neighbours."""
    left, middle, right = values[peak - 1 : peak + 2]
    bend = left - 2.0 * middle + right
    return peak + float(0.5 * (left - right) / bend) if bend < 0 else float(peak)
