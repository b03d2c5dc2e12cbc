"""Products with a fixed matrix on CPUs, in float32, bfloat16 or int8, with GELU inside.

Knows nothing about networks. Uses oneDNN where torch has it, because it packs
the matrix once and computes the activation in the product's own cache; elsewhere
the plain operations, which give the same up to rounding. Inference only.
"""

# ruff: noqa: SLF001 - torch keeps the operations that its compiler uses under private names
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

Kind = Literal["fp32", "bf16", "int8"]
# Rows that packed weights are laid out for; any number of rows works.
PACKED_ROWS = 256
INT8_LEVELS = 127
FULL_BITS = 8
ROWS = 16
SMALLEST_STEP = 1e-10


@dataclass(frozen=True, slots=True)
class Window:
    """What a convolution over time without padding multiplies: ``length`` neighbouring rows, every ``step`` rows."""

    length: int
    step: int

    def rows(self, states: torch.Tensor) -> torch.Tensor:
        """View of contiguous ``shape = (rows, in)`` as ``(places, length * in)``; rows of the view overlap."""
        rows, width = states.shape
        places = (rows - self.length) // self.step + 1
        return states.as_strided((places, self.length * width), (self.step * width, 1))


class Dense(torch.nn.Module):
    """``x W' + b`` and, if wanted, GELU; float ``shape = (rows, in)`` to ``(rows, out)``.

    Args:
        out: number format of the result.
        gelu: whether the exact GELU of the product is wanted.
    """

    def __init__(self, out: torch.dtype, *, gelu: bool) -> None:
        super().__init__()
        self.out, self.gelu = out, gelu
        self._post: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")

    def forward(self, states: torch.Tensor, window: Window | None = None) -> torch.Tensor:
        """Apply it.

        Args:
            states: what to multiply, contiguous.
            window: neighbouring rows are multiplied together, as a convolution does it.
        """
        raise NotImplementedError


class _Plain(Dense):
    """With torch's general operations."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, kind: torch.dtype, out: torch.dtype, *, gelu: bool
    ) -> None:
        super().__init__(out, gelu=gelu)
        self._kind = kind
        self._weight, self._bias = weight.to(kind), None if bias is None else bias.to(kind)

    def forward(self, states: torch.Tensor, window: Window | None = None) -> torch.Tensor:
        states = states.to(self._kind)
        rows = states if window is None else window.rows(states)
        result = functional.linear(rows, self._weight, self._bias)
        return (functional.gelu(result) if self.gelu else result).to(self.out)


class _Packed(Dense):
    """With oneDNN, in float32 or bfloat16."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, kind: torch.dtype, out: torch.dtype, *, gelu: bool
    ) -> None:
        super().__init__(out, gelu=gelu)
        self._kind = kind
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(kind).contiguous(), PACKED_ROWS)
        self._bias = None if bias is None else bias.to(kind)

    def forward(self, states: torch.Tensor, window: Window | None = None) -> torch.Tensor:
        count = states.shape[0]
        states = states.to(self._kind)
        rows = filled(states) if window is None else window.rows(states)
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, *self._post)
        return (result if window is not None else result[:count]).to(self.out)


class _Int8(Dense):
    """With oneDNN in int8: a scale for each output of the matrix and for each row of what is multiplied.

    A scale per row is what makes int8 usable in the front end: loud and quiet frames differ by orders of magnitude,
    and with one scale for all of them the quiet ones vanish. It also keeps rows independent of each other.

    A CPU without VNNI adds two products of a byte each in 16 bits and cuts off what does not fit. What is multiplied
    has 7 bits there: two products of at most 127 times 127 always fit.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.dtype, *, gelu: bool) -> None:
        super().__init__(out, gelu=gelu)
        levels, self._scales = _symmetric(weight)
        self._weight = torch.ops.onednn.qlinear_prepack(levels, None)
        self._zeros = torch.zeros(weight.shape[0], dtype=torch.int64)
        self._bias = None if bias is None else bias.float()
        self._middle = 1 << (activation_bits() - 1)

    def forward(self, states: torch.Tensor, window: Window | None = None) -> torch.Tensor:
        states = states.float()
        peaks = states.abs().amax(dim=1)
        if window is not None:
            peaks = peaks.unfold(0, window.length, window.step).amax(dim=1)
            states = window.rows(states)
        steps = (peaks / (self._middle - 1)).clamp_min(SMALLEST_STEP)[:, None]
        # oneDNN wants unsigned levels
        levels = (states * steps.reciprocal()).round_().add_(self._middle).to(torch.uint8)
        levels = levels if window is not None else filled(levels)
        result = torch.ops.onednn.qlinear_pointwise(
            levels,
            1.0,
            self._middle,
            self._weight,
            self._scales,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        result = result[: steps.shape[0]]
        result = result.mul_(steps) if self._bias is None else torch.addcmul(self._bias, result, steps)
        return (functional.gelu(result) if self.gelu else result).to(self.out)


class _Int8Plain(Dense):
    """With the quantized kernels of torch, which exist on every CPU."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.dtype, *, gelu: bool) -> None:
        super().__init__(out, gelu=gelu)
        _, scales = _symmetric(weight)
        zeros = torch.zeros(weight.shape[0], dtype=torch.int64)
        quantized = torch.quantize_per_channel(weight.float(), scales.double(), zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(quantized, None if bias is None else bias.float())

    def forward(self, states: torch.Tensor, window: Window | None = None) -> torch.Tensor:
        states = states.float()
        rows = states if window is None else window.rows(states)
        # reduce_range keeps 7 bits of the activations: 8 would overflow int16 sums on CPUs without VNNI.
        result: torch.Tensor = torch.ops.quantized.linear_dynamic(rows, self._packed, reduce_range=True)
        return (functional.gelu(result) if self.gelu else result).to(self.out)


def dense(
    weight: torch.Tensor, bias: torch.Tensor | None, kind: Kind, out: torch.dtype, *, gelu: bool = False
) -> Dense:
    """The fastest product with a matrix that this machine has.

    Args:
        weight: float ``shape = (out, in)``.
        bias: float ``shape = (out,)``.
        kind: number format of both factors.
        out: number format of the result.
        gelu: whether GELU follows.
    """
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if kind == "int8":
        return (_Int8 if onednn(torch.float32) else _Int8Plain)(weight, bias, out, gelu=gelu)
    number = torch.bfloat16 if kind == "bf16" else torch.float32
    return (_Packed if onednn(number) else _Plain)(weight, bias, number, out, gelu=gelu)


def _symmetric(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix as int8 levels and one step for each of its outputs."""
    steps = (weight.float().abs().amax(dim=1) / INT8_LEVELS).clamp_min(SMALLEST_STEP)
    return (weight / steps[:, None]).round().to(torch.int8).contiguous(), steps


def filled(states: torch.Tensor) -> torch.Tensor:
    """States ``shape = (…, rows, in)`` with zeros up to a multiple of :data:`ROWS` rows.

    oneDNN compiles and keeps a program of about a megabyte for every shape it meets: with clips of any length
    that is hundreds of them, which take more memory and, at first sight, more time than a few rows of zeros.
    """
    lacking = -states.shape[-2] % ROWS
    return functional.pad(states, (0, 0, 0, lacking)) if lacking else states


def onednn(number: torch.dtype) -> bool:
    """Whether oneDNN computes with this number format here."""
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return number != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def activation_bits() -> int:
    """Bits of an activation in int8 products: 8, or 7 where the CPU would overflow with 8."""
    return FULL_BITS if torch.cpu._is_vnni_supported() else FULL_BITS - 1


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16, instead of only storing it."""
    return bool(torch.cpu._is_avx512_bf16_supported())
