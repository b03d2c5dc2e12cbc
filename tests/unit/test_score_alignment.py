"""Alignments have sclite's costs and choices, one wording or several."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from grym.compare import alignment
from grym.compare.aligned import align_all
from grym.compare.alignment import align
from grym.compare.alternations import Text, parse, plain
from grym.compare.networks import align_texts
from grym.errors import ManifestError

words = st.lists(st.sampled_from("abc"), max_size=9)


def shown(reference: str, hypothesis: str) -> str:
    """The operations of one pair: C, S, D and I."""
    found = align([reference.split()], [hypothesis.split()])
    codes, gaps = found.one(0)
    return "".join("I" * gap + "CSD"[code] for gap, code in zip(gaps, codes, strict=False)) + "I" * int(gaps[-1])


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a b c", "a b c", "CCC"),
        ("a b c", "", "DDD"),
        ("", "a b", "II"),
        ("", "", ""),
        ("a", "a a", "IC"),
        ("a a", "a", "DC"),
        ("a b", "x y z", "ISS"),
        ("a b c", "b c d", "DCCI"),
        ("a b c d e", "x y z", "DDSSS"),
    ],
)
def test_choices_among_equals(reference: str, hypothesis: str, expected: str) -> None:
    """From the end, two words go before one and an insertion before a deletion."""
    assert shown(reference, hypothesis) == expected


def test_three_substitutions_cost_what_four_gaps_cost() -> None:
    """12 = 3 x 4 = 4 x 3: of the two cheapest alignments the one that pairs the last words is taken."""
    assert shown("x a b c", "a b c y") == "DCCCI"
    assert shown("a b c x", "y z w a b c x") == "IIICCCC"


@settings(max_examples=25, deadline=None)
@given(pairs=st.lists(st.tuples(words, words), min_size=1, max_size=6))
def test_many_at_once_are_each_optimal_and_equal_to_networks(pairs: list[tuple[list[str], list[str]]]) -> None:
    """A batch gives every pair the cheapest cost, and what the slow network aligner chooses for it alone."""
    references, hypotheses = ([pair[i] for pair in pairs] for i in (0, 1))
    found = align(references, hypotheses)
    substituted, deleted, inserted = found.count(alignment.SUB), found.count(alignment.DEL), found.insertions
    for i, (reference, hypothesis) in enumerate(pairs):
        cost = 4 * substituted[i] + 3 * (deleted[i] + inserted[i])
        assert cost == Levenshtein.distance(reference, hypothesis, weights=(3, 3, 4))
        assert len(reference) - deleted[i] + inserted[i] == len(hypothesis)
        path = align_texts(Text(tuple(reference)), Text(tuple(hypothesis)))
        codes, gaps = found.one(i)
        assert (codes.tolist(), gaps.tolist()) == (list(path.codes), list(path.gaps))
    assert found.errors.tolist() == (substituted + deleted + inserted).tolist()


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many utterances share a table does not matter, and long texts need wider numbers."""
    rng = np.random.default_rng(3)
    references = [["abcd"[i] for i in rng.integers(0, 4, n)] for n in (0, 3, 5, 60, 7, 1)]
    hypotheses = [["abcd"[i] for i in rng.integers(0, 4, n)] for n in (2, 3, 0, 55, 9, 1)]
    whole = align(references, hypotheses)
    monkeypatch.setattr(alignment, "_BLOCK_CELLS", 20)
    parts = align(references, hypotheses)
    assert whole.codes.tolist() == parts.codes.tolist()
    assert whole.gaps.tolist() == parts.gaps.tolist()
    long = align([["a", "b"]], [["c"] * 11_000 + ["a"]])
    assert long.errors.tolist() == [11_001]


def test_an_endless_utterance_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that would not fit into memory is an error with advice."""
    monkeypatch.setattr(alignment, "_MAX_CELLS", 50)
    with pytest.raises(ManifestError, match="too long") as caught:
        align([["a"] * 10], [["b"] * 10])
    assert caught.value.code == "too-long"
    with pytest.raises(ManifestError, match="too many"):
        align_texts(parse("{ a / b } " + "x " * 3000), plain("x " * 3000))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "chosen", "codes", "gaps"),
    [
        ("a { b c / d } e", "a d e", "a d e", "CCC", [0, 0, 0, 0]),
        ("a { b c / d } e", "a b e", "a b c e", "CCDC", [0, 0, 0, 0, 0]),
        ("a { uh / @ } b", "a b", "a b", "CC", [0, 0, 0]),
        ("a { uh / @ } b", "a um b", "a b", "CC", [0, 1, 0]),
        ("{ a / b } { c / d }", "b d", "b d", "CC", [0, 0, 0]),
        ("x { a { b / c } d / e }", "x a c d", "x a c d", "CCCC", [0, 0, 0, 0, 0]),
        ("{a/b}c", "b c", "b c", "CC", [0, 0, 0]),
        ("a @ b", "a b", "a b", "CC", [0, 0, 0]),
        ("{ @ }", "a", "", "", [1]),
        ("w/o { a / }", "w/o a", "w/o a", "CC", [0, 0, 0]),
    ],
)
def test_the_best_wording_is_scored(reference: str, hypothesis: str, chosen: str, codes: str, gaps: list[int]) -> None:
    """Any wording of an alternation may be said, @ is nothing, nesting and missing spaces are understood."""
    path = align_texts(parse(reference), plain(hypothesis))
    assert " ".join(path.reference) == chosen
    assert "".join("CSD"[code] for code in path.codes) == codes
    assert list(path.gaps) == gaps


def test_alternations_in_both_texts() -> None:
    """Two networks are aligned with each other, and the chosen words of the answer are known."""
    path = align_texts(parse("a { b / c d } e"), parse("{ x / a } { c d / q } e"))
    assert (path.codes, path.reference, path.hypothesis) == ((0, 0, 0, 0), ("a", "c", "d", "e"), ("a", "c", "d", "e"))


@pytest.mark.parametrize("text", ["a { b", "a } b", "{ }", "{ a / { b }", "{" * 60 + "a" + "}" * 60])
def test_broken_alternations_are_refused(text: str) -> None:
    """Braces without partner or content, or nested without end, are an error."""
    with pytest.raises(ManifestError) as caught:
        parse(text)
    assert caught.value.code == "bad-alternation"


def test_rules_are_applied_to_words_not_to_signs() -> None:
    """A normaliser sees stretches of words; an alternative it makes nothing of may be left out."""
    text = parse("Hello { THERE / ! } you", lambda part: part.lower().replace("!", ""))
    assert align_texts(text, plain("hello you")).codes == (0, 0)
    assert align_texts(text, plain("hello there you")).codes == (0, 0, 0)


def test_a_system_is_aligned_as_a_whole() -> None:
    """Plain texts and networks stand side by side; characters are those of the chosen wording."""
    found = align_all([parse("ab c"), parse("{ xy / z } q"), parse("")], [plain("a bc"), plain("z q q"), plain("")])
    counts = found.counts
    assert (counts.reference_words, counts.hits, counts.substitutions) == (4, 2, 2)
    assert (counts.insertions, counts.deletions) == (1, 0)
    assert found.characters.tolist() == [3, 2, 0]
    assert found.character_errors.tolist() == [0, 1, 0]
    assert align_all([], []).counts.wer is None
