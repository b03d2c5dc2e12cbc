"""Datasets of the Hugging Face Hub: streamed once into files with a manifest, then read without a network.

Knows nothing about what is inside an audio file. The reading is done by a process
of its own, :mod:`grym.corpus.hub_reader`. A cached dataset is a folder
``REPO-CONFIG-SPLIT-KEY`` below the dataset's path, whose key is made of all
options; it appears only when it is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from grym.corpus.download import Fetched, silent, writing
from grym.corpus.manifest import ALIASES, Dataset, Manifest, Rejected, read_manifest
from grym.errors import ConfigError, DeadlineError, ErrorRecord, GrymError, ManifestError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grym.config import DatasetSpec
    from grym.corpus.download import Tell
OPTIONS: Final = frozenset({"repo", "config", "split", "revision", "audio", "text", "speaker", "id", "slices", "limit"})
MANIFEST: Final = "manifest.jsonl"
_ORIGIN: Final = "origin.json"
_PROBLEMS: Final = "problems.jsonl"
_SOURCES: Final = str(Path(__file__).resolve().parents[2])
# Isolated, it sees neither the checkout's folder named datasets nor what a person put into PYTHONPATH.
_READER: Final = "import sys; sys.path.insert(0, sys.argv[1]); from grym.corpus.hub_reader import run; run()"
_REPO: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_INHERITED: Final = frozenset(
    {"PATH", "LANG", "HOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
     "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "TMPDIR"}
)  # fmt: skip
_SILENCE_SECONDS: Final = 300.0
_END_SECONDS: Final = 5.0
_LIMIT: Final = 1_000
_NAMES: Final = frozenset(alias for aliases in ALIASES.values() for alias in aliases)


@dataclass(frozen=True, slots=True)
class Request:
    """What to stream: the options of the dataset with their defaults.

    Attributes:
        repo: ``OWNER/NAME``, or the absolute path of a folder in the form of such a repository.
        folder: that folder; empty for a repository.
        config: configuration (subset) of the dataset; empty is its default.
        split: one split.
        revision: branch, tag or commit; empty is the default branch.
        audio: column with the audio.
        text: column with the reference text, or with a class label.
        speaker: column that says who speaks; empty if there is none.
        id: column with a unique name; empty: the number of the row and the checksum of its audio.
        slices: further columns that results are broken down by.
        limit: most rows that are read; 0 is all of them.
    """

    repo: str
    folder: str = ""
    config: str = ""
    split: str = "test"
    revision: str = ""
    audio: str = "audio"
    text: str = "text"
    speaker: str = ""
    id: str = ""
    slices: tuple[str, ...] = ()
    limit: int = _LIMIT

    @property
    def shown(self) -> str:
        """The repository in messages; of a folder only its name."""
        return Path(self.folder).name if self.folder else self.repo

    @property
    def name(self) -> str:
        """Name of its folder in the cache."""
        key = hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()[:12]
        words = [self.shown, *filter(None, (self.config, self.split))]
        return "-".join([*(re.sub(r"[^\w.]+", "-", word)[:60] for word in words), key]).lstrip(".-")


def request_of(spec: DatasetSpec) -> Request:
    """The options of a dataset, checked.

    Raises:
        ConfigError: ``bad-option``.
    """
    options = dict(spec.options)
    for name in sorted(set(options) - OPTIONS):
        raise _wrong(spec, name, options[name], f"There is no such option; there are {', '.join(sorted(OPTIONS))}.")
    limit = options.pop("limit", _LIMIT)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise _wrong(spec, "limit", limit, "Write a number of rows; 0 is all of them.")
    for name, value in options.items():
        if not isinstance(value, str):
            raise _wrong(spec, name, value, "Write it in quotes.")
    words: dict[str, Any] = {name: str(value).strip() for name, value in options.items()}
    slices = tuple(part.strip() for part in str(words.pop("slices", "")).split(",") if part.strip())
    if taken := sorted(_NAMES & {name.lower() for name in slices}):
        raise _wrong(spec, "slices", taken[0], "Columns of these names have a meaning of their own; leave it out.")
    repo = words.get("repo", "")
    folder = repo if os.path.isabs(repo) else ""  # noqa: PTH117 - a text, not yet a path
    if folder and not Path(folder).is_dir():
        raise _wrong(spec, "repo", Path(folder).name, "There is no such folder.")
    if not folder and (not _REPO.fullmatch(repo) or ".." in repo):
        raise _wrong(spec, "repo", repo, 'Write it as on the Hub, for example "openslr/librispeech_asr".')
    return Request(**{**words, "folder": folder}, slices=slices, limit=limit)


def _wrong(spec: DatasetSpec, option: str, value: object, hint: str) -> ConfigError:
    msg = f"{option} = {str(value)[:80]!r} of dataset {spec.name!r} is not usable."
    return ConfigError(msg, code="bad-option", hint=hint)


def cached(spec: DatasetSpec) -> Path | None:
    """The folder of a dataset that was fetched with these options; ``None`` if it was not."""
    folder = spec.path / request_of(spec).name
    return folder if (folder / _ORIGIN).is_file() else None


def origin(folder: Path) -> dict[str, str]:
    """Where a cached dataset came from: ``repo``, ``revision`` (the commit) and ``licence``."""
    found = json.loads((folder / _ORIGIN).read_text(encoding="utf-8"))
    return {str(key): str(value) for key, value in found.items()}


def load_hub(spec: DatasetSpec) -> Dataset:
    """The clips of a dataset of the Hub; streamed at the first time, read from files ever after.

    Raises:
        ConfigError: wrong options, or no such dataset.
        StorageError: ``no-network`` or ``hub-failed``.
        ManifestError: no row of it can be used.
    """
    folder = cached(spec) or materialise(spec).folder
    path = folder / MANIFEST
    manifest = read_manifest(path) if path.stat().st_size else Manifest((), (), frozenset())
    problems = [
        Rejected(f"row {row['row']}", ManifestError(row["message"], code=row["code"], hint=row["hint"]).record())
        for row in map(json.loads, (folder / _PROBLEMS).read_text(encoding="utf-8").splitlines())
    ]
    return Dataset(spec.name, folder.resolve(), manifest.entries, (*problems, *manifest.rejected))


def materialise(spec: DatasetSpec, tell: Tell = silent) -> Fetched:
    """Stream a dataset into the cache, unless it is there.

    Args:
        spec: its name, cache folder and options.
        tell: hears ``("rows", rows, limit)``.

    Raises:
        ConfigError: wrong options, or no such dataset.
        StorageError: ``no-network``, ``hub-failed``, or the cache cannot be written.
        DeadlineError: nothing came for five minutes.
    """
    request = request_of(spec)
    target = spec.path / request.name
    if cached(spec):
        return Fetched(target, int(origin(target).get("rows", "0")), "there")
    with writing(f"the folder {spec.path.name}"):
        spec.path.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=spec.path))
    try:
        done = _stream(request, aside, tell)
        if not done["rows"]:
            msg = f"The split {request.split!r} of {request.shown!r} has no rows."
            raise ManifestError(msg, code="no-entries", hint="Name another split.")
        facts = {"repo": request.repo, **{key: done[key] for key in ("rows", "revision", "licence")}}
        with writing(f"the folder {target.name}"):
            (aside / _ORIGIN).write_text(json.dumps(facts), encoding="utf-8")
            _settle(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Fetched(target, int(done["rows"]), "rows")


def _settle(aside: Path, target: Path) -> None:
    """Give the folder its name; another process may have done the same work a moment earlier."""
    aside.chmod(0o755)
    try:
        aside.rename(target)
    except OSError:
        if not (target / _ORIGIN).is_file():
            raise


def _stream(request: Request, out: Path, tell: Tell) -> dict[str, Any]:
    """Run the reader; returns its last event."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [sys.executable, "-I", "-c", _READER, _SOURCES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=out,
            env=_environment(),
        ) as process,
    ):
        assert process.stdin is not None  # noqa: S101 - told apart for the type checker
        assert process.stdout is not None  # noqa: S101
        try:
            with suppress(BrokenPipeError):  # a reader that is dead already is found out below
                process.stdin.write(json.dumps({**dataclasses.asdict(request), "out": str(out)}).encode())
                process.stdin.close()
            for event in _events(process.stdout):
                if event["event"] == "row":
                    tell("rows", event["done"], request.limit)
                elif event["event"] == "error":
                    del event["event"]
                    raise GrymError.from_record(ErrorRecord(**event))
                elif event["event"] == "done":
                    return event
        finally:
            _end(process)
    msg = f"The process that reads {request.shown!r} ended without a word (exit code {process.returncode})."
    raise StorageError(msg, code="hub-failed", hint="Give the command again; free memory may have run out.")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a reader that has said its last word end by itself, and end any other."""
    with suppress(subprocess.TimeoutExpired):
        if sys.exc_info()[0] is None:
            process.wait(_END_SECONDS)
    process.kill()


def _events(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Events as they come; gives up on a reader that says nothing for too long."""
    pending = b""
    while True:
        if not select.select([stream], [], [], _SILENCE_SECONDS)[0]:
            msg = f"Nothing came from the Hugging Face Hub for {_SILENCE_SECONDS:.0f} s."
            raise DeadlineError(msg, code="no-answer", hint="Try again later.")
        chunk = os.read(stream.fileno(), 1 << 16)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        yield from map(json.loads, lines)


def _environment() -> dict[str, str]:
    """What the reader inherits: the network's settings and the Hub's, no other secrets; and no torch."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() in _INHERITED or name.startswith(("HF_", "HUGGINGFACE_", "COVERAGE_", "XDG_", "LC_"))
    }
    quiet = {"USE_TORCH": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {**kept, **quiet}
