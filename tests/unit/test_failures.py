"""Failure classes of generated answers."""

from __future__ import annotations

import pytest

from grym.models.failures import FAILURES, find_failure, is_loop


@pytest.mark.parametrize(
    ("text", "task", "failure"),
    [
        ("A dog barks while a bell rings.", "describe", ""),
        ("", "describe", "empty"),
        (" … ", "transcribe", "empty"),
        ("I'm sorry, but I cannot listen to audio.", "describe", "refusal"),
        ("As an AI language model, I have no ears.", "question", "refusal"),
        ("No audio was provided.", "question", "refusal"),
        ("I cannot hear a bell.", "question", "refusal"),
        ("she said i cannot come today", "transcribe", ""),
        ("I cannot transcribe this.", "transcribe", "refusal"),
        ("rain and rain and rain and rain and rain and rain and", "describe", "repetition"),
        ("a bell rings loudly a bell rings loudly a bell rings loudly", "describe", "repetition"),
        ("ha ha ha", "describe", ""),
        ("seven seven seven seven seven", "transcribe", ""),
        ("The audio contains a man who counts.", "transcribe", "wrong-task"),
        ("A woman says three words in the background.", "transcribe", "wrong-task"),
        ("four two nine", "transcribe", ""),
    ],
)
def test_each_answer_gets_its_class(text: str, task: str, failure: str) -> None:
    """Answers that are all right have none; the others the first that applies."""
    assert find_failure(text, task) == failure
    assert failure in {"", *FAILURES}


def test_cut_answers_are_truncated_unless_they_loop() -> None:
    """A loop never ends by itself, so it is named first."""
    assert find_failure("A dog barks and then", "describe", ended=False) == "truncated"
    assert find_failure("no " * 40, "describe", ended=False) == "repetition"


def test_repeats_have_to_be_much_of_the_text() -> None:
    """Three repeats inside a long text are style, not a loop."""
    long = "the birds sing and sing and sing and sing while a car passes by on a wet road in the city"
    assert not is_loop(long.split())
    looping = "one two three one two three one two three one"
    assert is_loop(looping.split())
