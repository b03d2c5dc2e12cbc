"""Counts and segments equal those of NIST SCTK on its own fixtures, where a copy of SCTK lies on the machine.

Nothing of SCTK is in this repository: set ``GRYM_CONFORMANCE`` to a folder with its
sources (github.com/usnistgov/SCTK), and the files and expected reports are read there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from grym.compare.alignment import Alignments
from grym.compare.matched_pairs import matched_pairs, segments
from grym.compare.scoreboard import Rules, score_files

HOME = os.environ.get("GRYM_CONFORMANCE", "")
DATA = Path(HOME) / "src" / "sclite" / "testdata"
pytestmark = pytest.mark.skipif(not HOME or not DATA.is_dir(), reason="GRYM_CONFORMANCE names no copy of SCTK")
CODES = {"C": 0, "S": 1, "D": 2}


def summary(report: str) -> list[int]:
    """Sentences, words, corr, sub, del, ins, errors and wrong sentences of the line Sum of a raw report."""
    line = next(line for line in (DATA / "base" / report).read_text(errors="replace").splitlines() if "| Sum" in line)
    return [int(number) for number in re.findall(r"\d+", line)]


@pytest.mark.parametrize(
    ("references", "answers", "report", "speaker"),
    [
        ("csrnab.ref", "csrnab.hyp", "test1.raw", "(.{3})"),
        ("test.turkish.ref", "test.turkish.hyp", "test15_c.raw", "auto"),
        ("test.ukranian.ref", "test.ukranian.hyp", "test15_d.raw", "auto"),
        ("test.vietnamese.ref.trn", "test.vietnamese.hyp.trn", "test17.raw", "auto"),
    ],
)
def test_counts_are_those_of_sclite(references: str, answers: str, report: str, speaker: str) -> None:
    """Words, hits, substitutions, deletions, insertions and wrong sentences, alternations included."""
    rules = Rules(ignore_case=True, speaker=speaker)
    system = score_files(DATA / references, {"x": DATA / answers}, rules).systems[0]
    c = system.counts
    found = [c.reference_words, c.hits, c.substitutions, c.deletions, c.insertions, c.errors]
    assert [system.sentences, *found, system.sentences_with_error] == summary(report)
    assert (system.missing, system.unknown) == ((), ())


def test_characters_are_those_of_sclite() -> None:
    """On its fixture for characters the unit-cost edits are as many as sclite's."""
    rules = Rules(ignore_case=True, speaker="(.{3})")
    counts = score_files(DATA / "csrnab1.ref", {"x": DATA / "csrnab1.hyp"}, rules).systems[0].counts
    report = summary("test8.raw")
    assert (counts.reference_characters, counts.character_errors) == (report[1], report[6])


def from_sgml(name: str) -> Alignments:
    """The alignments that a file of sclite's SGML holds."""
    codes: list[int] = []
    gaps: list[int] = []
    starts = [0]
    text = (DATA / name).read_text(errors="replace")
    for body in re.findall(r"^<PATH .*>\n((?:[^<].*\n|\n)*)</PATH>", text, re.MULTILINE):
        gaps.append(0)
        for operation in re.findall(r"(?:^|:)([CSDI]),", body):
            if operation == "I":
                gaps[-1] += 1
            else:
                codes.append(CODES[operation])
                gaps.append(0)
        starts.append(len(codes))
    return Alignments(np.array(codes, dtype=np.int8), np.array(gaps), np.array(starts))


def test_segments_are_those_of_sc_stats() -> None:
    """Segments, errors, mean, sd and Z of its matched-pairs fixture, in both orders."""
    for names, report in ((("file1", "file2"), "test1a"), (("file2", "file1"), "test1b")):
        a, b = (from_sgml(f"{name}.sgml") for name in names)
        found = matched_pairs(*segments(a, b))
        text = (DATA / "base_sc_stats" / f"{report}.stats.mapsswe").read_text()
        printed = re.search(r"# segs: (\d+)\).*mean: (\S+)\) \(std dev: (\S+)\) \(Z Stat: (\S+)\)", text)
        errors = re.search(r"Totals +\d+ +(\d+) +(\d+)", text)
        assert printed is not None
        assert errors is not None
        assert (found.segments, found.errors_a, found.errors_b) == tuple(map(int, (printed[1], *errors.groups())))
        assert (found.mean, found.sd, found.z) == pytest.approx(tuple(map(float, printed.groups()[1:])), abs=0.0005)
