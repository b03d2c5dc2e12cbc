"""Independent work on several cores: one thread of Python and of arithmetic each, instead of all cores for one piece.

Small layers lose time where the threads of one product wait for each other, and
they lose much of it when another process takes one of the cores meanwhile. Clips
need not wait for each other. Knows nothing about clips. Times are seconds.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


class Streams:
    """Threads that compute beside each other.

    Args:
        count: how many; one does everything in the calling thread.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "stream", initializer=_alone) if count > 1 else None

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[tuple[Result, float]]:
        """Do ``work`` on every item, started in the order given; a single item gets all cores.

        Returns:
            For each item its result and its share of the time that all items took.

        Raises:
            Exception: the first that ``work`` raised; work that was started goes on to its end.
        """
        if self._pool is None or len(items) < 2:  # noqa: PLR2004 - a single one has nothing beside it
            return [_timed(work, item) for item in items]
        futures = [self._pool.submit(_timed, work, item) for item in items]
        try:
            timed = [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
        return [(result, seconds / self.count) for result, seconds in timed]

    def close(self) -> None:
        """End the threads; safe to call twice."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _alone() -> None:
    """One thread of arithmetic for the calling thread; the others keep theirs."""
    torch.set_num_threads(1)


def _timed(work: Callable[[Item], Result], item: Item) -> tuple[Result, float]:
    started = time.perf_counter()
    result = work(item)
    return result, time.perf_counter() - started
