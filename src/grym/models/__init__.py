"""Models: the interface, the registry and the adapters.

Importing this package imports no adapter and no torch.
"""

from grym.models.interface import (
    Answer,
    AudioClip,
    Card,
    Level,
    Model,
    Options,
    Quality,
    Samples,
    Segment,
)
from grym.models.registry import build_options, find_adapter, known_adapters, load_model, revision_hash

__all__ = [
    "Answer",
    "AudioClip",
    "Card",
    "Level",
    "Model",
    "Options",
    "Quality",
    "Samples",
    "Segment",
    "build_options",
    "find_adapter",
    "known_adapters",
    "load_model",
    "revision_hash",
]
