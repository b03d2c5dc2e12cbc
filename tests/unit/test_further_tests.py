"""The tests that papers report, for a run: the same numbers as a scoreboard's, the other way round."""

from __future__ import annotations

import numpy as np
import pytest

from grym.compare.alternations import plain
from grym.compare.further_tests import further_rows
from grym.compare.heard import Heard, alignments, heard
from grym.compare.systems import Dataset, Options, Pair, compare_systems, score_system


def _pair(speakers: int, seed: int) -> tuple[Heard, Pair, Dataset]:
    """Two systems on random texts; the second makes more errors."""
    rng = np.random.default_rng(seed)
    ids = [f"u{i:03d}" for i in range(90)]
    references = [[f"w{n}" for n in rng.integers(0, 30, 1 + rng.integers(0, 9))] for _ in ids]

    def said(rate: float) -> dict[str, str]:
        return {
            key: " ".join(
                piece
                for word in words
                for dice in (rng.random(),)
                for piece in (
                    [] if dice < rate / 3 else ["x"] if dice < rate else [word, "y"] if dice > 0.97 else [word]
                )
            )
            for key, words in zip(ids, references, strict=True)
        }

    data = Dataset(ids, [plain(" ".join(words)) for words in references], [f"s{i % speakers}" for i in range(90)])
    systems = [
        score_system(name, data, {key: plain(text) for key, text in said(rate).items()}, 0.95)
        for name, rate in (("a", 0.1), ("b", 0.25))
    ]
    (found,) = compare_systems(data, systems, Options())
    return heard(data, systems[0].aligned, systems[1].aligned), found, data


def test_they_are_those_of_a_scoreboard() -> None:
    """From words back to alignments: every test has the p-value of ``score``, with b - a as sign."""
    pair, scored, data = _pair(9, 3)
    rows = {row["test"]: row for row in further_rows(pair, data.clusters, confidence=0.95, margin=0.005, seed=7)}
    assert rows["mapsswe"]["n"] == scored.mapsswe.segments
    assert rows["mapsswe"]["statistic"] == pytest.approx(-scored.mapsswe.z)  # type: ignore[operator]
    assert rows["mapsswe"]["p_value"] == pytest.approx(scored.mapsswe.t_p_value)
    assert rows["mcnemar"]["statistic"] == scored.mcnemar.only_a_right > 0
    for name in ("mcnemar", "sign", "wilcoxon"):
        assert rows[name]["p_value"] == pytest.approx(getattr(scored, name).p_value)
    assert rows["sign"]["statistic"] == scored.sign.negative
    ends = rows["bootstrap"]["ci_low"], rows["bootstrap"]["ci_high"]
    assert ends == pytest.approx((-scored.bootstrap.high, -scored.bootstrap.low), abs=1e-3)  # type: ignore[operator]
    assert rows["equivalence"]["p_value"] == pytest.approx(scored.equivalence_p)
    assert all(row["enough"] for row in rows.values())


def test_few_speakers_and_no_words_say_little() -> None:
    """Below six clusters nothing by cluster is enough; without a reference word there is no row at all."""
    pair, _, data = _pair(4, 5)
    rows = {row["test"]: row for row in further_rows(pair, data.clusters, confidence=0.95, margin=0.0, seed=7)}
    assert "equivalence" not in rows
    assert [name for name, row in rows.items() if not row["enough"]] == ["sign", "wilcoxon", "bootstrap"]
    assert further_rows(Heard([], [], []), [], confidence=0.95, margin=0.005, seed=7) == []
    assert alignments([[]]).gaps.tolist() == [0]
