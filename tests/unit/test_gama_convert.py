"""From published names to a folder that loads: strict, readable errors, dead weights without effect."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from grym.errors import ConfigError, GrymError, ModelError, WorkerError
from grym.models.gama import convert as converting
from grym.models.gama.checking import expected_shapes
from grym.models.gama.convert import check_names, check_stage, convert, main
from grym.models.gama.convert_process import ask, run_conversion
from grym.models.gama.keys import PREFIX, llama_name, translate
from grym.models.gama.modeling import GamaModel
from grym.models.gama.reading import read_stage
from tests.gama_models import HEADS, llama_folder, one_thread, published

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["one_thread"]  # a fixture: pytest finds it by its name
HEAD_SIZE = 8 // HEADS
SHALLOW = 2  # layers of the language model where all 708 names do not matter


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama folder with as many layers as the published one."""
    return llama_folder(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama folder with two layers."""
    return llama_folder(tmp_path_factory.mktemp("shallow") / "llama", layers=SHALLOW)


def _stage(folder: Path, state: Mapping[str, torch.Tensor]) -> Path:
    file = folder / "pytorch_model.bin"
    torch.save(dict(state), file)
    return file


def _logits(model: GamaModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    spectrogram = torch.randn(1, model.config.audio_config.target_frames, 128, generator=generator)
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(spectrogram, torch.tensor([[1, 9, 5]])).logits
    return logits


def test_all_708_names_convert_and_load(tmp_path: Path, llama: Path) -> None:
    """Every published name is live or dead, the model loads without a rest, and the values arrive."""
    state = published()
    assert len(state) == 708
    file = _stage(tmp_path, state)
    done = convert(file, llama, tmp_path / "gama", stage="5", head_size=HEAD_SIZE)
    assert done.live + len(done.dead) == 708
    assert len(done.dead) == 1 + 4 + 11 * 8 + 8 + 2 * (10 + 2 + 4)
    model, info = GamaModel.from_pretrained(tmp_path / "gama", output_loading_info=True)
    assert [info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")] == [set(), set(), set()]
    assert model.config.stage == "5"
    assert model.config.qformer_config.cross_attention_frequency == 2
    assert (model.config.audio_tokens, model.config.lora_alpha) == (3 + 4, 16)
    own = dict(model.named_parameters())
    for published_name, name in (
        ("audio_encoder.blocks_u.0.norm1_a.weight", "audio_tower.blocks.11.norm1.weight"),
        ("audio_encoder.blocks_a.4.norm2.bias", "audio_tower.blocks.4.norm2.bias"),
        ("audio_encoder.blocks_u.0.attn.qkv.weight", "audio_tower.blocks.11.qkv.weight"),
        ("Qformer.bert.encoder.layer.2.crossattention.self.key.weight",
         "qformer.encoder.layer.2.crossattention.attention.key.weight"),
        ("audio_aggregator_layer_2.output.dense.weight", "aggregator.layers.1.output.dense.weight"),
        ("audio_proj_audioenc.2.bias", "projector.aggregator.linear2.bias"),
        ("layers.31.self_attn.v_proj.lora_B.default.weight",
         "language_model.model.layers.31.self_attn.v_proj.lora_B.default.weight"),
    ):  # fmt: skip
        torch.testing.assert_close(own[name].detach(), state[PREFIX + published_name])
    base = load_file(llama / "model.safetensors")
    torch.testing.assert_close(
        own["language_model.model.layers.7.self_attn.q_proj.base_layer.weight"].detach(),
        base["model.layers.7.self_attn.q_proj.weight"],
    )
    assert (tmp_path / "gama" / "tokenizer.json").is_file()
    assert json.loads((tmp_path / "gama" / "conversion.json").read_text())["sha256"] == done.sha256


def test_dead_weights_are_without_effect(tmp_path: Path, shallow: Path) -> None:
    """Changing every dead tensor leaves the logits as they are, bit by bit; changing a live one does not."""
    state = published(layers=SHALLOW)
    dead = translate(state).dead
    changed = {name: value + 1 if name in dead else value for name, value in state.items()}
    live = {**state, PREFIX + "qformer_proj_norm.bias": state[PREFIX + "qformer_proj_norm.bias"] + 1}
    seen = []
    for name, one in (("as-it-is", state), ("dead", changed), ("live", live)):
        (tmp_path / name).mkdir()
        convert(_stage(tmp_path / name, one), shallow, tmp_path / name / "gama", head_size=HEAD_SIZE)
        seen.append(_logits(GamaModel.from_pretrained(tmp_path / name / "gama")))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_a_missing_live_key_is_named(tmp_path: Path, shallow: Path) -> None:
    """Whatever live key is left out, the error names it or its name here; nothing is left behind."""
    state = published(layers=SHALLOW)
    config = converting.infer_config(state, json.loads((shallow / "config.json").read_text()), head_size=HEAD_SIZE)
    expected = expected_shapes(config)
    live = translate(state).live
    base = {name: shape for name, shape in expected.items() if name not in live.values()}
    whole = {ours: tuple(state[name].shape) for name, ours in live.items()} | base
    converting.check_complete(whole, expected, {})
    for ours in live.values():
        with pytest.raises(ModelError, match="1 weights are missing") as refused:
            converting.check_complete({n: s for n, s in whole.items() if n != ours}, expected, {})
        assert refused.value.code == "missing-keys"
        assert ours in refused.value.message
    for name in ("query_tokens", "audio_encoder.norm_a.weight", "audio_proj_qformer.2.bias"):
        short = {key: value for key, value in state.items() if key != PREFIX + name}
        with pytest.raises(ModelError) as refused:
            convert(_stage(tmp_path, short), shallow, tmp_path / "gama", head_size=HEAD_SIZE)
        assert refused.value.code == "missing-keys"
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({PREFIX + "audio_mystery.weight": torch.zeros(2)}, "unexpected-keys", "audio_mystery"),
        ({"audio_encoder.norm_a.weight": torch.zeros(8)}, "unexpected-keys", "audio_encoder.norm_a"),
        ({PREFIX + "qformer_proj_norm.bias": torch.zeros(9)}, "wrong-shapes", "qformer_proj_norm.bias is [9], not [8]"),
        ({f"{PREFIX}layers.9.self_attn.q_proj.lora_A.default.weight": torch.zeros(2, 16)}, "unexpected-keys", "s.9"),
    ],
)  # fmt: skip
def test_what_does_not_belong_is_named(
    tmp_path: Path, shallow: Path, change: dict[str, torch.Tensor], code: str, words: str
) -> None:
    """An unknown name, a name without its prefix, a wrong shape, a layer too many."""
    file = _stage(tmp_path, {**published(layers=SHALLOW), **change})
    with pytest.raises(ModelError) as refused:
        convert(file, shallow, tmp_path / "gama", head_size=HEAD_SIZE)
    assert refused.value.code == code
    assert words in refused.value.message


def test_files_of_other_stages_are_refused() -> None:
    """Stage 1 has no LoRA; a file cut down by a script has no Q-Former; a checksum can contradict."""
    state = published(layers=SHALLOW)
    for unwanted, code in (("lora_", "wrong-stage"), ("ormer", "partial-checkpoint")):
        with pytest.raises(ModelError) as refused:
            check_names({name: value for name, value in state.items() if unwanted not in name})
        assert refused.value.code == code
    assert check_stage("", "d5a0fd007ede00") == "4"
    assert check_stage("5", "ffff") == "5"
    with pytest.raises(ModelError, match="stage 4") as refused:
        check_stage("5", "d5a0fd007ede00")
    assert refused.value.code == "wrong-stage"
    with pytest.raises(ConfigError, match="no stage '3'"):
        check_stage("3", "ffff")


class _Code:
    """What an attacker would pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_pickled_code_is_never_run(tmp_path: Path, shallow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .bin with code is refused by a typed error and the code is not executed."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "pytorch_model.bin"
    torch.save({"query_tokens": _Code()}, file)
    with pytest.raises(ModelError) as refused:
        convert(file, shallow, tmp_path / "gama")
    assert refused.value.code == "pickled-code"
    file.write_bytes(pickle.dumps(_Code()))
    with pytest.raises(ModelError) as refused:
        convert(file, shallow, tmp_path / "gama")
    assert refused.value.code == "pickled-code"
    assert not (tmp_path / "executed").exists()


def test_broken_files_are_named(tmp_path: Path, shallow: Path) -> None:
    """Half a stage file, half a Llama file, no weights, pickled weights, another model, no file at all."""
    whole = _stage(tmp_path, published(layers=SHALLOW))

    def refused(file: Path, base: Path) -> GrymError:
        with pytest.raises(GrymError) as caught:
            convert(file, base, tmp_path / "gama", head_size=HEAD_SIZE)
        return caught.value

    half = tmp_path / "half.bin"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert refused(half, shallow).code == "broken-file"
    half.write_bytes(b"")
    assert refused(half, shallow).code == "broken-file"
    assert refused(tmp_path / "nothing.bin", shallow).code == "no-file"
    torch.save([1, 2], tmp_path / "list.bin")
    assert refused(tmp_path / "list.bin", shallow).code == "not-a-state-dict"
    base = tmp_path / "llama"
    shutil.copytree(shallow, base)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert refused(whole, base).code == "broken-file"
    weights.rename(base / "pytorch_model.bin")
    assert refused(whole, base).code == "no-weights"
    (base / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    assert refused(whole, base).code == "not-llama"
    (base / "config.json").unlink()
    assert refused(whole, base).code == "not-a-checkpoint"
    (tmp_path / "gama").mkdir()
    assert refused(whole, shallow).code == "exists"


def _hostile(change: str, state: dict[str, torch.Tensor]) -> dict[Any, Any]:
    """A state dict as other makers, or nobody, would write it."""
    norm = PREFIX + "qformer_proj_norm.bias"
    patch = PREFIX + "audio_encoder.patch_embed_a.proj.weight"
    made: dict[str, dict[Any, Any]] = {
        "sparse": {norm: torch.ones(8).to_sparse()},
        "meta": {norm: torch.ones(8, device="meta")},
        "complex": {norm: torch.ones(8, dtype=torch.complex64)},
        "whole numbers": {norm: torch.ones(8, dtype=torch.int64)},
        "nan": {norm: torch.full((8,), torch.nan)},
        "number for a name": {5: torch.ones(8)},
        "patch of nothing": {patch: torch.zeros(8, 1, 16, 0)},
        "patch of 200": {patch: torch.zeros(8, 1, 200, 200)},
    }
    return {**state, **made[change]}


@pytest.mark.filterwarnings("ignore:Sparse invariant")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("sparse", "not-a-state-dict"),
        ("meta", "not-a-state-dict"),
        ("complex", "not-a-state-dict"),
        ("whole numbers", "not-a-state-dict"),
        ("nan", "not-finite"),
        ("number for a name", "not-a-state-dict"),
        ("patch of nothing", "wrong-config"),
        ("patch of 200", "wrong-config"),
    ],
)
def test_tensors_that_cannot_be_weights_are_refused(tmp_path: Path, shallow: Path, change: str, code: str) -> None:
    """Typed errors, and nothing is left behind."""
    file = _stage(tmp_path, _hostile(change, published(layers=SHALLOW)))
    with pytest.raises(ModelError) as refused:
        convert(file, shallow, tmp_path / "gama", head_size=HEAD_SIZE)
    assert refused.value.code == code
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path, shallow: Path) -> None:
    """Two parts of one block of memory, and one tensor under two names."""
    weight, bias = (f"{PREFIX}qformer_proj_norm.{kind}" for kind in ("weight", "bias"))
    both = torch.arange(16.0)
    for name, change in (("parts", {weight: both[:8], bias: both[8:]}), ("one", {weight: both[:8], bias: both[:8]})):
        file = _stage(tmp_path, {**published(layers=SHALLOW), **change})
        convert(file, shallow, tmp_path / name, head_size=HEAD_SIZE)
        own = dict(GamaModel.from_pretrained(tmp_path / name).named_parameters())
        torch.testing.assert_close(own["qformer_norm.weight"].detach(), change[weight])
        torch.testing.assert_close(own["qformer_norm.bias"].detach(), change[bias])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_no_damage_escapes_the_reader(tmp_path: Path, zipped: bool) -> None:  # noqa: FBT001
    """Cut files and flipped bytes in both forms of .bin, and a type of safetensors that is none: typed errors only."""
    whole, file = io.BytesIO(), tmp_path / "stage.bin"
    torch.save({PREFIX + "query_tokens": torch.zeros(1, 3, 8)}, whole, _use_new_zipfile_serialization=zipped)
    data, rng = whole.getvalue(), random.Random(3)
    damaged = [data[:size] for size in range(0, len(data), 23)]
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 2, 5))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        damaged.append(bytes(changed))
    codes = set()
    for one in damaged:
        file.write_bytes(one)
        try:
            read_stage(file)
        except GrymError as error:
            codes.add(error.code)
    assert "broken-file" in codes
    assert codes <= {"broken-file", "pickled-code", "not-a-state-dict", "not-finite"}
    tensors = tmp_path / "stage.safetensors"
    save_file({"a": torch.zeros(4)}, tensors)
    tensors.write_bytes(tensors.read_bytes().replace(b'"F32"', b'"F99"'))
    with pytest.raises(ModelError) as refused:
        read_stage(tensors)
    assert refused.value.code == "broken-file"


def test_llama_folders_that_make_no_model_are_refused(tmp_path: Path, shallow: Path) -> None:
    """Sizes of no network, and no tokenizer; said before anything is written."""
    file = _stage(tmp_path, published(layers=SHALLOW))
    config = json.loads((shallow / "config.json").read_text())
    changes: tuple[dict[str, Any], ...] = (
        {"num_attention_heads": 0}, {"num_attention_heads": 5}, {"hidden_size": "x"}, {"bos_token_id": [1]},
        {"hidden_act": "nope"}, {"max_position_embeddings": 10},
    )  # fmt: skip
    base = tmp_path / "llama"
    shutil.copytree(shallow, base)
    for change in changes:
        (base / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
        with pytest.raises(ModelError) as refused:
            convert(file, base, tmp_path / "gama", head_size=HEAD_SIZE)
        assert refused.value.code == "wrong-config", change
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (base / "tokenizer.json").unlink()
    with pytest.raises(ModelError) as refused:
        convert(file, base, tmp_path / "gama", head_size=HEAD_SIZE)
    assert refused.value.code == "no-tokenizer"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama", "pytorch_model.bin"]


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, shallow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing fails half way, the folder that was begun is removed."""

    def full(*_args: object) -> None:
        raise OSError

    monkeypatch.setattr(converting, "_write_shards", full)
    with pytest.raises(OSError):  # noqa: PT011 - whatever the disk says
        convert(_stage(tmp_path, published(layers=SHALLOW)), shallow, tmp_path / "gama", head_size=HEAD_SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_sharded_folders_and_surplus_weights(tmp_path: Path, shallow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published Llama folder is in shards and holds audio weights that the stage file replaces."""
    monkeypatch.setattr(converting, "SHARD_BYTES", 2_000)
    base = tmp_path / "llama"
    shutil.copytree(shallow, base)
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    surplus = {
        "model.audio_encoder.blocks_v.0.norm1.weight": torch.zeros(4),
        "model.layers.0.rotary_emb.inv_freq": torch.zeros(2),
    }
    shards = [dict(list(tensors.items())[:5]), {**dict(list(tensors.items())[5:]), **surplus}]
    names = [f"model-0000{n + 1}-of-00002.safetensors" for n in range(2)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, base / name)
    index = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), encoding="utf-8")
    file = tmp_path / "stage.safetensors"
    save_file({name: value.contiguous() for name, value in published(layers=SHALLOW).items()}, file)
    done = convert(file, base, tmp_path / "gama", head_size=HEAD_SIZE)
    assert set(done.surplus) == set(surplus)
    assert len(list((tmp_path / "gama").glob("model-*.safetensors"))) > 3
    assert torch.isfinite(_logits(GamaModel.from_pretrained(tmp_path / "gama"))).all()


def test_names_of_a_llama_folder() -> None:
    """Adapted layers get their base name, others stay, what is not Llama is left out."""
    targets = ["q_proj", "v_proj"]
    assert llama_name("model.layers.0.self_attn.q_proj.weight", targets) == (
        "language_model.model.layers.0.self_attn.q_proj.base_layer.weight"
    )
    assert llama_name("lm_head.weight", targets) == "language_model.lm_head.weight"
    assert llama_name("model.query_tokens", targets) is None


def test_the_process_says_what_it_did(tmp_path: Path, shallow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The conversion as a line of JSON, errors too; in its own process they come back typed."""
    file = _stage(tmp_path, published(layers=SHALLOW))
    arguments = [str(file), str(shallow), str(tmp_path / "gama"), "--head-size", str(HEAD_SIZE)]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["done"]["folder"] == str(tmp_path / "gama")
    assert main(arguments) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "exists"
    with pytest.raises(ConfigError) as refused:
        run_conversion(file, shallow, tmp_path / "gama")
    assert refused.value.code == "exists"
    with pytest.raises(WorkerError) as failed:
        ask("grym.no_such_module", [])
    assert failed.value.code == "conversion-failed"
