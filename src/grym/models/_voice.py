"""Which frames hold speech, and how far the loud ones stand above the noise.

Knows nothing about words, speakers or learned detectors. Frames are 10 ms apart; levels are dBFS.

The detector: level in the speech band (100 to 4000 Hz) opens a gate, gaps up to 200 ms are bridged, and a
region counts as speech if it lasts 50 ms and at least a tenth of its frames are voiced (YIN). Voicing
is what tells speech from clicks, hiss and hum; it also means that whispering is missed and that singing
and periodic sounds between 60 and 500 Hz are taken for speech.

Source:
    The parts are standard: percentile noise floor and band energy (Rabiner and Sambur, "An algorithm for
    determining the endpoints of isolated utterances", Bell Syst. Tech. J. 54(2), 1975), the 200 ms hangover
    of ITU-T P.56. The thresholds are this project's own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

NOISE_PERCENTILE: Final = 10.0
SNR_LOW_DB: Final = -20.0
SNR_HIGH_DB: Final = 100.0
_SILENT_DBFS: Final = -60.0
_DYNAMIC_DB: Final = 30.0  # speech lies within this far of its loudest part
_MARGIN_DB: Final = 6.0
_PEAK_FRAMES: Final = 9  # a median over 90 ms keeps syllables and forgets clicks
_BRIDGE_FRAMES: Final = 20
_SHORTEST_FRAMES: Final = 5
_VOICED_SHARE: Final = 0.1
_FEWEST_FRAMES: Final = 10
_ACTIVE_RATIO: Final = 2.0  # 3 dB


def speech_frames(band_power: Array, voiced: Mask) -> Mask:
    """Which frames are speech.

    The gate is the highest of: -60 dBFS; 30 dB below the loudest part; 6 dB above the noise floor (the
    10th percentile), but never within 6 dB of the loudest part, so that a clip without pauses passes.

    Args:
        band_power: mean square of each frame between 100 and 4000 Hz, float64 ``shape = (frames,)``.
        voiced: whether each frame is voiced, bool ``shape = (frames,)``.

    Returns:
        bool ``shape = (frames,)``.
    """
    level = 10.0 * np.log10(np.maximum(band_power, 1e-20))
    loudest = float(np.max(median_filter(level, size=_PEAK_FRAMES, mode="nearest")))
    floor = float(np.percentile(level, NOISE_PERCENTILE))
    gate = max(_SILENT_DBFS, loudest - _DYNAMIC_DB, min(floor + _MARGIN_DB, loudest - _MARGIN_DB))
    speech = np.zeros(level.size, np.bool_)
    for start, stop in _bridged(_runs(level >= gate)):
        if stop - start >= _SHORTEST_FRAMES and voiced[start:stop].mean() >= _VOICED_SHARE:
            speech[start:stop] = True
    return speech


def snr_estimate(power: Array) -> float:
    """Signal-to-noise ratio in dB from frame powers alone, in [-20, 100].

    Noise is the 10th percentile of frame power; signal is the mean power of the frames 3 dB above it, less
    the noise. It needs pauses: where nothing stands 3 dB above the floor (silence, a steady tone, steady
    noise) or there are fewer than 10 frames, the result is -20, "cannot tell". A noise that comes and goes
    with the speech is not seen. On steady noise it reads about half a decibel high.

    Args:
        power: mean square of each frame, float64 ``shape = (frames,)``, on any scale.
    """
    noise = float(np.percentile(power, NOISE_PERCENTILE))
    active = power[power > _ACTIVE_RATIO * noise]
    if power.size < _FEWEST_FRAMES or active.size == 0:
        return SNR_LOW_DB
    signal = float(active.mean()) - noise
    if noise <= signal * 10.0 ** (-SNR_HIGH_DB / 10.0):
        return SNR_HIGH_DB
    return float(np.clip(10.0 * np.log10(signal / noise), SNR_LOW_DB, SNR_HIGH_DB))


def _runs(mask: Mask) -> list[tuple[int, int]]:
    """First and one-past-last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _bridged(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join runs whose gap is at most 200 ms."""
    joined: list[tuple[int, int]] = []
    for start, stop in runs:
        if joined and start - joined[-1][1] <= _BRIDGE_FRAMES:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
