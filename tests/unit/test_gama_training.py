"""Training of gama-mini at a tiny size: pools, batches, the optimizer, stages, resume, spelling."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from grym.corpus.digits import WORDS
from grym.corpus.sounds import LABELS, draw, read_caption
from grym.errors import ConfigError
from grym.models import muon
from grym.models.gama import pools
from grym.models.gama.batches import FrontEnd, Material, Speller
from grym.models.gama.configuration import GamaAudioConfig
from grym.models.gama.exercises import PARAPHRASES, Exercise
from grym.models.gama.frontend import log_mels
from grym.models.gama.loading import load
from grym.models.gama.mini import BLANK, Heads, Targets
from grym.models.gama.pools import Item, facts, facts_of, to_int16
from grym.models.gama.recipe import GamaSpec, gama_stages
from grym.models.gama.spelling import EOS, learn
from grym.models.gama.training import Trainer, answer_loss, rate
from grym.models.recipe import TrainData, TrainSpec
from tests.gama_models import one_thread, tone

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["one_thread"]  # a fixture: pytest finds it by its name
TINY = GamaSpec(
    steps=4, alignment_steps=2, batch=6, width=32, blocks=1, text_width=32, text_layers=1, target_frames=288,
    checkpoint_every=1, voices=0, recorded_share=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def material() -> Material:
    """Sounds of the generator, and tones that stand for digits."""
    sounds = []
    for index in range(12):
        clip = draw(5, index, "train", mixture=index % 2 == 1)
        sounds.append(Item(to_int16(clip.samples), clip.events, clip.relation))
    speech = []
    for digit in range(10):
        wave = to_int16(tone(0.5 + 0.02 * digit, 200.0 + 80 * digit))
        speech.append(Item(wave, words=(WORDS[digit],), spans=((800, wave.size, WORDS[digit]),)))
        speech.append(Item(np.concatenate([wave, wave]), words=(WORDS[digit],) * 2))
    return Material(sounds, speech)


def test_the_front_end_for_many_clips_is_the_one_for_one_clip() -> None:
    """Clips of several lengths, shorter and longer than the window: equal to Kaldi's filter banks."""
    config = GamaAudioConfig(num_mel_bins=64, target_frames=96)
    waves = [tone(seconds, pitch) for seconds, pitch in ((0.3, 300.0), (0.96, 900.0), (2.0, 2000.0))]
    assert (FrontEnd(config)(waves, 96) - log_mels(waves, config)).abs().max() < 5e-4


def test_muon_makes_singular_values_equal_and_learns() -> None:
    """Orthogonalised matrices have singular values near one; both groups go downhill."""
    matrices = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(muon.orthogonalize(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert muon.orthogonalize(matrices.transpose(1, 2)).shape == (2, 30, 12)
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8)
    given, wanted = torch.randn(64, 8), torch.randn(64, 8)
    optimizer = muon.Muon(muon.groups(layer.named_parameters(), 0.0), 0.02)
    assert [group["muon"] for group in optimizer.param_groups] == [True, False]
    losses = []
    for _ in range(60):
        loss = (layer(given) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    with pytest.raises(TypeError, match="no closure"):
        optimizer.step(lambda: 0.0)


def test_muon_takes_convolutions_over_time_as_matrices() -> None:
    """Output channels by everything else; positions that are learnt are no matrices."""
    torch.manual_seed(0)
    named = [
        ("conv.weight", torch.nn.Parameter(torch.randn(6, 4, 3))),
        ("place", torch.nn.Parameter(torch.randn(1, 8, 5))),
    ]
    groups = muon.groups(named, 0.0)
    assert [[p.shape for p in group["params"]] for group in groups] == [[(6, 4, 3)], [(1, 8, 5)]]
    before = named[0][1].detach().clone()
    named[0][1].grad = torch.randn(6, 4, 3)
    muon.Muon(groups, 0.1).step()
    change = (named[0][1].detach() - before).flatten(1)
    values = torch.linalg.svdvals(change)
    assert values.max() < 2 * values.min(), "a step of nearly equal singular values"


def test_facts_say_everything_about_a_mixture() -> None:
    """Labels, attributes, places and the relation; all are known names."""
    clip = draw(3, 1, "train", mixture=True)
    found = facts_of(Item(to_int16(clip.samples), clip.events, clip.relation))
    assert set(found) <= set(facts())
    assert {event.label for event in clip.events} < set(found)
    assert clip.relation in found
    assert len(found) == 2 + sum(len(event.attributes) for event in clip.events) + 2 + 1


def test_pools_are_kept_whole(tmp_path: Path, material: Material) -> None:
    """What is read equals what was made, and is made once."""
    made = pools.kept(tmp_path, "some", lambda: material.items)
    again = pools.kept(tmp_path, "some", list)
    for before, one, two in zip(material.items, made, again, strict=True):
        np.testing.assert_array_equal(before.samples, two.samples)
        assert (before.relation, before.words, before.spans) == (two.relation, two.words, two.spans)
        assert [(e.label, dict(e.attributes)) for e in one.events] == [
            (e.label, dict(e.attributes)) for e in before.events
        ]


def test_every_task_is_exercised_and_answered_from_the_truth(material: Material) -> None:
    """Captions name the labels, classification one of them, transcripts the digits."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        number = int(rng.integers(len(material.items)))
        item, (one,) = material.items[number], material.exercises(number, rng, GamaSpec())
        known = {text.lower().rstrip(".?"): task for task, some in PARAPHRASES.items() for text in some}
        task = known.get(one.instruction.lower().rstrip(".?"), "question")
        seen.add((task, bool(item.events)))
        if item.words:
            assert " ".join(item.words) in one.answer or one.answer == "speech"
        elif task == "classify":
            assert one.answer in {event.label for event in item.events}
        elif task == "transcribe":
            assert one.answer == "no speech"
        elif one.answer.endswith("."):
            said = read_caption(one.answer)
            assert said is not None
            assert {event.label for event in said.events} == {event.label for event in item.events}
    assert len(seen) >= 6


def test_a_stage_asks_several_things_about_sounds_and_one_about_speech(material: Material) -> None:
    """Questions take the share that the recipe says, and ask often whether a sound is there; the answers are even."""
    rng = np.random.default_rng(1)
    spec = GamaSpec(exercises=4, question_share=0.8, presence_share=1.0)
    sounds = [n for n, item in enumerate(material.items) if item.events]
    speech = next(n for n, item in enumerate(material.items) if item.words)
    assert len(material.exercises(speech, rng, spec)) == 1
    asked = [one for _ in range(60) for one in material.exercises(sounds[int(rng.integers(len(sounds)))], rng, spec)]
    assert len(asked) == 240
    answers = Counter(one.answer for one in asked)
    assert answers["yes"] + answers["no"] == pytest.approx(0.8 * 240, rel=0.15)
    assert answers["yes"] == pytest.approx(answers["no"], rel=0.4)
    dialogue = Speller(learn([one.answer for one in asked]))([asked[:4], asked[4:5], asked[5:7]])
    assert dialogue.clips.tolist() == [0, 0, 0, 0, 1, 2, 2]


def test_short_answers_weigh_what_the_recipe_says() -> None:
    """0 is the mean over tokens, 1 the mean over answers; what is no answer never counts."""
    torch.manual_seed(0)
    logits = torch.randn(2, 7, 11)
    labels = torch.full((2, 7), -100)
    labels[0, 2:4] = torch.tensor([3, 4])
    labels[1, 1:7] = torch.arange(6)
    shifted = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    torch.testing.assert_close(answer_loss(logits, labels, 0.0), torch.nn.functional.cross_entropy(*shifted))
    each = [answer_loss(logits[row : row + 1], labels[row : row + 1], 0.0) for row in (0, 1)]
    torch.testing.assert_close(answer_loss(logits, labels, 1.0), torch.stack(each).mean())


def test_any_text_is_spelt_and_ends_only_by_its_end() -> None:
    """Bytes that no word of the corpus has, other scripts, and what looks like the end of a text."""
    tokenizer = learn(["a low bell", "Describe the audio.", "a high bell"])
    for text in ("Ω≈ç√∫ 漢字 🦜", "</s><s><pad>", "\x00\t\r\n", "zażółć"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert EOS not in ids
        assert tokenizer.decode(ids) == text
    dialogue = Speller(tokenizer)([[Exercise("Describe the audio.", "a bell"), Exercise("?", "</s>")]])
    assert dialogue.ids.shape == dialogue.mask.shape == dialogue.labels.shape
    assert (dialogue.labels == EOS).sum() == 2


def test_heads_learn_words_by_column_and_by_ctc() -> None:
    """Both losses are finite, lower for the right logits, and nothing is lost on clips without speech."""
    torch.manual_seed(0)
    heads = Heads(8, 3)
    pooled = torch.randn(2, 6, 8)
    columns = torch.full((2, 6), -100)
    columns[0] = torch.tensor([BLANK, 1, 1, BLANK, 2, BLANK])
    targets = Targets(torch.zeros(2, 3), torch.tensor([0.0, 1.0]), ((1, 2), None), columns)
    for align in (True, False):
        losses = heads.losses(pooled, targets, align=align)
        assert all(torch.isfinite(loss) for loss in losses.values())
    silent = dataclasses.replace(targets, words=(None, None))
    assert float(heads.losses(pooled, silent, align=False)["digits"].detach()) == 0.0


def test_a_resumed_stage_gives_the_same_weights(tmp_path: Path, material: Material) -> None:
    """Two steps, a new process's trainer, two more: bit for bit the weights of four steps at once."""
    for name in ("whole", "parted"):
        (tmp_path / name).mkdir()
    whole = Trainer(TINY, tmp_path / "whole")
    whole.run(material)
    whole.export(tmp_path / "whole/model")
    first = Trainer(TINY, tmp_path / "parted")
    first._last = 2
    first.run(material)
    second = Trainer(TINY, tmp_path / "parted")
    assert second.step == 2
    second.run(material)
    second.export(tmp_path / "parted/model")
    left, right = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "parted"))
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    other = Trainer(dataclasses.replace(TINY, seed=1), tmp_path / "parted")
    assert other.step == 0
    assert (tmp_path / "parted/checkpoint.refused.pt").is_file()


def test_stages_follow_each_other_and_the_result_answers(tmp_path: Path, material: Material) -> None:
    """Encoder, language, joint: each starts from the one before; the last is a folder that loads in float32."""
    start: Path | None = None
    for part in ("encoder", "language", "joint"):
        spec = dataclasses.replace(TINY, part=part, steps=2, listened=4)
        out = tmp_path / part
        out.mkdir()
        trainer = Trainer(spec, out, None, start)
        frozen = {k: v.clone() for k, v in trainer.learner.state_dict().items() if "audio_tower" in k}
        trainer.run(material)
        moved = [k for k, v in frozen.items() if not torch.equal(v, trainer.learner.state_dict()[k])]
        assert bool(moved) == (part != "language")
        trainer.export(out / "model")
        start = out / "model"
    assert start is not None
    stored = load_file(start / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    loaded = load("tiny", start, "auto", "cpu")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    wrong = dataclasses.replace(TINY, part="joint", blocks=2)
    with pytest.raises(ConfigError, match="another architecture"):
        Trainer(wrong, tmp_path / "wrong", None, start)


def test_recipes_name_their_module_and_refuse_unknown_fields() -> None:
    """The process that trains is the recipe's; a misspelt field names the right ones."""
    assert (GamaSpec.module, TrainSpec.module) == ("grym.models.gama.training", "grym.models.training")
    with pytest.raises(ConfigError, match="Unknown training fields stepz"):
        GamaSpec.from_json('{"stepz": 3}')
    with pytest.raises(ConfigError, match="Unknown part 'middle'"):
        GamaSpec.from_json('{"part": "middle"}')
    stages = gama_stages(scale=0.01)
    assert [spec.part for spec in stages] == ["encoder", "language", *["joint"] * 4]
    assert [spec.start_from for spec in stages] == ["", *(spec.key for spec in stages[:-1])]
    apart = gama_stages(scale=0.01, leave_out=("theo",))
    assert stages[:2] == apart[:2]
    assert {spec.key for spec in stages[2:]}.isdisjoint(spec.key for spec in apart[2:])
    assert TrainData.of(stages[0], None, None).voices == 464
    assert GamaSpec.from_json('{"leave_out": ["theo"]}').leave_out == ("theo",)


def test_the_learning_rate_rises_and_falls() -> None:
    """A line up, half a cosine down, never zero."""
    rates = [rate(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) <= 6
    assert 0 < rates[-1] < 0.05


def test_labels_are_single_facts() -> None:
    """Every label of the corpus is a fact of its own."""
    assert set(LABELS) <= set(facts())
    names: list[Any] = list(facts())
    assert len(names) == len(set(names))
