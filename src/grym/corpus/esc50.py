"""The layout of ESC-50: ``audio/*.wav`` and ``meta/esc50.csv`` with a label for every clip.

Nobody speaks: the reference text of a clip is its label in words
(``crackling_fire`` is "crackling fire"), so a model that names sounds can be
compared. Label, group of labels and fold are slices. Knows nothing about what is
inside an audio file.

Source: Piczak, "ESC: Dataset for Environmental Sound Classification", ACM
Multimedia 2015; https://github.com/karolpiczak/ESC-50.
"""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Final

from grym.audio import storable
from grym.corpus.manifest import Dataset, Entry, Rejected, locate, read_text
from grym.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from grym.config import DatasetSpec

META: Final = "meta/esc50.csv"
_COLUMNS: Final = ("filename", "fold", "target", "category")
# Ten labels each, in the order of ``target``: the columns of the table in the dataset's README.
GROUPS: Final = ("animals", "nature", "human", "domestic", "urban")
_PER_GROUP: Final = 10
_TRUE: Final = frozenset({"true", "1", "yes"})


def load_esc50(spec: DatasetSpec) -> Dataset:
    """Every clip of ``meta/esc50.csv``, or those of some folds.

    Options: ``fold`` (``"1"`` or ``"1,5"``; all of them without it) and ``esc10 = true`` for the ten easy labels.

    Raises:
        ConfigError: the folder is not there, or an option is wrong.
        ManifestError: the table as a whole is of no use.
    """
    if not (spec.path / META).is_file():
        msg = f"Dataset {spec.name!r} is not on this machine: {META} is not in its folder."
        hint = (
            "Get it from https://github.com/karolpiczak/ESC-50 (CC BY-NC 3.0) and correct path in "
            f"[datasets.{spec.name}] of grym.toml."
        )
        raise ConfigError(msg, code="no-dataset", hint=hint)
    folds, only_esc10 = _folds(spec), _esc10(spec)
    root = spec.path.resolve()
    entries: dict[str, Entry] = {}
    rejected: list[Rejected] = []
    for number, row in _rows(root):
        try:
            entry = _entry(root, row, number)
            if entry.key in entries:
                msg = f"Line {number} names {entry.key!r}, which an earlier line names already."
                raise ManifestError(msg, code="duplicate-id", hint="Remove one of the lines.")  # noqa: TRY301 - one exit
        except ManifestError as error:
            rejected.append(Rejected(f"{META}:{number}", error.record()))
            continue
        if (not folds or entry.slices["fold"] in folds) and (not only_esc10 or _is_esc10(row)):
            entries[entry.key] = entry
    return Dataset(spec.name, root, tuple(entries.values()), tuple(rejected))


def _folds(spec: DatasetSpec) -> frozenset[str]:
    """The folds that were asked for; empty is all of them."""
    if "fold" not in spec.options:
        return frozenset()
    given = spec.options["fold"]
    parts = [part.strip() for part in str(given).split(",")]
    if isinstance(given, bool) or not all(re.fullmatch("[1-9][0-9]?", part) for part in parts):
        msg = f"fold = {str(given)!r} of dataset {spec.name!r} is no list of folds."
        raise ConfigError(msg, code="bad-option", hint='Write numbers, for example 1 or "1,5".')
    return frozenset(parts)


def _esc10(spec: DatasetSpec) -> bool:
    given = spec.options.get("esc10", False)
    if not isinstance(given, bool):
        msg = f"esc10 = {given!r} of dataset {spec.name!r} is neither true nor false."
        raise ConfigError(msg, code="bad-option", hint="Write esc10 = true, or leave it out.")
    return given


def _is_esc10(row: Mapping[str, str]) -> bool:
    return row.get("esc10", "").strip().lower() in _TRUE


def _rows(root: Path) -> list[tuple[int, Mapping[str, str]]]:
    """Line and values of every row; a row that is too short has empty values."""
    text = read_text(locate(root, root / META))
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="", restkey="", strict=True)
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        msg = f"{META} has no column {missing[0]!r}."
        raise ManifestError(msg, code="missing-column", hint="Get the file again from its source.")
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        msg = f"{META} is broken near line {reader.line_num}: {error}."
        raise ManifestError(msg, code="broken-line", hint="Get the file again from its source.") from error


def _entry(root: Path, row: Mapping[str, str], number: int) -> Entry:
    name, fold, target, label = (row[column].strip() for column in _COLUMNS)
    if not name:
        msg = f"Line {number} names no audio file."
        raise ManifestError(msg, code="missing-path", hint="Get the table again from its source.")
    path = locate(root, root / "audio" / name)
    if not label:
        msg = f"Line {number} has no label for {storable(name)!r}."
        raise ManifestError(msg, code="missing-text", hint="Fill the column category, or remove the line.")
    if not re.fullmatch("[1-9][0-9]?", fold) or not re.fullmatch("[0-9]{1,2}", target):
        msg = f"Line {number} has the fold {fold[:20]!r} and the target {target[:20]!r}, which are no such numbers."
        raise ManifestError(msg, code="bad-number", hint="Get the table again from its source.")
    if not path.is_file():
        msg = f"{storable(name)} of line {number} is not in the folder audio."
        raise ManifestError(msg, code="missing-file", hint="Unpack the dataset again.")
    slices = {"label": label, "fold": fold}
    if int(target) < _PER_GROUP * len(GROUPS):
        slices["group"] = GROUPS[int(target) // _PER_GROUP]
    return Entry(path.stem, path, f"audio/{name}", " ".join(label.replace("_", " ").split()), slices=slices)
