"""Metrics other than words in ``score``: labels, columns, quantiles, and what is wrong with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from grym.compare.score_metrics import read_metric
from grym.compare.scoreboard import score_files
from grym.errors import ConfigError, ManifestError, QualityError

if TYPE_CHECKING:
    from pathlib import Path


def files(folder: Path, **columns: str) -> tuple[Path, dict[str, Path]]:
    """Eighty labelled clips of eight speakers; b is slower by 20 ms and wrong in every third."""
    rng = np.random.default_rng(1)
    made = {}
    for name, slow in (("ref", 0), ("a", 0), ("b", 20)):
        lines = ["id,text,speaker,ms,note"]
        for i in range(80):
            label = "cat" if name == "b" and i % 3 == 0 else "dog"
            ms = columns.get(f"{name}{i}", f"{100 + slow + rng.normal():.3f}")
            lines.append(f"u{i},{label},s{i % 8},{ms},")
        made[name] = folder / f"{name}.csv"
        made[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made.pop("ref"), made


def test_labels_and_quantiles_have_verdicts_and_intervals(tmp_path: Path) -> None:
    """Accuracy and the 95th percentile are told apart, on the terminal and in JSON, with a - b as sign."""
    reference, systems = files(tmp_path, a0="", b1="")
    named = [f"--system={name}={path}" for name, path in systems.items()]
    asked = ["--metric", "correct", "--metric", "ms:p95:lower", "--metric", "ms", "--json", str(tmp_path / "out.json")]
    done = CliRunner().invoke(app, ["score", "--references", str(reference), *named, *asked])
    assert done.exit_code == 0, done.output
    assert "a is better than b: the label accuracy of b is 0.6625" in done.output
    found = {row["metric"]: row for row in json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["metrics"]}
    assert found["correct"]["delta"] == pytest.approx(0.3375)
    assert found["ms:p95:lower"]["verdict"] == "a better"
    assert found["ms:p95:lower"]["low"] < found["ms:p95:lower"]["delta"] < found["ms:p95:lower"]["high"] < 0
    assert (found["ms"]["verdict"], found["ms"]["left_out"], found["ms"]["utterances"]) == ("b better", 2, 78)


def test_a_margin_makes_equivalence_possible(tmp_path: Path) -> None:
    """In the unit of the column: 20 ms apart are equivalent inside 25 ms, and so it is said."""
    reference, systems = files(tmp_path)
    found = dict(score_files(reference, systems, metrics=["ms:lower:margin=25", "ms:lower"]).metrics)
    assert found["ms:lower"].verdict == "a better"
    assert found["ms:lower:margin=25"].verdict == "equivalent"
    assert "inside a margin of 25" in found["ms:lower:margin=25"].sentence


def test_metrics_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """A wrong form, an empty column and a text that is no number each have their own error."""
    reference, systems = files(tmp_path)
    assert read_metric("ms:p95:lower:margin=2.5")[1].margin == 2.5
    assert read_metric("correct:margin=0.02")[1].margin == 0.02
    for text in ("ms:p0", "ms:p100", "ms:middle", "", "ms:margin=x", "ms:margin=-1", "ms:margin=inf", "ms:margin=nan"):
        with pytest.raises(ConfigError, match="is no metric"):
            read_metric(text)
    with pytest.raises(ConfigError) as caught:
        score_files(reference, systems, metrics=["note"])
    assert caught.value.code == "unknown-column"
    reference, systems = files(tmp_path, **{f"b{i}": "inf" for i in range(80)})
    with pytest.raises(QualityError, match="80 infinite values"):
        score_files(reference, systems, metrics=["ms"])
    reference, systems = files(tmp_path, b3="fast")
    with pytest.raises(ManifestError, match="which is no number"):
        score_files(reference, systems, metrics=["ms"])
