"""Memory of processes while they run: sampled from the side, peaks kept. MB are 10^6 bytes. Linux only.

Resident memory (RSS) of a process counts pages of libraries that others map as
well; the proportional share (PSS) splits them, so that a sum over processes
counts every page once.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PERIOD_SECONDS = 0.25


@dataclass(slots=True)
class Peaks:
    """What was seen.

    Attributes:
        rss_mb: highest resident memory of each process, by number and command.
        pss_mb: highest sum of all proportional shares at one moment.
    """

    rss_mb: dict[str, float] = field(default_factory=dict)
    pss_mb: float = 0.0


class Watch:
    """Samples a process, its descendants and others while the code inside runs.

    Args:
        root: process number.
        others: says which further processes to include.
    """

    def __init__(self, root: int, others: Callable[[], Iterable[int]] = tuple) -> None:
        self.peaks = Peaks()
        self._root, self._others = root, others
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(PERIOD_SECONDS):
            total = 0.0
            for process in self._processes():
                with suppress(psutil.Error, OSError):
                    command = " ".join(process.cmdline())[-60:]
                    name = f"{process.pid} {command}"
                    peak = _field(process.pid, "status", "VmHWM")
                    self.peaks.rss_mb[name] = max(peak, self.peaks.rss_mb.get(name, 0.0))
                    total += _field(process.pid, "smaps_rollup", "Pss")
            self.peaks.pss_mb = max(self.peaks.pss_mb, total)

    def _processes(self) -> list[psutil.Process]:
        found: dict[int, psutil.Process] = {}
        for number in {self._root, *self._others()}:
            with suppress(psutil.Error):
                parent = psutil.Process(number)
                found |= {process.pid: process for process in (parent, *parent.children(recursive=True))}
        return list(found.values())


def _field(pid: int, file: str, name: str) -> float:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
