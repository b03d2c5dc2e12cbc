"""Muon for matrices and AdamW for everything else, as one optimizer. Knows nothing about models.

Muon orthogonalises the momentum of a matrix (of a convolution: output channels by all else) by five Newton-Schulz
steps. Matrices of the same shape are done together. torch has one as well; it computes the steps in bfloat16, which
is slow on CPUs without it.

Source: Jordan et al., Muon: An optimizer for hidden layers (2024); the scale of the update is that of Liu et al.,
Muon is scalable for LLM training (arXiv 2502.16982), so that one learning rate fits both parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
ROUNDS: Final = 5
MOMENTUM: Final = 0.95
UPDATE_RMS: Final = 0.2  # of AdamW's typical update


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Nearly the nearest semi-orthogonal matrices, ``shape = (count, rows, columns)``; singular values near one."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    flat: torch.Tensor = x.transpose(1, 2) if tall else x
    return flat


class Muon(torch.optim.Optimizer):
    """Muon for the groups with ``muon=True``, AdamW for the others.

    Args:
        groups: parameter groups with ``params``, ``muon`` and ``weight_decay``.
        lr: learning rate of both.
        betas: AdamW's.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.95)) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "muon": False, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # closures are not used here
        """Change every parameter that has a gradient."""
        if closure is not None:
            msg = "Muon takes no closure."
            raise TypeError(msg)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            if group["muon"]:
                self._muon(params, group["lr"])
            else:
                for p in params:
                    self._adam(p, group["lr"], group["betas"])

    def _muon(self, params: list[torch.nn.Parameter], rate: float) -> None:
        shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for p in params:
            shapes.setdefault(p.shape, []).append(p)
        for shape, same in shapes.items():
            update = orthogonalize(torch.stack([self._momentum(p).flatten(1) for p in same]))
            scale = UPDATE_RMS * max(update.shape[1:]) ** 0.5
            for p, change in zip(same, update, strict=True):
                p.add_(change.view(shape), alpha=-rate * scale)

    def _momentum(self, p: torch.nn.Parameter) -> torch.Tensor:
        state = self.state[p]
        grad = p.grad if p.grad is not None else torch.zeros_like(p)
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(grad, 1 - MOMENTUM)
        mixed: torch.Tensor = grad.lerp(state["momentum"], MOMENTUM)
        return mixed

    def _adam(self, p: torch.nn.Parameter, rate: float, betas: tuple[float, float]) -> None:
        state = self.state[p]
        if not state:
            state["step"], state["first"], state["second"] = 0, torch.zeros_like(p), torch.zeros_like(p)
        grad = p.grad if p.grad is not None else torch.zeros_like(p)
        state["step"] += 1
        state["first"].lerp_(grad, 1 - betas[0])
        state["second"].lerp_(grad.square(), 1 - betas[1])
        first = state["first"] / (1 - betas[0] ** state["step"])
        second = state["second"] / (1 - betas[1] ** state["step"])
        p.addcdiv_(first, second.sqrt().add_(1e-8), value=-rate)


def groups(named: Iterable[tuple[str, torch.nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices between layers, convolutions over time among them, for Muon; embeddings, heads and vectors for AdamW."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, p in named:
        matrix = p.ndim == 2 or (p.ndim == 3 and p.shape[1] > 1 and "conv" in name)  # noqa: PLR2004
        hidden = matrix and not any(part in name for part in ("embed", "lm_head", "heads."))
        (matrices if hidden else rest).append(p)
    return [
        {"params": matrices, "muon": True, "weight_decay": weight_decay},
        {"params": rest, "muon": False, "weight_decay": 0.0},
    ]
