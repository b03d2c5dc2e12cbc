"""Tasks that look at clips before any model does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prefect import task

from expectations.gate import judge
from grym.compare.plan import Refused, Usable, check_entries
from grym.config import AudioLimits
from grym.corpus.manifest import Entry
from grym.errors import QualityError
from grym.quality import Judgement, audio_frame
from grym.worker.decoder import DecodeAll, decode_here
from tasks.policies import PLAIN

CHUNK = 256


@task(name="check audio", tags=["cpu"], **PLAIN)
def check_audio(
    entries: Sequence[Entry], limits: AudioLimits, decode: DecodeAll = decode_here
) -> tuple[list[Usable], list[Refused], list[Judgement]]:
    """Decode, measure and gate some clips; a bad clip is refused, the others go on."""
    import pandas as pd

    rows: list[pd.DataFrame] = []
    bounds: dict[str, Any] = limits.model_dump(include={"rate", "min_seconds", "max_seconds"})
    usable, refused = check_entries(
        entries, limits, lambda clip, measured: rows.append(audio_frame([clip], [asdict(measured)], **bounds)), decode
    )
    if not usable:
        return usable, refused, []
    judgement = judge("input_audio", pd.concat(rows, ignore_index=True), f"input-{usable[0].clip_id[:16]}")
    judgement.require()
    held = judgement.held_rows
    for position, broken in held.items():
        error = QualityError(f"The clip broke a rule: {broken.reason}", code=broken.rule)
        refused.append(Refused(usable[position].entry.key, "gate:input_audio", error.record()))
    return [clip for i, clip in enumerate(usable) if i not in held], refused, [judgement]
