"""Folders that workers write to: one for each use, gone when its process is gone.

A folder belongs to the process that holds the lock beside it. A process that was
killed lets go of its lock, so the next one that asks for a folder removes what it
left, and ends workers that still sit there: a stopped one cannot notice that its
parent died. What workers said on standard error is kept in ``HOME/logs``.

    HOME/scratch/compare-4711-x8f2/       working folder, home and temporary folder of workers
    HOME/scratch/compare-4711-x8f2.lock   held as long as process 4711 uses it
    HOME/logs/compare-4711-x8f2-a-mini.log

Knows nothing about models or runs. POSIX only.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
from filelock import FileLock, Timeout

from grym.errors import StorageError
from grym.parts import disk

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT_LOGS: Final = 40
LOCK_SECONDS: Final = 60.0  # the lock of the whole folder is held while leftovers are removed, never while a model runs


@contextmanager
def scratch_folder(home: Path, use: str) -> Iterator[Path]:
    """A new folder below ``home/scratch``; it is removed afterwards, and so are those of dead processes.

    Args:
        home: folder of everything that is stored.
        use: what it is for, a word; the folder's name begins with it.

    Raises:
        StorageError: the folder cannot be made, or another process holds the place for too long.
        ResourceError: the disk is full.
    """
    root = home / "scratch"
    with disk("The scratch folder"):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _place(root):
            for leftover in sorted(path for path in root.iterdir() if path.is_dir()):
                _remove_if_dead(leftover, home / "logs")
            folder = Path(tempfile.mkdtemp(prefix=f"{use}-{os.getpid()}-", dir=root))
            held = FileLock(_lock_of(folder))
            held.acquire(timeout=0)
    try:
        yield folder
    finally:
        _remove(folder, home / "logs")
        held.release()


@contextmanager
def _place(root: Path) -> Iterator[None]:
    try:
        with FileLock(root / ".lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        msg = f"Another process has held the scratch folder for more than {LOCK_SECONDS:g} s."
        hint = "Wait for it to end, then try again."
        raise StorageError(msg, code="scratch-busy", hint=hint, retryable=True) from error


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove_if_dead(folder: Path, logs: Path) -> None:
    lock = FileLock(_lock_of(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return
    try:
        _end_strays(folder)
        _remove(folder, logs)
    finally:
        lock.release()


def _end_strays(folder: Path) -> None:
    """End whatever still works in a folder whose owner is dead; a worker leads its own process group."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if folder in Path(process.cwd()).parents:
                if os.getpgid(process.pid) == process.pid:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()


def _remove(folder: Path, logs: Path) -> None:
    """Keep the logs, remove the rest; never fails, because the work it belongs to is over."""
    with suppress(OSError):
        _keep_logs(folder, logs)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        _lock_of(folder).unlink(missing_ok=True)


def _keep_logs(folder: Path, logs: Path) -> None:
    """Move what workers said to ``logs`` and drop all but the newest."""
    for log in sorted(folder.glob("**/*.log")):
        if log.stat().st_size:
            logs.mkdir(exist_ok=True)
            log.replace(logs / "-".join((folder.name, *log.relative_to(folder).parts)))
    if logs.is_dir():
        for old in sorted(logs.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_LOGS:]:
            old.unlink(missing_ok=True)
