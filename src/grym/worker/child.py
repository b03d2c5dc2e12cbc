"""The child process: reads requests from one pipe, answers on another, ends with a documented code.

Standard output belongs to the protocol, so it is taken away from libraries first:
what they print goes to standard error. Knows nothing about models (see
:mod:`grym.worker.session`) nor about the client: any program may talk to it, see
``docs/worker-protocol.md``. Deadlines are seconds.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import resource
import signal
import sys
import threading
import time
from dataclasses import replace
from typing import Final

from grym.errors import ModelError, WorkerError
from grym.worker.protocol import Exit, Message, Operation, ReadInto, Write, encode, read_message
from grym.worker.redact import redact
from grym.worker.session import Session, failure

PARENT_CHECK_SECONDS: Final = 0.5


def main() -> int:
    """Run a worker on this process's own pipes; returns the exit code."""
    if sys.argv[1:]:
        print("grym.worker takes no arguments: the first message names the model.", file=sys.stderr)  # noqa: T201
        return 2
    source, sink = _take_pipes()
    faulthandler.enable()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold audio
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    return serve(lambda view: os.readv(source, [view]), lambda view: _write_all(sink, view))


def serve(readinto: ReadInto, write: Write) -> Exit:
    """Answer requests until shutdown, the end of the input, or something that cannot be answered."""
    session = Session()
    try:
        ending = None
        while ending is None:
            ending = _step(session, readinto, write)
    except OSError:  # what a model raises never gets here: this is a pipe
        return Exit.OUTPUT_CLOSED
    finally:
        session.close()
    return ending


def _step(session: Session, readinto: ReadInto, write: Write) -> Exit | None:
    try:
        request = read_message(readinto)
    except WorkerError as error:
        _send(write, failure("", error))
        return Exit.BAD_PROTOCOL
    if request is None:
        return Exit.INPUT_CLOSED
    _arm(request.header.get("deadline"))
    reply = session.answer(request)
    _arm(None)
    return _ending(request, _send(write, reply))


def _send(write: Write, reply: Message) -> Message:
    """Send a reply; one that the protocol cannot carry becomes an error of the model. Returns what was sent."""
    try:
        buffers = encode(reply)
    except WorkerError as error:
        msg = f"The model's answer cannot be sent: {redact(error.message)}"
        broken = ModelError(msg, code="garbled-answer", hint="Mend the adapter; see grym.models.interface.")
        told = failure(reply.header["id"], broken)
        reply = replace(told, header={**told.header, "usage": reply.header.get("usage")})
        buffers = encode(reply)
    for buffer in buffers:
        write(buffer)
    return reply


def _ending(request: Message, reply: Message) -> Exit | None:
    operation, succeeded = request.header.get("operation"), reply.header["status"] == "success"
    if operation == Operation.SHUTDOWN and succeeded:
        return Exit.SHUTDOWN
    code = "" if succeeded else reply.header["error"]["details"]["code"]
    if operation == Operation.LOAD and code not in {"", "already-loaded"}:
        return Exit.LOAD_FAILED
    return None


def _take_pipes() -> tuple[int, int]:
    """Keep the protocol for ourselves: a library's print goes to standard error, its reads find nothing."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return source, sink


def _arm(deadline: object) -> None:
    """Let the kernel end this process after ``deadline`` seconds, even inside a C call that holds the lock."""
    seconds = float(deadline) if isinstance(deadline, int | float) and 0 < deadline < threading.TIMEOUT_MAX else 0.0
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _watch_parent(parent: int) -> None:
    """End with the parent, even in the middle of a call; as leader of a group, with the whole group."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(Exit.PARENT_DIED)


def _write_all(sink: int, view: memoryview) -> None:
    at = 0
    while at < len(view):
        at += os.write(sink, view[at:])
