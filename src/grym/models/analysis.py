"""What ``Model.analyze`` measures: levels and spectrum ("basic"), voice, pitch, rhythm and timbre ("advanced").

Signal processing in numpy and scipy only; knows nothing about models, files or batches' lengths. Every value
is a finite float whose unit is in its name (fields without one are shares, counts or coefficients; the
table in ``docs/analysis.md`` has all of them). dBFS is relative to a sample value of 1: a full-scale
sine has -3.01 dBFS rms (AES17 would call it 0). Working memory is about 40 bytes per sample.

Edge cases, by definition:

* Silence: levels are -200 dBFS, loudness -70 LUFS, snr -20 dB, chroma 1/12 each; cepstral coefficient 0 is
  its floor; ``silent_fraction`` is 1; everything else but the duration is 0.
* A constant (DC, or a single sample): the level is that of the constant and loudness that of what the filter
  lets through; it has no spectrum, so everything spectral and ``silent_fraction`` are as for silence.
* A full-scale square: crest factor 0 dB, ``clipped_fraction`` 1.
* A clip shorter than a frame or block is one frame or block of its own length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

import numpy as np
import numpy.typing as npt

from grym.errors import AudioError, ConfigError
from grym.models import _loudness, _pitch, _rhythm, _spectral, _voice
from grym.models.interface import AudioClip, Level

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[np.float64]

FLOOR_DBFS: Final = -200.0
SILENT_DBFS: Final = -60.0
CLIPPED_FROM: Final = 32767 / 32768  # the largest positive sample of 16-bit audio
_SILENCE_FRAME_SECONDS: Final = 0.020

BASIC_FIELDS: Final = (
    "duration_seconds",
    "rms_dbfs",
    "peak_dbfs",
    "crest_factor_db",
    "silent_fraction",
    "clipped_fraction",
    "dc_offset",
    "zero_crossing_rate",
    "spectral_centroid_hz",
    "spectral_rolloff_hz",
    "spectral_flatness",
)
MFCC_FIELDS: Final = tuple(f"mfcc_mean_{index:02d}" for index in range(_spectral.CEPSTRA))
CHROMA_FIELDS: Final = tuple(f"chroma_{name}" for name in _spectral.PITCH_CLASSES)
ADVANCED_FIELDS: Final = (
    *BASIC_FIELDS,
    "speech_fraction",
    "speech_seconds",
    "loudness_lufs",
    "f0_median_hz",
    "f0_range_hz",
    "voiced_fraction",
    "onset_count",
    "tempo_bpm",
    *MFCC_FIELDS,
    *CHROMA_FIELDS,
    "snr_db_estimate",
)


def analyze(batch: Sequence[AudioClip], level: Level) -> list[dict[str, float]]:
    """Measure every clip of a batch, in the order given.

    A clip that cannot be measured (see :func:`analyze_clip`) yields an empty dict and leaves the others alone.

    Raises:
        ConfigError: an unknown level.
    """
    _check_level(level)
    return [_or_nothing(clip, level) for clip in batch]


def analyze_clip(clip: AudioClip, level: Level) -> dict[str, float]:
    """Measure one clip.

    Args:
        clip: float samples ``shape = (samples,)``, full scale at 1, and a rate in Hz.
        level: "basic" or "advanced"; the second holds the first.

    Returns:
        Finite floats under ``BASIC_FIELDS`` or ``ADVANCED_FIELDS``, in that order.

    Raises:
        AudioError: samples that are empty, not one-dimensional, not floats or not finite; a rate below 1 Hz.
        ConfigError: an unknown level.

    Example:
        >>> tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
        >>> values = analyze_clip(AudioClip("tone", tone, 16_000), "basic")
        >>> round(values["rms_dbfs"], 2), round(values["spectral_centroid_hz"])
        (-3.01, 1000)
    """
    _check_level(level)
    _check_clip(clip)
    samples = clip.samples.astype(np.float64)
    signal = _without_mean(samples)
    values = _basic(samples, signal, clip.rate)
    if level == "basic":
        return values
    values |= _advanced(samples, signal, clip.rate)
    return {name: values[name] for name in ADVANCED_FIELDS}


def _basic(samples: Array, signal: Array, rate: int) -> dict[str, float]:
    peak = _decibels(float(np.max(np.abs(samples))))
    rms = _decibels(float(np.sqrt(np.mean(samples**2))))
    hertz, power = _spectral.mean_spectrum(signal, rate)
    return {
        "duration_seconds": samples.size / rate,
        "rms_dbfs": rms,
        "peak_dbfs": peak,
        "crest_factor_db": max(peak - rms, 0.0),
        "silent_fraction": _silent_fraction(signal, rate),
        "clipped_fraction": float(np.mean(np.abs(samples) >= CLIPPED_FROM)),
        "dc_offset": float(samples.mean()),
        "zero_crossing_rate": _zero_crossing_rate(samples),
        "spectral_centroid_hz": _spectral.centroid(hertz, power),
        "spectral_rolloff_hz": _spectral.rolloff(hertz, power),
        "spectral_flatness": _spectral.flatness(power),
    }


def _advanced(samples: Array, signal: Array, rate: int) -> dict[str, float]:
    frames = _spectral.measure_frames(signal, rate)
    strength = _rhythm.onset_strength(frames.mel)
    onset_count = _rhythm.onsets(strength).size
    return {
        **_voice_values(frames, signal, rate),
        "onset_count": float(onset_count),
        "tempo_bpm": _rhythm.tempo(strength, onset_count, frames.seconds),
        **_floats(MFCC_FIELDS, _spectral.mean_cepstrum(frames.mel)),
        **_floats(CHROMA_FIELDS, _spectral.chroma(signal, rate)),
        "snr_db_estimate": _voice.snr_estimate(frames.power),
        "loudness_lufs": _loudness.integrated_loudness(samples, rate),
    }


def _voice_values(frames: _spectral.Frames, signal: Array, rate: int) -> dict[str, float]:
    f0 = _pitch.pitch_track(signal, rate)
    voiced = f0 > 0
    low, median, high = np.percentile(f0[voiced], (5, 50, 95)) if voiced.any() else (0.0, 0.0, 0.0)
    speech_fraction = float(_voice.speech_frames(frames.speech_band, voiced).mean())
    return {
        "speech_fraction": speech_fraction,
        "speech_seconds": speech_fraction * signal.size / rate,
        "f0_median_hz": float(median),
        "f0_range_hz": float(high - low),
        "voiced_fraction": float(voiced.mean()),
    }


def _floats(names: Sequence[str], values: Array) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def _without_mean(samples: Array) -> Array:
    """Samples less their mean; exactly 0 for a constant, whose rounding would otherwise have a spectrum."""
    if samples.min() == samples.max():
        return np.zeros_like(samples)
    return np.asarray(samples - samples.mean(), np.float64)


def _decibels(amplitude: float) -> float:
    """Amplitude in dB relative to 1, never below ``FLOOR_DBFS``."""
    return max(20.0 * float(np.log10(amplitude)), FLOOR_DBFS) if amplitude > 0 else FLOOR_DBFS


def _silent_fraction(signal: Array, rate: int) -> float:
    """Share of 20 ms frames whose rms is below -60 dBFS; a last, shorter one counts, by the samples it has.

    The same definition, offset removed, as that of the ``clips`` table.
    """
    size = max(1, round(_SILENCE_FRAME_SECONDS * rate))
    starts = np.arange(0, signal.size, size)
    power = np.add.reduceat(signal**2, starts) / np.minimum(size, signal.size - starts)
    return float(np.mean(power < 10.0 ** (SILENT_DBFS / 10.0)))


def _zero_crossing_rate(samples: Array) -> float:
    """Share of neighbouring samples between which the sign changes; a 0 keeps the sign before it."""
    signs = np.sign(samples[samples != 0])
    return float(np.count_nonzero(signs[1:] != signs[:-1]) / max(samples.size - 1, 1))


def _or_nothing(clip: AudioClip, level: Level) -> dict[str, float]:
    try:
        return analyze_clip(clip, level)
    except AudioError:
        return {}


def _check_level(level: Level) -> None:
    if level not in get_args(Level):
        known = " or ".join(f'"{name}"' for name in get_args(Level))
        msg = f'There is no level of analysis "{level}".'
        raise ConfigError(msg, code="unknown-level", hint=f"Use {known}.")


def _check_clip(clip: AudioClip) -> None:
    samples = clip.samples
    if clip.rate < 1:
        _refuse(clip, "bad-rate", f"has a sample rate of {clip.rate} Hz", "Give the rate the file was decoded at.")
    if samples.ndim != 1:
        _refuse(clip, "not-mono", f"has samples of shape {samples.shape}", "Mix it down to one channel first.")
    if not np.issubdtype(samples.dtype, np.floating):
        _refuse(clip, "not-float", f"has {samples.dtype} samples", "Decode it to float32 with full scale at 1.")
    if samples.size == 0:
        _refuse(clip, "empty", "has no samples", "Check the file and its span in the manifest.")
    # Beyond float32 squares could overflow; a comparison with NaN is false, so this refuses it too.
    if not np.all(np.abs(samples) <= np.finfo(np.float32).max):
        _refuse(clip, "not-finite", "has samples that are not finite", "Decode the file again or leave it out.")


def _refuse(clip: AudioClip, code: str, what: str, hint: str) -> None:
    msg = f"Clip {clip.id} {what} and cannot be measured."
    raise AudioError(msg, code=code, hint=hint)
