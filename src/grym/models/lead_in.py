"""A moment of the clip's own background before it, for clips that begin in the middle of a sound.

Recordings are often cut so tightly that they begin with a vowel. A network whose
training clips had room before the first word then hears another word, above all
from voices it does not know. So the clip gets a lead-in of noise as loud as its
quietest moments; the noise is the same in every run, so answers are too.
Audio is float32 mono.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from grym.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from grym.models.interface import Samples

FILE: Final = "lead_in.json"
MAX_SECONDS: Final = 1.0
# The quietest twentieth of a clip's frames: its background, where there are pauses.
QUIET_PERCENTILE: Final = 5.0
FRAME: Final = 160


def lead_in(samples: Samples, count: int) -> Samples:
    """The clip after ``count`` samples of its background.

    Args:
        samples: float32, ``shape = (samples,)``.
        count: length of the lead-in in samples; 0 returns the clip itself.

    Returns:
        float32, ``shape = (count + samples,)``.
    """
    if count == 0:
        return samples
    whole = samples[: samples.size // FRAME * FRAME].reshape(-1, FRAME) if samples.size >= FRAME else samples[None]
    levels = np.sqrt(np.mean(np.square(whole, dtype=np.float64), axis=1))
    background = np.float32(np.percentile(levels, QUIET_PERCENTILE)) * _noise(count)
    return np.concatenate([background, samples], dtype=np.float32)


@lru_cache(maxsize=8)
def _noise(count: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(count).astype(np.float32)


def read_lead_in(folder: Path) -> float:
    """Seconds of lead-in that a checkpoint folder asks for; 0 if it asks for none.

    Raises:
        ConfigError: the file does not say so.
    """
    file = folder / FILE
    if not file.is_file():
        return 0.0
    try:
        seconds = json.loads(file.read_text(encoding="utf-8"))["seconds"]
    except (ValueError, TypeError, KeyError):
        seconds = None
    if type(seconds) not in {int, float} or not 0 <= seconds <= MAX_SECONDS:
        msg = f"{FILE} of the model folder {folder.name!r} names no length from 0 to {MAX_SECONDS:g} seconds."
        raise ConfigError(msg, code="bad-lead-in", hint='Write it as {"seconds": 0.1}, or remove it.')
    return float(seconds)
