"""The clips of a run that a reader should hear: where the arms differ most, and the hardest for both.

Knows nothing about pages. Sound is embedded until the limit of the page is
reached; a clip without it says why. Words are the normalised ones that were scored.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from reports.alignment import Position, align, condense, describe
from reports.formats import shortened
from reports.frames import ARMS, EDITS, RunData

AudioSource = Callable[[str], bytes | None]

AUDIO_LIMIT: Final = 3_000_000
"""Bytes that all sounds of a page together may take, as they stand in it (base64)."""

_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"OggS", "audio/ogg"),
    (b"RIFF", "audio/wav"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
)
_WAVE_COLUMNS: Final = 240
_WAVE_HALF_HEIGHT: Final = 18.0
_TEXT: Final = 1_000
_NO_ROOM: Final = "it would not fit into the room that a page has for sound"


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """One arm's answer to one clip, in numbers and in words for those who cannot see the alignment."""

    arm: str
    status: str
    hypothesis: str
    errors: int | None
    words: int
    summary: str


@dataclass(frozen=True, slots=True)
class Sound:
    """A clip to play: a ``data:`` URI and the outline of its waveform as an SVG path (may be empty)."""

    uri: str
    outline: str = ""
    box: str = f"0 {-_WAVE_HALF_HEIGHT:.0f} {_WAVE_COLUMNS} {2 * _WAVE_HALF_HEIGHT:.0f}"


@dataclass(frozen=True, slots=True)
class ClipView:
    """One clip as a page shows it: ``apart`` is how the arms' errors differ, ``silence`` why it has no sound.

    ``asked`` says that a row of another section leads here; such a clip need not be among the worst.
    """

    clip_id: str
    key: str
    speaker: str
    seconds: float | None
    reference: str
    apart: int
    answers: tuple[ArmAnswer, ...]
    positions: tuple[Position, ...] = field(default=())
    sound: Sound | None = None
    silence: str = ""
    asked: bool = False

    @property
    def anchor(self) -> str:
        """Where on the page it is."""
        return anchor(self.clip_id)

    @property
    def part(self) -> str:
        """The heading it stands under."""
        if self.asked:
            return "Further clips that the sections above lead to"
        return "Where the arms differ most" if self.apart else "Hardest clips"


def anchor(clip_id: str) -> str:
    """The id of a clip's place on a page."""
    return f"clip-{clip_id[:24]}"


def outline(content: bytes) -> str:
    """The waveform as a closed SVG path, or nothing if the bytes cannot be decoded."""
    import soundfile

    try:
        samples, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except (RuntimeError, TypeError):  # soundfile's own errors derive from RuntimeError
        return ""
    mono = samples.mean(axis=1)
    if not mono.size:
        return ""
    parts = np.array_split(mono, min(_WAVE_COLUMNS, mono.size))
    scale = _WAVE_HALF_HEIGHT / max(float(np.abs(mono).max()), 1e-9)
    # A hair's width at least, so that silence is a line and not a gap.
    tops = [f"{i:d} {-max(scale * float(p.max()), 0.3):.1f}" for i, p in enumerate(parts)]
    bottoms = [f"{i:d} {max(-scale * float(p.min()), 0.3):.1f}" for i, p in enumerate(parts)]
    return "M" + "L".join([*tops, *reversed(bottoms)]) + "Z"


def sound(content: bytes) -> Sound | None:
    """Encoded audio as something a page can play, or ``None`` for a format that browsers do not know."""
    kind = next((mime for magic, mime in _MAGIC if content.startswith(magic)), "")
    if not kind:
        return None
    return Sound(f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}", outline(content))


def _ranked(outcomes: pl.DataFrame, limit: int) -> dict[str, int]:
    """Clips to show and how far apart the arms are: the most divided ones first, then the most errors of either arm.

    Half of the room at most goes to clips that divide the arms; a clip that only one arm answered divides nothing.
    """
    edits = pl.sum_horizontal(pl.col(*EDITS).fill_null(0))
    per_clip = (
        outcomes.filter(pl.col("status") == "ok")
        .with_columns(errors=edits)
        .group_by("clip_id")
        .agg(most=pl.col("errors").max(), apart=pl.col("errors").max() - pl.col("errors").min())
        .filter(pl.col("most") > 0)
    )
    divided = per_clip.filter(pl.col("apart") > 0).sort("apart", "most", "clip_id", descending=[True, True, False])
    first = divided.head((limit + 1) // 2)
    rest = per_clip.join(first, on="clip_id", how="anti").sort("most", "clip_id", descending=[True, False])
    hard = rest.head(limit - first.height).with_columns(apart=pl.lit(0, first.schema["apart"]))
    return {str(row["clip_id"]): int(row["apart"]) for row in pl.concat([first, hard]).to_dicts()}


def _answer(arm: str, row: Mapping[str, Any] | None, words: Sequence[Mapping[str, Any]]) -> ArmAnswer:
    if row is None or row["status"] != "ok":
        reason = (row or {}).get("error_message") or "no row was stored"
        return ArmAnswer(arm, (row or {}).get("status") or "failed", "", None, 0, f"no answer: {shortened(reason)}")
    errors = sum(row[name] or 0 for name in EDITS)
    text = shortened(row["hypothesis"] or "", _TEXT)
    return ArmAnswer(arm, "ok", text, errors, row["reference_words"] or 0, describe(words))


def heard_within(clip_id: str, audio: AudioSource | None, left: int) -> tuple[Sound | None, str]:
    """The sound of a clip if it fits into what is left of the page's room, else why there is none."""
    if audio is None:
        return None, "the page was made without sound"
    content = audio(clip_id)
    if content is None:
        return None, "its file is gone, has changed, or is longer than two minutes"
    if 4 * len(content) / 3 > left:  # base64 takes four characters for three bytes
        return None, _NO_ROOM
    heard = sound(content)
    if heard is None:
        return None, "browsers cannot play its format"
    return (heard, "") if len(heard.uri) <= left else (None, _NO_ROOM)


def worst_clips(
    data: RunData,
    *,
    limit: int = 12,
    audio: AudioSource | None = None,
    audio_limit: int = AUDIO_LIMIT,
    asked: Sequence[str] = (),
) -> list[ClipView]:
    """The clips to hear: those that divide the arms most (``apart > 0``), then those with the most word errors.

    Args:
        data: the run.
        limit: how many clips.
        audio: gives the encoded file (Ogg, WAV, FLAC or MP3) of a clip id, or ``None``.
        audio_limit: bytes all ``data:`` URIs together may take; clips beyond it are shown without a player.
        asked: ids of further clips to show, after those.
    """
    outcomes, left = data.table("outcomes"), audio_limit
    ranked = _ranked(outcomes, limit)
    further = [clip_id for clip_id in dict.fromkeys(asked) if clip_id not in ranked]
    ranked |= dict.fromkeys(further, 0)
    chosen = list(ranked)
    rows = {(r["clip_id"], r["arm"]): r for r in outcomes.filter(pl.col("clip_id").is_in(chosen)).to_dicts()}
    clips = {r["clip_id"]: r for r in data.table("clips").filter(pl.col("clip_id").is_in(chosen)).to_dicts()}
    words = data.table("words").filter(pl.col("clip_id").is_in(chosen)).sort("clip_id", "arm", "position")
    aligned = {key: part.to_dicts() for key, part in words.partition_by("clip_id", "arm", as_dict=True).items()}
    views: list[ClipView] = []
    for clip_id, apart in ranked.items():
        answers = tuple(_answer(arm, rows.get((clip_id, arm)), aligned.get((clip_id, arm), [])) for arm in ARMS)
        heard, silence = heard_within(clip_id, audio, left)
        left -= len(heard.uri) if heard else 0
        clip = clips.get(clip_id, {})
        columns = align([aligned.get((clip_id, x.arm), []) for x in answers if x.status == "ok"])
        views.append(
            ClipView(
                clip_id=clip_id,
                key=shortened(clip.get("key") or clip_id[:12]),
                speaker=shortened(clip.get("speaker") or ""),
                seconds=clip.get("seconds"),
                reference=shortened(clip.get("reference") or "", _TEXT),
                apart=apart,
                answers=answers,
                positions=condense(columns),
                sound=heard,
                silence=silence,
                asked=clip_id in further,
            )
        )
    return views
