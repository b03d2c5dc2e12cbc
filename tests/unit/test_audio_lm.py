"""Five families of audio-language models behind one adapter, with tiny random checkpoints."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from grym.config import ModelSpec
from grym.errors import AudioError, ConfigError, GrymError, ResourceError
from grym.models.audio_lm import network
from grym.models.audio_lm.adapter import AudioLm, AudioLmOptions
from grym.models.audio_lm.families import BY_TYPE, FAMILIES, build_prompt, strip_opening
from grym.models.audio_lm.network import embed_audio, embed_prompt, score_texts
from grym.models.checkpoint import needed_bytes
from grym.models.gama import memory
from grym.models.interface import AudioClip, Options
from grym.models.registry import check_model, load_model
from tests.audio_models import CHUNK_SECONDS, FAMILY_TYPES, edit_json, save_family
from tests.gama_models import one_thread, tone

if TYPE_CHECKING:
    from pathlib import Path

    from grym.models.interface import Samples

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["one_thread"]  # a fixture: pytest finds it by its name
LABELS = ("bell", "rain", "a long label")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of each family; its encoder sees two seconds at once."""
    root = tmp_path_factory.mktemp("families")
    return {kind: save_family(root / kind, kind) for kind in FAMILY_TYPES}


def _model(folder: Path, **options: Any) -> AudioLm:
    chosen = {"path": str(folder), "device": "cpu", "window_seconds": float(CHUNK_SECONDS), **options}
    return AudioLm(ModelSpec(name="tiny", adapter="audio_lm"), AudioLmOptions(**chosen))


def _clip(seconds: float, pitch: float = 440.0) -> AudioClip:
    return AudioClip(f"clip-{seconds}-{pitch}", tone(seconds, pitch), 16_000)


@pytest.mark.parametrize("kind", FAMILY_TYPES)
def test_a_clip_gets_the_same_answer_alone_and_in_any_batch(folders: dict[str, Path], kind: str) -> None:
    """Windows of all clips share passes; the card says what the family is and may be used for."""
    model, options = _model(folders[kind]), Options(max_new_tokens=5, features=True, task="transcribe")
    clips = [_clip(0.5), _clip(4.6, 250.0), _clip(1.3, 900.0)]
    together = model.process(clips, options)
    backwards = model.process(clips[::-1], options)[::-1]
    matrix = model.features(clips)
    assert matrix.shape == (3, 32)
    for place, (clip, one, other) in enumerate(zip(clips, together, backwards, strict=True)):
        alone = model.process([clip], options)[0]
        assert alone.error is None
        for answer in (one, other):
            assert answer.text == alone.text
            assert answer.confidence == pytest.approx(alone.confidence, abs=1e-4)
            assert answer.features is not None
            np.testing.assert_allclose(answer.features, matrix[place], atol=1e-4)
    assert [len(answer.segments) for answer in together] == [1, 3, 1]
    family, card = BY_TYPE[kind], model.card
    assert (card.adapter, card.details["licence_class"]) == ("audio_lm", family.licence_class)
    assert card.details["multi_audio"] is family.multi_audio
    assert card.tasks == (*family.tasks, "features", "analyze")
    assert card.feature_dim == 32


def _library_logits(network: Any, kind: str, ids: list[int], made: Any) -> torch.Tensor:
    """The library's own forward pass, with placeholders that it overwrites by audio."""
    given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
    given["input_features"] = made["input_features"]
    if BY_TYPE[kind].mask:
        given[BY_TYPE[kind].mask] = made["attention_mask"]
    with torch.no_grad():
        logits: torch.Tensor = network(**given).logits[0]
    return logits


@pytest.mark.parametrize("kind", FAMILY_TYPES)
def test_embeddings_give_the_numbers_of_the_library(folders: dict[str, Path], kind: str) -> None:
    """Audio put in as embeddings gives the logits of the library's own way, and labels their likelihood by them."""
    model = _model(folders[kind])
    loaded, samples = model._load(), tone(1.4)
    before, after = ([*b"ab"], [7, 9, 11])
    audio = embed_audio(loaded, samples)
    prompt = embed_prompt(loaded, before, audio, after)
    with torch.no_grad():
        ours = loaded.network(inputs_embeds=prompt[None], attention_mask=torch.ones(1, len(prompt)).long()).logits[0]
    extractor = loaded.extractor
    if kind == "granite_speech":
        made = {"input_features": extractor(samples)["input_features"]}
    else:
        made = extractor(
            samples, sampling_rate=16_000, padding="max_length", return_attention_mask=True, return_tensors="pt"
        )
    ids = [*before, *[loaded.network.config.audio_token_id] * len(audio), *after]
    theirs = _library_logits(loaded.network, kind, ids, made)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    text = [70, 71, 72]
    with torch.no_grad():
        whole = _library_logits(loaded.network, kind, [*ids, *text], made).double().log_softmax(-1)
    expected = sum(float(whole[len(ids) - 1 + i, token]) for i, token in enumerate([*text, loaded.ends[0]]))
    scores = score_texts(loaded, prompt, [text, [], [80]])
    assert scores[0] == pytest.approx(expected, abs=1e-3)
    assert scores[1] == pytest.approx(float(whole[len(ids) - 1, loaded.ends[0]]), abs=1e-3)


def test_labels_are_weighed_by_their_likelihood(folders: dict[str, Path]) -> None:
    """Shares add up to one, in windows too; the best label is the answer."""
    model = _model(folders["qwen2_audio"], task="classify", labels="bell, rain")
    asked, own = model.process([_clip(0.5)], Options(labels=LABELS))[0], model.process([_clip(4.6)], Options())[0]
    assert sum(asked.scores.values()) == pytest.approx(1.0)
    assert asked.text == max(asked.scores, key=lambda label: asked.scores[label])
    assert (set(own.scores), own.failure) == ({"bell", "rain"}, "")


def test_prompts_are_those_of_the_cards() -> None:
    """Each template has one place for audio and one for what is asked; two families have their own habits."""
    for family in FAMILIES:
        before, after = build_prompt(family, family.tasks[-1], "What is {audio}?")
        assert "{" not in before + after.replace("What is {audio}?", "")
        assert "What is {audio}?" in after
    assert build_prompt(BY_TYPE["voxtral"], "transcribe", "", "de")[1] == "[/INST]lang:de[TRANSCRIBE]"
    said = 'The spoken content of the audio is "one two".'
    assert strip_opening(BY_TYPE["audioflamingo3"], said) == "one two"
    assert strip_opening(BY_TYPE["audioflamingo3"], "one two.") == "one two."
    assert strip_opening(BY_TYPE["qwen2_audio"], said) == said


@pytest.mark.parametrize(
    ("kind", "options", "code"),
    [
        ("qwen2_audio", {"prompt": "   "}, "empty-prompt"),
        ("qwen2_audio", {"task": "question"}, "empty-prompt"),
        ("qwen2_audio", {"prompt": "word " * 10_000}, "prompt-too-long"),
        ("qwen2_audio", {"task": "sing"}, "unknown-task"),
        ("qwen2_audio", {"task": "classify"}, "no-labels"),
        ("qwen2_audio", {"task": "classify", "labels": ("bell", "")}, "empty-label"),
        ("qwen2_audio", {"task": "classify", "labels": ("bell", "bell")}, "duplicate-labels"),
        ("qwen2_audio", {"max_new_tokens": 0}, "bad-option"),
        ("granite_speech", {"task": "describe"}, "task-not-offered"),
    ],
)
def test_what_cannot_be_asked_is_a_typed_error(
    folders: dict[str, Path], kind: str, options: dict[str, Any], code: str
) -> None:
    """Prompts and labels are the same for all clips, so the call fails as a whole."""
    with pytest.raises(ConfigError) as refused:
        _model(folders[kind]).process([_clip(0.5)], Options(**options))
    assert refused.value.code == code
    assert refused.value.hint


def test_clips_that_cannot_be_used_fail_alone(folders: dict[str, Path]) -> None:
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
    model = _model(folders["voxtral"], task="transcribe")
    answers = model.process([*bad.values(), AudioClip("g", wave[:400], 16_000)], Options(max_new_tokens=2))
    assert [answer.error.code for answer in answers[:-1] if answer.error] == list(bad)
    assert answers[-1].error is None
    with pytest.raises(AudioError, match="399"):
        model.features([bad["too-short"]])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_is_an_error_of_its_clip(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """Audio tokens that are not finite fail alone, drawn or not; so does what a broken language model says."""
    model, options = _model(folders["qwen2_audio"], temperature=temperature), Options(max_new_tokens=3)
    loaded, good, bad = model._load(), _clip(0.5), _clip(0.7)
    heard = network.embed_audio

    def broken(loaded: network.Loaded, samples: Samples) -> torch.Tensor:
        return heard(loaded, samples) * (math.nan if samples.size == bad.samples.size else 1.0)

    monkeypatch.setattr(network, "embed_audio", broken)
    for chosen in (options, Options(task="classify", labels=("bell", "rain"))):
        answers = model.process([bad, good, bad], chosen)
        assert [answer.error.code if answer.error else "" for answer in answers] == ["not-finite", "", "not-finite"]
    weights = dict(loaded.network.named_parameters())
    name = next(name for name in weights if "language_model" in name and "down_proj" in name)
    with torch.no_grad():
        weights[name][0, 0] = math.nan
    answer = model.process([good], options)[0]
    assert answer.error is not None
    assert (answer.error.code, answer.confidence) == ("not-finite", None)


def _broken(folder: Path, target: Path, damage: str) -> Path:
    shutil.copytree(folder, target)
    weights = target / "model.safetensors"
    if damage == "half":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    if damage == "pickled":
        weights.rename(target / "pytorch_model.bin")
    if damage == "no tokenizer":
        (target / "tokenizer.json").unlink()
    if damage == "no extractor":
        (target / "preprocessor_config.json").unlink()
    if damage == "ctc":
        edit_json(target / "config.json", model_type="wav2vec2")
    if damage == "no config":
        (target / "config.json").unlink()
    if damage == "lacks":
        found = {"audio_config": {**_json(target / "config.json")["audio_config"], "encoder_layers": 3}}
        edit_json(target / "config.json", **found)
    if damage == "other words":
        for file in (target / "tokenizer.json", target / "tokenizer_config.json"):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace("<|audio_bos|>", "<|audio_bas|>"), encoding="utf-8")
    return target


def _json(file: Path) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("half", "broken-file"),
        ("pickled", "no-weights"),
        ("no tokenizer", "no-tokenizer"),
        ("no extractor", "no-feature-extractor"),
        ("ctc", "wrong-family"),
        ("no config", "not-a-checkpoint"),
        ("lacks", "missing-weights"),
        ("other words", "wrong-tokenizer"),
    ],
)
def test_broken_folders_are_typed_errors(folders: dict[str, Path], tmp_path: Path, damage: str, code: str) -> None:
    """Half a safetensors file, pickled weights, missing parts, another family, words the tokenizer does not know."""
    with pytest.raises(GrymError) as refused:
        _ = _model(_broken(folders["qwen2_audio"], tmp_path / "broken", damage)).card
    assert refused.value.code == code
    assert refused.value.hint
    if damage == "ctc":
        assert 'adapter = "wav2vec2"' in refused.value.hint


def test_memory_is_asked_before_anything_is_loaded(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the rung that would fit; audio parts keep two bytes where the rest has fewer."""
    folder = folders["audioflamingo3"]
    needed = needed_bytes([folder / "model.safetensors"], kept=("audio_tower",))
    assert needed["fp32"] > needed["bf16"] > needed["int8"] > needed["int4"]
    whole = needed_bytes([folder / "model.safetensors"])
    assert needed["int4"] > whole["int4"]
    assert needed_bytes([folder / "model.safetensors"], ignored=("",))["fp32"] == memory.WORK_BYTES
    monkeypatch.setattr(memory, "free_bytes", lambda _device: needed["bf16"])
    with pytest.raises(ResourceError) as refused:
        _ = _model(folder, precision="fp32").card
    assert refused.value.code == "not-enough-memory"
    assert 'precision = "bf16"' in refused.value.hint
    model = _model(folder, precision="bf16")
    assert model.card.rung == "bf16/cpu"
    assert model.process([_clip(0.5)], Options(max_new_tokens=2))[0].error is None


def test_the_whole_omni_model_is_read_without_its_voice(folders: dict[str, Path], tmp_path: Path) -> None:
    """A published folder names the thinker's weights after it, and holds a talker that is not loaded."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "omni"
    shutil.copytree(folders["qwen2_5_omni_thinker"], folder)
    weights = load_file(folder / "model.safetensors")
    whole = {f"thinker.{name}": value for name, value in weights.items()}
    whole["talker.model.embed_tokens.weight"] = torch.zeros(4, 4)
    whole["token2wav.weight"] = torch.zeros(4)
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    own, published = _model(folders["qwen2_5_omni_thinker"]), _model(folder)
    options = Options(max_new_tokens=4)
    assert published.process([_clip(0.7)], options)[0].text == own.process([_clip(0.7)], options)[0].text


def test_options_and_life(folders: dict[str, Path], tmp_path: Path) -> None:
    """Options that make no sense, sampling with its own seed for each window, and a model that can be closed."""
    folder = folders["qwen2_audio"]
    for wrong in ({"max_seconds": 0.0}, {"together": -1}, {"temperature": -0.1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            _model(folder, **wrong)
    with pytest.raises(ConfigError, match="at most 30 s"):
        _ = _model(folder, window_seconds=31.0).card
    with pytest.raises(ConfigError, match="no model folder"):
        _ = _model(tmp_path / "nothing").card
    for adapter in ("audio_lm", "seq2seq", "clap"):
        with pytest.raises(ConfigError, match="no model folder"):
            check_model(ModelSpec(name="tiny", adapter=adapter, options={"path": str(tmp_path / "nothing")}))
    drawn = _model(folder, temperature=5.0)
    clips = [_clip(0.5), _clip(0.8)]
    options = Options(max_new_tokens=6)
    assert drawn.process(clips, options)[1].text == drawn.process(clips[1:], options)[0].text
    assert drawn.card.revision != _model(folder).card.revision
    model = load_model(ModelSpec(name="tiny", adapter="audio_lm", options={"path": str(folder), "device": "cpu"}))
    assert model.ping()["loaded"] == "false"
    assert len(model.process([_clip(4.6)], Options(max_new_tokens=1))[0].segments) == 1  # one prompt, three pieces
    assert model.features([]).shape == (0, 32)
    model.close()
    assert model.ping()["loaded"] == "false"
