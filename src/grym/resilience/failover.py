"""Answers from whoever can give one: a primary, and fallbacks for when it is down, slow or bad.

A route asks its models in order, each behind its breaker and under a deadline, all
within one budget. Clips whose answer is not accepted (confidence floor, expectation
suite) go on to the next model; the accepted ones stay. Who answered each clip, who
was asked before and why not, is a row of ``requests``; a change of who serves is an
event, and an alert with a cool-down. The primary is asked again as soon as its
breaker lets a probe through.

A failover never counts for the model that failed: :func:`own_answers` is what a
comparison keeps. Knows nothing about Prefect or suites. Times are seconds.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from grym._resilience_settings import Fallback
from grym.errors import (
    AudioError,
    Category,
    DeadlineError,
    ErrorRecord,
    GrymError,
    QualityError,
    UnavailableError,
    WorkerError,
)
from grym.models.interface import Answer, AudioClip, Card, Options
from grym.quality import Judgement, answers_frame
from grym.resilience.breaker import blames_model
from grym.resilience.recovery import Attempt, Recovery
from grym.resilience.suspects import MODELS, Suspects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from grym._resilience_settings import RecoverySettings, RouteSettings
    from grym.resilience.breaker import Breakers
    from grym.resilience.members import Member
    from grym.resilience.records import Alerts, Recorder

OPERATION: Final = "process_audio"
LEAST_SECONDS: Final = 0.01  # with less than that nobody is asked any more
# What another model would refuse as well.
FINAL: Final = frozenset({Category.AUDIO, Category.MANIFEST})
# So many clips that fail one by one while none is answered are enough to see that it is the model.
HOPELESS: Final = 3
NOT_ASKED: Final = "not_asked"
REVIVED: Final = frozenset({Category.WORKER, Category.DEADLINE, Category.RESOURCE})

Judge: TypeAlias = Callable[[str, "pd.DataFrame", str], Judgement]


@dataclass(frozen=True, slots=True)
class Refused:
    """A model that was asked, or passed over, before another one answered.

    Attributes:
        model: registered name.
        code: why it gave no answer that counts.
        seconds: what that took.
    """

    model: str
    code: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one clip.

    Attributes:
        answer: the answer; one with ``error`` if nobody gave an accepted one.
        served_by: registered name of the model that answered, empty if none did.
        place: its place in the route: 0 is the primary; -1 if none answered.
        refused: who came before, in order.
        lost_seconds: time until the answering model was asked.
        wall_seconds: time until the answer.
    """

    answer: Answer
    served_by: str
    place: int
    refused: tuple[Refused, ...]
    lost_seconds: float
    wall_seconds: float

    @property
    def failed_over(self) -> bool:
        """Whether another model than the primary answered."""
        return self.place > 0


def own_answers(answers: Sequence[Answer], card: Card) -> list[Answer]:
    """Answers of one model; those of any other become failures, because they say nothing about this one.

    Args:
        answers: what came back.
        card: the model whose answers count.
    """
    return [answer if _is_own(answer, card) else _not_its_own(answer, card) for answer in answers]


def _is_own(answer: Answer, card: Card) -> bool:
    return answer.model in {"", card.name} or answer.revision == card.revision


def _not_its_own(answer: Answer, card: Card) -> Answer:
    msg = f"{answer.model!r} answered instead of {card.name!r}; that counts as a failure of the latter."
    error = WorkerError(msg, code="failed-over", hint="See table requests for why it did not answer.")
    return Answer(answer.clip_id, None, rung=card.rung, model=card.name, revision=card.revision, error=error.record())


def _all_failed(answers: Sequence[Answer]) -> GrymError | None:
    """Why, if the model answered every clip with a failure of its own: for its breaker no better than raising it."""
    errors = [GrymError.from_record(answer.error) for answer in answers if answer.error is not None]
    return errors[0] if errors and len(errors) == len(answers) and all(map(blames_model, errors)) else None


def _verdict(found: Sequence[Answer | GrymError]) -> GrymError | None:
    """What the whole request was for the model's breaker: ``None`` if it answered, or refused, any clip."""
    if any(isinstance(one, Answer) and one.error is None for one in found):
        return None
    if (error := _all_failed([_answered(one) for one in found])) is not None:
        return error
    raised = (one for one in found if isinstance(one, GrymError) and not blames_model(one))
    return next(raised, None)


def _answered(found: Answer | GrymError) -> Answer:
    return Answer("", None, error=found.record()) if isinstance(found, GrymError) else found


def _pid(error: GrymError) -> int:
    """The process that failed, if the error says so in a way that can be read: adapters say anything."""
    pid = error.metadata.get("pid", 0)
    return pid if isinstance(pid, int) and 0 < pid < 1 << 31 else 0


@dataclass(slots=True)
class _Request:
    """One request on its way through the route."""

    id: str
    clips: Mapping[str, AudioClip]
    options: Options
    started: float
    until: float
    open: list[str]
    priority: int = 0
    served: dict[str, Served] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    last: dict[str, ErrorRecord] = field(default_factory=dict)
    unaccepted: dict[str, list[tuple[str, GrymError]]] = field(default_factory=dict)
    failed_by: dict[str, set[str]] = field(default_factory=dict)

    def refuse(self, model: str, errors: Mapping[str, GrymError], seconds: float) -> None:
        """Note why a model's answers for some clips are missing or not accepted."""
        self.last |= {clip_id: error.record() for clip_id, error in errors.items()}
        codes = sorted({error.code for error in errors.values()})
        self.refused.append(Refused(model, "+".join(codes), round(seconds, 4)))
        for clip_id, error in errors.items():
            # Of several clips that were not answered in time, most only waited for one.
            alone = len(self.clips) == 1 or error.category != Category.DEADLINE
            judged = NOT_ASKED not in error.metadata and error.category != Category.QUALITY
            if alone and judged and blames_model(error):
                self.failed_by.setdefault(clip_id, set()).add(model)


class Route:
    """A primary and its fallbacks.

    Args:
        settings: the route as grym.toml says.
        members: its models by registered name.
        breakers: of all models.
        recovery: what is tried with one model before the next one is asked.
        recorder: where the rows go.
        alerts: raises an alert for each failover.
        judge: evaluates the route's expectation suite on a frame.

    Example:
        ``with open_route(settings, "speech") as route: served = route.ask(clips)``
    """

    def __init__(
        self,
        settings: RouteSettings,
        members: Mapping[str, Member],
        *,
        breakers: Breakers,
        recovery: RecoverySettings,
        recorder: Recorder,
        alerts: Alerts,
        judge: Judge | None = None,
    ) -> None:
        self.settings = settings
        self._members, self._breakers, self._recovery = members, breakers, recovery
        self._recorder, self._alerts, self._judge = recorder, alerts, judge
        self._suspects = Suspects()
        primary = Fallback(model=settings.primary, deadline_seconds=settings.deadline_seconds)
        self._order = (primary, *settings.fallbacks)

    def ask(
        self, clips: Sequence[AudioClip], options: Options | None = None, *, request_id: str = "", priority: int = 0
    ) -> list[Served]:
        """Answer every clip, in order, by whichever model can. Never raises because models fail.

        Args:
            clips: the request; ids are distinct.
            options: options of the call.
            request_id: for the rows; default a new one.
            priority: where calls wait for a worker, higher ones go first and are sent away last.
        """
        started = time.monotonic()
        request = _Request(
            id=request_id or uuid.uuid4().hex,
            clips={clip.id: clip for clip in clips},
            options=options or Options(),
            started=started,
            until=started + self.settings.budget_seconds,
            open=list({clip.id: None for clip in clips}),
            priority=priority,
        )
        at = datetime.now(UTC)
        for place, entry in enumerate(self._order):
            if request.open and self._wanted(entry, request):
                self._ask_one(place, entry, request)
        for clip_id in request.open:
            request.served[clip_id] = self._nobody(clip_id, request)
            if len(request.failed_by.get(clip_id, ())) >= MODELS:
                self._suspects.add(request.clips[clip_id])
        served = [request.served[clip.id] for clip in clips]
        self._record(request, served, at)
        return served

    def _wanted(self, entry: Fallback, request: _Request) -> bool:
        if not entry.only_for:
            return True
        return any(
            request.last[clip_id].category in entry.only_for for clip_id in request.open if clip_id in request.last
        )

    def _ask_one(self, place: int, entry: Fallback, request: _Request) -> None:
        """Ask one model about the clips that are open; what it settles is closed."""
        model, asked = entry.model, time.monotonic()
        seconds = min(entry.deadline_seconds or float("inf"), request.until - asked)
        if seconds < LEAST_SECONDS:
            msg = f"No time was left to ask {model!r} within {self.settings.budget_seconds:g} s."
            hint = "Raise budget_seconds of the route in grym.toml, or lower the deadlines."
            spent: GrymError = DeadlineError(msg, code="budget-spent", hint=hint)
            request.last |= dict.fromkeys(request.open, spent.record())
            request.refused.append(Refused(model, spent.code, 0.0))
            return
        answers = self._call(entry, request, seconds)
        missing: dict[str, GrymError] = {}
        good: list[Answer] = []
        for clip_id, found in zip(list(request.open), answers, strict=True):
            answer = replace(_answered(found), clip_id=clip_id)
            if answer.error is not None and answer.error.category not in FINAL:
                missing[clip_id] = GrymError.from_record(answer.error)
            else:
                good.append(answer)
        missing |= (doubted := self._doubts(model, [a for a in good if a.error is None], request))
        now = time.monotonic()
        member = self._members[model]
        if any(error.category in REVIVED for error in missing.values()) or (good and not member.runs):
            member.revive()  # also one that was ended between calls, because it was full
        for answer in good:
            if answer.clip_id not in doubted:
                self._settle(answer, place, model, request, asked, now)
        if missing:
            request.refuse(model, missing, now - asked)
            for clip_id, error in doubted.items():
                request.unaccepted.setdefault(clip_id, []).append((model, error))

    def _settle(self, answer: Answer, place: int, model: str, request: _Request, asked: float, now: float) -> None:
        request.open.remove(answer.clip_id)
        ended = answer.error is not None  # no model could use this clip
        request.served[answer.clip_id] = Served(
            answer,
            "" if ended else model,
            -1 if ended else place,
            tuple(request.refused),
            asked - request.started,
            now - request.started,
        )
        if not ended:  # another model's answer was accepted where theirs was not, so it was not the clip
            self._suspects.clear(request.clips[answer.clip_id])
            for other, error in request.unaccepted.get(answer.clip_id, ()):
                self._breakers.blame(other, OPERATION, error)

    def _call(self, entry: Fallback, request: _Request, seconds: float) -> list[Answer | GrymError]:
        """One model's answers to the open clips, recovered as the strategies say, behind its breaker.

        The breaker counts the request once, however many tries and parts it took: a failure only if no clip was
        answered, and if it is not known of all of them that other models failed with them as well.
        """
        model, found = entry.model, list[Answer | GrymError]()

        def call() -> None:
            found.extend(self._recovered(entry, request, seconds))
            error = _verdict(found)
            if error is None:
                return
            if blames_model(error) and self._suspects.all_known(request.clips[clip_id] for clip_id in request.open):
                msg = "No model could answer this clip before."
                raise AudioError(msg, code="suspect-clip") from error
            raise error

        try:
            self._breakers.call(model, OPERATION, call, seconds=seconds)
        except GrymError as error:
            return found or [error] * len(request.open)
        return found

    def _recovered(self, entry: Fallback, request: _Request, seconds: float) -> list[Answer | GrymError]:
        """One model's answers to the open clips, tried again and in parts as the strategies say."""
        model, until = entry.model, time.monotonic() + seconds
        member = self._members[model]
        failed, answered = list[GrymError](), False  # clips that failed by themselves

        def ask(ids: Sequence[str]) -> list[Answer]:
            nonlocal answered
            if len(failed) >= HOPELESS and not answered:
                record = failed[-1].record()
                raise GrymError.from_record(replace(record, metadata={**record.metadata, NOT_ASKED: True}))
            left = until - time.monotonic()
            if left < LEAST_SECONDS:
                msg = f"{model!r} gave no answer within {seconds:.3g} s, in all its tries."
                raise DeadlineError(msg, retryable=False)
            clips = [request.clips[clip_id] for clip_id in ids]
            part = len(clips) < len(request.open)  # of a request that ended the process: it may be started again soon
            try:
                answers = member.process(clips, request.options, left, request.priority, patient=part)
            except GrymError as raised:
                failed.extend([raised] if len(clips) == 1 and blames_model(raised) else [])
                raise
            answered = answered or any(answer.error is None for answer in answers)
            if (error := _all_failed(answers)) is not None:
                self._tell(model, request, Attempt(1, len(clips), error, "give up"))  # each clip has its own error
            return answers

        last = entry is self._order[-1]
        settings = self._recovery
        if not last:  # while somebody else can answer, waiting for this one helps nobody
            settings = settings.model_copy(update={"attempts": min(self.settings.attempts, settings.attempts)})
        recovery = Recovery(
            ask=ask,
            settings=settings,
            restart=member.restart,
            tell=lambda attempt: self._tell(model, request, attempt),
            seconds=seconds,
        )
        return recovery.run(request.open)

    def _doubts(self, model: str, answers: Sequence[Answer], request: _Request) -> dict[str, GrymError]:
        """Why answers are not accepted, by clip."""
        doubts: dict[str, GrymError] = {}
        floor = self.settings.min_confidence
        for answer in answers:
            if floor and (answer.confidence is None or not answer.confidence >= floor):
                said = "none" if answer.confidence is None else f"{answer.confidence:.2f}"
                msg = f"{model!r} was not sure: confidence {said}, at least {floor:g} is asked for."
                doubts[answer.clip_id] = QualityError(msg, code="unsure", hint="Listen to the clip.")
        left = [answer for answer in answers if answer.clip_id not in doubts]
        if self.settings.suite and self._judge is not None and left:
            doubts |= self._held(left, request)
        return doubts

    def _held(self, answers: Sequence[Answer], request: _Request) -> dict[str, GrymError]:
        seconds = [request.clips[answer.clip_id].seconds for answer in answers]
        frame = answers_frame(self.settings.suite, answers, seconds)
        try:
            assert self._judge is not None  # noqa: S101 - the caller has just looked
            judgement = self._judge(self.settings.suite, frame, request.id)
            held = judgement.require().held_rows
        except GrymError as error:
            return {answer.clip_id: error for answer in answers}
        hint = "See expectations/suites for the rule and its reason."
        return {
            answers[row].clip_id: QualityError(f"The answer broke a rule: {broken.reason}", code=broken.rule, hint=hint)
            for row, broken in held.items()
        }

    def _nobody(self, clip_id: str, request: _Request) -> Served:
        names = ", ".join(self.settings.models)
        last = request.last.get(clip_id)
        why = f" Last: {last.message}" if last is not None else ""
        msg = f"No model of route {self.settings.name!r} gave an answer that counts ({names}).{why}"
        hint = last.suggestion if last is not None else ""
        error = UnavailableError(msg, code="all-failed", hint=hint, retryable=True)
        answer = Answer(clip_id, None, error=error.record())
        took = time.monotonic() - request.started
        return Served(answer, "", -1, tuple(request.refused), took, took)

    def _tell(self, model: str, request: _Request, attempt: Attempt) -> None:
        """A row for every try that failed, and for the one that went well after others."""
        error = attempt.error
        if isinstance(error, UnavailableError):  # it was not tried; the row of the request says so
            return
        if error is not None and NOT_ASKED in error.metadata:
            return
        known: dict[str, Any] = {"category": "", "code": "", "message": "", "retryable": False, "worker_pid": 0}
        if error is not None:
            known = {
                "category": str(error.category),
                "code": error.code,
                "message": error.message,
                "retryable": error.retryable,
                "worker_pid": _pid(error),
            }
        row = {
            **known,
            "arm": "",
            "call": f"{request.id}/{model}" + (f"/{attempt.path}" if attempt.path else ""),
            "attempt": attempt.attempt,
            "at": datetime.now(UTC),
            "action": attempt.action,
            "model": model,
            "operation": OPERATION,
            "delay_seconds": attempt.delay_seconds,
        }
        self._recorder.add("attempts", [row])

    def _record(self, request: _Request, served: Sequence[Served], at: datetime) -> None:
        rows = [self._row(request, one, at) for one in served]
        if rows:
            self._recorder.add("requests", rows)
        serving = sorted((one for one in served if one.served_by), key=lambda one: one.place)
        if serving:
            self._watch(serving[0])
            self._warn(serving[-1])

    def _row(self, request: _Request, one: Served, at: datetime) -> dict[str, object]:
        answer, problem = one.answer, one.answer.error
        return {
            "request_id": request.id,
            "clip_id": answer.clip_id,
            "route": self.settings.name,
            "operation": OPERATION,
            "at": at,
            "status": "ok" if problem is None else "failed",
            "primary": self.settings.primary,
            "served_by": one.served_by,
            "revision": answer.revision,
            "rung": answer.rung,
            "place": None if one.place < 0 else one.place,
            "failed_over": one.failed_over,
            "refused": json.dumps([[r.model, r.code, r.seconds] for r in one.refused]),
            "confidence": answer.confidence,
            "wall_seconds": one.wall_seconds,
            "lost_seconds": one.lost_seconds,
            "error_category": "" if problem is None else str(problem.category),
            "error_code": "" if problem is None else problem.code,
            "error_message": "" if problem is None else problem.message,
            "hint": "" if problem is None else problem.suggestion,
        }

    def _watch(self, one: Served) -> None:
        """An event when another model begins to serve than before."""
        name, states = self.settings.name, self._breakers.states
        before = states.note(f"serves/{name}")
        if one.served_by == (self.settings.primary if before is None else before[0]):
            return
        known = states.put_note(f"serves/{name}", one.served_by) or self.settings.primary
        if known != one.served_by:  # no other process was quicker
            states.add_event("failover", name, known, one.served_by, _why(one))

    def _warn(self, one: Served) -> None:
        """An alert when it is not the primary that answered."""
        if not one.failed_over:
            return
        name, primary = self.settings.name, self.settings.primary
        self._alerts.alert(
            "failover",
            name,
            f"Route {name!r} was answered by {one.served_by!r} instead of {primary!r} ({_why(one)}).",
            hint=f"python -m flows health {primary} says what is wrong with it.",
            cool_down=self.settings.cool_down_seconds,
        )


def _why(one: Served) -> str:
    return "+".join(dict.fromkeys(refused.code for refused in one.refused))


__all__ = ["Judge", "Refused", "Route", "Served", "own_answers"]
