"""Exposures and measurements: each once, the bad ones apart, and the sums they come to."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from grym.errors import ConfigError, GrymError, StorageError
from grym.experiment.assignment import Assigner
from grym.experiment.checks import problem
from grym.experiment.collector import Collector
from grym.experiment.config import Arm, Experiment, Metric
from grym.experiment.control import State, ramp
from grym.experiment.events import Clock, Exposure, Measurement, exposure, measurements
from grym.experiment.evidence import SUMS, gather, open_events
from grym.experiment.journal import Journal, left
from grym.experiment.loading import find_experiment, parse_experiment
from grym.experiment.registry import register
from grym.maintain.landing import compact
from grym.store import Store

if TYPE_CHECKING:
    from grym.experiment.collector import Receipt

ROOT = Path(__file__).parents[2]
NOW = 1_795_000_000_000
WER = Metric("wer", "ratio", "lower", "errors", weight="words", covariate="noise")
SECONDS = Metric("seconds", "mean", "lower", "wall")
KEPT = Metric("kept", "proportion", "higher", "kept", absent="zero")
ARMS = (Arm("a", 0.5, "one"), Arm("b", 0.5, "two"), Arm("closed", 0, "three"))
DEMO = Experiment("demo", 1, "user", ARMS, (WER, SECONDS, KEPT))
ASSIGNER = Assigner(DEMO, control=State)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that knows the experiment."""
    made = Store(tmp_path / "home")
    register(made, DEMO)
    return made


def used(unit: str, request: str = "r", at_ms: int = NOW) -> Exposure:
    """The exposure of a unit."""
    return exposure(ASSIGNER.assign(unit), at_ms, request_id=request)


def measured(unit: str, request: str = "r", at_ms: int = NOW, **outcome: Any) -> list[Measurement]:
    """What a request of a unit was measured as; by default everything."""
    outcome = outcome or {"errors": 2, "words": 10, "noise": 0.5, "wall": 0.25, "kept": 1}
    return list(measurements(DEMO, used(unit), outcome, at_ms, request_id=request))


def other(event: Any, **fields: Any) -> Any:
    """An event that says something else."""
    return dataclasses.replace(event, **fields)


def record(store: Store, *events: Any, **options: Any) -> Receipt:
    """Record events and land them."""
    with Collector(store, clock=lambda: NOW, **options) as collector:
        return collector.record(events)


def codes(receipt: Receipt) -> list[str]:
    """Why events were refused."""
    return [refused.code for refused in receipt.refused]


def test_an_outcome_becomes_measurements() -> None:
    """Each metric takes its columns; what was not measured is left out; the same request gives the same ids."""
    found = measured("u1", errors=2, words=10, wall=0.5)
    assert [(m.metric, m.value, m.weight, m.covariate) for m in found] == [
        ("wer", 2, 10, None),
        ("seconds", 0.5, None, None),
    ]
    assert measured("u1", errors=2, words=10, wall=0.5) == found
    assert len({m.event_id for m in found + measured("u1", "r2") + measured("u2")}) == 8
    assert used("u1") == used("u1")
    assert used("u1", at_ms=NOW + 1).event_id == used("u1").event_id != used("u1", "r2").event_id
    assert exposure(ASSIGNER.assign("u1"), 1).event_id != exposure(ASSIGNER.assign("u1"), 2).event_id
    assert exposure(ASSIGNER.assign("u1"), 1, shadow=True).reason == "shadow"


def test_the_page_says_what_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration of docs/experiments.md is valid and its programs run, one after the other."""
    text = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    (configuration,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert parse_experiment({"name": "page", **tomllib.loads(configuration)}).guardrails
    monkeypatch.setenv("GRYM_HOME", str(tmp_path))
    monkeypatch.setenv("GRYM_CONFIG", str(ROOT / "grym.toml"))
    ramp(tmp_path, find_experiment(ROOT, "mini-int8"), 1.0)
    said: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), said)  # noqa: S102 - our own page
    assert said["receipt"].recorded == 4
    assert said["many"].one(0) == said["assignment"]


def test_who_is_not_enrolled_has_no_exposure() -> None:
    """There is no arm to expose to."""
    with pytest.raises(ConfigError, match="not enrolled") as error:
        exposure(Assigner(DEMO, control=lambda: State(killed=True)).assign("u1"), NOW)
    assert error.value.code == "not-enrolled"


def test_the_clock_never_goes_back() -> None:
    """A system clock that is set back is waited for."""
    times = iter([5_000_000, 9_000_000, 3_000_000, 10_000_000])
    clock = Clock(lambda: next(times))
    assert [clock() for _ in range(4)] == [5, 9, 9, 10]


def test_events_land_once_whatever_is_repeated(store: Store) -> None:
    """In one call, in a later call, by another collector: one row each, in the store and in the sums."""
    events: list[Any] = [used("u1"), *measured("u1"), used("u2"), *measured("u2")]
    with Collector(store, clock=lambda: NOW) as collector:
        assert collector.record([*events, events[0]]).repeated == 1
        receipt = collector.record(events)
        assert (receipt.recorded, receipt.repeated) == (0, 8)
    assert record(store, *events[:5]).recorded == 5
    assert (store.read("exposures").height, store.read("measurements").height) == (2, 6)
    evidence = gather(store, DEMO)
    assert evidence.repeated == 5
    assert sum(row["n"] for row in evidence.rows if row["metric"] == "wer") == 2
    assert list((store.home / "journal").iterdir()) == []


BAD: list[tuple[Any, str]] = [
    (other(used("u"), experiment="nobody"), "unknown-experiment"),
    (other(used("u"), version=2), "unknown-experiment"),
    (other(used("u"), experiment=["x"]), "unknown-experiment"),
    (other(used("u"), arm="c"), "unknown-arm"),
    (other(used("u"), arm=["a"]), "unknown-arm"),
    (other(used("u"), digest="0" * 64), "changed-configuration"),
    (other(used("u"), reason="mood"), "bad-reason"),
    (other(used("u"), bucket=1.0), "bad-bucket"),
    (other(used("u"), unit=""), "bad-id"),
    (other(used("u"), unit="\udc80"), "bad-id"),
    (other(used("u"), unit="x" * 513), "bad-id"),
    (other(used("u"), event_id=None), "bad-id"),
    (other(used("u"), at_ms=12), "bad-time"),
    (other(used("u"), at_ms=NOW + 86_400_001), "bad-time"),
    (other(used("u"), at_ms=1.5), "bad-time"),
    (other(measured("u")[0], metric="loudness"), "unknown-metric"),
    (other(measured("u")[0], value=math.nan), "not-a-number"),
    (other(measured("u")[0], value=-math.inf), "not-a-number"),
    (other(measured("u")[0], value=10**400), "not-a-number"),
    (other(measured("u")[0], value="2"), "not-a-number"),
    (other(measured("u")[0], value=None), "not-a-number"),
    (other(measured("u")[0], value=True), "not-a-number"),
    (other(measured("u")[0], covariate=math.nan), "not-a-number"),
    (other(measured("u")[0], weight=-1.0), "bad-weight"),
    (other(measured("u")[0], request_id=7), "bad-id"),
    (other(measured("u")[2], value=0.5), "not-a-proportion"),
]


@pytest.mark.parametrize(("event", "code"), BAD)
def test_a_bad_event_has_a_reason(event: Any, code: str) -> None:
    """It is refused with a code, a sentence and a hint; what is good is not."""
    found = problem(event, {("demo", 1): DEMO}, NOW)
    assert found is not None
    assert found[0] == code
    assert all(text.endswith(".") and text.isprintable() for text in found[1:])
    assert problem(used("u"), {("demo", 1): DEMO}, NOW) is None


def test_bad_events_are_quarantined_and_the_others_are_not(store: Store) -> None:
    """Each keeps its reason as a row, with a hint, and nothing of it enters a statistic."""
    good = [used("u1"), *measured("u1")]
    receipt = record(store, *good[:2], *(event for event, _ in BAD), *good[2:])
    assert (receipt.recorded, codes(receipt)) == (4, [code for _, code in BAD])
    rows = store.read("quarantine")
    assert set(rows["code"]) == {code for _, code in BAD}
    assert set(rows["key"]) == {refused.key for refused in receipt.refused}
    assert set(rows["stage"]) == {"event:demo", "event:nobody", "event:['x']"}
    assert set(rows["category"]) == {"quality"}
    assert all(rows["hint"])
    assert (store.read("exposures").height, store.read("measurements").height) == (1, 3)


def test_what_is_no_event_is_quarantined(store: Store) -> None:
    """None, a dictionary, a text: refused with their reason, and the rest of the call is recorded."""
    receipt = record(store, None, {"unit": "u1"}, "u1", used("u1"))  # type: ignore[arg-type]
    assert (receipt.recorded, codes(receipt)) == (1, ["not-an-event"] * 3)
    assert store.read("quarantine").height == 3
    assert store.read("exposures").height == 1


def test_a_closed_arm_that_receives_events_is_seen(store: Store) -> None:
    """Randomised into share 0 is impossible and kept as evidence; an override into it is not counted."""
    receipt = record(
        store,
        other(used("u1"), arm="closed"),
        other(used("u2"), arm="closed", reason="override", event_id="e2"),
        other(measured("u2")[0], arm="closed"),
    )
    assert (receipt.recorded, receipt.impossible) == (3, 1)
    closed = gather(store, DEMO).arms[2]
    assert (closed.arm, closed.units, closed.exposures) == ("closed", 1, 2)


def test_a_version_registered_later_is_found(store: Store) -> None:
    """A collector asks again, once a second, before it refuses."""
    second = dataclasses.replace(DEMO, version=2)
    event = exposure(Assigner(second, control=State).assign("u1"), NOW)
    with Collector(store, clock=lambda: NOW) as collector:
        assert codes(collector.record([event])) == ["unknown-experiment"]
        register(store, second)
        collector._refreshed -= 1
        assert collector.record([event]).recorded == 1
    assert [a.units for a in gather(store, second).arms] != [0, 0, 0]


def test_sums_are_those_of_a_plain_computation(store: Store) -> None:
    """Random events with everything that may go wrong: the sums equal those of twenty lines of Python."""
    rng = random.Random(7)
    events: list[Any] = []
    for number in range(300):
        unit = f"ü{number % 90}"
        if rng.random() < 0.9:
            events.append(used(unit, str(number)))
        found = measured(
            unit,
            str(number),
            errors=rng.randrange(5),
            words=rng.randrange(12),
            noise=rng.random(),
            wall=rng.random(),
            kept=rng.randrange(2),
        )
        events += [other(m, covariate=None) if rng.random() < 0.2 else m for m in found if rng.random() < 0.8]
    events += [other(used("ü3"), arm="a", event_id="x1"), other(used("ü3"), arm="b", event_id="x2")]
    events += [other(used("ü4"), arm="closed", reason="forced", event_id="x3")]
    events += [other(m, arm="closed") for m in measured("ü4", "forced")]
    events += measured("nobody", "lost")
    expected = plain(events)
    exposed = {(e.unit, e.arm) for e in events if isinstance(e, Exposure)}
    lost = sum((e.unit, e.arm) not in exposed for e in events if isinstance(e, Measurement))
    assert lost > 3
    rng.shuffle(events)
    with Collector(store, rows=200, clock=lambda: NOW) as collector:
        for start in range(0, len(events), 37):
            collector.record(events[start : start + 37] + events[start : start + 5])
    record(store, *events[100:300])
    evidence = gather(store, DEMO, threads=2)
    assert [(row["metric"], row["arm"]) for row in evidence.rows] == [
        (metric.name, arm.name) for metric in DEMO.metrics for arm in DEMO.arms
    ]
    for row in evidence.rows:
        wanted = expected[row["metric"], row["arm"]]
        assert [row["n"], *(row[name] for name in SUMS)] == pytest.approx(wanted, rel=1e-12)
    assert (evidence.mixed, evidence.lost, evidence.repeated) == (1, lost, 200)
    again = gather(store, DEMO, threads=1)
    for row, same in zip(evidence.rows, again.rows, strict=True):
        assert [f"{row[name]:.12g}" for name in SUMS] == [f"{same[name]:.12g}" for name in SUMS]
    assert dataclasses.replace(again, rows=()) == dataclasses.replace(evidence, rows=())


def plain(events: list[Any]) -> dict[tuple[str, str], list[float]]:
    """The number of units and the nine sums by metric and arm."""
    arms: dict[str, set[str]] = defaultdict(set)
    for e in events:
        if isinstance(e, Exposure) and e.reason in {"assigned", "sticky"}:
            arms[e.unit].add(e.arm)
    units: dict[tuple[str, str], dict[str, np.ndarray]] = defaultdict(lambda: defaultdict(lambda: np.zeros(3)))
    for m in events:
        if isinstance(m, Measurement) and arms[m.unit] == {m.arm}:
            sums = units[m.metric, m.arm][m.unit]
            value = m.value if m.metric != "kept" else max(0, m.value - sums[0])
            sums += [value, 1 if m.weight is None else m.weight, m.covariate or 0]
    found = {}
    for metric in DEMO.metrics:
        for arm in DEMO.arms:
            rows = np.array(list(units[metric.name, arm.name].values())).reshape(-1, 3)
            y, w, x = rows.T
            n = len(rows) if metric.absent == "missing" else sum(said == {arm.name} for said in arms.values())
            found[metric.name, arm.name] = [
                n,
                *(float(np.sum(v)) for v in (y, w, x, y * y, w * w, x * x, y * w, x * y, x * w)),
            ]
    return found


def test_a_clock_that_goes_back_changes_nothing(store: Store, tmp_path: Path) -> None:
    """Events with times in reverse give the same rows; only a look at a past moment leaves some out."""
    steps = range(40)
    forward = [e for i in steps for e in (used(f"u{i}", at_ms=NOW + i), *measured(f"u{i}", at_ms=NOW + i))]
    backward = [e for i in steps for e in (used(f"u{i}", at_ms=NOW - i), *measured(f"u{i}", at_ms=NOW - i))]
    record(store, *forward)
    second = Store(tmp_path / "second")
    register(second, DEMO)
    record(second, *backward)
    one, two = gather(store, DEMO), gather(second, DEMO)
    assert one.rows == two.rows
    assert (one.first_ms, one.last_ms, two.first_ms, two.last_ms) == (NOW, NOW + 39, NOW - 39, NOW)
    past = gather(store, DEMO, until_ms=NOW + 9)
    assert (sum(arm.units for arm in past.arms), past.last_ms, past.until_ms) == (10, NOW + 9, NOW + 9)


def test_nothing_landed_is_no_evidence(store: Store) -> None:
    """Every metric and arm has its row of zeros."""
    evidence = gather(store, DEMO)
    assert len(evidence.rows) == 9
    assert all(row["n"] == 0 and not any(row[name] for name in SUMS) for row in evidence.rows)
    assert (evidence.first_ms, evidence.lost, [arm.units for arm in evidence.arms]) == (None, 0, [0, 0, 0])
    assert len(evidence.query_digest) == 64


def test_events_can_be_queried_and_survive_compaction(store: Store) -> None:
    """The same sums before and after parts are put together, and queries of one's own on the same connection."""
    for number in range(6):
        record(store, used(f"u{number}"), *measured(f"u{number}"), *measured("u0"))
    before = gather(store, DEMO)
    assert compact(store, ["demo.v1"], min_parts=2).runs == 1
    after = gather(store, DEMO)
    assert dataclasses.replace(after, repeated=0) == dataclasses.replace(before, repeated=0)
    with open_events(store, DEMO) as events:
        assert events.connection.sql("SELECT count(*), count(DISTINCT unit) FROM measurements").fetchall() == [(18, 6)]
        assert events.connection.sql("SELECT count(*) FROM exposed WHERE randomised").fetchall() == [(6,)]


def test_a_damaged_part_is_a_typed_error(store: Store) -> None:
    """Reading says which part, instead of leaving it out."""
    record(store, used("u1"))
    (part,) = (store.landing / "exposures").rglob("*.parquet")
    part.write_bytes(b"PAR1 not really")
    with pytest.raises(StorageError) as error:
        gather(store, DEMO)
    assert error.value.code == "bad-part"
    assert part.name in error.value.message


def test_a_full_journal_becomes_a_part(store: Store) -> None:
    """After so many rows, or so many seconds, without being asked."""
    with Collector(store, rows=4, clock=lambda: NOW) as collector:
        collector.record([used("u1"), *measured("u1")])
        assert store.read("exposures").height == 1
        collector.record([used("u2")])
        assert store.read("exposures").height == 1
    assert store.read("exposures").height == 2
    with Collector(store, seconds=0, durable=True, clock=lambda: NOW) as collector:
        collector.record([used("u3")])
        assert store.read("exposures").height == 3


def test_a_journal_that_was_left_is_landed_once(store: Store) -> None:
    """Rows that were acknowledged are landed by the next collector; a torn last line was not and is dropped."""
    dead = Collector(store, clock=lambda: NOW)
    dead.record([used("u1"), *measured("u1"), other(used("u2"), arm="c")])
    journal = dead._journal
    assert journal is not None
    assert list(left(store.home / "journal")) == []
    whole = journal.path.read_bytes()
    journal.close()
    journal.path.write_bytes(whole + b"\n" + whole[: len(whole) // 2])
    for found in left(store.home / "journal"):
        assert found.rows() == [list(row) for row in dead._rows]
        found.close()
    with Collector(store, clock=lambda: NOW) as second:
        assert list((store.home / "journal").iterdir()) == []
        assert second.recover() == 0
    assert [store.read(table).height for table in ("exposures", "measurements", "quarantine")] == [1, 3, 1]


def test_a_kill_between_landing_and_removal_repeats_itself(store: Store) -> None:
    """The journal is landed again under the same names: the same files, the same rows."""
    dead = Collector(store, clock=lambda: NOW)
    dead.record([used("u1"), *measured("u1")])
    journal = dead._journal
    assert journal is not None
    text = journal.path.read_bytes()
    dead.close()
    parts = sorted(path.name for path in store.landing.rglob("part-*"))
    journal.path.write_bytes(text)
    Collector(store).close()
    assert sorted(path.name for path in store.landing.rglob("part-*")) == parts
    assert gather(store, DEMO).repeated == 0


def test_a_collector_that_cannot_land_keeps_its_journal(store: Store) -> None:
    """The events are safe, the error is typed, and the next try lands them all."""
    collector = Collector(store, clock=lambda: NOW)
    blocker = store.landing / "exposures"
    blocker.write_text("in the way")
    collector.record([used("u1")])
    with pytest.raises(GrymError):
        collector.flush()
    collector.record([used("u2")])
    blocker.unlink()
    collector.close()
    assert sorted(store.read("exposures")["unit"]) == ["u1", "u2"]


def test_numpy_numbers_are_numbers(store: Store) -> None:
    """Values computed with NumPy are recorded as they are."""
    receipt = record(store, used("u1"), *measured("u1", wall=np.float32(0.5), kept=np.int64(1), errors=np.float64(3)))
    assert (receipt.recorded, receipt.refused) == (4, ())
    assert sorted(store.read("measurements")["value"]) == [0.5, 1, 3]


def test_journals_are_one_processs_at_a_time(tmp_path: Path) -> None:
    """A journal that is open cannot be taken; one that was finished meanwhile is gone; lines are all or nothing."""
    journal = Journal.create(tmp_path)
    journal.append([[1, "zwei\n", None], [2]])
    journal.append([])
    with pytest.raises(BlockingIOError):
        Journal(journal.path)
    assert journal.rows() == [[1, "zwei\n", None], [2]]
    assert json.loads(journal.path.read_bytes().split(b"\n")[0].split(b" ", 1)[1]) == [[1, "zwei\n", None], [2]]
    assert len(journal.date) == 10
    journal.finish()
    with pytest.raises(FileNotFoundError):
        Journal(journal.path)
