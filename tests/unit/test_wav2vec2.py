"""The CTC adapter on real weights: the bundled checkpoint and tiny random ones of every family."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from grym.audio import decode
from grym.compare import get_normalizer, score
from grym.compare.evaluate import evaluate, overall
from grym.config import AudioLimits, ModelSpec, load_settings
from grym.corpus.loaders import load_dataset
from grym.errors import AudioError, ConfigError, ModelError
from grym.models import _calibrate
from grym.models._calibrate import candidates
from grym.models.interface import Answer, AudioClip, Options
from grym.models.registry import load_model
from grym.models.wav2vec2 import CHECKPOINTS, Wav2Vec2, Wav2Vec2Options
from grym.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
MINI = CHECKPOINTS / "wav2vec2-mini"


def _clips(count: int, step: int = 1) -> tuple[list[AudioClip], list[str]]:
    with (ROOT / "datasets/digits/test/manifest.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))[: count * step : step]
    folder = ROOT / "datasets/digits/test"
    return [decode(folder / row["audio_filepath"], AudioLimits())[0] for row in rows], [row["text"] for row in rows]


def _model(**options: object) -> Wav2Vec2:
    return Wav2Vec2(
        ModelSpec(name="mini", adapter="wav2vec2"),
        Wav2Vec2Options(**{"path": "bundled:wav2vec2-mini", "device": "cpu", **options}),  # type: ignore[arg-type]
    )


def _same(left: Answer, right: Answer) -> None:
    assert left.text == right.text
    assert left.confidence == pytest.approx(right.confidence, abs=1e-5)
    assert [(s.text, s.start, s.end) for s in left.segments] == [(s.text, s.start, s.end) for s in right.segments]
    assert left.features is not None
    assert right.features is not None
    np.testing.assert_allclose(left.features, right.features, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"precision": "bf16"}, {"precision": "int8"}, {"precision": "int8-bf16"}, {"padded_batch": 8}],
    ids=["fp32", "bf16", "int8", "int8-bf16", "fp32 padded"],
)
def test_a_clip_gets_the_same_answer_alone_and_in_any_batch(options: dict[str, object]) -> None:
    """Batch invariance for every setting, on real speech of mixed lengths."""
    clips, _ = _clips(24, step=7)
    model = _model(**options)
    together = model.process(clips, Options(features=True))
    backwards = model.process(clips[::-1], Options(features=True))[::-1]
    for clip, one, other in zip(clips, together, backwards, strict=True):
        alone = model.process([clip], Options(features=True))[0]
        _same(alone, one)
        _same(alone, other)


def test_the_bundled_checkpoint_hears_digits() -> None:
    """Most words of unseen voices are right, and the words lie inside the clip in order."""
    clips, texts = _clips(40, step=11)
    answers = _model().process(clips, Options())
    right = sum(answer.text == text for answer, text in zip(answers, texts, strict=True))
    assert right >= 28
    for clip, answer in zip(clips, answers, strict=True):
        assert " ".join(s.text for s in answer.segments) == answer.text
        times = [t for s in answer.segments for t in (s.start, s.end)]
        assert times == sorted(times)
        assert all(0 <= t <= clip.seconds for t in times)
        assert answer.confidence is not None
        assert 0 <= answer.confidence <= 1


def test_precisions_agree_and_have_their_own_revisions() -> None:
    """int8 and bf16 are close to fp32 but are other models: their revisions differ."""
    clips, _ = _clips(12, step=30)
    names = ("fp32", "bf16", "int8", "int8-bf16")
    models = {precision: _model(precision=precision) for precision in names}
    features = {name: model.features(clips) for name, model in models.items()}
    for name in names[1:]:
        similar = np.sum(features[name] * features["fp32"], axis=1) / (
            np.linalg.norm(features[name], axis=1) * np.linalg.norm(features["fp32"], axis=1)
        )
        assert similar.min() > 0.95
        assert not np.array_equal(features[name], features["fp32"])
    assert len({model.card.revision for model in models.values()}) == len(names)
    assert _model().card.revision == models["fp32"].card.revision
    assert models["int8"].card.rung == "int8/cpu"


def test_seeded_noise_on_the_weights_makes_another_model() -> None:
    """A degraded arm is reproducible and has its own revision."""
    clips, _ = _clips(3)
    first, again, other = (_model(weight_noise=0.3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.features(clips), again.features(clips))
    assert first.card.revision == again.card.revision != other.card.revision


def test_forced_alignment_puts_given_words_where_they_are() -> None:
    """Aligning the reference of a clip that was heard right gives the segments of the answer."""
    clips, texts = _clips(40, step=11)
    model = _model()
    right = [(c, t, a) for c, t, a in zip(clips, texts, model.process(clips, Options()), strict=True) if a.text == t]
    for clip, text, answer in right[:5]:
        aligned = model.align(clip, text).segments
        assert [(s.start, s.end, s.text) for s in aligned] == [(s.start, s.end, s.text) for s in answer.segments]
        wanted = [s.confidence for s in answer.segments]
        assert [s.confidence for s in aligned] == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(ModelError, match="no token"):
        model.align(clips[0], "über")


def test_long_audio_is_read_in_windows() -> None:
    """Forty seconds in windows lose no more words than in one piece, and most words stand at the same places."""
    clips, texts = _clips(20, step=3)
    pause = np.zeros(4000, np.float32)
    whole = AudioClip("long", np.concatenate([part for clip in clips for part in (clip.samples, pause)]), 16_000)
    reference = _model(window_seconds=200.0).process([whole], Options())[0]
    windowed = _model(window_seconds=12.0, overlap_seconds=4.0).process([whole], Options(features=True))[0]
    said, normalizer = " ".join(texts), get_normalizer("basic")
    errors = [score(said, answer.text or "", normalizer).errors for answer in (reference, windowed)]
    assert errors[1] <= errors[0] + 0.05 * len(said.split())
    places = [{(s.text, round(5 * s.start)) for s in answer.segments} for answer in (reference, windowed)]
    assert len(places[0] & places[1]) >= 0.75 * len(places[0])
    assert windowed.features is not None


def test_one_bad_clip_never_loses_the_others() -> None:
    """Wrong rate, NaN and too few samples are answered with their error; the rest is transcribed."""
    clips, _ = _clips(2)
    bad = [
        AudioClip("rate", clips[0].samples, 8_000),
        AudioClip("nan", np.full(16_000, np.nan, np.float32), 16_000),
        AudioClip("short", np.zeros(10, np.float32), 16_000),
    ]
    model = _model()
    answers = model.process([clips[0], *bad, clips[1]], Options())
    assert [a.error.code if a.error else "" for a in answers] == ["", "wrong-rate", "not-finite", "too-short", ""]
    assert [a.text is None for a in answers] == [False, True, True, True, False]
    with pytest.raises(AudioError):
        model.features(bad)
    assert model.features([]).shape == (0, model.card.feature_dim)


def test_analysis_and_ping_do_not_need_the_weights() -> None:
    """Signal measurements come from the clip alone, closing twice is harmless."""
    clips, _ = _clips(1)
    model = _model()
    assert model.analyze(clips, "basic")[0]["duration_seconds"] == pytest.approx(clips[0].seconds)
    assert model.ping() == {"status": "ok", "loaded": "false"}
    assert model.card.feature_dim == 192
    assert model.ping()["loaded"] == "true"
    model.close()
    model.close()


@pytest.mark.parametrize("kind", ["missing", "no config", "no weights", "pickle", "not ctc", "no head"])
def test_a_folder_that_is_no_checkpoint_is_one_clear_sentence(tmp_path: Path, kind: str) -> None:
    """Each way a model folder can be wrong has its own code."""
    folder = tmp_path / "model"
    if kind != "missing":
        shutil.copytree(MINI, folder)
    if kind == "no config":
        (folder / "config.json").unlink()
    if kind in {"no weights", "pickle"}:
        (folder / "model.safetensors").unlink()
    if kind == "pickle":
        (folder / "pytorch_model.bin").write_bytes(b"x")
    if kind == "not ctc":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({**config, "model_type": "bert", "architectures": ["BertModel"]})
        )
    if kind == "no head":
        weights = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in weights.items() if not name.startswith("lm_head")}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    expected = {
        "no head": "not-a-ctc-checkpoint",
        "missing": "no-model-folder",
        "no config": "not-a-checkpoint",
        "no weights": "no-weights",
        "pickle": "no-weights",
        "not ctc": "not-a-ctc-checkpoint",
    }
    with pytest.raises((ConfigError, ModelError)) as caught:
        _ = _model(path=str(folder)).card
    assert caught.value.code == expected[kind]
    assert str(tmp_path) not in str(caught.value)


def test_wrong_options_name_the_right_ones() -> None:
    """A typo in an option is answered with the options that exist."""
    spec = ModelSpec(name="m", adapter="wav2vec2", options={"path": "bundled:wav2vec2-mini", "precison": "fp32"})
    with pytest.raises(ConfigError, match="precision"):
        load_model(spec)
    with pytest.raises(ConfigError, match="overlap"):
        _model(window_seconds=5.0, overlap_seconds=4.0)
    with pytest.raises(ConfigError, match="two frames"):
        _ = _model(overlap_seconds=0.0).card
    with pytest.raises(ConfigError, match="padded_batch"):
        _ = _model(precision="int8", padded_batch=4).card


def _rate(dataset: str, tmp_path: Path, precision: str) -> float:
    """Word error rate of the bundled checkpoint on a whole dataset, in a worker as in a run."""
    settings = load_settings(ROOT / "grym.toml")
    spec = ModelSpec(name="mini", adapter="wav2vec2", options={"path": "bundled:wav2vec2-mini", "precision": precision})
    limits = settings.worker.model_copy(update={"threads": 1})  # tests run beside each other
    with Worker(spec, limits, tmp_path) as worker:
        return overall(evaluate(worker, load_dataset(dataset, settings), settings))


def test_voices_unseen_in_training_are_heard(tmp_path: Path) -> None:
    """At most 5 % of the words of the bundled test split are wrong, and what ``auto`` chooses costs at most 0.1 %."""
    rates = {precision: _rate("digits", tmp_path, precision) for precision in ("fp32", "auto")}
    assert max(rates.values()) <= 0.05
    assert rates["auto"] <= rates["fp32"] + 0.001


@pytest.mark.skipif("GRYM_FSDD" not in os.environ, reason="GRYM_FSDD names no copy of the Free Spoken Digit Dataset")
def test_real_test_takes_are_heard(tmp_path: Path) -> None:
    """At most 8 % of the words of the test takes of FSDD are wrong."""
    assert _rate("fsdd", tmp_path, "fp32") <= 0.08


FAMILIES = ("wav2vec2", "wav2vec2-layer", "hubert", "wavlm", "data2vec-audio")


def _tiny(folder: Path, family: str) -> Path:
    """A random checkpoint of a family in Hugging Face form, with the bundled tokenizer."""
    import transformers

    torch.manual_seed(0)
    shutil.copytree(MINI, folder, ignore=shutil.ignore_patterns("lexicon.json", "lead_in.json"))
    common = {
        "vocab_size": 31, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "conv_dim": (32, 32, 32), "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 8),
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "pad_token_id": 0,
    }  # fmt: skip
    made = {
        "wav2vec2": lambda: transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**common)),
        "wav2vec2-layer": lambda: transformers.Wav2Vec2ForCTC(
            transformers.Wav2Vec2Config(**common, feat_extract_norm="layer", do_stable_layer_norm=True)
        ),
        "hubert": lambda: transformers.HubertForCTC(transformers.HubertConfig(**common)),
        "wavlm": lambda: transformers.WavLMForCTC(transformers.WavLMConfig(**common)),
        "data2vec-audio": lambda: transformers.Data2VecAudioForCTC(
            transformers.Data2VecAudioConfig(**{**common, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5})
        ),
    }
    made[family]().save_pretrained(folder)
    return folder


def _reference(folder: Path, clip: AudioClip) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and hidden states of the library's own layers."""
    import transformers

    network = transformers.AutoModelForCTC.from_pretrained(folder).eval()
    wave = (clip.samples - clip.samples.mean()) / np.sqrt(clip.samples.var() + 1e-7)
    with torch.inference_mode():
        hidden = getattr(network, network.base_model_prefix)(torch.from_numpy(wave)[None]).last_hidden_state
        return network.lm_head(hidden)[0].log_softmax(-1).numpy(), hidden[0].numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_rebuilt_layers_compute_what_the_librarys_do(tmp_path: Path, family: str) -> None:
    """In fp32 up to rounding, in the other precisions nearly; every family, random weights."""
    clip = _clips(1)[0][0]
    folder = _tiny(tmp_path / "m", family)
    scores, hidden = _reference(folder, clip)
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 0.02), ("int8", 0.02), ("int8-bf16", 0.02)):
        emission, _ = _model(path=str(folder), precision=precision)._emissions([clip])[0]
        np.testing.assert_allclose(emission.log_probabilities, scores, atol=tolerance)
        np.testing.assert_allclose(emission.hidden_mean, hidden.mean(axis=0), atol=3 * tolerance)


def test_auto_measures_once_and_says_what_it_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice is one that this CPU has, is the card's rung and part of its revision, and is remembered."""
    monkeypatch.setenv("GRYM_CACHE", str(tmp_path))
    card = _model(precision="auto").card
    chosen = card.rung.removesuffix("/cpu")
    assert chosen in candidates()
    assert card.revision == _model(precision=chosen).card.revision
    (file,) = tmp_path.glob("*.json")
    other = next(name for name in candidates() if name != chosen)
    file.write_text(json.dumps({"precision": other}))
    assert _model(precision="auto").card.rung == f"{other}/cpu"
    file.write_text("broken")
    assert _model(precision="auto").card.rung.removesuffix("/cpu") in candidates()


def test_auto_takes_nothing_that_changes_what_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no other precision is close enough, fp32 it is, however slow."""
    monkeypatch.setenv("GRYM_CACHE", str(tmp_path))
    monkeypatch.setattr(_calibrate, "CLOSE", -1.0)
    assert _model(precision="auto").card.rung == "fp32/cpu"


def test_auto_pads_on_no_measurement(tmp_path: Path) -> None:
    """Padded batches on a CPU are for tests of CUDA's path: nothing is measured there."""
    assert _model(precision="auto", padded_batch=4).card.rung == "fp32/cpu"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("padded", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_ctc_family_is_batch_invariant(tmp_path: Path, family: str, padded: int) -> None:
    """wav2vec2 with both norms, HuBERT, WavLM and data2vec: alone, in a batch, with and without padding."""
    clips, _ = _clips(6, step=13)
    model = _model(path=str(_tiny(tmp_path / "m", family)), padded_batch=padded)
    together = model.process(clips, Options(features=True))
    for clip, answer in zip(clips, together, strict=True):
        alone = model.process([clip], Options(features=True))[0]
        _same(replace(alone, confidence=answer.confidence), answer)
        assert alone.confidence == pytest.approx(answer.confidence, abs=1e-4)
