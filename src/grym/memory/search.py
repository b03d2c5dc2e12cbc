"""Search by clip: a stored clip, its name in the manifest, or an audio file.

A stored clip is looked for in the model's space that was written last. A file is
heard by the model as it is now and compared only with features of that revision.

Knows nothing about the terminal. Scores are cosine similarities in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grym.errors import ConfigError
from grym.memory.features import FeatureStore, Match, Space
from grym.scratch import scratch_folder
from grym.worker import Worker
from grym.worker.decoder import Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grym.config import Settings
    from grym.models.interface import Card


@dataclass(frozen=True, slots=True)
class _File:
    """A whole file, as a decoder takes it."""

    path: Path
    offset: float = 0.0
    duration: float | None = None


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
        ConfigError: nothing is stored for the model (for an audio file: for the revision that it has now), or
            the clip is unknown or ambiguous.
        AudioError: the audio file is not a usable clip.
        ModelError: the model cannot be loaded.
    """
    name = model or settings.compare.a
    spec = settings.model(name)
    store = FeatureStore(settings.home)
    spaces = _spaces(store, name)
    filters = dict(_filter(item) for item in where)
    if not _is_file(clip):
        return store.find_similar_to(clip, k, space=spaces[-1], where=filters)
    with scratch_folder(settings.home, "search") as scratch:
        with Decoder(settings.worker, scratch / "decode", children=1) as decoder:  # the file is a stranger's
            heard, _ = decoder.decode(_File(Path(clip)), settings.audio)
        cache = settings.home / "cache"
        with Worker(spec, settings.worker, scratch, plugins=settings.plugins.paths, cache=cache) as worker:
            space = _space_of(worker.card, spaces)
            vectors, _ = worker.features([heard])
    return store.find_similar(vectors[0], k, space=space, where=filters)


def _is_file(clip: str) -> bool:
    try:
        return Path(clip).is_file()
    except (OSError, ValueError):  # too long, or a zero byte: no name of a file
        return False


def _filter(item: str) -> tuple[str, str]:
    column, equals, value = item.partition("=")
    if not equals:
        msg = f"The filter {item!r} is not of the form column=value."
        raise ConfigError(msg, code="bad-filter", hint="For example --where speaker=theo.")
    return column, value


def _spaces(store: FeatureStore, model: str) -> list[Space]:
    """The spaces of a model, one for each revision; the one written last comes last."""
    spaces = [space for space in store.spaces() if space.model == model]
    if not spaces:
        msg = f"No features of {model} are stored."
        raise ConfigError(msg, code="no-features", hint="Run a comparison with this model first.")
    return spaces


def _space_of(card: Card, spaces: Sequence[Space]) -> Space:
    """The space whose vectors the loaded model can be compared with: other revisions hear otherwise."""
    for space in reversed(spaces):
        if space.revision == card.revision:
            return space
    stored = ", ".join(space.revision for space in spaces)
    msg = f"The model {card.name} is now revision {card.revision}, but its stored features are of {stored}."
    raise ConfigError(msg, code="no-features", hint="Run a comparison with this model first.")
