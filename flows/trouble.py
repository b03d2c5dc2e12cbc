"""What a failure that Prefect or the system raised means for a person: a dead server, a full disk.

Knows nothing about what the flows do. An error that it cannot name is a defect and stays as it is.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flows._prefect import api
from flows.server import Server
from grym.errors import GrymError, WorkerError
from grym.parts import full, is_full

ROOM_BYTES: Final = 2**20  # with less than that neither a database nor a page can be written
AGAIN: Final = "Give the same command again; it goes on where it stopped."


@contextmanager
def explained(home: Path, server: Server | None = None) -> Iterator[None]:
    """Turn what is raised inside into a typed error, if it can be named.

    Args:
        home: folder of everything that is stored.
        server: the Prefect server in use, once there is one.

    Raises:
        ResourceError: the disk is full.
        WorkerError: the Prefect server died, or could not do what it was asked.
    """
    try:
        yield
    except Exception as error:
        found = explain(error, home, server)
        if found is None or found is error:
            raise
        raise found from error


def explain(error: Exception, home: Path, server: Server | None) -> GrymError | None:
    """The typed error behind an exception, or ``None``."""
    chain = list(_chain(error))
    # What the flow itself raised comes first: recording it may have failed as well, which is the lesser news.
    ours = next((found for found in chain if isinstance(found, GrymError)), None)
    if ours is not None and not ours.code.startswith("server-"):
        return ours
    if any(map(is_full, chain)) or _is_full_disk(home):
        return full("The disk is full.")
    if ours is not None:
        return ours
    if server is not None and not api.is_healthy(server.url):
        msg = "The Prefect server ended before it had recorded the run."
        return WorkerError(msg, code="server-died", hint=AGAIN)
    if any(map(_is_http, chain)):
        msg = f"The Prefect server could not do what it was asked: {type(error).__name__}."
        hint = f"{AGAIN} The server's log is {home / 'prefect' / 'server.log'}."
        return WorkerError(msg, code="server-failed", hint=hint)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_full_disk(home: Path) -> bool:
    try:
        return shutil.disk_usage(home).free < ROOM_BYTES
    except OSError:
        return False


def _is_http(error: BaseException) -> bool:
    httpx = sys.modules.get("httpx")
    return httpx is not None and isinstance(error, httpx.HTTPError)
