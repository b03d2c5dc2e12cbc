"""The audio branch of CAV-MAE: patches of a spectrogram through pre-norm transformer blocks, without CLS token.

Knows nothing about text. ``N`` is ``rows * columns`` patches, frequency first; ``D`` is the encoder's width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

if TYPE_CHECKING:
    from grym.models.gama.configuration import GamaAudioConfig


class AudioBlock(nn.Module):
    """One pre-norm block with exact GELU and fused query, key and value."""

    def __init__(self, config: GamaAudioConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.eager = False  # in training on a CPU the fused attention takes longer than its parts
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(width, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """``shape = (batch, N, D)`` to the same."""
        batch, length, width = hidden.shape
        fused = self.qkv(self.norm1(hidden)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = fused.permute(2, 0, 3, 1, 4)
        if self.eager:
            weights = (query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)).softmax(dim=-1)
            mixed = weights @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value)
        hidden = hidden + self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        changed: torch.Tensor = hidden + self.fc2(F.gelu(self.fc1(self.norm2(hidden))))
        return changed


class AudioEncoder(nn.Module):
    """Patches, positions, blocks and a final norm.

    Args:
        config: sizes.
        taps: whether the norms of the middle layers exist; only the paper's aggregator reads them.
    """

    def __init__(self, config: GamaAudioConfig, *, taps: bool = False) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.config = config
        self.patch = nn.Conv2d(1, width, kernel_size=patch, stride=patch)
        self.position = nn.Parameter(torch.zeros(1, config.rows * config.columns, width))
        self.modality = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList([AudioBlock(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        wanted = config.tap_layers if taps else ()
        self.tap_norms = nn.ModuleDict({str(i): nn.LayerNorm(width, eps=config.layer_norm_eps) for i in wanted})
        self.gradient_checkpointing = False

    def forward(self, spectrogram: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Last layer and taps, ``shape = (batch, N, D)`` each.

        Args:
            spectrogram: normalised log-mel values, ``shape = (batch, target_frames, num_mel_bins)``. Training may give
                the first frames of windows alone, a multiple of the patch size: ``N`` is smaller then.
        """
        image = spectrogram.transpose(1, 2).unsqueeze(1).to(self.patch.weight.dtype)
        columns = spectrogram.shape[1] // self.config.patch_size
        place = torch.unflatten(self.position, 1, (self.config.rows, -1))[:, :, :columns].flatten(1, 2)
        hidden = self.patch(image).flatten(2).transpose(1, 2) + place + self.modality
        taps: dict[str, torch.Tensor] = {}
        for index, block in enumerate(self.blocks):
            hidden = self._run(block, hidden)
            name = str(index)
            if name in self.tap_norms:
                taps[name] = self.tap_norms[name](hidden)
        return self.norm(hidden), [taps[str(i)] for i in self.config.tap_layers if taps]

    def pool(self, hidden: torch.Tensor, divisor: float) -> torch.Tensor:
        """Mean over frequency in float32, divided by ``divisor``: ``(batch, N, D)`` to ``(batch, columns, D)``."""
        batch, _, width = hidden.shape
        grid = hidden.float().view(batch, self.config.rows, -1, width)
        return grid.mean(dim=1) / divisor

    def _run(self, block: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        if self.gradient_checkpointing and self.training:
            from torch.utils.checkpoint import checkpoint

            saved: torch.Tensor = checkpoint(block, hidden, use_reentrant=False)
            return saved
        done: torch.Tensor = block(hidden)
        return done
