"""The bytes between a worker and its client: a length, a JSON header, raw frames.

    4 bytes     length of the header in bytes, unsigned, big-endian
    header      one JSON object, UTF-8; its key ``frames`` lists the byte size of each frame
    frames      little-endian float32, one after the other, without padding

Knows nothing about models, processes or clips; standard library and numpy only.
Sizes are bytes. ``docs/worker-protocol.md`` tells the same to other languages.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from grym.errors import WorkerError

Json = dict[str, Any]
Frame = npt.NDArray[np.float32]
ReadInto = Callable[[memoryview], int]
Write = Callable[[memoryview], None]

LENGTH: Final = struct.Struct(">I")
SAMPLE: Final = np.dtype("<f4")
MAX_HEADER_BYTES: Final = 8 * 2**20
MAX_FRAME_BYTES: Final = 2**30
MAX_MESSAGE_BYTES: Final = 2 * MAX_FRAME_BYTES
MAX_FRAMES: Final = 4096


class Operation(StrEnum):
    """What a worker can be asked; ``limit`` comes first if at all, then ``load``. ``decode`` needs no model."""

    LIMIT = "limit"
    DECODE = "decode"
    LOAD = "load"
    CARD = "card"
    PING = "ping"
    PROCESS_AUDIO = "process_audio"
    EXTRACT_FEATURES = "extract_features"
    ANALYZE = "analyze"
    SHUTDOWN = "shutdown"


class Exit(IntEnum):
    """Exit codes of a worker; 1 and 2 are Python's own (uncaught exception, wrong arguments)."""

    SHUTDOWN = 0
    INPUT_CLOSED = 10
    BAD_PROTOCOL = 11
    LOAD_FAILED = 12
    PARENT_DIED = 13
    OUTPUT_CLOSED = 14


@dataclass(frozen=True, slots=True)
class Message:
    """One request or reply: the header without ``frames``, and the frames as float32 ``shape = (samples,)``."""

    header: Json
    frames: tuple[Frame, ...] = ()


def encode(message: Message) -> list[memoryview]:
    """The message as buffers to write one after the other; frames are not copied.

    Raises:
        WorkerError: ``oversized``, ``garbled-frame``, or ``garbled-header`` for what JSON cannot hold (NaN, objects).
    """
    try:
        frames = [np.ascontiguousarray(frame, dtype=SAMPLE).reshape(-1) for frame in message.frames]
    except (TypeError, ValueError) as error:
        _refuse("garbled-frame", f"A frame is not an array of numbers: {error}.")
    sizes = [frame.nbytes for frame in frames]
    _check_sizes(sizes)
    try:
        text = json.dumps({**message.header, "frames": sizes}, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        _refuse("garbled-header", f"The header cannot be written as JSON: {error}.")
    header = text.encode("ascii")
    if len(header) > MAX_HEADER_BYTES:
        _refuse("oversized", f"The header has {len(header)} bytes; {MAX_HEADER_BYTES} are allowed.")
    start = memoryview(LENGTH.pack(len(header)) + header)
    return [start, *(frame.view(np.uint8).data for frame in frames)]


def write_message(write: Write, message: Message) -> None:
    """Write the whole message; ``write`` takes all bytes it is given.

    Raises:
        WorkerError: as :func:`encode`; nothing was written then.
    """
    for buffer in encode(message):
        write(buffer)


def read_message(readinto: ReadInto) -> Message | None:
    """Read one message.

    Args:
        readinto: fills at least one byte of a buffer and says how many; 0 at the end of the stream.

    Returns:
        The message, or ``None`` if the stream ended before its first byte.

    Raises:
        WorkerError: ``truncated``, ``oversized``, ``garbled-header`` or ``garbled-frame``. The stream is of no
            further use: where the next message starts is not known.
    """
    prefix = bytearray(LENGTH.size)
    first = readinto(memoryview(prefix))
    if first == 0:
        return None
    _fill(readinto, memoryview(prefix)[first:], "length")
    (length,) = LENGTH.unpack(prefix)
    if length > MAX_HEADER_BYTES:
        _refuse("oversized", f"The header claims {length} bytes; {MAX_HEADER_BYTES} are allowed.")
    raw = bytearray(length)
    _fill(readinto, memoryview(raw), "header")
    header = _parse(bytes(raw))
    sizes = _take_sizes(header)
    return Message(header, tuple(_read_frames(readinto, sizes)))


def _read_frames(readinto: ReadInto, sizes: Sequence[int]) -> Iterator[Frame]:
    for number, size in enumerate(sizes):
        frame = np.empty(size // SAMPLE.itemsize, dtype=SAMPLE)
        _fill(readinto, frame.view(np.uint8).data, f"frame {number}")
        yield frame.astype(np.float32, copy=False)


def _fill(readinto: ReadInto, view: memoryview, what: str) -> None:
    at = 0
    while at < len(view):
        got = readinto(view[at:])
        if got == 0:
            _refuse("truncated", f"The stream ended {len(view) - at} bytes before the end of the {what}.")
        at += got


def _parse(raw: bytes) -> Json:
    try:
        header = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse("garbled-header", f"The header is not JSON: {type(error).__name__}.")
    if not isinstance(header, dict):
        _refuse("garbled-header", f"The header is a JSON {type(header).__name__}, not an object.")
    return header


def _take_sizes(header: Json) -> list[int]:
    sizes = header.pop("frames", [])
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        _refuse("garbled-frame", "The key 'frames' is not a list of byte sizes.")
    if any(size % SAMPLE.itemsize for size in sizes):
        _refuse("garbled-frame", f"A frame's size is not a multiple of {SAMPLE.itemsize} bytes.")
    _check_sizes(sizes)
    return sizes


def _check_sizes(sizes: Sequence[int]) -> None:
    if len(sizes) > MAX_FRAMES:
        _refuse("oversized", f"The message has {len(sizes)} frames; {MAX_FRAMES} are allowed.")
    if max(sizes, default=0) > MAX_FRAME_BYTES:
        _refuse("oversized", f"A frame has {max(sizes)} bytes; {MAX_FRAME_BYTES} are allowed.")
    if sum(sizes) > MAX_MESSAGE_BYTES:
        _refuse("oversized", f"The frames have {sum(sizes)} bytes together; {MAX_MESSAGE_BYTES} are allowed.")


def _plain(value: object) -> object:
    """Numpy's scalars as Python's, so that adapters need not care."""
    if isinstance(value, np.generic):
        return value.item()
    msg = f"{type(value).__name__} is not JSON"
    raise TypeError(msg)


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _refuse(code: str, message: str) -> NoReturn:
    hint = "Send less in one message." if code == "oversized" else "See docs/worker-protocol.md for the form."
    raise WorkerError(message, code=code, hint=hint, retryable=code == "truncated")
