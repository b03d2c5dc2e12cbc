"""Decoding with a closed vocabulary: the best CTC path among those that spell words of a list.

A model for a known set of words should not answer "sevn". The search is exact
(Viterbi over a loop of the words), and as the most probable path of all is
taken wherever it spells listed words by itself, nothing that greedy decoding
got right in the list is ever changed.

Knows nothing about networks. Arrays are NumPy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE: Final = "lexicon.json"
_NONE: Final = -1
# The three states outside words: a delimiter, the blank beside it, and the blank after a word.
_DELIMITER: Final = 0
_PAUSE: Final = 1
_AFTER: Final = 2


@dataclass(frozen=True, slots=True)
class Lexicon:
    """A word list as a graph of CTC states.

    Attributes:
        words: the list.
        tokens: token id of each state, int64 ``shape = (states,)``.
        before: up to two states each state may follow, apart from itself, int64 ``shape = (states, 2)``; -1 is none.
        starts: states of first letters.
        ends: states of last letters.
    """

    words: frozenset[str]
    tokens: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    @classmethod
    def build(cls, words: Sequence[str], vocabulary: Sequence[str], blank: int, delimiter: str) -> Lexicon:
        """Make the graph.

        Args:
            words: the list, in the letters of the vocabulary.
            vocabulary: token of each column of the emissions.
            blank: column of the blank.
            delimiter: token between words.

        Raises:
            ConfigError: there is no word, or a letter is not in the vocabulary.
        """
        number = {token: index for index, token in enumerate(vocabulary)}
        unknown = sorted({letter for word in words for letter in word} - set(number))
        if unknown or not words or not all(words) or delimiter not in number:
            what = f"no token for {', '.join(map(repr, unknown))}" if unknown else "there is no word or no delimiter"
            msg = f"The word list cannot be decoded with: {what}."
            raise ConfigError(msg, code="bad-lexicon", hint=f"Mend {FILE} of the checkpoint, or set lexicon = 'off'.")
        tokens = [number[delimiter], blank, blank]
        before = [[_PAUSE, _AFTER], [_DELIMITER, _NONE], [_NONE, _NONE]]
        starts, ends = [], []
        for word in sorted(set(words)):
            starts.append(len(tokens))
            for index, letter in enumerate(word):
                if index == 0:
                    before.append([_PAUSE, _DELIMITER])
                else:
                    tokens.append(blank)
                    before.append([len(tokens) - 2, _NONE])
                    # Equal letters need a blank between them, else CTC would read one.
                    before.append([len(tokens) - 1, _NONE if letter == word[index - 1] else len(tokens) - 2])
                tokens.append(number[letter])
            ends.append(len(tokens) - 1)
        return cls(frozenset(words), *(np.array(part, np.int64) for part in (tokens, before, starts, ends)))

    def knows(self, text: str) -> bool:
        """Whether every word of a text is in the list."""
        return all(word in self.words for word in text.split())

    def best_path(self, log_probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Token id of each frame on the best path that spells words of the list, int64 ``shape = (frames,)``.

        Args:
            log_probabilities: float32 ``shape = (frames, vocabulary)``.
        """
        scores = log_probabilities[:, self.tokens].astype(np.float64)
        frames, states = scores.shape
        best = np.full(states + 1, -np.inf)  # one more, so that -1 points at "none"
        first = np.concatenate([[_DELIMITER, _PAUSE], self.starts])
        best[first] = scores[0, first]
        came = np.empty((frames, states), np.int64)
        own = np.arange(states)
        ways = np.column_stack([own, self.before])
        for frame in range(1, frames):
            options = best[ways]
            choice = options.argmax(axis=1)
            came[frame] = ways[own, choice]
            reached = options[own, choice]
            last = self.ends[best[self.ends].argmax()]
            for state in (_DELIMITER, _AFTER):
                if best[last] > reached[state]:
                    reached[state], came[frame, state] = best[last], last
            best[:states] = reached + scores[frame]
        finals = np.concatenate([[_DELIMITER, _PAUSE, _AFTER], self.ends])
        state = int(finals[best[finals].argmax()])
        path = np.empty(frames, np.int64)
        for frame in range(frames - 1, -1, -1):
            path[frame] = state
            state = int(came[frame, state]) if frame else state
        return self.tokens[path]


def read_words(folder: Path) -> tuple[str, ...]:
    """The word list of a checkpoint folder; empty if it has none.

    Raises:
        ConfigError: the file is not a JSON list of words.
    """
    file = folder / FILE
    if not file.is_file():
        return ()
    try:
        words = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        msg = f"{FILE} of the model folder {folder.name!r} is not a JSON list of words."
        raise ConfigError(msg, code="bad-lexicon", hint='Write it as ["zero", "one"], or remove it.')
    return tuple(words)
