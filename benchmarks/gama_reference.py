"""Runs a checkout of the published GAMA code at small size and writes what it computes, as arrays.

Holds nothing of that code, and is no part of the platform: ``benchmarks.gama_parity``
starts it in a process of its own, with the checkout on the path. The checkout is a
fork of an old transformers; it runs beside the torch that is installed, with old
tokenizers, huggingface-hub and accelerate in a folder of their own.

Its sizes are literals in the code. They are made small from outside: by a stand-in
for ``torch.nn`` in one module's namespace, and by configurations that do not let
themselves be changed. Weights and inputs come from a counter-based generator
(:func:`fill`), so that nobody has to store them.
"""

from __future__ import annotations

import sys
import types
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, HIDDEN, VOCABULARY, LAYERS = 32, 64, 50, 2  # encoder; language model
LITERALS = {768: WIDTH, 4096: HIDDEN}
FRAMES, MELS = 1024, 128
IDS = [[1, 7, 12, 30, 4, 9], [1, 44, 3, 3, 21, 8]]
LORA_RANK = 2


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Numbers in [-0.25, 0.25) that depend on a name and a shape only (splitmix64); around 1 for scales of norms."""
    count = int(np.prod(shape, dtype=np.int64))
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))) * step
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    unit = ((state ^ (state >> np.uint64(31))) >> np.uint64(40)).astype(np.float64) / 2.0**24
    centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
    return ((unit - 0.5) * 0.5 + centre).astype(np.float32).reshape(shape)


def inputs() -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Spectrograms, float32 ``shape = (2, 1024, 128)``, and token ids, int64 ``shape = (2, 6)``."""
    return 8 * fill("spectrogram", (2, FRAMES, MELS)), np.asarray(IDS, dtype=np.int64)


def main() -> None:
    """``python gama_reference.py OUT``: every weight's shape and what the stages of the network give, as npz."""
    model = _build()
    prefixed = {name: value for name, value in model.state_dict().items() if "inv_freq" not in name}
    _set(prefixed)
    seen = _run(model)
    # Everything that is stored and said to be without effect, changed: what changes then?
    dead = [name for name in prefixed if any(sign in name for sign in _DEAD_SIGNS)]
    dead += [name for name in prefixed if "blocks_a" in name and ("norm1_" in name or "norm2_" in name)]
    dead += [
        name for name in prefixed if "blocks_u" in name and ("norm1." in name or "norm2." in name or "_v." in name)
    ]
    _set({name: prefixed[name] for name in dead}, salt="other ")
    again = _run(model)
    shapes = {f"shape/{name}": np.asarray(value.shape, np.int64) for name, value in prefixed.items()}
    moved = np.asarray(float(np.abs(seen["logits"] - again["logits"]).max()))
    arrays: dict[str, Any] = {**seen, **shapes, "dead_names": np.asarray(sorted(dead)), "dead_effect": moved}
    np.savez_compressed(sys.argv[1], **arrays)


_DEAD_SIGNS = (
    "norm_j", "norm_k", "aggregator_layer_1.crossattention", "aggregator_layer_2.crossattention",
    "aggregator_layer_1.intermediate_query", "aggregator_layer_2.intermediate_query",
    "aggregator_layer_1.output_query", "aggregator_layer_2.output_query",
)  # fmt: skip


def _build() -> Any:
    """The published model with LoRA, small, without its downloads."""
    _lend_missing()
    import peft
    import torch
    from transformers.models.llama import Qformer, modeling_llama
    from transformers.models.llama.configuration_llama import LlamaConfig

    small = _small_bert(Qformer.BertConfig)
    modeling_llama.BertConfig = types.SimpleNamespace(from_pretrained=lambda _name: small())
    modeling_llama.BertLMHeadModel = types.SimpleNamespace(
        from_pretrained=lambda _name, config: Qformer.BertLMHeadModel(config)
    )
    words = types.SimpleNamespace(add_special_tokens=lambda _tokens: None, __len__=lambda: VOCABULARY)
    modeling_llama.BertTokenizer = types.SimpleNamespace(from_pretrained=lambda _name, **_options: _Sized(words))
    encoder = modeling_llama.CAVMAEFTAudio
    modeling_llama.CAVMAEFTAudio = lambda: encoder(embed_dim=WIDTH, num_heads=4, mlp_ratio=2.0)
    modeling_llama.nn = _StandIn(torch.nn)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=LAYERS,
        num_attention_heads=4, rms_norm_eps=1e-5, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    for name, value in (("max_position_embeddings", 512), ("num_key_value_heads", 4), ("pretraining_tp", 1)):
        setattr(config, name, value)
    config.rope_scaling = None
    llama = modeling_llama.LlamaForCausalLM(config)
    lora = peft.LoraConfig(
        r=LORA_RANK, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.0, bias="none",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return peft.get_peft_model(llama, lora).eval()


def _small_bert(base: Any) -> Any:
    class Small(base):  # type: ignore[misc]
        """A BERT configuration whose encoder width stays what it is."""

        def __init__(self) -> None:
            super().__init__(
                vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=4, num_attention_heads=4,
                intermediate_size=48, layer_norm_eps=1e-12, max_position_embeddings=512,
            )  # fmt: skip

        encoder_width = property(lambda _self: WIDTH, lambda _self, _value: None)

    return Small


class _Sized:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __len__(self) -> int:
        return VOCABULARY


class _StandIn:
    """``torch.nn`` with other sizes for the literals of the published code."""

    def __init__(self, nn: Any) -> None:
        self._nn = nn

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._nn, name)
        return _resized(found) if name in {"Linear", "LayerNorm"} else found


def _resized(layer: Any) -> Any:
    class Small(layer):  # type: ignore[misc]
        """The same layer with small sizes for the literals."""

        def __init__(self, *sizes: int, **options: Any) -> None:
            super().__init__(*(LITERALS.get(size, size) for size in sizes), **options)

    return Small


def _lend_missing() -> None:
    """Names that old code expects of its libraries, and modules of it that nothing here runs."""
    for name, kind in (("float", float), ("int", int), ("bool", bool), ("object", object)):
        if name not in np.__dict__:
            setattr(np, name, kind)
    modules: dict[str, dict[str, Callable[..., None]]] = {
        "torchlibrosa": {}, "torchlibrosa.stft": {"Spectrogram": _unused, "LogmelFilterBank": _unused},
        "torchlibrosa.augmentation": {"SpecAugmentation": _unused},
    }  # fmt: skip
    for name, members in modules.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module


def _unused(*_values: object) -> None:
    """Stands for a class of a code path that is never taken."""


def _set(state: dict[str, Any], salt: str = "") -> None:
    import torch

    with torch.no_grad():
        for name, value in state.items():
            if value.dtype.is_floating_point:
                value.copy_(torch.from_numpy(fill(salt + name, tuple(value.shape))))


def _run(model: Any) -> dict[str, Any]:
    """Outputs of the stages, float32."""
    import torch

    spectrogram, ids = inputs()
    core = model.base_model.model.model
    kept: dict[str, Any] = {}
    parts = {
        "encoder": core.audio_encoder, "qformer": core.Qformer.bert, "aggregator": core.audio_aggregator_layer_2,
        "first_layer": core.layers[0],
    }  # fmt: skip

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, given: tuple[Any, ...], out: Any) -> None:
            kept[name] = (given[0] if name == "first_layer" else out[0]).detach().numpy()

        return hook

    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids), audio_input=torch.from_numpy(spectrogram)).logits.numpy()
    for hook in hooks:
        hook.remove()
    prefix = kept["first_layer"][:, : -ids.shape[1]]
    return {
        "encoder": kept["encoder"][:, ::16], "qformer": kept["qformer"], "aggregator": kept["aggregator"],
        "prefix": prefix, "logits": logits,
    }  # fmt: skip


if __name__ == "__main__":
    main()
