"""The label nearest to a caption, in any embedding of texts.

Knows nothing about audio or models. Source: the evaluation of GAMA, which describes
a clip and takes the label whose sentence embedding is nearest.
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import numpy as np

from grym.errors import GrymError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]

TEMPERATURE: Final = 0.05  # of cosine similarities; makes shares that add up to one, no calibrated probabilities
STEM: Final = 3  # letters that two forms of a word share at least
ENDING: Final = 4  # and letters that one may have behind them: clap, clapping


def nearest(caption: str, labels: Sequence[str], embed: Embed) -> npt.NDArray[np.float64]:
    """Share of each label by its cosine similarity to a caption, float64 ``shape = (labels,)``.

    Args:
        caption: what a model said; an empty one is near to nothing, all shares are equal.
        labels: what to choose from.
        embed: texts to vectors, ``shape = (texts, dim)``.

    Raises:
        ModelError: ``bad-embedder``: it gave another shape, or NaN, or failed.
    """
    if not caption.strip():
        return np.full(len(labels), 1 / len(labels))
    unit = _unit([caption, *labels], embed)
    return _shares(unit[1:] @ unit[0])


def nearest_by_words(caption: str, labels: Sequence[str], embed: Embed) -> npt.NDArray[np.float64]:
    """The same for embeddings of single words, which a mean over a sentence drowns in articles and adjectives.

    The similarity of a label is the mean over its words of the most similar word of the caption: by embedding, or
    by spelling, as the share of the label's word that begins both ("clap" and "clapping" are one word).

    Args:
        caption: what a model said; an empty one is near to nothing, all shares are equal.
        labels: what to choose from.
        embed: words to vectors, ``shape = (words, dim)``.

    Raises:
        ModelError: ``bad-embedder``: as for :func:`nearest`.
    """
    if not caption.strip():
        return np.full(len(labels), 1 / len(labels))
    said, named = words_of(caption), [words_of(label) for label in labels]
    known = list(dict.fromkeys([*said, *(word for words in named for word in words)]))
    places = {word: place for place, word in enumerate(known)}
    unit = _unit(known, embed)
    heard = unit[[places[word] for word in said]]

    def likeness(word: str) -> float:
        return max(float((heard @ unit[places[word]]).max()), *(_spelt(word, other) for other in said))

    return _shares(np.asarray([np.mean([likeness(word) for word in words]) for words in named]))


def words_of(text: str) -> list[str]:
    """Words in lower case; a text without letters or digits is one word.

    Example:
        >>> words_of("A bird, chirping."), words_of("!")
        (['a', 'bird', 'chirping'], ['!'])
    """
    return re.findall(r"[^\W_]+", text.lower()) or [text.strip()]


def _spelt(label: str, said: str) -> float:
    """Share of a label's word that a caption's word begins with, 0 where they are not forms of one word."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(label, said, strict=False)))
    return same / len(label) if same >= STEM and len(said) - same <= ENDING else 0.0


def _unit(texts: Sequence[str], embed: Embed) -> npt.NDArray[np.float64]:
    """Vectors of length one, float64 ``shape = (texts, dim)``."""
    hint = "It has to take texts and give one finite vector for each."
    try:
        vectors = np.asarray(embed(texts), dtype=np.float64)
    except GrymError:
        raise
    except Exception as error:
        msg = f"The embedder failed: {type(error).__name__}."
        raise ModelError(msg, code="bad-embedder", hint=hint) from error
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():  # noqa: PLR2004
        msg = f"The embedder gave vectors of shape {vectors.shape} for {len(texts)} texts, or NaN."
        raise ModelError(msg, code="bad-embedder", hint=hint)
    unit: npt.NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def _shares(similarities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scaled = similarities / TEMPERATURE
    shares: npt.NDArray[np.float64] = np.exp(scaled - scaled.max())
    shares /= shares.sum()
    return shares
