"""Tasks that look at clips before any model does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from prefect import task

from expectations.gate import judge
from grym.compare.plan import Refused, Usable, check_entries
from grym.config import AudioLimits
from grym.corpus.manifest import Entry
from grym.errors import QualityError
from grym.quality import Judgement, audio_frame
from tasks.policies import PLAIN

CHUNK = 256


@task(name="check audio", tags=["cpu"], **PLAIN)
def check_audio(
    entries: Sequence[Entry], limits: AudioLimits
) -> tuple[list[Usable], list[Refused], list[Judgement]]:
    """Decode, measure and gate some clips; a bad clip is refused, the others go on."""
    usable, refused = check_entries(entries, limits)
    if not usable:
        return usable, refused, []
    rows = [{"clip_id": clip.clip_id, **asdict(clip.measured)} for clip in usable]
    judgement = judge("input_audio", audio_frame(rows), f"input-{usable[0].entry.key}")
    held = judgement.held_rows
    for position, (rule, reason) in held.items():
        error = QualityError(f"The clip broke the rule {rule}: {reason}", code=rule)
        refused.append(Refused(usable[position].entry.key, "gate:input_audio", error.record()))
    return [clip for i, clip in enumerate(usable) if i not in held], refused, [judgement]
