"""Models that break in every way a child process can, for tests: put this folder into ``[plugins] paths``.

What happens is the option ``script`` of the fake model for the deeds that it knows;
:class:`Faulty` does the others, always or as often as a file says.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from grym.models.fake import FakeModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grym.config import ModelSpec
    from grym.models.fake import FakeOptions
    from grym.models.interface import Answer, AudioClip, Options


def protocol_descriptor() -> int:
    """The pipe that the worker writes its answers to."""
    for link in Path("/proc/self/fd").iterdir():
        fd = int(link.name)
        try:
            writes = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
            if fd > 2 and writes and stat.S_ISFIFO(os.fstat(fd).st_mode):
                return fd
        except OSError:
            pass
    raise LookupError


def _garbage(_fd: int) -> None:
    os.write(_fd, b"\xff" * 64)
    time.sleep(3600)


def _wrong_id(fd: int) -> None:
    header = json.dumps({"id": "other", "status": "success"}).encode()
    os.write(fd, struct.pack(">I", len(header)) + header)
    time.sleep(3600)


def _cut_header(fd: int) -> None:
    os.write(fd, struct.pack(">I", 400) + b'{"id": ')
    os.kill(os.getpid(), signal.SIGKILL)


def _cut_frame(fd: int) -> None:
    """A header that promises a frame of which half comes, and then nothing."""
    header = json.dumps({"id": "x", "status": "success", "frames": [64]}).encode()
    os.write(fd, struct.pack(">I", len(header)) + header + bytes(32))
    time.sleep(3600)


def _closed(fd: int) -> None:
    os.close(fd)
    time.sleep(3600)


def _stop(_fd: int) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _abort(_fd: int) -> None:
    os.abort()


def _too_much(_fd: int) -> None:
    """Ask for more memory than any machine has: the allocation is refused, as under a limit."""
    np.ones(2**46, dtype=np.float32)


def _crash(_fd: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(_fd: int) -> None:
    raise SystemExit(3)


def _hang(_fd: int) -> None:
    time.sleep(3600)


_KEPT: list[Any] = []


def _leak(_fd: int) -> None:
    """Keep 40 MB for ever."""
    _KEPT.append(np.ones(40_000_000, np.uint8))


def _bug(_fd: int) -> None:
    msg = "cannot read '/home/somebody/secret folder/weights.bin'"
    raise ValueError(msg)


DEEDS = {
    "crash": _crash,
    "exit": _exit,
    "hang": _hang,
    "bug": _bug,
    "garbage": _garbage,
    "wrong-reply": _wrong_id,
    "cut-header": _cut_header,
    "cut-frame": _cut_frame,
    "closed-pipe": _closed,
    "stop": _stop,
    "abort": _abort,
    "too-much-memory": _too_much,
    "leak": _leak,
}


SPOILT: dict[str, Callable[[list[Answer]], list[Answer]]] = {
    "nan-features": lambda answers: [replace(answer, features=np.full(8, np.nan, np.float32)) for answer in answers],
    "nan-confidence": lambda answers: [replace(answer, confidence=float("nan")) for answer in answers],
    "answer-for-nobody": lambda answers: [replace(answer, clip_id="nobody") for answer in answers],
    "too-few-answers": lambda answers: answers[1:],
    "junk-answer": lambda answers: cast("list[Answer]", [{"clip": answer.clip_id} for answer in answers]),
}


class Faulty(FakeModel):
    """Does what the key ``deed`` of its script says before or with its answers.

    Further keys: ``times``, so often, counted in the file ``state``; ``least``, only for so many clips at once. They
    do not take part in its revision.
    """

    def __init__(self, spec: ModelSpec, options: FakeOptions) -> None:
        script: dict[str, Any] = json.loads(options.script or "{}")
        self._deed, self._times = str(script.pop("deed", "")), int(script.pop("times", 10**9))
        self._least = int(script.pop("least", 0))
        super().__init__(spec, replace(options, script=json.dumps(script)))

    def process(self, batch: Sequence[AudioClip], options: Options) -> list[Answer]:
        """Break, or answer."""
        if not self._deed or len(batch) < self._least or not self._again():
            return super().process(batch, options)
        if self._deed in SPOILT:
            return SPOILT[self._deed](super().process(batch, options))
        if self._deed == "slow":
            time.sleep(1.0)
        else:
            DEEDS[self._deed](protocol_descriptor())
        return super().process(batch, options)

    def _again(self) -> bool:
        if not self._options.state:
            return True
        state = Path(self._options.state)
        done = state.stat().st_size if state.exists() else 0
        with state.open("ab") as stream:
            stream.write(b".")
        return done < self._times
