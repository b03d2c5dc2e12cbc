"""How much memory a GAMA folder needs on each rung, and whether it is there; asked before anything is loaded.

Bytes are counted from the headers of the weight files. Knows nothing about networks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from grym.errors import ResourceError
from grym.models.gama.reading import shapes
from grym.models.memory import free_bytes as free

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from grym.models.gama.configuration import GamaConfig

# Bytes for each parameter of the language model; the audio parts are in float32 on every rung.
RUNGS: Final[Mapping[str, float]] = {"fp32": 4.0, "bf16": 2.0, "int8": 1.06, "int4": 0.56}
GPU_ONLY: Final = frozenset({"int8", "int4"})
WORK_BYTES: Final = 300_000_000  # libraries and activations
# Positions behind the audio that memory is asked for: a usual prompt, and an answer of the published 400 tokens.
TEXT_POSITIONS: Final = 512
GB: Final = 1e9


def needed_bytes(files: Sequence[Path], cached: int = 0) -> dict[str, float]:
    """Memory that a model takes on each rung, in bytes, from the headers of its weight files.

    Args:
        files: of safetensors.
        cached: numbers in the key-value caches, as :func:`cache_numbers` gives them.
    """
    language = audio = 0
    for file in files:
        for name, (_, shape) in shapes(file).items():
            if name.startswith("language_model."):
                language += math.prod(shape)
            else:
                audio += math.prod(shape)
    # With 8 and 4 bits the language model computes, and remembers, in 16.
    return {rung: language * size + audio * 4 + cached * max(size, 2.0) + WORK_BYTES for rung, size in RUNGS.items()}


def cache_numbers(config: GamaConfig, together: int) -> int:
    """Numbers that the language model keeps of what it has read: keys and values of each layer and position.

    Args:
        config: of the model.
        together: windows in one pass.

    Example:
        >>> from grym.models.gama.configuration import GamaConfig
        >>> cache_numbers(GamaConfig(), 1) == (96 + 512) * 2 * 32 * 4096
        True
    """
    text = config.text_config
    positions = min(text.max_position_embeddings, config.audio_tokens + TEXT_POSITIONS)
    heads = text.num_key_value_heads or text.num_attention_heads
    width = heads * (text.head_dim or text.hidden_size // text.num_attention_heads)
    return int(together * positions * 2 * text.num_hidden_layers * width)


def free_bytes(device: str) -> float:
    """Memory that is free for a model, in bytes: of the machine or the container if that has less, or of the GPU."""
    if device == "cuda":
        import torch

        torch.cuda.init()  # type: ignore[no-untyped-call]  # so that the GPU is asked that this process uses
    return free(device)


def check(name: str, needed: Mapping[str, float], rung: str, device: str, there: float) -> None:
    """Refuse a model that does not fit, and say what would.

    Raises:
        ResourceError: ``not-enough-memory``; the hint names the rung that fits, if there is one.
    """
    if needed[rung] <= there:
        return
    # In the order of RUNGS: the first that fits changes answers least.
    fits = [r for r in RUNGS if needed[r] <= there and (device == "cuda" or r not in GPU_ONLY)]
    place = "the GPU" if device == "cuda" else "memory"
    hint = (
        f'It would fit as precision = "{fits[0]}" ({needed[fits[0]] / GB:.1f} GB).'
        if fits
        else "No precision would fit here; take a machine or a GPU with more memory, or a smaller model."
    )
    msg = f"{name} needs {needed[rung] / GB:.1f} GB as {rung}, and {there / GB:.1f} GB of {place} are free."
    facts: dict[str, str | int | float | bool] = {
        "needed_gb": round(needed[rung] / GB, 1),
        "free_gb": round(there / GB, 1),
    }
    raise ResourceError(msg, code="not-enough-memory", hint=hint, retryable=False, metadata=facts)
