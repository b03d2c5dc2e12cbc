"""CTC encoders rebuilt for CPUs: the same sums with packed weights, fused activations and small working sets.

Replaces parts of a Hugging Face network in place, for one clip at a time without
padding. Three things make it faster than the library's own layers:

* weights are packed once for oneDNN, in float32, bfloat16 or int8, and GELU is computed where the product is;
* the front end works on ``(frames, channels)``, a stretch of audio at a time, so that what passes between its
  layers stays in the caches. The group norm, which spans the whole clip, is folded into the first convolution:
  its statistics follow from the second moments of the samples under the kernel;
* weight norm is folded, and one product makes queries, keys and values.

Whatever a network has that is not recognised keeps the library's layer. Knows
nothing about clips, windows or checkpoints. Frames are rows; no batch dimension
unless a docstring says so.
"""

# ruff: noqa: SLF001 - torch keeps the operations that its compiler uses under private names
from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from grym.models._dense import Dense, Kind, Window, dense, filled, onednn

# Output frames of the front end that are computed together: two seconds of audio, 6 MB between its first layers.
STRETCH_FRAMES: Final = 100
# Silence fills a clip's last stretch up to a multiple of this many frames; see :func:`grym.models._dense.filled`.
STRETCH_STEP: Final = 20
# Rows of attention scores that are computed together; bounds memory on long windows.
QUERY_ROWS: Final = 384
# Frames that the position convolution's weights are laid out for; any number works.
TYPICAL_FRAMES: Final = 256
ONES: Final = [1, 1]
# Their attention is the plain one: softmax(q k) v, without biases that depend on position.
PLAIN_ATTENTION: Final = frozenset({"wav2vec2", "hubert", "data2vec-audio"})


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Number formats of a network's parts.

    Attributes:
        products: of the linear layers and of all convolutions of the front end but the first.
        rest: of attention and of the position convolution.
        states: of what passes between layers.
    """

    products: Kind
    rest: torch.dtype
    states: torch.dtype


ARITHMETIC: Final = {
    "fp32": Arithmetic("fp32", torch.float32, torch.float32),
    "bf16": Arithmetic("bf16", torch.bfloat16, torch.bfloat16),
    "int8": Arithmetic("int8", torch.float32, torch.float32),
    "int8-bf16": Arithmetic("int8", torch.bfloat16, torch.float32),
}


def rebuild(network: Any, precision: str) -> None:
    """Replace the layers of a CTC network by faster ones, in place; the CTC head stays as it is.

    Args:
        network: a CTC network of the transformers library, float32, on CPU, in evaluation mode.
        precision: one of :data:`ARITHMETIC`.
    """
    config = network.config
    base = getattr(network, network.base_model_prefix)
    numbers = ARITHMETIC[precision]
    front = FrontEnd.of(base.feature_extractor, numbers)
    encoder = base.encoder
    position = PositionConvolution.of(encoder.pos_conv_embed, numbers)
    for layer in encoder.layers:
        if config.model_type in PLAIN_ATTENTION:
            layer.attention = Attention(layer.attention, numbers)
        if _is_gelu(layer.feed_forward.intermediate_act_fn):
            layer.feed_forward = FeedForward(layer.feed_forward, numbers)
    network.to(numbers.states)
    # After the change of type: these have made theirs for what they hold.
    projection = base.feature_projection.projection
    base.feature_projection.projection = _Linear(projection, numbers)
    network.to(numbers.states)
    network.lm_head.float()
    # After the change of type, which they have made already for what they hold.
    base.feature_extractor = front or base.feature_extractor
    encoder.pos_conv_embed = position or encoder.pos_conv_embed
    # The few that are left would keep the whole file of the checkpoint mapped.
    for left in network.parameters():
        left.data = left.data.clone()


class FrontEnd(torch.nn.Module):
    """The convolutions on the waveform: samples ``shape = (samples,)`` to ``(frames, channels)``."""

    def __init__(self, layers: list[_Convolution], norm: torch.nn.GroupNorm | None, states: torch.dtype) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)
        self._norm = None if norm is None else (norm.weight.detach().double(), norm.bias.detach().double(), norm.eps)
        self._first = layers[0]
        self._states = states
        self._stride, self._field = 1, 1
        for layer in layers:
            self._field += (layer.kernel - 1) * self._stride
            self._stride *= layer.stride

    @classmethod
    def of(cls, extractor: Any, numbers: Arithmetic) -> FrontEnd | None:
        """The front end of a network, or ``None`` if it is of a form that is not known here."""
        found = list(extractor.conv_layers)
        norms = [getattr(layer, "layer_norm", None) for layer in found]
        group = norms[0] if isinstance(norms[0], torch.nn.GroupNorm) else None
        if group is not None:
            known = group.num_groups == group.num_channels and group.affine and not any(norms[1:])
        else:
            known = not any(norms)
        if not known or not all(_is_gelu(layer.activation) for layer in found) or found[0].conv.in_channels != 1:
            return None
        layers = [
            _Convolution(layer.conv, "fp32" if number == 0 else numbers.products, None if group is not None else norm)
            for number, (layer, norm) in enumerate(zip(found, norms, strict=True))
        ]
        return cls(layers, group, numbers.states)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Frames of a clip of at least one receptive field."""
        wave = wave.float()
        first = self._first.product if self._norm is None else self._folded(wave)
        frames = (wave.shape[0] - self._field) // self._stride + 1
        parts = []
        for start in range(0, frames, STRETCH_FRAMES):
            wanted = min(frames - start, STRETCH_FRAMES)
            size = (-(-wanted // STRETCH_STEP) * STRETCH_STEP - 1) * self._stride + self._field
            piece = wave[start * self._stride : start * self._stride + size]
            piece = functional.pad(piece, (0, size - piece.shape[0]))
            states = self._first(piece[:, None], first)
            for layer in self.layers[1:]:
                states = layer(states)
            parts.append(states[:wanted].to(self._states))
        return torch.cat(parts)

    def _folded(self, wave: torch.Tensor) -> Dense:
        """The first convolution with the group norm of this clip inside.

        Mean and variance of a channel over time are those of ``w . x`` over all places ``x`` of the kernel:
        ``w . mean(x)`` and ``w' cov(x) w``.
        """
        assert self._norm is not None  # noqa: S101 - the caller has looked
        kernel, stride = self._first.kernel, self._first.stride
        scale, shift, epsilon = self._norm
        places = (wave.shape[0] - kernel) // stride + 1
        seen = wave.as_strided((places, kernel), (stride, 1)).double()
        mean = seen.mean(dim=0)
        seen = seen - mean
        covariance = seen.T @ seen / places
        weight = self._first.matrix.double()
        gain = scale / torch.sqrt(((weight @ covariance) * weight).sum(dim=1) + epsilon)
        folded = (weight * gain[:, None]).float()
        return dense(folded, (shift - gain * (weight @ mean)).float(), "fp32", torch.float32, gelu=True)


class _Convolution(torch.nn.Module):
    """A convolution over time without padding as one product; GELU and, if there is one, layer norm included."""

    def __init__(self, convolution: torch.nn.Conv1d, kind: Kind, norm: torch.nn.LayerNorm | None) -> None:
        super().__init__()
        (self.kernel,), (self.stride,) = convolution.kernel_size, convolution.stride
        # (out, in, kernel) to (out, kernel * in): a window of frames is contiguous in memory
        self.matrix = convolution.weight.detach().float().permute(0, 2, 1).flatten(1).contiguous()
        # a copy in float32, whatever the network is put into; it takes states of either format
        self.norm = None if norm is None else copy.deepcopy(norm).float()
        states = torch.bfloat16 if kind == "bf16" else torch.float32
        self.product = dense(self.matrix, convolution.bias, kind, states, gelu=norm is None)

    def forward(self, states: torch.Tensor, product: Dense | None = None) -> torch.Tensor:
        """States ``shape = (frames, in)`` to ``(frames', out)``; ``product`` stands in for the layer's own."""
        result: torch.Tensor = (product or self.product)(states.contiguous(), Window(self.kernel, self.stride))
        if self.norm is not None:
            return functional.gelu(self.norm(result))
        return result


class PositionConvolution(torch.nn.Module):
    """The grouped convolution that tells a transformer where its frames are, weight norm folded."""

    def __init__(self, convolution: torch.nn.Conv1d, numbers: Arithmetic) -> None:
        super().__init__()
        self._dtype, self._states = numbers.rest, numbers.states
        self._bias = None if convolution.bias is None else convolution.bias.detach().to(numbers.rest)
        # As a convolution of images of height one: stride is 1 and what is left is padding, stride, dilation, groups.
        self._groups, self._padding = convolution.groups, [0, int(convolution.padding[0])]
        self._weight = convolution.weight.detach().to(numbers.rest)[:, :, None]
        self._fast = onednn(numbers.rest)
        if self._fast:
            size = [1, convolution.in_channels, 1, TYPICAL_FRAMES]
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight, self._padding, ONES, ONES, self._groups, size
            )

    @classmethod
    def of(cls, embedding: Any, numbers: Arithmetic) -> PositionConvolution | None:
        """The position convolution of a network, or ``None`` if it is of a form that is not known here."""
        convolution = getattr(embedding, "conv", None)
        if not isinstance(convolution, torch.nn.Conv1d) or getattr(embedding, "batch_norm", None) is not None:
            return None
        return cls(convolution, numbers) if _is_gelu(embedding.activation) else None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States ``shape = (1, frames, hidden)`` to the same."""
        # The zeros that are filled in are those that the convolution itself would see beyond the end.
        image = filled(states[0].to(self._dtype)).T[None, :, None]
        if self._fast:
            image = image.contiguous(memory_format=torch.channels_last)
            result = torch.ops.mkldnn._convolution_pointwise(
                image, self._weight, self._bias, self._padding, ONES, ONES, self._groups, "gelu", [], "none"
            )
        else:
            result = functional.conv2d(image, self._weight, self._bias, 1, self._padding, 1, self._groups)
            result = functional.gelu(result)
        told: torch.Tensor = result[:, :, 0, : states.shape[1]].transpose(1, 2).to(self._states)
        return told


class Attention(torch.nn.Module):
    """Self-attention of one clip."""

    def __init__(self, attention: Any, numbers: Arithmetic) -> None:
        super().__init__()
        self._heads, self._size = attention.num_heads, attention.head_dim
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        # the scale of the scores is one of the queries
        scales = (attention.scaling, 1.0, 1.0)
        weight = torch.cat([scale * part.weight.detach() for scale, part in zip(scales, parts, strict=True)])
        bias = torch.cat([scale * part.bias.detach() for scale, part in zip(scales, parts, strict=True)])
        self.inward = dense(weight, bias, numbers.products, numbers.rest)
        self.outward = dense(attention.out_proj.weight, attention.out_proj.bias, numbers.products, numbers.states)

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        """States ``shape = (1, frames, hidden)`` to the same, and no weights, as the library's layers expect it."""
        frames = hidden_states.shape[1]
        mixed = self.inward(hidden_states[0]).view(frames, 3, self._heads, self._size)
        query, key, value = mixed.permute(1, 2, 0, 3)
        if query.dtype == torch.float32:
            context = functional.scaled_dot_product_attention(query[None], key[None], value[None], scale=1.0)[0]
        else:
            query, key, value = (filled(part) for part in (query, key, value))
            parts = [self._some(rows, key, value, frames) for rows in torch.split(query, QUERY_ROWS, dim=1)]
            context = torch.cat(parts, dim=1)[:, :frames]
        return self.outward(context.transpose(0, 1).reshape(frames, -1))[None], None

    @staticmethod
    def _some(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, frames: int) -> torch.Tensor:
        """Attention of some rows to so many frames; in bfloat16 two products are faster than the fused kernel."""
        scores = torch.matmul(query, key.transpose(1, 2))
        scores[:, :, frames:] = -torch.inf
        return torch.matmul(scores.softmax(dim=-1), value)


class _Linear(torch.nn.Module):
    """A product where the library expects a linear layer."""

    def __init__(self, linear: torch.nn.Linear, numbers: Arithmetic) -> None:
        super().__init__()
        self.product = dense(linear.weight, linear.bias, numbers.products, numbers.states)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States ``shape = (1, frames, in)`` to ``(1, frames, out)``."""
        told: torch.Tensor = self.product(states[0])[None]
        return told


class FeedForward(torch.nn.Module):
    """The two layers after attention, the activation inside the first."""

    def __init__(self, layers: Any, numbers: Arithmetic) -> None:
        super().__init__()
        inner, outer = layers.intermediate_dense, layers.output_dense
        # int8 quantises what it gets, which is best in float32; so is the sum over the second layer
        self.inner = dense(inner.weight, inner.bias, numbers.products, numbers.states, gelu=True)
        self.outer = dense(outer.weight, outer.bias, numbers.products, numbers.states)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """States ``shape = (1, frames, hidden)`` to the same."""
        told: torch.Tensor = self.outer(self.inner(hidden_states[0]))[None]
        return told


def _is_gelu(activation: Any) -> bool:
    """Whether an activation is the exact GELU."""
    probe = torch.linspace(-4, 4, 33)
    with torch.no_grad():
        return torch.allclose(activation(probe), functional.gelu(probe), atol=1e-7)
