"""The layout of LibriSpeech: ``SUBSET/SPEAKER/CHAPTER/*.flac`` with one ``*.trans.txt`` a chapter.

Knows nothing about what is inside an audio file. Gender and subset of a speaker
come from ``SPEAKERS.TXT`` and become slices; without that file only the folder
tells the subset.

Source: Panayotov et al., "Librispeech: an ASR corpus based on public domain audio
books", ICASSP 2015; README.TXT of https://www.openslr.org/12.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grym.audio import storable
from grym.corpus.manifest import Dataset, Entry, Rejected, locate, read_text
from grym.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from grym.config import DatasetSpec

_SPEAKERS: Final = "SPEAKERS.TXT"
_TRANSCRIPT: Final = ".trans.txt"
_AUDIO: Final = (".flac", ".wav", ".mp3", ".ogg", ".opus")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_GENDERS: Final = {"F": "female", "M": "male"}
_FIELDS: Final = 3  # ID, SEX and SUBSET are used; MINUTES and NAME follow


def load_librispeech(spec: DatasetSpec) -> Dataset:
    """Every utterance of the subsets that are there.

    ``path`` is the folder with ``SPEAKERS.TXT``, or one subset in it. The option ``subset`` names folders to take
    (``"test-clean,test-other"``); all of them without it.

    Raises:
        ConfigError: the folder, or a subset that was asked for, is not there.
    """
    top, subsets = _subsets(spec)
    root = top.resolve()
    speakers = _speakers(root)
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for subset in subsets:
        unreadable: list[OSError] = []
        for chapter in _chapters(root, subset, unreadable):
            _read_chapter(root, chapter, speakers, entries, rejected)
        for error in unreadable:
            relative = storable(Path(error.filename).relative_to(root).as_posix())
            rejected.append(Rejected(relative, _as_manifest_error(error, relative).record()))
    return Dataset(spec.name, root, tuple(entries), tuple(rejected))


def _subsets(spec: DatasetSpec) -> tuple[Path, tuple[str, ...]]:
    """The folder that holds the subsets, and the names to read; ``.`` is the folder itself."""
    if not spec.path.is_dir():
        msg = f"The folder {spec.path.name} of dataset {spec.name!r} does not exist."
        hint = f"Unpack a subset of https://www.openslr.org/12 and correct path in [datasets.{spec.name}] of grym.toml."
        raise ConfigError(msg, code="no-dataset", hint=hint)
    wanted = tuple(part.strip() for part in str(spec.options.get("subset", "")).split(",") if part.strip())
    for name in wanted:
        if Path(name).name != name or name == ".." or not (spec.path / name).is_dir():
            there = ", ".join(sorted(p.name for p in spec.path.iterdir() if p.is_dir())) or "none"
            msg = f"Dataset {spec.name!r} has no subset {name!r}; there are {there}."
            raise ConfigError(msg, code="bad-option", hint=f"Correct subset in [datasets.{spec.name}] of grym.toml.")
    if wanted:
        return spec.path, wanted
    if not (spec.path / _SPEAKERS).is_file() and (spec.path.parent / _SPEAKERS).is_file():
        return spec.path.parent, (spec.path.name,)  # a subset was named: who speaks stands one folder above
    return spec.path, (".",)


def _speakers(root: Path) -> Mapping[str, Mapping[str, str]]:
    """Gender and subset by speaker: ``ID | SEX | SUBSET | MINUTES | NAME``; comments start with a semicolon."""
    try:
        path = locate(root, root / _SPEAKERS)
        text = read_text(path) if path.is_file() else ""
    except ManifestError:
        return {}  # it only adds slices: the clips are as good without it
    found: dict[str, Mapping[str, str]] = {}
    for line in text.splitlines():
        values = [value.strip() for value in line.split("|")]
        if line.lstrip().startswith(";") or len(values) < _FIELDS or not _NUMBER.fullmatch(values[0]):
            continue
        slices = {"gender": _GENDERS.get(values[1].upper(), values[1]), "subset": values[2]}
        found[values[0]] = {name: value for name, value in slices.items() if value}
    return found


def _chapters(root: Path, subset: str, unreadable: list[OSError]) -> Iterator[Path]:
    """Folders ``SPEAKER/CHAPTER`` below a subset in a fixed order, and links to folders, which are not followed."""
    for folder, folders, files in os.walk(root / subset, onerror=unreadable.append):
        folders[:] = sorted(folders, key=lambda name: (len(name), name) if name.isdigit() else (0, name))
        here = Path(folder)
        if (_NUMBER.fullmatch(here.name) and _NUMBER.fullmatch(here.parent.name)) or any(
            name.endswith(_TRANSCRIPT) for name in files
        ):
            folders.clear()
            yield here
        else:
            yield from (here / name for name in folders if (here / name).is_symlink())


def _read_chapter(
    root: Path,
    chapter: Path,
    speakers: Mapping[str, Mapping[str, str]],
    entries: list[Entry],
    rejected: list[Rejected],
) -> None:
    """Add what a chapter holds; whatever cannot be used is refused by itself."""
    relative = chapter.relative_to(root).as_posix()
    try:
        if chapter.is_symlink():
            _refuse_link(root, chapter)
            return  # it leads to a folder that is met anyway
        names = sorted(os.listdir(chapter))  # noqa: PTH208 - names are needed, not paths
        lines = _lines(root, chapter, names)
    except (ManifestError, OSError) as error:
        rejected.append(Rejected(storable(relative), _as_manifest_error(error, relative).record()))
        return
    audio = {Path(name).stem: name for name in reversed(names) if Path(name).suffix.lower() in _AUDIO}
    seen: set[str] = set()
    for place, key, text in lines:
        try:
            entry = _entry(root, chapter, (key, text), audio, seen)
        except ManifestError as error:
            rejected.append(Rejected(place, error.record()))
            continue
        subset = {"subset": parts[0]} if len(parts := Path(entry.relative).parts) > _FIELDS else {}
        slices = {**subset, **speakers.get(entry.speaker, {})}
        entries.append(Entry(entry.key, entry.path, entry.relative, entry.text, entry.speaker, slices))
    for key in sorted(set(audio) - seen):
        name = storable(audio[key])
        msg = f"{name} has no line in the transcript of its chapter."
        hint = f"Add {storable(key)} and its words to a {_TRANSCRIPT} file."
        problem = ManifestError(msg, code="missing-text", hint=hint)
        rejected.append(Rejected(f"{storable(relative)}/{name}", problem.record()))


def _entry(root: Path, chapter: Path, line: tuple[str, str], audio: Mapping[str, str], seen: set[str]) -> Entry:
    key, text = line
    if key in seen:
        msg = f"The utterance {key!r} stands in its transcript twice."
        raise ManifestError(msg, code="duplicate-id", hint="Remove one of the lines.")
    if key not in audio:
        msg = f"The utterance {key!r} has no audio file beside its transcript."
        raise ManifestError(msg, code="missing-file", hint="Unpack the subset again.")
    seen.add(key)
    path = locate(root, chapter / audio[key])
    if not text:
        msg = f"The utterance {key!r} has no words in its transcript."
        raise ManifestError(msg, code="missing-text", hint="Add them, or remove the line and the file.")
    relative = (chapter / audio[key]).relative_to(root).as_posix()
    return Entry(key, path, relative, text, chapter.parent.name)


def _lines(root: Path, chapter: Path, names: list[str]) -> list[tuple[str, str, str]]:
    """Place, utterance and words of every line of a chapter's transcripts."""
    found = []
    for name in (name for name in names if name.endswith(_TRANSCRIPT)):
        path = locate(root, chapter / name)
        relative = storable((chapter / name).relative_to(root).as_posix())
        for number, line in enumerate(read_text(path).split("\n"), 1):
            key, _, text = line.strip().partition(" ")
            if key:
                found.append((f"{relative}:{number}", key, " ".join(text.split())))
    return found


def _refuse_link(root: Path, folder: Path) -> None:
    if not folder.resolve().is_relative_to(root):
        msg = f"{storable(folder.name)!r} is a link to a folder outside the dataset; it was not followed."
        raise ManifestError(msg, code="outside-dataset", hint="Copy the folder to its place.")


def _as_manifest_error(error: Exception, relative: str) -> ManifestError:
    if isinstance(error, ManifestError):
        return error
    why = (getattr(error, "strerror", None) or "unknown reason").lower()
    msg = f"The folder {storable(relative)!r} cannot be read: {why}."
    return ManifestError(msg, code="unreadable", hint="Check its permissions.")
