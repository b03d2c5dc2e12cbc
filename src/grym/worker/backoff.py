"""When a child that failed may be started again: at once after one crash, then later and later.

Remembers the last error, so that whoever asks meanwhile gets the same answer without
another try. Knows nothing about processes. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from grym.errors import GrymError

if TYPE_CHECKING:
    from collections.abc import Callable

    from grym.errors import ErrorRecord

DOUBLINGS = 30


class Backoff:
    """Counts failures in a row.

    Args:
        first: wait after a start that failed; doubled for each further failure. A call that failed once costs
            no wait, because the start before it went well.
        longest: no more than that.
        clock: the time.
    """

    def __init__(self, first: float, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first, self._longest, self._clock = first, longest, clock
        self._in_a_row = 0
        self._until = 0.0
        self._record: ErrorRecord | None = None

    @property
    def remaining(self) -> float:
        """Seconds until the next try is due; 0 if it is."""
        return max(0.0, self._until - self._clock())

    @property
    def error(self) -> GrymError:
        """The last error once more, with ``retry_after_seconds`` in its metadata."""
        assert self._record is not None  # noqa: S101 - there is no wait without an error
        facts = {**self._record.metadata, "retry_after_seconds": round(self.remaining, 3)}
        return GrymError.from_record(replace(self._record, metadata=facts))

    def failed(self, error: GrymError, *, starting: bool) -> None:
        """A start, or a call, ended the child."""
        self._in_a_row += 1
        doublings = self._in_a_row - (1 if starting else 2)
        wait = 0.0 if doublings < 0 else min(self._longest, self._first * 2.0 ** min(doublings, DOUBLINGS))
        self._until = self._clock() + wait
        self._record = error.record()

    def succeeded(self) -> None:
        """A call came back."""
        self._in_a_row, self._until = 0, 0.0
