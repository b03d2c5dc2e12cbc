"""Batches are planned from the clips alone."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from grym.batching import plan_batches


@dataclass(frozen=True)
class _Clip:
    clip_id: str
    seconds: float


CLIPS = st.lists(st.builds(_Clip, st.uuids().map(str), st.floats(0.1, 90)), unique_by=lambda c: c.clip_id, max_size=60)


@given(CLIPS, st.randoms(use_true_random=False))
def test_every_clip_is_in_exactly_one_batch_whatever_the_order(clips: list[_Clip], shuffler: object) -> None:
    """Order does not matter, nothing is lost, limits hold."""
    batches = plan_batches(clips, max_seconds=60, max_clips=8)
    shuffled = list(clips)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan_batches(shuffled, max_seconds=60, max_clips=8) == batches
    placed = [clip_id for batch in batches for clip_id in batch.clip_ids]
    assert sorted(placed) == sorted(clip.clip_id for clip in clips)
    assert all(len(batch.clip_ids) == 1 or (batch.seconds <= 60 and len(batch.clip_ids) <= 8) for batch in batches)
    assert len({batch.id for batch in batches}) == len(batches)
