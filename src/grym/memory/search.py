"""Search by clip: a stored clip, its name in the manifest, or an audio file.

Knows nothing about the terminal. Scores are cosine similarities in [-1, 1].
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from grym.audio import decode
from grym.errors import ConfigError
from grym.memory.features import FeatureStore, Match, Space
from grym.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from grym.config import Settings


def search(
    clip: str, settings: Settings, *, k: int = 5, model: str | None = None, where: Sequence[str] = ()
) -> list[Match]:
    """The stored clips that are nearest to a clip.

    Args:
        clip: content id or a unique beginning of it, a name in the manifest, or the path of an audio file.
        settings: grym.toml.
        k: how many.
        model: whose features; default the first model of ``[compare]``.
        where: filters such as ``"speaker=theo"``.

    Raises:
        ConfigError: nothing is stored for the model, or the clip is unknown or ambiguous.
    """
    name = model or settings.compare.a
    settings.model(name)
    store = FeatureStore(settings.home)
    space = _newest_space(store, name)
    filters = dict(_filter(item) for item in where)
    path = Path(clip)
    if path.is_file():
        return store.find_similar(_features(path, name, settings), k, space=space, where=filters)
    return store.find_similar_to(clip, k, space=space, where=filters)


def _filter(item: str) -> tuple[str, str]:
    column, equals, value = item.partition("=")
    if not equals:
        msg = f"The filter {item!r} is not of the form column=value."
        raise ConfigError(msg, code="bad-filter", hint="For example --where speaker=theo.")
    return column, value


def _newest_space(store: FeatureStore, model: str) -> Space:
    spaces = [space for space in store.spaces() if space.model == model]
    if not spaces:
        msg = f"No features of {model} are stored."
        raise ConfigError(msg, code="no-features", hint="Run a comparison with this model first.")
    return spaces[-1]


def _features(path: Path, name: str, settings: Settings) -> npt.NDArray[np.float32]:
    clip, _ = decode(path, settings.audio)
    worker = Worker(
        settings.model(name), settings.worker, settings.home / "scratch" / "search", plugins=settings.plugins.paths
    )
    with worker:
        vectors, _ = worker.features([clip])
    nearest: npt.NDArray[np.float32] = vectors[0]
    return nearest
