"""What a language model said, and how probable it thought it was: shared by everything that generates text.

Knows nothing about audio. Probabilities are natural logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import LogitsProcessor

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import torch


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer.

    Attributes:
        ids: new tokens without the end of the text.
        log_probability: mean over the new tokens and the end of the text, of the network's own distribution.
        ended: whether the text ended by itself; else it was cut at ``max_new_tokens``.
        token_log_probabilities: of each of ``ids``.
    """

    ids: tuple[int, ...]
    log_probability: float
    ended: bool
    token_log_probabilities: tuple[float, ...] = ()


class Recorder(LogitsProcessor):  # type: ignore[misc]
    """Remembers what the network thought of each token, before any penalty or temperature."""

    def __init__(self) -> None:
        self._last: torch.Tensor | None = None
        self._kept: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Called before each token with those so far, ``shape = (B, new)``."""
        if self._last is not None:
            self._keep(input_ids[:, -1])
        self._last = scores.float().log_softmax(-1)
        # Nothing can be drawn from NaN, and the error would end the whole batch. What is recorded stays NaN.
        broken = self._last.isnan().any(dim=-1, keepdim=True)
        return scores.masked_fill(broken, 0.0)

    def finish(self, ids: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of all new tokens, float32 ``shape = (B, new)``."""
        import torch

        self._keep(ids[:, -1])
        return torch.stack(self._kept, dim=1)

    def _keep(self, chosen: torch.Tensor) -> None:
        if self._last is not None:
            self._kept.append(self._last.gather(1, chosen[:, None])[:, 0])


def cut_at_end(ids: Sequence[int], scores: Sequence[float], ends: Collection[int]) -> Generated:
    """One row of a batch up to its end.

    Args:
        ids: new tokens of the row, padding behind the end included.
        scores: log-probability of each.
        ends: ids that end a text.
    """
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    ended = stop < len(ids)
    counted = scores[: stop + 1]
    return Generated(tuple(ids[:stop]), sum(counted) / max(1, len(counted)), ended, tuple(scores[:stop]))
