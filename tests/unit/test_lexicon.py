"""Decoding with a closed vocabulary: exact, never worse than greedy inside the list, and strict about the list."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym.errors import ConfigError
from grym.models.ctc import Emission, decode
from grym.models.lexicon import Lexicon, read_words

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

VOCABULARY = ("<pad>", "|", "a", "b", "c")
WORDS = ("ab", "abb", "c")
LEXICON = Lexicon.build(WORDS, VOCABULARY, 0, "|")


def _text(emission: Emission, path: np.ndarray) -> str:
    return decode(replace(emission, path=path), VOCABULARY, 0, "|").text


def _emission(seed: int, frames: int) -> Emission:
    scores = np.random.default_rng(seed).normal(0, 2, (frames, len(VOCABULARY))).astype(np.float32)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return Emission(scores, np.zeros(1, np.float32), 0.02, 0.02 * frames, VOCABULARY, 0)


@functools.cache
def _paths(frames: int) -> npt.NDArray[np.int64]:
    """Every path of so many frames that spells listed words, ``shape = (paths, frames)``."""
    emission = _emission(0, frames)
    every = map(np.array, itertools.product(range(len(VOCABULARY)), repeat=frames))
    return np.array([path for path in every if LEXICON.knows(_text(emission, path))])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_the_path_is_the_best_of_all_paths_that_spell_listed_words(seed: int, frames: int) -> None:
    """Against every path there is: none with listed words only is more probable."""
    emission = _emission(seed, frames)
    rows = np.arange(frames)
    found = emission.log_probabilities[rows, LEXICON.best_path(emission.log_probabilities)].sum()
    best = emission.log_probabilities[rows, _paths(frames)].sum(axis=1).max()
    assert found == pytest.approx(best, abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_the_answer_holds_listed_words_only(seed: int, frames: int) -> None:
    """Whatever the network says, no other word comes out; where greedy decoding has none either, they agree."""
    emission = _emission(seed, frames)
    text = _text(emission, LEXICON.best_path(emission.log_probabilities))
    assert LEXICON.knows(text)
    greedy = decode(emission, VOCABULARY, 0, "|").text
    if LEXICON.knows(greedy):
        assert text == greedy


@pytest.mark.parametrize("words", [(), ("",), ("ax",)])
def test_a_list_that_cannot_be_decoded_with_is_refused(words: tuple[str, ...]) -> None:
    """No words, an empty word, and letters without a token are named."""
    with pytest.raises(ConfigError, match="cannot be decoded with") as raised:
        Lexicon.build(words, VOCABULARY, 0, "|")
    assert raised.value.code == "bad-lexicon"


def test_the_list_is_read_strictly(tmp_path: Path) -> None:
    """Without a file there is no list; a file that is no list of words is an error."""
    assert read_words(tmp_path) == ()
    (tmp_path / "lexicon.json").write_text(json.dumps(["one", "two"]), encoding="utf-8")
    assert read_words(tmp_path) == ("one", "two")
    for text in ('{"one": 1}', "[1]", "nonsense"):
        (tmp_path / "lexicon.json").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="not a JSON list"):
            read_words(tmp_path)
