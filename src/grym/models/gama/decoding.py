"""Greedy decoding of a Llama with a key-value cache, without what a general loop does around every step.

A step of a small language model is over in a millisecond or two, most of which the library's ``generate`` spends on
masks, on copying its cache and on asking its criteria. Here the cache is allocated in blocks and written in place,
rotations are computed once, and the matrices of a small network are joined and laid out for one row at a time. Those
of a large one, adapters and quantised weights stay the network's own modules. ``B`` is the batch, ``L`` the longest
input, ``H`` the width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from grym.models.gama.modeling import Sequence

BLOCK: Final = 64  # positions that the cache grows by
MOVING_ROPES: Final = ("dynamic", "longrope")  # their angles depend on how long the text has become
JOINED_BYTES: Final = (
    64 << 20
)  # matrices are copied to be joined, at the start of every call: only where that is little


def follows(llama: Any) -> bool:
    """Whether :func:`greedy` computes what the library computes for this language model."""
    return llama.config.model_type == "llama" and llama.model.rotary_emb.rope_type not in MOVING_ROPES


@torch.no_grad()
def greedy(
    llama: Any, given: Sequence, *, max_new_tokens: int, ends: Collection[int], pad: int, min_new_tokens: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The most probable token at every step until each row has ended.

    Args:
        llama: a ``LlamaForCausalLM`` in evaluation mode, on any device.
        given: what stands in front, padded on the left.
        max_new_tokens: limit of an answer, its end included.
        ends: ids that end a text.
        pad: id behind the end of rows that ended before others.
        min_new_tokens: steps at which no row may end.

    Returns:
        Ids, int64 ``shape = (B, new)``, and the network's log-probability of each, float32 of the same shape. A row
        whose distribution is not a number gets id 0 and NaN.
    """
    network = llama.model
    batch, length = given.mask.shape
    seen = given.mask.bool()
    padded = not bool(seen.all())
    # Angles of all positions that may come: the input's, then one for each new token.
    later = seen.sum(dim=1, keepdim=True) + torch.arange(max_new_tokens, device=seen.device)
    cosines, sines = network.rotary_emb(given.embeddings, torch.cat([given.positions, later], dim=1))
    half = sines.shape[-1] // 2
    sines = torch.cat([-sines[..., :half], sines[..., half:]], dim=-1)[:, None]
    cosines = cosines[:, None]
    cache = _Cache(network, given.embeddings, length)
    layers, logits = _parts(llama)
    hidden, start = given.embeddings.flatten(0, 1), 0
    stops = torch.tensor(sorted(ends), device=seen.device)
    going = torch.ones(batch, dtype=torch.bool, device=seen.device)
    ids: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    for number in range(max_new_tokens):
        stop = start + len(hidden) // batch
        cache.reserve(stop)
        allowed = _allowed(seen, start) if padded else None
        turn = cosines[:, :, start:stop], sines[:, :, start:stop]
        for parts, keys, values in zip(layers, cache.keys, cache.values, strict=True):
            hidden = _layer(parts, hidden, turn, keys[:, :, :stop], values[:, :, :stop], allowed)
        last = hidden if number else hidden.view(batch, length, -1)[:, -1]
        scores = logits(last).float().log_softmax(-1)
        free = scores.index_fill(1, stops, -torch.inf) if number < min_new_tokens else scores
        chosen = torch.where(going, free.argmax(dim=-1), pad)
        ids.append(chosen)
        kept.append(scores.gather(1, chosen[:, None])[:, 0])
        going = going & (chosen[:, None] != stops).all(dim=1)
        if not bool(going.any()):
            break
        hidden, start = network.embed_tokens(chosen).to(given.embeddings.dtype), stop
        if padded:
            seen = F.pad(seen, (0, 1), value=True)
    return torch.stack(ids, dim=1), torch.stack(kept, dim=1)


@dataclass(frozen=True, slots=True)
class _Parts:
    """One decoder layer: functions of ``shape = (rows, H)``, the norm in front of each included."""

    attention: Any
    heads: Callable[[torch.Tensor], torch.Tensor]  # queries, keys and values side by side
    out: Callable[[torch.Tensor], torch.Tensor]
    mlp: Callable[[torch.Tensor], torch.Tensor]


def _parts(llama: Any) -> tuple[list[_Parts], Callable[[torch.Tensor], torch.Tensor]]:
    """The decoder layers, and what gives logits."""
    layers = llama.model.layers
    taken = [weight for part in (*layers, llama.lm_head) for weight in part.parameters()]
    plain = all(type(part) is nn.Linear and part.bias is None for layer in layers for part in _matrices(layer))
    small = sum(weight.numel() for weight in taken) * 4 <= JOINED_BYTES
    if plain and small and all(weight.dtype == torch.float32 for weight in taken):
        logits = _joined(llama.model.norm, [llama.lm_head])
        return [_Parts(layer.self_attn, *_joined_parts(layer)) for layer in layers], logits
    return [_module_parts(layer) for layer in layers], lambda rows: llama.lm_head(_norm(llama.model.norm, rows))


def _matrices(layer: Any) -> list[Any]:
    attention, mlp = layer.self_attn, layer.mlp
    attending = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    return [*attending, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def _module_parts(layer: Any) -> _Parts:
    attention = layer.self_attn

    def heads(rows: torch.Tensor) -> torch.Tensor:
        normed = _norm(layer.input_layernorm, rows)
        return torch.cat([attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)], dim=-1)

    def mlp(rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = layer.mlp(_norm(layer.post_attention_layernorm, rows))
        return found

    return _Parts(attention, heads, attention.o_proj, mlp)


def _joined_parts(layer: Any) -> tuple[Callable[[torch.Tensor], torch.Tensor], ...]:
    query, key, value, out, gate, up, down = _matrices(layer)
    wide = _joined(layer.post_attention_layernorm, [gate, up])
    act: nn.Module = layer.mlp.act_fn
    back, narrow = out.weight.t().contiguous(), down.weight.t().contiguous()

    def mlp(rows: torch.Tensor) -> torch.Tensor:
        opened, risen = wide(rows).chunk(2, dim=-1)
        found: torch.Tensor = (act(opened) * risen) @ narrow
        return found

    return _joined(layer.input_layernorm, [query, key, value]), lambda rows: rows @ back, mlp


def _joined(norm: Any, parts: list[Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Several matrices behind one norm as one matrix, the norm's weight and the root of its width in it."""
    weight = torch.cat([part.weight for part in parts])
    width = weight.shape[1]
    matrix = (weight * (norm.weight * width**0.5)).t().contiguous()
    # x / rms(x) = sqrt(H) x / hypot(|x|, sqrt(H eps)): three kernels, where the library's norm has ten.
    least = torch.tensor((width * norm.variance_epsilon) ** 0.5, device=weight.device)

    def joined(rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = (rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True).hypot(least)) @ matrix
        return found

    return joined


class _Cache:
    """Keys and values of every layer, ``shape = (B, heads, room, width of a head)``."""

    def __init__(self, network: Any, like: torch.Tensor, length: int) -> None:
        first = network.layers[0].self_attn
        heads = network.config.num_key_value_heads
        self.room = (length // BLOCK + 1) * BLOCK
        shape = (like.shape[0], heads, self.room, first.head_dim)
        self.keys = [like.new_empty(shape) for _ in network.layers]
        self.values = [like.new_empty(shape) for _ in network.layers]

    def reserve(self, length: int) -> None:
        """Make room for so many positions; layer by layer, so that little stands in memory twice."""
        if length <= self.room:
            return
        more = (length - self.room + BLOCK - 1) // BLOCK * BLOCK
        for kept in (self.keys, self.values):
            for index, tensor in enumerate(kept):
                kept[index] = F.pad(tensor, (0, 0, 0, more))
        self.room += more


def _allowed(seen: torch.Tensor, start: int) -> torch.Tensor:
    """Which positions each new one may look at, bool ``shape = (B, 1, new, all)``."""
    total = seen.shape[1]
    place = torch.arange(total, device=seen.device)
    allowed = seen[:, None, :] & (place[None, :] <= place[start:, None])
    # Filling looks at itself: nothing reads what it gives, and a row that may look at nothing would be NaN.
    return (allowed | (place[None, :] == place[start:, None]))[:, None]


def _layer(
    parts: _Parts,
    hidden: torch.Tensor,
    turn: tuple[torch.Tensor, torch.Tensor],
    keys: torch.Tensor,
    values: torch.Tensor,
    allowed: torch.Tensor | None,
) -> torch.Tensor:
    """One layer over ``hidden``, ``shape = (B * new, H)``; fills the last ``new`` places of ``keys`` and ``values``."""
    attention = parts.attention
    batch, shared = keys.shape[:2]
    new = len(hidden) // batch
    fused = parts.heads(hidden).view(batch, new, -1, attention.head_dim).transpose(1, 2)
    # Queries and keys are turned in one go: rotary position embedding, Su et al. (2021), §3.4.2, for weights whose
    # pairs are the two halves of a head; the sines of the first half carry the minus.
    both = fused[:, :-shared]
    first, second = both.chunk(2, dim=-1)
    both = torch.addcmul(both * turn[0], torch.cat((second, first), dim=-1), turn[1])
    keys[:, :, -new:] = both[:, -shared:]
    values[:, :, -new:] = fused[:, -shared:]
    mixed = F.scaled_dot_product_attention(
        both[:, :-shared],
        keys,
        values,
        attn_mask=allowed,
        is_causal=allowed is None and new > 1,
        scale=attention.scaling,
        enable_gqa=attention.num_key_value_groups > 1,
    )
    hidden = hidden + parts.out(mixed.transpose(1, 2).reshape(batch * new, -1))
    return hidden + parts.mlp(hidden)


def _norm(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)
