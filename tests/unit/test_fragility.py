"""Fragility of a verdict: every choice changes what it says it changes, and nothing else."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from grym.compare.fragility import Analysis, Choice, Fragility, Written, by_choice, fragility, said, summed
from grym.compare.significance import Difference, rate_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

SPEAKERS = [f"s{i // 4}" for i in range(32)]
BASE = Choice("none", cluster="speaker")


def tried(references: Sequence[str], first: Sequence[str], second: Sequence[str], **more: Any) -> Fragility:
    """Thirty-two clips of eight speakers."""
    return fragility(Written(references, first, second, SPEAKERS, **more), BASE, margin=0.0)


def difference(found: Fragility, **choice: Any) -> float | None:
    """The difference of the one analysis with these choices, all others as in the chosen one."""
    wanted = {**{name: getattr(BASE, name) for name in BASE.__slots__}, **choice}
    (only,) = (a for a in found.analyses if all(getattr(a.choice, k) == v for k, v in wanted.items()))
    return only.difference.difference


def test_merged_compounds_count_as_one_word() -> None:
    """A split compound costs two errors, or none if compounds are merged; then the systems are alike."""
    references = ["the whitepaper is here"] * 32
    found = tried(references, references, ["the white paper is here"] * 32)
    assert difference(found) == pytest.approx(2 / 4)
    assert difference(found, compounds="merged") == 0
    assert found.flips == {"compounds": ("merged",)}
    assert found.always
    assert found.sentence == (
        "a is better in 24 of 48 analyses; cannot tell in 24. It changes whenever compounds are merged."
    )
    turned = tried(["the white paper is here"] * 32, references, references)
    assert difference(turned, compounds="merged") == 0


def test_dropped_fillers_are_no_words_on_either_side() -> None:
    """Fillers are left out of references and answers, also of alternations; other words stay."""
    references = ["uh so it is"] * 32
    found = tried(references, references, ["so it is um"] * 32)
    assert difference(found) == pytest.approx(2 / 4)
    assert difference(found, fillers="dropped") == 0
    braces = tried(["{ uh / er } so it is"] * 32, ["so it is"] * 32, references, alternations=(True, False, True))
    assert difference(braces) == pytest.approx(-1 / 4)
    assert difference(braces, fillers="dropped") == 0
    assert difference(tried(references, references, ["uh so { it"] * 32, alternations=(True, True, True))) > 0  # type: ignore[operator]


def test_normalisers_weights_and_clusters_are_what_they_say() -> None:
    """Each analysis is the one that its choice names, computed by hand."""
    rng = np.random.default_rng(2)
    lengths = rng.integers(2, 9, 32)
    references = [" ".join("abcdefghi"[:n]) for n in lengths]
    wrong = (rng.random(32) < 0.5).astype(int)
    second = [("x" if bad else "a") + text[1:] for bad, text in zip(wrong, references, strict=True)]
    found = tried(references, [text.upper() for text in references], second)
    assert difference(found, normalizer="basic") == pytest.approx(wrong.sum() / lengths.sum())
    assert difference(found, normalizer="basic", weighting="clips") == pytest.approx((wrong / lengths).mean())
    for cluster, labels in (("speaker", SPEAKERS), ("clip", range(32))):
        (only,) = (
            a
            for a in found.analyses
            if a.choice == Choice("basic", cluster=cluster)  # type: ignore[arg-type]
        )
        expected = rate_difference(np.zeros(32), wrong, lengths, np.asarray(labels), 0.95)
        assert only.difference.ci_low == pytest.approx(expected.ci_low)
        assert only.difference.p_value == pytest.approx(expected.p_value)
    assert tried(references, second, second, ignore_case=True).sentence.startswith("Cannot tell in 48 of 48")


def test_clips_without_words_or_speakers_break_nothing() -> None:
    """Empty references have no rate of their own; without speakers clips are the only unit."""
    references = ["", "", *["a b"] * 30]
    found = fragility(Written(references, ["x", *references[1:]], references), Choice("none"))
    assert len(found.analyses) == 24
    assert difference_of(found, "words") == pytest.approx(-1 / 60)
    assert difference_of(found, "clips") == 0
    nothing = fragility(Written([], [], []), Choice("none"))
    assert {a.verdict for a in nothing.analyses} == {"cannot tell"}


def difference_of(found: Fragility, weighting: str) -> float | None:
    """The difference of the chosen analysis with that weighting."""
    return next(a for a in found.analyses if a.choice == Choice("none", weighting=weighting)).difference.difference  # type: ignore[arg-type]


def invented(dissenting: Any) -> Fragility:
    """All choices, of which those that ``dissenting`` says come to another verdict."""
    d = Difference(0.1, 0.2, 0.1, 0.0, 0.2, 0.95, 0.01, "t", 8)
    grid = product(("none", "basic", "english"), ("kept", "merged"), ("kept", "dropped"), ("words", "clips"))
    choices = [Choice(*c, cluster) for c in grid for cluster in ("speaker", "clip")]  # type: ignore[arg-type]
    analyses = [Analysis(c, d, "cannot tell" if dissenting(c) else "b better") for c in choices]
    return summed(analyses, BASE, ("mini", "int8"))


@pytest.mark.parametrize(
    ("dissenting", "agreeing", "ending"),
    [
        (lambda _: False, 48, "int8 is better in 48 of 48 analyses: no choice of scoring changes the verdict."),
        (lambda c: c.compounds == "merged", 24, "It changes whenever compounds are merged."),
        (
            lambda c: c.compounds == "merged" and c.normalizer == "english" and c.cluster == "clip",
            44,
            "It changes only when the english normaliser is used and compounds are merged.",
        ),
        (
            lambda c: c.compounds == "merged" and c.weighting == "clips",
            36,
            "It changes whenever compounds are merged and every clip has the same weight.",
        ),
        (lambda c: c.normalizer != "none", 16, "It changes whenever the basic or english normaliser is used."),
        (
            lambda c: (c.compounds == "merged") != (c.fillers == "dropped"),
            24,
            "No one or two choices explain it.",
        ),
    ],
)
def test_the_sentence_names_the_choices_behind_a_flip(dissenting: Any, agreeing: int, ending: str) -> None:
    """One choice, two, or none that explains it; and whether these choices always flip the verdict."""
    found = invented(dissenting)
    assert found.agreeing == agreeing
    assert found.sentence.endswith(ending)
    rows = by_choice(found)
    assert sum(total for name, _, _, total in rows if name == "normalizer") == 48
    assert sum(n for name, _, n, _ in rows if name == "fillers") == agreeing


def test_choices_are_clauses() -> None:
    """Every choice can be said."""
    assert said("fillers", "dropped") == "fillers are dropped"
    assert said("normalizer", "basic") == "the basic normaliser is used"
