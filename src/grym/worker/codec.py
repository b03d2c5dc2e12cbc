"""Clips, options, answers, cards and errors as what the protocol carries: JSON and float32 frames.

Both ends use it, so each ``pack`` has its ``unpack``. What comes from the other
process is not trusted: ``unpack`` checks it and raises a typed error. Knows
nothing about pipes or processes. Times are seconds, audio is float32 mono
``shape = (samples,)``.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import math
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from grym.errors import AudioError, ConfigError, ErrorRecord, GrymError, ModelError, WorkerError
from grym.models.interface import Answer, AudioClip, Card, Options, Samples, Segment
from grym.models.registry import build_options
from grym.worker.protocol import SAMPLE, Frame, Json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.worker.shared import Arena
    from grym.worker.shared import Mapping as Mapped

_KINDS: Final[Mapping[str, Any]] = {"str": str, "tuple[str, ...]": str, "int": int, "float": (int, float)}
SOURCES: Final = ("frame", "values", "base64", "shared")


def pack_clips(clips: Sequence[AudioClip], arena: Arena | None = None) -> tuple[list[Json], tuple[Samples, ...]]:
    """Clips as ``data.audio`` and the frames it refers to; without frames if ``arena`` takes the samples."""
    samples = tuple(clip.samples for clip in clips)
    places = None if arena is None else arena.put(samples)
    source = "frame" if places is None else "shared"
    items = [
        {"id": clip.id, "rate": clip.rate, "samples": int(clip.samples.size), source: place}
        for clip, place in zip(clips, range(len(clips)) if places is None else places, strict=True)
    ]
    return items, samples if places is None else ()


def unpack_clips(items: object, frames: Sequence[Frame], shared: Mapped | None = None) -> list[AudioClip]:
    """Clips of a request; their samples are read-only and, in shared memory, valid until it is answered.

    Raises:
        ConfigError: ``bad-request``: a clip is not described as the protocol says.
        AudioError: ``not-finite``: a clip holds NaN or infinity.
    """
    if not isinstance(items, list):
        _bad_request("data.audio is not a list")
    return [_unpack_clip(item, frames, shared) for item in items]


def _unpack_clip(item: object, frames: Sequence[Frame], shared: Mapped | None) -> AudioClip:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        _bad_request("a clip is not an object with an id")
    name = item["id"]
    rate = item.get("rate")
    if type(rate) is not int or rate <= 0:
        _bad_request(f"clip {name!r} has no rate in Hz")
    given = [source for source in SOURCES if source in item]
    if len(given) != 1:
        _bad_request(f"clip {name!r} needs exactly one of {', '.join(SOURCES)}")
    if given[0] == "shared":
        samples = _unpack_shared(name, item, shared)
    else:
        samples = _unpack_samples(name, given[0], item[given[0]], frames)
    if item.get("samples", samples.size) != samples.size:
        _bad_request(f"clip {name!r} claims {item['samples']} samples and has {samples.size}")
    if not np.isfinite(samples).all():
        msg = f"Clip {name!r} holds NaN or infinity."
        raise AudioError(msg, code="not-finite", hint="Decode it again, or leave it out.")
    samples.flags.writeable = False  # whatever way they came
    return AudioClip(name, samples, rate)


def _unpack_samples(name: str, source: str, value: object, frames: Sequence[Frame]) -> Samples:
    try:
        if source == "frame" and type(value) is int and 0 <= value < len(frames):
            return frames[value]
        if source == "values" and isinstance(value, list):
            return _unpack_values(value)
        if source == "base64" and isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), dtype=SAMPLE).astype(np.float32)
    except (binascii.Error, ValueError, TypeError, OverflowError):
        _bad_request(f"clip {name!r} has unreadable {source!r}")
    return _bad_request(f"clip {name!r} has wrong {source!r}")


def _unpack_shared(name: str, item: Json, shared: Mapped | None) -> Samples:
    place, size = item["shared"], item.get("samples")
    if shared is None or type(place) is not int or type(size) is not int:
        _bad_request(f"clip {name!r} has wrong 'shared' or 'samples', or no shared memory was accepted")
    try:
        return shared.take(place, size)
    except ValueError:
        return _bad_request(f"clip {name!r} lies outside the shared memory")


def _unpack_values(values: list[Any]) -> Samples:
    if not all(type(value) in {int, float} for value in values):
        raise TypeError
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float64).astype(np.float32)


def unpack_options(values: object) -> Options:
    """Options of a request; those not given keep their defaults.

    Raises:
        ConfigError: an unknown or wrong option; the message names the right ones.
    """
    if not isinstance(values, dict):
        _bad_request("data.options is not an object")
    return build_options(Options, values, "the request")


def pack_answers(answers: Sequence[Answer]) -> tuple[list[Json], tuple[Frame, ...]]:
    """Answers as JSON, and their feature vectors as frames.

    Raises:
        ModelError: ``garbled-answer``: what the model gave is not a list of answers.
    """
    if not isinstance(answers, list | tuple) or not all(isinstance(answer, Answer) for answer in answers):
        garbled("something that is not a list of Answers")
    items: list[Json] = []
    frames: list[Frame] = []
    for answer in answers:
        item = {f.name: getattr(answer, f.name) for f in dataclasses.fields(answer)}
        item["segments"] = [dataclasses.asdict(segment) for segment in answer.segments]
        item["error"] = answer.error and {**dataclasses.asdict(answer.error)}
        if answer.features is not None:
            item["features"] = len(frames)
            frames.append(answer.features)
        items.append(item)
    return items, tuple(frames)


def unpack_answers(items: object, frames: Sequence[Frame], clips: Sequence[AudioClip]) -> list[Answer]:
    """Answers of a reply, one for each clip, in order.

    Raises:
        ModelError: ``garbled-answer``: wrong number, wrong ids, a confidence outside [0, 1], wrong types.
    """
    if not isinstance(items, list) or len(items) != len(clips):
        garbled(f"{len(items) if isinstance(items, list) else 'no'} answers to {len(clips)} clips")
    return [_unpack_answer(item, frames, clip.id) for item, clip in zip(items, clips, strict=True)]


def _unpack_answer(item: object, frames: Sequence[Frame], clip_id: str) -> Answer:
    if not isinstance(item, dict) or item.get("clip_id") != clip_id:
        garbled(f"an answer that is not for clip {clip_id!r}")
    text, error = item.get("text"), item.get("error")
    if (error is None) != isinstance(text, str):
        garbled(f"neither text nor error, or both, for clip {clip_id!r}")
    confidence = item.get("confidence")
    try:
        return Answer(
            clip_id=clip_id,
            text=_text(text) if error is None else None,
            confidence=None if confidence is None else number(confidence, 0.0, 1.0),
            segments=tuple(_unpack_segment(segment) for segment in item.get("segments", ())),
            tokens=int(number(item.get("tokens", 0), 0.0)),
            seconds=number(item.get("seconds", 0.0), 0.0),
            rung=_text(item.get("rung", "")),
            model=_text(item.get("model", "")),
            revision=_text(item.get("revision", "")),
            features=None if item.get("features") is None else _finite(frames[_place(item["features"])]),
            error=None if error is None else unpack_error(error).record(),
            failure=_text(item.get("failure", "")),
            scores={_text(label): number(score, 0.0, 1.0) for label, score in item.get("scores", {}).items()},
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as broken:
        garbled(f"a wrong value for clip {clip_id!r}: {broken}")


def _text(value: object) -> str:
    """``value`` as a text that can be stored: half a character (a lone surrogate) becomes an escape."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _place(value: object) -> int:
    """The place of a frame: lists would take -1 for the last one."""
    if type(value) is not int or value < 0:
        msg = f"{value!r} is no frame"
        raise ValueError(msg)
    return value


def _unpack_segment(item: Mapping[str, Any]) -> Segment:
    start = number(item["start"])
    return Segment(start, number(item["end"], start), _text(item["text"]), number(item["confidence"], 0.0, 1.0))


def unpack_matrix(result: Mapping[str, Any], frames: Sequence[Frame], rows: int) -> Frame:
    """Feature vectors of a reply, float32 ``shape = (rows, dim)``.

    Raises:
        ModelError: ``garbled-answer``: wrong shape, NaN or infinity.
    """
    shape = result.get("shape")
    try:
        matrix = _finite(frames[_place(result["frame"])]).reshape(shape)
    except (ValueError, TypeError, KeyError, IndexError) as broken:
        garbled(f"broken feature vectors: {broken}")
    if matrix.ndim != 2 or len(matrix) != rows:  # noqa: PLR2004 - a matrix has two dimensions
        garbled(f"feature vectors of shape {matrix.shape} for {rows} clips")
    return matrix


def unpack_measures(items: object, rows: int) -> list[dict[str, float]]:
    """Signal measurements of a reply, one mapping for each clip.

    Raises:
        ModelError: ``garbled-answer``: wrong number, or not numbers.
    """
    if not isinstance(items, list) or len(items) != rows:
        garbled(f"measurements that are not one for each of {rows} clips")
    try:
        return [{_text(name): number(value) for name, value in item.items()} for item in items]
    except (ValueError, TypeError, AttributeError) as broken:
        garbled(f"broken measurements: {broken}")


def unpack_card(item: object) -> Card:
    """The card of a reply.

    Raises:
        ModelError: ``garbled-answer``: not a card.
    """
    if not isinstance(item, dict) or isinstance(item.get("tasks"), str) or isinstance(item.get("languages"), str):
        garbled("no card")
    try:
        card = Card(**{**item, "tasks": tuple(item["tasks"]), "languages": tuple(item.get("languages", ()))})
        _check_card(card)
    except (TypeError, KeyError, ValueError) as broken:
        garbled(f"a broken card: {broken}")
    return card


def _check_card(card: Card) -> None:
    """Refuse a card whose fields are not of the types that :class:`Card` says."""
    for one in dataclasses.fields(Card):
        value = getattr(card, one.name)
        kinds = _KINDS.get(str(one.type))
        if kinds is None:
            continue
        items = value if isinstance(value, tuple) else (value,)
        wrong = any(not isinstance(item, kinds) or isinstance(item, bool) for item in items)
        wrong = wrong or any(isinstance(item, str) and item != _text(item) for item in items)
        if wrong or any(isinstance(item, int | float) and not 0 <= item < math.inf for item in items):
            msg = f"its {one.name} is {value!r}"
            raise ValueError(msg)
    if not isinstance(card.details, dict):
        msg = "its details are no object"
        raise ValueError(msg)  # noqa: TRY004 - a wrong value, as the caller sees it


def pack_error(error: GrymError) -> Json:
    """An error as ``{message, type, details}``; ``details`` has the fields of an ErrorRecord."""
    return {"message": error.message, "type": type(error).__name__, "details": dataclasses.asdict(error.record())}


def unpack_error(details: object) -> GrymError:
    """The typed error that ``details`` describes.

    Raises:
        WorkerError: ``garbled-reply``: it does not describe one.
    """
    try:
        record = ErrorRecord(**details)  # type: ignore[arg-type]  # anything else is a TypeError
        texts = (record.category, record.code, record.message, record.hint)
        if all(isinstance(text, str) for text in texts) and isinstance(record.metadata, dict):
            metadata = {
                _text(key): _text(value) if isinstance(value, str) else value for key, value in record.metadata.items()
            }
            record = dataclasses.replace(
                record,
                code=_text(record.code),
                message=_text(record.message),
                hint=_text(record.hint),
                metadata=metadata,
            )
            return GrymError.from_record(record)
    except TypeError:
        pass
    msg = "The worker reported an error in a form nobody knows."
    raise WorkerError(msg, code="garbled-reply", hint="See docs/worker-protocol.md for the form.")


def number(value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a finite float in [low, high].

    Raises:
        ValueError: it is not one.
    """
    try:
        found = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        found = math.inf
    if not math.isfinite(found) or not low <= found <= high:
        msg = f"{value!r} is not a number in [{low:g}, {high:g}]"
        raise ValueError(msg)
    return found


def garbled(what: str) -> NoReturn:
    """Refuse what a model said.

    Raises:
        ModelError: always, with code ``garbled-answer``.
    """
    msg = f"The model gave {what}."
    raise ModelError(msg, code="garbled-answer", hint="Mend the adapter; see grym.models.interface.")


def _finite(vector: Frame) -> Frame:
    if not np.isfinite(vector).all():
        msg = "feature vectors with NaN or infinity"
        raise ValueError(msg)
    return vector


def _bad_request(what: str) -> NoReturn:
    msg = f"The request cannot be used: {what}."
    raise ConfigError(msg, code="bad-request", hint="See docs/worker-protocol.md for the form.")
