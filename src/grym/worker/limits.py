"""Limits that a worker process puts on itself, before it touches a model or a strange file.

A client sends them once, with the operation ``limit``; what the system cannot keep
is left out of the answer, so that nobody takes it for kept. Resident memory and the
number of processes are watched from outside (:mod:`grym.worker.watchdog`), because
the kernel has no limit for them that works for every user. Sizes are MB (10^6 bytes).
"""

from __future__ import annotations

import dataclasses
import math
import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grym.worker import landlock, privileges

if TYPE_CHECKING:
    from collections.abc import Mapping

MB: Final = 1_000_000
# What libraries reserve and never touch: with torch and two threads a process has 290 MB more data than memory.
RESERVED_MB: Final = 320
OOM_SCORE: Final = "600"  # of 1000: the kernel ends a worker before the process that would start it again


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker may use; 0 and empty mean no limit.

    Attributes:
        memory_mb: data that it may have, with :data:`RESERVED_MB` on top: an allocation beyond it fails.
        release_mb: resident memory beyond which it gives back what it can after a request.
        cpu_seconds: processor time of one request, whole seconds, all threads together; SIGXCPU ends it.
        open_files: descriptors.
        file_mb: largest file that it may write.
        confine: whether it is confined to ``writable``, see :mod:`grym.worker.landlock`, without root's rights.
        writable: files and folders that it may write to.
    """

    memory_mb: float = 0.0
    release_mb: float = 0.0
    cpu_seconds: float = 0.0
    open_files: int = 0
    file_mb: float = 0.0
    confine: bool = False
    writable: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Limits:
        """Limits of a request.

        Raises:
            ValueError: an unknown name or a wrong value; the message names it.
        """
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        for name, value in data.items():
            if name not in known:
                msg = f"there is no limit {name!r}; right are {', '.join(known)}"
                raise ValueError(msg)
            if not _is_like(known[name], value):
                msg = f"limit {name!r} cannot be {value!r}"
                raise ValueError(msg)
        values = {**data, "writable": tuple(data.get("writable", ()))}
        return cls(**values)

    def apply(self) -> list[str]:
        """Put them in force for the rest of this process; the names of those that are.

        Raises:
            OSError: the kernel offers a limit and refuses to keep it.
        """
        kept = []
        if self.memory_mb and hasattr(resource, "RLIMIT_DATA"):
            kept += _lower("memory_mb", resource.RLIMIT_DATA, int((self.memory_mb + RESERVED_MB) * MB))
        if self.open_files:
            kept += _lower("open_files", resource.RLIMIT_NOFILE, self.open_files)
        if self.file_mb:
            kept += _lower("file_mb", resource.RLIMIT_FSIZE, int(self.file_mb * MB))
        if self.cpu_seconds:
            kept.append("cpu_seconds")  # set anew for each request
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
        if self.confine:
            kept += landlock.confine([Path(place) for place in self.writable])
            kept += ["privileges"] if privileges.drop() else []
        return kept

    def begin(self) -> None:
        """Give the request that begins its processor time."""
        if self.cpu_seconds:
            until = math.ceil(time.process_time() + self.cpu_seconds)
            _, hard = resource.getrlimit(resource.RLIMIT_CPU)
            resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


def _lower(name: str, kind: int, value: int) -> list[str]:
    """Lower a limit, the hard one too; one that is lower already stays as it is."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
    return [name]


def _is_like(default: object, value: object) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, tuple):
        return isinstance(value, list) and all(isinstance(item, str) and "\0" not in item for item in value)
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    return 0 <= value < math.inf
