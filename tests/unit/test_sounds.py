"""The sounds corpus: what a clip is, and that the sound is what the attributes say."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from grym.corpus.sounds import ATTRIBUTES, BACKGROUNDS, LABELS, Event, draw, draw_event, render, strokes, tonal
from grym.corpus.sounds.clip import QUIET_DBFS, RENDERERS
from grym.corpus.sounds.vocabulary import NUMBERS
from grym.errors import ConfigError

RATE = 16_000
SIZE = 38_000


def sound(label: str, seed: int = 3, **attributes: str) -> np.ndarray:
    """An event alone, with unit peak."""
    samples = render(Event(label, attributes), SIZE, np.random.default_rng(seed))
    return samples / np.abs(samples).max()


def level(samples: np.ndarray, frame: int = 80) -> np.ndarray:
    """RMS of every 5 ms."""
    return np.sqrt(np.mean(samples[: samples.size // frame * frame].reshape(-1, frame) ** 2, axis=1))


def onsets(samples: np.ndarray) -> np.ndarray:
    """Times in seconds at which the level jumps up, at least 90 ms apart."""
    levels = level(samples)
    before = np.array([levels[max(0, i - 6) : i].min(initial=levels.max()) for i in range(levels.size)])
    before[0] = 0
    rise = np.where((levels > 0.15 * levels.max()) & (levels > 1.6 * before), levels - before, 0)
    peaks, _ = scipy.signal.find_peaks(np.pad(rise, 1), height=0.1 * levels.max(), distance=18)
    return (peaks - 1) * 0.005


def bursts(samples: np.ndarray, hold: int, floor: float = 0.08) -> int:
    """How often the level, held for some frames of 5 ms, comes above a part of its maximum."""
    held = scipy.ndimage.maximum_filter1d(np.pad(level(samples), 1), hold)
    loud = (held > floor * held.max()).astype(int)
    return int((np.diff(np.pad(loud, 1)) == 1).sum())


def spectrum_peak(samples: np.ndarray) -> float:
    """Frequency in Hz where the clip has most power."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE / samples.size)


def track(samples: np.ndarray) -> np.ndarray:
    """The strongest frequency in Hz of every loud 16 ms, in the order of time."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 256)[::128] * np.hanning(256)
    power = np.abs(np.fft.rfft(frames, 2048, axis=1))
    loud = power.max(axis=1) > 0.3 * power.max()
    return power[loud].argmax(axis=1) * RATE / 2048


def test_every_label_has_a_renderer_and_two_closed_attributes():
    """The vocabulary and the renderers name the same labels."""
    assert tuple(RENDERERS) == LABELS
    assert len(LABELS) >= 14
    assert all(len(keys) >= 2 and all(len(values) >= 2 for values in keys.values()) for keys in ATTRIBUTES.values())


@pytest.mark.parametrize("label", LABELS)
def test_every_sound_fills_its_room(label):
    """Whole and half clips of each label are finite float32 of the length asked for, never constant."""
    rng = np.random.default_rng(1)
    for size, short in ((40_000, False), (16_800, True)):
        for _ in range(3):
            samples = render(draw_event(label, rng, short=short), size, rng)
            assert samples.dtype == np.float32
            assert samples.shape == (size,)
            assert np.isfinite(samples).all()
            assert samples.std() > 0


@pytest.mark.parametrize(
    ("label", "hold"), [("clap", 4), ("knock", 4), ("bird chirp", 3), ("dog bark", 3), ("horn", 9), ("bell", 20)]
)
def test_counts_can_be_counted(label, hold):
    """As many bursts are in the signal as the attribute says, whatever the other attribute."""
    rng = np.random.default_rng(5)
    other = next(key for key in ATTRIBUTES[label] if key != "count")
    for word in ATTRIBUTES[label]["count"]:
        for value in ATTRIBUTES[label][other]:
            samples = render(Event(label, {"count": word, other: value}), SIZE, rng)
            # A bell goes on ringing: its strokes are heard in the clang, far above its strike note.
            found = bursts(np.diff(samples, 2), hold, 0.25) if label == "bell" else bursts(samples, hold)
            assert found == NUMBERS[word], (word, value)


@pytest.mark.parametrize(
    ("label", "table", "key"),
    [("clap", strokes.STROKE_INTERVAL, "count"), ("knock", strokes.STROKE_INTERVAL, "count"),
     ("clock", strokes.TICK_INTERVAL, "pitch"), ("footsteps", strokes.STEP_INTERVAL, "surface")],
)  # fmt: skip
def test_paces_can_be_measured(label, table, key):
    """The time between onsets lies in the range that stands for the pace, and the ranges leave a gap."""
    assert table["fast"][1] * 1.2 < table["slow"][0]
    for pace in ("slow", "fast"):
        for value in ATTRIBUTES[label][key][-1:]:
            gap = float(np.median(np.diff(onsets(sound(label, **{key: value, "pace": pace})))))
            assert 0.95 * table[pace][0] - 0.01 < gap < 1.05 * table[pace][1] + 0.01


def test_pitches_can_be_measured():
    """The note of an alarm and a clock, and the howl of the wind lie in the range of their value."""
    for pitch in ("low", "high"):
        low, high = tonal.BEEP_HZ[pitch]
        assert low * 0.98 < spectrum_peak(sound("alarm", pitch=pitch, pace="slow")) < high * 1.02
        low, high = strokes.TICK_HZ[pitch]
        assert low * 0.9 < spectrum_peak(sound("clock", pitch=pitch, pace="fast")) < high * 1.05
    assert spectrum_peak(sound("wind", pitch="low", change="growing")) < 450
    assert spectrum_peak(sound("wind", pitch="high", change="growing")) > 600


@pytest.mark.parametrize("label", ["whistle", "bird chirp"])
@pytest.mark.parametrize("direction", ["rising", "falling"])
def test_directions_can_be_measured(label, direction):
    """The strongest frequency moves the way that the attribute says, many times more often than the other way."""
    more = {"length": "long"} if label == "whistle" else {"count": "three"}
    steps = np.diff(track(sound(label, direction=direction, **more)))
    steps = steps[np.abs(steps) < 900]  # from the end of a chirp to the start of the next one
    moved = steps.sum() if direction == "rising" else -steps.sum()
    assert moved > 300


@pytest.mark.parametrize(
    ("label", "key", "up", "down", "more"),
    [("wind", "change", "growing", "fading", {"pitch": "low"}),
     ("helicopter", "motion", "approaching", "leaving", {"pace": "fast"}),
     ("rain", "change", "steady", "fading", {"intensity": "heavy"})],
)  # fmt: skip
def test_changes_can_be_measured(label, key, up, down, more):
    """The last third is louder than the first one, or the other way round."""

    def moves(value: str) -> float:
        samples = sound(label, **{key: value}, **more)
        thirds = [np.sqrt(np.mean(part**2)) for part in np.array_split(samples, 3)]
        return float(20 * np.log10(thirds[2] / thirds[0]))

    assert moves(down) < -6
    assert abs(moves(up)) < 3 if up == "steady" else moves(up) > 6


def test_distance_and_surface_change_the_spectrum():
    """A crowd far away has hardly anything above 2 kHz, and gravel has far more there than a hard floor."""

    def bright(samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        edge = 2000 * samples.size // RATE
        return float(power[edge:].sum() / power.sum())

    near, far = (bright(sound("babble", pitch="low", distance=value)) for value in ("near", "far"))
    assert near > 10 * far
    gravel, hard = (bright(sound("footsteps", pace="slow", surface=value)) for value in ("gravel", "hard"))
    assert gravel > 3 * hard


def test_a_clip_is_a_pure_function_of_its_arguments():
    """The same arguments give the same bytes; seed, index and split each change all of them."""
    clip = draw(5, 8, "train")
    again = draw(5, 8, "train")
    assert (clip.samples == again.samples).all()
    assert (clip.caption, clip.questions, clip.events) == (again.caption, again.questions, again.events)
    for other in (draw(6, 8, "train"), draw(5, 9, "train"), draw(5, 8, "test")):
        size = min(other.samples.size, clip.samples.size)
        assert abs(np.corrcoef(other.samples[:size], clip.samples[:size])[0, 1]) < 0.3
        assert other.id != clip.id


def test_clips_have_the_promised_lengths_levels_and_shares():
    """2.0 to 2.5 s, peaks of -30 to -6 dB, no digital silence, a quarter or more of mixtures, all noises."""
    clips = [draw(9, index, "test") for index in range(90)]
    for clip in clips:
        assert 2.0 <= clip.samples.size / RATE <= 2.5
        assert clip.samples.dtype == np.float32
        assert level(clip.samples, 160).min() > 1e-6
        peak = 20 * np.log10(np.abs(clip.samples).max())
        if clip.events[0].label == "silence":
            assert peak < QUIET_DBFS[1] + 16
            assert clip.snr_db is None
        else:
            assert -30.1 <= peak <= -5.9
        assert (clip.snr_db is None) == (clip.noise_kind == "none")
        assert len(clip.events) == (2 if clip.relation else 1)
        assert all(set(event.attributes) == set(ATTRIBUTES[event.label]) for event in clip.events)
        if clip.relation == "over":
            assert clip.events[1].label in BACKGROUNDS
    assert sum(bool(clip.relation) for clip in clips) >= 0.25 * len(clips)
    assert {clip.snr_db for clip in clips} == {None, 20.0, 10.0}
    assert {clip.noise_kind for clip in clips} == {"none", "white", "pink", "hum"}


def test_noise_has_the_ratio_that_is_said():
    """The noise of a noisy clip is found in the pause before a lone stroke, at the promised distance."""
    found = 0
    for index in range(40):
        clip = draw(4, index, "train", labels=("horn",), mixture=False)
        if clip.snr_db is None or clip.noise_kind == "hum":
            continue
        levels = level(clip.samples, 800) ** 2
        noise = float(np.sort(levels)[: levels.size // 8].mean())
        ratio = 10 * np.log10(max(float((clip.samples**2).mean()) - noise, 1e-12) / noise)
        assert abs(ratio - clip.snr_db) < 4
        found += 1
    assert found > 8


def test_labels_and_mixture_can_be_asked_for():
    """Only allowed labels occur, and a mixture is made where it is wanted."""
    for index in range(8):
        assert {e.label for e in draw(1, index, "train", labels=("bell", "rain"), mixture=True).events} == {
            "bell",
            "rain",
        }
        assert draw(1, index, "train", labels=("silence",)).relation == ""


def test_wrong_arguments_are_refused():
    """Each error names the value and the rule."""
    with pytest.raises(ConfigError, match="'dev'"):
        draw(1, 1, "dev")
    with pytest.raises(ConfigError, match="seed -1"):
        draw(-1, 1, "test")
    with pytest.raises(ConfigError, match="'tuba'"):
        draw(1, 1, "test", labels=("tuba",))
    with pytest.raises(ConfigError, match="'tuba'"):
        draw_event("tuba", np.random.default_rng(1))
    with pytest.raises(ConfigError, match="no mixture"):
        draw(1, 1, "test", labels=("silence", "bell"), mixture=True)
    with pytest.raises(ConfigError, match="No label"):
        draw(1, 1, "test", labels=())
