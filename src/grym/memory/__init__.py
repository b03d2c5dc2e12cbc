"""Feature memory: what was heard before, searched by likeness."""

from grym.memory.features import Feature, FeatureStore, Match, Metric, Space, space_name
from grym.memory.index import IndexReport, ensure_index, recall

__all__ = [
    "Feature",
    "FeatureStore",
    "IndexReport",
    "Match",
    "Metric",
    "Space",
    "ensure_index",
    "recall",
    "space_name",
]
