"""The table of measured recovery times, from the report of a test run to the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.recovery import BEGIN, END, PAGE, WORDS, read, table, write
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

REPORT = """<testsuites><testsuite>
<testcase name="test_a_silent_flow_run_is_crashed_by_the_server"><properties>
<property name="recovery_seconds" value="68.3"/><property name="load" value="2.5"/></properties></testcase>
<testcase name="test_killed_at_random_moments[12]"><properties><property name="two fake models" value="31.0"/>
<property name="load" value="9.5"/><property name="recovery_seconds" value="20"/></properties></testcase>
<testcase name="test_killed_at_random_moments[11]"><properties>
<property name="recovery_seconds" value="19.5"/></properties></testcase>
<testcase name="test_killed_at_exact_points"><properties><property name="recovery_seconds" value="1"/></properties>
<failure message="no"/></testcase>
</testsuite></testsuites>"""


def test_a_report_becomes_a_table(tmp_path: Path) -> None:
    """Variants stand side by side, tests that failed give no number, the machine's load is told."""
    file, page = tmp_path / "chaos.xml", tmp_path / "page.md"
    file.write_text(REPORT)
    text = table(*read([file]))
    assert f"| {WORDS['test_killed_at_random_moments']} | 11: 19.5, 12: 20 |\n" in text
    assert f"| {WORDS['test_a_silent_flow_run_is_crashed_by_the_server']} | 68.3 |\n" in text
    assert "exact points" not in text
    assert "The load average was 2.5 to 9.5" in text
    assert "An undisturbed comparison took 31 s with two fake models." in text
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(page, text)
    write(page, text)
    assert page.read_text() == f"before\n{BEGIN}\n{text}{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no"):
        write(page, text)


def test_every_name_is_that_of_a_test_and_the_page_has_its_place() -> None:
    """A test that is renamed would lose its words."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "chaos").glob("test_*.py"))
    assert [name for name in WORDS if f"def {name}(" not in code] == []
    assert PAGE.read_text(encoding="utf-8").count(BEGIN) == 1
