"""Streams a dataset of the Hugging Face Hub to files; runs as a process of its own, started by :mod:`grym.corpus.hub`.

A process of its own because the library's streaming imports torch and leaves
threads behind that end an interpreter badly, and because what it parses comes from
strangers. Nothing is decoded, so neither torchcodec nor FFmpeg is needed.

Standard input is one JSON object (the fields of ``grym.corpus.hub.Request``);
standard output is a line of JSON for each event: ``{"event": "row", "done": n}``,
``{"event": "error", ...}`` with the fields of :class:`grym.errors.ErrorRecord`, or
``{"event": "done", "rows": n, "revision", "licence"}``. In the folder ``out`` it
writes ``audio/SHA256.EXT``, ``manifest.jsonl`` and ``problems.jsonl``.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from grym.errors import ConfigError, GrymError, ManifestError, ResourceError, StorageError
from grym.parts import FULL
from grym.worker.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_BYTES: Final = 1 << 29  # of one clip: 512 MiB are four hours and a half at 16 kHz and 16 bit
_MAGIC: Final = (
    (b"RIFF", ".wav"), (b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"ID3", ".mp3"), (b"\xff\xfb", ".mp3"),
    (b"\xff\xf3", ".mp3"), (b"\xff\xf2", ".mp3"),
)  # fmt: skip
# Names, because the libraries that define them are imported only when they are needed.
_UNREACHABLE: Final = frozenset(
    {"OfflineModeIsEnabled", "TransportError", "ConnectionError", "LocalEntryNotFoundError", "ClientError"}
)
_UNKNOWN: Final = frozenset(
    {
        "RepositoryNotFoundError",
        "DatasetNotFoundError",
        "RevisionNotFoundError",
        "EntryNotFoundError",
        "FileNotFoundError",
    }
)


def main() -> int:
    """Read the request, write the files, tell how it goes; returns the exit code."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no event
    request = json.load(sys.stdin)

    def say(event: str, **facts: object) -> None:
        events.write(json.dumps({"event": event, **facts}) + "\n")
        events.flush()

    try:
        revision, licence = _identity(request)
        rows = 0
        for rows in _write(request, revision):
            say("row", done=rows)
        say("done", rows=rows, revision=revision, licence=licence)
    except Exception as error:  # noqa: BLE001 - the libraries raise errors of ten kinds; every one is told
        say("error", **asdict((error if isinstance(error, GrymError) else _explain(error, _shown(request))).record()))
        return 1
    return 0


def run() -> NoReturn:
    """Run :func:`main` and end at once: Arrow's threads would hold the end of the interpreter up for ten seconds."""
    code = main()
    sys.stderr.flush()
    atexit._run_exitfuncs()  # noqa: SLF001 - what has to be written at the end still is
    os._exit(code)


def _identity(request: Mapping[str, Any]) -> tuple[str, str]:
    """Commit and licence of a repository; both empty for a folder."""
    if request["folder"]:
        return "", ""
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(request["repo"], revision=request["revision"] or None)
    card = getattr(info, "card_data", None)
    licence = getattr(card, "license", None) or ""
    return info.sha or "", licence if isinstance(licence, str) else ", ".join(map(str, licence))


def _write(request: Mapping[str, Any], revision: str) -> Iterator[int]:
    """Write clips and manifest row by row; yields how many rows were read."""
    out = Path(request["out"])
    (out / "audio").mkdir(parents=True, exist_ok=True)
    with (
        (out / "manifest.jsonl").open("w", encoding="utf-8") as manifest,
        (out / "problems.jsonl").open("w", encoding="utf-8") as problems,
    ):
        for number, (row, names) in enumerate(_rows(request, revision), 1):
            try:
                sha, name = _audio(row.get(request["audio"]), request, revision, out)
            except ManifestError as error:
                problems.write(json.dumps({"row": number, **asdict(error.record())}) + "\n")
            else:
                line = {"audio_filepath": name, "text": _value(row, request["text"], names)}
                line["id"] = _value(row, request["id"], names) or f"{number:06d}-{sha[:12]}"
                line["speaker"] = _value(row, request["speaker"], names)
                line |= {column: _value(row, column, names) for column in request["slices"]}
                manifest.write(json.dumps(line) + "\n")
            yield number


def _value(row: Mapping[str, Any], column: str, names: Mapping[str, Any]) -> object:
    """A value as JSON can say it; a class label by its name."""
    value = row.get(column) if column else None
    labels = names.get(column)
    if labels is not None and isinstance(value, int) and 0 <= value < len(labels):
        return labels[value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _rows(request: Mapping[str, Any], revision: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Rows with the names of class labels; audio is ``{"bytes", "path"}`` or an address, never decoded."""
    import datasets  # type: ignore[import-untyped] # the library says no types

    if not hasattr(datasets, "load_dataset"):  # a mere folder of that name was found instead of the library
        msg = "The library datasets is not installed."
        raise ConfigError(msg, code="no-library", hint="Install it: pip install datasets.")
    from datasets import Value

    where = request["folder"] or request["repo"]
    stream = datasets.load_dataset(
        where, name=request["config"] or None, split=request["split"], revision=revision or None, streaming=True
    )
    columns = list(stream.features or next(iter(stream.take(1)), {}))
    wanted = [*(request[option] for option in ("audio", "text", "speaker", "id")), *request["slices"]]
    if missing := [column for column in wanted if column and column not in columns]:
        msg = f"There is no column {missing[0]!r}; there are {', '.join(columns)}."
        raise ConfigError(msg, code="bad-option", hint="Correct the options of the dataset in grym.toml.")
    names = {name: getattr(kind, "names", None) for name, kind in (stream.features or {}).items()}
    stream = stream.select_columns([name for name in columns if name in wanted])
    # Audio(decode=False) would do for tables, but asks for torchcodec where files are read one by one.
    for kind in ({"bytes": Value("binary"), "path": Value("string")}, Value("string")):
        cast = stream.cast_column(request["audio"], kind)
        rows = iter(cast.take(request["limit"]) if request["limit"] else cast)
        try:
            first = next(rows, None)
        except (AttributeError, TypeError):  # this is the other of the two
            continue
        if first is not None:
            yield first, names
            yield from ((row, names) for row in rows)
        return
    msg = f"The column {request['audio']!r} holds no audio that can be copied."
    raise ConfigError(msg, code="bad-option", hint="Name the column of the audio files with the option audio.")


def _audio(value: Any, request: Mapping[str, Any], revision: str, out: Path) -> tuple[str, str]:
    """Write the bytes of a clip under their checksum; returns it and the file's name in the dataset."""
    if isinstance(value, str):
        value = {"bytes": None, "path": value}
    data, path = (value or {}).get("bytes"), (value or {}).get("path")
    if data is None and path:
        with _open(path, request, revision) as stream:
            data = stream.read(MAX_BYTES + 1)
    if not data:
        msg = "The row holds no audio."
        raise ManifestError(msg, code="missing-audio", hint="It is left out; nothing is to be done.")
    if len(data) > MAX_BYTES:
        msg = f"The clip has more than {MAX_BYTES:,} bytes."
        raise ManifestError(msg, code="too-large", hint="Cut it at its source.")
    sha = hashlib.sha256(data).hexdigest()
    suffix = next((suffix for magic, suffix in _MAGIC if data.startswith(magic)), ".audio")
    file = out / "audio" / (sha + suffix)
    if not file.exists():
        file.write_bytes(data)
    return sha, f"audio/{file.name}"


def _open(path: str, request: Mapping[str, Any], revision: str) -> IO[bytes]:
    """Open a file that belongs to the dataset; a row can name any file of this machine, and any address."""
    folder = request["folder"]
    inside = f"hf://datasets/{request['repo']}@{revision}/"
    last = path.rpartition("::")[2]  # zip://clip.wav::hf://… is a file in an archive
    if folder:
        with suppress(OSError, ValueError):
            if "://" not in path and Path(path).resolve().is_relative_to(Path(folder).resolve()):
                return Path(path).open("rb")
    elif last.startswith(inside) and ".." not in path and "file://" not in path:
        from datasets.utils.file_utils import xopen  # type: ignore[import-untyped] # likewise

        opened: IO[bytes] = xopen(path, "rb")
        return opened
    msg = f"The row names {path.rpartition('/')[2]!a}, a file that is missing or outside the dataset."
    raise ManifestError(msg, code="outside-dataset", hint="It is left out; do not trust the dataset's other rows.")


def _shown(request: Mapping[str, Any]) -> str:
    """The repository in messages; of a folder only its name."""
    return Path(request["folder"]).name if request["folder"] else str(request["repo"])


def _explain(error: Exception, repo: str) -> GrymError:
    """What a library's error means for a person."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    if any(isinstance(one, OSError) and one.errno in FULL for one in chain):
        msg = f"There is no room for the clips of {repo!r}."
        return ResourceError(msg, code="disk-full", hint="Free space, or lower the option limit.")
    if "GatedRepoError" in kinds:
        msg = f"The dataset {repo!r} asks for an agreement first."
        return ConfigError(msg, code="gated", hint="Accept its terms on its page, then set HF_TOKEN.")
    if kinds & _UNREACHABLE:
        msg = f"The Hugging Face Hub cannot be reached for {repo!r}."
        hint = "Check the connection, https_proxy and HF_HUB_OFFLINE. Once fetched, a dataset needs no network."
        return StorageError(msg, code="no-network", hint=hint, retryable=True)
    if kinds & _UNKNOWN:
        msg = f"There is no dataset {repo!r}, or it is private, or has no such revision."
        hint = "Correct repo and revision in grym.toml; a private one needs HF_TOKEN."
        return ConfigError(msg, code="unknown-repo", hint=hint)
    said = redact(str(error)).rstrip(".") or type(error).__name__
    if isinstance(error, ValueError):
        msg = f"The dataset {repo!r} cannot be read as grym.toml says: {said}."
        return ConfigError(msg, code="bad-option", hint="Correct its options config and split.")
    msg = f"The dataset {repo!r} cannot be streamed: {said}."
    return StorageError(msg, code="hub-failed", hint="Try again; if it stays so, download it and use a manifest.")


if __name__ == "__main__":
    run()
