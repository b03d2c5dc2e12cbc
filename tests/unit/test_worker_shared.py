"""Memory that a worker and its client share: what fits, what does not, and clips that refer to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from grym.errors import ConfigError
from grym.models import AudioClip
from grym.worker import codec, shared
from grym.worker.shared import Arena, Mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory files")


@pytest.fixture
def arena() -> Iterator[Arena]:
    """A memory that is given up afterwards."""
    made = Arena.create()
    assert made is not None
    yield made
    made.close()
    made.close()


def _clips(*sizes: int) -> list[AudioClip]:
    return [AudioClip(str(size), np.linspace(-1, 1, size, dtype=np.float32), 16_000) for size in sizes]


def test_clips_come_out_as_they_went_in(arena: Arena) -> None:
    """All samples go through the memory, none through frames, and nobody can write to what is read."""
    clips = _clips(20_000, 0, 7)
    items, frames = codec.pack_clips(clips, arena)
    assert frames == ()
    back = codec.unpack_clips(items, frames, Mapping.accept(arena.offer()))
    for clip, other in zip(clips, back, strict=True):
        assert clip.id == other.id
        np.testing.assert_array_equal(clip.samples, other.samples)
        assert not other.samples.flags.writeable


def test_little_and_too_much_audio_goes_as_frames(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the least size the pipe is as good; above the whole there is no room."""
    assert len(codec.pack_clips(_clips(100), arena)[1]) == 1
    monkeypatch.setattr(shared, "BYTES", 80_000)
    assert len(codec.pack_clips(_clips(19_000), arena)[1]) == 0
    assert len(codec.pack_clips(_clips(21_000), arena)[1]) == 1


@pytest.mark.parametrize(
    "item",
    [
        {"shared": 0},
        {"shared": "0", "samples": 4},
        {"shared": 0, "samples": 2**30},
        {"shared": -4, "samples": 4},
        {"shared": 2, "samples": 4},
        {"shared": 0, "samples": -4},
    ],
)
def test_places_outside_the_memory_are_refused(arena: Arena, item: dict[str, object]) -> None:
    """A wrong place is a bad request, never a crash."""
    mapping = Mapping.accept(arena.offer())
    with pytest.raises(ConfigError, match="shared"):
        codec.unpack_clips([{"id": "a", "rate": 8, **item}], (), mapping)
    with pytest.raises(ConfigError, match="shared"):
        codec.unpack_clips([{"id": "a", "rate": 8, "shared": 0, "samples": 4}], (), None)


@pytest.mark.parametrize("offer", [None, {}, {"descriptor": 10**6, "bytes": 64}, {"descriptor": 1.5, "bytes": 64}])
def test_an_offer_that_cannot_be_mapped_is_declined(offer: object) -> None:
    """The worker then gets frames."""
    assert Mapping.accept(offer) is None


def test_a_system_without_memory_files_has_no_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux, and where the system refuses, audio goes through the pipe."""

    def refuse(_name: str) -> int:
        raise OSError

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert Arena.create() is None
    monkeypatch.delattr(os, "memfd_create")
    assert Arena.create() is None
