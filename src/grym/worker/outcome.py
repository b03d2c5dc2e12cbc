"""What came of one call: what it took, or the typed error that tells why there is no answer.

Knows nothing about processes; names them. Times are seconds, memory is MB (10^6 bytes).
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from grym.errors import DeadlineError, GrymError, ResourceError, UnavailableError, WorkerError
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
        call_peak_mb: highest resident memory of the child during the call, in MB; 0 if it does not say.
        gpu_peak_mb: most memory that it allocated on the GPU during the call, in MB.
    """

    wall_seconds: float
    compute_seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    pid: int
    call_peak_mb: float = 0.0
    gpu_peak_mb: float = 0.0


def crashed(
    name: str, operation: Operation, code: int, facts: Facts, *, out_of_memory: bool = False
) -> WorkerError | ResourceError:
    """The child of model ``name`` died during a call.

    Args:
        name: registered name of the model.
        operation: what it was asked.
        code: its exit code, negative for a signal.
        facts: metadata of the error.
        out_of_memory: whether the kernel has ended processes for want of memory since the child started.
    """
    if code >= 0:
        msg = f"The worker of {name!r} ended with exit code {code} during {operation}."
        return WorkerError(msg, code="worker-crashed", hint=LOG_HINT, metadata={**facts, "exit_code": code})
    number = _signal_name(-code)
    msg = f"The worker of {name!r} was ended by {number} during {operation}."
    if number == "SIGXCPU":
        hint = "Send less audio at once, or raise cpu_seconds under [worker] in grym.toml."
        return ResourceError(msg, code="cpu-time", hint=hint, metadata={**facts, "signal": number})
    if number == "SIGKILL" and out_of_memory:
        msg = f"The worker of {name!r} was ended during {operation}, and the system has run out of memory meanwhile."
        return ResourceError(msg, code="out-of-memory", hint=MEMORY_HINT, metadata={**facts, "signal": number})
    hint = MEMORY_HINT if number == "SIGKILL" else LOG_HINT
    return WorkerError(msg, code="worker-crashed", hint=hint, metadata={**facts, "signal": number})


def too_late(name: str, operation: Operation, seconds: float, facts: Facts) -> DeadlineError:
    """Model ``name`` gave no answer within ``seconds`` and was killed."""
    msg = f"{name!r} gave no answer to {operation} within {seconds:g} s; its worker was killed."
    setting = "start_seconds" if operation == Operation.LOAD else "call_seconds"
    hint = f"Send less audio, or raise {setting} under [worker] in grym.toml."
    return DeadlineError(msg, code="deadline", hint=hint, metadata={**facts, "deadline_seconds": seconds})


def cancelled(name: str, operation: Operation, facts: Facts) -> WorkerError:
    """A call to model ``name`` was cancelled by another thread."""
    msg = f"The call of {operation} to {name!r} was cancelled."
    hint = "The next call starts a new process."
    return WorkerError(msg, code="cancelled", hint=hint, retryable=False, metadata=facts)


def overloaded(name: str, waiting: int, seconds: float) -> UnavailableError:
    """Too many calls wait for model ``name``; ``seconds`` is when it is worth to ask again."""
    msg = f"{name!r} has {waiting} calls waiting."
    hint = f"Ask again in {seconds:.3g} s, or ask another model."
    facts: Facts = {"retry_after_seconds": round(seconds, 3), "waiting": waiting}
    return UnavailableError(msg, code="overloaded", hint=hint, metadata=facts)


def not_its_turn(name: str, seconds: float) -> DeadlineError:
    """No worker of model ``name`` was free, or up, within ``seconds``."""
    msg = f"No worker of {name!r} was free within {seconds:.3g} s."
    hint = "Send less, or raise workers under [worker] in grym.toml."
    return DeadlineError(msg, code="queued-too-long", hint=hint)


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
        call, gpu = (codec.number(told.get(k, 0.0), 0.0) for k in ("call_peak_mb", "gpu_peak_mb"))
    except (TypeError, KeyError, ValueError) as error:
        msg = "The worker did not say what the call took."
        raise WorkerError(msg, code="garbled-reply", hint=FORM_HINT) from error
    return Usage(wall, compute, cpu, peak, int(pid), call, gpu)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"
