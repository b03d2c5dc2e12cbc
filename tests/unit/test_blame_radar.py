"""Blame list, reference radar and noise floor: sums that add up, spans by hand, variances against theory."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from grym.compare.aligned import align_all
from grym.compare.alternations import parse
from grym.compare.blame import blame
from grym.compare.heard import Heard, heard, positions
from grym.compare.noise import combined, noise_floor
from grym.compare.radar import radar
from grym.compare.systems import Dataset
from grym.errors import QualityError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORDS = "zero one two three four five six seven eight nine".split()  # noqa: SIM905 - one line to read


def pair(references: Sequence[str], first: Sequence[str], second: Sequence[str], **slices: Sequence[str]) -> Heard:
    """Two systems on some clips of two speakers in turn."""
    ids = [f"c{i}" for i in range(len(references))]
    texts = [[parse(text) for text in side] for side in (references, first, second)]
    data = Dataset(ids, texts[0], [f"s{i % 2}" for i in range(len(ids))], slices)
    return heard(data, *(align_all(texts[0], side) for side in texts[1:]))


def noisy(text: str, rng: np.random.Generator) -> str:
    """A text with about a third of its words wrong, missing or doubled."""
    found: list[str] = []
    for word in text.split():
        dice = rng.random()
        found += [word, "oh"] if dice < 0.1 else [] if dice < 0.2 else ["ten"] if dice < 0.35 else [word]
    return " ".join(found)


def test_positions_say_again_what_was_aligned() -> None:
    """From alignment back to words: reference and answer come out whole, alternations as chosen."""
    rng = np.random.default_rng(4)
    texts = [" ".join(rng.choice(WORDS, 7)) for _ in range(50)] + ["", "{ uh / @ } one", "two"]
    answers = [noisy(text, rng) for text in texts[:50]] + ["one", "one", ""]
    found = align_all([parse(text) for text in texts], [parse(text) for text in answers])
    for i, utterance in enumerate(positions(found)):
        assert " ".join(p.reference for p in utterance if p.reference) == " ".join(found.references[i])
        assert " ".join(p.hypothesis for p in utterance if p.hypothesis) == " ".join(found.hypotheses[i])
        assert sum(p.operation != "ok" for p in utterance) == found.alignments.errors[i]


def test_every_dimension_adds_up_to_the_difference() -> None:
    """Words, speakers and each slice are partitions: their parts sum to b - a within 1e-12."""
    rng = np.random.default_rng(7)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(300)]
    room = [str(i % 3) if i % 5 else "" for i in range(300)]
    found = blame(pair(texts, [noisy(t, rng) for t in texts], [noisy(t, rng) for t in texts], room=room))
    assert found.difference is not None
    for dimension in ("words", "speakers", "slices"):
        assert math.fsum(p.contribution for p in found.of(dimension)) == pytest.approx(found.difference, abs=1e-12)  # type: ignore[arg-type]
    assert {p.value for p in found.of("slices", "room")} == {"0", "1", "2", "(none)"}
    assert "oh" in {p.value for p in found.of("words", "inserted")}
    assert sum(p.words for p in found.of("words", "word")) <= found.words_a


def test_sums_hold_when_wordings_differ() -> None:
    """With alternations the systems have references of different length; the parts still add up."""
    found = blame(pair(["{ a b c / a } d"] * 3, ["a b c x", "a b c d", "a b"], ["a d", "a x", "d"]))
    assert found.words_a != found.words_b
    assert found.difference is not None
    assert math.fsum(p.contribution for p in found.of("words")) == pytest.approx(found.difference, abs=1e-12)
    assert math.fsum(p.contribution for p in found.of("speakers")) == pytest.approx(found.difference, abs=1e-12)
    assert blame(pair([""], ["a"], [""])).difference is None


def test_a_part_names_the_clips_that_push_its_way() -> None:
    """Clips come with the largest push first; a clip where both made the error is none."""
    found = blame(pair(["five", "five five", "five", "one"], ["five", "five five", "x", "one"], ["x", "x x", "x", "x"]))
    part = found.of("words", "word")[0]
    assert (part.value, part.errors_a, part.errors_b, part.words) == ("five", 1, 4, 4)
    assert (part.clips, part.clip_count) == (("c1", "c0"), 2)
    assert part.contribution == pytest.approx(3 / 5)


def test_radar_finds_what_both_hear_against_the_reference() -> None:
    """Same substitution, same insertion, both missed; a different mistake, or one arm's, is none."""
    found = radar(
        pair(
            ["a bee c d", "one two", "six", "one", "x y"],
            ["a be e c d", "one two oh", "", "ten", "x z"],
            ["a be e c f", "one two oh", "", "tin", "x y"],
        )
    )
    spans = {(s.clip, s.position, s.reference, s.said, s.errors, s.words, s.kind) for s in found.spans}
    assert ("c1", 2, "", "oh", 1, 0, "added") in spans
    assert ("c2", 0, "six", "", 1, 1, "missed") in spans
    assert {s[0] for s in spans} == {"c0", "c1", "c2"}
    (first,) = (s for s in spans if s[0] == "c0")
    assert first[2:6] == ("bee", "be e", 2, 1)
    assert (found.clips, found.compared, found.skipped) == (3, 5, 0)
    assert (found.rates.a, found.rates.b) == pytest.approx((6 / 10, 6 / 10))
    assert (found.without_spans.a, found.without_spans.b) == pytest.approx((2 / 8, 2 / 8))
    assert (found.without_clips.a, found.without_clips.b) == pytest.approx((2 / 3, 1 / 3))


def test_radar_of_odd_input() -> None:
    """Clips scored against different wordings are skipped; nothing at all has no rates."""
    found = radar(pair(["{ a b / c } d"], ["a b x"], ["c x"]))
    assert (found.skipped, found.spans, found.rates.a) == (1, (), None)


def test_noise_floor_recovers_both_variances() -> None:
    """On simulated decoding and speakers the split is unbiased, and the floor holds for 95 % of pairs of runs."""
    rng = np.random.default_rng(11)
    words, speakers = np.full(400, 10), np.repeat(np.arange(40), 10)
    within, between, beyond = [], [], 0
    for _ in range(200):
        rate = np.clip(rng.normal(1.0, 0.4, 40), 0.05, None)[speakers]
        errors = rng.poisson(rate[:, None], (400, 4))
        found = noise_floor(errors, words, speakers)
        within.append(found.within_sd**2)
        between.append((found.between_sd or 0.0) ** 2)
        fresh = rng.poisson(rate[:, None], (400, 2)).sum(axis=0) / words.sum()
        beyond += abs(fresh[0] - fresh[1]) > found.floor
    assert np.mean(within) == pytest.approx(1 / (10 * 4000), rel=0.03)
    assert np.mean(between) == pytest.approx(0.4**2 / 40 / 100, rel=0.1)
    assert beyond <= 20


def test_noise_floor_of_what_never_changes_and_of_too_little() -> None:
    """A deterministic model has no noise; one repeat, no words or NaN are errors."""
    found = noise_floor([[1, 1], [0, 0]], [5, 5], ["x", "x"])
    assert (found.within_sd, found.changed, found.floor, found.between_sd) == (0.0, 0, 0.0, None)
    assert combined(found, found) == 0
    still = noise_floor([[1, 1], [1, 1]], [5, 5], ["x", "y"])
    assert (still.between_sd, still.within_share) == (0.0, 0.0)
    for errors, words in (([[1]], [5]), ([[1, 1]], [0]), ([[1, math.nan]], [5]), ([], [])):
        with pytest.raises(QualityError) as caught:
            noise_floor(errors, words, ["x"] * len(words))
        assert caught.value.code == "no-repeats"


def test_score_shows_what_stands_behind_a_verdict(tmp_path: Path) -> None:
    """On the terminal and in JSON: fragility, blame that adds up to delta, radar and the noise floor."""
    rng = np.random.default_rng(3)
    said = {f"s{i % 8}-{i}": " ".join(rng.choice(WORDS, 6)) for i in range(80)}
    for name in ("ref", "a", "b", "b2"):
        answers = said if name == "ref" else {key: noisy(text, rng) for key, text in said.items()}
        lines = [f"{text} ({key})\n" for key, text in answers.items() if (name, key) != ("b2", "s0-0")]
        (tmp_path / f"{name}.trn").write_text("".join(lines), encoding="utf-8")
    command = ["score", "--references", f"{tmp_path}/ref.trn", "--system", f"a={tmp_path}/a.trn"]
    command += ["--system", f"b={tmp_path}/b.trn", "--by", "speaker", "--evidence", "--repeat", f"b={tmp_path}/b2.trn"]
    done = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    for text in (
        "Fragility of a - b: ",
        "Where a - b comes from",
        "Reference radar: a and b agree",
        "Noise floor of b",
    ):
        assert text in done.output
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    (first,) = found["pairs"]
    assert first["fragility"]["analyses"] == len(first["fragility"]["all"]) == 48
    chosen = first["fragility"]["all"][0]
    assert (chosen["delta"], chosen["low"], chosen["high"]) == pytest.approx(
        (first["delta"], first["low"], first["high"])
    )
    for dimension in ("words", "speakers", "slices"):
        parts = [part["contribution"] for part in first["blame"] if part["dimension"] == dimension]
        assert math.fsum(parts) == pytest.approx(first["delta"], abs=1e-12)
    assert first["radar"]["all"] == pytest.approx({"wer_a": first["wer_a"], "wer_b": first["wer_b"]})
    assert (found["noise"]["b"]["repeats"], found["noise"]["b"]["clips"]) == (2, 79)
    failed = CliRunner().invoke(app, [*command, "--repeat", f"c={tmp_path}/b2.trn"])
    assert "no such system" in str(failed.exception)
