"""Upkeep of the feature store: fragments compacted, old versions removed, the index kept and its recall measured.

Every merge of a batch leaves a version of its table. A reader keeps the version it
opened, so that versions are removed by age only, older than the longest reader lives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grym.maintain.scratch import size
from grym.memory.features import FeatureStore
from grym.memory.index import ensure_index

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tended:
    """What upkeep did to one feature space.

    Attributes:
        space: its name.
        rows: vectors in it.
        versions_before: versions of the table before.
        versions_after: versions afterwards.
        indexed: whether searches use an index.
        recall: share of the exact search's ten nearest neighbours that a search finds, in [0, 1].
    """

    space: str
    rows: int
    versions_before: int
    versions_after: int
    indexed: bool
    recall: float


@dataclass(frozen=True, slots=True)
class FeaturesTended:
    """What upkeep did to the feature store: its spaces, and its size in bytes before and afterwards."""

    spaces: tuple[Tended, ...]
    bytes_before: int
    bytes_after: int


def tend(home: Path, *, keep: timedelta) -> FeaturesTended:
    """Compact every feature space and remove its versions older than ``keep``.

    Args:
        home: folder of everything that is stored.
        keep: age up to which a version stays; never less than the longest reader lives.

    Raises:
        StorageError: another writer does not end, or the store cannot be written to.
    """
    store = FeatureStore(home)
    names = [space.name for space in store.spaces()]
    bytes_before = size(store.path)
    versions = {name: _versions(store, name) for name in names}
    store.optimize(keep=keep)
    tended = []
    for name in names:
        index = ensure_index(store, name)
        tended.append(Tended(name, index.rows, versions[name], _versions(store, name), index.indexed, index.recall))
    return FeaturesTended(tuple(tended), bytes_before, size(store.path))


def _versions(store: FeatureStore, space: str) -> int:
    return len(store.table(space).list_versions())
