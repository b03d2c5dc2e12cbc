"""The one model of a worker process and what can be asked of it.

Turns a request into a reply; whatever the model raises becomes a typed error
whose message is safe to show. Knows nothing about pipes. Times are seconds,
memory is MB (10^6 bytes).
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, get_args

import numpy as np
from pydantic import ValidationError

from grym.config import AudioLimits, ModelSpec
from grym.errors import ConfigError, GrymError, ModelError, ResourceError
from grym.models import memory
from grym.models.interface import AudioClip, Level, Model
from grym.models.registry import load_model
from grym.worker import codec
from grym.worker.limits import MB, Limits
from grym.worker.peaks import Peaks, resident_mb
from grym.worker.protocol import Frame, Json, Message, Operation
from grym.worker.redact import redact
from grym.worker.shared import Mapping

if TYPE_CHECKING:
    from collections.abc import Callable

MESSAGE_CHARACTERS: Final = 600
GROWN: Final = 1.05  # since it last gave memory back: then a search for cyclic garbage may be worth its time
OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "cannot allocate memory")
_log = logging.getLogger("grym.worker")

Reply = tuple[Any, tuple[Frame, ...]]


@dataclass(slots=True)
class Session:
    """Answers requests with one model.

    Attributes:
        model: the model, once ``load`` has succeeded.
        shared: memory that the client writes audio to, if ``load`` offered some.
        compute_seconds: time spent inside the model during the current request.
        limits: what this process may use, once ``limit`` has said so.
        peaks: high-water marks of memory.
    """

    model: Model | None = None
    shared: Mapping | None = field(default=None, init=False)
    compute_seconds: float = field(default=0.0, init=False)
    limits: Limits | None = field(default=None, init=False)
    peaks: Peaks = field(default_factory=Peaks, init=False)
    _settled_mb: float = field(default=0.0, init=False)

    def answer(self, request: Message) -> Message:
        """Do what a request asks; whatever goes wrong becomes an error reply.

        Process exits (``SystemExit``) and signals are not caught: the client sees the child die.
        """
        identity = request.header.get("id")
        wall, cpu = time.perf_counter(), time.process_time()
        self.compute_seconds = 0.0
        self.peaks.begin()
        try:
            if self.limits is not None and request.header.get("operation") != Operation.LOAD:
                self.limits.begin()  # loading has its deadline; how long importing takes is no matter of the call
            result, frames = self._dispatch(request, identity)
            reply = Message({"id": identity, "status": "success", "result": result}, frames)
        except Exception as error:  # noqa: BLE001 - errors never cross the border as bare exceptions
            _log.warning("A request failed.", exc_info=True)
            reply = failure(identity, told := typed(error))
            if told.code == "out-of-memory":
                memory.release()
        so_far, this_call = self.peaks.end()
        self._give_back()
        usage = {
            "seconds": time.perf_counter() - wall,
            "compute_seconds": self.compute_seconds,
            "cpu_seconds": time.process_time() - cpu,
            "peak_rss_mb": so_far,
            "call_peak_mb": this_call,
            "gpu_peak_mb": memory.gpu_peak_bytes(reset=True) / MB,
            "pid": os.getpid(),
        }
        return Message({**reply.header, "usage": usage}, reply.frames)

    def close(self) -> None:
        """Release the model; what it raises is only logged, because the process ends anyway."""
        self.peaks.close()
        if self.model is not None:
            try:
                self.model.close()
            except Exception:  # noqa: BLE001 - adapters raise anything
                _log.exception("The model could not be closed.")

    def _give_back(self) -> None:
        """Let the system have what the C library keeps for later, if this process has become large.

        Otherwise whoever looks from outside would take it for a leak.
        """
        if self.limits is None or not self.limits.release_mb or (held := resident_mb()) <= self.limits.release_mb:
            return
        if held > GROWN * self._settled_mb:
            memory.release()
        else:
            memory.trim()
        self._settled_mb = resident_mb()

    def _dispatch(self, request: Message, identity: object) -> Reply:
        name, data = request.header.get("operation"), request.header.get("data", {})
        if not isinstance(identity, str) or not isinstance(data, dict):
            _refuse("bad-request", "A request needs an id (text) and data (an object).")
        operations: dict[object, Callable[[Json, tuple[Frame, ...]], Reply]] = {
            Operation.LIMIT: self._limit,
            Operation.DECODE: self._decode,
            Operation.LOAD: self._load,
            Operation.CARD: self._card,
            Operation.PING: self._ping,
            Operation.PROCESS_AUDIO: self._process,
            Operation.EXTRACT_FEATURES: self._features,
            Operation.ANALYZE: self._analyze,
            Operation.SHUTDOWN: lambda _data, _frames: ({}, ()),
        }
        if not isinstance(name, str) or name not in operations:
            _refuse("unknown-operation", f"Unknown operation {name!r}.", f"Right are: {', '.join(Operation)}.")
        return operations[name](data, request.frames)

    def _limit(self, data: Json, _frames: tuple[Frame, ...]) -> Reply:
        if self.limits is not None or self.model is not None:
            hint = "Send 'limit' once, and before 'load'."
            _refuse("already-limited", "This worker has its limits already.", hint)
        try:
            limits = Limits.read(data)
        except ValueError as error:
            _refuse("bad-request", f"The limits cannot be used: {error}.")
        try:
            kept = limits.apply()
        except OSError as error:
            msg = f"The limits cannot be kept: {error.strerror}."
            raise ResourceError(msg, code="no-limits", hint="Set confine = false under [worker].") from error
        self.limits = limits
        return {"kept": kept}, ()

    def _decode(self, data: Json, _frames: tuple[Frame, ...]) -> Reply:
        from grym.audio import decode

        path, offset, duration = data.get("path"), data.get("offset", 0.0), data.get("duration")
        if not isinstance(path, str) or not _is_number(offset) or not (duration is None or _is_number(duration)):
            _refuse("bad-request", "data needs a path; offset and duration are seconds.")
        try:
            limits = AudioLimits.model_validate(data.get("limits", {}))
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            _refuse("bad-request", f"data.limits cannot be used: look at {wrong}.")
        clip, measured = decode(Path(path), limits, offset=offset, duration=duration)
        facts = {one.name: getattr(measured, one.name) for one in fields(measured)}
        return {"clip_id": clip.id, "rate": clip.rate, "measured": facts, "frame": 0}, (clip.samples,)

    def _load(self, data: Json, _frames: tuple[Frame, ...]) -> Reply:
        if self.model is not None:
            hint = "Start another worker for another model."
            _refuse("already-loaded", "This worker has loaded its model already.", hint)
        _add_plugins(data.get("plugins", []))
        try:
            spec = ModelSpec.model_validate(data.get("spec"))
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, e["loc"])) or "spec" for e in error.errors())
            _refuse("bad-spec", f"data.spec is not a model: look at {wrong}.", "It needs name, adapter and options.")
        started = time.perf_counter()
        model = self._timed(lambda: load_model(spec))
        card = self._timed(lambda: model.card)
        self.model = model
        self.shared = Mapping.accept(data.get("shared"))
        told = {"card": asdict(card), "load_seconds": time.perf_counter() - started}
        return told if self.shared is None else {**told, "shared": True}, ()

    def _card(self, _data: Json, _frames: tuple[Frame, ...]) -> Reply:
        return asdict(self._loaded().card), ()

    def _ping(self, _data: Json, _frames: tuple[Frame, ...]) -> Reply:
        return {**self._timed(self._loaded().ping), "pid": os.getpid()}, ()

    def _process(self, data: Json, frames: tuple[Frame, ...]) -> Reply:
        model, clips = self._loaded(), self._clips(data, frames)
        options = codec.unpack_options(data.get("options", {}))
        answers = self._timed(lambda: model.process(clips, options)) if clips else []
        items, vectors = codec.pack_answers(answers)
        return {"answers": items}, vectors

    def _features(self, data: Json, frames: tuple[Frame, ...]) -> Reply:
        model, clips = self._loaded(), self._clips(data, frames)
        empty: Frame = np.zeros((0, model.card.feature_dim), dtype=np.float32)
        matrix = np.asarray(self._timed(lambda: model.features(clips)) if clips else empty, dtype=np.float32)
        return {"shape": list(matrix.shape), "frame": 0}, (matrix,)

    def _analyze(self, data: Json, frames: tuple[Frame, ...]) -> Reply:
        model, clips = self._loaded(), self._clips(data, frames)
        level = data.get("level", "basic")
        if level not in get_args(Level):
            _refuse("wrong-option", f"Unknown level {level!r}.", f"Right are: {', '.join(get_args(Level))}.")
        return {"measurements": self._timed(lambda: model.analyze(clips, level)) if clips else []}, ()

    def _clips(self, data: Json, frames: tuple[Frame, ...]) -> list[AudioClip]:
        return codec.unpack_clips(data.get("audio"), frames, self.shared)

    def _loaded(self) -> Model:
        if self.model is None:
            msg = "No model is loaded."
            raise ConfigError(msg, code="not-loaded", hint="Send the operation 'load' first.")
        return self.model

    def _timed(self, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        try:
            return call()
        finally:
            self.compute_seconds += time.perf_counter() - started


def typed(error: Exception) -> GrymError:
    """Any exception as a typed error whose message is safe to show."""
    if isinstance(error, GrymError):
        record = error.record()
        message, hint = redact(record.message, MESSAGE_CHARACTERS), redact(record.hint, MESSAGE_CHARACTERS)
        metadata = {str(key): _scalar(value) for key, value in record.metadata.items()}
        return GrymError.from_record(replace(record, message=message, hint=hint, metadata=metadata))
    kind, words = type(error).__name__, redact(str(error))
    memory = isinstance(error, MemoryError) or kind == "OutOfMemoryError"
    if memory or any(sign in words.lower() for sign in OUT_OF_MEMORY):
        msg = f"The model ran out of memory ({kind})."
        hint = "Use a smaller batch, shorter windows or a smaller precision."
        return ResourceError(msg, code="out-of-memory", hint=hint, metadata={"exception": kind})
    msg = f"The model raised {kind}{': ' if words else ''}{words.rstrip('.')}."
    hint = "The traceback is in the worker's log."
    return ModelError(msg, code="model-raised", hint=hint, metadata={"exception": kind})


def failure(identity: object, error: GrymError) -> Message:
    """An error reply."""
    return Message({"id": identity, "status": "error", "error": codec.pack_error(error)})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scalar(value: object) -> str | int | float | bool:
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return redact(str(value))


def _add_plugins(folders: object) -> None:
    """Put plugin folders last on the path, so that a plugin cannot shadow an installed package."""
    if not isinstance(folders, list):
        _refuse("bad-request", "data.plugins is not a list of folders.")
    for folder in folders:
        if not isinstance(folder, str) or not Path(folder).is_dir():
            _refuse("no-plugin-folder", f"{folder!r} is not a folder.", "Mend [plugins] paths in grym.toml.")
        if folder not in sys.path:
            sys.path.append(folder)


def _refuse(code: str, message: str, hint: str = "See docs/worker-protocol.md for the form.") -> NoReturn:
    raise ConfigError(message, code=code, hint=hint)
