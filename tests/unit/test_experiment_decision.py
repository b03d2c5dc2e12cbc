"""Verdicts on live experiments, their words, and records that replay to the same bytes."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from grym.errors import QualityError
from grym.experiment.assignment import Assigner
from grym.experiment.collector import Collector
from grym.experiment.config import Arm, Experiment, Guardrail, Metric, Success
from grym.experiment.control import State
from grym.experiment.decision import Decision, decide, decide_from, replay
from grym.experiment.events import Exposure, exposure, measurements
from grym.experiment.evidence import ArmCount, Evidence, open_events
from grym.experiment.moments import Moments
from grym.experiment.quantiles import gather_quantiles, quantile_of
from grym.experiment.registry import register
from grym.store import Store

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_795_000_000_000
DAY = 86_400_000
ARMS = (Arm("a", 0.5, "one"), Arm("b", 0.5, "two"))
COST = Metric("cost", "mean", "lower", "cost", margin=0.2)
SPEED = Metric("speed", "mean", "higher", "speed")
BASE = Experiment("demo", 1, "user", ARMS, (COST, SPEED), guardrails=(Guardrail("speed", 0.5),))
RNG = np.random.default_rng(7)
NOISE = {arm: {name: RNG.normal(0, 1, 2000) for name in ("cost", "speed")} for arm in "abc"}


def evidence(
    experiment: Experiment, means: dict[str, dict[str, float]], n: int = 2000, days: float = 10, **fields: Any
) -> Evidence:
    """What was seen of arms with these means; the noise is the same every time."""
    rows = []
    for metric in experiment.metrics:
        for arm in experiment.arms:
            noise = NOISE[arm.name][metric.name][:n]
            y = noise - noise.mean() + means.get(arm.name, {}).get(metric.name, 10.0)
            rows.append({"metric": metric.name, "arm": arm.name, **dataclasses.asdict(Moments.from_arrays(y))})
    arms = tuple(ArmCount(arm.name, n, n) for arm in experiment.arms)
    found = Evidence(tuple(rows), arms, 0, 0, 0, NOW, NOW + int(days * DAY), None, "0" * 64)
    return dataclasses.replace(found, **fields)


def decided(experiment: Experiment = BASE, **means: dict[str, float]) -> Decision:
    """The decision on arms with these means; checks that its record replays."""
    found = decide(experiment, evidence(experiment, means))
    assert replay(found.record) == found.record
    return found


def changed(**fields: Any) -> Experiment:
    """The experiment with other settings."""
    return dataclasses.replace(BASE, **fields)


def test_a_better_arm_is_shipped() -> None:
    """The primary metric is better and the guardrail is shown to hold."""
    found = decided(b={"cost": 9.0})
    assert (found.verdict, found.arm, found.arms[0].reasons) == ("SHIP", "b", ("superior",))
    assert found.recommendation.startswith("SHIP: serve b in place of a.")
    assert "Guardrail speed holds" in found.recommendation


def test_a_better_arm_waits_for_its_guardrail() -> None:
    """A guardrail that is neither held nor broken keeps a better arm from being shipped."""
    found = decided(b={"cost": 9.0, "speed": 9.5})
    assert (found.verdict, found.arm, found.arms[0].reasons) == ("HOLD", None, ("guardrail-open:speed",))
    assert "Guardrail speed is open: worse by at least" in found.recommendation


def test_a_broken_guardrail_rolls_back_whatever_the_primary_metric_says() -> None:
    """Harm beyond the margin stops a better arm, before enough units or days for anything else."""
    strict = changed(success=Success(min_units=10**6, min_days=100))
    found = decided(strict, b={"cost": 5.0, "speed": 9.0})
    assert (found.verdict, found.arm, found.arms[0].reasons) == ("ROLLBACK", "b", ("guardrail-broken:speed",))
    assert "Guardrail speed is broken: worse by at least" in found.recommendation


def test_a_worse_primary_metric_rolls_back() -> None:
    """The primary metric is a guardrail with its own margin: worse within it does not."""
    assert decided(b={"cost": 10.6}).arms[0].reasons == ("guardrail-broken:cost",)
    assert decided(b={"cost": 10.15}).verdict == "HOLD"


def test_a_difference_inside_the_margin_is_equivalent() -> None:
    """Two one-sided tests; even a significant difference that is too small to matter."""
    wide = changed(metrics=(dataclasses.replace(COST, margin=0.5), SPEED))
    found = decided(wide, b={"cost": 9.8})
    assert found.effects[0].p_value is not None
    assert found.effects[0].p_value < 0.05
    assert (found.verdict, found.arm) == ("EQUIVALENT", None)
    assert decided(wide, b={"cost": 10.0}).verdict == "EQUIVALENT"


def test_an_arm_that_need_only_be_no_worse_is_shipped_inside_the_margin() -> None:
    """The rule non-inferior asks for one side only, and for every guardrail."""
    rule = changed(success=Success(rule="non-inferior"))
    assert decided(rule, b={"cost": 10.05}).verdict == "SHIP"
    assert decided(rule, b={"cost": 10.15}).arms[0].reasons == ("not-enough-evidence",)
    assert decided(rule, b={"cost": 10.05, "speed": 9.55}).arms[0].reasons == ("guardrail-open:speed",)


def test_nothing_is_shipped_before_enough_units_and_days() -> None:
    """The criteria hold a better arm back, and the words say how much is missing."""
    found = decided(changed(success=Success(min_units=3000, min_days=14)), b={"cost": 9.0})
    assert (found.verdict, found.arms[0].reasons) == ("HOLD", ("min-units", "min-days"))
    assert "b has 2000 units per arm of at least 3000, and 10 days of at least 14." in found.recommendation


def test_of_several_treatments_the_one_that_needs_action_first_decides() -> None:
    """A broken arm comes before a better one, of better ones the best; a closed arm is not judged."""
    three = changed(arms=(Arm("a", 0.4, "x"), Arm("b", 0.3, "y"), Arm("c", 0.3, "z")), guardrails=())
    counts = tuple(ArmCount(name, n, n) for name, n in (("a", 2000), ("b", 1500), ("c", 1500)))

    def of(**means: dict[str, float]) -> Decision:
        seen = evidence(three, means)
        sized = [row if row["arm"] == "a" else {**row, **_part(row)} for row in seen.rows]
        return decide(three, dataclasses.replace(seen, rows=tuple(sized), arms=counts))

    assert (of(b={"cost": 9.0}, c={"cost": 8.5}).verdict, of(b={"cost": 9.0}, c={"cost": 8.5}).arm) == ("SHIP", "c")
    assert (of(b={"cost": 9.0}, c={"cost": 12.0}).verdict, of(b={"cost": 9.0}, c={"cost": 12.0}).arm) == (
        "ROLLBACK",
        "c",
    )
    assert "b: SHIP." in of(b={"cost": 9.0}, c={"cost": 12.0}).recommendation
    closed = changed(arms=(*ARMS, Arm("c", 0, "z")))
    shut = evidence(closed, {}, arms=(*(ArmCount(name, 2000, 2000) for name in "ab"), ArmCount("c", 0, 0)))
    shut = dataclasses.replace(shut, rows=tuple(_none(row) if row["arm"] == "c" else row for row in shut.rows))
    assert [said.arm for said in decide(closed, shut).arms] == ["b"]


def _part(row: Any) -> dict[str, Any]:
    """Three quarters of an arm's units."""
    return {name: row[name] * 0.75 for name in Moments.__dataclass_fields__}


def _none(row: Any) -> dict[str, Any]:
    """An arm without units."""
    return {**row, **dict.fromkeys(Moments.__dataclass_fields__, 0.0)}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"arms": (ArmCount("a", 2000, 2000), ArmCount("b", 2400, 2400))}, "sample-ratio-mismatch"),
        ({"mixed": 60}, "mixed-units"),
        ({"lost": 300}, "lost-exposures"),
    ],
)
def test_numbers_that_cannot_be_believed_make_it_invalid(fields: dict[str, Any], code: str) -> None:
    """Mismatched shares, mixed units, lost exposures: invalid, though the arm is better and a guardrail broken."""
    found = decide(BASE, evidence(BASE, {"b": {"cost": 5.0, "speed": 1.0}}, **fields))
    assert (found.verdict, found.arm, found.health.problems) == ("INVALID", None, (code,))
    assert found.recommendation.startswith("INVALID")
    assert replay(found.record) == found.record


def test_outcomes_missing_in_one_arm_make_it_invalid() -> None:
    """Balanced exposures with unbalanced outcomes are a gap, not a mismatch."""
    seen = evidence(BASE, {})
    rows = tuple({**row, **_part(row)} if row["arm"] == "b" else row for row in seen.rows)
    assert decide(BASE, dataclasses.replace(seen, rows=rows)).health.problems == ("unequal-gaps",)


def test_a_unit_in_a_closed_arm_is_impossible_at_once() -> None:
    """One unit randomised into an arm of share 0 makes the experiment invalid."""
    closed = changed(arms=(*ARMS, Arm("c", 0, "z")))
    counts = (*(ArmCount(name, 2000, 2000) for name in "ab"), ArmCount("c", 1, 1))
    found = decide(closed, evidence(closed, {}, arms=counts))
    assert (found.verdict, found.health.impossible) == ("INVALID", ("c",))
    assert "impossible" in found.health.problems


def test_no_events_at_all_is_a_reason_to_wait() -> None:
    """Without units there is nothing to say, and no error."""
    seen = evidence(BASE, {}, arms=(ArmCount("a", 0, 0), ArmCount("b", 0, 0)), first_ms=None, last_ms=None)
    seen = dataclasses.replace(seen, rows=tuple(_none(row) for row in seen.rows))
    found = decide(BASE, seen)
    assert (found.verdict, found.arms[0].reasons) == ("HOLD", ("too-few-units",))
    assert "unknown" in found.recommendation


def test_equal_values_and_single_units_hold() -> None:
    """All equal, and one unit: no interval, the reason in words."""
    for n, reason in ((2000, "all-equal"), (1, "too-few-units")):
        rows = tuple(
            {"metric": m.name, "arm": a, **dataclasses.asdict(Moments.from_arrays(np.full(n, 3.25)))}
            for m in BASE.metrics
            for a in "ab"
        )
        found = decide(BASE, evidence(BASE, {}, rows=rows, arms=(ArmCount("a", n, n), ArmCount("b", n, n))))
        assert (found.verdict, found.arms[0].reasons) == ("HOLD", (reason,))
        assert replay(found.record) == found.record


def test_statistics_that_are_no_numbers_are_refused() -> None:
    """A NaN among the sums, or a metric without sums, is a typed error and no verdict."""
    seen = evidence(BASE, {})
    broken = ({**seen.rows[0], "sum_y": float("nan")}, *seen.rows[1:])
    with pytest.raises(QualityError, match="sum_y of metric 'cost'"):
        decide(BASE, dataclasses.replace(seen, rows=broken))
    with pytest.raises(QualityError, match="no moments of metric 'cost' in arm 'a'"):
        decide(BASE, dataclasses.replace(seen, rows=seen.rows[1:]))


def test_the_record_is_canonical_and_traces_every_number() -> None:
    """Sorted keys, one line, digests of configuration and queries, and a known query behind every sentence."""
    found = decided(b={"cost": 9.0})
    said = json.loads(found.record)
    again = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert again == found.record
    assert said["digest"] == BASE.digest
    asked = said["inputs"]["queries"]
    assert "measurements" in asked["moments"]["sql"]
    for sentence in said["advice"]:
        assert set(sentence["queries"]) <= set(asked)
        assert sentence["queries"] or not any(letter.isdigit() for letter in sentence["text"])
    assert {row["query"] for row in said["effects"]} == {"moments"}
    assert len(found.digest) == 64


def test_a_record_that_was_touched_does_not_replay_to_itself() -> None:
    """Another verdict, another input: the replay differs. Another method or no record: a typed error."""
    record = decided(b={"cost": 9.0}).record
    assert replay(record.decode()) == record
    assert replay(record.replace(b'"verdict":"SHIP"', b'"verdict":"HOLD"')) == record
    said = json.loads(record)
    said["inputs"]["arms"][0]["units"] += 1000
    assert json.loads(replay(json.dumps(said)))["verdict"] == "INVALID"
    with pytest.raises(QualityError, match="other/1"):
        replay(json.dumps({**said, "method": "other/1"}))
    for bad in (b"no JSON", b"[]", b"{}", json.dumps({**said, "inputs": {}})):
        with pytest.raises(QualityError, match="cannot be replayed"):
            replay(bad)
    said["inputs"]["moments"][0]["mean_y"] = None
    with pytest.raises(QualityError, match="mean_y"):
        replay(json.dumps(said))


LIVE = Experiment(
    "live",
    1,
    "user",
    (Arm("a", 0.5, "one"), Arm("b", 0.5, "two"), Arm("closed", 0, "three")),
    (
        Metric("wer", "ratio", "lower", "errors", weight="words", covariate="before"),
        Metric("p90", "quantile", "lower", "seconds", level=0.9, margin=0.1),
        Metric("kept", "proportion", "higher", "kept"),
    ),
    guardrails=(Guardrail("p90", 0.2),),
)


def events(units: int) -> list[Any]:
    """Two requests of each unit; the treatment makes half of the errors."""
    rng, assigner, found = np.random.default_rng(3), Assigner(LIVE, control=State), []
    for number in range(units):
        given, rate = assigner.assign(f"u{number}"), rng.gamma(2, 0.05)
        for request in range(2):
            used = exposure(given, NOW + 1000 * number, request_id=f"{number}-{request}")
            errors = int(rng.poisson(20 * rate / (2 if given.arm == "b" else 1)))
            outcome = {"errors": errors, "words": 20, "before": rate if request else 0.0, "kept": number % 2}
            outcome["seconds"] = float(rng.lognormal(-2, 0.3))
            found += [used, *measurements(LIVE, used, outcome, used.at_ms, request_id=used.event_id)]
    return found


def test_stored_events_are_decided_on_in_any_order(tmp_path: Path) -> None:
    """From the landing zone to the verdict; a clock that goes backwards and other threads change no byte."""
    sent = events(700)
    found = []
    for name, order in (("forward", sent), ("backward", sent[::-1])):
        store = Store(tmp_path / name)
        register(store, LIVE)
        with Collector(store, clock=lambda: NOW + DAY) as collector:
            assert not collector.record(order).refused
        found.append(decide_from(store, LIVE, threads=1 if name == "forward" else None))
    assert found[0].record == found[1].record
    assert (found[0].verdict, found[0].arm) == ("SHIP", "b")
    assert replay(found[0].record) == found[0].record
    early = decide_from(store, LIVE, until_ms=NOW + 50_000)
    assert (early.verdict, early.arms[0].reasons) == ("HOLD", ("too-few-units",))
    _same_quantiles(store)
    _impossible(store)


def _same_quantiles(store: Store) -> None:
    """Quantiles of the stored events are those of the same values in memory."""
    with open_events(store, LIVE) as opened:
        opened.evidence()
        stored = gather_quantiles(opened, LIVE)
        rows = opened.connection.sql("SELECT arm, unit, value FROM measurements WHERE metric = 'p90'").fetchall()
    for found in stored:
        mine = [(unit, value) for arm, unit, value in rows if arm == found.arm]
        wanted = quantile_of([v for _, v in mine], 0.9, [u for u, _ in mine], metric="p90", arm=found.arm)
        assert found.row() == pytest.approx(wanted.row(), nan_ok=True)


def _impossible(store: Store) -> None:
    """One event of a closed arm makes the whole experiment invalid."""
    odd = Exposure("live", 1, LIVE.digest, "stranger", "closed", 0.5, "assigned", NOW, "odd")
    with Collector(store, clock=lambda: NOW + DAY) as collector:
        assert collector.record([odd]).impossible == 1
    found = decide_from(store, LIVE)
    assert (found.verdict, found.health.impossible) == ("INVALID", ("closed",))
