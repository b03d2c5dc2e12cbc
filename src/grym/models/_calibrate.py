"""Which precision is the fastest on this machine without changing what is heard.

Measured once for a checkpoint, a CPU and a version of torch, in about two
seconds, and remembered in a small file, so that a run, its resumption and both
arms of a comparison use the same. Where a CPU has no bfloat16 products, settings
with them are not candidates. Times are seconds.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from filelock import FileLock

from grym.environment import processor
from grym.models._cpu import ARITHMETIC, rebuild
from grym.models._dense import activation_bits, has_bf16
from grym.models._network import contextualize, front_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROBE_SECONDS: Final = 2
REPEATS: Final = 3
# A setting has to be this much faster than a more precise one to be preferred to it.
WORTH: Final = 1.1
# Mean Kullback-Leibler divergence of the frame probabilities from those of fp32, in nats. Settings that cost no
# words on the bundled checkpoint stay below 0.001; int8 with one scale for loud and quiet frames, which costs some,
# reaches 0.02.
CLOSE: Final = 0.005
LOCK_SECONDS: Final = 60.0


def choose(network: Any, again: Callable[[], Any], identity: str) -> tuple[Any, str]:
    """Choose a precision and rebuild the network in it.

    Args:
        network: float32, on CPU; it may be changed.
        again: makes another one like it.
        identity: revision of the checkpoint.

    Returns:
        The rebuilt network and its precision.
    """
    file = _memory(identity)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock"), timeout=LOCK_SECONDS):
        known = _recall(file)
        if known:
            rebuild(network, known)
            return network, known
        return _measure(network, again, file)


def candidates() -> tuple[str, ...]:
    """Precisions that this CPU has instructions for, the most precise first."""
    return tuple(name for name in ARITHMETIC if "bf16" not in name or has_bf16())


def preferred(seconds: dict[str, float]) -> Iterator[str]:
    """Precisions in the order in which they should be tried.

    Args:
        seconds: time of each, the most precise first.

    Example:
        >>> list(preferred({"fp32": 2.0, "bf16": 1.04, "int8": 1.0}))
        ['bf16', 'int8', 'fp32']
    """
    left = dict(seconds)
    while left:
        enough = min(left.values()) * WORTH
        chosen = next(name for name, value in left.items() if value <= enough)
        yield chosen
        del left[chosen]


def divergence(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Mean Kullback-Leibler divergence of frames, in nats.

    Args:
        reference: log-probabilities, ``shape = (…, frames, vocabulary)``.
        other: the same.
    """
    return float((reference.exp() * (reference - other)).sum(dim=-1).mean())


def probe(rate: int = 16_000) -> torch.Tensor:
    """Two seconds that resemble speech: a gliding voice with moving resonances, syllables, pauses and some noise."""
    seconds = torch.arange(PROBE_SECONDS * rate, dtype=torch.float64) / rate
    pitch = 110 + 30 * torch.sin(2 * torch.pi * 0.7 * seconds)
    phase = 2 * torch.pi * torch.cumsum(pitch, 0) / rate
    resonances = (600 + 200 * torch.sin(7 * seconds), 1500 + 500 * torch.cos(5 * seconds))
    voice = torch.zeros_like(seconds)
    for harmonic in range(1, 30):
        gain = sum(torch.exp(-(((harmonic * pitch - place) / 250) ** 2)) for place in resonances)
        voice += gain * torch.sin(harmonic * phase)
    syllables = torch.sin(2 * torch.pi * 2 * seconds).clamp_min(0)
    noise = torch.randn(seconds.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wave = syllables * voice + 0.01 * noise
    return ((wave - wave.mean()) / wave.std()).float()


def _measure(network: Any, again: Callable[[], Any], file: Path) -> tuple[Any, str]:
    seconds = {name: _seconds(network, name) for name in candidates()}
    reference = _listen(network)
    chosen, away = "fp32", 0.0
    for chosen in preferred(seconds):
        rebuild(network, chosen)
        away = divergence(reference, _listen(network))
        if away <= CLOSE or chosen == "fp32":
            break
        network = again()
    facts = {"precision": chosen, "seconds": seconds, "divergence": away}
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(facts), encoding="utf-8")
    draft.replace(file)
    return network, chosen


def _seconds(network: Any, precision: str) -> float:
    """Processor time of a pass over the probe on one core, estimated from a copy with a single layer."""
    encoder = getattr(network, network.base_model_prefix).encoder
    layers = encoder.layers
    encoder.layers = layers[:1]
    try:
        shallow = copy.deepcopy(network)
    finally:
        encoder.layers = layers
    rebuild(shallow, precision)
    starts: list[float] = []
    layer = getattr(shallow, shallow.base_model_prefix).encoder.layers[0]
    layer.register_forward_pre_hook(lambda *_: starts.append(time.thread_time()))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a batch, where every clip has one core
    try:
        whole, single = min((_pass(shallow, starts) for _ in range(REPEATS)), key=sum)
    finally:
        torch.set_num_threads(threads)
    return whole + (len(layers) - 1) * single


def _pass(shallow: Any, starts: list[float]) -> tuple[float, float]:
    """Seconds of a pass, and of what follows the start of its only layer."""
    started = time.thread_time()
    _listen(shallow)
    ended = time.thread_time()
    return ended - started, ended - starts[-1]


def _listen(network: Any) -> torch.Tensor:
    with torch.inference_mode():
        scores, _ = contextualize(network, front_end(network)(probe())[None], None)
        return scores


def _memory(identity: str) -> Path:
    """The file of a checkpoint on this machine."""
    facts = [identity, processor(), torch.__version__, torch.get_num_threads(), *candidates(), activation_bits()]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    folder = os.environ.get("GRYM_CACHE")
    return (Path(folder) if folder else Path.home() / ".cache" / "grym") / f"precision-{name}.json"


def _recall(file: Path) -> str:
    """The precision that was chosen before, or nothing; a broken file is measured again."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))["precision"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return known if known in candidates() else ""
