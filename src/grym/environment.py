"""What a run was made with: versions and hardware, as JSON for the run's row.

Knows nothing about runs. Reads metadata only; imports none of the libraries it names.
"""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from typing import Final

import psutil

LIBRARIES: Final = (
    "grym-synth", "torch", "torchaudio", "transformers", "prefect", "duckdb", "polars", "lancedb",
    "great-expectations", "kaldialign", "whisper-normalizer", "soundfile", "soxr", "numpy",
)  # fmt: skip


def versions() -> str:
    """Python and the libraries that can change a result, as a JSON object."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "source checkout" if name == "grym-synth" else "missing"
    return json.dumps(found)


def hardware() -> str:
    """Processor, cores, memory in GiB, accelerators, as a JSON object."""
    facts = {
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "accelerators": ", ".join(_accelerators()) or "none",
        "system": platform.system(),
    }
    return json.dumps(facts)


def processor() -> str:
    """Name of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123 - a pseudo file
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _accelerators() -> list[str]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    finally:
        pynvml.nvmlShutdown()
