"""Scores agree with published numbers and with two independent programs."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from grym.compare.normalize import get_normalizer
from grym.compare.score import Aligned, Counts, outcome_scores, pooled, score, word_rows
from grym.schema import TABLES

NONE, BASIC = get_normalizer("none"), get_normalizer("basic")
texts = st.lists(st.sampled_from(["a", "b", "ab", "c", "*", "ö"]), max_size=9).map(" ".join)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "wer"),
    [
        ("X", "X X Y Y", 3),
        ("X Y X", "X Z", 2 / 3),
        ("X", "Y Z", 2),
        ("i am a short ground truth", "i am a considerably longer and very much incorrect hypothesis", 7 / 6),
    ],
)
def test_wer_of_jiwers_examples(reference, hypothesis, wer):
    """The examples of jiwer's own tests give its numbers."""
    assert score(reference, hypothesis, NONE).wer == pytest.approx(wer)


def test_empty_reference_counts_insertions_and_has_no_rate():
    """Nothing to say and something said is an insertion without a rate."""
    result = score("", "silence", BASIC)
    assert (result.insertions, result.errors, result.reference_words) == (1, 1, 0)
    assert result.wer is None
    assert result.cer is None
    assert result.character_errors == len("silence")


def test_empty_on_both_sides_has_no_errors():
    """A silent clip that was answered with nothing is right."""
    result = score("", " ... ", BASIC)
    assert (result.errors, result.alignment, result.wer) == (0, (), None)


def test_compounds_are_not_merged_and_spaces_are_no_characters():
    """A split compound costs two words and no character."""
    result = score("whitepaper", "white paper", BASIC)
    assert (result.errors, result.character_errors, result.wer, result.cer) == (2, 0, 2.0, 0.0)


def test_alignment_shows_each_operation():
    """Every kind of error stands at its position with the missing side empty."""
    result = score("one two three four", "one too three four four", BASIC)
    assert result.alignment[1] == Aligned("sub", "two", "too")
    assert [a.operation for a in result.alignment].count("ins") == 1
    assert score("one two", "one", BASIC).alignment == (Aligned("ok", "one", "one"), Aligned("del", "two", ""))


@given(reference=texts, hypothesis=texts)
def test_counts_agree_with_jiwer_and_weighted_levenshtein(reference, hypothesis):
    """The alignment is optimal under sclite's costs, and never has fewer errors than the unit-cost optimum."""
    result, r, h = score(reference, hypothesis, NONE), reference.split(), hypothesis.split()
    assert result.hits + result.substitutions + result.deletions == len(r) == result.reference_words
    assert result.hits + result.substitutions + result.insertions == len(h)
    assert [a.reference for a in result.alignment if a.operation != "ins"] == r
    assert [a.hypothesis for a in result.alignment if a.operation != "del"] == h
    cost = 4 * result.substitutions + 3 * (result.deletions + result.insertions)
    assert cost == Levenshtein.distance(r, h, weights=(3, 3, 4))
    oracle = jiwer.process_words(reference, hypothesis)
    assert result.errors >= oracle.substitutions + oracle.deletions + oracle.insertions
    assert result.deletions - result.insertions == oracle.deletions - oracle.insertions


@given(reference=texts.filter(bool), hypothesis=texts)
def test_characters_agree_with_jiwer(reference, hypothesis):
    """Without spaces the character error rate is jiwer's."""
    expected = jiwer.cer(reference.replace(" ", ""), hypothesis.replace(" ", ""))
    assert score(reference, hypothesis, NONE).cer == pytest.approx(expected)


def test_pooled_rate_is_errors_over_words():
    """A short bad clip and a long good one pool by counts, not by the mean of 1.0 and 0.0."""
    parts = [score("a", "b", NONE), score("c d e", "c d e", NONE), score("", "x", NONE)]
    total = pooled(parts)
    assert (total.reference_words, total.errors, total.insertions, total.hits) == (4, 2, 1, 3)
    assert total.wer == 0.5
    assert pooled([]) == Counts()


def test_rows_have_the_columns_of_their_tables():
    """Score columns and word rows fit the schema, key included."""
    result = score("one two", "one", BASIC)
    columns = {column.name for column in TABLES["outcomes"].columns}
    values = outcome_scores(result, BASIC)
    assert set(values) < columns
    assert values["normalizer"] == BASIC.label
    rows = word_rows("run-1", "a", "clip", result)
    assert [set(row) for row in rows] == [{column.name for column in TABLES["words"].columns}] * 2
    assert [(row["position"], row["operation"]) for row in rows] == [(0, "ok"), (1, "del")]
