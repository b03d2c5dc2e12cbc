"""Embedders of texts for ``classify_by = "caption"``, by the name that an option gives them.

Knows nothing about audio. Runs inside a worker.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

import numpy as np

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from grym.models.checkpoint import Device
    from grym.models.clap import Clap

    Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
CLAP: Final = "clap:"


def find_embedder(named: str, device: Device) -> tuple[Embed, str]:
    """Texts to vectors, ``shape = (texts, dim)``, and what tells one revision from another.

    Args:
        named: ``clap:FOLDER`` for the text tower of a CLAP model, else ``package.module:function``.
        device: where a CLAP model runs.

    Raises:
        ConfigError: ``no-embedder``: there is none of that name; ``bad-embedder``: it is no function; or what a CLAP
            folder is refused for.
    """
    if named.startswith(CLAP):
        from grym.config import ModelSpec
        from grym.models.clap import Clap, ClapOptions

        model = Clap(ModelSpec(name="embedder", adapter="clap"), ClapOptions(named.removeprefix(CLAP), device=device))
        return (lambda texts: np.stack([_whole(model, text) for text in texts])), model.card.revision
    module, _, name = named.partition(":")
    try:
        found: Embed = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"There is no embedder {named!r}."
        hint = "Write it as 'package.module:function' or 'clap:FOLDER'."
        raise ConfigError(msg, code="no-embedder", hint=hint) from error
    if not callable(found):
        msg = f"The embedder {named!r} is a {type(found).__name__}, no function."
        raise ConfigError(msg, code="bad-embedder", hint="It has to take texts and give one vector for each.")
    return found, ""


def _whole(model: Clap, text: str) -> npt.NDArray[np.float32]:
    """Embedding of a text of any length: what is too long for the model is the mean of its halves."""
    try:
        vector: npt.NDArray[np.float32] = model.embed_texts([text])[0]
    except ConfigError as error:
        words = text.split()
        if error.code != "prompt-too-long" or len(words) < 2:  # noqa: PLR2004 - one word has no halves
            raise
        middle = len(words) // 2
        halves = [_whole(model, " ".join(part)) for part in (words[:middle], words[middle:])]
        vector = np.mean(halves, axis=0, dtype=np.float32)
    return vector
