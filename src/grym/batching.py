"""Batches of clips, planned by length from the manifest alone.

Knows nothing about models or memory. The same clips and limits always give the
same batches with the same names, which is what makes a run resumable.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Sized(Protocol):
    """Anything with a content id and a length in seconds."""

    @property
    def clip_id(self) -> str:
        """Content id."""
        ...

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips that travel together; ``id`` names the landed parts."""

    id: str
    clip_ids: tuple[str, ...]
    seconds: float


def name_of(parts: Iterable[str]) -> str:
    """A short stable name of some strings, in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def plan_batches(clips: Sequence[Sized], *, max_seconds: float, max_clips: int) -> tuple[Batch, ...]:
    """Group clips of similar length.

    Args:
        clips: in any order; the order does not matter.
        max_seconds: audio in one batch; a longer clip is a batch of its own.
        max_clips: clips in one batch.

    Returns:
        Batches from short to long clips; every clip is in exactly one.
    """
    batches: list[Batch] = []
    current: list[Sized] = []
    for clip in sorted(clips, key=lambda c: (c.seconds, c.clip_id)):
        total = sum(c.seconds for c in current) + clip.seconds
        if current and (len(current) >= max_clips or total > max_seconds):
            batches.append(_close(current))
            current = []
        current.append(clip)
    if current:
        batches.append(_close(current))
    return tuple(batches)


def _close(clips: Sequence[Sized]) -> Batch:
    ids = tuple(clip.clip_id for clip in clips)
    return Batch(name_of(ids), ids, sum(clip.seconds for clip in clips))
