"""Decoding: a file becomes one mono float32 clip at one rate, or a typed reason why it cannot.

Knows nothing about models, manifests or Prefect; uses soundfile (libsndfile) and
soxr. Times are seconds, rates Hz, levels dB relative to full scale. Messages
hold file names, never folders.

    >>> import numpy as np
    >>> content_id(np.zeros(4, np.float32), 16_000)[:8]
    'efffda21'
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import soundfile
import soxr

from grym.errors import AudioError
from grym.models.interface import AudioClip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from grym.config import AudioLimits
    from grym.models.interface import Samples

FRAME_SECONDS: Final = 0.02
# Manifests round durations; a span that ends this close to the end of the file means the end of the file.
END_TOLERANCE_SECONDS: Final = 0.01
_BLOCK_FRAMES: Final = 1 << 16
_FLOOR_DB: Final = -200.0
_ABSURD: Final = 1e15
_UNKNOWN_FRAMES: Final = 1 << 62
# The largest value a sample of each coding can have; every other coding is measured against 16 bits.
_FULL_SCALE: Final = {"PCM_U8": 127 / 128, "PCM_S8": 127 / 128, "ULAW": 32124 / 32768, "ALAW": 32256 / 32768}
_FULL_SCALE_16: Final = 32767 / 32768


@dataclass(frozen=True, slots=True)
class Measured:
    """What a file is and how loud its clip is.

    Attributes:
        source_rate: sample rate of the file in Hz.
        source_channels: channels of the file.
        seconds: length of the clip in seconds.
        rms_dbfs: level of the mono clip in dB relative to full scale, at least -200.
        peak_dbfs: highest sample of any channel of the file in dB relative to full scale, at least -200.
        clipped_fraction: share of the file's samples (all channels) that stand at full scale.
        silent_fraction: share of 20 ms frames of the mono clip below the limit of silence, offset (DC) removed.
    """

    source_rate: int
    source_channels: int
    seconds: float
    rms_dbfs: float
    peak_dbfs: float
    clipped_fraction: float
    silent_fraction: float


@dataclass(slots=True)
class _Meter:
    """Running measurements of the file's own samples, before they are mixed and resampled."""

    full_scale: float
    peak: float = 0.0
    clipped: int = 0
    frames: int = 0
    values: int = 0

    def add(self, block: Samples) -> None:
        level = np.abs(block)
        self.peak = max(self.peak, float(level.max(initial=0.0)))
        self.clipped += int(np.count_nonzero(level >= self.full_scale))
        self.frames += block.shape[0]
        self.values += block.size


class _Sequential(soundfile.SoundFile):  # type: ignore[misc] # soundfile has no types
    """A file that is read from front to back.

    soundfile seeks to the place it expects after every read, and fails there
    when a header claimed more than the file holds. A file that says it cannot
    be sought in is simply read until nothing comes.
    """

    def seekable(self) -> bool:
        return False


def storable(name: str) -> str:
    """A file name that can be stored as UTF-8, whatever bytes the disk holds."""
    return name.encode("utf-8", "backslashreplace").decode()


def content_id(samples: Samples, rate: int) -> str:
    """The identity of a clip: equal exactly when decoded samples, their number and their rate are equal.

    The sha256 of ``grym-clip-1``, a zero byte, the rate and the number of samples
    (unsigned 64 bit, little endian) and the samples (float32, little endian,
    negative zero as zero). A span of a file is identified by the samples inside
    it, so a clip cut out of a long file and the same clip in a file of its own
    are one clip (MP3 aside: after a jump its decoder rounds differently). Neither
    name nor folder nor format takes part.

    Args:
        samples: float32, ``shape = (samples,)``, mono.
        rate: sample rate in Hz.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(b"grym-clip-1\0")
    digest.update(int(rate).to_bytes(8, "little") + samples.size.to_bytes(8, "little"))
    # Adding zero turns -0.0, which some codecs give for silence, into 0.0.
    digest.update(np.add(samples, np.float32(0.0), dtype="<f4").tobytes())
    return digest.hexdigest()


def decode(
    path: Path, limits: AudioLimits, *, offset: float = 0.0, duration: float | None = None
) -> tuple[AudioClip, Measured]:
    """Read a file, or a span of it, as mono float32 at ``limits.rate``.

    Channels are averaged, the rate is converted by soxr (HQ). Reading goes block
    by block, so memory follows what is really in the file and never exceeds
    ``limits.max_seconds``, whatever the header claims.

    Args:
        path: a wav, flac, mp3 or ogg (Vorbis, Opus) file; other formats of libsndfile work too.
        limits: what a usable clip is.
        offset: where the clip starts, in seconds.
        duration: its length in seconds; default, or if the file ends earlier, up to the end of the file.

    Returns:
        The clip, ``samples.shape = (samples,)``, and its measurements.

    Raises:
        AudioError: with code ``missing-file``, ``unreadable``, ``empty-file``, ``not-audio``, ``no-samples``,
            ``not-finite``, ``bad-rate``, ``too-many-channels``, ``too-short``, ``too-long``, ``silent`` or
            ``bad-span`` (an offset or duration that is no length of time).
    """
    name = storable(path.name)
    _check_span(name, offset, duration)
    descriptor = _open(path, name)
    try:
        with _Sequential(descriptor, closefd=False) as source:
            return _read(source, name, limits, offset, duration)
    except soundfile.LibsndfileError as error:
        msg = f"{name} is not audio that can be decoded: {error.error_string.strip(' .') or 'unknown reason'}."
        raise AudioError(msg, code="not-audio", hint="Convert it to WAV or FLAC.") from error
    finally:
        os.close(descriptor)


def _open(path: Path, name: str) -> int:
    """Open a regular, non-empty file for reading; returns its descriptor."""
    try:
        # Without waiting: opening a named pipe would otherwise block until somebody writes.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except PermissionError as error:
        msg = f"{name} cannot be read: permission denied."
        raise AudioError(msg, code="unreadable", hint="Give this user the right to read it.") from error
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        msg = f"{name} does not exist."
        raise AudioError(msg, code="missing-file", hint="Correct the path in the manifest or add the file.") from error
    except OSError as error:
        msg = f"{name} cannot be read: {error.strerror}."
        raise AudioError(msg, code="unreadable", hint="Check the file and its disk.") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return descriptor
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        msg = f"{name} is not a regular file."
        raise AudioError(msg, code="not-audio", hint="Name an audio file.")
    msg = f"{name} is empty (0 bytes)."
    raise AudioError(msg, code="empty-file", hint="Copy it again from its source.")


def _read(
    source: _Sequential, name: str, limits: AudioLimits, offset: float, duration: float | None
) -> tuple[AudioClip, Measured]:
    rate, channels = int(source.samplerate), int(source.channels)
    _check_header(name, rate, channels, limits)
    start, count = _span(source, offset, duration)
    _check_length(name, count / rate, limits)
    meter = _Meter(_FULL_SCALE.get(source.subtype, _FULL_SCALE_16))
    blocks = _blocks(source, name, limits, count if _seek(source, start) else 0, meter)
    samples = _convert(blocks, rate, limits.rate)
    _check_samples(name, samples, meter.frames / rate, limits)
    level, silent = _levels(samples, limits)
    if silent >= 1.0:
        msg = (
            f"{name} is silent: nothing in its {samples.size / limits.rate:.2f} s is above {limits.silence_dbfs:g} dB."
        )
        hint = "Record it again, or lower audio.silence_dbfs; channels that cancel each other mix to silence, too."
        raise AudioError(msg, code="silent", hint=hint)
    measured = Measured(
        source_rate=rate,
        source_channels=channels,
        seconds=samples.size / limits.rate,
        rms_dbfs=_decibels(level),
        peak_dbfs=_decibels(meter.peak),
        clipped_fraction=meter.clipped / meter.values,
        silent_fraction=silent,
    )
    return AudioClip(content_id(samples, limits.rate), samples, limits.rate), measured


def _blocks(source: _Sequential, name: str, limits: AudioLimits, count: float, meter: _Meter) -> Iterator[Samples]:
    """Mono blocks of at most ``count`` frames in all; refuses as soon as the limit of length is passed."""
    while meter.frames < count:
        block = source.read(int(min(_BLOCK_FRAMES, count - meter.frames)), dtype="float32", always_2d=True)
        if not block.shape[0]:
            return
        meter.add(block)
        _check_length(name, meter.frames / source.samplerate, limits)
        with np.errstate(invalid="ignore", over="ignore"):  # infinite samples are refused when all is read
            mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
        yield mono


def _convert(blocks: Iterator[Samples], rate: int, wanted: int) -> Samples:
    """Join blocks at ``wanted`` Hz; soxr gives the same samples in blocks as at once."""
    nothing = np.zeros(0, np.float32)
    if rate == wanted:
        return np.concatenate([nothing, *blocks])
    stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32")
    parts = [stream.resample_chunk(np.ascontiguousarray(block)) for block in blocks]
    return np.concatenate([nothing, *parts, stream.resample_chunk(nothing, last=True)]).astype(np.float32, copy=False)


def _span(source: _Sequential, offset: float, duration: float | None) -> tuple[int, float]:
    """First frame and number of frames to read; the number is infinite where the header does not know the length."""
    rate = source.samplerate
    # FLAC written to a pipe has no length; libsndfile says 2**63 - 1 frames.
    total = float(source.frames) if source.frames < _UNKNOWN_FRAMES else math.inf
    start = round(min(offset * rate, total, _UNKNOWN_FRAMES))
    left = total - start
    if duration is None or offset + duration >= total / rate - END_TOLERANCE_SECONDS:
        return start, left
    return start, min(max(1, round(min(duration * rate, _UNKNOWN_FRAMES))), left)


def _seek(source: _Sequential, start: int) -> bool:
    """Go to a frame; false if the file ends before it, whatever its header claims."""
    try:
        if start:
            source.seek(start)
    except soundfile.LibsndfileError:
        return False
    return True


def _levels(samples: Samples, limits: AudioLimits) -> tuple[float, float]:
    """RMS of the clip, and the share of 20 ms frames whose RMS about the clip's mean is below the limit of silence."""
    size = max(1, round(FRAME_SECONDS * limits.rate))
    mean = samples.mean(dtype=np.float64)
    starts = np.arange(0, samples.size, size)
    energy = np.add.reduceat(np.square(samples - np.float32(mean)), starts, dtype=np.float64)
    power = energy / np.minimum(size, samples.size - starts)
    rms = math.sqrt(energy.sum() / samples.size + mean**2)
    return rms, float(np.mean(power < 10 ** (limits.silence_dbfs / 10)))


def _decibels(amplitude: float) -> float:
    return max(_FLOOR_DB, 20 * math.log10(amplitude)) if amplitude > 0 else _FLOOR_DB


def _check_span(name: str, offset: float, duration: float | None) -> None:
    if math.isfinite(offset) and offset >= 0 and (duration is None or (math.isfinite(duration) and duration > 0)):
        return
    msg = f"The span of {name} (offset {offset:g} s, duration {duration} s) is no stretch of time."
    raise AudioError(msg, code="bad-span", hint="Use an offset of at least 0 and a duration above 0.")


def _check_header(name: str, rate: int, channels: int, limits: AudioLimits) -> None:
    if not limits.min_rate <= rate <= limits.max_rate:
        msg = f"{name} has {rate} samples per second; {limits.min_rate} to {limits.max_rate} are allowed."
        raise AudioError(msg, code="bad-rate", hint="Resample it, or change audio.min_rate or audio.max_rate.")
    if channels > limits.max_channels:
        msg = f"{name} has {channels} channels; at most {limits.max_channels} are allowed."
        raise AudioError(msg, code="too-many-channels", hint="Mix it down, or raise audio.max_channels.")


def _check_length(name: str, seconds: float, limits: AudioLimits) -> None:
    if limits.max_seconds < seconds < math.inf:
        msg = f"{name} is longer than {limits.max_seconds:g} s."
        hint = "Cut it, name a span with offset and duration, or raise audio.max_seconds."
        raise AudioError(msg, code="too-long", hint=hint)


def _check_samples(name: str, samples: npt.NDArray[np.float32], seconds: float, limits: AudioLimits) -> None:
    if not samples.size:
        msg = f"{name} has no samples in the span that was asked for."
        raise AudioError(msg, code="no-samples", hint="Check that the file is whole, and its offset.")
    if not np.abs(samples).max() < _ABSURD:
        msg = f"{name} has samples that are no usable numbers (NaN, infinite, or {_ABSURD:g} times full scale)."
        raise AudioError(msg, code="not-finite", hint="Export it again, for example as 16-bit WAV.")
    if seconds < limits.min_seconds:
        msg = f"{name} is {seconds:.3f} s long; at least {limits.min_seconds:g} s are needed."
        raise AudioError(msg, code="too-short", hint="Use a longer clip, or lower audio.min_seconds.")
