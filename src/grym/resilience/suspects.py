"""Clips that no model of a route could answer: what fails about them alone is no failure of a model.

One clip that kills every model would otherwise open every breaker when it is sent again and again, while all other
clips could be answered. A clip is known by its samples, whatever it is called. Lives in this process, is bounded
and forgets. Knows nothing about routes or breakers. Times are seconds.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from grym.models.interface import AudioClip

MOST: Final = 1000
EXPIRY_SECONDS: Final = 600.0
MODELS: Final = 2  # that failed with a clip before it is suspected


class Suspects:
    """Suspected clips. Thread-safe.

    Args:
        clock: monotonic seconds.

    Example:
        >>> import numpy as np
        >>> from grym.models.interface import AudioClip
        >>> suspects, clip = Suspects(), AudioClip("c", np.zeros(8, np.float32), 16_000)
        >>> suspects.add(clip)
        >>> suspects.all_known([clip])
        True
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, clip: AudioClip) -> None:
        """Suspect a clip for a while."""
        key = _key(clip)
        with self._lock:
            self._until[key] = self._clock() + EXPIRY_SECONDS
            self._until.move_to_end(key)
            while len(self._until) > MOST:
                self._until.popitem(last=False)

    def clear(self, clip: AudioClip) -> None:
        """A model has answered it: it was not the clip."""
        if self._until:
            with self._lock:
                self._until.pop(_key(clip), None)

    def all_known(self, clips: Iterable[AudioClip]) -> bool:
        """Whether every one of these clips is suspected now."""
        if not self._until:
            return False
        now = self._clock()
        return all(self._until.get(_key(clip), 0.0) > now for clip in clips)


def _key(clip: AudioClip) -> bytes:
    return hashlib.blake2b(clip.samples.tobytes(), digest_size=16, key=str(clip.rate).encode()).digest()


__all__ = ["Suspects"]
