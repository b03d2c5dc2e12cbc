"""What a child and its helpers use, seen from outside: resident memory and processes.

Read from ``/proc`` where there is one (tens of microseconds), else from psutil. A
limit that only the child could keep would not be kept by a child that is stuck in C
code. Bytes; knows nothing about what the child does.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from grym.errors import ResourceError

if TYPE_CHECKING:
    from grym._worker_settings import WorkerLimits

MB: Final = 1e6
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
DEEPEST: Final = 64
_PROC: Final = Path("/proc/self/statm").exists()


@dataclass(frozen=True, slots=True)
class Guard:
    """Limits that are watched from outside; 0 is no limit.

    Attributes:
        memory_mb: resident memory of the child with its helpers.
        processes: the child and its helpers.
    """

    memory_mb: float = 0.0
    processes: int = 0

    @classmethod
    def of(cls, limits: WorkerLimits, memory_mb: float = 0.0) -> Guard:
        """The limits of grym.toml; ``memory_mb`` is that of the model, if it has one of its own."""
        shares = [limits.memory_share * total_mb()] if limits.memory_share else []
        given = [memory_mb or limits.memory_mb] if memory_mb or limits.memory_mb else []
        return cls(min([*shares, *given], default=0.0), limits.processes)

    def check(self, pid: int) -> None:
        """Look at a child.

        Raises:
            ResourceError: ``out-of-memory`` or ``too-many-processes``: it uses more than it may.
        """
        if not self.memory_mb and not self.processes:
            return
        pids = family(pid)
        if self.processes and len(pids) > self.processes:
            msg = f"The worker had {len(pids)} processes; {self.processes} are allowed."
            hint = "Raise processes under [worker] in grym.toml if the model needs them."
            raise ResourceError(msg, code="too-many-processes", hint=hint, retryable=False)
        used = sum(map(resident_bytes, pids)) / MB
        if self.memory_mb and used > self.memory_mb:
            msg = f"The worker used {used:.0f} MB; {self.memory_mb:.0f} MB are allowed."
            hint = "Use a smaller batch, shorter windows or a smaller precision, or raise memory_mb in grym.toml."
            facts = {"used_mb": round(used), "allowed_mb": round(self.memory_mb)}
            raise ResourceError(msg, code="out-of-memory", hint=hint, metadata=facts)


def family(pid: int) -> list[int]:
    """A process and its descendants, as far as they can be seen."""
    if not _PROC:
        with suppress(psutil.Error):
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        return [pid]
    found, last = [pid], [pid]
    for _ in range(DEEPEST):
        last = [child for parent in last for child in _children(parent)]
        if not last:
            break
        found += last
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, 0 if it is gone."""
    if _PROC:
        with suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE
        return 0
    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory since the machine started; 0 if it does not say."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return 0


def total_mb() -> float:
    """Memory of this machine, or of the container if that has less, in MB."""
    from grym.models.memory import container_limit

    return min(float(psutil.virtual_memory().total), container_limit()) / MB


def _children(pid: int) -> list[int]:
    """Children of all threads of a process; most have none, so a look at the threads is most of the work."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - paths are not needed
            with suppress(OSError, ValueError), open(f"/proc/{pid}/task/{thread}/children", "rb") as stream:  # noqa: PTH123
                found += map(int, stream.read().split())
    return found
