"""Requests that both arms answered, as matched pairs beside the split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from grym.errors import ConfigError
from grym.experiment.assignment import Assigner
from grym.experiment.collector import Collector
from grym.experiment.config import Arm, Experiment, Metric
from grym.experiment.control import State
from grym.experiment.decision import decide_from
from grym.experiment.events import exposure, measurements
from grym.experiment.evidence import open_events
from grym.experiment.registry import register
from grym.experiment.shadow import every_pair, shadow_pairs
from grym.store import Store
from reports.experiment import status_page

if TYPE_CHECKING:
    from pathlib import Path

ARMS = (Arm("a", 0.5, "one"), Arm("b", 0.5, "two"))
WER = Metric("wer", "ratio", "lower", "errors", weight="words")
KEPT = Metric("kept", "proportion", "higher", "kept")
DEMO = Experiment("demo", 1, "user", ARMS, (WER, KEPT))
AT = 1_795_000_000_000


def fill(store: Store, units: int, shadowed: int) -> None:
    """Units of one request; the first ones are answered by the other arm too, which makes one error fewer."""
    register(store, DEMO)
    assigner, rng = Assigner(DEMO, control=State), np.random.default_rng(4)
    with Collector(store, clock=lambda: AT) as collector:
        for number in range(units):
            unit = f"u{number}"
            words, hard = 20, int(rng.integers(1, 12))
            mine = assigner.assign(unit)
            for arm in (mine.arm, {"a": "b", "b": "a"}[str(mine.arm)]):
                shadow = arm != mine.arm
                if shadow and number >= shadowed:
                    continue
                errors = hard - (arm == "b") * int(rng.random() < 0.8)
                used = exposure(assigner.assign(unit, force=arm) if shadow else mine, AT, request_id="r", shadow=shadow)
                outcome = {"errors": errors, "words": words, "kept": 1}
                collector.record([used, *measurements(DEMO, used, outcome, AT, request_id=f"{unit}-r")])


def test_pairs_find_what_the_split_cannot(tmp_path: Path) -> None:
    """150 pairs of 300 units show the difference that the split leaves open, and the split does not see shadows."""
    store = Store(tmp_path / "home")
    fill(store, 300, 150)
    with open_events(store, DEMO) as events:
        found = shadow_pairs(events, DEMO, WER, "b")
    assert (found.pairs, found.units) == (150, 150)
    assert found.delta == pytest.approx(-0.04, abs=0.01)
    assert found.high is not None
    assert found.high < 0
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert found.correlation is not None
    assert found.correlation > 0.9
    split = decide_from(store, DEMO)
    effect = split.effects[0]
    assert effect.n_control + effect.n_treatment == 300
    assert effect.low is not None
    assert effect.low < 0 < (effect.high or 0)
    page = status_page(store, DEMO, looks=1).read_text(encoding="utf-8")
    assert "Shadow pairs" in page
    assert "150 / 150" in page
    assert (found.high - (found.low or 0)) < (effect.high or 0) - effect.low


def test_few_pairs_get_no_interval(tmp_path: Path) -> None:
    """Below a hundred units there is an estimate without an interval; without pairs there is nothing."""
    store = Store(tmp_path / "home")
    fill(store, 30, 20)
    with open_events(store, DEMO) as events:
        found = shadow_pairs(events, DEMO, WER, "b")
        assert (found.units, found.low, found.p_value) == (20, None, None)
        assert found.delta is not None
        with pytest.raises(ConfigError, match="is a proportion"):
            shadow_pairs(events, DEMO, KEPT, "b")
    empty = Store(tmp_path / "empty")
    fill(empty, 5, 0)
    with open_events(empty, DEMO) as events:
        assert shadow_pairs(events, DEMO, WER, "b").delta is None
    assert every_pair(empty, DEMO) == ()
