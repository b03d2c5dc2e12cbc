"""Whether models answer a known clip rightly and in time: checked on demand or at an interval, kept as rows.

Each check asks a fresh worker, or a warm one that is given. What came out is a row
of ``health``, the present state of the model for all processes of the home until
the interval has passed, an event when it differs from the last one, and an alert
when the model is not healthy. A healthy model's open breaker lets the next request
through; an unhealthy one's counts a failure. Times are seconds.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grym.audio import decode
from grym.compare.normalize import get_normalizer
from grym.compare.score import score
from grym.errors import ConfigError, GrymError, QualityError
from grym.models.interface import Options
from grym.scratch import scratch_folder
from grym.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grym.config import Settings
    from grym.models.interface import AudioClip
    from grym.resilience.breaker import Breakers
    from grym.resilience.members import Asked
    from grym.resilience.records import Alerts, Recorder
    from grym.resilience.state import Circuit

OPERATION: Final = "process_audio"
CHECKOUT: Final = Path(__file__).resolve().parents[3]
POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Health:
    """What one check found; the columns of table ``health``."""

    check_id: str
    model: str
    revision: str
    at: str
    healthy: bool
    code: str
    message: str
    hint: str
    expected: str
    heard: str
    wer: float | None
    load_seconds: float
    wall_seconds: float
    deadline_seconds: float
    asked_by: str


@dataclass(frozen=True, slots=True)
class Known:
    """A clip whose words are known, and how an answer is judged.

    Attributes:
        clip: decoded audio.
        text: what it says.
        match: ``wer``, ``contains`` or ``any``.
        max_wer: word error rate up to which an answer is right, as a fraction.
        deadline_seconds: time for the answer.
    """

    clip: AudioClip
    text: str
    match: str
    max_wer: float
    deadline_seconds: float


def known_clip(settings: Settings, model: str) -> Known:
    """The known clip of a model: its own, else that of ``[health]``, else the bundled one.

    Raises:
        ConfigError: ``no-known-clip``: the file is not there or is no audio.
    """
    own, common = settings.model(model).health, settings.health
    path = own.clip or common.clip
    found = next((base / path for base in (settings.root, CHECKOUT) if (base / path).is_file()), None)
    hint = "Name an audio file and its text under [health] in grym.toml."
    if found is None:
        msg = f"The known clip {path.name} is not there."
        raise ConfigError(msg, code="no-known-clip", hint=hint)
    try:
        clip, _ = decode(found, settings.audio)
    except GrymError as error:
        msg = f"The known clip {path.name} cannot be used: {error.message}"
        raise ConfigError(msg, code="no-known-clip", hint=hint) from error
    return Known(
        clip,
        common.text if own.text is None else own.text,
        own.match,
        common.max_wer,
        own.deadline_seconds or common.deadline_seconds,
    )


class HealthChecks:
    """Checks models and remembers what came out.

    Args:
        settings: grym.toml.
        breakers: of all models; their state is what the checks are cached in.
        recorder: where the rows go.
        alerts: raises an alert for a model that is not healthy.
    """

    def __init__(self, settings: Settings, breakers: Breakers, recorder: Recorder, alerts: Alerts) -> None:
        self._settings, self._breakers, self._states = settings, breakers, breakers.states
        self._recorder, self._alerts = recorder, alerts

    def models(self) -> list[str]:
        """Registered models that are checked when all are."""
        return [name for name, spec in self._settings.models.items() if spec.health.enabled]

    def circuits(self) -> list[Circuit]:
        """Every breaker that ever counted a failure."""
        return self._breakers.circuits()

    def latest(self, model: str, *, within: float = float("inf")) -> Health | None:
        """The last check of a model by any process, if it is not older than ``within`` seconds."""
        noted = self._states.note(f"health/{model}")
        if noted is None or not 0 <= time.time() - noted[1] < within:
            return None
        return Health(**json.loads(noted[0]))

    def current(self, model: str, *, asked_by: str = "live") -> Health:
        """The present state of a model: a check within the interval, else a new one, made by one process only.

        Raises:
            ConfigError: there is no such model, or no known clip.
        """
        interval = self._settings.health.interval_seconds
        seconds = self._settings.worker.start_seconds + self._deadline(model)
        until = time.monotonic() + seconds
        while (found := self.latest(model, within=interval)) is None:
            owner = self._states.take_lease(f"health/{model}", seconds)
            if owner or time.monotonic() > until:
                try:
                    return self.check(model, asked_by=asked_by)
                finally:
                    self._states.give_lease(f"health/{model}", owner)
            time.sleep(POLL_SECONDS)
        return found

    def check(self, model: str, *, asked_by: str = "command", worker: Asked | None = None) -> Health:
        """Ask a model about its known clip now.

        Args:
            model: registered name.
            asked_by: ``watch``, ``command`` or ``live``, for the row.
            worker: a warm one; default one of its own, which is closed again.

        Raises:
            ConfigError: there is no such model, or no known clip.
            StorageError: no scratch folder can be made.
        """
        known = known_clip(self._settings, model)
        if worker is not None:
            found = examine(model, worker, known, asked_by)
        else:
            with scratch_folder(self._settings.home, "health") as scratch:
                own = Worker(
                    self._settings.model(model),
                    self._settings.worker,
                    scratch,
                    plugins=self._settings.plugins.paths,
                    cache=self._settings.home / "cache",
                )
                try:
                    found = examine(model, own, known, asked_by)
                finally:
                    own.close()
        self._remember(found)
        return found

    def _deadline(self, model: str) -> float:
        return self._settings.model(model).health.deadline_seconds or self._settings.health.deadline_seconds

    def _remember(self, found: Health) -> None:
        self._recorder.add("health", [asdict(found)])
        before = self._states.put_note(f"health/{found.model}", json.dumps(asdict(found)))
        was = True if before is None else bool(json.loads(before)["healthy"])
        names = {True: "healthy", False: "unhealthy"}
        if was is not found.healthy:
            self._states.add_event("health", found.model, names[was], names[found.healthy], found.code)
        if found.healthy:
            self._breakers.allow_probe(found.model)
            return
        self._breakers.blame(found.model, OPERATION, QualityError(found.message, code=found.code))
        self._alerts.alert(
            "health",
            found.model,
            f"{found.model!r} is not healthy: {found.message}",
            hint=found.hint,
            cool_down=self._settings.health.interval_seconds,
        )


def examine(model: str, worker: Asked, known: Known, asked_by: str) -> Health:
    """Ask a worker about a known clip; nothing is stored. Whatever goes wrong is part of the result."""
    at, started = datetime.now(UTC), time.monotonic()
    revision, heard, wer, load, wall = "", "", None, 0.0, 0.0
    problem: GrymError | None = None
    try:
        revision = worker.start().revision
        load = time.monotonic() - started
        asked = time.monotonic()
        try:
            answers, _ = worker.process([known.clip], Options(), deadline=known.deadline_seconds)
        finally:
            wall = time.monotonic() - asked
        if answers[0].error is not None:
            raise GrymError.from_record(answers[0].error)
        heard = answers[0].text or ""
        wer = _error_rate(known.text, heard)
        problem = _wrong(known, heard, wer)
    except GrymError as error:
        problem = error
    return Health(
        check_id=uuid.uuid4().hex,
        model=model,
        revision=revision,
        at=at.isoformat(),
        healthy=problem is None,
        code="" if problem is None else problem.code,
        message="" if problem is None else problem.message,
        hint="" if problem is None else problem.suggestion,
        expected=known.text,
        heard=heard,
        wer=wer,
        load_seconds=load,
        wall_seconds=wall,
        deadline_seconds=known.deadline_seconds,
        asked_by=asked_by,
    )


def _error_rate(text: str, heard: str) -> float | None:
    found = score(text, heard, get_normalizer("basic"))
    return found.errors / found.reference_words if found.reference_words else None


def _wrong(known: Known, heard: str, wer: float | None) -> QualityError | None:
    """Why an answer is not right, or ``None``."""
    right = {
        "any": True,
        "contains": known.text.casefold() in heard.casefold(),
        "wer": not heard if wer is None else wer <= known.max_wer,
    }[known.match]
    if right:
        return None
    msg = f"It heard {heard!r} where {known.text!r} is said."
    hint = "Check its weights and options in grym.toml, and compare it with another model."
    return QualityError(msg, code="wrong-answer", hint=hint)


def table(checks: Sequence[Health]) -> list[dict[str, str]]:
    """Checks as lines for people: model, state, what it said, seconds."""
    return [
        {
            "model": found.model,
            "state": "healthy" if found.healthy else f"not healthy: {found.code}",
            "heard": found.heard,
            "load": f"{found.load_seconds:.2f} s",
            "answer": f"{1000 * found.wall_seconds:.0f} ms",
            "checked": found.at[:19].replace("T", " "),
            "what to do": found.hint,
        }
        for found in checks
    ]
