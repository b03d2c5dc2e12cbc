"""Signal measurements against signals whose values are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grym.errors import AudioError, ConfigError
from grym.models import _loudness, _pitch, _rhythm, _spectral, _voice
from grym.models.analysis import (
    ADVANCED_FIELDS,
    BASIC_FIELDS,
    CHROMA_FIELDS,
    FLOOR_DBFS,
    MFCC_FIELDS,
    analyze,
    analyze_clip,
)
from grym.models.interface import AudioClip

if TYPE_CHECKING:
    import numpy.typing as npt

    from grym.models.interface import Level

RATE = 16_000
RATES = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000)
SPECTRAL = ("spectral_centroid_hz", "spectral_rolloff_hz", "spectral_flatness")


def times(seconds: float, rate: int = RATE) -> npt.NDArray[np.float64]:
    """Sample times in seconds."""
    return np.arange(round(seconds * rate)) / rate


def sine(hertz: float, seconds: float = 2.0, peak: float = 1.0, rate: int = RATE) -> npt.NDArray[np.float64]:
    """A sine."""
    return peak * np.sin(2 * np.pi * hertz * times(seconds, rate))


def noise(seconds: float, rms: float, seed: int = 0) -> npt.NDArray[np.float64]:
    """White Gaussian noise."""
    return rms * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def voice(seconds: float, peak: float = 0.1) -> npt.NDArray[np.float64]:
    """Harmonics of a gliding 120 to 160 Hz fundamental, with four syllables a second."""
    t = times(seconds)
    phase = 2 * np.pi * np.cumsum(140 + 20 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    syllables = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * t)
    tones = np.array([np.sin(k * phase) / k for k in range(1, 20)])
    return np.asarray(peak * syllables * tones.sum(axis=0), np.float64)


def clicks(bpm: float, seconds: float = 8.0) -> npt.NDArray[np.float64]:
    """Single samples at a steady tempo, the first after a quarter of a second."""
    samples = np.zeros(round(seconds * RATE))
    samples[(np.arange(0.25, seconds - 0.1, 60 / bpm) * RATE).astype(int)] = 0.9
    return samples


def measure(samples: npt.NDArray[np.floating], rate: int = RATE, level: Level = "advanced") -> dict[str, float]:
    """Measurements of float32 samples."""
    return analyze_clip(AudioClip("clip", samples.astype(np.float32), rate), level)


@pytest.mark.parametrize("rate", RATES)
def test_level_and_spectrum_of_a_sine(rate: int) -> None:
    """A full-scale 1 kHz sine has -3.01 dB rms, 3.01 dB crest and its spectrum at 1 kHz, at every rate."""
    values = measure(sine(1000, rate=rate), rate, "basic")
    assert values["rms_dbfs"] == pytest.approx(-3.0103, abs=1e-3)
    assert values["peak_dbfs"] == pytest.approx(0.0, abs=0.02)
    assert values["crest_factor_db"] == pytest.approx(3.01, abs=0.02)
    assert values["zero_crossing_rate"] == pytest.approx(2000 / rate, rel=2e-3)
    assert values["spectral_centroid_hz"] == pytest.approx(1000, abs=1)
    assert values["spectral_rolloff_hz"] == pytest.approx(1000, abs=32)
    assert values["spectral_flatness"] < 1e-3
    assert values["duration_seconds"] == 2.0


def test_fields_come_in_the_documented_order() -> None:
    """Each level gives exactly its fields, basic first."""
    assert tuple(measure(sine(300, 0.5), level="basic")) == BASIC_FIELDS
    advanced = tuple(measure(sine(300, 0.5)))
    assert advanced == ADVANCED_FIELDS
    assert advanced[: len(BASIC_FIELDS)] == BASIC_FIELDS


def test_every_field_is_documented() -> None:
    """The table in the docs names every field, and no field that does not exist."""
    page = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for cell in cells for name in cell.split("`")[1::2]}
    ranges = {*MFCC_FIELDS, *CHROMA_FIELDS}
    assert named - ranges == set(ADVANCED_FIELDS) - ranges
    assert {MFCC_FIELDS[0], MFCC_FIELDS[-1], CHROMA_FIELDS[0], CHROMA_FIELDS[-1]} <= named <= set(ADVANCED_FIELDS)


def test_silent_fraction_counts_quiet_frames() -> None:
    """Frames below -60 dBFS are silent, frames just above are not."""
    quiet, audible = sine(500, 0.6, 1.3e-3), sine(500, 0.4, 1.6e-3)
    assert measure(np.concatenate([quiet, audible]), level="basic")["silent_fraction"] == pytest.approx(0.6)


def test_the_last_frame_counts_with_the_samples_it_has() -> None:
    """25 ms are two frames, the second of 5 ms."""
    half_loud = np.concatenate([np.zeros(320), sine(800, 0.005, 0.5)])
    assert measure(half_loud, level="basic")["silent_fraction"] == 0.5


def test_clipped_fraction_is_the_share_at_full_scale() -> None:
    """A sine driven 6 dB over full scale is clipped for two thirds of the time."""
    driven = np.clip(sine(101, peak=2.0), -1.0, 1.0)
    assert measure(driven, level="basic")["clipped_fraction"] == pytest.approx(2 / 3, abs=0.01)
    assert measure(sine(101, peak=0.99), level="basic")["clipped_fraction"] == 0.0


def test_dc_offset_does_not_move_the_spectrum() -> None:
    """An offset is reported by itself and leaves centroid and flatness where they were."""
    plain, offset = (measure(sine(1000, peak=0.3) + dc, level="basic") for dc in (0.0, 0.25))
    assert offset["dc_offset"] == pytest.approx(0.25, abs=1e-6)
    assert offset["spectral_centroid_hz"] == pytest.approx(plain["spectral_centroid_hz"], rel=1e-5)


def test_white_noise_is_flat() -> None:
    """Averaged over 186 frames the flatness of white noise is near 1, on a single frame near exp(-0.577)."""
    values = measure(noise(3.0, 0.1), level="basic")
    assert values["spectral_flatness"] == pytest.approx(1.0, abs=0.01)
    assert values["spectral_centroid_hz"] == pytest.approx(RATE / 4, rel=0.01)
    assert values["spectral_rolloff_hz"] == pytest.approx(0.85 * RATE / 2, rel=0.02)
    single = [measure(noise(0.032, 0.1, seed), level="basic")["spectral_flatness"] for seed in range(40)]
    assert np.mean(single) == pytest.approx(0.56, abs=0.04)


def test_sweep_spreads_power_evenly() -> None:
    """A linear sweep from 1 to 3 kHz has its centroid at 2 kHz and 85 % of its power below 2.7 kHz."""
    t = times(4.0)
    values = measure(0.5 * np.sin(2 * np.pi * (1000 * t + 250 * t**2)), level="basic")
    assert values["spectral_centroid_hz"] == pytest.approx(2000, rel=0.01)
    assert values["spectral_rolloff_hz"] == pytest.approx(2700, abs=35)


def test_k_weighting_matches_the_recommendation() -> None:
    """At 48 kHz the derived filters have the coefficients printed in BS.1770-4, tables 1 and 2."""
    shelf, highpass = _loudness.k_weighting(48_000)
    assert shelf == pytest.approx(
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585], abs=1e-9
    )
    assert highpass == pytest.approx([1, -2, 1, 1, -1.99004745483398, 0.99007225036621], abs=1e-9)


@pytest.mark.parametrize("rate", RATES)
def test_loudness_of_the_reference_tone(rate: int) -> None:
    """A 997 Hz sine at 0 dBFS in one channel reads -3.01 LUFS: exactly at 48 kHz, within 0.05 elsewhere."""
    loudness = measure(sine(997, rate=rate), rate)["loudness_lufs"]
    assert loudness == pytest.approx(-3.01, abs=0.005 if rate == 48_000 else 0.05)


def test_loudness_gates() -> None:
    """Passages 13 dB below the rest (EBU Tech 3341, case 3, in one channel) and near-silence do not count."""
    loud, soft, hush = sine(1000, 6, 0.1), sine(1000, 1, 0.1 * 10 ** (-13 / 20)), sine(1000, 3, 1e-4)
    alone = measure(loud)["loudness_lufs"]
    assert measure(np.concatenate([soft, hush, loud, hush, soft]))["loudness_lufs"] == pytest.approx(alone, abs=0.3)
    assert measure(hush)["loudness_lufs"] == _loudness.ABSOLUTE_GATE


def test_loudness_of_a_short_clip_is_one_block() -> None:
    """A clip under 400 ms is measured as a block of its own length."""
    assert measure(sine(997, 0.3))["loudness_lufs"] == pytest.approx(-3.01, abs=0.1)


@pytest.mark.parametrize("rate", [10, 70, 1000, 3000, 3400])
def test_k_weighting_is_stable_at_any_rate(rate: int) -> None:
    """Sections whose corner is out of range are left out; those kept have their poles inside the unit circle."""
    for section in _loudness.k_weighting(rate):
        assert np.all(np.abs(np.roots(section[3:])) < 1)
    assert len(_loudness.k_weighting(rate)) == (rate > 76.3) + (rate > 3364)


@pytest.mark.parametrize("hertz", [70.0, 123.4, 220.0, 440.0])
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_pitch_of_tones(hertz: float, rate: int) -> None:
    """The fundamental of a steady tone is found within 0.2 %, nearly everywhere and without spread."""
    values = measure(sine(hertz, 1.0, 0.5, rate), rate)
    assert values["f0_median_hz"] == pytest.approx(hertz, rel=2e-3)
    assert values["voiced_fraction"] > 0.95
    assert values["f0_range_hz"] < 0.01 * hertz


def test_pitch_of_a_missing_fundamental() -> None:
    """Harmonics 3 to 6 of 150 Hz have a pitch of 150 Hz."""
    values = measure(np.sum([sine(150 * k, peak=0.1) for k in range(3, 7)], axis=0))
    assert values["f0_median_hz"] == pytest.approx(150, rel=2e-3)


def test_pitch_range_of_a_glide() -> None:
    """A linear glide from 100 to 200 Hz spans 90 Hz between its 5th and 95th percentiles."""
    t = times(4.0)
    values = measure(0.5 * np.sin(2 * np.pi * (100 * t + 12.5 * t**2)))
    assert values["f0_median_hz"] == pytest.approx(150, abs=2)
    assert values["f0_range_hz"] == pytest.approx(90, abs=4)


def test_nothing_is_voiced_in_noise_clicks_high_tones_or_hush() -> None:
    """Noise, isolated clicks, tones over 500 Hz and tones below -60 dBFS have no fundamental."""
    for samples in (noise(2, 0.1), clicks(60), sine(1000, peak=0.5), sine(200, peak=1e-3)):
        values = measure(samples)
        assert values["voiced_fraction"] == 0.0
        assert values["f0_median_hz"] == values["f0_range_hz"] == 0.0


def test_speech_is_found_between_silences() -> None:
    """Of six seconds with three of voice in the middle, half is speech, with and without noise."""
    samples = np.concatenate([np.zeros(24_000), voice(3), np.zeros(24_000)])
    for hiss in (0.0, 0.002):
        values = measure(samples + noise(6, hiss))
        assert values["speech_fraction"] == pytest.approx(0.5, abs=0.02)
        assert values["speech_seconds"] == pytest.approx(3.0, abs=0.12)


def test_speech_without_pauses_is_all_speech() -> None:
    """The gate of a clip that talks throughout does not close on it."""
    assert measure(voice(3))["speech_fraction"] > 0.95


def test_noise_and_clicks_are_not_speech() -> None:
    """Steady noise, bursts of noise and click trains pass the gate but are not voiced."""
    bursts = noise(4, 0.1) * (np.sin(2 * np.pi * 2 * times(4)) > 0)
    for samples in (noise(3, 0.1), bursts, clicks(120)):
        assert measure(samples)["speech_fraction"] == 0.0


def test_a_short_word_in_a_long_pause_is_found() -> None:
    """A quarter of a second of voice in ten seconds of hiss is found although it is rare."""
    samples = noise(10, 0.001)
    samples[80_000:84_000] += voice(0.25)
    assert measure(samples)["speech_seconds"] == pytest.approx(0.25, abs=0.06)


def test_speech_rule_on_scripted_frames() -> None:
    """Gaps to 200 ms are bridged, longer ones are not, and regions under 50 ms are dropped."""
    power = np.full(200, 1e-9)
    for start, stop in ((10, 40), (60, 90), (120, 150), (180, 184)):
        power[start:stop] = 1e-2
    found = np.flatnonzero(np.diff(_voice.speech_frames(power, np.ones(200, np.bool_)).astype(int)))
    assert (found + 1).tolist() == [10, 90, 120, 150]
    assert not _voice.speech_frames(power, np.zeros(200, np.bool_)).any()


@pytest.mark.parametrize("bpm", [60, 90, 120, 137, 160])
@pytest.mark.parametrize("hiss", [0.0, 0.001])
def test_click_trains(bpm: int, hiss: float) -> None:
    """Every click is an onset and the tempo is theirs, within half a beat per minute."""
    samples = clicks(bpm)
    values = measure(samples + noise(8, hiss))
    assert values["onset_count"] == np.count_nonzero(samples)
    assert values["tempo_bpm"] == pytest.approx(bpm, abs=0.5)


def test_tempo_takes_the_octave_nearest_120() -> None:
    """A plain beat of 200 per minute reads 100."""
    assert measure(clicks(200))["tempo_bpm"] == pytest.approx(100, abs=0.5)


def test_steady_sounds_have_no_onsets() -> None:
    """A tone, a hiss and silence have neither onsets nor tempo; three bursts without a beat have only onsets."""
    for samples in (sine(440), noise(3, 0.1), np.zeros(RATE)):
        values = measure(samples)
        assert values["onset_count"] == values["tempo_bpm"] == 0.0
    strength = np.zeros(1000)
    strength[[100, 700, 980]] = 20.0
    assert _rhythm.onsets(strength).tolist() == [100, 700, 980]
    assert _rhythm.tempo(strength, 3, 0.01) == 0.0


@pytest.mark.parametrize(
    ("hertz", "field"),
    [(440.0, "chroma_a"), (261.63, "chroma_c"), (369.99, "chroma_f_sharp"), (123.47, "chroma_b"), (3520.0, "chroma_a")],
)
def test_chroma_of_notes(hertz: float, field: str) -> None:
    """A pure note puts nearly all power into its pitch class; the twelve shares add up to 1."""
    values = measure(sine(hertz, peak=0.3))
    assert values[field] > (0.95 if hertz > 200 else 0.85)
    assert sum(values[name] for name in CHROMA_FIELDS) == pytest.approx(1.0)


def test_chroma_of_a_chord() -> None:
    """A C major triad has a third of the power in each of its notes."""
    values = measure(np.sum([sine(hertz, peak=0.2) for hertz in (261.63, 329.63, 392.0)], axis=0))
    for name in ("chroma_c", "chroma_e", "chroma_g"):
        assert values[name] == pytest.approx(1 / 3, abs=0.02)


def test_mel_filters_follow_htk() -> None:
    """At 16 kHz the 26 filters peak at 1 where HTK's mel formula puts them and neighbours add up to 1."""
    hertz = np.linspace(0, 8000, 80_001)
    filters = _spectral.mel_filters(hertz, RATE)
    tops = 2595 * np.log10(1 + hertz[np.argmax(filters, axis=0)] / 700)
    assert np.diff(tops) == pytest.approx(2840.02 / 27, abs=0.2)
    assert filters.max(axis=0) == pytest.approx(1.0, abs=2e-3)
    inner = (hertz > 100) & (hertz < 7000)
    assert filters[inner].sum(axis=1) == pytest.approx(1.0, abs=1e-6)


def test_cepstrum_of_gain_and_silence() -> None:
    """Gain moves coefficient 0 by sqrt(26) ln(gain squared) and no other; silence has the documented floor."""
    loud, soft = (measure(noise(1, rms)) for rms in (0.1, 0.05))
    assert loud["mfcc_mean_00"] - soft["mfcc_mean_00"] == pytest.approx(math.sqrt(26) * math.log(4), abs=1e-3)
    for name in MFCC_FIELDS[1:]:
        assert loud[name] == pytest.approx(soft[name], abs=1e-3)
    silence = measure(np.zeros(RATE))
    assert silence["mfcc_mean_00"] == pytest.approx(math.sqrt(26) * math.log(1e-10))
    assert [silence[name] for name in MFCC_FIELDS[1:]] == pytest.approx([0.0] * 12, abs=1e-9)


def test_cepstrum_of_tilt() -> None:
    """A dark sound has a larger first coefficient than a bright one of the same level."""
    dark, bright = measure(sine(200, peak=0.3)), measure(sine(6000, peak=0.3))
    assert dark["mfcc_mean_01"] > bright["mfcc_mean_01"] + 10


@pytest.mark.parametrize("snr", [10.0, 20.0, 40.0])
def test_snr_of_a_tone_that_pauses(snr: float) -> None:
    """A tone that is on for half of each second over noise is estimated within 1.5 dB."""
    tone = sine(700, 8, 0.2) * (np.sin(2 * np.pi * times(8)) > 0)
    values = measure(tone + noise(8, 0.2 / math.sqrt(2) * 10 ** (-snr / 20)))
    assert values["snr_db_estimate"] == pytest.approx(snr, abs=1.5)


def test_snr_says_when_it_cannot_tell() -> None:
    """Without pauses, sound or enough frames the estimate is its lower end; over digital silence, its upper."""
    for samples in (sine(440), noise(3, 0.1), np.zeros(RATE), voice(0.08)):
        assert measure(samples)["snr_db_estimate"] == _voice.SNR_LOW_DB
    paused = np.concatenate([np.zeros(RATE), voice(1)])
    assert measure(paused)["snr_db_estimate"] == _voice.SNR_HIGH_DB


def test_silence_is_defined() -> None:
    """Silence has floors, zeros and an even chroma, and is all silent."""
    values = measure(np.zeros(RATE))
    assert values["rms_dbfs"] == values["peak_dbfs"] == FLOOR_DBFS
    assert values["silent_fraction"] == 1.0
    assert values["loudness_lufs"] == -70.0
    assert [values[name] for name in CHROMA_FIELDS] == pytest.approx([1 / 12] * 12)
    rest = ("crest_factor_db", "dc_offset", "zero_crossing_rate", *SPECTRAL, "speech_fraction", "voiced_fraction")
    assert [values[name] for name in rest] == [0.0] * len(rest)


@pytest.mark.parametrize("count", [1, 5, RATE])
def test_a_constant_has_a_level_and_no_spectrum(count: int) -> None:
    """A constant, one sample included, has its own level, no crest and no spectrum."""
    values = measure(np.full(count, 0.1))
    assert [values["rms_dbfs"], values["peak_dbfs"]] == pytest.approx([-20.0, -20.0], abs=1e-5)
    assert values["dc_offset"] == pytest.approx(0.1, abs=1e-7)
    assert values["silent_fraction"] == 1.0
    rest = ("crest_factor_db", "zero_crossing_rate", *SPECTRAL, "voiced_fraction", "onset_count")
    assert [values[name] for name in rest] == pytest.approx([0.0] * len(rest), abs=1e-9)


def test_full_scale_square_is_defined() -> None:
    """A full-scale square of 100 Hz has 0 dBFS, no crest, is clipped throughout and has its pitch."""
    values = measure(np.where(sine(100.0) >= 0, 1.0, -1.0))
    assert values["rms_dbfs"] == values["peak_dbfs"] == values["crest_factor_db"] == pytest.approx(0.0, abs=1e-9)
    assert values["clipped_fraction"] == 1.0
    assert values["f0_median_hz"] == pytest.approx(100, rel=2e-3)


def test_zeros_between_signs_are_not_crossings() -> None:
    """A zero keeps the sign before it: + 0 + does not cross, + 0 - crosses once."""
    assert measure(np.array([1.0, 0.0, 1.0, 0.0, -1.0]), level="basic")["zero_crossing_rate"] == 0.25


def test_a_long_clip_is_measured_in_blocks() -> None:
    """Values of half a minute, cut into several blocks of frames, are those of two seconds."""
    long, short = measure(sine(220, 30, 0.3)), measure(sine(220, 2, 0.3))
    for name in ("f0_median_hz", "spectral_centroid_hz", "mfcc_mean_00", "mfcc_mean_05", "chroma_a"):
        assert long[name] == pytest.approx(short[name], rel=1e-3, abs=1e-3)
    assert _pitch.pitch_track(sine(220, 30, 0.3), RATE).size == 2997


def test_a_batch_keeps_order_and_survives_bad_clips() -> None:
    """Clips come back in order, equal to themselves alone; one that cannot be measured is an empty dict."""
    good = [AudioClip(str(k), sine(100 * k, 0.2).astype(np.float32), RATE) for k in (1, 2)]
    bad = AudioClip("bad", np.array([0.0, np.nan], np.float32), RATE)
    first, nothing, last = analyze([good[0], bad, good[1]], "advanced")
    assert nothing == {}
    assert (first, last) == (analyze_clip(good[0], "advanced"), analyze_clip(good[1], "advanced"))
    assert analyze([], "basic") == []


@pytest.mark.parametrize(
    ("samples", "rate", "code"),
    [
        (np.zeros(0, np.float32), RATE, "empty"),
        (np.zeros((2, 8), np.float32), RATE, "not-mono"),
        (np.zeros(8, np.int16), RATE, "not-float"),
        (np.array([np.inf, 0.0], np.float32), RATE, "not-finite"),
        (np.array([np.nan, 0.0], np.float32), RATE, "not-finite"),
        (np.array([1e200, 0.0]), RATE, "not-finite"),
        (np.zeros(8, np.float32), 0, "bad-rate"),
    ],
)
def test_unusable_clips_are_refused(samples: npt.NDArray[np.float32], rate: int, code: str) -> None:
    """A clip that cannot be measured is an audio error with its code and what to do."""
    with pytest.raises(AudioError) as caught:
        analyze_clip(AudioClip("clip-7", samples, rate), "basic")
    assert caught.value.code == code
    assert "clip-7" in caught.value.message
    assert caught.value.hint.endswith(".")


def test_unknown_level_is_refused() -> None:
    """A level that does not exist is an error even for an empty batch, and the hint names the real ones."""
    with pytest.raises(ConfigError) as caught:
        analyze([], "expert")  # type: ignore[arg-type]
    assert caught.value.code == "unknown-level"
    assert caught.value.hint == 'Use "basic" or "advanced".'


any_samples = hnp.arrays(
    np.float32,
    st.integers(1, 3000),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
audible_samples = hnp.arrays(np.float32, st.integers(2, 2000), elements=st.floats(-1.0, 1.0, width=16))


@settings(max_examples=80, deadline=None)
@given(samples=any_samples, rate=st.sampled_from([1, 7, 100, 999, 1000, 3365, *RATES, 192_000]))
def test_every_value_is_finite(samples: npt.NDArray[np.float32], rate: int) -> None:
    """Whatever finite float32 samples, at whatever rate, every value is a finite float inside its range."""
    values = measure(samples, rate)
    assert {type(value) for value in values.values()} == {float}
    assert all(math.isfinite(value) for value in values.values())
    for name in values:
        if name.endswith(("_fraction", "_rate", "_flatness")) or name.startswith("chroma"):
            assert -1e-12 <= values[name] <= 1 + 1e-12
    assert values["spectral_centroid_hz"] <= rate / 2
    assert sum(values[name] for name in CHROMA_FIELDS) == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(samples=audible_samples, exponent=st.integers(-8, 8), rate=st.sampled_from(RATES))
def test_gain_moves_levels_and_nothing_else(samples: npt.NDArray[np.float32], exponent: int, rate: int) -> None:
    """Gain changes rms and peak by exactly that many dB and no value that describes shape."""
    before, after = (measure(samples * gain, rate, "basic") for gain in (1.0, 2.0**exponent))
    moved = 20 * math.log10(2.0**exponent) if np.any(samples) else 0.0
    for name in ("rms_dbfs", "peak_dbfs"):
        assert after[name] - before[name] == pytest.approx(moved, abs=1e-9)
    for name in (*SPECTRAL, "crest_factor_db", "zero_crossing_rate"):
        assert after[name] == pytest.approx(before[name], rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), decibels=st.floats(-20.0, 20.0))
def test_gain_moves_loudness_alike(seed: int, decibels: float) -> None:
    """Far from the gates loudness follows gain to within the rounding of float32."""
    samples = noise(0.6, 0.05, seed)
    before, after = (measure(samples * gain)["loudness_lufs"] for gain in (1.0, 10 ** (decibels / 20)))
    assert after - before == pytest.approx(decibels, abs=1e-4)
