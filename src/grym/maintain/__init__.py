"""Upkeep of a home: small parts put together, old versions and old scratch folders removed.

Everything here can be killed at any moment and repeated; nothing here changes
what a reader reads. Knows nothing about when it runs (``flows/maintain.py`` does).
"""

from grym.maintain.features import FeaturesTended, Tended, tend
from grym.maintain.landing import Compacted, compact
from grym.maintain.scratch import Pruned, prune
from grym.maintain.summary import Maintained, lines, markdown

__all__ = [
    "Compacted",
    "FeaturesTended",
    "Maintained",
    "Pruned",
    "Tended",
    "compact",
    "lines",
    "markdown",
    "prune",
    "tend",
]
