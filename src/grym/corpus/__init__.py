"""Datasets: loaders, manifests and seeded generators.

    >>> from grym.corpus import load_dataset

Generators need more than loaders do, so they are imported by name:
:mod:`grym.corpus.digits`, :mod:`grym.corpus.bank`, :mod:`grym.corpus.augment`.
"""

from grym.corpus.loaders import load_dataset
from grym.corpus.manifest import Dataset, Entry, Manifest, Rejected, read_manifest

__all__ = ["Dataset", "Entry", "Manifest", "Rejected", "load_dataset", "read_manifest"]
