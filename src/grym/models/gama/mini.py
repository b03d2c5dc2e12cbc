"""The sizes of ``gama-mini``, from its recipe, and its audio encoder's auxiliary heads. Runs inside a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from grym.corpus.digits import WORDS
from grym.models.gama.configuration import GamaConfig
from grym.models.gama.spelling import BOS, EOS, PAD, VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grym.models.gama.recipe import GamaSpec

BLANK = len(WORDS)
HEAD_WIDTH = 32
QUERIES = 8


def mini_config(spec: GamaSpec) -> GamaConfig:
    """Configuration of the model of a recipe: no LoRA, tied embeddings, windows of ``target_frames``."""
    width, text = spec.width, spec.text_width
    heads = max(1, width // HEAD_WIDTH)
    side = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return GamaConfig(
        audio_config={
            "num_mel_bins": 64,
            "target_frames": spec.target_frames,
            "hidden_size": width,
            "num_hidden_layers": spec.blocks,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "tap_layers": (),
        },
        qformer_config={**side, "encoder_hidden_size": width, "cross_attention_frequency": 1},
        aggregator_config=side,
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": text,
            "intermediate_size": 8 * text // 3,
            "num_hidden_layers": spec.text_layers,
            "num_attention_heads": max(1, text // HEAD_WIDTH),
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
        },
        num_query_tokens=QUERIES,
        pool_divisor=1.0,
        lora_rank=0,
        tie_word_embeddings=True,
    )


@dataclass(frozen=True, slots=True)
class Targets:
    """What the auxiliary heads are taught about a batch.

    Attributes:
        facts: float32 ``shape = (batch, facts)``, 1 where a fact holds of the clip.
        known: float32 ``shape = (batch,)``, 1 where the facts are known.
        words: digits of each clip; ``None`` where it holds no speech that is known.
        columns: int64 ``shape = (batch, columns)``: digit at each column, :data:`BLANK` between, -100 unknown.
    """

    facts: torch.Tensor
    known: torch.Tensor
    words: tuple[tuple[int, ...] | None, ...]
    columns: torch.Tensor


class Heads(nn.Module):
    """Heads over the pooled tokens, for training only.

    Args:
        width: of the encoder.
        facts: how many things can hold of a clip: labels, attributes of a label, relations.
    """

    def __init__(self, width: int, facts: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.digits = nn.Linear(width, BLANK + 1)
        self.facts = nn.Linear(2 * width, facts)

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Digit logits ``shape = (batch, columns, 11)`` and fact logits ``shape = (batch, facts)``."""
        hidden = self.norm(pooled)
        whole = torch.cat([hidden.mean(dim=1), hidden.amax(dim=1)], dim=-1)
        return self.digits(hidden), self.facts(whole)

    def losses(self, pooled: torch.Tensor, targets: Targets, *, align: bool) -> dict[str, torch.Tensor]:
        """Losses by name, each a scalar.

        Args:
            pooled: ``shape = (batch, columns, width)``.
            targets: what is true.
            align: cross-entropy at every column whose digit is known, instead of CTC.
        """
        digits, facts = self(pooled)
        each = F.binary_cross_entropy_with_logits(facts, targets.facts, reduction="none").sum(dim=1)
        found = {"facts": (each * targets.known).sum() / targets.known.sum().clamp(min=1)}
        if align:
            found["digits"] = F.cross_entropy(
                digits[:, : targets.columns.shape[1]].flatten(0, 1), targets.columns.flatten()
            )
        else:
            found["digits"] = _ctc(digits, targets.words)
        return found


def _ctc(digits: torch.Tensor, words: Sequence[tuple[int, ...] | None]) -> torch.Tensor:
    rows = [index for index, one in enumerate(words) if one is not None]
    if not rows:
        return digits.sum() * 0.0
    scores = digits[rows].log_softmax(-1).transpose(0, 1)
    spoken = [one for one in words if one is not None]
    sizes = torch.tensor([len(one) for one in spoken])
    flat = torch.tensor([digit for one in spoken for digit in one], dtype=torch.long)
    full = torch.full((len(rows),), scores.shape[0])
    return F.ctc_loss(scores, flat, full, sizes, blank=BLANK, reduction="mean", zero_infinity=True)
