"""What is known of a dataset without listening to it: its card, and how many clips, hours, speakers and words.

Never fetches anything and never decodes: lengths come from the manifest or from
the headers of the audio files, and are remembered in HOME/datasets/.facts until a
file changes. Lengths are seconds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import soundfile

from grym.corpus.cards import Card, read_card
from grym.corpus.hub import cached, origin
from grym.corpus.loaders import load_dataset
from grym.errors import ErrorRecord, GrymError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from grym.config import DatasetSpec, Settings
    from grym.corpus.manifest import Dataset, Entry

LOADERS: Final[Mapping[str, str]] = {
    "manifest": "a CSV or JSON Lines file that names clips and texts",
    "folder": "audio files with NAME.txt beside NAME.wav, or with metadata.csv",
    "fsdd": "Free Spoken Digit Dataset",
    "librispeech": "SPEAKER/CHAPTER/*.flac with *.trans.txt",
    "esc50": "ESC-50: audio/*.wav with meta/esc50.csv",
    "hub": "a dataset of the Hugging Face Hub",
}
_ABSURD_SECONDS: Final = 1e7


@dataclass(frozen=True, slots=True)
class Facts:
    """Counts of a dataset that is on this machine.

    Attributes:
        clips: usable clips.
        refused: rows and files that cannot be used, by the code of the reason.
        seconds: audio of the clips whose length is known.
        unmeasured: clips whose length neither manifest nor header tells.
        speakers: different speakers; 0 if nobody is named.
        words: words of all reference texts.
        slices: clips by value of each slice.
    """

    clips: int
    refused: Mapping[str, int]
    seconds: float
    unmeasured: int
    speakers: int
    words: int
    slices: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Described:
    """A registered dataset as people see it; ``facts`` is missing where it is not here, and ``problem`` says why."""

    spec: DatasetSpec
    card: Card
    facts: Facts | None
    problem: ErrorRecord | None


def describe(name: str, settings: Settings) -> Described:
    """A registered dataset; one that cannot be read is described, too.

    Raises:
        ConfigError: grym.toml knows no dataset of that name.
    """
    spec = settings.dataset(name)
    card, facts, problem = Card(title=name), None, None
    try:
        card = _card(spec)
        if spec.loader == "hub" and cached(spec) is None:
            problem = _not_fetched(spec)
        else:
            facts = _facts(load_dataset(name, settings), settings.home)
    except GrymError as error:
        problem = error.record()
    return Described(spec, card, facts, problem)


def _card(spec: DatasetSpec) -> Card:
    """The card that grym.toml names, else what the Hub says, else only a title."""
    if spec.card:
        return read_card(spec.card)
    if spec.loader != "hub":
        return Card(title=spec.name)
    repo, folder = str(spec.options.get("repo", "")), cached(spec)
    licence = origin(folder).get("licence") if folder else ""
    return Card(title=repo or spec.name, licence=licence or "unknown", source=f"https://huggingface.co/datasets/{repo}")


def _not_fetched(spec: DatasetSpec) -> ErrorRecord:
    hint = f"Fetch it with `python -m flows datasets fetch {spec.name}`."
    return ErrorRecord("config", "no-dataset", "It was not fetched from the Hub yet.", hint=hint)


def _facts(dataset: Dataset, home: Path) -> Facts:
    entries = dataset.entries
    seconds, unmeasured = _remembered(entries, home)
    names = sorted({name for entry in entries for name in entry.slices})
    return Facts(
        clips=len(entries),
        refused=dict(Counter(row.error.code for row in dataset.rejected).most_common()),
        seconds=seconds,
        unmeasured=unmeasured,
        speakers=len({entry.speaker for entry in entries if entry.speaker}),
        words=sum(len(entry.text.split()) for entry in entries),
        slices={
            name: dict(Counter(e.slices[name] for e in entries if name in e.slices).most_common()) for name in names
        },
    )


def _remembered(entries: Sequence[Entry], home: Path) -> tuple[float, int]:
    """Seconds and unmeasured clips; measured again when a file's size or time of change differs."""
    digest = hashlib.sha256()
    for entry in entries:
        try:
            status = entry.path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"{entry.path}\0{state}\0{entry.offset}\0{entry.duration}\n".encode("utf-8", "surrogateescape"))
    path = home / "datasets" / ".facts" / f"{digest.hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        return float(kept["seconds"]), int(kept["unmeasured"])
    lengths = _lengths(entries)
    seconds, unmeasured = math.fsum(s for s in lengths if s is not None), lengths.count(None)
    with suppress(OSError):  # a home that cannot be written to only costs time
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps({"seconds": seconds, "unmeasured": unmeasured}), encoding="utf-8")
        aside.replace(path)
    return seconds, unmeasured


def _lengths(entries: Sequence[Entry]) -> list[float | None]:
    """Length of each clip; a header is read once, however many clips its file holds."""
    whole: dict[Path, float | None] = {}
    found: list[float | None] = []
    for entry in entries:
        if entry.duration is not None:
            found.append(entry.duration)
            continue
        if entry.path not in whole:
            whole[entry.path] = _header(entry.path)
        length = whole[entry.path]
        found.append(None if length is None or length <= entry.offset else length - entry.offset)
    return found


def _header(path: Path) -> float | None:
    """Length that a file's header tells; ``None`` if it is not audio, or does not say."""
    if not path.is_file():  # a named pipe would be waited for
        return None
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError, ValueError):
        return None
    seconds = info.frames / info.samplerate if info.samplerate else math.inf
    return seconds if 0 < seconds < _ABSURD_SECONDS else None
