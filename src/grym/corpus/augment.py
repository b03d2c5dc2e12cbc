"""Augmentation of speech for training: what rooms, microphones, telephones and people do to a voice.

Pure NumPy, seeded by the generator that is passed in; knows nothing about models.
Audio is float32 mono at 16 kHz.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import soundfile
import soxr

from grym.corpus.digits import RATE, add_noise, babble, pink_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grym.corpus.digits import Samples


# GSM 06.10 of mobile telephones, A-law of fixed ones, IMA ADPCM of answering machines, and small music files.
CODECS: Final = (
    ("WAV", "GSM610", 8000),
    ("WAV", "ALAW", 8000),
    ("WAV", "IMA_ADPCM", 8000),
    ("OGG", "OPUS", 16000),
    ("MP3", "MPEG_LAYER_III", 16000),
)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Probabilities and ranges; every field is a probability unless its name says otherwise."""

    speed_factor: tuple[float, float] = (0.8, 1.25)
    equalizer: float = 0.5
    equalizer_db: float = 8.0
    low_pass: float = 0.45
    telephone: float = 0.15
    reverberation: float = 0.3
    reverberation_seconds: tuple[float, float] = (0.05, 0.5)
    noise: float = 0.75
    snr_db: tuple[float, float] = (4.0, 40.0)
    quantization: float = 0.1
    codec: float = 0.12
    clipping: float = 0.06
    tempo: float = 0.0
    tempo_factor: tuple[float, float] = (0.8, 1.8)
    crop: float = 0.0
    crop_seconds: float = 0.05
    trim: float = 0.0
    trim_db: tuple[float, float] = (10.0, 35.0)


# By the name that a recipe gives. "hurried" is for people who speak fast into a telephone and are cut tightly: of real
# speakers that were left out, those were heard worst.
PRESETS: Final = {
    "wide": Augmentation(),
    "hurried": Augmentation(
        speed_factor=(0.8, 1.3), tempo=0.6, crop=0.4, low_pass=0.6, telephone=0.2, noise=0.8, snr_db=(3.0, 40.0)
    ),
    # Recordings are often cut where the level falls under a threshold, which takes weak consonants away: "six" begins
    # and ends with its vowel.
    "trimmed": Augmentation(
        speed_factor=(0.8, 1.3), tempo=0.5, trim=0.5, crop=0.15, low_pass=0.6, telephone=0.2, noise=0.8,
        snr_db=(3.0, 40.0),
    ),
    "mixed": Augmentation(
        speed_factor=(0.8, 1.25), tempo=0.3, trim=0.25, crop=0.1, low_pass=0.5, telephone=0.15, snr_db=(4.0, 40.0)
    ),
}  # fmt: skip


def change_speed(samples: Samples, factor: float) -> Samples:
    """Play faster (``factor`` > 1) or slower; pitch and formants move along, as with a shorter vocal tract."""
    size = max(1, int(samples.size / factor))
    return np.interp(np.linspace(0, samples.size - 1, size), np.arange(samples.size), samples).astype(np.float32)


def hurry(samples: Samples, rng: np.random.Generator, how: Augmentation) -> Samples:
    """One random draw of tempo and of tight cutting, for one word or string as it was spoken."""
    if rng.random() < how.tempo:
        samples = change_tempo(samples, float(rng.uniform(*how.tempo_factor)))
    if how.trim and rng.random() < how.trim:
        samples = trim_by_level(samples, float(rng.uniform(*how.trim_db)))
    if rng.random() < how.crop:
        most = min(int(how.crop_seconds * RATE), samples.size // 8)
        start, end = rng.integers(0, most + 1, 2)
        samples = samples[start : samples.size - end]
    return samples


def trim_by_level(samples: Samples, floor_db: float) -> Samples:
    """Cut the ends off where the level below 4 kHz is under a threshold, as automatic cutting does.

    Args:
        samples: float32, ``shape = (samples,)`` at 16 kHz.
        floor_db: the threshold in dB below the loudest 10 ms.

    Returns:
        float32, the rest, at least a third of the clip.
    """
    frame = RATE // 100
    low = np.convolve(samples, np.full(3, 1 / 3, np.float32), "same")  # -3 dB at 2.5 kHz, nothing left at 5.3 kHz
    count = low.size // frame
    if count < 3:  # noqa: PLR2004 - nothing to cut
        return samples
    level = np.sqrt(np.mean(low[: count * frame].reshape(count, frame) ** 2, axis=1))
    loud = np.flatnonzero(level >= level.max() * 10 ** (-floor_db / 20))
    first, last = int(loud[0]), int(loud[-1]) + 1
    missing = -(-count // 3) - (last - first)
    if missing > 0:
        first, last = max(0, first - missing // 2), min(count, last + missing - missing // 2)
    return samples[first * frame : last * frame]


def change_tempo(samples: Samples, factor: float, frame: int = 480, search: int = 120) -> Samples:
    """Speak faster (``factor`` > 1) or slower at the same pitch, by waveform-similarity overlap-add.

    Every frame is taken where it continues best what was laid down before (Verhelst and Roelands, 1993).

    Args:
        samples: float32, ``shape = (samples,)`` at 16 kHz.
        factor: 2 halves the length.
        frame: samples of a frame; half of it overlaps with the next one.
        search: how far a frame may be moved to either side, in samples.

    Returns:
        float32, ``shape = (about samples / factor,)``; the clip itself where it is shorter than two frames.
    """
    hop = frame // 2
    if samples.size < 2 * frame or factor == 1.0:
        return samples
    count = max(1, round((samples.size - frame) / factor / hop))
    padded = np.pad(samples, (search, frame + hop + search))
    window = np.hanning(frame + 1)[:-1].astype(np.float32)
    out = np.zeros(count * hop + frame, np.float32)
    weight = np.full(out.size, 1e-3, np.float32)
    position = 0
    for index in range(count + 1):
        wanted = min(round(index * hop * factor), samples.size - frame)
        if index:
            template = padded[search + position + hop : search + position + hop + hop]
            field = padded[wanted : wanted + hop + 2 * search]
            wanted += int(np.correlate(field, template).argmax()) - search
        position = wanted
        piece = padded[search + position : search + position + frame]
        out[index * hop : index * hop + frame] += piece * window
        weight[index * hop : index * hop + frame] += window
    stretched: Samples = (out / np.maximum(weight, 0.1)).astype(np.float32)
    return stretched


def warp_formants(samples: Samples, factor: float, frame: int = 512, lifter: int = 28) -> Samples:
    """Move the formants by a factor and leave pitch and tempo as they are: the same words from another vocal tract.

    The spectral envelope (cepstrum below ``lifter``) of every frame is stretched along the frequency axis, as in
    vocal tract length perturbation (Jaitly and Hinton, 2013), with the excitation kept.

    Args:
        samples: float32, ``shape = (samples,)`` at 16 kHz.
        factor: above 1 moves formants up, as in a shorter vocal tract.
        frame: samples of a frame, a power of two.
        lifter: cepstral coefficients that are taken for the envelope.

    Returns:
        float32, the same shape.
    """
    hop = frame // 4
    window = np.hanning(frame + 1)[:-1].astype(np.float32)
    padded = np.pad(samples, (frame, frame + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    spectra = np.fft.rfft(frames * window, axis=1)
    cepstra = np.fft.irfft(np.log(np.abs(spectra) + 1e-5), axis=1)
    cepstra[:, lifter : frame - lifter + 1] = 0
    envelopes = np.fft.rfft(cepstra, axis=1).real
    bins = np.arange(envelopes.shape[1])
    source = np.minimum(bins / factor, bins[-1])
    below = source.astype(int)
    above = np.minimum(below + 1, bins[-1])
    moved = envelopes[:, below] * (1 - source + below) + envelopes[:, above] * (source - below)
    spectra *= np.exp(np.clip(moved - envelopes, -4, 4))
    pieces = np.fft.irfft(spectra, frame, axis=1) * window
    total, weight = np.zeros(padded.size), np.zeros(padded.size)
    for index, piece in enumerate(pieces):
        total[index * hop : index * hop + frame] += piece
        weight[index * hop : index * hop + frame] += window**2
    warped: Samples = (total / np.maximum(weight, 1e-3))[frame : frame + samples.size].astype(np.float32)
    return warped


def through_codec(samples: Samples, codec: tuple[str, str, int]) -> Samples:
    """Encode and decode: what a telephone or a small file leaves of a voice.

    Args:
        samples: float32, ``shape = (samples,)`` at 16 kHz.
        codec: container and encoding by soundfile's names, and the rate in Hz at which it is used.

    Returns:
        float32, the same shape.
    """
    container, encoding, rate = codec
    peak = max(float(np.abs(samples).max()), 1e-6)
    narrow = soxr.resample(samples * np.float32(0.9 / peak), RATE, rate)
    file = io.BytesIO()
    soundfile.write(file, narrow, rate, format=container, subtype=encoding)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    wide = soxr.resample(decoded, rate, RATE)[: samples.size] * np.float32(peak / 0.9)
    return np.pad(wide, (0, samples.size - wide.size)).astype(np.float32)


def augment(samples: Samples, crowd: Sequence[Samples], rng: np.random.Generator, how: Augmentation) -> Samples:
    """One random draw of channel, room and noise.

    Args:
        samples: float32, ``shape = (samples,)``.
        crowd: speech that babble is mixed from.
        rng: source of every draw.
        how: probabilities and ranges.

    Returns:
        float32, the same shape as ``samples``.
    """
    wet = _channel(samples, rng, how)
    if rng.random() < how.noise:
        kind = rng.random()
        snr = float(rng.uniform(*how.snr_db))
        if kind < 0.4:  # noqa: PLR2004
            noise = pink_noise(wet.size, rng)
        elif kind < 0.6:  # noqa: PLR2004
            noise = rng.standard_normal(wet.size).astype(np.float32)
        else:
            noise = babble(crowd, wet.size, rng, speakers=int(rng.integers(3, 9)))
        wet = add_noise(wet, noise, snr)
    if rng.random() < how.clipping:
        limit = float(rng.uniform(0.2, 0.7)) * float(np.abs(wet).max())
        wet = np.clip(wet, -limit, limit)
    if rng.random() < how.codec:
        wet = through_codec(wet, CODECS[int(rng.integers(len(CODECS)))])
    if rng.random() < how.quantization:
        peak = max(float(np.abs(wet).max()), 1e-6)
        mu = np.sign(wet) * np.log1p(255 * np.abs(wet) / peak) / np.log(256)
        mu = np.round(mu * 127) / 127
        wet = np.sign(mu) * (np.power(256.0, np.abs(mu)) - 1) / 255 * peak
    return wet.astype(np.float32)


def _channel(samples: Samples, rng: np.random.Generator, how: Augmentation) -> Samples:
    """Equalizer, band limits and a room, applied at once in the frequency domain."""
    tail = int(how.reverberation_seconds[1] * RATE)
    size = 1 << int(np.ceil(np.log2(samples.size + tail)))
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    gain = np.ones(frequency.size)
    if rng.random() < how.equalizer:
        knots = rng.uniform(-how.equalizer_db, how.equalizer_db, 8)
        curve = np.interp(np.log(frequency + 50), np.linspace(np.log(50), np.log(8050), 8), knots)
        gain *= 10 ** (curve / 20)
    if rng.random() < how.telephone:
        gain *= 1 / (1 + (300 / np.maximum(frequency, 1)) ** 8) / (1 + (frequency / 3400) ** 12)
    elif rng.random() < how.low_pass:
        gain *= 1 / (1 + (frequency / rng.uniform(3400, 4000)) ** 24)
    response = gain.astype(np.complex128)
    if rng.random() < how.reverberation:
        seconds = rng.uniform(*how.reverberation_seconds)
        decay = rng.standard_normal(tail) * np.exp(-6.9 * np.arange(tail) / (seconds * RATE))
        decay *= rng.uniform(0.1, 0.7) / max(float(np.sqrt(np.sum(decay**2))), 1e-6)
        decay[0] = 1.0
        response *= np.fft.rfft(decay, size)
    return np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: samples.size].astype(np.float32)
