"""The worst clips of a run: both arms aligned to one reference, with sound and waveform if there is any.

Knows nothing about pages. Words are the normalised ones that were scored.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import polars as pl

from reports.frames import ARMS, RunData

AudioSource = Callable[[str], bytes | None]

_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"OggS", "audio/ogg"),
    (b"RIFF", "audio/wav"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
)
_WAVE_COLUMNS: Final = 180
_WAVE_HALF_HEIGHT: Final = 18.0


@dataclass(frozen=True, slots=True)
class Cell:
    """What one arm made of one position: ``ok``, ``sub``, ``del``, ``ins``, or ``gap`` where only the other added."""

    operation: str
    text: str


@dataclass(frozen=True, slots=True)
class Position:
    """One column of an alignment: the word of the reference (empty for an added one) and a cell per arm."""

    reference: str
    cells: tuple[Cell, ...]


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
    """One clip as the report shows it."""

    clip_id: str
    key: str
    speaker: str
    seconds: float | None
    reference: str
    answers: tuple[ArmAnswer, ...]
    positions: tuple[Position, ...] = field(default=())
    sound: Sound | None = None


def _slots(words: Iterable[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[list[str]]]:
    """Words of the reference in order, and what was added before each and after the last."""
    kept: list[Mapping[str, Any]] = []
    added: list[list[str]] = [[]]
    for word in words:
        if word["operation"] == "ins":
            added[-1].append(word["hypothesis"] or "")
        else:
            kept.append(word)
            added.append([])
    return kept, added


def align(arms: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[Position, ...]:
    """Join the alignments of several arms to the same reference into columns.

    Args:
        arms: for each arm the rows of its alignment (``operation, reference, hypothesis``), in order of position.
    """
    split = [_slots(words) for words in arms]
    found: list[Position] = []
    slots = max((len(added) for _, added in split), default=0)
    for slot in range(slots):
        extra = [added[slot] if slot < len(added) else [] for _, added in split]
        found += [
            Position("", tuple(Cell("gap", "") if text is None else Cell("ins", text) for text in texts))
            for texts in zip_longest(*extra)
        ]
        words = [kept[slot] if slot < len(kept) else None for kept, _ in split]
        if any(words):
            reference = next(word["reference"] or "" for word in words if word)
            cells = (Cell(w["operation"], w["hypothesis"] or "") if w else Cell("gap", "") for w in words)
            found.append(Position(reference, tuple(cells)))
    return tuple(found)


def describe(words: Iterable[Mapping[str, Any]]) -> str:
    """The errors of one alignment in words.

    Example:
        >>> describe([{"operation": "sub", "reference": "three", "hypothesis": "tree"}])
        '“tree” for “three”'
    """
    texts = {
        "sub": "“{hypothesis}” for “{reference}”",
        "del": "“{reference}” missing",
        "ins": "“{hypothesis}” added",
    }
    found = [
        texts[w["operation"]]
        .replace("{hypothesis}", w["hypothesis"] or "")
        .replace("{reference}", w["reference"] or "")
        for w in words
        if w["operation"] in texts
    ]
    return ", ".join(found) or "all words right"


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
    tops = [f"{i:d} {-scale * float(p.max()):.1f}" for i, p in enumerate(parts)]
    bottoms = [f"{i:d} {-scale * float(p.min()):.1f}" for i, p in enumerate(parts)]
    return "M" + "L".join([*tops, *reversed(bottoms)]) + "Z"


def sound(content: bytes) -> Sound | None:
    """Encoded audio as something a page can play, or ``None`` for a format that browsers do not know."""
    kind = next((mime for magic, mime in _MAGIC if content.startswith(magic)), "")
    if not kind:
        return None
    return Sound(f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}", outline(content))


def _ranked(outcomes: pl.DataFrame, limit: int) -> list[str]:
    """Clips with the most errors of either arm; ties go to the larger disagreement."""
    edits = pl.sum_horizontal(pl.col("substitutions", "deletions", "insertions").fill_null(0))
    scored = outcomes.filter(pl.col("status") == "ok").with_columns(errors=edits)
    per_clip = scored.group_by("clip_id").agg(
        pl.col("errors").max().alias("most"), (pl.col("errors").max() - pl.col("errors").min()).alias("apart")
    )
    ranked = per_clip.filter(pl.col("most") > 0).sort("most", "apart", "clip_id", descending=[True, True, False])
    return [str(clip) for clip in ranked.head(limit)["clip_id"]]


def _answer(arm: str, row: Mapping[str, Any] | None, words: Sequence[Mapping[str, Any]]) -> ArmAnswer:
    if row is None or row["status"] != "ok":
        reason = (row or {}).get("error_message") or "no row was stored"
        return ArmAnswer(arm, (row or {}).get("status") or "failed", "", None, 0, f"no answer: {reason}")
    errors = sum(row[name] or 0 for name in ("substitutions", "deletions", "insertions"))
    return ArmAnswer(arm, "ok", row["hypothesis"] or "", errors, row["reference_words"] or 0, describe(words))


def worst_clips(
    data: RunData, *, limit: int = 12, audio: AudioSource | None = None, audio_limit: int = 3_000_000
) -> list[ClipView]:
    """The clips with the most word errors, worst first.

    Args:
        data: the run.
        limit: how many clips.
        audio: gives the encoded file (Ogg, WAV, FLAC or MP3) of a clip id, or ``None``.
        audio_limit: bytes all ``data:`` URIs together may take; clips beyond it are shown without a player.
    """
    outcomes, left = data.table("outcomes"), audio_limit
    chosen = _ranked(outcomes, limit)
    rows = {(r["clip_id"], r["arm"]): r for r in outcomes.filter(pl.col("clip_id").is_in(chosen)).to_dicts()}
    clips = {r["clip_id"]: r for r in data.table("clips").filter(pl.col("clip_id").is_in(chosen)).to_dicts()}
    words = data.table("words").filter(pl.col("clip_id").is_in(chosen)).sort("clip_id", "arm", "position")
    aligned = {key: part.to_dicts() for key, part in words.partition_by("clip_id", "arm", as_dict=True).items()}
    views: list[ClipView] = []
    for clip_id in chosen:
        answers = tuple(_answer(arm, rows.get((clip_id, arm)), aligned.get((clip_id, arm), [])) for arm in ARMS)
        content = audio(clip_id) if audio else None
        heard = sound(content) if content else None
        heard = heard if heard and len(heard.uri) <= left else None
        left -= len(heard.uri) if heard else 0
        clip = clips.get(clip_id, {})
        views.append(
            ClipView(
                clip_id=clip_id,
                key=clip.get("key") or clip_id[:12],
                speaker=clip.get("speaker") or "",
                seconds=clip.get("seconds"),
                reference=clip.get("reference") or "",
                answers=answers,
                positions=align([aligned.get((clip_id, x.arm), []) for x in answers if x.status == "ok"]),
                sound=heard,
            )
        )
    return views
