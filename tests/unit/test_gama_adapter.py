"""GAMA behind the interface of every model, with a tiny random checkpoint."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from expectations.gate import judge
from grym.compare.labels import labels_of
from grym.compare.task import Classify, Transcribe, require_able
from grym.config import CompareSettings, DatasetSpec, ModelSpec, WorkerLimits
from grym.corpus.manifest import Entry
from grym.errors import AudioError, ConfigError, GrymError, ModelError, ResourceError
from grym.models import memory as machine
from grym.models.answers import NOTHING, Heard, confidence_of
from grym.models.gama import loading, memory
from grym.models.gama.adapter import Gama, GamaOptions
from grym.models.gama.captions import nearest, nearest_by_words
from grym.models.gama.embedders import find_embedder
from grym.models.gama.generation import generate
from grym.models.gama.loading import choose_precision, encode_answer
from grym.models.gama.modeling import GamaModel
from grym.models.gama.prompts import fill
from grym.models.gama.windows import Part, join_equal, merge_texts, split
from grym.models.interface import AudioClip, Options
from grym.models.registry import load_model
from grym.worker import Worker
from grym.worker.codec import pack_answers, unpack_answers
from tests.audio_models import save_clap
from tests.gama_models import one_thread, random_model, save, tiny_config, tokenizer, tone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["one_thread"]  # a fixture: pytest finds it by its name
LABELS = ("bell", "rain", "a long label")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint; its windows hold 0.64 s."""
    return save(tmp_path_factory.mktemp("gama") / "tiny")


def _model(folder: Path, **options: Any) -> Gama:
    return Gama(
        ModelSpec(name="tiny", adapter="gama"), GamaOptions(**{"path": str(folder), "device": "cpu", **options})
    )


def _clip(seconds: float, pitch: float = 440.0) -> AudioClip:
    return AudioClip(f"clip-{seconds}-{pitch}", tone(seconds, pitch), 16_000)


def _clips() -> list[AudioClip]:
    return [_clip(0.5), _clip(0.3, 900.0), _clip(2.0, 250.0), _clip(0.64, 600.0)]


@pytest.mark.parametrize("preset", ["greedy", "gama-demo"])
def test_a_clip_gets_the_same_answer_alone_and_in_any_batch(folder: Path, preset: str) -> None:
    """Greedy and sampled; long clips and short ones share a pass."""
    model, options = _model(folder, preset=preset), Options(max_new_tokens=6, features=True)
    together = model.process(_clips(), options)
    backwards = model.process(_clips()[::-1], options)[::-1]
    for clip, one, other in zip(_clips(), together, backwards, strict=True):
        alone = model.process([clip], options)[0]
        for answer in (one, other):
            assert answer.text == alone.text
            assert answer.confidence == pytest.approx(alone.confidence, abs=1e-4)
            assert [s.text for s in answer.segments] == [s.text for s in alone.segments]
            assert answer.features is not None
            assert alone.features is not None
            np.testing.assert_allclose(answer.features, alone.features, atol=1e-5)


def test_a_small_network_computes_in_one_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it answers, and only then; a large one has them all."""
    model, seen = _model(folder), []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    listen = Gama._listen
    monkeypatch.setattr(Gama, "_listen", lambda *given: (seen.append(torch.get_num_threads()), listen(*given))[1])
    try:
        for most in (loading.SMALL_PARAMETERS, 1):
            monkeypatch.setattr(loading, "SMALL_PARAMETERS", most)
            assert model.process([_clip(0.5)], Options(max_new_tokens=1))[0].error is None
            model.features([_clip(0.5)])
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1, 2, 2]


def test_what_an_answer_holds(folder: Path) -> None:
    """Windows become segments that cover the clip, a cut answer is truncated, all of it crosses the border."""
    model = _model(folder)
    clip = _clip(2.0)
    answer = model.process([clip], Options(max_new_tokens=5))[0]
    assert answer.error is None
    assert len(answer.segments) >= 4
    assert answer.segments[0].start == 0.0
    assert answer.segments[-1].end == pytest.approx(2.0)
    assert [s.start for s in answer.segments[1:]] == [s.end for s in answer.segments[:-1]]
    assert all(s.end - s.start <= 0.64 for s in answer.segments)
    assert 0 < (answer.confidence or 0) < 1
    assert answer.failure in {"truncated", "empty", "repetition"}
    items, frames = pack_answers([answer])
    assert unpack_answers(json.loads(json.dumps(items)), frames, [clip]) == [answer]


def test_the_card_says_what_it_is(folder: Path) -> None:
    """Tasks, sizes, rung, and a revision that depends on what changes answers."""
    card = _model(folder).card
    assert card.tasks == ("describe", "classify", "question", "transcribe", "features", "analyze")
    assert (card.feature_dim, card.rung, card.details["audio_tokens"]) == (32, "fp32/cpu", 8)
    assert card.revision == _model(folder).card.revision
    assert card.revision != _model(folder, prompt="What is heard?").card.revision
    assert card.revision == _model(folder, together=2).card.revision
    assert card.details["licence_class"] == "unknown"
    llama = ModelSpec(name="tiny", adapter="gama", licence="Llama 2 Community Licence")
    assert Gama(llama, GamaOptions(str(folder), device="cpu")).card.details["licence_class"] == "restricted"


def test_features_are_means_of_the_tokens_that_hold_sound(folder: Path) -> None:
    """One vector for each clip, as an answer carries it; what fills the window does not count."""
    model = _model(folder)
    matrix = model.features(_clips())
    assert matrix.shape == (4, 32)
    assert matrix.dtype == np.float32
    answers = model.process(_clips(), Options(max_new_tokens=1, features=True))
    np.testing.assert_allclose(np.stack([a.features for a in answers if a.features is not None]), matrix, atol=1e-5)
    assert model.features([]).shape == (0, 32)
    assert len(model.analyze(_clips(), "basic")) == 4
    with pytest.raises(AudioError, match="399"):
        model.features([AudioClip("short", tone(1)[:399], 16_000)])


def test_labels_are_weighed_by_their_likelihood(folder: Path) -> None:
    """Shares are the softmax of each label's log-likelihood, by a full pass without cache."""
    model = _model(folder, task="classify", prompt="Which sound?")
    answer = model.process([_clip(0.5)], Options(labels=LABELS))[0]
    loaded = model._load()
    words, prompt = tokenizer(), fill("Which sound?")
    start = [1, *words.encode(prompt, add_special_tokens=False)]
    with torch.no_grad():
        tokens, _ = model._listen(loaded, [tone(0.5)])
        scores = []
        for label in LABELS:
            ids = [*start, *encode_answer(words, prompt, label), 2]
            seen = loaded.model(None, torch.tensor([ids]), audio=tokens).logits[0].double().log_softmax(-1)
            scores.append(sum(float(seen[i - 1, ids[i]]) for i in range(len(start), len(ids))))
    expected = np.exp(scores - np.logaddexp.reduce(scores))
    np.testing.assert_allclose([answer.scores[label] for label in LABELS], expected, atol=1e-4)
    assert answer.text == LABELS[int(np.argmax(expected))]
    assert answer.confidence == pytest.approx(expected.max(), abs=1e-4)
    assert answer.failure == ""
    long = _model(folder, task="classify", labels="bell, rain").process([_clip(2.0)], Options())[0]
    assert sum(long.scores.values()) == pytest.approx(1.0)
    assert set(long.scores) == {"bell", "rain"}


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """An embedding by letters, for the test below."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return np.asarray([[text.count(letter) + 0.01 for letter in alphabet] for text in texts], np.float32)


def test_labels_by_caption_and_any_embedder(folder: Path) -> None:
    """The nearest label wins; embedders are named in the options, and a wrong one is a typed error."""
    shares = nearest("bell!", LABELS, embed)
    assert LABELS[int(shares.argmax())] == "bell"
    assert nearest(" ", LABELS, embed).tolist() == pytest.approx([1 / 3] * 3)
    with pytest.raises(ModelError, match="embedder"):
        nearest("a bell", LABELS, lambda _texts: np.zeros((2, 3), np.float32))
    model = _model(folder, task="classify", classify_by="caption")
    answer = model.process([_clip(0.5)], Options(labels=LABELS, max_new_tokens=8))[0]
    assert sum(answer.scores.values()) == pytest.approx(1.0)
    for name, code in (
        ("tests.unit.test_failures:nothing", "no-embedder"),
        ("tests.support:ROOT.x", "no-embedder"),
        ("nonsense", "no-embedder"),
        ("os:sep", "bad-embedder"),
        ("os:getcwd", "bad-embedder"),
        ("clap:nowhere", "no-model-folder"),
    ):
        model = _model(folder, task="classify", classify_by="caption", embedder=name)
        with pytest.raises(GrymError) as refused:
            model.process([_clip(0.5)], Options(labels=LABELS, max_new_tokens=8))
        assert refused.value.code == code


def test_words_find_their_label_in_any_form() -> None:
    """By spelling where a word is another form of a label's, by embedding otherwise; articles do not count."""
    captions = {"bell": "The clip is of a low bell.", "rain": "It is raining, and nothing else.", "dog": "A hound!"}

    def by_hand(words: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.asarray([[float(w in ("dog", "hound")), float(w == "bell"), float(w == "rain"), 0.01] for w in words])

    for label, caption in captions.items():
        shares = nearest_by_words(caption, tuple(captions), by_hand)
        assert tuple(captions)[int(shares.argmax())] == label
        assert shares.sum() == pytest.approx(1.0)
    assert nearest_by_words("", ("a", "b"), by_hand).tolist() == [0.5, 0.5]


def test_a_clap_model_embeds_captions(folder: Path, tmp_path: Path) -> None:
    """Its text tower, with texts that are too long for it in halves; another CLAP model is another revision."""
    clap = save_clap(tmp_path / "clap", fusion=False)
    embed, revision = find_embedder(f"clap:{clap}", "cpu")
    assert embed(["a bell", "bell " * 400]).shape[0] == 2
    model = _model(folder, task="classify", classify_by="caption", embedder=f"clap:{clap}")
    answer = model.process([_clip(0.5)], Options(labels=LABELS, max_new_tokens=8))[0]
    assert set(answer.scores) == set(LABELS)
    assert str(model.card.details["embedder"]).endswith(revision)


def test_labels_by_caption_are_no_better_than_the_caption(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut caption and an empty one are failures of the answer that rests on them; a likelihood has none."""
    model = _model(folder, task="classify", classify_by="caption")
    options = Options(labels=LABELS, max_new_tokens=8)
    assert model.process([_clip(0.5)], options)[0].failure in {"truncated", "repetition"}
    for text, ended, failure in (
        ("A bell rings", False, "truncated"),
        ("", True, "empty"),
        ("A bell rings.", True, ""),
    ):
        said = Heard(text, 0.5, 3, ended, 0.0, NOTHING)
        monkeypatch.setattr(Gama, "_decode", lambda *_args, said=said: [said])
        answer = model.process([_clip(0.5)], options)[0]
        assert (answer.failure, answer.error) == (failure, None)
        assert answer.text in LABELS


@pytest.mark.parametrize("preset", ["greedy", "gama-demo"])
def test_nan_is_an_error_of_its_clip(folder: Path, preset: str) -> None:
    """A clip so loud that its spectrogram overflows fails alone, sampled or not; so does a broken language model."""
    loud, good = AudioClip("loud", tone(0.5) * np.float32(1e30), 16_000), _clip(0.4)
    model, options = _model(folder, preset=preset), Options(max_new_tokens=4)
    answers = model.process([loud, good, loud], options)
    assert [answer.error.code if answer.error else "" for answer in answers] == ["not-finite", "", "not-finite"]
    assert answers[1] == replace(model.process([good], options)[0], seconds=answers[1].seconds)
    choosing = model.process([loud, good], Options(task="classify", labels=LABELS))
    assert [answer.error is None for answer in choosing] == [False, True]
    with torch.no_grad():
        model._load().model.language_model.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    for chosen in (options, Options(task="classify", labels=LABELS)):
        answer = model.process([good], chosen)[0]
        assert answer.error is not None
        assert (answer.error.code, answer.confidence, answer.text) == ("not-finite", None, None)
    assert math.isnan(confidence_of(math.nan))
    assert math.isnan(confidence_of(-math.inf))
    assert confidence_of(math.log(0.5)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"prompt": "   "}, "empty-prompt"),
        ({"task": "question"}, "empty-prompt"),
        ({"prompt": "word " * 10_000}, "prompt-too-long"),
        ({"task": "sing"}, "unknown-task"),
        ({"task": "classify"}, "no-labels"),
        ({"task": "classify", "labels": ("bell", " ")}, "empty-label"),
        ({"task": "classify", "labels": ("bell", "\u200b")}, "empty-label"),
        ({"task": "classify", "labels": "bell"}, "bad-labels"),
        ({"prompt": "\u200b\u2060"}, "empty-prompt"),
        ({"task": "classify", "labels": ("bell", "rain", "bell ")}, "duplicate-labels"),
        ({"task": "classify", "labels": ("bell" * 200,)}, "label-too-long"),
        ({"max_new_tokens": 0}, "bad-option"),
    ],
)
def test_what_cannot_be_asked_is_a_typed_error(folder: Path, options: dict[str, Any], code: str) -> None:
    """Prompts and labels are the same for all clips, so the call fails as a whole."""
    with pytest.raises(ConfigError) as refused:
        _model(folder).process([_clip(0.5)], Options(**options))
    assert refused.value.code == code
    assert refused.value.hint


def test_clips_that_cannot_be_used_fail_alone(folder: Path) -> None:
    """399 samples, 48 kHz, stereo, silence, NaN, half an hour: a typed error each; the good one is answered."""
    wave = tone(1.0)
    bad = {
        "too-short": AudioClip("a", wave[:399], 16_000),
        "wrong-rate": AudioClip("b", wave, 48_000),
        "not-mono": AudioClip("c", np.stack([wave, wave]), 16_000),
        "silent": AudioClip("d", np.zeros(16_000, np.float32), 16_000),
        "not-finite": AudioClip("e", np.where(wave > 0.2, np.nan, wave).astype(np.float32), 16_000),
        "too-long": AudioClip("f", np.zeros(30 * 60 * 16_000, np.float32), 16_000),
    }
    strange = [AudioClip("g", np.asarray(0.5, np.float32), 16_000), AudioClip("h", wave, 0)]
    answers = _model(folder).process([*bad.values(), *strange, _clip(0.4)], Options(max_new_tokens=2))
    codes = [answer.error.code for answer in answers[:-1] if answer.error]
    assert codes == [*bad, "not-mono", "wrong-rate"]
    assert answers[-1].error is None
    assert answers[-1].text is not None


def _broken(folder: Path, target: Path, damage: str) -> Path:
    shutil.copytree(folder, target)
    weights = target / "model.safetensors"
    if damage == "half":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    if damage == "pickled":
        weights.rename(target / "pytorch_model.bin")
    if damage == "no tokenizer":
        (target / "tokenizer.json").unlink()
    if damage == "ctc":
        (target / "config.json").write_text('{"model_type": "wav2vec2"}', encoding="utf-8")
    if damage == "lacks":
        config = json.loads((target / "config.json").read_text())
        config["audio_config"]["num_hidden_layers"] = 11
        (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if damage == "vocabulary":
        sizes = tiny_config().text_config.to_dict() | {"vocab_size": 100}
        random_model(tiny_config(text_config=sizes)).save_pretrained(target)
    return target


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("half", "broken-file"),
        ("pickled", "no-weights"),
        ("no tokenizer", "no-tokenizer"),
        ("ctc", "not-gama"),
        ("lacks", "not-a-gama-checkpoint"),
        ("vocabulary", "wrong-tokenizer"),
    ],
)
def test_broken_folders_are_typed_errors(folder: Path, tmp_path: Path, damage: str, code: str) -> None:
    """Half a safetensors file, pickled weights, a missing tokenizer, another model, missing weights."""
    with pytest.raises(GrymError) as refused:
        _ = _model(_broken(folder, tmp_path / "broken", damage)).card
    assert refused.value.code == code


def _config(**changes: Any) -> Callable[[Path], object]:
    def change(target: Path) -> None:
        config = json.loads((target / "config.json").read_text())
        for place, value in changes.items():
            part, _, name = place.rpartition("__")
            (config[part] if part else config)[name] = value
        (target / "config.json").write_text(json.dumps(config), encoding="utf-8")

    return change


def _header(entry: object) -> Callable[[Path], object]:
    header = json.dumps({"a": entry}).encode() if not isinstance(entry, bytes) else entry
    return lambda target: (target / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(4)
    )


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_config(text_config=None), "not-a-gama-checkpoint"),
        (_config(text_config__num_hidden_layers=1500), "not-a-gama-checkpoint"),
        (_config(text_config__num_attention_heads=0), "not-a-gama-checkpoint"),
        (_config(text_config__bos_token_id=None), "not-a-gama-checkpoint"),
        (_config(text_config__eos_token_id=[]), "not-a-gama-checkpoint"),
        (_config(text_config__max_position_embeddings=10), "not-a-gama-checkpoint"),
        (_config(text_config__vocab_size=301), "not-a-gama-checkpoint"),
        (_config(audio_config__num_attention_heads=0), "not-a-gama-checkpoint"),
        (_config(audio_config__num_attention_heads=7), "not-a-gama-checkpoint"),
        (_config(audio_config__patch_size=0), "not-a-gama-checkpoint"),
        (_config(audio_config__std=0.0), "not-a-gama-checkpoint"),
        (_config(audio_config__hidden_size="x"), "not-a-gama-checkpoint"),
        (_config(audio_config=[]), "not-a-gama-checkpoint"),
        (_config(pool_divisor=0.0), "not-a-gama-checkpoint"),
        (_config(prompts={"describe": 5}), "not-a-gama-checkpoint"),
        (lambda target: (target / "tokenizer_config.json").write_text("[]"), "no-tokenizer"),
        (_header(b"[" * 100_000), "broken-file"),
        (_header({"dtype": "F32", "shape": [1], "data_offsets": [0]}), "broken-file"),
        (_header({"dtype": "F32", "shape": ["a"], "data_offsets": [0, 4]}), "broken-file"),
        (_header({"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4]}), "broken-file"),
        (_header({"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}), "broken-file"),
        (_header([]), "broken-file"),
    ],
)
def test_wrong_numbers_in_a_folder_are_typed_errors(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], code: str
) -> None:
    """One error each, before a network with memory is built; the tokenizer is read last."""
    target = tmp_path / "broken"
    shutil.copytree(folder, target)
    damage(target)
    if code != "no-tokenizer":
        monkeypatch.setattr(GamaModel, "from_pretrained", lambda *_a, **_k: pytest.fail("it was built"))
    with pytest.raises(ModelError) as refused:
        _ = _model(target).card
    assert refused.value.code == code
    assert refused.value.hint


def test_several_tokens_may_end_a_text(folder: Path, tmp_path: Path) -> None:
    """A list of ends answers, and weighs labels, as the one in front does."""
    target = tmp_path / "ends"
    shutil.copytree(folder, target)
    _config(text_config__eos_token_id=[2, 299])(target)
    for options in (Options(max_new_tokens=6), Options(task="classify", labels=LABELS)):
        one, several = (_model(place).process([_clip(0.5)], options)[0] for place in (folder, target))
        assert (one.text, one.scores) == (several.text, several.scores)
    loaded = _model(folder)._load()
    with torch.inference_mode():
        tokens, _ = _model(folder)._listen(loaded, [tone(0.5)])
    ids = [1, *tokenizer().encode(fill("Describe the audio."), add_special_tokens=False)]
    said = generate(loaded.model, tokens, [ids], max_new_tokens=6)[0].ids
    loaded.model.config.text_config.eos_token_id = [2, said[0]]
    assert generate(loaded.model, tokens, [ids], max_new_tokens=6)[0].ids == ()


def test_memory_is_asked_before_anything_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the rung that would fit, and the weights were not touched."""
    cached = memory.cache_numbers(tiny_config(), 8)
    assert cached == 8 * 400 * 2 * 2 * 48  # all positions: it has fewer than a long answer needs
    needed = memory.needed_bytes([folder / "model.safetensors"], cached)
    assert needed["fp32"] > needed["bf16"] > needed["int8"] > needed["int4"]
    assert needed["bf16"] - memory.needed_bytes([folder / "model.safetensors"])["bf16"] == 2 * cached
    monkeypatch.setattr(memory, "free_bytes", lambda _device: needed["bf16"])
    with pytest.raises(ResourceError) as refused:
        _ = _model(folder, precision="fp32").card
    assert refused.value.code == "not-enough-memory"
    assert 'precision = "bf16"' in refused.value.hint
    assert _model(folder, precision="bf16").card.rung == "bf16/cpu"
    published = {"fp32": 28e9, "bf16": 14.8e9, "int8": 8.5e9, "int4": 5.1e9}
    with pytest.raises(ResourceError, match=r"28\.0 GB as fp32, and 9\.0 GB of the GPU are free"):
        memory.check("gama", published, "fp32", "cuda", 9e9)
    with pytest.raises(ResourceError, match="No precision would fit"):
        memory.check("gama", published, "fp32", "cpu", 9e9)
    monkeypatch.undo()
    monkeypatch.setattr(machine, "container_limit", lambda: 5e9)
    monkeypatch.setattr(machine, "_container_use", lambda: 4e9)
    assert memory.free_bytes("cpu") == 1e9


def test_precisions_that_cannot_be_had_are_typed_errors() -> None:
    """8 and 4 bits need a GPU; automatic is fp32 on a CPU and bf16 on a GPU."""
    with pytest.raises(ConfigError, match="needs a GPU"):
        choose_precision("int4", "cpu")
    assert choose_precision("auto", "cpu") == "fp32"
    assert choose_precision("auto", "cuda") == "bf16"


@pytest.mark.parametrize("seconds", [0.3, 10.24, 10.3, 12.0, 20.4, 20.6, 31.0])
def test_windows_cover_a_clip_once(seconds: float) -> None:
    """No gap, no overlap, none longer than a window and none a scrap; borders lie where it is quiet."""
    wave = tone(seconds)
    spans = split(wave, 16_000, 10.24)
    assert spans[0].start == 0
    assert spans[-1].stop == wave.size
    assert [s.start for s in spans[1:]] == [s.stop for s in spans[:-1]]
    assert all(s.stop - s.start <= 163_840 for s in spans)
    assert all(s.stop - s.start >= 3 * 16_000 for s in spans) or len(spans) == 1
    for span in spans[1:]:  # the tone is silent at every full second
        assert abs(span.start / 16_000 - round(span.start / 16_000)) < 0.03


def test_texts_of_windows_become_one() -> None:
    """Transcripts are joined, equal neighbours said once, others listed with their times."""
    parts = [Part(0, 10, "rain", 0.5), Part(10, 20, "rain", 0.7), Part(20, 25, "a bell", 0.9), Part(25, 30, "", 0.1)]
    assert merge_texts(parts, "transcribe") == "rain rain a bell"
    assert merge_texts(parts, "describe") == "[0.0-20.0 s] rain [20.0-25.0 s] a bell"
    assert merge_texts(parts[:2], "question") == "rain"
    assert join_equal(parts)[0].confidence == pytest.approx(0.6)
    assert merge_texts([], "describe") == ""


@pytest.mark.chaos  # starts a process that imports everything
def test_the_same_in_a_worker(folder: Path, tmp_path: Path) -> None:
    """Found by its name, run in its process, with labels and scores across the border."""
    spec = ModelSpec(name="tiny", adapter="gama", options={"path": str(folder), "device": "cpu", "task": "classify"})
    here = load_model(spec).process([_clip(0.5)], Options(labels=LABELS))[0]
    with Worker(spec, WorkerLimits(threads=1), tmp_path) as worker:
        answers, _ = worker.process([_clip(0.5)], Options(labels=LABELS))
        there = answers[0]
    assert there.text == here.text
    assert there.scores == pytest.approx(here.scores, abs=1e-5)


def test_options_and_life(folder: Path, tmp_path: Path) -> None:
    """Options that make no sense, a folder that is none, and a model that can be closed."""
    for wrong in ({"together": 0}, {"max_seconds": math.nan}):
        with pytest.raises(ConfigError, match="has to be positive"):
            _model(folder, **wrong)
    with pytest.raises(ConfigError, match="no model folder"):
        _ = _model(tmp_path / "nothing").card
    model = _model(folder)
    assert model.ping()["loaded"] == "false"
    assert math.isfinite(model.process([_clip(0.4)], Options(task="transcribe", max_new_tokens=3))[0].confidence or 0)
    assert model.ping()["loaded"] == "true"
    model.close()
    assert model.ping()["loaded"] == "false"


def test_it_is_an_arm_of_either_task(folder: Path) -> None:
    """Asked as comparisons ask: probabilities of all labels pass their suite and are scored; texts get their class."""
    model, clips = _model(folder), _clips()[:2]
    spec = DatasetSpec(name="sounds", loader="manifest", path=Path("m.csv"), task="classify")
    task = Classify(CompareSettings(), spec, ("bell", "rain", "siren"))
    for name in ("classify", "transcribe"):
        require_able(model.card, name)  # type: ignore[arg-type]
    answers = model.process(clips, task.options(features=True))
    judged = judge(task.suite, task.frame(answers, [clip.seconds for clip in clips]), "b")
    assert judged.passed
    assert judged.failures() == ()
    entry = Entry("k", Path("k.ogg"), "k.ogg", "It sounds.", slices={"label": "bell+rain"})
    row, _ = task.score(entry, answers[0])
    best = sorted(answers[0].scores, key=lambda label: -answers[0].scores[label])[:2]
    assert row["correct"] == (set(best) == set(labels_of(entry, spec)))
    assert row["failure"] == ""
    spoken = Transcribe(CompareSettings())
    said = model.process(clips, replace(spoken.options(), max_new_tokens=4))
    frame = spoken.frame(said, [clip.seconds for clip in clips])
    assert judge(spoken.suite, frame, "b").usable
    assert all(spoken.score(entry, answer)[0]["failure"] in {"truncated", "empty", "wrong-task"} for answer in said)
