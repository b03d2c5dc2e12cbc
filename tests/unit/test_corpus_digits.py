"""The seeded generator of the digits corpus, the training bank and augmentation."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from grym.corpus import augment, bank, digits
from grym.corpus.augment import Augmentation
from grym.corpus.bank import Bank, Take
from grym.corpus.manifest import read_manifest
from grym.errors import ConfigError

RATE = digits.RATE
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
EFFECTS = ("equalizer", "telephone", "low_pass", "reverberation", "noise", "quantization", "codec", "clipping")
NOTHING = Augmentation(**dict.fromkeys(EFFECTS, 0.0))


def tone(seconds: float, frequency: float = 300.0) -> digits.Samples:
    """A sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def rms(samples: digits.Samples) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def takes(speakers: int = 2) -> list[Take]:
    """Every digit and three strings by each speaker; a digit is a tone whose pitch tells it."""
    found = []
    for s in range(speakers):
        for words in [*((word,) for word in digits.WORDS), ("one", "two"), ("two", "nine"), ("one", "two", "six")]:
            wave = np.concatenate([tone(0.3, 200 + 50 * digits.WORDS.index(word)) for word in words])
            found.append(Take((wave * 32_767).astype(np.int16), words, f"speaker-{s}"))
    return found


def test_test_voices_never_occur_in_training():
    """The split follows the variant's name alone, in all accents, and both splits are large enough."""
    test = {voice.variant for voice in digits.voices("test", 40, 7)}
    train = {voice.variant for voice in digits.voices("train", 80, 7)}
    assert test
    assert train
    assert not test & train
    assert all(digits.held_out(variant) for variant in test)
    assert not any(digits.held_out(variant) for variant in train)


def test_voices_are_drawn_by_the_seed():
    """The same seed gives the same voices; few voices have all different variants; pairs never repeat."""
    assert digits.voices("test", 16, 7) == digits.voices("test", 16, 7)
    assert digits.voices("test", 16, 7) != digits.voices("test", 16, 8)
    sixteen = digits.voices("test", 16, 7)
    assert len({voice.variant for voice in sixteen}) == 16
    many = digits.voices("test", 60, 7)
    assert len({voice.name for voice in many}) == 60
    assert all(120 <= voice.words_per_minute < 210 and 25 <= voice.pitch < 80 for voice in many)


@pytest.mark.parametrize("split", ["test", "train"])
def test_the_bundled_voices_are_those_of_seed_7(split):
    """The commands in the corpus card draw exactly the voices that stand in the bundled manifests."""
    bundled = read_manifest(Path(__file__).resolve().parents[2] / "datasets" / "digits" / split / "manifest.csv")
    assert {entry.speaker for entry in bundled.entries} == {voice.name for voice in digits.voices(split, 16, 7)}


def test_unknown_split_and_too_many_voices_are_refused():
    """Both errors name the value and the rule."""
    with pytest.raises(ConfigError, match="'dev'"):
        digits.voices("dev", 1, 7)
    with pytest.raises(ConfigError, match="10000 voices"):
        digits.voices("train", 10_000, 7)


def test_speaking_without_espeak_says_what_to_install(monkeypatch, tmp_path):
    """A machine without the generator's program gets a sentence, not a traceback of subprocess."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="espeak-ng is not installed"):
        digits.speak("one", digits.Voice("en-gb", "m1"))


def test_trim_cuts_silence_at_both_ends():
    """30 ms are kept at each end, and silence alone is left as it is."""
    wave = np.concatenate([np.zeros(RATE), tone(0.5), np.zeros(RATE)]).astype(np.float32)
    assert abs(digits.trim(wave).size - round(0.56 * RATE)) < 20
    assert digits.trim(np.zeros(100, np.float32)).size == 100


def test_noise_has_unit_power_and_its_colour():
    """Pink noise and babble have an RMS of 1; pink power falls by about 3 dB per octave."""
    rng = np.random.default_rng(1)
    pink = digits.pink_noise(1 << 16, rng)
    assert rms(pink) == pytest.approx(1.0, abs=1e-4)
    power = np.abs(np.fft.rfft(pink)) ** 2
    low, high = power[1000:2000].mean(), power[8000:16_000].mean()
    assert 10 * np.log10(low / high) == pytest.approx(9.0, abs=0.7)
    crowd = digits.babble([tone(0.4), tone(0.7, 500)], RATE, rng)
    assert crowd.shape == (RATE,)
    assert rms(crowd) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("snr", [20.0, 10.0])
def test_noise_is_mixed_at_the_ratio_asked_for(snr):
    """What is added stands ``snr`` dB below the speech, and nothing clips."""
    clean = tone(1.0)
    noise = digits.pink_noise(clean.size, np.random.default_rng(2))
    mixed = digits.add_noise(clean, noise, snr)
    assert 20 * np.log10(rms(clean) / rms(mixed - clean)) == pytest.approx(snr, abs=0.1)
    assert np.abs(digits.add_noise(clean * 2, noise, 0.0)).max() <= 0.9901


@needs_espeak
def test_a_generated_corpus_is_seeded_and_loadable(tmp_path, capsys):
    """The command line writes clips and a manifest that the loader reads; the same seed gives the same audio."""
    arguments = ["--split", "test", "--voices", "2", "--per-voice", "7", "--seed", "3", "--out"]
    for name in ("a", "b"):
        digits.main([*arguments, str(tmp_path / name)])
    assert "14 clips, 56 words, 2 voices" in capsys.readouterr().out
    table = read_manifest(tmp_path / "a" / "manifest.csv")
    assert table.rejected == ()
    assert (tmp_path / "a" / "manifest.csv").read_bytes() == (tmp_path / "b" / "manifest.csv").read_bytes()
    for entry in table.entries:
        samples, rate = soundfile.read(entry.path, dtype="float32")
        again, _ = soundfile.read(tmp_path / "b" / entry.relative, dtype="float32")
        assert rate == RATE
        assert np.array_equal(samples, again)
        assert samples.size / rate == pytest.approx(entry.duration, abs=0.001)
        assert len(entry.text.split()) == 1 + int(entry.key[-3:]) % 7
    kinds = {(entry.slices["noise"], entry.slices["noise_kind"]) for entry in table.entries}
    assert kinds >= {("clean", "none"), ("20dB", "pink"), ("10dB", "pink"), ("10dB", "babble")}
    assert {entry.slices["length"] for entry in table.entries} == {"1", "2-4", "5-7"}


@needs_espeak
def test_synthetic_takes_are_digits_and_strings_by_training_voices():
    """Each voice speaks ten digits and the strings asked for, the same for the same seed."""
    made = bank.synthesize(2, 2, seed=5)
    assert [len(take.words) for take in made] == [*[1] * 10, 2, 3] * 2
    assert [take.words[0] for take in made[:10]] == list(digits.WORDS)
    assert len({take.speaker for take in made}) == 2
    assert not any(digits.held_out(take.speaker.split("+")[1]) for take in made)
    again = bank.synthesize(2, 2, seed=5)
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(made, again, strict=True))


def test_training_takes_of_fsdd_leave_out_test_takes_and_speakers(tmp_path):
    """Takes below the first one asked for, and speakers left out, never reach training."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in ("3_ann_4", "3_ann_5", "7_ann_12", "3_bob_5"):
        soundfile.write(folder / f"{name}.wav", tone(0.2)[::2], 8000)
    found = bank.load_fsdd(tmp_path, leave_out=["bob"])
    assert sorted((take.words, take.speaker) for take in found) == [(("seven",), "fsdd-ann"), (("three",), "fsdd-ann")]
    assert all(take.samples.dtype == np.int16 and take.samples.size == 3200 for take in found)
    assert int(np.abs(found[0].samples).max()) == 30_000


def test_warped_copies_of_real_takes_are_speakers_of_their_own(tmp_path):
    """Copies with other formants keep the words and the length, and are not joined with the original."""
    (tmp_path / "recordings").mkdir()
    soundfile.write(tmp_path / "recordings/3_ann_5.wav", np.tile(tone(0.1, 200) ** 3, 2)[::2], 8000)
    found = bank.load_fsdd(tmp_path, warps=2, seed=1)
    assert [take.speaker for take in found] == ["fsdd-ann", "fsdd-ann-0", "fsdd-ann-1"]
    assert len({take.samples.size for take in found}) == 1
    assert not np.array_equal(found[0].samples, found[1].samples)


def test_a_batch_is_a_function_of_seed_and_step():
    """An interrupted training goes on where it stopped: two banks give the same batch, another step another one."""
    one, two = (Bank([(takes(), 1.0)], Augmentation(), 20.0) for _ in range(2))
    for step in range(3):
        left, right = one.batch(1, step), two.batch(1, step)
        assert [clip.words for clip in left] == [clip.words for clip in right]
        assert all(np.array_equal(a.samples, b.samples) for a, b in zip(left, right, strict=True))
    assert not np.array_equal(one.batch(1, 0)[0].samples, one.batch(2, 0)[0].samples)


def test_clips_of_a_batch_are_equally_long_and_their_spans_hold_the_words():
    """Every span of a joined clip sounds like its word, and clips hold as many words as their batch."""
    made = Bank([(takes(), 1.0)], NOTHING, 20.0)
    lengths = set()
    for step in range(8):
        batch = made.batch(3, step, joined_only=True)
        assert len({clip.samples.size for clip in batch}) == 1
        assert len({len(clip.words) for clip in batch}) == 1
        lengths.add(len(batch[0].words))
        for clip in batch:
            assert tuple(word for _, _, word in clip.spans) == clip.words
            assert all(0 <= start < end <= clip.samples.size for start, end, _ in clip.spans)
            start, end, _ = clip.spans[0]
            assert rms(clip.samples[start:end]) > 0.1
    assert len(lengths) > 1


def test_recorded_strings_are_used_where_they_fit():
    """Strings of a matching length are played whole, without spans, unless joined clips are asked for."""
    made = Bank([(takes(), 1.0)], NOTHING, 20.0)
    mixed = [clip for step in range(10) for clip in made.batch(3, step)]
    joined = [clip for step in range(10) for clip in made.batch(3, step, joined_only=True)]
    whole = {clip.words for clip in mixed if not clip.spans}
    assert whole
    assert whole <= {("one", "two"), ("two", "nine"), ("one", "two", "six")}
    assert all(clip.spans for clip in joined)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_speed_changes_length_and_pitch(factor):
    """Twice as fast is half as long and an octave higher."""
    fast = augment.change_speed(tone(1.0, 400), factor)
    assert fast.dtype == np.float32
    assert fast.size == round(RATE / factor)
    peak = np.argmax(np.abs(np.fft.rfft(fast))) * RATE / fast.size
    assert peak == pytest.approx(400 * factor, abs=2)


def test_no_augmentation_changes_nothing():
    """With every probability at 0 the clip comes back, to within rounding."""
    wave = tone(0.5)
    same = augment.augment(wave, [tone(1.0)], np.random.default_rng(0), NOTHING)
    assert np.allclose(same, wave, atol=1e-6)


@pytest.mark.parametrize("field", EFFECTS)
def test_every_augmentation_does_something_and_keeps_the_shape(field):
    """Each effect alone changes the clip, keeps shape and type, stays finite, and follows the seed."""
    wave = tone(0.5) + 0.1 * digits.pink_noise(RATE // 2, np.random.default_rng(9))
    how = replace(NOTHING, **{field: 1.0})
    one, two = (augment.augment(wave, [tone(1.0)], np.random.default_rng(4), how) for _ in range(2))
    assert np.array_equal(one, two)
    assert (one.shape, one.dtype) == (wave.shape, np.float32)
    assert np.isfinite(one).all()
    assert rms(one - wave) > 1e-4


def test_all_kinds_of_noise_are_drawn():
    """Pink noise, white noise and babble all occur, and none changes shape or type."""
    how = replace(NOTHING, noise=1.0, snr_db=(10.0, 10.0))
    wave = tone(0.5)
    seen = set()
    for seed in range(12):
        noise = augment.augment(wave, [tone(1.0, 250)], np.random.default_rng(seed), how) - wave
        power = np.abs(np.fft.rfft(noise)) ** 2
        seen.add("white" if power[2000:].sum() > 0.4 * power.sum() else "low")
        assert 20 * np.log10(rms(wave) / rms(noise)) == pytest.approx(10.0, abs=1.5)
    assert seen == {"white", "low"}


@pytest.mark.parametrize("factor", [0.88, 1.15])
def test_warping_moves_the_formant_and_not_the_pitch(factor):
    """A vowel of 100 Hz with a formant at 1 kHz: the harmonics stay, the strongest one moves by the factor."""
    pulses = np.zeros(RATE, np.float32)
    pulses[:: RATE // 100] = 1.0
    spectrum = np.fft.rfft(pulses)
    frequency = np.fft.rfftfreq(RATE, 1 / RATE)
    vowel = np.fft.irfft(spectrum * np.exp(-(((frequency - 1000) / 250) ** 2)), RATE).astype(np.float32)
    warped = augment.warp_formants(vowel, factor)
    power = np.abs(np.fft.rfft(warped[2000:-2000]))
    bins = np.fft.rfftfreq(RATE - 4000, 1 / RATE)
    centre = float(np.sum(bins * power**2) / np.sum(power**2))
    assert centre == pytest.approx(1000 * factor, rel=0.04)
    assert np.interp(100 * np.arange(8, 12), bins, power).min() > 20 * np.interp(850, bins, power)


@pytest.mark.parametrize("factor", [0.7, 1.3, 1.8])
def test_tempo_changes_length_and_not_pitch(factor):
    """Faster is shorter at the same pitch and level; a clip too short for two frames comes back."""
    fast = augment.change_tempo(tone(1.0, 200), factor)
    assert fast.dtype == np.float32
    assert fast.size == pytest.approx(RATE / factor, rel=0.04)
    peak = np.argmax(np.abs(np.fft.rfft(fast * np.hanning(fast.size)))) * RATE / fast.size
    assert peak == pytest.approx(200, abs=2)
    assert float(np.abs(fast).max()) == pytest.approx(0.5, rel=0.1)
    assert np.array_equal(augment.change_tempo(tone(0.05), factor), tone(0.05))


def test_weak_ends_are_cut_by_level():
    """What lies under the threshold goes from both ends, a weak part in the middle stays, a third is always left."""
    weak, strong = 0.02 * tone(0.2), tone(0.1)
    word = np.concatenate([weak, strong, weak, strong, weak])
    assert augment.trim_by_level(word, 20.0).size == pytest.approx(0.4 * RATE, abs=0.02 * RATE)
    assert augment.trim_by_level(word, 45.0).size == word.size
    click = np.concatenate([weak, weak, tone(0.01), weak])
    assert augment.trim_by_level(click, 20.0).size == pytest.approx(click.size / 3, abs=0.02 * RATE)
    assert augment.trim_by_level(tone(0.02), 20.0).size == 0.02 * RATE
    trimmed = augment.hurry(word, np.random.default_rng(1), replace(NOTHING, trim=1.0, trim_db=(20.0, 20.0)))
    assert np.array_equal(trimmed, augment.trim_by_level(word, 20.0))


def test_hurried_words_are_shorter_and_follow_the_seed():
    """Each effect alone shortens a word or leaves it, by draws of the generator."""
    wave = tone(0.6)
    cut = augment.hurry(wave, np.random.default_rng(1), replace(NOTHING, crop=1.0))
    assert wave.size - 2 * 0.05 * RATE <= cut.size < wave.size
    quick = replace(NOTHING, tempo=1.0, tempo_factor=(1.5, 1.5))
    assert augment.hurry(wave, np.random.default_rng(1), quick).size == pytest.approx(wave.size / 1.5, rel=0.05)
    assert augment.hurry(wave, np.random.default_rng(1), NOTHING) is wave
    batch = Bank([(takes(), 1.0)], augment.PRESETS["hurried"], 20.0).batch(3, 1, joined_only=True)
    assert len({clip.samples.size for clip in batch}) == 1


def test_warping_by_one_changes_nothing():
    """Analysis and synthesis alone give the clip back."""
    wave = digits.pink_noise(RATE, np.random.default_rng(3))
    assert np.allclose(augment.warp_formants(wave, 1.0), wave, atol=1e-5)


@pytest.mark.parametrize("codec", augment.CODECS)
def test_a_codec_keeps_time_and_most_of_the_voice(codec):
    """No delay, the same length, and a correlation below 1 that shows it did something."""
    wave = 0.1 * digits.pink_noise(RATE, np.random.default_rng(0))
    coded = augment.through_codec(wave, codec)
    assert (coded.shape, coded.dtype) == (wave.shape, np.float32)
    match = np.correlate(coded, wave, "full") / np.sum(wave**2)
    assert int(match.argmax()) == wave.size - 1
    assert 0.5 < float(match.max()) < 0.999


def test_a_telephone_cuts_bass_and_treble():
    """Below 300 Hz and above 3.4 kHz little is left, speech between them passes."""
    how = replace(NOTHING, telephone=1.0)
    ratio = {
        f: rms(augment.augment(tone(0.5, f), [], np.random.default_rng(0), how)) / rms(tone(0.5, f))
        for f in (100.0, 1000.0, 6000.0)
    }
    assert ratio[1000.0] == pytest.approx(1.0, abs=0.05)
    assert ratio[100.0] < 0.1
    assert ratio[6000.0] < 0.1
