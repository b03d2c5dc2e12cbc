"""Sound for the players of a report: only the span a clip is, however long its file, as small lossless FLAC.

Knows nothing about pages or stores. A clip whose file is gone, or is no longer
the audio that was compared, has no sound; the page tells the rest. Times are
seconds.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import soundfile

from grym.audio import decode
from grym.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grym.config import AudioLimits
    from grym.corpus.manifest import Entry
    from grym.models.interface import AudioClip
    from reports.clips import AudioSource

# A longer clip would not fit into a page, so it is refused by its header instead of being decoded.
LONGEST_SECONDS: Final = 120.0


def clip_audio(limits: AudioLimits, entries: Mapping[str, Entry]) -> AudioSource:
    """What gives the sound of a clip, decoded when a page asks for it.

    Args:
        limits: ``[audio]`` of grym.toml, as the clips were checked.
        entries: where clips lie, by content id; a clip that is missing has no sound.

    Returns:
        A function from content id to a FLAC file (16 bits, mono, ``limits.rate``), or ``None``.
    """
    shown = limits.model_copy(update={"max_seconds": min(limits.max_seconds, LONGEST_SECONDS)})

    def read(clip_id: str) -> bytes | None:
        entry = entries.get(clip_id)
        if entry is None:
            return None
        try:
            clip, _ = decode(entry.path, shown, offset=entry.offset, duration=entry.duration)
        except AudioError:
            return None
        return _flac(clip) if clip.id == clip_id else None

    return read


def _flac(clip: AudioClip) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, clip.samples, clip.rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
