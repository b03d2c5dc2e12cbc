"""Simulated experiments: both paths agree, decisions are kept and replayed, the page and the self-audit."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from flows.experiment_command import check_action, run_action
from flows.terminal import terminal
from grym.errors import ConfigError
from grym.experiment.audit import Measured, audit, keep, recorded_outcomes
from grym.experiment.config import Arm, Experiment, Guardrail, Metric, Success
from grym.experiment.control import State, read_state, revive
from grym.experiment.ledger import check_registered, decisions, history, make_decision, primary_effect, replay_all
from grym.experiment.registry import register
from grym.experiment.simulator import Recorded, Simulator, Traffic, synthetic
from grym.store import RunRef, Store
from reports import VIEWS
from reports.experiment import audit_markdown, decision_markdown, render_experiment, status_page

if TYPE_CHECKING:
    from pathlib import Path

ARMS = (Arm("fp32", 0.5, "mini"), Arm("int8", 0.5, "mini-int8"))
METRICS = (
    Metric("wer", "ratio", "lower", "errors", weight="reference_words", margin=0.02),
    Metric("p95", "quantile", "lower", "wall_seconds", level=0.95, margin=0.05),
    Metric("failed", "proportion", "lower", "failed", margin=0.05),
)
DEMO = Experiment("demo", 1, "user", ARMS, METRICS, guardrails=(Guardrail("failed", 0.1),))
WORDS = {"held": "holds", "broken": "broken", "open": "not decided yet"}
MODELS = '[models.mini]\nadapter = "fake"\n[models.mini-int8]\nadapter = "fake"\n'
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one experiment in which the treatment makes a third fewer errors."""
    store = Store(tmp_path_factory.mktemp("simulated") / "home")
    Simulator(DEMO, synthetic(DEMO, factor=0.65), Traffic(700), looks=1).through_store(store, 1)
    return store


def test_both_paths_decide_the_same(tmp_path: Path) -> None:
    """Collector, landing zone and DuckDB give the effects, counts and verdicts of the path without a disk."""
    simulator = Simulator(DEMO, synthetic(DEMO, factor=1.4), Traffic(500), looks=2, seed=3)
    looks = simulator.fast(4)
    stored = simulator.through_store(Store(tmp_path / "home"), 4)
    assert [look.verdicts for look in looks] == [(decision.verdict,) for decision in stored]
    for look, decision in zip(looks, stored, strict=True):
        assert look.health.units == decision.health.units
        assert look.health.srm_p == pytest.approx(decision.health.srm_p)
        for mine, theirs in zip(look.effects, decision.effects, strict=True):
            assert (mine.metric, mine.n_control, mine.problem) == (theirs.metric, theirs.n_control, theirs.problem)
            for name in ("delta", "low", "high", "p_value"):
                assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-6), (mine.metric, name)


def test_a_replicate_depends_on_its_number_and_seed_only() -> None:
    """The same number gives the same looks, another one others."""
    made = [Simulator(DEMO, synthetic(DEMO), Traffic(300), looks=2, seed=seed) for seed in (1, 1, 2)]
    assert made[0].fast(5) == made[1].fast(5)
    assert made[0].fast(5) != made[0].fast(6)
    assert made[0].fast(5) != made[2].fast(5)


def test_intervals_surround_the_truth() -> None:
    """The last interval of most replicates holds the difference of the recorded outcomes."""
    simulator = Simulator(DEMO, synthetic(DEMO, factor=1.3), Traffic(600), looks=1)
    truth = simulator.truth("wer", "int8")
    assert 0.02 < truth < 0.04
    found = [simulator.fast(number)[-1].effects[0] for number in range(20)]
    assert sum(one.low is not None and one.high is not None and one.low <= truth <= one.high for one in found) >= 18


@pytest.mark.parametrize(
    ("recorded", "traffic"),
    [
        (Recorded("none", {}, np.zeros(0, dtype=np.int64)), Traffic()),
        (dataclasses.replace(synthetic(DEMO), columns={"fp32": {}, "int8": {}}), Traffic()),
        (dataclasses.replace(synthetic(DEMO), speakers=np.zeros(3, dtype=np.int64)), Traffic()),
        (synthetic(DEMO), Traffic(units=3)),
        (synthetic(DEMO), Traffic(requests=0.5)),
    ],
)
def test_what_cannot_be_simulated_is_refused(recorded: Recorded, traffic: Traffic) -> None:
    """Missing columns, columns of other lengths and senseless traffic are errors."""
    with pytest.raises(ConfigError):
        Simulator(DEMO, recorded, traffic)


def test_decisions_are_kept_once_and_replay(filled: Store) -> None:
    """Deciding twice on the same events is one row, whose record replays; a touched record is found out."""
    made = make_decision(filled, DEMO, now=NOW)
    assert make_decision(filled, DEMO, now=NOW).record == made.record
    rows = decisions(filled, DEMO)
    assert rows.select("decision", "verdict", "arm").rows() == [(made.digest, "SHIP", "int8")]
    assert rows["record"][0].encode() == made.record
    assert rows["ci_high"][0] < 0
    assert [one.same for one in replay_all(filled, DEMO)] == [True]
    touched = rows.to_dicts()[0] | {"decision": "touched", "record": rows["record"][0].replace('"lost":0', '"lost":9')}
    broken = rows.to_dicts()[0] | {"decision": "broken", "record": "{}"}
    run = RunRef("demo.v1", "2026-11-20")
    part = filled.land("decisions", [touched, broken], run=run, part="touched")
    assert sorted((one.same, bool(one.why)) for one in replay_all(filled, DEMO)) == [
        (False, False),
        (False, True),
        (True, False),
    ]
    part.unlink()


def test_only_what_was_started_is_decided(tmp_path: Path) -> None:
    """An experiment that never ran, or has changed under its version, is an error that says what to do."""
    store = Store(tmp_path / "home")
    with pytest.raises(ConfigError, match="has not been started"):
        make_decision(store, DEMO)
    register(store, DEMO)
    with pytest.raises(ConfigError, match="another configuration"):
        check_registered(store, dataclasses.replace(DEMO, question="Changed?"))
    assert history(store, DEMO) == ()
    page = status_page(store, DEMO, looks=2).read_text(encoding="utf-8")
    assert "Nobody has been exposed yet" in page


def test_the_page_shows_how_the_interval_narrowed(filled: Store, tmp_path: Path) -> None:
    """Looks back in time, charts, shares, guardrails, advice and queries are on a page that loads nothing."""
    looks = history(filled, DEMO, looks=3)
    units = [look.decision.health.units for look in looks]
    assert units == sorted(units)
    assert units[-1] == 700
    widths = [(one.high or 9) - (one.low or -9) for one in (primary_effect(DEMO, x.decision) for x in looks) if one]
    assert widths == sorted(widths, reverse=True)
    page = render_experiment(DEMO, looks, State(killed=True, reason="<b>"), tmp_path / "x.html").read_text("utf-8")
    for wanted in ("SHIP int8", "Stopped", "&lt;b&gt;", "always-valid", "holds", "GROUP BY", looks[-1].decision.digest):
        assert wanted in page, wanted
    over_time = page.split("What the decision would have been at each moment")[1].split("</table>")[0]
    assert "Units: fp32 / int8" in over_time
    for look in looks:
        fp32, int8 = (int(row["units"]) for row in json.loads(look.decision.record)["inputs"]["arms"])
        assert f"{fp32} / {int8}" in over_time
        assert f"failed: {WORDS[look.decision.arms[0].rails[0].standing]}" in over_time
    assert page.count("<svg") == 4  # the primary metric wide and narrow, two others
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page)
    text = decision_markdown(DEMO, looks[-1].decision, page="x.html")
    assert text.startswith("## SHIP: int8")
    assert "```sql" in text


def test_the_audit_counts_what_is_false(tmp_path: Path) -> None:
    """Identical arms give few findings; rates land with their bounds, and an alert where they are not shown to hold."""
    outcomes = synthetic(DEMO, factor=3.0)
    found = audit(DEMO, outcomes, replicates=12, traffic=Traffic(300), looks=3, seed=1)
    assert [rate.rate for rate in found.rates] == ["false-positives", "false-ships", "false-rollbacks", "srm-alarms"]
    assert sum(rate.hits for rate in found.rates) <= 3
    assert len(found.broken) == 4  # twelve replicates show nothing
    store = Store(tmp_path / "home")
    run, alerts = keep(store, found, at=NOW)
    assert alerts == 4
    assert set(store.read("alerts")["severity"]) == {"warning"}
    assert store.read("audits")["at_most"].to_list() == [r.at_most for r in sorted(found.rates, key=lambda r: r.rate)]
    store.publish(VIEWS)
    with store.connect() as warehouse:
        assert warehouse.sql("SELECT run_id, kept FROM aa_audits").fetchall() == [(run, False)] * 4
    assert "not shown to hold" in audit_markdown(found)
    lenient = dataclasses.replace(DEMO, success=Success(rule="non-inferior"))
    rates = audit(lenient, outcomes, replicates=1, traffic=Traffic(300), looks=1).rates
    assert "false-ships" not in [rate.rate for rate in rates]


def test_bounds_of_a_rate() -> None:
    """Clopper and Pearson's bounds, and whether a promise holds."""
    rate = Measured("false-positives", 30, 1000, 0.05)
    assert (round(rate.low, 4), round(rate.high, 4)) == (0.0203, 0.0426)
    assert rate.measured < rate.at_most < rate.high
    assert rate.kept
    assert "within the promised 5 %" in rate.sentence
    assert not Measured("srm-alarms", 0, 50, 0.01).kept
    everything = Measured("srm-alarms", 5, 5, 0.01)
    assert (everything.high, Measured("x", 0, 5, 0.1).low) == (1.0, 0.0)


def test_outcomes_of_earlier_comparisons_are_used(tmp_path: Path) -> None:
    """What the control's model answered before becomes the table; without enough of it the table is synthetic."""
    store = Store(tmp_path / "home")
    assert recorded_outcomes(store, DEMO).name == "synthetic-lognormal"
    run = RunRef("r-1", "2026-11-20")
    counts = {"substitutions": 1, "deletions": 0, "insertions": 1, "reference_words": 9, "compute_seconds": 0.5}
    rows = [{"arm": "a", "model": "mini", "clip_id": f"c{i:02}", "status": "ok", **counts} for i in range(40)]
    store.land("outcomes", rows, run=run, part="all")
    store.land("clips", [{"clip_id": f"c{i:02}", "speaker": f"s{i % 4}"} for i in range(39)], run=run, part="all")
    found = recorded_outcomes(store, DEMO)
    assert found.name == "outcomes of mini"
    assert found.columns["int8"]["errors"].tolist() == [2.0] * 40
    assert len(set(found.speakers.tolist())) == 5  # the clip without a speaker is one of its own
    assert Simulator(DEMO, found, Traffic(300), looks=1).fast(0)[0].effects[0].problem == "all-equal"


def test_commands_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start, ramp, stop, resume, status and replay of a configured experiment."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "grym.toml").write_text(MODELS, encoding="utf-8")
    config = json.loads(DEMO.canonical)
    del config["name"]
    lines = [f"{key} = {_toml(value)}" for key, value in config.items()]
    file = tmp_path / "experiments" / "demo.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "experiments" / "broken.toml").write_text("[", encoding="utf-8")  # not this one's trouble
    monkeypatch.setenv("GRYM_CONFIG", str(tmp_path / "grym.toml"))
    monkeypatch.setenv("GRYM_HOME", str(tmp_path / "var"))

    def said(action: str, **options: object) -> str:
        out = terminal(width=200)
        out.file = io.StringIO()
        check_action(action, options.get("coverage"))  # type: ignore[arg-type]
        assert run_action(out, "demo", action, looks=1, **options)  # type: ignore[arg-type]
        return out.file.getvalue()

    with pytest.raises(ConfigError, match="has not been started"):
        said("stop")
    (tmp_path / "grym.toml").write_text(MODELS.replace("mini-int8", "other"), encoding="utf-8")
    with pytest.raises(ConfigError, match="Unknown model 'mini-int8'"):
        said("start")
    (tmp_path / "grym.toml").write_text(MODELS, encoding="utf-8")
    assert "is registered" in said("start")
    assert "was registered before" in said("start", coverage=0.05)
    assert "enrols 25 %" in said("ramp", coverage=0.25)
    assert "is stopped ([/b] too :x: [noise])" in said("stop", reason="[/b] too :x: [noise]")
    assert "enrols 25 %" in said("resume")
    text = file.read_text(encoding="utf-8")
    for edited in (text.replace('"unit"', '"u"').replace("user", "speaker"), "version = [", None):
        file.unlink() if edited is None else file.write_text(edited, encoding="utf-8")
        for action in ("resume", "ramp", "start"):
            with pytest.raises(ConfigError):
                said(action, coverage=0.25)
        assert "is stopped (edited)" in said("stop", reason="edited")
        assert read_state(tmp_path / "var", DEMO).killed
        revive(tmp_path / "var", DEMO)
    file.write_text(text, encoding="utf-8")
    assert "enrols 25 %" in said("resume")
    assert "Nobody was exposed yet" in said("status")
    assert "0 of 0 records" in said("replay")
    for action, coverage in (("dance", None), ("ramp", None)):
        with pytest.raises(ConfigError):
            check_action(action, coverage)


def _toml(value: object) -> str:
    """A JSON value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)
