"""Decodes files of strangers in processes of its own: a file that kills or hangs its decoder costs itself only.

A few children, each limited as grym.toml says and confined to its scratch folder,
decode many files each. Requests are sent ahead of the replies, so a file costs no
round trip; replies come in order, so the file that a child died of is known. A child
that dies is replaced; a file that two children died of, gave no answer to in time, or
had not memory enough for, is refused like any other bad clip. Knows nothing about
models. Times are seconds.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias

from grym.audio import Measured, decode, storable
from grym.errors import AudioError, GrymError, ResourceError, WorkerError
from grym.models.interface import AudioClip
from grym.parts import disk
from grym.worker import codec, outcome
from grym.worker.process import ChildProcess, TimeUp, measured_folder
from grym.worker.protocol import Message, Operation, encode
from grym.worker.watchdog import Guard

if TYPE_CHECKING:
    from types import TracebackType

    from grym.config import AudioLimits, WorkerLimits

AHEAD: Final = 8  # requests that are sent before their turn: small enough for any pipe
TRIES: Final = 2  # children that may fail with one file before it is blamed
CHILDREN: Final = 2
NAME: Final = "decoder"
HINT: Final = "Convert it with a tool that you trust, or leave it out."


class Span(Protocol):
    """A file, or a span of it: what a row of a manifest has."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def offset(self) -> float:
        """Where the clip starts, in seconds."""
        ...

    @property
    def duration(self) -> float | None:
        """Its length in seconds; ``None`` up to the end of the file."""
        ...


Decoded: TypeAlias = tuple[AudioClip, Measured]
DecodeAll: TypeAlias = Callable[["Sequence[Span]", "AudioLimits"], "Iterator[Decoded | GrymError]"]


def decode_here(items: Sequence[Span], limits: AudioLimits) -> Iterator[Decoded | GrymError]:
    """Decode in this process, for files that nobody strange has made."""
    for item in items:
        try:
            yield decode(item.path, limits, offset=item.offset, duration=item.duration)
        except GrymError as error:
            yield error


class Decoder:
    """Children that decode. Thread-safe: each call has a child of its own, others wait for one.

    Args:
        limits: what they may use: ``decode_seconds``, ``decode_memory_mb`` and the limits of any worker.
        scratch: folder for their logs; made if missing.
        children: how many there are at most; each is started when it is needed first.

    Attributes:
        deaths: children that died or were killed so far.
    """

    def __init__(self, limits: WorkerLimits, scratch: Path, *, children: int = CHILDREN) -> None:
        self.deaths = 0
        self._limits, self._scratch = limits, scratch
        self._places = threading.Semaphore(children)
        self._lock = threading.Lock()
        self._idle: list[ChildProcess] = []
        self._made = 0
        self._closed = False

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the children."""
        self.close()

    def __call__(self, items: Sequence[Span], limits: AudioLimits) -> Iterator[Decoded | GrymError]:
        """Decode every item, in order: the clip and its measurements, or why it cannot be used.

        Args:
            items: files or spans of files.
            limits: what a usable clip is.

        Yields:
            What :func:`grym.audio.decode` gives, or the error that it raises, or AudioError with code
            ``decoder-died``, ``decoder-timeout`` or ``decoder-memory``.

        Raises:
            WorkerError: no child can be started, or the decoder is closed.
        """
        with self._places:
            work = _Work(self, items, limits)
            try:
                yield from work.run()
            finally:
                work.finish()

    def decode(self, item: Span, limits: AudioLimits) -> Decoded:
        """Decode one file.

        Raises:
            AudioError: as :func:`grym.audio.decode`, or of the decoder itself, see above.
            WorkerError: no child can be started, or the decoder is closed.
        """
        (found,) = self([item], limits)
        if isinstance(found, GrymError):
            raise found
        return found

    def close(self) -> None:
        """End the children that are idle, and the others as soon as they are; safe to call twice."""
        self._closed = True
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def take(self) -> ChildProcess:
        """A child that has nothing to do, or a new one."""
        with self._lock:
            if self._closed:
                raise outcome.closed(NAME, "is closed")
            while self._idle:
                child = self._idle.pop()
                if not child.ended():
                    return child
                child.kill()
            self._made += 1
            name = f"decoder-{self._made}"
        return self._start(name)

    def give(self, child: ChildProcess) -> None:
        """Give a child back that has answered everything."""
        with self._lock:
            if not self._closed:
                self._idle.append(child)
                return
        child.kill()

    def _start(self, name: str) -> ChildProcess:
        limits = self._limits
        with disk("The decoder's folder"):
            self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        guard = Guard(memory_mb=limits.decode_memory_mb, processes=1)
        child = ChildProcess(self._scratch, self._scratch / f"{name}.log", 1, guard=guard, shared=False)
        own = {
            "memory_mb": limits.decode_memory_mb,
            "open_files": limits.open_files,
            "file_mb": limits.file_mb,
            "confine": limits.confine,
            "writable": [str(place.resolve()) for place in (self._scratch, *measured_folder())],
        }
        until = time.monotonic() + limits.start_seconds
        identity = _send(child, Operation.LIMIT, own, until)
        try:
            reply = child.receive(until)
            error = None if reply is None else outcome.read_status(reply, identity)
        except (TimeUp, GrymError) as failed:
            child.kill()
            raise _no_decoder("did not start in time" if isinstance(failed, TimeUp) else failed.message) from failed
        if reply is None or error is not None:
            said = child.tail() if error is None else error.message
            child.kill()
            raise _no_decoder(said)
        return child


@dataclass(slots=True)
class _Asked:
    item: Span
    identity: str = ""
    tries: int = 0


class _Work:
    """One sequence of files on its way through one child after the other."""

    def __init__(self, decoder: Decoder, items: Sequence[Span], limits: AudioLimits) -> None:
        self._decoder = decoder
        self._limits = limits.model_dump(mode="json")
        self._seconds = decoder._limits.decode_seconds  # noqa: SLF001 - one part in two classes
        self._open = deque(_Asked(item) for item in items)
        self._sent: deque[_Asked] = deque()
        self._child: ChildProcess | None = None

    def run(self) -> Iterator[Decoded | GrymError]:
        while self._open or self._sent:
            if self._child is None:
                self._child = self._decoder.take()
            self._send(self._child)
            found = self._next(self._child)
            if found is not None:
                yield found

    def finish(self) -> None:
        """Give the child back; one that still has something to answer is ended."""
        child, self._child = self._child, None
        if child is not None and self._sent:
            child.kill()
        elif child is not None:
            self._decoder.give(child)

    def _send(self, child: ChildProcess) -> None:
        """Send requests ahead; after a death one at a time, until the file that is suspected has been answered."""
        ahead = 1 if self._open and self._open[0].tries else AHEAD
        until = time.monotonic() + self._seconds
        while self._open and len(self._sent) < ahead and not (self._sent and self._sent[0].tries):
            asked = self._open.popleft()
            item = asked.item
            data = {"path": str(item.path), "offset": item.offset, "duration": item.duration, "limits": self._limits}
            asked.identity = _send(child, Operation.DECODE, data, until)
            self._sent.append(asked)

    def _next(self, child: ChildProcess) -> Decoded | GrymError | None:
        """What came of the first file that is waited for; ``None`` if another child is to try it."""
        asked = self._sent[0]
        try:
            reply = child.receive(time.monotonic() + self._seconds)
            if reply is not None:
                found = _read(reply, asked)
                self._sent.popleft()
                return found
        except TimeUp:  # or somebody has stopped the child
            code, what = "timeout", f"was not decoded within {self._seconds:g} s"
        except ResourceError as error:  # or the child was large already
            code, what = "memory", f"takes too much memory to decode. {error.message.rstrip('.')}"
            if error.code != "out-of-memory":  # it started processes
                code, what = "died", f"made its decoder do what no decoder does ({error.code})"
        except WorkerError as error:  # what came is no reply: the decoder is not what it was
            code, what = "died", f"ends its decoder ({error.message.rstrip('.')})"
        else:
            child.wait(self._seconds)
            code, what = "died", "ends its decoder (its process ended)"
        asked.tries += 1
        if asked.tries < TRIES:
            self._lose()
            return None
        return self._refuse(asked, code, what)

    def _refuse(self, asked: _Asked, code: str, what: str) -> GrymError:
        self._sent.popleft()
        self._lose()
        msg = f"{storable(Path(asked.item.path).name)} {what}."
        return AudioError(msg, code=f"decoder-{code}", hint=HINT)

    def _lose(self) -> None:
        """End the child; what it has not answered goes to the next one."""
        self._open.extendleft(reversed(self._sent))
        self._sent.clear()
        child, self._child = self._child, None
        if child is not None:
            self._decoder.deaths += 1
            child.kill()


def _send(child: ChildProcess, operation: Operation, data: dict[str, Any], until: float) -> str:
    identity = uuid.uuid4().hex
    with contextlib.suppress(TimeUp):  # then there is no reply either
        child.send(encode(Message({"id": identity, "operation": operation, "data": data})), until)
    return identity


def _read(reply: Message, asked: _Asked) -> Decoded | GrymError:
    error = outcome.read_status(reply, asked.identity)
    if isinstance(error, ResourceError):
        name = storable(Path(asked.item.path).name)
        return AudioError(f"{name} takes too much memory to decode.", code="decoder-memory", hint=HINT)
    if error is not None:
        return error
    result = outcome.result(reply)
    try:
        facts = result["measured"]
        measured = Measured(
            source_rate=int(facts["source_rate"]),
            source_channels=int(facts["source_channels"]),
            seconds=codec.number(facts["seconds"]),
            rms_dbfs=codec.number(facts["rms_dbfs"]),
            peak_dbfs=codec.number(facts["peak_dbfs"]),
            clipped_fraction=codec.number(facts["clipped_fraction"]),
            silent_fraction=codec.number(facts["silent_fraction"]),
        )
        clip = AudioClip(str(result["clip_id"]), reply.frames[result["frame"]], int(result["rate"]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as broken:
        msg = "The decoder answered in a form nobody knows."
        raise WorkerError(msg, code="garbled-reply") from broken
    return clip, measured


def _no_decoder(why: str) -> WorkerError:
    msg = f"No process that decodes could be started: {why.rstrip('.')}."
    return WorkerError(msg, code="no-decoder", hint="Check memory, processes and the log in the home's logs folder.")
