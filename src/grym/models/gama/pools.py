"""Clips that ``gama-mini`` is trained on, held in memory: generated sounds and composed digits.

Each pool is a function of its recipe, kept in a file because making it takes minutes. Knows nothing about networks.
Audio is 16 kHz mono, stored as int16.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from grym.corpus.bank import LENGTHS, Bank
from grym.corpus.digits import RATE, WORDS, Samples
from grym.corpus.sounds import ATTRIBUTES, BACKGROUNDS, LABELS, Event, ask, captions, draw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

# How often a clip of speech has one to seven digits; the pool holds as many of each.
LENGTH_WEIGHTS: Final = (0.2, 0.14, 0.15, 0.15, 0.14, 0.12, 0.1)
FULL_SCALE: Final = 32_767
PLACES: Final = {"then": ("first", "second"), "over": ("front", "behind")}
ROOM_SECONDS: Final = 0.25  # of background around composed speech, at most


@dataclass(frozen=True, slots=True)
class Item:
    """One clip and what is known about it.

    Attributes:
        samples: int16, ``shape = (n,)``.
        events: sounds in it; empty for speech.
        relation: as in :class:`grym.corpus.sounds.SoundClip`.
        words: digits spoken; empty for sounds.
        spans: (start, end, word) in samples, where they are known.
    """

    samples: npt.NDArray[np.int16]
    events: tuple[Event, ...] = ()
    relation: str = ""
    words: tuple[str, ...] = ()
    spans: tuple[tuple[int, int, str], ...] = ()


def facts() -> tuple[str, ...]:
    """Everything that the encoder is taught about sounds, in a fixed order."""
    names = [*LABELS]
    names += [
        f"{label} {key} {v}" for label, keys in ATTRIBUTES.items() for key, values in keys.items() for v in values
    ]
    names += [f"{place} {label}" for place in ("first", "second", "front") for label in LABELS]
    names += [f"behind {label}" for label in BACKGROUNDS]
    return (*names, "then", "over")


def facts_of(item: Item) -> list[str]:
    """The facts that hold of a clip of sounds."""
    found = [event.label for event in item.events]
    found += [f"{event.label} {key} {value}" for event in item.events for key, value in event.attributes.items()]
    if item.relation:
        found += [f"{p} {e.label}" for p, e in zip(PLACES[item.relation], item.events, strict=True)]
        found.append(item.relation)
    return found


def sounds_fingerprint() -> str:
    """Identity of what the generator of sounds makes: another version makes other clips."""
    state = hashlib.sha256(json.dumps([LABELS, {k: dict(v) for k, v in ATTRIBUTES.items()}]).encode())
    for index in range(2 * len(LABELS)):
        clip = draw(0, index, "train", labels=(LABELS[index // 2],), mixture=False)
        state.update((clip.samples * FULL_SCALE).astype(np.int16).tobytes())
        state.update(" ".join(captions(clip.events, clip.relation, np.random.default_rng(0))).encode())
        state.update(json.dumps(ask(clip.events, clip.relation, np.random.default_rng(0))).encode())
    return state.hexdigest()[:12]


def sound_items(count: int, seed: int, split: str = "train") -> list[Item]:
    """The first clips of a split of ``sounds``, every second one a mixture; two processes make them."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        return list(pool.map(partial(_sound, seed, split), range(count), chunksize=64))


def _sound(seed: int, split: str, index: int) -> Item:
    clip = draw(seed, index, split, mixture=index % 2 == 1)
    return Item(to_int16(clip.samples), clip.events, clip.relation)


def to_int16(samples: Samples) -> npt.NDArray[np.int16]:
    """At the level that it has; what is louder than full scale is clipped."""
    return np.round(samples.clip(-1, 1) * FULL_SCALE).astype(np.int16)


def speech_items(bank: Bank, count: int, seed: int, longest: int) -> list[Item]:
    """Composed digits, as many of each length, none longer than ``longest`` samples."""

    def one(number: int) -> Item:
        rng = np.random.default_rng([seed, number])
        size = LENGTHS[number % len(LENGTHS)]
        while True:
            clip = bank.compose(size, rng, int(ROOM_SECONDS * RATE))
            if clip.samples.size <= longest:
                peak = max(float(np.abs(clip.samples).max()), 1e-6)
                return Item(to_int16(clip.samples * np.float32(0.95 / peak)), (), "", clip.words, clip.spans)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(count)))


def kept(cache: Path, name: str, make: Callable[[], list[Item]]) -> list[Item]:
    """The items of that name from a folder, or made and put there; their samples stay in the file until they are read.

    Args:
        cache: the folder.
        name: identity of the items: everything that decides them.
        make: makes them.
    """
    about = cache / f"{name}.json"
    if not about.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _write(about, make())
    return _read(about)


def _write(file: Path, items: Sequence[Item]) -> None:
    about = [
        {
            "size": item.samples.size,
            "events": [[e.label, dict(e.attributes)] for e in item.events],
            "relation": item.relation,
            "words": item.words,
            "spans": item.spans,
        }
        for item in items
    ]
    np.save(file.with_suffix(".npy"), np.concatenate([item.samples for item in items]))
    aside = file.with_name(f".{file.name}")
    aside.write_text(json.dumps(about), encoding="utf-8")
    aside.replace(file)  # the last one, so that what is there is whole


def _read(file: Path) -> list[Item]:
    samples = np.load(file.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    items, start = [], 0
    for one in json.loads(file.read_text(encoding="utf-8")):
        spans = tuple((int(a), int(b), str(word)) for a, b, word in one["spans"])
        events = tuple(Event(label, attributes) for label, attributes in one["events"])
        piece = samples[start : start + one["size"]]
        items.append(Item(piece, events, one["relation"], tuple(one["words"]), spans))
        start += one["size"]
    return items


def digits_of(item: Item) -> tuple[int, ...]:
    """Its words as numbers."""
    return tuple(WORDS.index(word) for word in item.words)
