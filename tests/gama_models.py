"""Tiny GAMA models, tokenizers and published-looking checkpoints, made in the test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from grym.models.gama.configuration import GamaConfig
from grym.models.gama.modeling import GamaModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADS = 4


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny matrices on several cores only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_config(**changes: Any) -> GamaConfig:
    """Every size small: windows of 0.64 s, 4 queries and 4 time tokens."""
    small = {"hidden_size": 32, "num_attention_heads": HEADS, "intermediate_size": 48}
    sizes: dict[str, Any] = {
        "audio_config": {**small, "num_mel_bins": 32, "target_frames": 64, "num_hidden_layers": 10},
        "qformer_config": {**small, "num_hidden_layers": 2, "encoder_hidden_size": 32},
        "aggregator_config": {**small, "num_hidden_layers": 2},
        "text_config": {
            "vocab_size": 300, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": HEADS, "max_position_embeddings": 400, "bos_token_id": 1, "eos_token_id": 2,
            "pad_token_id": 0,
        },
        "num_query_tokens": 4,
        "lora_rank": 2,
        "lora_alpha": 4.0,
    }  # fmt: skip
    return GamaConfig(**{**sizes, **changes})


def random_model(config: GamaConfig | None = None, seed: int = 0, scale: float = 0.2) -> GamaModel:
    """A model whose every weight matters: zeros of fresh adapters and biases would hide mistakes."""
    torch.manual_seed(seed)
    model: GamaModel = GamaModel(config or tiny_config()).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, scale)
    return model


def tokenizer() -> Any:
    """A byte-level tokenizer with a few words: any text can be spelt."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def save(folder: Path, model: GamaModel | None = None) -> Path:
    """A folder as a training leaves it."""
    (model or random_model()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def tone(seconds: float, pitch: float = 440.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A tone that fades in and out every second, float32 at 16 kHz."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * pitch * time) * np.abs(np.sin(np.pi * time))).astype(np.float32)


def published(width: int = 8, hidden: int = 16, layers: int = 32, rank: int = 2) -> dict[str, torch.Tensor]:  # noqa: C901 - a helper for each kind
    """A stage file with the 708 names of the published ones, small and random."""
    generator = torch.Generator().manual_seed(7)
    inner, patch, columns, queries = 12, 16, 4, 3
    shapes: dict[str, tuple[int, ...]] = {
        "query_tokens": (1, queries, width),
        "audio_encoder.modality_a": (1, 1, width),
        "audio_encoder.pos_embed_a": (1, 8 * columns, width),
        "audio_encoder.patch_embed_a.proj.weight": (width, 1, patch, patch),
        "audio_encoder.patch_embed_a.proj.bias": (width,),
        "Qformer.bert.embeddings.position_ids": (1, 512),
    }

    def linear(name: str, out: int, into: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width,), (width,)

    def attention(name: str) -> None:
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{name}.{part}", width, width)
        norm(f"{name}.output.LayerNorm")

    def feed_forward(name: str, suffix: str = "") -> None:
        linear(f"{name}.intermediate{suffix}.dense", inner, width)
        linear(f"{name}.output{suffix}.dense", width, inner)
        norm(f"{name}.output{suffix}.LayerNorm")

    for block in [*(f"audio_encoder.blocks_a.{i}" for i in range(11)), "audio_encoder.blocks_u.0"]:
        linear(f"{block}.attn.qkv", 3 * width, width)
        linear(f"{block}.attn.proj", width, width)
        linear(f"{block}.mlp.fc1", inner, width)
        linear(f"{block}.mlp.fc2", width, inner)
        for kind in ("norm1", "norm1_a", "norm1_v", "norm2", "norm2_a", "norm2_v"):
            norm(f"{block}.{kind}")
    for kind in ("norm_a", "norm_j", "norm_k"):
        norm(f"audio_encoder.{kind}")
    norm("Qformer.bert.embeddings.LayerNorm")
    for i in range(12):
        attention(f"Qformer.bert.encoder.layer.{i}.attention")
        if i % 2 == 0:
            attention(f"Qformer.bert.encoder.layer.{i}.crossattention")
        feed_forward(f"Qformer.bert.encoder.layer.{i}", "_query")
    norm("qformer_proj_norm")
    for i in (1, 2):
        attention(f"audio_aggregator_layer_{i}.attention")
        attention(f"audio_aggregator_layer_{i}.crossattention")
        feed_forward(f"audio_aggregator_layer_{i}")
        feed_forward(f"audio_aggregator_layer_{i}", "_query")
    for branch in ("audio_proj_qformer", "audio_proj_audioenc"):
        linear(f"{branch}.0", hidden, width)
        linear(f"{branch}.2", hidden, hidden)
    for i in range(layers):
        for target in ("q_proj", "v_proj"):
            shapes[f"layers.{i}.self_attn.{target}.lora_A.default.weight"] = (rank, hidden)
            shapes[f"layers.{i}.self_attn.{target}.lora_B.default.weight"] = (hidden, rank)
    return {
        f"base_model.model.model.{name}": torch.arange(512)[None]
        if name.endswith("position_ids")
        else 0.3 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def llama_folder(folder: Path, hidden: int = 16, layers: int = 32) -> Path:
    """A Llama folder in Hugging Face form, small and random, with a tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=300, hidden_size=hidden, intermediate_size=24, num_hidden_layers=layers, num_attention_heads=2,
        max_position_embeddings=256, rms_norm_eps=1e-5,
    )  # fmt: skip
    folder.mkdir(parents=True)
    tokenizer().save_pretrained(folder)
    model = LlamaForCausalLM(config)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    return folder
