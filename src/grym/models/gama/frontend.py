"""The log-mel spectrogram that GAMA reads: Kaldi filter banks, filled up or cut to one window, normalised.

Knows nothing about networks. Audio is float32 at 16 kHz.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grym.errors import AudioError
from grym.models.gama.configuration import FRAME_SAMPLES, SAMPLE_RATE, SHIFT_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import torch

    from grym.models.gama.configuration import GamaAudioConfig


def log_mel(samples: npt.NDArray[np.float32], config: GamaAudioConfig) -> torch.Tensor:
    """Normalised log-mel spectrogram of one window, float32 ``shape = (target_frames, num_mel_bins)``.

    Rows of zeros are appended before the normalisation, as in the published model: they count as sound of
    ``-mean / std``, and nothing masks them. What is longer than the window is cut.

    Args:
        samples: ``shape = (samples,)``, or ``(channels, samples)`` of which the first channel counts.
        config: sizes and statistics.

    Raises:
        AudioError: ``too-short``: fewer than 400 samples.
    """
    import torch
    from torchaudio.compliance.kaldi import fbank

    wave = np.atleast_2d(samples)[:1]
    if wave.shape[1] < FRAME_SAMPLES:
        msg = f"The clip has {wave.shape[1]} samples, fewer than the {FRAME_SAMPLES} of one frame."
        raise AudioError(msg, code="too-short", hint="Clips need 25 ms at least.")
    # More samples than a window needs would only be computed to be cut.
    wave = wave[:, : FRAME_SAMPLES + (config.target_frames - 1) * SHIFT_SAMPLES]
    tensor = torch.from_numpy(np.ascontiguousarray(wave - np.mean(wave, dtype=np.float64), dtype=np.float32))
    frames: torch.Tensor = fbank(
        tensor,
        sample_frequency=SAMPLE_RATE,
        num_mel_bins=config.num_mel_bins,
        window_type="hanning",
        htk_compat=True,
        use_energy=False,
        dither=0.0,
        frame_shift=1000 * SHIFT_SAMPLES / SAMPLE_RATE,
    )
    missing = config.target_frames - frames.shape[0]
    frames = torch.nn.functional.pad(frames, (0, 0, 0, missing))
    return (frames - config.mean) / config.std


def log_mels(windows: Sequence[npt.NDArray[np.float32]], config: GamaAudioConfig) -> torch.Tensor:
    """:func:`log_mel` of several windows, float32 ``shape = (windows, target_frames, num_mel_bins)``."""
    import torch

    return torch.stack([log_mel(window, config) for window in windows])
