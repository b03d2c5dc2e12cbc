"""Fine-tuning: four kinds of tiny models learn, resume to the same weights, are merged and registered."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import load_file

from grym._registered import write_model_file
from grym.compare.evaluate import SliceRate
from grym.config import ModelSpec, load_settings
from grym.errors import ConfigError
from grym.models.finetune import trainer
from grym.models.finetune.checking import as_trained, check_finetune
from grym.models.finetune.recipe import (
    FinetuneData,
    FinetuneSpec,
    TrainingClip,
    read_clips,
    render_card,
    training_key,
    write_clips,
)
from grym.models.finetune.trainer import Finetuner
from grym.models.interface import AudioClip, Options
from grym.models.registry import load_model
from tests.audio_models import save_family, save_whisper
from tests.gama_models import one_thread, random_model, save, tiny_config, tone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["one_thread"]  # a fixture: pytest finds it by its name
DATA = FinetuneData("tones", 3, 1.5, "0" * 16, "tiny", "1" * 64)


def _save_ctc(folder: Path) -> Path:
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_kernel=(10, 4), conv_stride=(20, 16), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, hidden_dropout=0.1, mask_time_prob=0.0, layerdrop=0.0, pad_token_id=0,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    words = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", "a", "b", "c"])}
    (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), word_delimiter_token="|")  # noqa: S106
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    (folder / "lexicon.json").write_text('["ab", "ca"]', encoding="utf-8")
    (folder / "lead_in.json").write_text('{"seconds": 0.1}', encoding="utf-8")
    return folder


def _save_gama(folder: Path) -> Path:
    """A checkpoint without adapters of its own, so that LoRA brings some."""
    return save(folder, random_model(tiny_config(lora_rank=0)))


SAVERS: dict[str, Callable[[Path], Path]] = {
    "wav2vec2": _save_ctc,
    "seq2seq": save_whisper,
    "audio_lm": lambda folder: save_family(folder, "qwen2_audio"),
    "gama": _save_gama,
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingClip]:
    """Three tones with texts, one too long and one that no letter of the CTC model can write."""
    folder = tmp_path_factory.mktemp("clips")
    rows = [(0.5, 300.0, "ab ca"), (0.4, 500.0, "ca"), (0.6, 900.0, "Ab"), (9.0, 200.0, "ab"), (0.5, 250.0, "  ")]
    made = []
    for seconds, pitch, text in rows:
        file = folder / f"{pitch}.wav"
        soundfile.write(file, tone(seconds, pitch), 16_000)
        made.append(TrainingClip(str(file), text))
    return made


def _spec(adapter: str, **changes: Any) -> FinetuneSpec:
    quick = {"steps": 3, "batch_clips": 2, "checkpoint_every": 1, "learning_rate": 0.02, "dropout": 0.1}
    return FinetuneSpec(**{"adapter": adapter, "max_seconds": 5.0, **quick, **changes})


def _weights(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("adapter", ["wav2vec2", "seq2seq", "gama", pytest.param("audio_lm", marks=pytest.mark.chaos)])
def test_a_model_learns_resumes_and_is_merged(
    adapter: str, tmp_path: Path, clips: list[TrainingClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps at once, or killed after one and resumed: the same weights, and an adapter reads them."""
    base, spec = SAVERS[adapter](tmp_path / "base"), _spec(adapter)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = Finetuner(spec, DATA, base, tmp_path / "whole")
    whole.run(clips)
    assert whole.finished
    assert whole.left_out == 2
    facts = whole.facts()
    assert 0 < facts["trained"] < facts["parameters"] / 2
    whole.export(tmp_path / "whole/model", ["ab ca"])
    first = Finetuner(spec, DATA, base, tmp_path / "parts")
    keep = first.save

    def save_and_die() -> None:
        keep()
        raise KeyboardInterrupt

    first.save = save_and_die  # type: ignore[method-assign]
    monkeypatch.setattr(trainer, "KEPT_BYTES", 0)  # nothing is kept: every step decodes its clips again
    with pytest.raises(KeyboardInterrupt):
        first.run(clips)
    rest = Finetuner(spec, DATA, base, tmp_path / "parts")
    assert rest.step == 1
    rest.run(clips)
    rest.export(tmp_path / "parts/model", ["ab ca"])
    before, left, right = (_weights(tmp_path / p) for p in ("base", "whole/model", "parts/model"))
    assert left.keys() == before.keys()
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], atol=1e-6, err_msg=name)
    changed = [name for name, value in left.items() if np.abs(value - before[name]).max() > 1e-6]
    assert changed
    assert all(any(t in n for t in ("_proj", "dense", "lm_head")) for n in changed), changed
    options = {"path": str(tmp_path / "whole/model"), "device": "cpu"}
    if adapter == "seq2seq":
        options["timestamps"] = "none"
    model = load_model(ModelSpec(name="new", adapter=adapter, options=options))
    said = model.process([AudioClip("x", tone(0.5), 16_000)], Options(task="transcribe", max_new_tokens=3))[0]
    assert said.error is None


def test_every_weight_and_less_memory(tmp_path: Path, clips: list[TrainingClip]) -> None:
    """Full training moves the transformer and no convolution; activations computed again change nothing."""
    base = _save_ctc(tmp_path / "base")
    ends = []
    for name, again in (("kept", False), ("again", True)):
        (tmp_path / name).mkdir()
        spec = _spec("wav2vec2", method="full", gradient_checkpointing=again, learning_rate=1e-3)
        tuner = Finetuner(spec, DATA, base, tmp_path / name)
        tuner.run(clips)
        tuner.export(tmp_path / name / "model", ["ab cab"])
        ends.append(_weights(tmp_path / name / "model"))
        assert not (tmp_path / name / "model/lexicon.json").exists(), "it does not list every word that was trained"
        assert (tmp_path / name / "model/lead_in.json").is_file()
    before = _weights(base)
    for key, value in ends[0].items():
        np.testing.assert_allclose(value, ends[1][key], atol=1e-5, err_msg=key)
        if "feature_extractor" in key:
            np.testing.assert_array_equal(value, before[key])
    assert np.abs(ends[0]["lm_head.weight"] - before["lm_head.weight"]).max() > 0


@pytest.mark.parametrize("adapter", SAVERS)
def test_activations_computed_again_are_not_kept(adapter: str, tmp_path: Path) -> None:
    """For each kind: the bytes that the forward pass keeps for the backward one, same loss and gradients."""
    base = SAVERS[adapter](tmp_path / "base")
    found = []
    for again in (False, True):
        tuner = Finetuner(_spec(adapter, method="lora", gradient_checkpointing=again), DATA, base, tmp_path)
        example = tuner.kind.example(tone(0.5), "ab ca")
        assert example is not None
        weights = {p.untyped_storage().data_ptr() for p in tuner.network.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        tuner.network.train()
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = tuner.kind.loss(tuner.network, example)
        loss.backward()  # type: ignore[no-untyped-call]
        slopes = [p.grad.abs().sum() for p in tuner.network.parameters() if p.grad is not None]
        size = sum(count for place, count in kept.items() if place not in weights)
        found.append((size, float(loss.detach()), float(torch.stack(slopes).sum())))
    (before, loss_before, slope_before), (after, loss_after, slope_after) = found
    assert after < 0.7 * before
    assert loss_after == pytest.approx(loss_before, rel=1e-4)
    assert slope_after == pytest.approx(slope_before, rel=1e-3)
    assert slope_before > 0


def test_adapters_of_a_gama_are_what_lora_trains(tmp_path: Path, clips: list[TrainingClip]) -> None:
    """A checkpoint that has adapters keeps its form: they learn, nothing else does."""
    base = save(tmp_path / "base")
    tuner = Finetuner(_spec("gama", instruction="What is heard?"), DATA, base, tmp_path)
    tuner.run(clips)
    tuner.export(tmp_path / "model", [])
    before, after = _weights(base), _weights(tmp_path / "model")
    changed = {name for name in after if np.abs(after[name] - before[name]).max() > 0}
    assert changed
    assert all("lora_" in name for name in changed)


def test_other_recipes_and_clips_without_use(
    tmp_path: Path, clips: list[TrainingClip], capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of other data is put aside, and a training without any example is refused."""
    base = _save_ctc(tmp_path / "base")
    first = Finetuner(_spec("wav2vec2"), DATA, base, tmp_path)
    first.step = 2
    first.save()
    other = FinetuneData("others", 3, 1.5, "0" * 16, "tiny", "1" * 64)
    assert training_key(_spec("wav2vec2"), other) != training_key(_spec("wav2vec2"), DATA)
    assert Finetuner(_spec("wav2vec2"), other, base, tmp_path).step == 0
    assert "restart" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="none of the 2 clips"):
        Finetuner(_spec("wav2vec2"), other, base, tmp_path).run(clips[3:])


def test_what_was_typed_wrong_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, adapters, recipes; and a made model is registered by its folder, before which grym.toml goes."""
    monkeypatch.delenv("GRYM_HOME", raising=False)
    file = tmp_path / "grym.toml"
    text = '[models.mini]\nadapter = "wav2vec2"\noptions = { path = "base" }\n[models.f]\nadapter = "fake"\n'
    file.write_text(text, encoding="utf-8")
    base = _save_ctc(tmp_path / "base")
    made = tmp_path / "var/models/mini-new"
    shutil.copytree(base, made)
    write_model_file(made, "wav2vec2", "Apache-2.0", {"path": "elsewhere", "precision": "fp32", "window_seconds": 8.0})
    shutil.copytree(made, made.parent / "mini")
    settings = load_settings(file)
    assert set(settings.models) == {"mini", "mini-new", "f"}
    assert settings.models["mini"].options == {"path": str(tmp_path / "base")}
    assert settings.models["mini-new"].options == {"path": str(made), "precision": "fp32", "window_seconds": 8.0}
    for arguments, code in (
        (("mini", "../x", {}), "bad-name"),
        (("mini", "f", {}), "name-taken"),
        (("mini", "mini-new", {}), "name-taken"),
        (("none", "new", {}), "unknown-model"),
        (("f", "new", {}), "cannot-finetune"),
        (("mini", "new", {"stps": 3}), "unknown-option"),
        (("mini", "new", {"steps": 0}), "wrong-option"),
        (("mini", "new", {"method": "half"}), "wrong-option"),
    ):
        with pytest.raises(ConfigError) as refused:
            check_finetune(*arguments, settings, replace=False)
        assert refused.value.code == code, arguments
    with pytest.raises(ConfigError, match="already"):
        check_finetune("mini", "mini", {}, settings, replace=True)
    spec, folder, recipe = check_finetune("mini", "mini-new", {"steps": 4}, settings, replace=True)
    assert (spec.name, folder, recipe.steps) == ("mini", base, 4)
    assert as_trained(spec, recipe) == spec
    told = as_trained(ModelSpec(name="g", adapter="gama", options={"path": "x"}), _spec("gama", instruction="Listen."))
    assert told.options == {"path": "x", "task": "transcribe", "prompt": "Listen."}
    for broken in ("adapter = ", 'licence = "x"', 'adapter = "wav2vec2"\nextra = 1', 'adapter = "x"\noptions = 3'):
        (made / "model.toml").write_text(broken, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"mini-new/model\.toml"):
            load_settings(file)


def test_what_a_training_leaves(tmp_path: Path) -> None:
    """Lists of clips are read as they were written, and a card tells the recipe and the numbers."""
    clips = [TrainingClip("/a.wav", "é one", 0.5, 2.0), TrainingClip("/b.wav", "two")]
    write_clips(clips, tmp_path / "deep/clips.jsonl")
    assert read_clips(tmp_path / "deep/clips.jsonl") == clips
    rate = SliceRate("all", 9, 20, 0.125, 0.05, None, 1)
    facts = {"trained": 1000, "parameters": 20_000, "left_out": 2, "loss": 0.5}
    card = render_card("new", _spec("wav2vec2"), DATA, facts, {"before": [rate], "after": [rate]}, "Apache-2.0")
    assert "| after | 9 | 1 | 20 | 12.50 | 5.00 to  |" in card
    assert "1,000 of 20,000" in card
    assert FinetuneSpec.from_json(_spec("gama").to_json()) == _spec("gama")
    assert FinetuneData.from_json(DATA.to_json()) == DATA


def test_the_flow_s_steps(tmp_path: Path, clips: list[TrainingClip], monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips are split by their contents alone, and the result lies in the home with its card, registered."""
    from tasks.finetune import choose_clips, data_of, register_model

    monkeypatch.delenv("GRYM_HOME", raising=False)
    base = _save_ctc(tmp_path / "base")
    file = tmp_path / "grym.toml"
    file.write_text(f'[models.mini]\nadapter = "wav2vec2"\noptions = {{ path = "{base}" }}\n', encoding="utf-8")
    manifest = tmp_path / "set.csv"
    for clip in clips[:4]:
        shutil.copy(clip.path, tmp_path)
    rows = [f"{c.path.rsplit('/', 1)[1]},{c.text}" for c in clips[:4]]
    manifest.write_text("audio_filepath,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    settings = load_settings(file)
    chosen = choose_clips.fn(str(manifest), "", 0.25, settings)
    assert (len(chosen.training), len(chosen.held_out)) == (3, 1)
    assert chosen == choose_clips.fn(str(manifest), "", 0.25, settings)
    for share, on in ((1.5, ""), (0.9, ""), (0.2, str(manifest))):
        with pytest.raises(ConfigError):
            choose_clips.fn(str(manifest), on, share, settings)
    spec = settings.model("mini")
    data = data_of("set", spec, base, chosen.training)
    assert (data.clips, data.base, len(data.base_sha256)) == (3, "mini", 64)
    done = {"folder": str(base), "trained": 1, "parameters": 2, "loss": 0.1, "left_out": 0}
    rate = SliceRate("all", 1, 2, 0.5, None, None)
    rates = {"before": [rate], "after": [rate]}
    made = register_model.fn("mini-new", spec, _spec("wav2vec2"), data, done, rates, settings)
    assert made == tmp_path / "var/models/mini-new"
    assert data.fingerprint in (made / "README.md").read_text(encoding="utf-8")
    assert load_settings(file).model("mini-new").options["path"] == str(made)
