"""Datasets by name or path: manifests, folders of audio, and the layouts of public datasets.

Knows nothing about what is inside an audio file. Whatever cannot be used is kept
beside the entries with its reason; only a dataset without any usable entry is an
error. The order of entries is the manifest's, or that of the file names.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grym.audio import storable
from grym.config import DatasetSpec
from grym.corpus.esc50 import load_esc50
from grym.corpus.hub import OPTIONS as HUB_OPTIONS
from grym.corpus.hub import load_hub
from grym.corpus.librispeech import load_librispeech
from grym.corpus.manifest import SUFFIXES, Dataset, Entry, Manifest, Rejected, locate, read_manifest, read_text
from grym.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from grym.config import Settings

AUDIO_SUFFIXES: Final = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus"})
_METADATA: Final = ("metadata.csv", "metadata.jsonl")
_OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "manifest": frozenset(),
    "folder": frozenset(),
    "fsdd": frozenset({"takes"}),
    "librispeech": frozenset({"subset"}),
    "esc50": frozenset({"fold", "esc10"}),
    "hub": HUB_OPTIONS,
}
_FSDD_NAME: Final = re.compile(r"(?P<digit>[0-9])_(?P<speaker>.+)_(?P<take>[0-9]{1,6})\.wav")
_FSDD_HINT: Final = (
    "Fetch it with `python -m flows datasets fetch fsdd` (CC BY-SA 4.0, 16 MB), or set GRYM_FSDD to a copy of "
    "https://github.com/Jakobovski/free-spoken-digit-dataset."
)


def load_dataset(name_or_path: str, settings: Settings) -> Dataset:
    """Everything a dataset names, usable or not.

    Args:
        name_or_path: a name from ``[datasets]`` of grym.toml, else a manifest (``.csv``, ``.jsonl``) or a folder,
            relative to the working directory.
        settings: what grym.toml says.

    Raises:
        ConfigError: neither name nor path, wrong options, or the files of a registered dataset are not there.
        ManifestError: the manifest cannot be used as a whole, or no entry of the dataset can.
    """
    spec = find_spec(name_or_path, settings)
    wrong = sorted(set(spec.options) - _OPTIONS[spec.loader])
    if wrong:
        msg = f"Dataset {spec.name!r} has the option {wrong[0]!r}, which loader {spec.loader!r} does not know."
        raise ConfigError(msg, code="bad-option", hint=f"Remove it from [datasets.{spec.name}] in grym.toml.")
    dataset = _LOADERS[spec.loader](spec)
    if not dataset.entries:
        first = f"; the first of {len(dataset.rejected)} refused: {_why(dataset)}" if dataset.rejected else ""
        msg = f"Dataset {dataset.name!r} has no usable entry{first or '.'}"
        raise ManifestError(msg, code="no-entries", hint=_advice(spec))
    return dataset


def find_spec(name_or_path: str, settings: Settings) -> DatasetSpec:
    """What grym.toml says about a dataset, or what a path that was typed amounts to.

    Raises:
        ConfigError: neither name nor path.
    """
    return settings.datasets.get(name_or_path) or _unregistered(name_or_path, settings)


def _advice(spec: DatasetSpec) -> str:
    manifests = sorted(p.name for p in spec.path.iterdir() if p.suffix in SUFFIXES) if spec.path.is_dir() else []
    if manifests and spec.loader == "folder" and manifests[0] not in _METADATA:
        return f"If {manifests[0]} is its manifest, name that file instead of the folder."
    return "Name audio files and their texts; see datasets/README.md."


def _why(dataset: Dataset) -> str:
    return f"{dataset.rejected[0].key}: {dataset.rejected[0].error.message}"


def _unregistered(given: str, settings: Settings) -> DatasetSpec:
    """A path that was typed, as a dataset."""
    try:
        path = Path(os.path.abspath(Path(given).expanduser()))  # noqa: PTH100 - links stay as typed
        folder, file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError, ValueError):
        folder = file = False
    if given and folder:
        return DatasetSpec(name=path.name or "root", loader="folder", path=path)
    if file and path.suffix.lower() in SUFFIXES:
        return DatasetSpec(name=f"{path.parent.name}/{path.name}", loader="manifest", path=path)
    known = ", ".join(sorted(settings.datasets)) or "none"
    if file:
        msg = f"{path.name} is a file, but no manifest: its name ends in none of {', '.join(SUFFIXES)}."
    else:
        msg = f"Unknown dataset {given!r}: grym.toml knows {known}, and no file or folder has that path."
    hint = "Use a registered name, or the path of a folder of audio, of a .csv or of a .jsonl manifest."
    raise ConfigError(msg, code="unknown-dataset", hint=hint)


def _load_manifest(spec: DatasetSpec) -> Dataset:
    if not spec.path.is_file():
        msg = f"The manifest {spec.path.name} of dataset {spec.name!r} does not exist."
        raise ConfigError(msg, code="no-dataset", hint=f"Correct path in [datasets.{spec.name}] of grym.toml.")
    manifest = read_manifest(spec.path)
    return Dataset(spec.name, spec.path.parent.resolve(), manifest.entries, manifest.rejected)


def _load_folder(spec: DatasetSpec) -> Dataset:
    """Audio files with their texts from metadata (``file_name,transcription``) or from ``NAME.txt`` beside."""
    if not spec.path.is_dir():
        msg = f"The folder {spec.path.name} of dataset {spec.name!r} does not exist."
        raise ConfigError(msg, code="no-dataset", hint=f"Correct path in [datasets.{spec.name}] of grym.toml.")
    root = spec.path.resolve()
    metadata = next((root / name for name in _METADATA if (root / name).is_file()), None)
    manifest = read_manifest(metadata) if metadata else Manifest((), (), frozenset())
    entries = [_in_folder(entry) for entry in manifest.entries]
    taken = {entry.key for entry in entries}
    rejected = list(manifest.rejected)
    for relative, problem in _walk(root):
        try:
            if problem:
                raise problem
            path = locate(root, root / relative)
            if path in manifest.mentioned:
                continue
            if relative in taken:
                msg = f"The name of {relative!r} is the id of another clip in the metadata."
                raise ManifestError(msg, code="duplicate-id", hint="Give that clip another id.")  # noqa: TRY301 - one exit
            entries.append(_in_folder(Entry(relative, path, relative, _sidecar(root, root / relative))))
        except ManifestError as error:
            rejected.append(Rejected(storable(relative), error.record()))
    return Dataset(spec.name, root, tuple(sorted(entries, key=lambda entry: entry.key)), tuple(rejected))


def _walk(root: Path) -> Iterator[tuple[str, ManifestError | None]]:
    """Audio files below a folder in a fixed order, relative to it, and what stands in the way of finding more."""
    unreadable: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        audio = [n for n in files if Path(n).suffix.lower() in AUDIO_SUFFIXES and not n.startswith(".")]
        for name in [*links, *sorted(audio)]:
            relative = (here / name).relative_to(root).as_posix()
            if relative != storable(relative):
                msg = f"The name of {storable(relative)!r} is not UTF-8."
                yield relative, ManifestError(msg, code="bad-name", hint="Rename the file.")
            elif name not in links:
                yield relative, None
            elif not (here / name).resolve().is_relative_to(root):  # other links lead to files that are met anyway
                msg = f"{relative!r} is a link to a folder outside the dataset; it was not followed."
                yield relative, ManifestError(msg, code="outside-dataset", hint="Copy the folder to its place.")
    for error in unreadable:
        relative = Path(error.filename).relative_to(root).as_posix()
        msg = f"The folder {storable(relative)!r} cannot be read: {(error.strerror or 'unknown reason').lower()}."
        yield relative, ManifestError(msg, code="unreadable", hint="Check its permissions.")


def _in_folder(entry: Entry) -> Entry:
    """The entry with the sub-folder it lies in as the slice ``folder``."""
    parent = Path(entry.relative).parent.as_posix()
    slices = entry.slices if parent == "." else {**entry.slices, "folder": parent}
    return replace(entry, slices=slices)


def _sidecar(root: Path, audio: Path) -> str:
    """The text in ``NAME.txt`` beside ``NAME.wav``, lines joined by spaces."""
    path = audio.with_suffix(".txt")
    if not path.is_file():
        msg = f"{audio.name} has no reference text: neither {path.name} nor a line of metadata.csv."
        raise ManifestError(msg, code="missing-text", hint=f"Write what is said into {path.name}.")
    locate(root, path)
    try:
        return " ".join(read_text(path).split())
    except ManifestError as error:
        if error.code != "empty-manifest":
            raise
        msg = f"{path.name}, the reference text of {audio.name}, is empty."
        raise ManifestError(msg, code="missing-text", hint="Write what is said into it.") from error


def _load_fsdd(spec: DatasetSpec) -> Dataset:
    """``recordings/{digit}_{speaker}_{take}.wav``; speakers are whoever is in the file names."""
    recordings = spec.path / "recordings"
    if not recordings.is_dir():
        msg = f"Dataset {spec.name!r} is not on this machine: its folder, or recordings/ in it, does not exist."
        raise ConfigError(msg, code="no-dataset", hint=_FSDD_HINT)
    from grym.corpus.digits import WORDS  # here, so that `python -m grym.corpus.digits` is not imported before it runs

    takes = _takes(spec)
    root = spec.path.resolve()
    entries: list[tuple[tuple[str, str, int], Entry]] = []
    rejected: list[Rejected] = []
    for name in sorted(path.name for path in recordings.glob("*.wav")):
        relative = f"recordings/{name}"
        found = _FSDD_NAME.fullmatch(name)
        try:
            if found is None or name != storable(name):
                msg = f"{storable(name)} is not named digit_speaker_take.wav."
                raise ManifestError(msg, code="bad-name", hint="Rename or remove the file.")  # noqa: TRY301 - one exit
            digit, speaker, take = found["digit"], found["speaker"], int(found["take"])
            if takes is not None and take not in takes:
                continue
            path = locate(root, root / relative)
            entry = Entry(path.stem, path, relative, WORDS[int(digit)], speaker, {"digit": digit})
            entries.append(((digit, speaker, take), entry))
        except ManifestError as error:
            rejected.append(Rejected(storable(relative), error.record()))
    entries.sort(key=lambda pair: pair[0])
    return Dataset(spec.name, root, tuple(entry for _, entry in entries), tuple(rejected))


def _takes(spec: DatasetSpec) -> frozenset[int] | None:
    """The takes that ``takes = "0-4,7"`` asks for; ``None`` is all of them."""
    if "takes" not in spec.options:
        return None
    wanted: set[int] = set()
    for part in str(spec.options["takes"]).split(","):
        found = re.fullmatch(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*", part)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            msg = f"takes = {str(spec.options['takes'])!r} of dataset {spec.name!r} is no list of takes."
            raise ConfigError(msg, code="bad-option", hint='Write numbers and ranges, for example "0-4" or "0-4,7".')
        wanted.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return frozenset(wanted)


_LOADERS: Final[Mapping[str, Callable[[DatasetSpec], Dataset]]] = {
    "manifest": _load_manifest,
    "folder": _load_folder,
    "fsdd": _load_fsdd,
    "librispeech": load_librispeech,
    "esc50": load_esc50,
    "hub": load_hub,
}
