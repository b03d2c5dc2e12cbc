"""Processes of one machine that train one model together, each on its share of every batch.

Two processes with a thread each are faster than one process with two threads: threads wait for each other thousands
of times in a step, processes once. Knows nothing about models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Team:
    """Who trains together; of one process by default, where everything is already shared.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def meet(cls, file: Path, rank: int, size: int) -> Team:
        """Wait for the others; ``file`` is where they meet, and must not be left from another time."""
        if size > 1:
            distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
        return cls(rank, size)

    @property
    def leads(self) -> bool:
        """Whether this is the one that reports and writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            distributed.barrier()

    def average(self, gradients: Sequence[torch.Tensor]) -> None:
        """Replace gradients by their means over all members."""
        if self.size == 1:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        start = 0
        for g in gradients:
            g.copy_(flat[start : start + g.numel()].view_as(g))
            start += g.numel()

    def shared(self, parts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The sum of arrays of which each member filled its share and left the rest zero."""
        if self.size == 1:
            return parts
        whole = torch.from_numpy(parts)
        distributed.all_reduce(whole)
        found: npt.NDArray[Any] = np.asarray(whole)
        return found
