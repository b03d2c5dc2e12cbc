"""Transcripts that exist already: NIST ``trn``, CSV and JSON Lines, one utterance a line.

Knows nothing about scoring. What it reads are raw texts with ids; a line that
cannot be understood stops the reading, because an utterance that is left out
without a word would change every number.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from grym.corpus.manifest import read_text
from grym.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEFAULT_SPEAKER: Final = r"([^-_]+)[-_]"
IDS: Final = ("id", "utt_id", "utterance_id", "audio_filepath", "path", "file", "file_name")
TEXTS: Final = ("text", "transcript", "transcription", "sentence")
ANSWERS: Final = ("pred_text", "hypothesis", "prediction", *TEXTS)
SPEAKERS: Final = ("speaker", "speaker_id")
_TRN: Final = re.compile(r"(.*)\(([^()\s]+)\)\s*", re.DOTALL)
_TAG: Final = re.compile(r"(?<=[^\s{}/])(?<!\\);[^\s{}/]*")
_MAX_FIELD: Final = 16_000_000


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of a transcript.

    Attributes:
        text: as written.
        speaker: who speaks; empty if unknown.
        columns: every other column that has a value.
    """

    text: str
    speaker: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Transcripts:
    """One file.

    Attributes:
        name: of the file.
        format: ``trn``, ``csv`` or ``jsonl``.
        utterances: by id, in the order of the file.
        unanswered: ids that stand in the file with a null instead of a text.
    """

    name: str
    format: str
    utterances: Mapping[str, Utterance]
    unanswered: tuple[str, ...] = ()


def read_transcripts(
    path: Path, *, answers: bool = False, speaker: str = "auto", ignore_case: bool = False
) -> Transcripts:
    r"""Read a transcript: ``.csv``, ``.tsv``, ``.jsonl`` (``.ndjson``, ``.json``), anything else is NIST ``trn``.

    A ``trn`` line is the text, then the id in parentheses; lines that start with ``;;`` are comments, and
    ``word;tag`` is ``word`` (``\;`` is a semicolon). Its speaker is the part of the id before the first
    ``-`` or ``_``. Tables have columns: an id (or the audio file), a text, perhaps a speaker.

    Args:
        path: UTF-8 file.
        answers: read answers of a system: a column ``pred_text``, ``hypothesis`` or ``prediction`` goes
            before ``text``, and a null is an utterance without an answer instead of an error.
        speaker: ``auto``, ``none``, or a regular expression whose first group, matched from the start of
            the id, is the speaker.
        ignore_case: lower-case ids and speakers.

    Raises:
        ManifestError: ``no-id``, ``duplicate-id``, ``missing-column``, ``missing-text``, ``broken-line``, or
            the file is missing, empty or not UTF-8.
        ConfigError: the regular expression is none, or has no group.
    """
    rule = _speaker_rule(speaker)
    suffix = path.suffix.lower()
    kind = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}.get(suffix, "trn")
    lines = io.StringIO(read_text(path), newline="")
    if kind == "trn":
        rows = _trn_rows(lines, path.name)
    else:
        table = _csv_rows(lines, path.name, suffix) if kind == "csv" else _json_rows(lines, path.name)
        rows = _table_rows(table, path.name, answers=answers)
    utterances: dict[str, Utterance] = {}
    unanswered: list[str] = []
    seen: dict[str, int] = {}
    for line, written, text, columns in rows:
        identity = written.lower() if ignore_case else written
        if identity in seen:
            msg = f"{path.name} has the id {identity!r} in line {seen[identity]} and again in line {line}."
            raise ManifestError(msg, code="duplicate-id", hint="Keep one line for each utterance.")
        seen[identity] = line
        if text is None:
            unanswered.append(identity)
            continue
        given = next((columns[name] for name in SPEAKERS if columns.get(name)), "")
        who = _speaker(written, given, rule, kind, speaker)
        utterances[identity] = Utterance(text, who.lower() if ignore_case else who, columns)
    return Transcripts(path.name, kind, utterances, tuple(unanswered))


def _speaker_rule(speaker: str) -> re.Pattern[str] | None:
    if speaker == "none":
        return None
    try:
        rule = re.compile(DEFAULT_SPEAKER if speaker == "auto" else speaker)
    except re.error as error:
        msg = f"The speaker rule {speaker!r} is no regular expression: {error}."
        raise ConfigError(msg, code="bad-speaker", hint="Use auto, none, or for example '(.{3})'.") from error
    if not rule.groups:
        msg = f"The speaker rule {speaker!r} has no group in parentheses."
        raise ConfigError(msg, code="bad-speaker", hint="Put what names the speaker into parentheses: '(.{3})'.")
    return rule


def _speaker(identity: str, given: str, rule: re.Pattern[str] | None, kind: str, speaker: str) -> str:
    """From the rule that was asked for, else from the column, else (in trn) from the id."""
    if rule is None:
        return ""
    if speaker == "auto" and (given or kind != "trn"):
        return given
    found = rule.match(identity)
    return (found[1] or "") if found else ""


_Row = tuple[int, str, str | None, Mapping[str, str]]


def _trn_rows(lines: io.StringIO, name: str) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";;"):
            continue
        found = _TRN.fullmatch(line.rstrip("\r\n"))
        if found is None:
            msg = f"Line {number} of {name} does not end in an id in parentheses."
            raise ManifestError(msg, code="no-id", hint="Write 'text (id)', or name the file .csv or .jsonl.")
        yield number, found[2], _TAG.sub("", found[1]).replace("\\;", ";"), {}


def _csv_rows(lines: io.StringIO, name: str, suffix: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(_MAX_FIELD)
    reader = csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
    try:
        header = [column.strip() for column in reader.fieldnames or []]
        if len(set(header)) < len(header):
            msg = f"{name} has a column twice: {', '.join(header)}."
            raise ManifestError(msg, code="duplicate-column", hint="Rename one of them.")
        reader.fieldnames = header
        for row in reader:
            if None in row or None in row.values():
                msg = f"Line {reader.line_num} of {name} has more or fewer values than the {len(header)} columns."
                raise ManifestError(msg, code="broken-line", hint="Put texts with commas into quotes.")
            yield reader.line_num, row
    except csv.Error as error:
        msg = f"Line {reader.line_num} of {name} is broken: {error}."
        raise ManifestError(msg, code="broken-line", hint="Mend the quotes of the line.") from error


def _json_rows(lines: io.StringIO, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            msg = f"Line {number} of {name} is not an object in braces."
            raise ManifestError(msg, code="broken-line", hint="Write one JSON object a line.")
        yield number, row


def _table_rows(table: Iterator[tuple[int, Mapping[str, Any]]], name: str, *, answers: bool) -> Iterator[_Row]:
    texts = ANSWERS if answers else TEXTS
    for line, row in table:
        known = {
            key: next((column for column in names if column in row), "")
            for key, names in (("id", IDS), ("text", texts))
        }
        for what, column in known.items():
            if not column:
                names = ", ".join(IDS if what == "id" else texts)
                msg = f"Line {line} of {name} has no column for the {what}: none of {names}."
                raise ManifestError(msg, code="missing-column", hint="Name the columns in the first line.")
        identity = _plain(row[known["id"]]).strip()
        if not identity:
            msg = f"Line {line} of {name} has no id."
            raise ManifestError(msg, code="no-id", hint="Give every utterance an id.")
        text = row[known["text"]]
        if not isinstance(text, str) and not (text is None and answers):
            msg = f"Line {line} of {name} has no text for {identity!r} but {_plain(text)[:40] or 'null'}."
            raise ManifestError(msg, code="missing-text", hint="Write texts in quotes; silence is an empty text.")
        others = {key: _plain(value).strip() for key, value in row.items() if key not in known.values()}
        yield line, identity, text, {key: value for key, value in others.items() if value}


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
