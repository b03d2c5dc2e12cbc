"""The page about transcripts that exist already."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from grym.compare.scoreboard import Rules, score_files
from grym.errors import StorageError
from reports.formats import p_text
from reports.scoreboard import render_scoreboard

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = {f"s{i}_{n}": "one two three four <five>" for i in range(8) for n in range(3)}


def write(path: Path, texts: dict[str, str]) -> Path:
    """A trn file."""
    path.write_text("".join(f"{text} ({key})\n" for key, text in texts.items()), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """References and answers: one system drops a word of every utterance, the other says one too many once."""
    worse = {key: text.replace(" two", "") for key, text in TEXTS.items()}
    better = TEXTS | {"s0_0": "one two three four <five> six"}
    return {
        "ref": write(tmp_path / "ref.trn", TEXTS),
        "a": write(tmp_path / "a.trn", worse),
        "b": write(tmp_path / "b.trn", better),
    }


def test_two_files_become_a_page(files: dict[str, Path], tmp_path: Path) -> None:
    """One command writes verdict, chart, tests, counts, slices and words; nothing in it loads anything."""
    out = tmp_path / "out" / "first.html"
    systems = [part for name in "ab" for part in ("--system", f"{name}={files[name]}")]
    done = CliRunner().invoke(
        app, ["score", "--references", str(files["ref"]), *systems, "--by", "speaker", "--report", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert f"Report: {out}" in done.output
    page = out.read_text(encoding="utf-8")
    for wanted in (
        "b is better than a",
        "b better",
        "speaker=s0",
        'class="del"',
        'class="ins"',
        "&lt;five&gt;",
        "MAPSSWE",
    ):
        assert wanted in page, wanted
    assert page.count("<svg") == 2  # wide, and narrow for phones
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page)
    assert "<script" not in page


def test_one_system_without_errors(files: dict[str, Path], tmp_path: Path) -> None:
    """A single system has a page too, and says that nothing is wrong."""
    board = score_files(files["ref"], {"only": files["ref"]}, Rules())
    page = render_scoreboard(board, tmp_path / "one.html").read_text(encoding="utf-8")
    assert "0.00 errors in 100 words" in page
    assert "No word is wrong anywhere" in page


def test_a_page_that_cannot_be_written(files: dict[str, Path]) -> None:
    """A folder in the way is an error of the platform."""
    board = score_files(files["ref"], {"only": files["b"]}, Rules())
    with pytest.raises(StorageError):
        render_scoreboard(board, files["ref"] / "page.html")


def test_p_values_as_people_write_them() -> None:
    """Three decimals, and what they cannot show as less than a thousandth."""
    assert [p_text(p) for p in (0.5, 0.0004, None)] == ["0.500", "< 0.001", "–"]  # noqa: RUF001 - the dash is wanted


def test_evidence_metrics_and_noise_are_on_the_page(files: dict[str, Path], tmp_path: Path) -> None:
    """Fragility, blame, radar, noise floor and other metrics stand on the page if they were asked for, else not."""
    board = score_files(
        files["ref"],
        {"a": files["a"], "b": files["b"]},
        evidence=True,
        repeats={"b": [files["a"]]},
        metrics=["correct"],
    )
    page = render_scoreboard(board, tmp_path / "all.html").read_text(encoding="utf-8")
    for wanted in ("analyses", "Blame list", "Reference in doubt", "Noise floor", "Other metrics", "words (inserted)"):
        assert wanted in page, wanted
    plain = score_files(files["ref"], {"a": files["a"], "b": files["b"]})
    assert "How firm it is" not in render_scoreboard(plain, tmp_path / "plain.html").read_text(encoding="utf-8")
