"""What earlier exposures say about a unit, so that it keeps its arm though shares have changed.

With an unchanged configuration the hash alone is sticky and nothing is looked up. The exposures that were landed are
the only state: after a restart the book is read from them again. Two processes see each other's later exposures at
the next reading; until then both hash to the same arm. Knows nothing about hashing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

from grym.experiment.growthbook import sticky_key
from grym.experiment.registry import registered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grym.store import Store


class StickyBook(Protocol):
    """Remembers arms of units, in GrowthBook's form: ``EXPERIMENT__BUCKETVERSION`` to arm. Never blocks."""

    def look_up(self, unit: str) -> Mapping[str, str]:
        """What is remembered of a unit; empty if nothing is."""
        ...

    def remember(self, unit: str, key: str, arm: str) -> None:
        """Remember an arm."""
        ...


class MemoryBook:
    """A book in memory.

    Args:
        known: what is remembered from the start, by unit.
    """

    def __init__(self, known: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._known = {unit: dict(said) for unit, said in (known or {}).items()}

    def look_up(self, unit: str) -> Mapping[str, str]:
        """What is remembered of a unit."""
        return self._known.get(unit, {})

    def remember(self, unit: str, key: str, arm: str) -> None:
        """Remember an arm."""
        self._known.setdefault(unit, {})[key] = arm


def read_book(store: Store, experiment: str) -> MemoryBook:
    """The book of one experiment, from the exposures of all its versions; of several arms the first one counts.

    Raises:
        StorageError: a part cannot be read.
    """
    keys = {
        version: sticky_key(experiment, known.sticky.bucket_version)
        for (name, version), known in registered(store).items()
        if name == experiment
    }
    seen = store.read("exposures").filter(
        pl.col("experiment") == experiment, pl.col("reason").is_in(["assigned", "sticky"])
    )
    book = MemoryBook()
    rows = seen.sort("at_ms", "event_id", descending=True).select("unit", "version", "arm").iter_rows()
    for unit, version, arm in rows:  # the earliest one is remembered last
        if version in keys:
            book.remember(unit, keys[version], arm)
    return book
