"""Routes with models in this process: who answers when the primary is down, slow or bad, and what is recorded."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from grym._resilience_settings import BreakerSettings, RecoverySettings, RouteSettings
from grym.config import ModelSpec
from grym.errors import AudioError, GrymError, UnavailableError, WorkerError
from grym.experiment.journal import Journal
from grym.models.fake import FakeModel, FakeOptions
from grym.models.interface import Answer, AudioClip, Options
from grym.quality import Judgement, RuleResult
from grym.resilience.breaker import Breakers
from grym.resilience.failover import Route, own_answers
from grym.resilience.members import THREADS, Member
from grym.resilience.records import Alerts, Recorder, land_events, live_run
from grym.resilience.state import States
from grym.resilience.suspects import Suspects
from grym.store import Store
from reports import VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from grym.models.interface import Card

RECOVERY = RecoverySettings(attempts=2, base_seconds=0.001, max_seconds=0.002)
GOOD, DOWN = {"*": "one two"}, {"*": {"do": "raise", "category": "worker", "code": "down", "retryable": True}}


class Local:
    """The scripted fake without a child process, slow on demand."""

    def __init__(self, name: str, script: dict[str, Any]) -> None:
        self.model = FakeModel(ModelSpec(name=name, adapter="fake"), FakeOptions(script=json.dumps(script)))
        self.card: Card = self.model.card
        self.calls = self.starts = 0
        self.gate = threading.Event()
        self.gate.set()
        self.errors: list[GrymError] = []
        self.closed = False

    def start(self) -> Card:
        """Count."""
        self.starts += 1
        return self.card

    def process(
        self, clips: Sequence[AudioClip], options: Options, *, deadline: float | None = None
    ) -> tuple[list[Answer], None]:
        """Answer as scripted, when the gate is open."""
        self.calls += 1
        assert deadline is not None
        self.gate.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        return self.model.process(clips, options), None

    def close(self) -> None:
        """Let whoever waits go."""
        self.closed = True
        self.gate.set()


class Bench:
    """A home with a route over local models."""

    def __init__(self, home: Path, stack: ExitStack, judge: Any = None, **route: Any) -> None:
        self.store = Store(home)
        self.states = States(home)
        self.recorder = stack.enter_context(Recorder(self.store))
        self.scripts = route.pop("scripts")
        self.models = {name: Local(name, script) for name, script in self.scripts.items()}
        names = list(self.models)
        fallbacks = [{"model": name} for name in names[1:]]
        settings = RouteSettings(**{"name": "speech", "primary": names[0], "fallbacks": fallbacks, **route})
        breaker = BreakerSettings(max_failures=3, reset_timeout=60)
        specs = {name: ModelSpec(name=name, adapter="fake", breaker=breaker) for name in names}
        self.breakers = Breakers(self.states, specs)
        self.members = {name: Member(name, lambda name=name: self.models[name]) for name in names}  # type: ignore[misc]
        for member in self.members.values():
            stack.callback(member.close)
        self.route = Route(
            settings,
            self.members,
            breakers=self.breakers,
            recovery=RECOVERY,
            recorder=self.recorder,
            alerts=Alerts(self.states, self.recorder),
            judge=judge,
        )

    def rows(self, table: str) -> pl.DataFrame:
        """A table with everything that was recorded."""
        self.recorder.flush()
        land_events(self.states, self.store)
        return self.store.read(table)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    """Makes a bench."""
    with ExitStack() as stack:
        yield lambda judge=None, **settings: Bench(tmp_path / "home", stack, judge, **settings)


def clips(*names: str) -> list[AudioClip]:
    """Short clips."""
    return [AudioClip(name, np.zeros(1600, np.float32), 16_000) for name in names or ("c",)]


def test_the_primary_answers_while_it_can(bench: Any) -> None:
    """No fallback is asked, and the row says who served."""
    made = bench(scripts={"a": GOOD, "b": GOOD})
    (served,) = made.route.ask(clips(), request_id="r1")
    assert (served.served_by, served.place, served.refused, served.failed_over) == ("a", 0, (), False)
    assert served.answer.text == "one two"
    assert made.models["b"].calls == 0
    row = made.rows("requests").row(0, named=True)
    assert (row["request_id"], row["status"], row["primary"], row["served_by"]) == ("r1", "ok", "a", "a")
    assert row["revision"] == made.models["a"].card.revision
    assert made.rows("alerts").is_empty()


def test_a_primary_that_is_down_is_replaced_and_soon_not_asked(bench: Any) -> None:
    """Every request is answered; after three failures the breaker keeps the primary from being asked."""
    made = bench(scripts={"a": DOWN, "b": GOOD})
    served = [made.route.ask(clips())[0] for _ in range(8)]
    assert {one.served_by for one in served} == {"b"}
    assert [one.refused[0].code for one in served] == ["down"] * 3 + ["breaker-open"] * 5
    assert made.models["a"].calls == 3
    rows = made.rows("requests")
    assert rows["failed_over"].all()
    assert made.rows("alerts").select("kind", "subject", "status").rows() == [("failover", "speech", "new")]
    changes = made.rows("events").select("kind", "subject", "after").rows()
    assert sorted(changes) == [("breaker", "a/process_audio", "open"), ("failover", "speech", "b")]
    tries = made.rows("attempts").select("model", "operation", "code", "action").rows()
    assert tries == [("a", "process_audio", "down", "give up")] * 3


def test_it_returns_to_the_primary(bench: Any) -> None:
    """When the breaker lets a probe through and the primary answers, it serves again, and that is an event."""
    made = bench(scripts={"a": GOOD, "b": GOOD})
    made.models["a"].errors = [WorkerError("It died.") for _ in range(3)]
    assert [made.route.ask(clips())[0].served_by for _ in range(4)] == ["b"] * 4
    made.breakers.allow_probe("a")
    assert made.route.ask(clips())[0].served_by == "a"
    after = made.rows("events").filter(pl.col("kind") == "failover").sort("at")["after"].to_list()
    assert after == ["b", "a"]


def test_a_slow_primary_costs_its_deadline_and_no_more(bench: Any) -> None:
    """The caller stops waiting at the deadline, whatever the worker does; it is started again in the background."""
    made = bench(scripts={"a": GOOD, "b": GOOD}, deadline_seconds=0.05)
    made.models["a"].gate.clear()
    (served,) = made.route.ask(clips())
    assert served.served_by == "b"
    assert served.refused[0].code == "deadline"
    assert 0.05 <= served.lost_seconds <= served.wall_seconds
    made.models["a"].gate.set()
    made.members["a"].close()
    assert made.models["a"].starts == 2


def test_a_model_with_too_many_calls_waiting_is_passed_over(bench: Any) -> None:
    """Calls that hang take up a bounded number of threads; that is no failure of the breaker's."""
    made = bench(scripts={"a": GOOD, "b": GOOD}, deadline_seconds=0.02)
    made.models["a"].gate.clear()
    waiting = [threading.Thread(target=made.members["a"].process, args=(clips(), Options(), 5)) for _ in range(THREADS)]
    for thread in waiting:
        thread.start()
    while made.models["a"].calls < THREADS:
        time.sleep(0.005)
    (served,) = made.route.ask(clips())
    assert (served.served_by, served.refused[0].code) == ("b", "overloaded")
    assert made.states.circuit("a", "process_audio").failures == 0
    made.models["a"].gate.set()
    for thread in waiting:
        thread.join()
    made.members["a"].close()
    with pytest.raises(UnavailableError, match="closed"):
        made.members["a"].process(clips(), Options(), 1)


def test_the_budget_holds_for_the_whole_request(bench: Any) -> None:
    """With everybody hanging, the answer is an error that names the last reason, within the budget."""
    made = bench(scripts={"a": GOOD, "b": GOOD, "c": GOOD}, deadline_seconds=0.1, budget_seconds=0.6)
    for model in made.models.values():
        model.gate.clear()
    (served,) = made.route.ask(clips())
    assert served.answer.error is not None
    assert served.answer.error.code == "all-failed"
    codes = [refused.code for refused in served.refused]
    assert (codes[0], codes[-1], len(codes)) == (
        "deadline",
        "budget-spent",
        3,
    )
    assert made.models["c"].calls == 0
    row = made.rows("requests").row(0, named=True)
    assert (row["status"], row["served_by"], row["place"], row["error_code"]) == ("failed", "", None, "all-failed")
    assert row["hint"]


def test_the_last_model_is_tried_again(bench: Any) -> None:
    """While somebody else can answer nobody waits; the last one has the tries of [recovery]."""
    made = bench(scripts={"a": DOWN, "b": GOOD})
    made.models["b"].errors = [WorkerError("It died.")]
    assert made.route.ask(clips())[0].served_by == "b"
    assert (made.models["a"].calls, made.models["b"].calls) == (1, 2)
    tries = made.rows("attempts").sort("at").select("model", "attempt", "action").rows()
    assert tries == [("a", 1, "give up"), ("b", 1, "retry"), ("b", 2, "answered")]


def test_an_answer_that_is_not_sure_goes_on_to_the_next_model(bench: Any) -> None:
    """Only the clips below the floor are asked again; the model is blamed when another one was sure."""
    unsure = {"*": "one", "noisy": {"text": "ten", "confidence": 0.2}}
    made = bench(scripts={"a": unsure, "b": GOOD}, min_confidence=0.5)
    served = made.route.ask(clips("clear", "noisy"))
    assert [(one.served_by, one.answer.text) for one in served] == [("a", "one"), ("b", "one two")]
    assert made.states.circuit("a", "process_audio").failures == 1
    assert served[0].refused == ()
    assert json.loads(made.rows("requests").filter(pl.col("clip_id") == "noisy")["refused"][0])[0][:2] == [
        "a",
        "unsure",
    ]


def test_a_clip_that_nobody_is_sure_of_blames_nobody(bench: Any) -> None:
    """Noise is no fault of the models."""
    noise = {"*": {"text": "ten", "confidence": float("0.2")}}
    made = bench(scripts={"a": noise, "b": noise}, min_confidence=0.5)
    (served,) = made.route.ask(clips())
    assert served.answer.error is not None
    assert "was not sure" in served.answer.error.message
    assert made.states.circuits() == []


def test_an_answer_that_breaks_a_rule_is_not_served(bench: Any) -> None:
    """The suite's verdict counts: a held row goes on; a gate that cannot judge lets nothing pass."""
    names = iter(["hold", "pass", "broken", "broken"])

    def judge(suite: str, frame: Any, subject: str) -> Judgement:
        what = next(names)
        if what == "broken":
            return Judgement(suite, subject, (), 0)
        rows = (0,) if what == "hold" else ()
        status: Any = "fail" if rows else "pass"
        rule = RuleResult(suite, subject, "not-empty", "critical", status, 1, len(rows), "", "It has words.", rows)
        return Judgement(suite, subject, (rule,), 1)

    made = bench(judge, scripts={"a": GOOD, "b": GOOD}, suite="transcription")
    (served,) = made.route.ask(clips())
    assert (served.served_by, served.refused[0].code) == ("b", "not-empty")
    (served,) = made.route.ask(clips())
    assert served.served_by == ""
    assert served.refused[1].code == "gate-transcription"


def test_a_bad_clip_is_not_passed_around(bench: Any) -> None:
    """What no model could use is told at once; the other clips of the request are answered."""
    bad = {"*": "one", "bad": {"do": "fail", "category": "audio", "code": "too-short"}}
    made = bench(scripts={"a": bad, "b": GOOD})
    served = made.route.ask(clips("good", "bad"))
    assert [one.served_by for one in served] == ["a", ""]
    assert served[1].answer.error is not None
    assert served[1].answer.error.code == "too-short"
    assert made.models["b"].calls == 0
    made.models["a"].errors = [AudioError("No samples.", code="empty")]
    assert made.route.ask(clips("x"))[0].answer.error.code == "empty"


def test_a_fallback_for_one_category_is_asked_for_no_other(bench: Any) -> None:
    """A variant that needs less memory is asked when memory was short."""
    entries = [{"model": "small", "only_for": ["resource"]}, {"model": "c"}]
    scripts = {"a": GOOD, "small": GOOD, "c": GOOD}
    made = bench(scripts=scripts, fallbacks=entries)
    made.models["a"].errors = [WorkerError("It died.")]
    assert made.route.ask(clips())[0].served_by == "c"
    memory = GrymError.from_record(WorkerError("x").record())
    made.models["a"].errors = [memory]
    assert made.route.ask(clips())[0].served_by == "c"
    from grym.errors import ResourceError

    made.models["a"].errors = [ResourceError("Too much.", retryable=False)]
    assert made.route.ask(clips())[0].served_by == "small"


def test_what_another_model_said_never_counts_for_the_arm() -> None:
    """In a comparison an answer of a fallback is a failure of the arm, and says so."""
    card = Local("a", GOOD).card
    own, other = Answer("c1", "one", model="a"), Answer("c2", "two", model="b", revision="r")
    kept, lost = own_answers([own, other], card)
    assert kept is own
    assert lost.text is None
    assert lost.error is not None
    assert (lost.model, lost.revision, lost.error.code) == ("a", card.revision, "failed-over")


def test_alerts_cool_down_and_say_what_they_held_back(bench: Any) -> None:
    """One alert for many failovers; the next one, after the cool-down, counts those between."""
    made = bench(scripts={"a": DOWN, "b": GOOD}, cool_down_seconds=60)
    for _ in range(4):
        made.route.ask(clips())
    alerts = Alerts(made.states, made.recorder)
    assert not alerts.alert("failover", "speech", "Again.", hint="", cool_down=60)
    assert alerts.alert("failover", "speech", "Again.", hint="", cool_down=0)
    assert alerts.alert("failover", "other", "Another.", hint="")
    assert made.rows("alerts").sort("at")["suppressed"].to_list() == [0, 4, 0]


def test_rows_of_a_process_that_was_killed_are_landed_by_the_next(tmp_path: Path) -> None:
    """What is in the journal is not lost, and not there twice, though landing is repeated."""
    store = Store(tmp_path)
    row = {"request_id": "r", "clip_id": "c", "at": "2026-11-20T12:00:00+00:00", "status": "ok"}
    journal = Journal.create(tmp_path / "journals" / "resilience")
    journal.append([["requests", row]])
    store.land("requests", [], run=live_run(journal.date), part=journal.name)
    journal.close()
    with Recorder(store) as recorder:
        assert store.read("requests")["status"].to_list() == ["ok"]
        recorder.add("requests", [{**row, "clip_id": "d", "wall_seconds": float("nan")}])
    assert store.read("requests")["clip_id"].to_list() == ["c", "d"]


def test_rows_that_cannot_be_kept_cost_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A home that cannot be written to loses rows, says so once, and raises nothing."""
    home = tmp_path / "home"
    home.write_text("a file")
    with Recorder(Store(home)) as recorder:
        for _ in range(3):
            recorder.add("requests", [{"request_id": "r"}])
    assert caplog.text.count("Rows are lost or late") == 1


def test_the_views_tell_who_served_and_what_was_recovered(bench: Any) -> None:
    """route_service counts clips for who answered them only; recovery_success counts calls by their first error."""
    made = bench(scripts={"a": GOOD, "b": GOOD})
    made.models["a"].errors = [WorkerError("It died.", code="x"), WorkerError("It died.", code="x")]
    made.models["b"].errors = [WorkerError("It died.", code="y")]
    for _ in range(3):
        made.route.ask(clips())
    made.recorder.flush()
    made.store.publish(VIEWS)
    with made.store.connect() as connection:
        service = connection.sql("SELECT model, place, clips, answered, passed_over FROM route_service ORDER BY place")
        assert service.fetchall() == [("a", 0, 3, 1, 2), ("b", 1, 3, 2, 0)]
        calls = "SELECT model, category, calls, tries_failed, recovered FROM recovery_success ORDER BY model"
        assert connection.sql(calls).fetchall() == [("a", "worker", 2, 2, 0), ("b", "worker", 1, 1, 1)]


POISON = {"*": "one two", "p": {"do": "raise", "code": "poison"}, "q": {"do": "raise"}, "r": {"do": "raise"}}


def test_one_bad_clip_costs_only_itself(bench: Any) -> None:
    """Its neighbours are answered, halves are one request for the breakers, and sent alone it blames no model."""
    made = bench(scripts={"a": POISON, "b": POISON})
    asked = clips(*"0123456789abcde")
    bad = AudioClip("p", np.ones(1600, np.float32), 16_000)
    for _ in range(4):
        served = made.route.ask([bad, *asked])
        assert [one.served_by for one in served] == ["", *["a"] * 15]
    for _ in range(4):
        (alone,) = made.route.ask([bad])
        assert [refused.code for refused in alone.refused] == ["poison", "poison"]
    assert {circuit.state for circuit in made.breakers.circuits()} == {"closed"}
    assert made.route.ask(clips("next"))[0].served_by == "a"


def test_different_clips_that_fail_blame_the_models(bench: Any) -> None:
    """Where both models fail with every clip it is not the clips; and a clip that was answered is a suspect no more."""
    made = bench(scripts={"a": POISON, "b": POISON})
    for value, name in enumerate("pqr"):
        made.route.ask([AudioClip(name, np.full(1600, value, np.float32), 16_000)])
    assert {circuit.state for circuit in made.breakers.circuits()} == {"open"}
    now = [0.0]
    suspects, (clip,) = Suspects(lambda: now[0]), clips()
    suspects.add(clip)
    assert suspects.all_known([clip])
    assert not suspects.all_known([clip, AudioClip("x", np.ones(8, np.float32), 16_000)])
    suspects.clear(clip)
    assert not suspects.all_known([clip])
    suspects.add(clip)
    now[0] += 3600
    assert not suspects.all_known([clip])


def test_odd_failures_are_failures_too(bench: Any) -> None:
    """A process id that is no number, half a character in a message, an exception that nobody foresaw."""
    made = bench(scripts={"a": GOOD, "b": GOOD})
    odd: Any = [WorkerError("half \ud800 a character", metadata={"pid": "n/a"}), ValueError("/home/ann/x is odd")]
    codes = []
    for error in odd:
        made.models["a"].errors = [error]
        (served,) = made.route.ask(clips())
        assert served.served_by == "b"
        codes.append(served.refused[0].code)
    assert codes == ["worker-crashed", "unforeseen"]
    rows = made.rows("attempts").sort("at").select("worker_pid", "message").rows()
    assert rows[0] == (0, "half \\ud800 a character")
    assert "ann" not in rows[1][1]
    made.recorder.add("attempts", [{"call": {"a set"}}])
    assert made.rows("attempts").height == 2


def test_a_worker_that_was_ended_between_calls_is_started_in_the_background(bench: Any) -> None:
    """The next request finds it warm."""
    made = bench(scripts={"a": GOOD, "b": GOOD})
    made.models["a"].runs = False
    assert made.route.ask(clips())[0].served_by == "a"
    until = time.monotonic() + 30
    while made.models["a"].starts < 2 and time.monotonic() < until:
        time.sleep(0.002)
    assert made.models["a"].starts == 2


def test_a_restart_takes_no_time_of_the_request(bench: Any) -> None:
    """The strategy ``restart`` ends the old process beside the next try."""
    made = bench(scripts={"a": GOOD})
    ending = threading.Event()
    first = made.models["a"]
    first.close = lambda: ending.wait(30) and None
    made.members["a"].worker  # noqa: B018 - it is made now
    made.models["a"] = Local("a", GOOD)
    made.members["a"].restart()
    assert made.route.ask(clips())[0].served_by == "a"
    assert made.models["a"].calls == 1
    ending.set()


def test_a_part_of_a_request_waits_for_a_back_off(tmp_path: Path) -> None:
    """The clips beside one that ended the process again and again are asked when it may be started again."""
    toy, waits = Local("a", GOOD), [True, False]
    start = toy.start

    def failing() -> Card:
        if waits.pop(0):
            raise WorkerError("It died.", metadata={"retry_after_seconds": 0.001})  # noqa: EM101, TRY003 - a test
        return start()

    toy.start = failing  # type: ignore[method-assign]
    member = Member("a", lambda: toy)
    assert member.process(clips(), Options(), 5.0, patient=True)[0].text == "one two"
    waits.append(True)
    with pytest.raises(WorkerError):
        member.process(clips(), Options(), 5.0)
    member.close()


def test_a_model_that_fails_with_every_clip_is_not_asked_about_each(bench: Any) -> None:
    """Three clips that fail one by one are enough; the others are not tried, and that is one failure."""
    made = bench(scripts={"a": DOWN, "b": GOOD})
    assert {one.served_by for one in made.route.ask(clips(*"0123456789abcdef"))} == {"b"}
    assert made.models["a"].calls == 8  # 16, 8, 4, 2, 1, 1, 2, 1
    assert made.states.circuit("a", "process_audio").failures == 1
    assert made.rows("attempts").height == 8
