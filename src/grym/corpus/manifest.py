"""Manifests: CSV or JSON Lines files that name clips, read row by row; a bad row never spoils the good ones.

Knows nothing about settings or about what is inside an audio file: a row whose
file is missing is an entry, and fails when it is decoded. Times are seconds.

Columns, as in NeMo: ``audio_filepath``, ``text``, and optionally ``duration``,
``offset``, ``id`` and ``speaker``. A column ``question1`` with its ``answer1`` (and so on, or ``question``
with ``answer``) is a question about the clip. Every other column becomes a slice, ``label`` among them. The
names that other tools use are understood too; see :data:`ALIASES`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from grym.errors import ErrorRecord, ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SUFFIXES: Final = (".csv", ".jsonl", ".json")
ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "audio": ("audio_filepath", "path", "file", "file_name"),
    "text": ("text", "transcript", "transcription", "sentence"),
    "speaker": ("speaker", "speaker_id"),
    "id": ("id",),
    "offset": ("offset",),
    "duration": ("duration",),
}
_FIELDS: Final = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
_QUESTION: Final = re.compile(r"question(?P<number>[0-9]{0,3})")
_PATH_HINT: Final = "Name the file in a column audio_filepath, relative to the manifest's folder."


@dataclass(frozen=True, slots=True)
class Entry:
    """One clip of a dataset, not yet decoded.

    Attributes:
        key: unique name of the clip in its dataset.
        path: absolute file; inside the dataset's folder, but not known to exist.
        relative: the file relative to the dataset's folder, with forward slashes.
        text: reference text, as written.
        speaker: who speaks; empty if unknown.
        slices: what results are broken down by; columns without a value are left out.
        offset: where the clip starts in the file, in seconds.
        duration: its length in seconds; ``None`` is up to the end of the file.
        questions: pairs of a question about the clip and its short answer.
    """

    key: str
    path: Path
    relative: str
    text: str
    speaker: str = ""
    slices: Mapping[str, str] = field(default_factory=dict)
    offset: float = 0.0
    duration: float | None = None
    questions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row or file that cannot become an entry: its place (``manifest.csv:7`` or a file) and why."""

    key: str
    error: ErrorRecord


@dataclass(frozen=True, slots=True)
class Dataset:
    """Clips under one name: what can be used, in a fixed order, and what was refused."""

    name: str
    root: Path
    entries: tuple[Entry, ...]
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one manifest says; ``mentioned`` are the files it names, in good rows and bad ones."""

    entries: tuple[Entry, ...]
    rejected: tuple[Rejected, ...]
    mentioned: frozenset[Path]


@dataclass(frozen=True, slots=True)
class _Row:
    """One row: its line (from 1) and its values, or what broke it."""

    line: int
    values: Mapping[str, Any]
    problem: str = ""


def read_manifest(path: Path) -> Manifest:
    """Read a ``.csv`` file, or a ``.jsonl`` (``.json``) file with one object a line.

    Args:
        path: UTF-8, with or without a byte order mark.

    Raises:
        ManifestError: the file as a whole is of no use: ``unreadable``, ``not-utf8``, ``empty-manifest``,
            ``missing-column``, ``duplicate-column`` or ``unknown-format``. Bad rows raise nothing;
            they are in ``rejected``.
    """
    if path.suffix.lower() not in SUFFIXES:
        msg = f"{path.name} is no manifest: its name ends in none of {', '.join(SUFFIXES)}."
        raise ManifestError(msg, code="unknown-format", hint="Use a CSV or JSON Lines file, or a folder of audio.")
    # Not str.splitlines: that would also cut at the rarer line ends, which a text may contain.
    lines = list(io.StringIO(read_text(path), newline=""))
    rows = _csv_rows(lines, path.name) if path.suffix.lower() == ".csv" else _json_rows(lines)
    root = path.parent.resolve()
    entries: dict[str, Entry] = {}
    lines_of: dict[str, int] = {}
    rejected: list[Rejected] = []
    mentioned: set[Path] = set()
    for row in rows:
        try:
            entry = _entry(row, root, mentioned)
            _check_new(entry.key, lines_of)
        except ManifestError as error:
            rejected.append(Rejected(f"{path.name}:{row.line}", error.record()))
            continue
        entries[entry.key] = entry
        lines_of[entry.key] = row.line
    return Manifest(tuple(entries.values()), tuple(rejected), frozenset(mentioned))


def _check_new(key: str, lines_of: Mapping[str, int]) -> None:
    if key in lines_of:
        msg = f"The id {key!r} stands in line {lines_of[key]} already."
        raise ManifestError(msg, code="duplicate-id", hint="Give every clip an id of its own.")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file without its byte order mark.

    Raises:
        ManifestError: it is missing, cannot be read, is empty or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"{path.name or path} cannot be read: {(error.strerror or 'unknown reason').lower()}."
        raise ManifestError(msg, code="unreadable", hint="Check the file and its permissions.") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        msg = f"{path.name} is not UTF-8: line {line} cannot be decoded."
        raise ManifestError(msg, code="not-utf8", hint="Save it as UTF-8.") from error
    if not text.strip():
        msg = f"{path.name} is empty."
        raise ManifestError(msg, code="empty-manifest", hint="Write one line for every clip.")
    return text


def locate(root: Path, path: Path) -> Path:
    """The real file behind a path, which has to lie below ``root``.

    Args:
        root: the dataset's folder, resolved.
        path: relative to ``root``, or absolute.

    Raises:
        ManifestError: it is outside (``..``, another folder, a link that leads out), or is no path at all.
    """
    try:
        real = (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a zero byte
        msg = f"{path.name!r} is not a path that leads to a file."
        raise ManifestError(msg, code="missing-path", hint=_PATH_HINT) from error
    if real == root or not real.is_relative_to(root):
        msg = f"{path.name!r} does not lead to a file inside the folder of the dataset."
        hint = "Copy the file into the folder; links and '..' must not lead out of it."
        raise ManifestError(msg, code="outside-dataset", hint=hint)
    return real


def _csv_rows(lines: list[str], name: str) -> Iterator[_Row]:
    """Rows of a CSV file; a quote that is never closed costs its own line, not the rest of the file."""
    start, header = 0, None
    while start < len(lines):
        reader = csv.reader((lines[i] for i in range(start, len(lines))), strict=True)
        try:
            values, problem = next(reader), ""
        except csv.Error as error:
            values, problem = [], str(error)
        used = 1 if problem else reader.line_num
        if header is None and (problem or values):
            header = _header(values, name)
        elif header is not None and (problem or values):
            if not problem and len(values) != len(header):
                problem, used = f"{len(values)} values for {len(header)} columns", 1
            yield _Row(start + 1, {} if problem else dict(zip(header, values, strict=True)), problem)
        start += used


def _header(values: list[str], name: str) -> list[str]:
    header = [_column(value) for value in values]
    twice = sorted({value for value in header if value and header.count(value) > 1})
    if twice:
        msg = f"{name} has the column {twice[0]!r} twice."
        raise ManifestError(msg, code="duplicate-column", hint="Rename one of them.")
    for what in ("audio", "text"):
        if not set(ALIASES[what]) & set(header):
            msg = f"{name} has no column for {what}: none of {', '.join(ALIASES[what])} is in its first line."
            raise ManifestError(msg, code="missing-column", hint="Start the file with a line of column names.")
    return header


def _json_rows(lines: list[str]) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            yield _Row(number, {}, "it is not JSON")
            continue
        if isinstance(values, dict):
            yield _Row(number, {_column(key): value for key, value in values.items()})
        else:
            yield _Row(number, {}, "it is not an object in braces")


def _column(name: str) -> str:
    """A column's name; those with a meaning are recognised in any case."""
    folded = name.strip().lower()
    return folded if folded in _FIELDS else name.strip()


def _entry(row: _Row, root: Path, mentioned: set[Path]) -> Entry:
    if row.problem:
        msg = f"Line {row.line} is broken: {row.problem}."
        raise ManifestError(msg, code="broken-line", hint="Mend or remove the line.")
    raw = _pick(row, "audio")
    if not raw:
        msg = f"Line {row.line} names no audio file."
        raise ManifestError(msg, code="missing-path", hint=_PATH_HINT)
    path = locate(root, root / raw)
    mentioned.add(path)
    text = _pick(row, "text")
    if not text:
        msg = f"Line {row.line} has no reference text for {path.name!r}."
        raise ManifestError(msg, code="missing-text", hint="Fill the column text, or remove the line.")
    offset = _seconds(row, "offset") or 0.0
    relative = path.relative_to(root).as_posix()
    asked = _asked(row)
    told = {column for pair in asked for column in pair} | set(_FIELDS)
    pairs = ((_plain(row, question), _plain(row, answer)) for question, answer in asked)
    return Entry(
        # Segments of one long recording differ by where they start.
        key=_pick(row, "id") or (f"{relative}@{offset}" if offset else relative),
        path=path,
        relative=relative,
        text=text,
        speaker=_pick(row, "speaker"),
        slices={k: v for k, v in ((k, _plain(row, k)) for k in row.values if k not in told) if k and v},
        offset=offset,
        duration=_seconds(row, "duration"),
        questions=tuple(pair for pair in pairs if all(pair)),
    )


def _asked(row: _Row) -> list[tuple[str, str]]:
    """Columns with a question and its answer, in the order of their numbers; either one alone is a slice."""
    found = [(match["number"], name) for name in row.values if (match := _QUESTION.fullmatch(name))]
    pairs = [(int(number or 0), name, f"answer{number}") for number, name in found if f"answer{number}" in row.values]
    return [(question, answer) for _, question, answer in sorted(pairs)]


def _pick(row: _Row, what: str) -> str:
    """The first value that any name of a column has; empty if there is none."""
    return next((value for value in (_plain(row, name) for name in ALIASES[what]) if value), "")


def _plain(row: _Row, column: str) -> str:
    """A value as text without spaces around it; ``None`` is empty, numbers are written out."""
    value = row.values.get(column)
    if value is None:
        return ""
    if column in _FIELDS and isinstance(value, (list, dict, bool)):
        msg = f"Line {row.line} is broken: {column!r} is neither a text nor a number."
        raise ManifestError(msg, code="broken-line", hint="Mend or remove the line.")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = f"Line {row.line} is broken: {column!r} holds half a character."
        raise ManifestError(msg, code="broken-line", hint="Mend or remove the line.") from error
    return text.strip()


def _seconds(row: _Row, column: str) -> float | None:
    """A time in seconds; ``None`` if the column is empty."""
    raw = _plain(row, column)
    if not raw:
        return None
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and (value > 0 or (value == 0 and column == "offset")):
        return value
    msg = f"Line {row.line} has the {column} {raw[:40]!r}, which is no length of time in seconds."
    raise ManifestError(msg, code="bad-number", hint="Write seconds with a decimal point, for example 1.25.")
