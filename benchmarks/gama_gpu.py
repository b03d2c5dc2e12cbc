"""GAMA at the published size on a GPU, with random weights: encoder in a batch and clip by clip, tokens per second.

What a batch is compared with is one call for each clip, as ``generate`` of transformers is used in scripts; both take
the same 64 greedy tokens. Weights are random, so that nothing has to be downloaded: times and memory are those of the
real ones, answers are not. The language model is in bfloat16, the audio parts are in float32. Needs CUDA and 24 GB.

    python -m benchmarks.gama_gpu
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import GenerationConfig

from grym.models.gama.configuration import GamaConfig
from grym.models.gama.modeling import GamaModel

if TYPE_CHECKING:
    from collections.abc import Callable

CLIPS: Final = 32
BATCHES: Final = (1, 8, 32, 64)
NEW_TOKENS: Final = 64
PROMPT_TOKENS: Final = 40
AUDIO_PARTS: Final = ("audio_tower", "qformer", "qformer_norm", "aggregator", "projector")


def run() -> dict[str, Any]:
    """Everything, as JSON can say it."""
    model = _random()
    config = model.config.audio_config
    heard = torch.randn(max(BATCHES), config.target_frames, config.num_mel_bins, device="cuda")
    with torch.inference_mode():
        return {
            "device": torch.cuda.get_device_name(),
            "parameters": sum(p.numel() for p in model.parameters()),
            "weights_gb": round(torch.cuda.memory_allocated() / 1e9, 2),
            "encoder": _encoder(model, heard[:CLIPS]),
            "generate": _generate(model, heard),
        }


def _random() -> GamaModel:
    """Random weights of the published sizes, made where they are used."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model: GamaModel = GamaModel._from_config(GamaConfig(), attn_implementation="sdpa")  # noqa: SLF001
    torch.set_default_dtype(torch.float32)
    for name in AUDIO_PARTS:
        getattr(model, name).float()
    model.query_tokens.data = model.query_tokens.data.float()
    return model.eval()


def _encoder(model: GamaModel, heard: torch.Tensor) -> dict[str, float]:
    alone = _seconds(lambda: [model.listen(one) for one in heard.split(1)])
    together = _seconds(lambda: model.listen(heard))
    return {"clips": len(heard), "alone_s": alone, "together_s": together, "ratio": round(alone / together, 2)}


def _generate(model: GamaModel, heard: torch.Tensor) -> list[dict[str, float]]:
    """Seconds for each size of a batch, beside as many calls for one clip."""
    settings = GenerationConfig(
        max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    found: list[dict[str, float]] = []
    for size in BATCHES:
        ids = torch.randint(5, 1000, (size, PROMPT_TOKENS), device="cuda")
        audio = model.listen(heard[:size]).tokens.to(torch.bfloat16)
        mask = torch.ones_like(ids)
        torch.cuda.reset_peak_memory_stats()
        seconds = _seconds(lambda a=audio, i=ids, m=mask: model.generate(a, i, m, settings))  # type: ignore[misc]
        alone = found[0]["seconds"] if found else seconds
        found.append(
            {
                "batch": size,
                "seconds": seconds,
                "tokens_per_second": round(size * NEW_TOKENS / seconds, 1),
                "times_one_by_one": round(size * alone / seconds, 2),
                "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
            }
        )
    return found


def _seconds(work: Callable[[], object], times: int = 3) -> float:
    """Best of several, after one that warms up."""
    taken = []
    for _ in range(times + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return round(min(taken[1:]), 4)


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
