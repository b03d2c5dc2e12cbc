"""The index of a feature space: when it pays, what it is, and how much it misses.

Knows nothing about how rows are stored or filtered. Until some 50 000 rows the
flat search is fast enough and exact; from there a graph (IVF_HNSW_SQ) answers
in milliseconds and misses some neighbours, so its recall is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from grym.memory.features import FeatureStore
    from grym.memory.rows import Space

INDEX_FROM: Final = 50_000  # rows


@dataclass(frozen=True, slots=True)
class IndexReport:
    """State of a space's index.

    Attributes:
        rows: vectors in the space.
        indexed: whether searches use an index.
        recall: share of the flat search's neighbours that the search finds, in [0, 1]; 1 without an index.
        k: neighbours per query behind the recall.
        queries: queries behind the recall; 0 without an index.
    """

    rows: int
    indexed: bool
    recall: float
    k: int
    queries: int


def ensure_index(
    store: FeatureStore,
    space: Space | str,
    *,
    index_from: int = INDEX_FROM,
    rebuild: bool = False,
    k: int = 10,
    queries: int = 50,
) -> IndexReport:
    """Build the index of a space (cosine) once it is large enough, and measure its recall.

    Args:
        store: the feature store.
        space: the space.
        index_from: rows from which an index pays.
        rebuild: build anew, for example after the data has shifted.
        k: neighbours per query of the recall.
        queries: stored vectors that serve as queries of the recall.

    Raises:
        ConfigError: there is no such space.
        StorageError: the index cannot be written.
    """
    table = store.table(space)
    rows, indexed = int(table.count_rows()), _is_indexed(table)
    if rows >= index_from and (rebuild or not indexed):
        from lancedb.index import IvfHnswSq

        with store.writing():
            # One partition: a graph search needs no probes, whose number would have to be tuned.
            config = IvfHnswSq(distance_type="cosine", num_partitions=1, ef_construction=80)
            table.create_index("vector", config=config, replace=True)
        indexed = True
    if not indexed:
        return IndexReport(rows, indexed, 1.0, k, 0)
    return IndexReport(rows, indexed, recall(store, space, k=k, queries=queries), k, min(queries, rows))


def recall(store: FeatureStore, space: Space | str, *, k: int = 10, queries: int = 50, seed: int = 0) -> float:
    """Share of the flat search's ``k`` neighbours that the search finds, over seeded stored vectors, in [0, 1]."""
    table = store.table(space)
    rows = int(table.count_rows())
    offsets = np.random.default_rng(seed).choice(rows, size=min(queries, rows), replace=False)
    sample = table.take_offsets(sorted(map(int, offsets))).select(["vector"]).to_arrow()["vector"].to_pylist()
    found = wanted = 0
    for vector in sample:
        truth = {match.id for match in store.find_similar(vector, k, space=space, exact=True)}
        found += len(truth & {match.id for match in store.find_similar(vector, k, space=space)})
        wanted += len(truth)
    return found / wanted if wanted else 1.0


def _is_indexed(table: Any) -> bool:
    return any("vector" in index.columns for index in table.list_indices())
