"""Scratch folders of processes that are gone: counted and removed.

Which folder is in use is known to :mod:`grym.scratch` alone, by the lock that its
process holds; what workers said on standard error is kept in ``HOME/logs``.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grym.scratch import scratch_folder

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pruned:
    """Scratch folders that were removed, by name, and how large they were in bytes."""

    folders: tuple[str, ...]
    bytes: int


def prune(home: Path) -> Pruned:
    """Remove the scratch folders whose process has ended or was killed; those in use stay.

    Args:
        home: folder of everything that is stored.

    Raises:
        StorageError: the place cannot be written to, or another process holds it for too long.
    """
    root = home / "scratch"
    if not root.is_dir():
        return Pruned((), 0)
    sizes = {folder: size(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    with scratch_folder(home, "maintain"):  # whoever asks for a folder removes those of the dead
        gone = [folder for folder in sizes if not folder.exists()]
    return Pruned(tuple(folder.name for folder in gone), sum(sizes[folder] for folder in gone))


def size(folder: Path) -> int:
    """Bytes of all files below a folder; one that vanishes meanwhile counts as nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total
