"""Memory that is free for a model, on the processor and on a GPU, and giving back what is not needed.

Never imports torch: a GPU is asked through nvidia-ml-py, or through torch where a
model has imported it already. Bytes. Linux containers are known in both versions of
their interface (cgroup v1 and v2).
"""

from __future__ import annotations

import ctypes
import gc
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

CGROUP: Final = Path("/sys/fs/cgroup")
UNLIMITED: Final = 1 << 60  # version 1 says 2**63 minus a page


def free_bytes(device: str = "cpu") -> float:
    """Memory that a model may take now: of the machine, or the container if that has less; or of the GPU.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    if device == "cuda":
        return _free_on_gpu()
    return min(float(psutil.virtual_memory().available), max(0.0, container_limit() - _container_use()))


def container_limit(root: Path = CGROUP, own: Path = Path("/proc/self/cgroup")) -> float:
    """Memory that this container may have; infinite without a limit."""
    return min((_number(file) for file in _files(root, own, "memory.max", "memory.limit_in_bytes")), default=math.inf)


def _container_use(root: Path = CGROUP, own: Path = Path("/proc/self/cgroup")) -> float:
    """What the container uses and cannot give back at once: file pages that nobody has touched lately do not count."""
    used = 0.0
    for file in _files(root, own, "memory.current", "memory.usage_in_bytes"):
        if not math.isfinite(value := _number(file)):
            continue
        with suppress(OSError, ValueError):
            facts = dict(line.split() for line in (file.parent / "memory.stat").read_text().splitlines())
            value -= float(facts.get("total_inactive_file", facts.get("inactive_file", 0)))
        used = max(used, value)
    return used


def _files(root: Path, own: Path, new: str, old: str) -> list[Path]:
    """Files of that name in the group of this process, and in the place where a container sees its own."""
    found = [root / new, root / "memory" / old]
    with suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, kinds, place = line.split(":", 2)
            if not kinds:
                found.append(root / place.lstrip("/") / new)
            elif "memory" in kinds.split(","):
                found.append(root / "memory" / place.lstrip("/") / old)
    return [file for file in dict.fromkeys(found) if file.is_file()]


def _number(file: Path) -> float:
    with suppress(OSError, ValueError):
        value = float(file.read_text(encoding="ascii"))
        return value if value < UNLIMITED else math.inf
    return math.inf


def release() -> None:
    """Give back what is not needed: cyclic garbage, the cache of the GPU, freed pages of the C library."""
    gc.collect()
    cuda = _cuda()
    if cuda is not None:
        cuda.empty_cache()
    trim()


def trim() -> None:
    """Give back freed pages of the C library only, which takes least time."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def gpu_peak_bytes(*, reset: bool = False) -> float:
    """Most memory that this process has allocated on the GPU since the last reset; 0 without one."""
    cuda = _cuda()
    if cuda is None:
        return 0.0
    peak = float(cuda.max_memory_allocated())
    if reset:
        cuda.reset_peak_memory_stats()
    return peak


def _cuda() -> Any:
    """``torch.cuda`` if a model has begun to use it."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None


def _free_on_gpu() -> float:
    cuda = _cuda()
    if cuda is not None:
        return float(cuda.mem_get_info()[0])
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return float(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).free)
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # noqa: BLE001 - no driver, no device, or one that does not say
        return math.inf
