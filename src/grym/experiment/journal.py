"""A file that events are appended to before anybody is told that they are recorded.

One line per call: crc32, a space, JSON. A process that is killed leaves its journal; the lock that it held is gone
with it, so the next process sees that nobody writes any more and takes the journal over. A torn last line was never
acknowledged and is dropped. Survives ``kill -9``; a power cut too with ``durable``. Needs a local file system (flock).

Knows nothing about what events mean.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import time
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from grym.parts import disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SUFFIX: Final = ".v1.journal"  # another version's are left for the release that wrote them
_log = logging.getLogger(__name__)

Row: TypeAlias = "Sequence[Any]"


class Journal:
    """One open journal; it is this process's as long as it is open.

    Args:
        path: the file, new or left by a dead process.
        durable: whether every append waits for the disk.

    Raises:
        BlockingIOError: another process has it.
        FileNotFoundError: another process has just finished it.
        StorageError: the folder cannot be written to.
        ResourceError: the disk is full.
    """

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self.path = path
        self._durable = durable
        self._file = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self.close()
            raise
        if os.fstat(self._file).st_nlink == 0:  # it was finished between opening and locking
            self.close()
            raise FileNotFoundError(path)

    @classmethod
    def create(cls, folder: Path, *, durable: bool = False) -> Journal:
        """A new journal; its name sorts by time and is nobody else's.

        Raises:
            StorageError: the folder cannot be written to.
            ResourceError: the disk is full.
        """
        with disk("The journal of events"):
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                path = folder / f"{time.time_ns() // 1000:016d}-{secrets.token_hex(4)}{SUFFIX}"
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                with suppress(BlockingIOError, FileNotFoundError):  # another process took it for a dead one's
                    return cls(path, durable=durable)

    @property
    def name(self) -> str:
        """Its name, which parts made of it carry."""
        return self.path.name.removesuffix(SUFFIX)

    @property
    def date(self) -> str:
        """The ISO date (UTC) on which it was begun."""
        return datetime.fromtimestamp(int(self.name.split("-")[0]) / 1e6, UTC).date().isoformat()

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows, all or none.

        Raises:
            StorageError: the file cannot be written to.
            ResourceError: the disk is full.
        """
        payload = json.dumps(rows, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=float).encode()
        line = memoryview(b"%08x %b\n" % (zlib.crc32(payload), payload))
        size = os.fstat(self._file).st_size
        with disk("The journal of events"):
            try:
                while line:
                    line = line[os.write(self._file, line) :]
                if self._durable:
                    os.fdatasync(self._file)
            except OSError:
                os.ftruncate(self._file, size)  # half a line would swallow the next one
                raise

    def rows(self) -> list[Row]:
        """Every row that was written whole."""
        return list(_rows(self.path))

    def finish(self) -> None:
        """Remove the journal: what it says is stored elsewhere."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the journal and keep the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def left(folder: Path) -> Iterator[Journal]:
    """The journals of processes that are dead, opened; each is the caller's to finish or close."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            yield Journal(path)
        except (BlockingIOError, FileNotFoundError):
            continue  # its process lives, or another one has just taken it over


def _rows(path: Path) -> Iterator[Row]:
    damaged = 0
    for line in path.read_bytes().split(b"\n"):
        checksum, _, payload = line.partition(b" ")
        if checksum == b"%08x" % zlib.crc32(payload) and payload:
            yield from json.loads(payload)
        elif line:
            damaged += 1
    if damaged:
        _log.warning("%s: %d line(s) were not written whole and are dropped.", path.name, damaged)
