"""Greedy CTC decoding, confidences, word times and forced alignment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym.errors import ModelError
from grym.models.ctc import Emission, decode, force

VOCABULARY = ("<pad>", "<unk>", "|", "a", "b", "c")


def _emission(path: list[int], sure: float = 0.9) -> Emission:
    rest = (1 - sure) / (len(VOCABULARY) - 1)
    probabilities = np.full((len(path), len(VOCABULARY)), rest, np.float32)
    probabilities[np.arange(len(path)), path] = sure
    return Emission(np.log(probabilities), np.zeros(2, np.float32), 0.02, 0.02 * len(path) + 0.005, VOCABULARY, 0)


def test_repeats_collapse_and_words_get_their_times() -> None:
    """A run is one letter, a blank separates equal letters, times are frames of 20 ms."""
    said = decode(_emission([0, 3, 3, 0, 3, 2, 0, 4, 5, 0]), VOCABULARY, 0, "|")
    assert said.text == "aa bc"
    assert said.tokens == 5
    assert [(s.text, round(s.start, 3), round(s.end, 3)) for s in said.segments] == [
        ("aa", 0.02, 0.1),
        ("bc", 0.14, 0.18),
    ]
    assert said.confidence == pytest.approx(0.9)


def test_silence_is_an_empty_text_with_the_confidence_of_the_blank() -> None:
    """Nothing said is an answer, and how sure the model is of it is known."""
    said = decode(_emission([0, 0, 0], sure=0.8), VOCABULARY, 0, "|")
    assert (said.text, said.segments, said.tokens) == ("", (), 0)
    assert said.confidence == pytest.approx(0.8)


def test_special_tokens_and_lone_delimiters_leave_no_words() -> None:
    """Unknown tokens and doubled delimiters never become words."""
    assert decode(_emission([2, 1, 2, 3, 2, 0, 2]), VOCABULARY, 0, "|").text == "a"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, len(VOCABULARY) - 1).filter(lambda i: i != 1), min_size=3, max_size=25))
def test_the_forced_path_of_the_greedy_text_is_the_greedy_path(path: list[int]) -> None:
    """Greedy segments equal those of a forced alignment of the same text."""
    emission = _emission(path)
    said = decode(emission, VOCABULARY, 0, "|")
    letters = [VOCABULARY[i] for i, before in zip(path, [None, *path], strict=False) if i not in (before, 0)]
    if not said.text or "".join(letters) != said.text.replace(" ", "|"):
        return  # leading, trailing or doubled delimiters are not part of the text
    assert decode(force(emission, said.text, "|"), VOCABULARY, 0, "|") == said


def test_a_text_that_cannot_be_aligned_is_an_error() -> None:
    """Unknown letters, no letters, or more letters than frames."""
    for text in ("xyz", "", "a b c a b c"):
        with pytest.raises(ModelError) as caught:
            force(_emission([3, 4, 5]), text, "|")
        assert caught.value.code == "not-alignable"
