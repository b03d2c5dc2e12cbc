"""Which clips a generative model can be asked about, the same for every adapter.

Knows nothing about networks. Audio is float32, times are seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grym.errors import AudioError

if TYPE_CHECKING:
    from grym.models.interface import AudioClip


def refuse(clip: AudioClip, *, rate: int, least_samples: int, max_seconds: float) -> AudioError | None:  # noqa: PLR0911 - one for each reason
    """Why a clip cannot be used, or ``None``.

    Args:
        clip: what was given.
        rate: the one rate in Hz that the model hears; 0 for any.
        least_samples: samples of the shortest clip.
        max_seconds: of the longest.

    Returns:
        ``not-mono``, ``wrong-rate``, ``too-short``, ``too-long``, ``not-finite`` or ``silent``.
    """
    if clip.samples.ndim != 1:
        channels = f"{clip.samples.shape[0]} channels" if clip.samples.ndim else "a single number for samples"
        return AudioError(f"The clip has {channels}, and one channel is wanted.", code="not-mono")
    if clip.rate <= 0:
        return AudioError(f"The clip has {clip.rate} Hz, which is no rate.", code="wrong-rate")
    if rate and clip.rate != rate:
        return AudioError(f"The clip has {clip.rate} Hz, the model wants {rate} Hz.", code="wrong-rate")
    if clip.samples.size < least_samples:
        return AudioError(f"The clip has {clip.samples.size} samples, fewer than one frame.", code="too-short")
    if clip.seconds > max_seconds:
        msg = f"The clip lasts {clip.seconds:.0f} s, longer than {max_seconds:.0f} s."
        return AudioError(msg, code="too-long", hint="Raise max_seconds of the model, or cut the clip.")
    if not np.isfinite(clip.samples).all():
        return AudioError("The clip holds NaN or infinite samples.", code="not-finite")
    if np.ptp(clip.samples) == 0.0:
        return AudioError("Every sample of the clip has the same value: it is silent.", code="silent")
    return None
