"""From frame probabilities of a CTC model to text, confidences and word times.

Knows nothing about networks. Arrays are NumPy; times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from grym.errors import ModelError
from grym.models.interface import Segment

SPECIAL: Final = frozenset({"<pad>", "<s>", "</s>", "<unk>", "[PAD]", "[UNK]"})


@dataclass(frozen=True, slots=True)
class Emission:
    """What a CTC network said about one clip.

    Attributes:
        log_probabilities: float32 ``shape = (frames, vocabulary)``.
        hidden_mean: float32 ``shape = (hidden,)``, last hidden state averaged over time.
        seconds_per_frame: step of the frames.
        seconds: length of the clip.
        vocabulary: token of each column.
        blank: column of the blank.
        path: token id of each frame, int64 ``shape = (frames,)``; ``None`` for the most probable one.
        lead_seconds: how long before the clip the frames begin.
    """

    log_probabilities: npt.NDArray[np.float32]
    hidden_mean: npt.NDArray[np.float32]
    seconds_per_frame: float
    seconds: float
    vocabulary: tuple[str, ...]
    blank: int
    path: npt.NDArray[np.int64] | None = None
    lead_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """Text with its confidence, word segments and number of tokens."""

    text: str
    confidence: float
    segments: tuple[Segment, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    first: int
    last: int
    log_probability: float


def decode(emission: Emission, vocabulary: tuple[str, ...], blank: int, delimiter: str) -> Transcript:
    """Greedy CTC decoding with word segments.

    The most probable path of all is also the best path of its own text, so the
    segments equal those of a forced alignment of that text (tested).

    Confidence of a word is the geometric mean of its frames' probabilities; that
    of a clip is the geometric mean over all frames that carry a token. A clip
    without any token gets the mean probability of the blank: how sure the model
    is that nothing was said.
    """
    path = emission.log_probabilities.argmax(axis=1) if emission.path is None else emission.path
    scores = emission.log_probabilities[np.arange(path.size), path]
    tokens = _collapse(path, scores, vocabulary, blank)
    if not tokens:
        return Transcript("", float(np.exp(scores.mean())) if path.size else 0.0, (), 0)
    words: list[list[_Token]] = [[]]
    for token in tokens:
        if token.text == delimiter:
            words.append([])
        else:
            words[-1].append(token)
    segments = tuple(_segment(word, emission) for word in words if word)
    frames = sum(token.last - token.first + 1 for token in tokens)
    confidence = float(np.exp(sum(token.log_probability for token in tokens) / frames))
    text = " ".join(segment.text for segment in segments)
    return Transcript(text, min(1.0, confidence), segments, len(tokens))


def _collapse(
    path: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], vocabulary: tuple[str, ...], blank: int
) -> list[_Token]:
    """Runs of equal tokens, blanks and special tokens removed."""
    if path.size == 0:
        return []
    borders = np.flatnonzero(np.diff(path)) + 1
    starts = np.concatenate([[0], borders])
    ends = np.concatenate([borders, [path.size]])
    return [
        _Token(vocabulary[path[a]], int(a), int(b) - 1, float(scores[a:b].sum()))
        for a, b in zip(starts, ends, strict=True)
        if path[a] != blank and vocabulary[path[a]] not in SPECIAL
    ]


def _segment(word: list[_Token], emission: Emission) -> Segment:
    first, last = word[0].first, word[-1].last
    frames = sum(token.last - token.first + 1 for token in word)
    confidence = float(np.exp(sum(token.log_probability for token in word) / frames))
    return Segment(
        start=_within(first * emission.seconds_per_frame, emission),
        end=_within((last + 1) * emission.seconds_per_frame, emission),
        text="".join(token.text for token in word),
        confidence=min(1.0, confidence),
    )


def _within(seconds: float, emission: Emission) -> float:
    """A time of the frames as a time of the clip."""
    return min(max(seconds - emission.lead_seconds, 0.0), emission.seconds)


def force(emission: Emission, text: str, delimiter: str) -> Emission:
    """The same emission with the best path of a given text.

    Args:
        emission: what the network said.
        text: words separated by spaces.
        delimiter: token between words.

    Raises:
        ModelError: a letter is missing from the vocabulary, or the text needs more frames than there are.
    """
    import torch
    import torchaudio

    letters = list(delimiter.join(text.split()))
    unknown = sorted(set(letters) - set(emission.vocabulary))
    if unknown or not letters:
        msg = f"The text cannot be aligned: {'it is empty' if not letters else f'no token for {unknown}'}."
        raise ModelError(msg, code="not-alignable")
    ids = torch.tensor([[emission.vocabulary.index(letter) for letter in letters]], dtype=torch.int64)
    try:
        path, _ = torchaudio.functional.forced_align(
            torch.from_numpy(emission.log_probabilities)[None], ids, blank=emission.blank
        )
    except RuntimeError as error:
        msg = f"The text has {len(letters)} letters, more than fit into {len(emission.log_probabilities)} frames."
        raise ModelError(msg, code="not-alignable") from error
    return replace(emission, path=path[0].numpy().astype(np.int64))
