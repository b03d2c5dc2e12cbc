"""How gama-mini is judged: rates, intervals, the controls beside them, and the card that tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from grym.compare.evaluate import SliceRate
from grym.corpus.sounds import LABELS, SoundClip, captions
from grym.errors import AudioError, QualityError
from grym.models.gama.card import render_gama_card
from grym.models.gama.measure import BOTH, CAPTION, LABEL, QUESTION, Rate, held_out, measure_sounds, wilson
from grym.models.gama.recipe import gama_stages
from grym.models.interface import Answer, AudioClip, Options
from grym.models.recipe import TrainData

if TYPE_CHECKING:
    from collections.abc import Sequence

SEED, COUNT = 3, 24


class _Told:
    """A model that reads the truth of a clip from its id, or answers the same whatever it hears."""

    def __init__(self, *, hears: bool) -> None:
        singles, mixtures = held_out(SEED, COUNT)
        self._clips = {clip.id: clip for clip in (*singles, *mixtures)}
        self._same = next(iter(self._clips.values()))
        self._hears = hears

    def process(self, batch: Sequence[AudioClip], options: Options) -> list[Answer]:
        """Answers of the task."""
        return [self._answer(self._clips[clip.id] if self._hears else self._same, clip.id, options) for clip in batch]

    def _answer(self, clip: SoundClip, clip_id: str, options: Options) -> Answer:
        true = [event.label for event in clip.events]
        if options.task == "classify":
            scores = {label: 1 / len(true) if label in true else 0.0 for label in LABELS}
            return Answer(clip_id, true[0], scores=scores)
        if options.task == "describe":
            import numpy as np

            return Answer(clip_id, captions(clip.events, clip.relation, np.random.default_rng(1)))
        return Answer(clip_id, dict(clip.questions).get(options.prompt, "no idea"))


def _whole(rates: Sequence[Rate]) -> dict[str, Rate]:
    return {rate.what: rate for rate in rates if rate.slice == "all"}


def test_a_model_that_knows_everything_is_right_and_its_controls_are_not() -> None:
    """All four rates are one; random answers and other clips' answers stay far below."""
    found = _whole(measure_sounds(_Told(hears=True).process, SEED, COUNT))
    assert set(found) == {LABEL, BOTH, QUESTION, CAPTION}
    assert {rate.rate for rate in found.values()} == {1.0}
    assert [found[name].total for name in (LABEL, BOTH, QUESTION, CAPTION)] == [COUNT, COUNT, 4 * COUNT, 2 * COUNT]
    for rate in found.values():
        assert rate.random <= 0.6
        assert rate.shuffled <= 0.6
    assert found[CAPTION].random <= 0.1


def test_a_model_that_does_not_listen_is_no_better_than_its_shuffled_control() -> None:
    """The same answer to every clip: rate and shuffled control agree."""
    found = _whole(measure_sounds(_Told(hears=False).process, SEED, COUNT))
    for name in (LABEL, BOTH, CAPTION):
        assert abs(found[name].rate - found[name].shuffled) <= 0.1
        assert found[name].rate <= 0.3


def test_slices_add_up_to_the_whole() -> None:
    """Every single sound is in one class of noise; so are mixtures."""
    rates = measure_sounds(_Told(hears=True).process, SEED, COUNT)
    for name in (LABEL, BOTH, CAPTION):
        by_noise = [rate.total for rate in rates if rate.what == name and rate.slice.startswith("snr=")]
        assert sum(by_noise) == next(rate.total for rate in rates if rate.what == name)


def test_an_unanswered_clip_stops_the_measurement() -> None:
    """A rate over the clips that happened to be answered would flatter."""

    def refuses(batch: Sequence[AudioClip], _options: Options) -> list[Answer]:
        error = AudioError("It is too short.", code="too-short").record()
        return [Answer(clip.id, None, error=error) for clip in batch]

    with pytest.raises(QualityError, match="did not answer clip test-3"):
        measure_sounds(refuses, SEED, 2)


def test_intervals_of_wilson() -> None:
    """Known values; ends stay inside zero and one, and nothing asked is nothing known."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_card_tells_what_was_measured_and_nothing_else() -> None:
    """Rates with intervals and controls, digits with theirs, people only where they were heard."""
    stages = gama_stages()
    synthetic = TrainData(voices=464, recorded_voices=122)
    real = TrainData(voices=464, recorded_voices=122, fsdd_takes=2700, fsdd_speakers=6)
    digits = {"Bundled": [SliceRate("all", 8, 20, 0.05, 0.01, 0.09, 2), SliceRate("noise=x", 0, 0, None, None, None)]}
    card = render_gama_card(
        stages,
        [synthetic, synthetic, real],
        [Rate(LABEL, "all", 100, 95, 0.05, 0.06)],
        digits,
        {"Bundled": (0.9, 1.02)},
        parameters=4_600_000,
        seed=7,
        notes=("One note.",),
    )
    assert "| label of a single sound | all | 100 | 95.0 | 88.8 to 97.8 | 5.0 | 6.0 |" in card
    assert "Random digits: 90.0 % WER. Answers to other clips: 102.0 %." in card
    assert "| all | 8 | 2 | 20 | 5.00 | 1.00 to 9.00 |" in card
    assert "* Stage 2: 464 training voices of espeak-ng, 122 of other synthesizers and languages; no recordings" in card
    assert "* Stage 3:" in card
    assert "2700 training takes (5-49)" in card
    assert "4.6 million parameters" in card
    assert "* One note." in card
