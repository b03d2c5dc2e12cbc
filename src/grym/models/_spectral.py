"""Short-time power spectra and what is read from them: centroid, roll-off, flatness, mel cepstrum, chroma.

Knows nothing about clips, levels or models. Signals are float64 ``shape = (samples,)`` with the mean
removed and full scale at 1; rates and frequencies are Hz. Frames have the same length in seconds at every
rate, so that a value means the same at 8 and at 48 kHz. Frames are taken whole: a tail shorter than one
hop is not measured; a clip shorter than one frame is one frame, windowed at its own length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from scipy.fft import dct, rfft

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = npt.NDArray[np.float64]

FRAME_SECONDS: Final = 0.032
HOP_SECONDS: Final = 0.010
AUDIBLE_FROM_HZ: Final = 50.0  # also keeps the clip's mean, which leaks to 31 Hz, out of silent frames
SPEECH_BAND: Final = (100.0, 4000.0)
ROLLOFF_SHARE: Final = 0.85
MEL_BANDS: Final = 26
MEL_TOP_HZ: Final = 8000.0
MEL_FLOOR: Final = 1e-10
CEPSTRA: Final = 13
PITCH_CLASSES: Final = ("c", "c_sharp", "d", "d_sharp", "e", "f", "f_sharp", "g", "g_sharp", "a", "a_sharp", "b")
CHROMA_BAND: Final = (110.0, 5000.0)
_CHROMA_FRAME_SECONDS: Final = 0.25  # 4 Hz per bin: a semitone is 6.5 Hz wide at 110 Hz
_FLATNESS_FLOOR: Final = 1e-12  # of the mean power; below it a bin holds rounding, not sound
_BLOCK: Final = 1024  # frames transformed at a time, to bound memory on long clips


@dataclass(frozen=True, slots=True)
class Framing:
    """How a signal is cut: FFT length, window length, hop and number of frames, in samples and frames."""

    fft: int
    window: int
    hop: int
    count: int


@dataclass(frozen=True, slots=True)
class Frames:
    """Per-frame measurements, float64, 32 ms Hann frames every 10 ms.

    Attributes:
        power: mean square of each frame from 50 Hz up, ``shape = (frames,)``.
        speech_band: the part of it between 100 and 4000 Hz, ``shape = (frames,)``.
        mel: power in each mel band, ``shape = (frames, 26)``.
        seconds: time from one frame to the next.
    """

    power: Array
    speech_band: Array
    mel: Array
    seconds: float


def framing(size: int, rate: int, frame_seconds: float, hop_seconds: float) -> Framing:
    """Cut ``size`` samples into frames; there is always at least one."""
    fft = max(1, round(frame_seconds * rate))
    window = min(fft, size)
    hop = max(1, round(hop_seconds * rate))
    return Framing(fft, window, hop, 1 + (size - window) // hop)


def power_blocks(signal: Array, cut: Framing) -> Iterator[Array]:
    """Yield one-sided power spectra, float64 ``shape = (up to 1024, fft // 2 + 1)``.

    Scaled so that the bins of a frame add up to its window-weighted mean square.
    """
    window = _hann(cut.window)
    views = np.lib.stride_tricks.sliding_window_view(signal, cut.window)[:: cut.hop]
    sides = np.full(cut.fft // 2 + 1, 2.0)
    sides[0] = 1.0
    if cut.fft % 2 == 0:
        sides[-1] = 1.0
    scale = sides / (cut.fft * np.sum(window**2))
    for start in range(0, cut.count, _BLOCK):
        spectrum = np.asarray(rfft(views[start : start + _BLOCK] * window, n=cut.fft, axis=1))
        yield (spectrum.real**2 + spectrum.imag**2) * scale


def mean_spectrum(signal: Array, rate: int, frame_seconds: float = FRAME_SECONDS) -> tuple[Array, Array]:
    """Average power spectrum over Hann frames that overlap by half.

    Returns:
        Frequencies in Hz and power, both float64 ``shape = (bins,)``.

    Source:
        Welch, "The use of fast Fourier transform for the estimation of power spectra", IEEE Trans. Audio
        Electroacoust. 15(2), 1967.
    """
    cut = framing(signal.size, rate, frame_seconds, frame_seconds / 2)
    total = np.zeros(cut.fft // 2 + 1)
    for block in power_blocks(signal, cut):
        total += block.sum(axis=0)
    return _hertz(cut.fft, rate), total / cut.count


def measure_frames(signal: Array, rate: int) -> Frames:
    """Measure every frame in one pass over the short-time spectrum."""
    cut = framing(signal.size, rate, FRAME_SECONDS, HOP_SECONDS)
    hertz = _hertz(cut.fft, rate)
    band = (hertz >= SPEECH_BAND[0]) & (hertz <= SPEECH_BAND[1])
    heard = hertz >= AUDIBLE_FROM_HZ
    filters = mel_filters(hertz, rate)
    rows = [(b[:, heard].sum(axis=1), b[:, band].sum(axis=1), b @ filters) for b in power_blocks(signal, cut)]
    power, speech_band, mel = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return Frames(power, speech_band, mel, cut.hop / rate)


def centroid(hertz: Array, power: Array) -> float:
    """First moment of a power spectrum in Hz; 0.0 without power."""
    total = power.sum()
    return float(hertz @ power / total) if total > 0 else 0.0


def rolloff(hertz: Array, power: Array) -> float:
    """Lowest bin frequency in Hz below or at which 85 % of the power lies; 0.0 without power."""
    cumulative = np.cumsum(power)
    if cumulative[-1] <= 0:
        return 0.0
    return float(hertz[np.searchsorted(cumulative, ROLLOFF_SHARE * cumulative[-1])])


def flatness(power: Array) -> float:
    """Geometric over arithmetic mean of a power spectrum, in [0, 1]; 0.0 without power.

    The first and last bins are left out: the mean was removed from one, the other has half the degrees of
    freedom. On an average of K independent frames of white noise the expected value is about 1 - 1 / (2 K);
    on a single frame it is exp(-0.577) = 0.56, so clips under a few hundred milliseconds read low.

    Source:
        Gray and Markel, "A spectral-flatness measure for studying the autocorrelation method of linear
        prediction of speech", IEEE Trans. ASSP 22(3), 1974.
    """
    inner = power[1:-1]
    mean = float(inner.mean()) if inner.size else 0.0
    if mean <= 0:
        return 0.0
    return float(np.exp(np.log(np.maximum(inner / mean, _FLATNESS_FLOOR)).mean()))


def mel_filters(hertz: Array, rate: int) -> Array:
    """Triangular HTK mel filters of peak 1 from 0 Hz to 8 kHz or the Nyquist frequency, whichever is lower.

    Returns:
        float64 ``shape = (bins, 26)``.

    Source:
        The HTK Book 3.5, section 5.4: mel = 2595 log10(1 + f / 700).
    """
    top = 2595.0 * np.log10(1.0 + min(MEL_TOP_HZ, rate / 2) / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, MEL_BANDS + 2) / 2595.0) - 1.0)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (hertz[:, None] - low) / (centre - low)
    falling = (high - hertz[:, None]) / (high - centre)
    return np.asarray(np.clip(np.minimum(rising, falling), 0.0, None), np.float64)


def mean_cepstrum(mel: Array) -> Array:
    """Mean over frames of 13 mel-frequency cepstral coefficients, float64 ``shape = (13,)``.

    Orthonormal DCT-II of natural-log mel power, floored at 1e-10; no pre-emphasis, no lifter. Coefficient
    0 is the log level times sqrt(26). Silence gives ``sqrt(26) * ln(1e-10)`` and twelve zeros.

    Source:
        Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition
        in continuously spoken sentences", IEEE Trans. ASSP 28(4), 1980.
    """
    logs = np.log(np.maximum(mel, MEL_FLOOR)).mean(axis=0)
    # The transform is linear, so the mean of the cepstra is the cepstrum of the mean.
    return np.asarray(dct(logs, type=2, norm="ortho")[:CEPSTRA], np.float64)


def chroma(signal: Array, rate: int) -> Array:
    """Share of power in each pitch class from C to B, float64 ``shape = (12,)``, adding up to 1.

    Bins of a 250 ms mean spectrum between 110 Hz and 5 kHz go to the nearest equal-tempered pitch class,
    A4 = 440 Hz. Bins are 4 Hz wide: under 200 Hz up to a tenth of a note leaks into its neighbours. Without
    power in that band every class has 1/12.

    Source:
        Fujishima, "Realtime chord recognition of musical sound", ICMC 1999.
    """
    hertz, power = mean_spectrum(signal, rate, _CHROMA_FRAME_SECONDS)
    used = (hertz >= CHROMA_BAND[0]) & (hertz <= CHROMA_BAND[1])
    total = power[used].sum()
    if total <= 0:
        return np.full(12, 1 / 12)
    classes = np.rint(69.0 + 12.0 * np.log2(hertz[used] / 440.0)).astype(np.int64) % 12
    return np.asarray(np.bincount(classes, weights=power[used] / total, minlength=12), np.float64)


def _hertz(fft: int, rate: int) -> Array:
    return np.asarray(np.fft.rfftfreq(fft, 1.0 / rate), np.float64)


def _hann(size: int) -> Array:
    """Periodic Hann window shifted by half a sample: symmetric, and never all zero for tiny sizes."""
    return np.asarray(np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2, np.float64)
