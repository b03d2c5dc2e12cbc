"""Failure classes of generated answers."""

from __future__ import annotations

import numpy as np
import pytest

from grym.corpus.digits import WORDS
from grym.corpus.sounds import LABELS, TEMPLATES, draw_event
from grym.corpus.sounds.language import phrase
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
        ("no", "describe", "wrong-task"),
        ("Yes.", "describe", "wrong-task"),
        ("three four", "describe", "wrong-task"),
        ("3 4", "describe", "wrong-task"),
        ("No speech.", "describe", "wrong-task"),
        ("no", "question", ""),
        ("bell", "describe", ""),
        ("No bell, only rain.", "describe", ""),
        ("A low bell struck twice.", "transcribe", "wrong-task"),
        ("Sounds of heavy rain", "transcribe", "wrong-task"),
        ("The clip has a low bell struck once.", "transcribe", "wrong-task"),
        ("a bell rang and she left", "transcribe", ""),
        ("rain rain go away", "transcribe", ""),
        ("no" * 17, "question", "repetition"),
        ("我" * 12, "describe", "repetition"),
        ("はい" * 10, "transcribe", "repetition"),
        ("hahaha", "describe", ""),
        ("a clock that ticks, ticks and ticks........", "describe", ""),
        ("Unfortunately, there is no audio", "describe", "refusal"),
        ("As a language model, I do not process audio.", "describe", "refusal"),
    ],
)
def test_each_answer_gets_its_class(text: str, task: str, failure: str) -> None:
    """Answers that are all right have none; the others the first that applies."""
    assert find_failure(text, task) == failure
    assert failure in {"", *FAILURES}


@pytest.mark.parametrize("relation", TEMPLATES)
def test_what_is_right_about_sounds_is_no_failure(relation: str) -> None:
    """Every template with every label: none fails as a caption, and most do where speech was to be written down."""
    rng = np.random.default_rng(5)
    caught = []
    for template in TEMPLATES[relation]:
        for label in LABELS:
            other = LABELS[int(rng.integers(len(LABELS)))]
            for form in (0, 1):
                parts = (phrase(draw_event(label, rng), form), phrase(draw_event(other, rng), 1 - form))
                text = template.format(a=parts[0], b=parts[1])
                caption = f"{text[0].upper()}{text[1:]}."
                assert find_failure(caption, "describe") == "", caption
                caught.append(find_failure(caption, "transcribe") == "wrong-task")
    assert np.mean(caught) > 0.75


def test_what_people_say_is_no_failure() -> None:
    """Strings of digits of any length, and sentences about things that sound."""
    rng = np.random.default_rng(6)
    for count in (1, 2, 3, 5, 9):
        for _ in range(100):
            assert find_failure(" ".join(rng.choice(WORDS, count)), "transcribe") == ""
    for text in (
        "she heard the bell",
        "An alarm is what you need.",
        "The dog barked and the wind rose.",
        "Two dogs met me",
    ):
        assert find_failure(text, "transcribe") == "", text


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
