"""The label nearest to a caption, in any embedding of texts.

Knows nothing about audio or models. Source: the evaluation of GAMA, which describes
a clip and takes the label whose sentence embedding is nearest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from grym.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

TEMPERATURE: Final = 0.05  # of cosine similarities; makes shares that add up to one, no calibrated probabilities


def nearest(
    caption: str, labels: Sequence[str], embed: Callable[[Sequence[str]], npt.NDArray[np.float32]]
) -> npt.NDArray[np.float64]:
    """Share of each label by its cosine similarity to a caption, float64 ``shape = (labels,)``.

    Args:
        caption: what a model said; an empty one is near to nothing, all shares are equal.
        labels: what to choose from.
        embed: texts to vectors, ``shape = (texts, dim)``.

    Raises:
        ModelError: ``bad-embedder``: it gave another shape, or NaN.
    """
    if not caption.strip():
        return np.full(len(labels), 1 / len(labels))
    vectors = np.asarray(embed([caption, *labels]), dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(labels) + 1 or not np.isfinite(vectors).all():  # noqa: PLR2004
        msg = f"The embedder gave vectors of shape {vectors.shape} for {len(labels) + 1} texts, or NaN."
        raise ModelError(msg, code="bad-embedder", hint="It has to give one finite vector for each text.")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    scaled = unit[1:] @ unit[0] / TEMPERATURE
    shares: npt.NDArray[np.float64] = np.exp(scaled - scaled.max())
    shares /= shares.sum()
    return shares
