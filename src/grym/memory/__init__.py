"""Feature memory: what was heard before, searched by likeness."""

from grym.memory.features import Feature, FeatureStore, IndexReport, Match, Metric, Space, space_name

__all__ = ["Feature", "FeatureStore", "IndexReport", "Match", "Metric", "Space", "space_name"]
