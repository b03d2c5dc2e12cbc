"""Broken inputs for three doors: the worker protocol, the manifest parser, the audio decoder.

Each :class:`Door` makes the n-th input of a seed from valid ones, always the same
bytes for the same number, and hands it to the code behind the door. What comes
back is ``ok`` or the code of a typed error; anything else is a finding, and so is
an answer that breaks what the door promises (a path outside the dataset, samples
that are no numbers). Nothing here is taken from outside: the valid inputs are made
when they are needed.
"""

from __future__ import annotations

import io
import json
import math
import random
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import soundfile

from grym.audio import decode
from grym.config import AudioLimits, ModelSpec
from grym.corpus.manifest import read_manifest
from grym.errors import GrymError
from grym.models.fake import FakeModel, FakeOptions
from grym.models.interface import Answer, AudioClip
from grym.worker import codec, outcome
from grym.worker.protocol import Message, encode, read_message
from grym.worker.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

RATE: Final = 16_000
NUMBERS: Final = (0, 1, 2, 3, 4, 7, 8, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 10**30)
VALUES: Final[tuple[Any, ...]] = (
    None, True, False, -1, 0.5, 1e308, -0.0, "", "x", "\x00", "../..", [], {}, [[]], {"": ""}, *NUMBERS, "\ud800"
)  # fmt: skip
TOKENS: Final = (
    b"../", b"/etc/passwd", b"-rf", b"--help", b"\x00", b'"', b"'", b",", b"\n", b"\r", b"nan", b"inf", b"1e999", b"-1",
    b"\xff\xfe", b"\xed\xa0\x80", b"{", b"}", b"[" * 200, b'{"a":', b"=1+1", b"~", b"\\", b"a" * 300, "\u202e".encode(),
    b"NaN", b"Infinity", b"1_000", b"0x10", b"\xef\xbb\xbf",
)  # fmt: skip


@dataclass(frozen=True)
class Door:
    """Where input from outside comes in.

    Attributes:
        seeds: makes valid inputs.
        spoil: changes a valid input, given all of them.
        enter: hands bytes to the code; ``ok`` or the code of a typed error. The folder is for its files.
    """

    seeds: Callable[[], Sequence[bytes]]
    spoil: Callable[[random.Random, Sequence[bytes]], bytes]
    enter: Callable[[bytes, Path], str]

    def make(self, seed: str, number: int) -> bytes:
        """The n-th input."""
        return self.spoil(random.Random(f"{seed}/{number}"), _kept(self.seeds))  # noqa: S311 - not for secrets


@cache
def _kept(seeds: Callable[[], Sequence[bytes]]) -> Sequence[bytes]:
    return seeds()


def _flip(rng: random.Random, changed: bytearray, at: int, _others: Sequence[bytes]) -> None:
    changed[at] ^= 1 << rng.randrange(8)


def _number(rng: random.Random, changed: bytearray, at: int, _others: Sequence[bytes]) -> None:
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice(NUMBERS) % 256**width
    changed[at : at + width] = value.to_bytes(width, rng.choice(("big", "little")))


def _token(rng: random.Random, changed: bytearray, at: int, _others: Sequence[bytes]) -> None:
    changed[at:at] = rng.choice(TOKENS)


def _drop(rng: random.Random, changed: bytearray, at: int, _others: Sequence[bytes]) -> None:
    del changed[at : at + rng.choice((1, 2, 4, 16, 64))]


def _repeat(rng: random.Random, changed: bytearray, at: int, _others: Sequence[bytes]) -> None:
    changed[at:at] = changed[at : at + rng.randrange(1, 64)] * rng.choice((1, 2, 16))


def _cut(_rng: random.Random, changed: bytearray, at: int, _others: Sequence[bytes]) -> None:
    del changed[at:]


def _splice(rng: random.Random, changed: bytearray, at: int, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    changed[at:] = other[rng.randrange(len(other)) :]


def _noise(rng: random.Random, changed: bytearray, at: int, _others: Sequence[bytes]) -> None:
    changed[at : at + 8] = rng.randbytes(rng.choice((1, 8)))


WAYS: Final = (_flip, _number, _token, _drop, _repeat, _cut, _splice, _noise)


def bend(rng: random.Random, data: bytes, others: Sequence[bytes], head: int = 64) -> bytes:
    """Change some bytes: flips, numbers, tokens, cuts, repeats and pieces of other inputs, mostly near the front."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            break
        front = rng.random() < 0.6  # noqa: PLR2004 - mostly
        at = rng.randrange(min(len(changed), head) if front else len(changed))
        rng.choice(WAYS)(rng, changed, at, others)
    return bytes(changed)


# --- the worker protocol ---------------------------------------------------------------------------------------------


def _clip(name: str = "c") -> AudioClip:
    return AudioClip(name, np.sin(np.arange(160, dtype=np.float32) / 9), RATE)


@cache
def _model() -> FakeModel:
    return FakeModel(ModelSpec(name="m", adapter="fake"), FakeOptions(script='{"*": "one two"}'))


def _wire(message: Message) -> bytes:
    return b"".join(bytes(part) for part in encode(message))


def _protocol_seeds() -> list[bytes]:
    audio, frames = codec.pack_clips([_clip("a"), _clip("b")])
    values = [{"id": "v", "rate": RATE, "samples": 3, "values": [0.1, -0.5, 1]}]
    coded = [{"id": "b", "rate": RATE, "base64": "AAAAAAAAgD8="}]
    shared = [{"id": "s", "rate": RATE, "samples": 4, "shared": 64}]
    asked: list[Message] = [
        Message({"id": "1", "operation": "load", "data": {"spec": {"name": "m", "adapter": "fake"}}}),
        Message({"id": "2", "operation": "process_audio", "data": {"audio": audio, "options": {}}}, frames),
        Message({"id": "3", "operation": "extract_features", "deadline": 2.0, "data": {"audio": audio}}, frames),
        Message({"id": "4", "operation": "analyze", "data": {"audio": values, "level": "advanced"}}),
        Message({"id": "5", "operation": "process_audio", "data": {"audio": coded, "options": {"segments": True}}}),
        Message({"id": "6", "operation": "process_audio", "data": {"audio": shared}}),
        *(Message({"id": name, "operation": name}) for name in ("card", "ping", "shutdown")),
    ]
    session = Session(_model())
    replies = [session.answer(message) for message in asked]
    return [_wire(message) for message in (*asked, *replies)]


def _spoil_message(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    data = rng.choice(seeds)
    if rng.random() < 0.3:  # noqa: PLR2004 - as bytes; the others with a right length before it
        return bend(rng, data, seeds)
    length = int.from_bytes(data[:4], "big")
    header = _graft(rng, json.loads(data[4 : 4 + length]), depth=4)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(4, "big") + text + data[4 + length :]


def _graft(rng: random.Random, value: Any, depth: int) -> Any:
    """A JSON value with one node replaced, removed, doubled or added."""
    if depth and isinstance(value, dict) and value and rng.random() < 0.8:  # noqa: PLR2004 - mostly further down
        key = rng.choice(list(value))
        chosen = rng.randrange(8)
        if chosen == 0:
            return {k: v for k, v in value.items() if k != key}
        if chosen == 1:
            return {**value, rng.choice(("x", "", "frames", "id", "data")): rng.choice(VALUES)}
        return {**value, key: _graft(rng, value[key], depth - 1)}
    if depth and isinstance(value, list) and value and rng.random() < 0.8:  # noqa: PLR2004
        at = rng.randrange(len(value))
        return [*value[:at], _graft(rng, value[at], depth - 1), *value[at:]][: rng.choice((at + 1, len(value), 99))]
    return rng.choice(VALUES)


def _reader(data: bytes) -> Callable[[memoryview], int]:
    stream = io.BytesIO(data)
    return stream.readinto


def _enter_protocol(data: bytes, _folder: Path) -> str:
    """Both ends read it: as a request to a worker, and as the reply to one."""
    try:
        message = read_message(_reader(data))
    except GrymError as error:
        return error.code
    if message is None:
        return "end"
    reply = Session(_model()).answer(message)
    written = _code(lambda: encode(reply))
    as_reply = _code(lambda: _as_reply(message))
    if "operation" not in message.header:
        return as_reply or "ok"
    return written or ("ok" if reply.header["status"] == "success" else str(reply.header["error"]["details"]["code"]))


def _as_reply(message: Message) -> None:
    error = outcome.read_status(message, str(message.header.get("id")))
    if error is not None:
        raise error
    outcome.usage(message, 1.0)
    told = outcome.result(message)
    if "answers" in told:
        for answer in codec.unpack_answers(told["answers"], message.frames, [_clip("a"), _clip("b")]):
            _check_answer(answer)
    if "shape" in told:
        codec.unpack_matrix(told, message.frames, 2)
    if "measurements" in told:
        codec.unpack_measures(told["measurements"], 1)
    if "card" in told:
        codec.unpack_card(told["card"])


def _check_answer(answer: Answer) -> None:
    right = answer.confidence is None or 0 <= answer.confidence <= 1
    if not right or (answer.features is not None and not np.isfinite(answer.features).all()):
        msg = "an answer that is no answer was let through"
        raise AssertionError(msg)


def _code(call: Callable[[], object]) -> str:
    try:
        call()
    except GrymError as error:
        return error.code
    return ""


# --- the manifest parser ---------------------------------------------------------------------------------------------


def _manifest_seeds() -> list[bytes]:
    rows = [
        {
            "audio_filepath": f"audio/{n}.wav",
            "text": f"one {n}",
            "duration": 1.5,
            "offset": 0,
            "id": f"c{n}",
            "room": "A",
        }
        for n in range(3)
    ]
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    table = b"path,text,speaker,duration,room\n" + b"".join(
        f'a{n}.wav,"he said ""{n}""",eve,{n}.25,kitchen\n'.encode() for n in range(3)
    )
    return [b"J" + lines, b"C" + table, b"C\xef\xbb\xbf" + table.replace(b"\n", b"\r\n"), b"J" + lines + b"\n{}\n"]


def _spoil_manifest(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    data = rng.choice(seeds)
    return data[:1] + bend(rng, data[1:], [seed[1:] for seed in seeds], head=120)


def _enter_manifest(data: bytes, folder: Path) -> str:
    path = folder / ("manifest.csv" if data[:1] == b"C" else "manifest.jsonl")
    path.write_bytes(data[1:])
    try:
        found = read_manifest(path)
    except GrymError as error:
        return error.code
    root = folder.resolve()
    for entry in found.entries:
        inside = entry.path.is_relative_to(root) and ".." not in entry.path.parts
        if not inside or not math.isfinite(entry.offset) or not entry.text:
            msg = f"an entry that is none was let through: {entry}"
            raise AssertionError(msg)
    return found.rejected[0].error.code if found.rejected else "ok"


# --- the audio decoder -----------------------------------------------------------------------------------------------


def _audio_seeds() -> list[bytes]:
    rng = np.random.default_rng(5)
    time = np.arange(int(0.12 * RATE)) / RATE
    mono = (0.4 * np.sin(2 * np.pi * 300 * time) + rng.normal(scale=0.02, size=time.size)).astype(np.float32)
    stereo = np.stack([mono, -0.5 * mono], axis=1)
    made = []
    for kind, coding in (
        ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_24"),
        ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"),
        ("AU", "ULAW"), ("W64", "PCM_16"), ("CAF", "ALAC_16"), ("RF64", "PCM_16"),
    ):  # fmt: skip
        for samples in (mono, stereo):
            stream = io.BytesIO()
            soundfile.write(stream, samples, RATE, format=kind, subtype=coding)
            made.append(stream.getvalue())
    return made


def _spoil_audio(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    return bend(rng, rng.choice(seeds), seeds, head=128)


def _enter_audio(data: bytes, folder: Path) -> str:
    path = folder / "input"
    path.write_bytes(data)
    try:
        clip, _ = decode(path, AudioLimits())
    except GrymError as error:
        return error.code
    longest = AudioLimits().max_seconds * AudioLimits().rate
    if clip.samples.dtype != np.float32 or clip.samples.ndim != 1 or not 0 < clip.samples.size <= longest + 1:
        msg = f"audio that is none was let through: {clip.samples.dtype}, {clip.samples.shape}"
        raise AssertionError(msg)
    if not np.isfinite(clip.samples).all():
        msg = "samples that are no numbers were let through"
        raise AssertionError(msg)
    return "ok"


DOORS: Final = {
    "protocol": Door(_protocol_seeds, _spoil_message, _enter_protocol),
    "manifest": Door(_manifest_seeds, _spoil_manifest, _enter_manifest),
    "audio": Door(_audio_seeds, _spoil_audio, _enter_audio),
}
