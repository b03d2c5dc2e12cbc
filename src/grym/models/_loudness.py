"""Integrated loudness of a mono signal after ITU-R BS.1770-4.

Knows nothing about clips or true peak. Signals are float64 ``shape = (samples,)``, full scale at 1; the
result is LUFS. The recommendation prints its filters for 48 kHz only; here they are derived for any rate
from the analogue prototypes behind those coefficients, by the bilinear transform.

Source:
    ITU-R BS.1770-4 (10/2015), annex 1. Prototype parameters: De Man, "Evaluation of implementations of the
    EBU R128 loudness measurement", AES 145th Convention, 2018; at 48 kHz they give the printed
    coefficients to the last printed digits (tested).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.signal import sosfilt

Array = npt.NDArray[np.float64]

ABSOLUTE_GATE: Final = -70.0
RELATIVE_GATE: Final = -10.0
_OFFSET: Final = -0.691  # makes a 997 Hz sine at 0 dBFS in one channel read -3.01 LUFS
_STEP_SECONDS: Final = 0.1
_STEPS_PER_BLOCK: Final = 4  # 400 ms blocks that overlap by 75 %

_SHELF_HZ: Final = 1681.974450955533
_SHELF_DB: Final = 3.999843853973347
_SHELF_Q: Final = 0.7071752369554196
_SHELF_BAND_POWER: Final = 0.4996667741545416
_HIGHPASS_HZ: Final = 38.13547087602444
_HIGHPASS_Q: Final = 0.5003270373238773


def integrated_loudness(signal: Array, rate: int) -> float:
    """Gated loudness in LUFS.

    A clip shorter than 400 ms, for which the recommendation defines nothing, is one block of its own
    length. If no block passes the absolute gate (silence) the result is the gate, -70.0.
    """
    power = _block_powers(_k_weight(signal, rate), rate)
    loud = power[_lufs(power) > ABSOLUTE_GATE]
    if loud.size == 0:
        return ABSOLUTE_GATE
    gate = float(_lufs(loud.mean())) + RELATIVE_GATE
    return float(_lufs(loud[_lufs(loud) > gate].mean()))


def k_weighting(rate: int) -> Array:
    """Second-order sections of the K-weighting filter, float64 ``shape = (sections, 6)``.

    A section whose corner lies at or above half the rate is left out: the shelf below 3364 Hz, the
    high-pass below 77 Hz.
    """
    sections = []
    if rate > 2 * _SHELF_HZ:
        sections.append(_shelf(rate))
    if rate > 2 * _HIGHPASS_HZ:
        sections.append(_highpass(rate))
    return np.asarray(sections, np.float64).reshape(-1, 6)


def _shelf(rate: int) -> list[float]:
    k = float(np.tan(np.pi * _SHELF_HZ / rate))
    high = 10.0 ** (_SHELF_DB / 20.0)
    band = high**_SHELF_BAND_POWER
    a0 = 1.0 + k / _SHELF_Q + k * k
    b0, b1, b2 = high + band * k / _SHELF_Q + k * k, 2.0 * (k * k - high), high - band * k / _SHELF_Q + k * k
    return [b0 / a0, b1 / a0, b2 / a0, 1.0, 2.0 * (k * k - 1.0) / a0, (1.0 - k / _SHELF_Q + k * k) / a0]


def _highpass(rate: int) -> list[float]:
    k = float(np.tan(np.pi * _HIGHPASS_HZ / rate))
    a0 = 1.0 + k / _HIGHPASS_Q + k * k
    # The numerator is not divided by a0, as printed in the recommendation.
    return [1.0, -2.0, 1.0, 1.0, 2.0 * (k * k - 1.0) / a0, (1.0 - k / _HIGHPASS_Q + k * k) / a0]


def _k_weight(signal: Array, rate: int) -> Array:
    sections = k_weighting(rate)
    return np.asarray(sosfilt(sections, signal), np.float64) if sections.size else signal


def _block_powers(weighted: Array, rate: int) -> Array:
    """Mean square of every 400 ms block, ``shape = (blocks,)``."""
    step = max(1, round(_STEP_SECONDS * rate))
    steps = weighted.size // step
    if steps < _STEPS_PER_BLOCK:
        return np.array([np.mean(weighted**2)])
    powers = np.mean(weighted[: steps * step].reshape(steps, step) ** 2, axis=1)
    blocks = np.lib.stride_tricks.sliding_window_view(powers, _STEPS_PER_BLOCK)
    return np.asarray(blocks.mean(axis=1), np.float64)


def _lufs(power: Array | np.floating) -> Array:
    """LUFS of mean squares; far below any gate for silence."""
    return np.asarray(_OFFSET + 10.0 * np.log10(np.maximum(power, 1e-30)), np.float64)
