"""Isolated workers: one model per child process, a deadline per call, typed errors for whatever happens.

:class:`Worker` is the client, :class:`Pool` several of them; ``python -I -m grym.worker`` is the child, usable
from any language (``docs/worker-protocol.md``). Exit codes are :class:`Exit`.
"""

from grym.worker.client import Worker
from grym.worker.outcome import Usage
from grym.worker.pool import Pool
from grym.worker.protocol import Exit, Operation

__all__ = ["Exit", "Operation", "Pool", "Usage", "Worker"]
