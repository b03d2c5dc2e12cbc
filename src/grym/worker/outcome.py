"""What came of one call: what it took, or the typed error that tells why there is no answer.

Knows nothing about processes; names them. Times are seconds, memory is MB (10^6 bytes).
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from grym.errors import DeadlineError, GrymError, WorkerError
from grym.worker import codec
from grym.worker.protocol import Message, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

Facts = dict[str, str | int | float | bool]
LOG_HINT: Final = "Read the worker's log in the home's logs folder."
MEMORY_HINT: Final = "If the system killed it for memory, use a smaller batch."
FORM_HINT: Final = "See docs/worker-protocol.md for the form."


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call took.

    Attributes:
        wall_seconds: from the request to the answer, without waiting for the lock or starting a child.
        compute_seconds: inside the model.
        cpu_seconds: processor time of the child during the call, all threads.
        peak_rss_mb: highest resident memory of the child so far, in MB.
        pid: process id of the child that answered.
    """

    wall_seconds: float
    compute_seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    pid: int


def crashed(name: str, operation: Operation, code: int, facts: Facts) -> WorkerError:
    """The child of model ``name`` died during a call.

    Args:
        name: registered name of the model.
        operation: what it was asked.
        code: its exit code, negative for a signal.
        facts: metadata of the error.
    """
    if code >= 0:
        msg = f"The worker of {name!r} ended with exit code {code} during {operation}."
        return WorkerError(msg, code="worker-crashed", hint=LOG_HINT, metadata={**facts, "exit_code": code})
    number = _signal_name(-code)
    msg = f"The worker of {name!r} was ended by {number} during {operation}."
    hint = MEMORY_HINT if number == "SIGKILL" else LOG_HINT
    return WorkerError(msg, code="worker-crashed", hint=hint, metadata={**facts, "signal": number})


def too_late(name: str, operation: Operation, seconds: float, facts: Facts) -> DeadlineError:
    """Model ``name`` gave no answer within ``seconds`` and was killed."""
    msg = f"{name!r} gave no answer to {operation} within {seconds:g} s; its worker was killed."
    setting = "start_seconds" if operation == Operation.LOAD else "call_seconds"
    hint = f"Send less audio, or raise {setting} under [worker] in grym.toml."
    return DeadlineError(msg, code="deadline", hint=hint, metadata={**facts, "deadline_seconds": seconds})


def closed(name: str, what: str) -> WorkerError:
    """The worker of model ``name`` cannot be used any more."""
    msg = f"The worker of {name!r} {what}."
    return WorkerError(msg, code="worker-closed", hint="Make a new Worker.", retryable=False)


def read_status(reply: Message, identity: str) -> GrymError | None:
    """The error that a reply carries, or ``None``.

    Raises:
        WorkerError: ``wrong-id`` or ``garbled-reply``: it is no reply to this request.
    """
    if reply.header.get("id") != identity:
        msg = "The worker answered a request that was not asked."
        raise WorkerError(msg, code="wrong-id", hint="It is started anew with the next call.")
    status = reply.header.get("status")
    if status == "success":
        return None
    error = reply.header.get("error")
    if status != "error" or not isinstance(error, dict):
        msg = f"The worker answered with status {status!r}."
        raise WorkerError(msg, code="garbled-reply", hint=FORM_HINT)
    return codec.unpack_error(error.get("details"))


def result(reply: Message) -> Mapping[str, Any]:
    """The result of a reply; empty if it has none."""
    told = reply.header.get("result")
    return told if isinstance(told, dict) else {}


def usage(reply: Message, wall: float) -> Usage:
    """What the call took, as the child says, and ``wall`` seconds as the caller saw it.

    Raises:
        WorkerError: ``garbled-reply``: it does not say.
    """
    told = reply.header.get("usage") or {}
    try:
        compute, cpu, peak, pid = (
            codec.number(told[k], 0.0) for k in ("compute_seconds", "cpu_seconds", "peak_rss_mb", "pid")
        )
    except (TypeError, KeyError, ValueError) as error:
        msg = "The worker did not say what the call took."
        raise WorkerError(msg, code="garbled-reply", hint=FORM_HINT) from error
    return Usage(wall, compute, cpu, peak, int(pid))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"
