"""The bundled gama-mini: what it promises on small held-out draws, any prompt, any batch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from grym.audio import decode
from grym.compare.normalize import get_normalizer
from grym.compare.score import score
from grym.config import AudioLimits, ModelSpec
from grym.corpus.manifest import read_manifest
from grym.corpus.sounds import LABELS, draw
from grym.models.gama.adapter import Gama, GamaOptions
from grym.models.gama.measure import BOTH, CAPTION, LABEL, QUESTION, measure_sounds
from grym.models.gama.recipe import GamaSpec
from grym.models.interface import AudioClip, Options
from grym.models.wav2vec2 import CHECKPOINTS
from tests.gama_models import one_thread

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["one_thread"]  # a fixture: pytest finds it by its name
ROOT = Path(__file__).resolve().parents[2]
FOLDER = CHECKPOINTS / "gama-mini"
SEED = 20270101  # no training and no card uses it
# What the card says, less what a small draw may miss by luck.
WER_BUNDLED = 0.22
WER_PEOPLE = 0.15
FLOORS = {LABEL: 0.95, BOTH: 0.75, QUESTION: 0.72, CAPTION: 0.55}


@pytest.fixture(scope="module")
def model() -> Gama:
    """The bundled checkpoint."""
    return Gama(ModelSpec(name="gama-mini", adapter="gama"), GamaOptions(path="bundled:gama-mini", device="cpu"))


def _sounds(count: int) -> list[AudioClip]:
    drawn = [draw(SEED, 500 + index, "test") for index in range(count)]
    return [AudioClip(clip.id, clip.samples, clip.rate) for clip in drawn]


def test_sounds_of_a_new_seed_are_heard(model: Gama) -> None:
    """Labels, mixtures, questions and captions on 60 clips, well above the same answers to other clips."""
    found = {rate.what: rate for rate in measure_sounds(model.process, SEED, 30) if rate.slice == "all"}
    for what, floor in FLOORS.items():
        assert found[what].rate >= floor, (what, found[what])
        assert found[what].rate >= found[what].shuffled + 0.2, (what, found[what])


def _error_rate(model: Gama, pairs: list[tuple[AudioClip, str]]) -> float:
    answers = model.process([clip for clip, _ in pairs], Options(task="transcribe"))
    plain = get_normalizer("basic")
    scores = [score(text, answer.text or "", plain) for (_, text), answer in zip(pairs, answers, strict=True)]
    return sum(one.errors for one in scores) / sum(one.reference_words for one in scores)


def test_bundled_digit_strings_are_transcribed(model: Gama) -> None:
    """Every eighth clip of the test split: voices that were not heard in training."""
    entries = read_manifest(ROOT / "datasets/digits/test/manifest.csv").entries[::8]
    pairs = [(decode(entry.path, AudioLimits())[0], entry.text) for entry in entries]
    assert _error_rate(model, pairs) <= WER_BUNDLED


@pytest.mark.skipif(not os.environ.get("GRYM_FSDD"), reason="set GRYM_FSDD to a copy of FSDD")
def test_people_that_were_heard_in_training_are_understood(model: Gama) -> None:
    """Test takes 0 of every speaker and digit."""
    from grym.corpus.digits import WORDS

    files = sorted((Path(os.environ["GRYM_FSDD"]) / "recordings").glob("*_*_0.wav"))
    pairs = [(decode(file, AudioLimits())[0], WORDS[int(file.name[0])]) for file in files]
    assert _error_rate(model, pairs) <= WER_PEOPLE


def test_labels_follow_from_captions(model: Gama) -> None:
    """Caption, then the nearest label, with the default embedder: hardly worse than the likelihood of labels."""
    drawn = [draw(SEED, 900 + index, "test", mixture=False) for index in range(40)]
    clips = [AudioClip(clip.id, clip.samples, clip.rate) for clip in drawn]
    options = GamaOptions(path="bundled:gama-mini", device="cpu", classify_by="caption")
    by_caption = Gama(ModelSpec(name="gama-mini", adapter="gama"), options)
    answers = by_caption.process(clips, Options(task="classify", labels=LABELS))
    right = [answer.text == clip.events[0].label for answer, clip in zip(answers, drawn, strict=True)]
    assert np.mean(right) >= 0.88


def test_answers_are_the_same_alone_and_in_a_batch(model: Gama) -> None:
    """Texts, scores and failures of sounds and of a clip of several windows."""
    clips = _sounds(5)
    clips.append(AudioClip("long", np.concatenate([clip.samples for clip in clips[:3]]), 16_000))
    for options in (Options(task="describe"), Options(task="classify", labels=("bell", "rain", "wind"))):
        together = model.process(clips, options)
        for clip, answer in zip(clips, together, strict=True):
            alone = model.process([clip], options)[0]
            assert (alone.text, alone.failure) == (answer.text, answer.failure)
            assert alone.confidence == pytest.approx(answer.confidence, abs=1e-4)


@pytest.mark.parametrize(
    "prompt",
    ["Was hörst du? 🦜 漢字", "</s><s> ### Response:", "x" * 300, "\x00", "antidisestablishmentarianism, please"],
)
def test_no_prompt_breaks_it(model: Gama, prompt: str) -> None:
    """Words outside the training's vocabulary, marks of the tokenizer, noise: an answer, and no error."""
    answer = model.process(_sounds(1), Options(task="question", prompt=prompt, max_new_tokens=16))[0]
    assert answer.error is None
    assert answer.text is not None


def test_paraphrases_of_a_caption_prompt_give_captions(model: Gama) -> None:
    """Prompts that were in no training: the answer still names the sound."""
    clip = draw(SEED, 900, "test", labels=("bell",), mixture=False)
    audio = [AudioClip(clip.id, clip.samples, clip.rate)]
    for prompt in ("Please describe the sound that you hear.", "describe this clip", "What do you hear in the clip?"):
        answer = model.process(audio, Options(task="describe", prompt=prompt))[0]
        assert "bell" in (answer.text or ""), (prompt, answer.text)


def test_the_checkpoint_is_small_and_says_how_it_was_made() -> None:
    """At most 12 MB, half precision, a recipe that this version reads, and a card with controls."""
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= 12_000_000
    facts = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))
    assert GamaSpec.from_json(json.dumps(facts["spec"])).part == "joint"
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for said in ("random %", "other clip %", "both labels of a mixture", "Random digits", "snr=10 dB"):
        assert said in card
