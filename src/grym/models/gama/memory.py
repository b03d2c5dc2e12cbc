"""How much memory a GAMA folder needs on each rung, and whether it is there; asked before anything is loaded.

Bytes are counted from the headers of the weight files. Knows nothing about networks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from grym.errors import ResourceError
from grym.models.gama.reading import shapes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Bytes for each parameter of the language model; the audio parts are in float32 on every rung.
RUNGS: Final[Mapping[str, float]] = {"fp32": 4.0, "bf16": 2.0, "int8": 1.06, "int4": 0.56}
GPU_ONLY: Final = frozenset({"int8", "int4"})
WORK_BYTES: Final = 300_000_000  # libraries, activations and the cache of a short answer
GB: Final = 1e9


def needed_bytes(files: Sequence[Path]) -> dict[str, float]:
    """Memory that a model takes on each rung, in bytes, from the headers of its weight files."""
    language = audio = 0
    for file in files:
        for name, (_, shape) in shapes(file).items():
            if name.startswith("language_model."):
                language += math.prod(shape)
            else:
                audio += math.prod(shape)
    return {rung: language * size + audio * 4 + WORK_BYTES for rung, size in RUNGS.items()}


def free_bytes(device: str) -> float:
    """Memory that is free for a model, in bytes: of the machine, or of the GPU."""
    if device == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0])
    import psutil

    return float(psutil.virtual_memory().available)


def check(name: str, needed: Mapping[str, float], rung: str, device: str, free: float) -> None:
    """Refuse a model that does not fit, and say what would.

    Raises:
        ResourceError: ``not-enough-memory``; the hint names the rung that fits, if there is one.
    """
    if needed[rung] <= free:
        return
    # In the order of RUNGS: the first that fits changes answers least.
    fits = [r for r in RUNGS if needed[r] <= free and (device == "cuda" or r not in GPU_ONLY)]
    place = "the GPU" if device == "cuda" else "memory"
    hint = (
        f'It would fit as precision = "{fits[0]}" ({needed[fits[0]] / GB:.1f} GB).'
        if fits
        else "No precision would fit here; take a machine or a GPU with more memory, or a smaller model."
    )
    msg = f"{name} needs {needed[rung] / GB:.1f} GB as {rung}, and {free / GB:.1f} GB of {place} are free."
    facts: dict[str, str | int | float | bool] = {
        "needed_gb": round(needed[rung] / GB, 1),
        "free_gb": round(free / GB, 1),
    }
    raise ResourceError(msg, code="not-enough-memory", hint=hint, retryable=False, metadata=facts)
