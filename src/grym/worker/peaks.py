"""Resident memory of this process: the highest so far, and the highest during one request.

Linux lets a process begin its high-water mark anew; elsewhere the two are the same.
MB are 10^6 bytes.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

MB: Final = 1e6
RESET: Final = b"5"  # proc(5), clear_refs: the high-water mark becomes what is resident now


class Peaks:
    """High-water marks; made before the process gives up its right to write."""

    def __init__(self) -> None:
        self._so_far = 0.0
        self._file = -1
        with suppress(OSError):
            self._file = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)

    def begin(self) -> None:
        """A request begins."""
        if self._file >= 0:
            self._so_far = max(self._so_far, peak_rss_mb())
            with suppress(OSError):
                os.write(self._file, RESET)

    def end(self) -> tuple[float, float]:
        """The highest so far, and since the request began."""
        now = peak_rss_mb()
        self._so_far = max(self._so_far, now)
        return self._so_far, now

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def resident_mb() -> float:
    """Resident memory of this process now, in MB; 0 where the system does not say (only Linux has to)."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MB
    return 0.0


def peak_rss_mb() -> float:
    """Highest resident memory of this process since it was last reset, in MB.

    Linux carries a parent's memory into a child's ``ru_maxrss`` across exec, so ``VmHWM`` is read where it exists.
    """
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/status").read_bytes().split(b"VmHWM:", 1)[1].split(None, 1)[0]) * 1024 / MB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB
