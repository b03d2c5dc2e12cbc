"""Tar archives from outside: only plain files with plain names come out, within limits, and are checked by content.

Knows nothing about where an archive comes from. Nothing but the files that are
wanted is written; a link, a device or a name that leads out refuses the archive as
a whole, wherever in it that is. Sizes are bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from grym.corpus.download import silent, writing
from grym.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from grym.corpus.download import Tell

_CHUNK: Final = 1 << 20
_HINT: Final = "Do not use it; get it again from its source."
_BROKEN: Final = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError)


class _Bounded:
    """A gzip stream that ends with an error once it has given more than it may: no bomb fills memory or disk."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream, self._left, self._limit = stream, limit, limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, _CHUNK) if size >= 0 else _CHUNK)
        self._left -= len(data)
        if self._left < 0:
            msg = f"The archive unpacks to more than {self._limit:,} bytes."
            raise StorageError(msg, code="unsafe-archive", hint=_HINT)
        return data


def unpack(archive: Path, folder: Path, *, keep: Sequence[str], limit: int, files: int, tell: Tell = silent) -> int:
    """Write the wanted files of a ``.tar.gz`` below ``folder``, without the folder that everything in it lies in.

    Args:
        archive: the file.
        folder: existing, empty.
        keep: patterns such as ``recordings/*.wav``; a star does not cross folders.
        limit: most bytes that the archive may unpack to, headers and unwanted files included.
        files: most members that it may have.
        tell: hears ``("unpack", files, 0)``.

    Returns:
        How many files were written.

    Raises:
        StorageError: ``unsafe-archive``, ``broken-archive``, or the file cannot be read.
        ResourceError: ``disk-full``.
    """
    written = 0
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=_bounded(stream, limit), mode="r|") as tar:
            for index, member in enumerate(tar):
                relative = _safe(member, index, files)
                if member.isdir() or not matches(relative, keep):
                    continue
                source = tar.extractfile(member)
                assert source is not None  # noqa: S101 - it is a plain file
                _write(source, folder / relative, member.size)
                written += 1
                tell("unpack", written, 0)
    except _BROKEN as error:
        msg = f"The archive is no whole .tar.gz file: {str(error).rstrip('.') or type(error).__name__}."
        raise StorageError(msg, code="broken-archive", hint="Get it again from its source.") from error
    return written


def _bounded(stream: gzip.GzipFile, limit: int) -> IO[bytes]:
    return _Bounded(stream, limit)  # type: ignore[return-value] # tarfile only reads a stream


def _safe(member: tarfile.TarInfo, index: int, files: int) -> PurePosixPath:
    """The member's name below the archive's own folder.

    Raises:
        StorageError: it is no plain file or folder, or its name could lead elsewhere.
    """
    name = member.name
    shown = ascii(name[:80])
    if index >= files:
        msg = f"The archive has more than {files:,} members."
    elif not (member.isdir() or member.isreg()) or member.issparse():
        msg = f"The archive holds {shown}, which is neither a plain file nor a folder."
    elif name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name or not name.isprintable():
        msg = f"The archive holds {shown}, a name that could lead out of its folder."
    else:
        return PurePosixPath(*PurePosixPath(name).parts[1:])
    raise StorageError(msg, code="unsafe-archive", hint=_HINT)


def matches(relative: PurePosixPath, patterns: Iterable[str]) -> bool:
    """Whether a relative path fits one of the patterns; a star does not cross folders.

    Example:
        >>> [matches(PurePosixPath(name), ["audio/*.wav"]) for name in ("audio/a.wav", "audio/x/a.wav")]
        [True, False]
    """
    return any(
        len(PurePosixPath(pattern).parts) == len(relative.parts) and relative.match(pattern) for pattern in patterns
    )


def _write(source: IO[bytes], path: Path, size: int) -> None:
    with writing(path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            stream = path.open("xb")
        except FileExistsError as error:
            msg = f"The archive holds {path.name} twice."
            raise StorageError(msg, code="unsafe-archive", hint=_HINT) from error
        with stream:
            while chunk := source.read(_CHUNK):
                stream.write(chunk)
                size -= len(chunk)
    if size:
        msg = "a file in it is cut off"
        raise tarfile.ReadError(msg)


def contents(folder: Path, pattern: str) -> tuple[str, int]:
    """One checksum of many files, and how many they are: what ``sha256sum FILES | sha256sum`` says in the C locale.

    Args:
        folder: where the files lie.
        pattern: such as ``recordings/*.wav``.

    Returns:
        64 hexadecimal digits, and the number of files.
    """
    whole = hashlib.sha256()
    names = sorted(path.relative_to(folder).as_posix() for path in _plain(folder, pattern))
    for name in names:
        whole.update(f"{file_sha256(folder / name)}  {name}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest(), len(names)


def _plain(folder: Path, pattern: str) -> Iterator[Path]:
    return (path for path in folder.glob(pattern) if path.is_file())


def file_sha256(path: Path) -> str:
    """The sha256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
