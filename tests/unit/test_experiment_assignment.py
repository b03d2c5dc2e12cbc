"""Who gets which arm: the same everywhere and for ever, in any batch, at every step of the ramp."""

from __future__ import annotations

import dataclasses
import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grym.errors import ConfigError
from grym.experiment.assignment import REASONS, Assigner, Assignment, ranges
from grym.experiment.collector import Collector
from grym.experiment.config import Arm, Experiment, Hash, Holdout, Metric, Namespace, Sticky
from grym.experiment.control import LOOK_SECONDS, State, Switch, kill, ramp, read_state, revive
from grym.experiment.events import exposure
from grym.experiment.registry import register
from grym.experiment.sticky import MemoryBook, read_book
from grym.store import Store

if TYPE_CHECKING:
    from pathlib import Path

HASHES: tuple[Hash, ...] = ("sha256", "growthbook-v1", "growthbook-v2")
USERS = [f"user-{number}" for number in range(4_000)]
AT = 1_795_000_000_000


def experiment(*shares: float, **fields: Any) -> Experiment:
    """An experiment with arms a, b, c... of these shares."""
    arms = tuple(Arm(name, share, f"model-{name}") for name, share in zip("abcdefghij", shares, strict=False))
    return Experiment(**{"name": "demo", "version": 1, "unit": "user", "arms": arms, "metrics": METRICS, **fields})


METRICS = (Metric("m", "mean", "lower", "x"),)
HALVES = experiment(0.5, 0.5)


def at(coverage: float) -> Any:
    """A control with that coverage."""
    return lambda: State(coverage=coverage)


def arms(config: Experiment, coverage: float = 1.0, units: list[str] = USERS, **options: Any) -> list[str | None]:
    """The arm of each unit, at once."""
    found = Assigner(config, control=at(coverage), **options).assign_many(units)
    return [None if arm < 0 else config.arms[arm].name for arm in found.arms]


def test_the_bucket_is_the_documented_hash() -> None:
    """First 53 bits of sha256 over purpose, salt and unit; one literal pins it for ever."""
    found = Assigner(dataclasses.replace(HALVES, salt="s"), control=State).assign("größe-聲")
    digest = hashlib.sha256("arm\0s\0größe-聲".encode()).digest()
    assert found.bucket == (int.from_bytes(digest[:8], "big") >> 11) / 2**53
    assert Assigner(HALVES, control=State).assign("user-1") == Assignment(
        "demo", 1, HALVES.digest, "user-1", "a", "model-a", 0.2715436497684315, "assigned"
    )


def test_ids_are_taken_as_they_are_written() -> None:
    """Two spellings of one letter are two units; salt and id cannot run into each other."""
    one, two = (Assigner(HALVES, control=State).assign(unit).bucket for unit in ("caf\u00e9", "cafe\u0301"))
    assert one != two
    left = Assigner(dataclasses.replace(HALVES, salt="ab"), control=State).assign("c").bucket
    assert left != Assigner(dataclasses.replace(HALVES, salt="a"), control=State).assign("bc").bucket


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(st.text(max_size=12) | st.sampled_from(["u1", "u2", "\udc80", "\0", "x" * 400]), max_size=12),
    kind=st.sampled_from(HASHES),
    coverage=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    parts=st.fixed_dictionaries(
        {},
        optional={
            "namespace": st.just(Namespace("n", (0.2, 0.9))),
            "holdout": st.just(Holdout("h", 0.2)),
            "overrides": st.just({"u1": "c", "": "a"} | {"": "b"}).map(lambda d: {k: v for k, v in d.items() if k}),
            "sticky": st.just(Sticky(enabled=True, bucket_version=2, min_bucket_version=1)),
        },
    ),
)
def test_a_batch_says_what_single_calls_say(
    units: list[str], kind: Hash, coverage: float, parts: dict[str, Any]
) -> None:
    """Arm, bucket and reason are equal to the last bit, whatever rules are in force."""
    config = experiment(0.5, 0.3, 0.2, 0.0, hash=kind, **parts)
    known = {"u2": {"demo__2": "b"}, "\0": {"demo__0": "a"}, "0": {"demo__2": "d"}, "1": {"demo__2": "?"}}
    batch = Assigner(config, control=at(coverage), book=MemoryBook(known)).assign_many(units)
    one = Assigner(config, control=at(coverage), book=MemoryBook(known))
    assert [batch.one(index) for index in range(len(units))] == [one.assign(unit) for unit in units]


@pytest.mark.parametrize("kind", HASHES)
@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.1,) * 10, (0.2, 0.8, 0.0), (0.01, 0.3, 0.69)])
def test_nobody_changes_arm_on_the_ramp(kind: Hash, shares: tuple[float, ...]) -> None:
    """From 1 to 5 to 25 to 100 % units only join; at the end everybody is in, nobody in a closed arm."""
    shares = (1 - sum(shares[1:]), *shares[1:])
    config = experiment(*shares, hash=kind)
    before: list[str | None] = [None] * len(USERS)
    enrolled = []
    for coverage in (0.01, 0.05, 0.25, 1.0):
        now = arms(config, coverage)
        assert all(old in (None, new) for old, new in zip(before, now, strict=True))
        enrolled.append(sum(arm is not None for arm in now) / len(USERS))
        before = now
    assert enrolled == pytest.approx([0.01, 0.05, 0.25, 1.0], abs=0.025)
    assert enrolled[-1] == 1
    for arm in config.arms:
        share = before.count(arm.name) / len(USERS)
        assert abs(share - arm.share) < 5 * (arm.share * (1 - arm.share) / len(USERS)) ** 0.5 + 1e-9


def test_ranges_meet_and_end_at_one() -> None:
    """Ten times a tenth covers everything though the sum of the floats does not."""
    tenths = ranges(experiment(*(0.1,) * 10), 1.0)
    assert tenths[-1][1] == 1.0
    assert all(end == start for (_, end), (start, _) in pairwise(tenths))
    closed = ranges(experiment(0.3, 0.7, 0.0), 1.0)
    assert closed[1][1] == 1.0
    assert closed[2][0] == closed[2][1]


@pytest.mark.parametrize(
    ("config", "ids", "expected"),
    [
        ({}, "123456789", "baabbbaba"),
        ({"shares": (0.1, 0.9)}, "123456789", "bbabbbabb"),
        ({"shares": (1 / 3, 1 / 3, 1 / 3)}, "123456789", "caacbcaba"),
        ({"coverage": 0.4}, "123456789", "-aa-b-ab-"),
    ],
)
def test_the_compatible_profile_puts_users_where_growthbook_does(config: Any, ids: str, expected: str) -> None:
    """Expected variations of GrowthBook's cases "default weights", "uneven weights", "three way test", "coverage"."""
    profile = experiment(*config.get("shares", (0.5, 0.5)), hash="growthbook-v1", salt="my-test")
    found = arms(profile, config.get("coverage", 1.0), list(ids))
    assert "".join(arm or "-" for arm in found) == expected


def test_namespaces_exclude_and_are_independent_of_arms() -> None:
    """Disjoint slices share no unit, together they have everybody, and inside the arms are still halves."""
    for kind in HASHES:
        slices = (Namespace("n", (0, 0.4)), Namespace("n", (0.4, 1)))
        one, two = (arms(experiment(0.5, 0.5, name=f"e{i}", hash=kind, namespace=s)) for i, s in enumerate(slices))
        assert all((left is None) != (right is None) for left, right in zip(one, two, strict=True))
        assert 0.36 < sum(arm is not None for arm in one) / len(USERS) < 0.44
        assert 0.44 < one.count("a") / sum(arm is not None for arm in one) < 0.56


def test_a_holdout_is_the_same_for_every_experiment() -> None:
    """Units held out of one experiment are held out of all that name the holdout, whatever their hash."""
    held = []
    for kind in HASHES:
        config = experiment(0.5, 0.5, name=kind, hash=kind, holdout=Holdout("2026", 0.1))
        found = Assigner(config, control=State).assign_many(USERS)
        held.append({USERS[i] for i in np.flatnonzero(found.reasons == REASONS.index("holdout"))})
    assert held[0] == held[1] == held[2]
    assert 0.08 < len(held[0]) / len(USERS) < 0.12
    assert arms(experiment(0.5, 0.5, name="e")).count(None) == 0


def test_the_order_of_the_rules() -> None:
    """Kill, no unit, forced, override, holdout, sticky, namespace, ramp: the first that holds decides."""
    config = experiment(
        0.5,
        0.5,
        overrides={"tester": "b"},
        holdout=Holdout("h", 0.99),
        namespace=Namespace("n", (0.99, 1)),
        sticky=Sticky(enabled=True, bucket_version=1, min_bucket_version=1),
    )
    open_to = dataclasses.replace(config, holdout=None)
    book = MemoryBook({"old": {"demo__1": "b"}, "blocked": {"demo__0": "a"}})
    live = Assigner(config, control=at(0.0), book=book)
    known = Assigner(open_to, control=at(0.0), book=book)
    inside = Assigner(dataclasses.replace(open_to, namespace=None), control=at(0.0), book=book)
    killed = Assigner(config, control=lambda: State(killed=True), book=book)
    found = [
        (killed.assign("tester", force="a"), None, "killed"),
        (live.assign("", force="a"), None, "no-unit"),
        (live.assign("tester", force="a"), "a", "forced"),
        (live.assign("tester"), "b", "override"),
        (live.assign("old"), None, "holdout"),
        (known.assign("old"), "b", "sticky"),
        (known.assign("blocked"), None, "blocked"),
        (known.assign("new"), None, "namespace"),
        (inside.assign("new"), None, "ramp"),
    ]
    assert [(a.arm, a.reason) for a, _, _ in found] == [(arm, reason) for _, arm, reason in found]
    assert {a.model for a, arm, _ in found if arm is None} == {"model-a"}


def test_units_that_are_not_text_are_errors() -> None:
    """An id of another type is a mistake in the program, not a unit; a half surrogate is nobody."""
    assigner = Assigner(HALVES, control=State)
    for call in (lambda: assigner.assign(7), lambda: assigner.assign_many(["a", None])):  # type: ignore[arg-type,list-item]
        with pytest.raises(ConfigError, match="is not text") as error:
            call()
        assert error.value.code == "bad-unit"
    with pytest.raises(ConfigError, match="no arm 'x'"):
        assigner.assign("a", force="x")
    assert assigner.assign("\udc80").reason == "no-unit"
    assert assigner.assign_many([]).arms.shape == (0,)


def test_sticky_units_keep_their_arm_when_shares_change(tmp_path: Path) -> None:
    """What was exposed under version 1 keeps its arm in version 2; a new bucket version assigns anew."""
    store = Store(tmp_path)
    first = dataclasses.replace(HALVES, sticky=Sticky(enabled=True))
    register(store, first)
    old = [Assigner(first, control=State).assign(unit) for unit in USERS[:200]]
    with Collector(store) as collector:
        collector.record(exposure(one, AT + i) for i, one in enumerate(old))
        # Exposed in another arm too, later and by force: neither is remembered.
        collector.record([exposure(dataclasses.replace(old[0], arm="a" if old[0].arm == "b" else "b"), AT + 999)])
        collector.record([exposure(Assigner(first, control=State).assign("forced", force="b"), AT)])
    second = dataclasses.replace(experiment(0.9, 0.1), version=2, sticky=Sticky(enabled=True))
    register(store, second)
    book = read_book(store, "demo")
    kept = Assigner(second, control=State, book=book).assign_many(USERS[:200])
    assert [kept.one(i).arm for i in range(200)] == [one.arm for one in old]
    assert set(kept.reasons) == {REASONS.index("sticky")}
    assert book.look_up("forced") == {}
    anew = dataclasses.replace(second, sticky=Sticky(enabled=True, bucket_version=1))
    moved = Assigner(anew, control=State, book=book)
    assert [moved.assign(unit).reason for unit in USERS[:3]] == ["assigned"] * 3
    assert moved.assign(USERS[0]).reason == "sticky"
    closed = dataclasses.replace(experiment(1.0, 0.0), version=3, sticky=Sticky(enabled=True))
    assert set(arms(closed, units=USERS[:200], book=read_book(store, "demo"))) == {"a"}
    off = dataclasses.replace(second, sticky=Sticky())
    assert Assigner(off, control=State, book=book).assign(USERS[0]).reason == "assigned"


def test_the_switch_shows_a_change_at_once(tmp_path: Path) -> None:
    """A kill, a revival and a step of the ramp are in force after one look, for everybody, sticky or not."""
    seconds = [0.0]
    config = dataclasses.replace(HALVES, sticky=Sticky(enabled=True))
    switch = Switch(tmp_path, config, clock=lambda: seconds[0])
    book = MemoryBook({unit: {"demo__0": "b"} for unit in USERS})
    assigner = Assigner(config, control=switch, book=book)
    assert switch() == State(coverage=0.01)
    assert assigner.assign("user-1").reason == "sticky"
    assert kill(tmp_path, config, "WER doubled").killed
    seconds[0] += LOOK_SECONDS
    assert assigner.assign("user-1").reason == "killed"
    assert set(arms(config, book=book)) == {"b"}
    assert set(assigner.assign_many(USERS).arms) == {-1}
    assert ramp(tmp_path, config, 0.25) == State(killed=True, coverage=0.25, reason="WER doubled")
    assert revive(tmp_path, config) == State(coverage=0.25)
    assert switch().killed
    seconds[0] += LOOK_SECONDS
    assert switch() == read_state(tmp_path, config) == State(coverage=0.25)
    assert LOOK_SECONDS < 1
    with pytest.raises(ConfigError, match=r"no ramp step 0\.3; it has: 0\.01, 0\.05, 0\.25, 1"):
        ramp(tmp_path, config, 0.3)


def test_a_new_version_begins_at_its_first_step(tmp_path: Path) -> None:
    """Each version has its coverage; a kill is the experiment's until somebody takes it back."""
    second = dataclasses.replace(HALVES, version=2)
    ramp(tmp_path, HALVES, 1.0)
    assert read_state(tmp_path, second) == Switch(tmp_path, second)() == State(coverage=0.01)
    ramp(tmp_path, second, 0.25)
    assert read_state(tmp_path, HALVES) == State(coverage=1.0)
    kill(tmp_path, HALVES, "slow")
    assert read_state(tmp_path, second) == State(killed=True, coverage=0.25, reason="slow")
    third = dataclasses.replace(HALVES, version=3)
    assert read_state(tmp_path, third) == State(killed=True, coverage=0.01, reason="slow")
    assert revive(tmp_path, third) == State(coverage=0.01)
    assert read_state(tmp_path, HALVES) == State(coverage=1.0)
    earlier = b'{"killed": false, "coverage": 0.05, "reason": ""}'  # what earlier releases wrote
    (tmp_path / "experiments/demo.json").write_bytes(earlier)
    assert read_state(tmp_path, second) == State(coverage=0.05)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"killed": false}', b'{"killed":false,"coverage":"x","reason":""}']
)
def test_a_switch_that_cannot_be_read_kills(tmp_path: Path, damage: bytes) -> None:
    """In doubt nobody is experimented on."""
    ramp(tmp_path, HALVES, 1.0)
    (tmp_path / "experiments/demo.json").write_bytes(damage)
    state = Switch(tmp_path, HALVES)()
    assert state.killed
    assert "cannot be read" in state.reason
    assert revive(tmp_path, HALVES) == State(coverage=0.01)
