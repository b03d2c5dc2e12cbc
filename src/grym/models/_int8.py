"""A linear layer in dynamic int8: weights per output channel, activations per call.

Knows nothing about models. Uses the quantized kernels of torch itself (FBGEMM or
oneDNN on x86); ``torch.ao.quantization`` would do the same but is being removed.
"""

from __future__ import annotations

import torch


class Int8Linear(torch.nn.Module):
    """Drop-in for ``torch.nn.Linear`` on CPU.

    Weights: symmetric int8 with one scale per output channel. Activations:
    quantised inside the call with one scale for the whole input, so that a call
    has to hold one clip for the result not to depend on its neighbours.

    Args:
        linear: the layer to replace; its weight is ``shape = (out, in)``.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float().cpu()
        scales = (weight.abs().amax(dim=1).clamp_min(1e-8) / 127).double()
        zeros = torch.zeros(weight.shape[0], dtype=torch.int64)
        quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        bias = linear.bias.detach().float().cpu() if linear.bias is not None else None
        self._packed = torch.ops.quantized.linear_prepack(quantized, bias)
        # Some callers look at the weight's type to choose theirs.
        self.register_buffer("weight", torch.empty(0, dtype=torch.float32), persistent=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Apply the layer to float32 ``shape = (…, in)``."""
        # reduce_range keeps 7 bits of the activations: 8 would overflow int16 sums on CPUs without VNNI.
        result: torch.Tensor = torch.ops.quantized.linear_dynamic(states, self._packed, reduce_range=True)
        return result
