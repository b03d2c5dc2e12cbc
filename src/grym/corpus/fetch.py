"""Brings a dataset whose card names a download to its folder: resumed, verified, unpacked aside, whole or absent.

Knows nothing about what the dataset holds. What decides is the checksum of the
files (``contents`` of the card); an archive with another checksum than the
recorded one passes if its files are the right ones, because hosts compress
archives anew. Sizes are bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from grym.corpus.archive import contents, file_sha256, unpack
from grym.corpus.cards import read_card
from grym.corpus.download import AGAIN, Fetched, download, silent, writing
from grym.corpus.hub import materialise
from grym.errors import ConfigError, ResourceError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from grym.config import DatasetSpec, Settings
    from grym.corpus.cards import Download
    from grym.corpus.download import Tell

_USELESS: Final = frozenset({"wrong-checksum", "broken-archive", "unsafe-archive"})
_SPARE_FILES: Final = 1_000  # members of an archive that are neither wanted nor alarming


def fetch(
    name: str,
    settings: Settings,
    *,
    to: Path | None = None,
    source: str = "",
    tell: Tell = silent,
    pause: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Bring a registered dataset to this machine.

    Args:
        name: of a dataset in grym.toml.
        settings: what grym.toml says.
        to: folder to put it in; default the dataset's path, which for ``fsdd`` is HOME/datasets/fsdd.
        source: another place of the same archive: a file, or an address.
        tell: hears how far it is.
        pause: waits between attempts to reach a server.

    Raises:
        ConfigError: the dataset has no download, its folder holds something else, or the address is none.
        StorageError: ``no-network``, ``interrupted``, ``refused``, ``wrong-checksum``, ``unsafe-archive``,
            ``busy`` and others of :mod:`grym.corpus.download` and :mod:`grym.corpus.archive`.
        ResourceError: ``disk-full``.
    """
    spec = settings.dataset(name)
    if spec.loader == "hub":
        if to or source:
            msg = f"Dataset {name!r} is of the Hugging Face Hub, where --to and --source mean nothing."
            raise ConfigError(msg, code="bad-option", hint=f"Set path and repo in [datasets.{name}] of grym.toml.")
        return materialise(spec, tell)
    wanted = _download_of(spec, settings)
    target = Path(os.path.abspath(to or spec.path))  # noqa: PTH100 - links stay as typed
    if target.is_dir() and any(target.iterdir()):
        return _there(target, wanted)
    with writing(f"the folder {target.parent.name}"):
        target.parent.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(f"{wanted.url}\n{wanted.contents}\n{source}".encode()).hexdigest()[:12]
    part = target.parent / f".{target.name}-{key}.part"
    with _alone(target):
        archive = _archive(wanted, source, part, lambda url: _get(url, wanted, part, tell, pause))
        fetched = _unpack(wanted, archive, target, tell)
        part.unlink(missing_ok=True)
    return fetched


def _download_of(spec: DatasetSpec, settings: Settings) -> Download:
    card = read_card(spec.card) if spec.card else None
    if card is not None and card.download is not None:
        return card.download
    msg = f"Dataset {spec.name!r} names no place to fetch it from."
    known = ", ".join(sorted(_fetchable(settings))) or "none"
    hint = f"These can be fetched: {known}. Others need a card with [download]; see docs/loaders.md."
    raise ConfigError(msg, code="no-download", hint=hint)


def _fetchable(settings: Settings) -> list[str]:
    found = []
    for name, spec in settings.datasets.items():
        try:
            card = read_card(spec.card) if spec.card else None
        except ConfigError:
            continue
        if spec.loader == "hub" or (card is not None and card.download is not None):
            found.append(name)
    return found


def _there(target: Path, wanted: Download) -> Fetched:
    """The folder that exists, if it is the dataset."""
    found, count = contents(target, wanted.pattern)
    if found == wanted.contents:
        return Fetched(target, count, "there")
    msg = (
        f"The folder {target.name} exists and holds {count:,} files {wanted.pattern}, "
        f"which are not the {wanted.files:,} that would be fetched."
    )
    raise ConfigError(msg, code="target-exists", hint="Name another folder with --to, or move this one away.")


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep a second fetch into the same folder away."""
    path = target.parent / f".{target.name}.lock"
    try:
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout as error:
        msg = f"Another process fetches {target.name} already."
        raise StorageError(msg, code="busy", hint="Wait until it has finished.", retryable=True) from error


def _archive(wanted: Download, source: str, part: Path, get: Callable[[str], bool]) -> Path:
    """The archive on this disk, complete; its checksum is judged with its contents."""
    if source and not source.startswith(("http://", "https://")):
        if not Path(source).is_file():
            msg = f"{Path(source).name} is neither a file nor a web address."
            raise ConfigError(msg, code="bad-url", hint="Name the archive, or an address that starts with https://.")
        return Path(source)
    have = part.stat().st_size if part.is_file() else 0
    needed = wanted.size + wanted.unpacked - have
    if shutil.disk_usage(part.parent).free < needed:
        msg = f"The disk of {part.parent.name} has less than the {needed:,} bytes that are needed."
        raise ResourceError(msg, code="disk-full", hint=f"Free space, or choose another disk with --to. {AGAIN}")
    url = source or wanted.url
    if get(url) and wanted.sha256 and file_sha256(part) != wanted.sha256:
        part.unlink()  # the beginning may be another file's: once more from the start
        get(url)
    return part


def _get(url: str, wanted: Download, part: Path, tell: Tell, pause: Callable[[float], None]) -> bool:
    return download(url, part, size=wanted.size, limit=2 * wanted.size, tell=tell, pause=pause)


def _unpack(wanted: Download, archive: Path, target: Path, tell: Tell) -> Fetched:
    """Unpack beside the target, verify, and give it its name in one step."""
    exact = wanted.sha256 is not None and file_sha256(archive) == wanted.sha256
    aside = target.parent / f".{target.name}.new"
    shutil.rmtree(aside, ignore_errors=True)  # a killed fetch left it
    try:
        with writing(f"the folder {target.parent.name}"):
            aside.mkdir()
        count = _verified(wanted, archive, aside, exact, tell)
        with writing(f"the folder {target.name}"):
            aside.rename(target)
    except StorageError as error:
        if archive.suffix == ".part" and error.code in _USELESS:
            archive.unlink()  # to continue it would be of no use
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Fetched(target, count, "archive" if exact else "files")


def _verified(wanted: Download, archive: Path, folder: Path, exact: bool, tell: Tell) -> int:  # noqa: FBT001 - private
    """Unpack, and count the files that have the published checksum."""
    size = f"{archive.stat().st_size:,} bytes; {wanted.size:,} were expected"
    hint = "Give the command again, or name another copy with --source."
    try:
        limits = {"limit": 2 * wanted.unpacked, "files": 2 * wanted.files + _SPARE_FILES}
        unpack(archive, folder, keep=wanted.keep, tell=tell, **limits)
    except StorageError as error:
        if error.code != "broken-archive" or exact:
            raise
        msg = f"The archive ({size}) is not the right one: its checksum is another, and it cannot be unpacked."
        raise StorageError(msg, code="wrong-checksum", hint=hint, retryable=True) from error
    found, count = contents(folder, wanted.pattern)
    if found == wanted.contents:
        return count
    msg = f"The archive ({size}) is not the right one: its {count:,} files are not the {wanted.files:,} published ones."
    raise StorageError(msg, code="wrong-checksum", hint=hint, retryable=True)
