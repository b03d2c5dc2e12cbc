"""Bring a home's server back when it dies under a flow.

Prefect's client asks again for about a minute, so that a server that is back by
then, at the same address and on the same database, is hardly missed. Knows
nothing about flows. Seconds.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from flows._prefect import process
from grym.errors import GrymError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows._prefect.place import Place

LOOK_SECONDS: Final = 0.5
_log = logging.getLogger(__name__)


@contextmanager
def guarded(place: Place, seconds: float) -> Iterator[None]:
    """Watch the server on record while the code inside runs.

    Args:
        place: the home's folder of the server.
        seconds: how long a new one may take to answer.
    """
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(place, seconds, over), name="server-guard", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join(seconds)


def _watch(place: Place, seconds: float, over: threading.Event) -> None:
    while not over.wait(LOOK_SECONDS):
        record = place.record()
        if record is None:
            return  # somebody deleted the home: nothing to bring back
        if not record.alive and not _back(place, seconds, over):
            return


def _back(place: Place, seconds: float, over: threading.Event) -> bool:
    """Whether the server is back, or nobody waits for it any more; why not, the flow's own calls will tell."""
    try:
        with place.locked(seconds):
            if not over.is_set():
                process.back(place, seconds)
    except (GrymError, OSError) as error:
        _log.warning("The Prefect server died and did not come back: %s", error)
        return False
    return True
