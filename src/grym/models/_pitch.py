"""Fundamental frequency and voicing of every frame, by YIN.

Knows nothing about speech: any periodic sound between 60 and 500 Hz is voiced. Signals are float64
``shape = (samples,)`` with the mean removed; frequencies are Hz.

Source:
    de Cheveigné and Kawahara, "YIN, a fundamental frequency estimator for speech and music", J. Acoust.
    Soc. Am. 111(4), 2002: the low-pass of their evaluation (a 1 ms average, without which noise and strong
    formants cost many voiced frames) and steps 1 to 5 (difference function, cumulative mean normalisation,
    absolute threshold, parabolic interpolation). Step 6, the best local estimate, is left out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import uniform_filter1d

from grym.models._spectral import FRAME_SECONDS, HOP_SECONDS, framing

Array = npt.NDArray[np.float64]

F0_LOW_HZ: Final = 60.0
F0_HIGH_HZ: Final = 500.0
APERIODICITY: Final = 0.15  # between the 0.1 of the paper and the 0.2 that breathy voices need
_LOWPASS_SECONDS: Final = 0.001
_SILENT_POWER: Final = 1e-6  # -60 dBFS, as in silent_fraction
_ROUNDING: Final = 1e-12  # of a frame's energy; smaller differences are rounding of the transform
_BLOCK: Final = 512


def pitch_track(signal: Array, rate: int) -> Array:
    """Fundamental frequency of every frame in Hz, 0.0 where it is not voiced, float64 ``shape = (frames,)``.

    Frames are centred on those of :func:`grym.models._spectral.measure_frames`. A frame is voiced if the
    first dip of the normalised difference function below 0.15 lies at a period of 60 to 500 Hz and the
    frame's level after the low-pass is at least -60 dBFS. A tone above 500 Hz is therefore not voiced, instead of being
    taken for one of its subharmonics. Below 1 kHz sample rate nothing is voiced.
    """
    cut = framing(signal.size, rate, FRAME_SECONDS, HOP_SECONDS)
    longest = int(rate / F0_LOW_HZ) + 1
    if rate < 2 * F0_HIGH_HZ:
        return np.zeros(cut.count)
    reach = cut.fft + longest
    before = (reach - cut.window) // 2
    smooth = uniform_filter1d(signal, round(_LOWPASS_SECONDS * rate), mode="constant")
    padded = np.pad(smooth, (before, reach))
    views = np.lib.stride_tricks.sliding_window_view(padded, reach)[:: cut.hop][: cut.count]
    blocks = (views[start : start + _BLOCK] for start in range(0, cut.count, _BLOCK))
    return np.concatenate([_pitch(block, cut.fft, rate) for block in blocks])


def _pitch(frames: Array, width: int, rate: int) -> Array:
    """Pitch of frames ``shape = (n, width + longest lag)``."""
    curve = _normalised_difference(frames, width)
    dips = np.zeros(curve.shape, np.bool_)
    middle = curve[:, 1:-1]
    dips[:, 1:-1] = (middle < APERIODICITY) & (middle <= curve[:, 2:]) & (middle < curve[:, :-2])
    lag = np.argmax(dips, axis=1)  # 0 where there is no dip
    loud = np.mean(frames**2, axis=1) >= _SILENT_POWER
    period = np.maximum(_refine(curve, lag), 1.0)
    hertz = rate / period
    voiced = (lag > 0) & loud & (hertz >= F0_LOW_HZ) & (hertz <= F0_HIGH_HZ)
    return np.asarray(np.where(voiced, hertz, 0.0), np.float64)


def _normalised_difference(frames: Array, width: int) -> Array:
    """Equation 8 of the paper for lags 0 to the longest, ``shape = (n, lags)``."""
    size = next_fast_len(frames.shape[1] + width, real=True)
    head = rfft(frames[:, :width], n=size, axis=1)
    lags = frames.shape[1] - width + 1
    product = np.asarray(irfft(np.conj(head) * rfft(frames, n=size, axis=1), n=size, axis=1))[:, :lags]
    energy = np.pad(np.cumsum(frames**2, axis=1), ((0, 0), (1, 0)))
    shifted = energy[:, width:] - energy[:, :lags]
    difference = shifted[:, :1] + shifted - 2.0 * product
    difference[difference <= _ROUNDING * energy[:, -1:]] = 0.0
    total = np.cumsum(difference, axis=1)
    # Without any difference (silence) nothing is periodic: the curve stays at 1.
    scaled = difference * np.arange(lags)
    return np.asarray(np.divide(scaled, total, out=np.ones_like(scaled), where=total > 0), np.float64)


def _refine(curve: Array, lag: npt.NDArray[np.int64]) -> Array:
    """Lag moved to the vertex of the parabola through its neighbours, ``shape = (n,)``."""
    rows = np.arange(lag.size)
    inner = np.clip(lag, 1, curve.shape[1] - 2)
    left, middle, right = curve[rows, inner - 1], curve[rows, inner], curve[rows, inner + 1]
    bend = left - 2.0 * middle + right
    shift = np.divide(0.5 * (left - right), bend, out=np.zeros_like(bend), where=bend > 0)
    return np.asarray(lag + np.clip(shift, -0.5, 0.5), np.float64)
