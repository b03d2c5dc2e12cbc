"""Memory that a worker and its client share, for audio that is too much for a pipe and not for memory.

The client owns a nameless file in memory (``memfd``), gives the child its
descriptor at the start and writes clips into it before each request; the child
maps it for reading. It has no name, so it is gone when the last of both is gone,
however they ended. Knows nothing about messages. Sizes are bytes. Linux only:
elsewhere there is none and audio goes through the pipe.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from grym.worker.protocol import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grym.worker.protocol import Frame

BYTES: Final = 64 * 2**20
LEAST_BYTES: Final = 64 * 2**10
ALIGNMENT: Final = 64


class Arena:
    """The client's side: one memory for one child.

    Attributes:
        descriptor: number of the file, the same in the child.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def create(cls) -> Arena | None:
        """A new memory, or ``None`` where the system has none to give; it takes room only where it is written."""
        if not hasattr(os, "memfd_create"):
            return None
        try:
            descriptor = os.memfd_create("grym-audio")
            os.ftruncate(descriptor, BYTES)
        except OSError:
            return None
        return cls(descriptor)

    def offer(self) -> dict[str, int]:
        """What the request ``load`` says about it."""
        return {"descriptor": self.descriptor, "bytes": BYTES}

    def put(self, arrays: Sequence[Frame]) -> list[int] | None:
        """Write arrays one after the other.

        Args:
            arrays: float32 ``shape = (samples,)``.

        Returns:
            Where each begins, or ``None`` if it is not worth while, or more than fits in.
        """
        starts, end = [], 0
        for array in arrays:
            starts.append(end)
            end += -(-array.size * SAMPLE.itemsize // ALIGNMENT) * ALIGNMENT
        if not LEAST_BYTES <= end <= BYTES:
            return None
        for start, array in zip(starts, arrays, strict=True):
            view = np.ascontiguousarray(array, dtype=SAMPLE).view(np.uint8).data
            at = 0
            while at < len(view):
                at += os.pwrite(self.descriptor, view[at:], start + at)
        return starts

    def close(self) -> None:
        """Give it up; safe to call twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Mapping:
    """The child's side: the same memory, read-only."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    @classmethod
    def accept(cls, offer: Any) -> Self | None:
        """Map what ``load`` offered; ``None`` if it is not there, and audio will come as frames."""
        if (
            not isinstance(offer, dict)
            or type(offer.get("descriptor")) is not int
            or type(offer.get("bytes")) is not int
        ):
            return None
        try:
            return cls(mmap.mmap(offer["descriptor"], offer["bytes"], access=mmap.ACCESS_READ))
        except (OSError, ValueError, OverflowError):
            return None

    def take(self, start: int, samples: int) -> Frame:
        """Samples from byte ``start``, float32 ``shape = (samples,)``, valid until the request is answered.

        Raises:
            ValueError: they are not inside.
        """
        if start < 0 or samples < 0 or start % SAMPLE.itemsize:
            msg = "not a place in the shared memory"
            raise ValueError(msg)
        taken = np.frombuffer(self._memory, dtype=SAMPLE, count=samples, offset=start)
        return taken.astype(np.float32, copy=False)
