"""What stands behind a verdict, in the report: every row leads to a clip that is there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from grym.compare.run_evidence import evidence_rows
from reports.evidence import behind
from reports.frames import RunData
from reports.render import render_run
from reports.trend import history

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLE = Path(__file__).parent / "test_reports.py"


def with_evidence(data: RunData, looks: Sequence[dict[str, Any]] = ()) -> RunData:
    """The run with the tables that a comparison lands."""
    tables = {name: data.table(name) for name in ("outcomes", "clips", "words")}
    tables["outcomes"] = tables["outcomes"].with_columns(
        pl.col("reference_characters", "character_errors").fill_null(0)
    )
    rows: dict[str, Any] = evidence_rows(tables, normalizer="basic", confidence=0.95, margin=0.005, seed=7)
    noise = {
        "repeats": 5, "clips": 40, "reference_words": 230, "wer": 0.05, "changed": 7, "within_sd": 0.004,
        "between_sd": 0.011, "within_share": 0.12, "floor": 0.0113, "confidence": 0.95,
    }  # fmt: skip
    rows["noise"] = [{"arm": arm, "model": arm, **noise} for arm in "ab"]
    rows["looks"] = looks
    made = {name: pl.DataFrame(found).with_columns(run_id=pl.lit(data.run_id)) for name, found in rows.items() if found}
    return RunData(data.run_id, {**data.tables, **made})


LOOKS = [
    {
        "look": i + 1, "clips": clips, "planned": 448, "reference_words": 5 * clips, "differing": 8 + 6 * i,
        "clusters": 16, "a": 0.05, "b": 0.05 + d, "difference": d, "ci_low": d - half, "ci_high": d + half,
        "confidence": 0.95, "p_value": 0.2, "verdict": "a better" if d > half else "cannot tell", "decided": d > half,
    }
    for i, (clips, d, half) in enumerate([(50, 0.03, 0.09), (73, 0.045, 0.07), (96, 0.05, 0.055), (119, 0.054, 0.05)])
]  # fmt: skip


@pytest.fixture(scope="module")
def sample() -> RunData:
    """The invented run of the report's tests."""
    found: RunData = runpy.run_path(str(SAMPLE))["sample_run"]()
    return found


def test_every_row_leads_to_a_clip_on_the_page(sample: RunData, tmp_path: Path) -> None:
    """All three sections are there, each link has its target, and the parts add up to the difference."""
    data = with_evidence(sample, LOOKS)
    page = render_run(data, history(pl.DataFrame(), pl.DataFrame(), pl.DataFrame()), tmp_path / "run.html")
    text = page.read_text(encoding="utf-8")
    for section in ("firm", "blame", "radar"):
        assert f'id="{section}"' in text
    links = set(re.findall(r'href="#(clip-[^"]+)"', text))
    assert len(links) > 5
    assert links <= set(re.findall(r'id="(clip-[^"]+)"', text))
    assert "119 of 448" in text
    assert "Noise floor" in text
    assert "Further clips that the sections above lead to" in text
    found = behind(data, ("a", "b"))
    wer = data.comparison("wer")
    assert found.difference == pytest.approx(wer["difference"], abs=1e-12)
    for group in found.groups:
        assert group.shown + group.rest == pytest.approx(wer["difference"], abs=1e-12)
    assert found.rates["with"] == pytest.approx((wer["a"], wer["b"]))
    assert found.fragility is not None
    assert len(found.strip) == len(found.fragility.analyses) == 48
    assert [chosen for _, chosen, _ in found.strip].count(True) == 1


def test_a_run_of_an_older_version_has_nothing_behind_it(sample: RunData) -> None:
    """Without the tables nothing is shown, and what cannot be read leads nowhere."""
    old = behind(sample, ("a", "b"))
    assert (old.fragility, old.groups, old.spans, old.looks, old.noise, old.asked) == (None, (), (), (), (), ())
    rows = with_evidence(sample).table("blame").with_columns(examples=pl.lit("{"))
    broken = RunData(sample.run_id, {**sample.tables, "blame": rows})
    assert behind(broken, ("a", "b")).asked == ()
