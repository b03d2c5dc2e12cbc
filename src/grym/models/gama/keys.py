"""Names of the published checkpoints and the names that the same tensors have here.

Knows nothing about files or tensors, only names. A published name is live (it has a
name here), dead (it is stored, but nothing depends on it) or unknown (an error).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX: Final = "base_model.model.model."
LORA: Final = re.compile(r"layers\.(\d+)\.self_attn\.(\w+)\.lora_([AB])\.default\.weight")
_WB: Final = r"(weight|bias)"

# What is stored and never used. The released aggregator computes a cross-attention and throws it away; each block has
# three pairs of norms and is called with one of them; the norms of the taps feed that cross-attention only.
_DEAD: Final[tuple[tuple[str, str], ...]] = (
    (rf"audio_encoder\.norm_[jk]\.{_WB}", "norm of a middle layer, read by the unused cross-attention"),
    (rf"audio_encoder\.blocks_a\.\d+\.norm[12]_[av]\.{_WB}", "norm of another modality"),
    (rf"audio_encoder\.blocks_u\.\d+\.norm[12](_v)?\.{_WB}", "norm of another modality"),
    (r"audio_aggregator_layer_\d+\.(crossattention|intermediate_query|output_query)\..+", "unused cross-attention"),
    (r"Qformer\.bert\.embeddings\.position_ids", "constant"),
    (r"audio_encoder\.(?:pos_embed_v|modality_v|(?:patch_embed_v|blocks_v|norm_v)\..+)", "visual part"),
)
# Names with their counterpart here; ``{u}`` is the block that follows those of ``blocks_a``.
_LIVE: Final[tuple[tuple[str, str], ...]] = (
    (r"query_tokens", "query_tokens"),
    (rf"qformer_proj_norm\.{_WB}", r"qformer_norm.\1"),
    (r"audio_encoder\.pos_embed_a", "audio_tower.position"),
    (r"audio_encoder\.modality_a", "audio_tower.modality"),
    (rf"audio_encoder\.patch_embed_a\.proj\.{_WB}", r"audio_tower.patch.\1"),
    (rf"audio_encoder\.norm_a\.{_WB}", r"audio_tower.norm.\1"),
    (rf"audio_encoder\.blocks_a\.(\d+)\.norm([12])\.{_WB}", r"audio_tower.blocks.\1.norm\2.\3"),
    (rf"audio_encoder\.blocks_u\.0\.norm([12])_a\.{_WB}", r"audio_tower.blocks.{u}.norm\1.\2"),
    (rf"audio_encoder\.blocks_a\.(\d+)\.(?:attn|mlp)\.(qkv|proj|fc1|fc2)\.{_WB}", r"audio_tower.blocks.\1.\2.\3"),
    (rf"audio_encoder\.blocks_u\.0\.(?:attn|mlp)\.(qkv|proj|fc1|fc2)\.{_WB}", r"audio_tower.blocks.{u}.\1.\2"),
    (rf"Qformer\.bert\.embeddings\.LayerNorm\.{_WB}", r"qformer.layernorm.\1"),
    (r"Qformer\.bert\.encoder\.layer\.(\d+)\.(attention|crossattention)\.self\.(.+)",
     r"qformer.encoder.layer.\1.\2.attention.\3"),
    (r"Qformer\.bert\.encoder\.layer\.(\d+)\.((?:(?:cross)?attention\.output|intermediate_query|output_query)\..+)",
     r"qformer.encoder.layer.\1.\2"),
    (r"audio_aggregator_layer_([12])\.((?:attention|intermediate|output)\..+)", r"aggregator.layers.{n\1}.\2"),
    (rf"audio_proj_qformer\.0\.{_WB}", r"projector.qformer.linear1.\1"),
    (rf"audio_proj_qformer\.2\.{_WB}", r"projector.qformer.linear2.\1"),
    (rf"audio_proj_audioenc\.0\.{_WB}", r"projector.aggregator.linear1.\1"),
    (rf"audio_proj_audioenc\.2\.{_WB}", r"projector.aggregator.linear2.\1"),
    (r"(layers\.\d+\.self_attn\.\w+\.lora_[AB]\.default\.weight)", r"language_model.model.\1"),
)  # fmt: skip
_SURPLUS: Final = re.compile(r"rotary_emb\.inv_freq|audio|Qformer|qformer|query_tokens")


@dataclass(frozen=True, slots=True)
class Mapped:
    """Published names, sorted out.

    Attributes:
        live: published name to the name here.
        dead: published name to why nothing depends on it.
        unknown: names that no published checkpoint has.
    """

    live: dict[str, str]
    dead: dict[str, str]
    unknown: tuple[str, ...]


def translate(names: Iterable[str]) -> Mapped:
    """Sort the names of a stage file out; see the module."""
    given = list(names)
    blocks = [int(m[1]) for name in given if (m := re.search(r"blocks_a\.(\d+)\.", name))]
    fixed = {"{u}": str(max(blocks, default=-1) + 1), "{n1}": "0", "{n2}": "1"}
    live: dict[str, str] = {}
    dead: dict[str, str] = {}
    unknown: list[str] = []
    for name in given:
        bare = name.removeprefix(PREFIX)
        ours, why = _live(bare), _dead(bare)
        if bare == name or not (ours or why):
            unknown.append(name)
        elif ours:
            for sign, value in fixed.items():
                ours = ours.replace(sign, value)
            live[name] = ours
        else:
            dead[name] = why
    return Mapped(live, dead, tuple(unknown))


def llama_name(name: str, lora_targets: Iterable[str]) -> str | None:
    """Name here of a tensor of a Llama folder; ``None`` for what the stage file brings, or is computed."""
    if _SURPLUS.search(name):
        return None
    parts = name.split(".")
    if len(parts) > 1 and parts[-2] in lora_targets:
        parts.insert(-1, "base_layer")
    return ".".join(["language_model", *parts])


def _live(name: str) -> str:
    for pattern, target in _LIVE:
        found = re.fullmatch(pattern, name)
        if found is not None:
            # Positions in braces are filled in later; expand() leaves them alone.
            return found.expand(target)
    return ""


def _dead(name: str) -> str:
    return next((why for pattern, why in _DEAD if re.fullmatch(pattern, name)), "")
