"""Several commands on one home at the same time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
import pytest

from grym.store import Store
from tests.support import assert_finished, end, features, parts, wait

if TYPE_CHECKING:
    from tests.chaos.conftest import Case

pytestmark = pytest.mark.chaos


def test_the_same_comparison_twice(fake: Case) -> None:
    """The second one is refused with the process that runs the first; the first one ends well."""
    flow, go = fake.pause("grym.compare.session:Session.infer", 2)
    refused = end(fake.start(), 2)
    assert "already running" in refused.stderr
    assert f"process {flow.pid}" in refused.stderr
    go.touch()
    end(flow)
    fake.check()


def test_two_different_comparisons_and_a_search(fake: Case) -> None:
    """Both share a server that neither found, a feature space and the warehouse; both are whole."""
    case = replace(fake, project=fake.project.alone())
    swapped = ("compare", "--a", "right", "--b", "left", "--dataset", case.command[-1])
    flows = [case.start(), case.project.start(*swapped)]
    wait(lambda: len(parts(case.home)) >= 4)
    key = Store(case.home).read("clips")["key"][0]
    found = case.project.run("search", key, "--model", "left")
    assert "Nearest clips" in found.stdout
    for flow in flows:
        end(flow)
    store = Store(case.home)
    outcomes = store.read("outcomes")
    assert outcomes.select("run_id", "arm", "clip_id").is_duplicated().sum() == 0
    assert outcomes.group_by("run_id", "arm").len()["len"].to_list() == [36] * 4
    assert features(case.home) == features(case.whole)
    wer = store.read("comparisons").filter(pl.col("metric") == "wer")
    there, back = sorted(wer["difference"].to_list())
    assert there == pytest.approx(-back)
    assert_finished(case.home, runs=2)
