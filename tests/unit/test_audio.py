"""Decoding: identities, spans, measurements, and a typed refusal for every bad file."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import soxr

from grym.audio import content_id, decode
from grym.config import AudioLimits
from grym.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from grym.models.interface import Samples

RATE = 16_000
LIMITS = AudioLimits()


def tone(seconds: float, rate: int = RATE, *, frequency: float = 440.0, level: float = 0.5) -> Samples:
    """A sine with a little noise, so that no two parts of it are equal."""
    noise = np.random.default_rng(1).standard_normal(round(seconds * rate)) * 0.001
    wave = level * np.sin(2 * np.pi * frequency * np.arange(noise.size) / rate)
    return (wave + noise).astype(np.float32)


def with_flac_length(path: Path, frames: int) -> None:
    """Let the header of a FLAC file claim another length; 0 means unknown, as encoders write it to a pipe."""
    raw = bytearray(path.read_bytes())
    fields = int.from_bytes(raw[18:26], "big")
    raw[18:26] = (fields >> 36 << 36 | frames).to_bytes(8, "big")
    path.write_bytes(raw)


def refusal(path: Path, limits: AudioLimits = LIMITS, **span: float) -> AudioError:
    """The error that decoding raises; its message names the file and never its folder."""
    with pytest.raises(AudioError) as caught:
        decode(path, limits, **span)
    error = caught.value
    assert path.name in error.message
    assert error.hint
    assert str(path.parent) not in str(error)
    assert pickle.loads(pickle.dumps(error)).code == error.code  # noqa: S301 - made in this line
    return error


@pytest.mark.parametrize(
    ("name", "subtype", "close"),
    [
        ("a.wav", "PCM_16", 1e-4),
        ("a.flac", "PCM_24", 1e-6),
        ("a.mp3", None, 0.05),
        ("a.ogg", "VORBIS", 0.05),
        ("b.ogg", "OPUS", 0.1),
    ],
)
def test_every_format_is_decoded_to_mono_float32_at_the_limit_rate(tmp_path, name, subtype, close):
    """Wav, flac, mp3 and both kinds of ogg give the samples that went in."""
    wave = tone(1.0, 48_000)
    soundfile.write(tmp_path / name, np.stack([wave, wave], 1), 48_000, subtype=subtype)
    clip, measured = decode(tmp_path / name, LIMITS)
    assert (clip.samples.dtype, clip.samples.ndim, clip.rate) == (np.float32, 1, RATE)
    assert (measured.source_rate, measured.source_channels) == (48_000, 2)
    assert measured.seconds == clip.seconds == pytest.approx(1.0, abs=0.03)
    expected = soxr.resample(wave, 48_000, RATE)
    middle = slice(2000, 14_000)
    assert float(np.abs(clip.samples[middle] - expected[middle]).max()) < close


def test_reading_in_blocks_gives_the_same_samples_as_reading_at_once(tmp_path):
    """A file of several blocks, resampled block by block, equals one call of soxr."""
    wave = tone(5.0, 44_100)
    soundfile.write(tmp_path / "a.wav", wave, 44_100, subtype="FLOAT")
    clip, _ = decode(tmp_path / "a.wav", LIMITS)
    assert np.array_equal(clip.samples, soxr.resample(wave, 44_100, RATE))


def test_identity_depends_on_the_audio_alone(tmp_path):
    """Name, format, equal channels and the way a span is cut do not change the id; one sample does."""
    wave = np.round(tone(2.0) * 32_767).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    soundfile.write(tmp_path / "b.flac", np.stack([wave, wave], 1), RATE)
    soundfile.write(tmp_path / "part.wav", wave[8000:24_000], RATE)
    whole, _ = decode(tmp_path / "a.wav", LIMITS)
    assert decode(tmp_path / "b.flac", LIMITS)[0].id == whole.id
    part, _ = decode(tmp_path / "part.wav", LIMITS)
    assert decode(tmp_path / "a.wav", LIMITS, offset=0.5, duration=1.0)[0].id == part.id
    assert part.id != whole.id
    wave[5] += 1
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    assert decode(tmp_path / "a.wav", LIMITS)[0].id != whole.id


def test_content_id_covers_samples_count_and_rate():
    """The id is stable, ignores the sign of zero, and tells rate and length apart."""
    silence = np.zeros(4, np.float32)
    assert content_id(silence, RATE) == "efffda21" + content_id(silence, RATE)[8:]
    assert len(content_id(silence, RATE)) == 64
    assert content_id(-silence, RATE) == content_id(silence, RATE)
    others = {content_id(silence, 8000), content_id(silence[:3], RATE), content_id(silence + 1, RATE)}
    assert len(others | {content_id(silence, RATE)}) == 4


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_a_span_is_the_part_of_the_file_it_names(tmp_path, name):
    """Offset and duration cut the samples out that slicing does; MP3 decoders differ in the last bit after a jump."""
    soundfile.write(tmp_path / name, tone(3.0), RATE)
    whole, _ = decode(tmp_path / name, LIMITS)
    part, measured = decode(tmp_path / name, LIMITS, offset=1.0, duration=0.75)
    close = 1e-6 if name.endswith("mp3") else 0.0
    assert np.allclose(part.samples, whole.samples[16_000:28_000], rtol=0, atol=close)
    assert measured.seconds == 0.75
    rest, _ = decode(tmp_path / name, LIMITS, offset=2.5)
    assert np.allclose(rest.samples, whole.samples[40_000:], rtol=0, atol=close)


def test_a_rounded_duration_still_means_the_whole_file(tmp_path):
    """A duration rounded to milliseconds, or longer than the file, does not cut or change the clip."""
    soundfile.write(tmp_path / "a.wav", tone(1.0)[:-13], RATE)
    whole, _ = decode(tmp_path / "a.wav", LIMITS)
    assert decode(tmp_path / "a.wav", LIMITS, duration=0.999)[0].id == whole.id
    assert decode(tmp_path / "a.wav", LIMITS, duration=99.0)[0].id == whole.id
    assert decode(tmp_path / "a.wav", LIMITS, duration=0.98)[0].samples.size == 15_680


def test_levels_are_measured(tmp_path):
    """RMS and peak of a sine, its clipped samples, and the share of silent frames."""
    wave = np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE)
    loud = np.concatenate([np.clip(2 * wave, -1, 1), np.zeros(RATE)])
    soundfile.write(tmp_path / "a.wav", loud, RATE, subtype="PCM_16")
    _, measured = decode(tmp_path / "a.wav", LIMITS)
    assert measured.peak_dbfs == pytest.approx(0.0, abs=0.001)
    assert measured.clipped_fraction == pytest.approx(1 / 3, abs=0.01)
    assert measured.silent_fraction == 0.5
    soundfile.write(tmp_path / "a.wav", 0.5 * wave, RATE, subtype="FLOAT")
    _, measured = decode(tmp_path / "a.wav", LIMITS)
    assert measured.rms_dbfs == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=1e-3)
    assert measured.peak_dbfs == pytest.approx(20 * np.log10(0.5), abs=1e-3)
    assert measured.clipped_fraction == 0.0


def test_full_scale_of_eight_bits_counts_as_clipped(tmp_path):
    """The largest 8-bit value is below 1, and still full scale."""
    wave = np.where(np.arange(RATE) % 100 < 50, 1.0, -1.0)
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="PCM_U8")
    assert decode(tmp_path / "a.wav", LIMITS)[1].clipped_fraction == 1.0


def _text(path: Path) -> None:
    path.write_text("this is not audio\n" * 100)


def _silent_stereo(path: Path) -> None:
    wave = tone(1.0)
    soundfile.write(path, np.stack([wave, -wave], 1), RATE, subtype="FLOAT")


def _nan(path: Path) -> None:
    wave = tone(1.0)
    wave[100] = np.nan
    soundfile.write(path, wave, RATE, subtype="FLOAT")


def _infinite(path: Path) -> None:
    wave = np.stack([tone(1.0, 8000)] * 2, 1)
    wave[100] = np.inf, -np.inf
    soundfile.write(path, wave, 8000, subtype="FLOAT")


def _truncated(path: Path) -> None:
    soundfile.write(path, tone(3.0), RATE, format="FLAC")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _two_hours(path: Path) -> None:
    soundfile.write(path, tone(0.5), RATE, format="FLAC")
    with_flac_length(path, 7200 * RATE)


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("missing-file", lambda _: None),
        ("empty-file", lambda path: path.touch()),
        ("not-audio", _text),
        ("not-audio", lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000))),
        ("not-audio", lambda path: path.mkdir()),
        ("not-audio", os.mkfifo),
        ("not-audio", _truncated),
        ("no-samples", lambda path: soundfile.write(path, np.zeros(0), RATE)),
        ("not-finite", _nan),
        ("not-finite", _infinite),
        ("not-finite", lambda path: soundfile.write(path, tone(1.0) * 1e30, RATE, subtype="FLOAT")),
        ("bad-rate", lambda path: soundfile.write(path, tone(1.0, 2000), 2000)),
        ("bad-rate", lambda path: soundfile.write(path, tone(0.1, 400_000), 400_000)),
        ("too-many-channels", lambda path: soundfile.write(path, np.stack([tone(0.2)] * 8, 1), RATE)),
        ("too-short", lambda path: soundfile.write(path, tone(0.01), RATE)),
        ("too-long", _two_hours),
        ("silent", lambda path: soundfile.write(path, np.zeros(RATE), RATE)),
        ("silent", lambda path: soundfile.write(path, np.full(RATE, 0.25), RATE)),
        ("silent", lambda path: soundfile.write(path, tone(1.0, level=0.0) * 0.1, RATE, subtype="FLOAT")),
        ("silent", _silent_stereo),
    ],
)
def test_every_bad_file_has_its_code(tmp_path, code, make: Callable[[Path], object]):
    """A file that cannot be used is refused with the code of the first rule it breaks."""
    make(tmp_path / "clip.wav")
    error = refusal(tmp_path / "clip.wav")
    assert error.code == code
    assert error.record().category == "audio"
    assert not error.retryable


def test_a_file_that_really_is_two_hours_long_is_refused_from_its_header(tmp_path):
    """Two hours at the lowest rate; the file is sparse, so nothing of that length is ever written or read."""
    path = tmp_path / "long.wav"
    soundfile.write(path, tone(1.0, 4000), 4000, subtype="PCM_U8")
    raw = bytearray(path.read_bytes())
    size = 7200 * 4000
    raw[40:44] = size.to_bytes(4, "little")
    path.write_bytes(raw)
    os.truncate(path, 44 + size)
    assert refusal(path).code == "too-long"
    clip, _ = decode(path, LIMITS, duration=0.5)
    assert clip.seconds == 0.5


def test_a_header_without_length_is_read_until_the_file_ends(tmp_path):
    """FLAC from a pipe names no length; the whole file and a span of it can be read."""
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(6.0), RATE)
    whole, _ = decode(path, LIMITS)
    with_flac_length(path, 0)
    assert decode(path, LIMITS)[0].id == whole.id
    part, _ = decode(path, LIMITS, offset=1.0, duration=1.0)
    assert np.array_equal(part.samples, whole.samples[16_000:32_000])


def test_a_header_without_length_stops_at_the_limit(tmp_path):
    """Where the header is silent about the length, reading stops at the limit, not at the end."""
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(20.0), RATE)
    with_flac_length(path, 0)
    assert refusal(path, AudioLimits(max_seconds=5.0)).code == "too-long"


def test_a_header_that_claims_more_than_there_is_gives_what_is_there(tmp_path):
    """A claim of half an hour over one second of audio costs one second of memory."""
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(1.0), RATE)
    with_flac_length(path, 1800 * RATE)
    assert decode(path, LIMITS)[1].seconds == 1.0
    assert refusal(path, offset=900.0).code == "no-samples"
    soundfile.write(tmp_path / "b.wav", tone(1.0), RATE)
    raw = bytearray((tmp_path / "b.wav").read_bytes())
    raw[40:44] = (0x7FFFF000).to_bytes(4, "little")
    (tmp_path / "b.wav").write_bytes(raw)
    assert decode(tmp_path / "b.wav", LIMITS)[1].seconds == 1.0


@pytest.mark.parametrize(
    "span",
    [{"offset": -1.0}, {"offset": np.nan}, {"duration": 0.0}, {"duration": -2.0}, {"duration": np.inf}],
)
def test_a_span_that_is_no_time_is_refused(tmp_path, span):
    """Negative, infinite and empty spans are errors of their own."""
    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE)
    assert refusal(tmp_path / "a.wav", **span).code == "bad-span"


@pytest.mark.parametrize("offset", [1.0, 5.0, 1e300])
def test_a_span_behind_the_end_has_no_samples(tmp_path, offset):
    """An offset at or behind the end of the file is refused."""
    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE)
    assert refusal(tmp_path / "a.wav", offset=offset).code == "no-samples"


def test_a_file_without_permission_is_unreadable(tmp_path):
    """A file that this user may not read is refused as such."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0), RATE)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file (root)")
    assert refusal(path).code == "unreadable"


def test_a_loop_of_links_is_unreadable(tmp_path):
    """Any other failure of the system to open a file is named, too."""
    (tmp_path / "a.wav").symlink_to(tmp_path / "b.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    assert refusal(tmp_path / "a.wav").code == "unreadable"


def test_limits_are_the_settings(tmp_path):
    """Rate and channels follow the limits that are passed."""
    soundfile.write(tmp_path / "a.wav", np.stack([tone(0.2)] * 8, 1), RATE)
    clip, measured = decode(tmp_path / "a.wav", AudioLimits(rate=8000, max_channels=8))
    assert (clip.rate, clip.samples.size, measured.source_channels) == (8000, 1600, 8)
    assert clip.id == content_id(clip.samples, 8000)
