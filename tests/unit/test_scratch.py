"""Scratch folders: one for each use, gone with it, and those of dead processes gone with the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from grym import scratch
from grym.errors import StorageError
from grym.scratch import scratch_folder

SRC = Path(__file__).parents[2] / "src"
# Holds a folder with a log, starts a helper inside as workers do, and waits.
HOLDER = """
import pathlib, subprocess, sys, time
from grym.scratch import scratch_folder
with scratch_folder(pathlib.Path(sys.argv[1]), "held") as folder:
    (folder / "a").mkdir()
    (folder / "a" / "toy.log").write_text("last words")
    (folder / "a" / "junk").write_text("x")
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    nothing = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(sleeper, cwd=folder / "a", start_new_session=sys.argv[2] == "leads", **nothing)
    print(child.pid, flush=True)
    time.sleep(600)
"""


def _holder(home: Path, how: str = "leads") -> tuple[subprocess.Popen[str], psutil.Process]:
    """A process that holds a folder, and its child that works there."""
    command = [sys.executable, "-c", HOLDER, str(home), how]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SRC)})
    assert holder.stdout is not None
    return holder, psutil.Process(int(holder.stdout.readline()))


def _entries(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "scratch").iterdir() if path.name != ".lock")


def test_every_use_has_its_own_folder_and_leaves_only_its_log(tmp_path: Path) -> None:
    """Two at once do not meet; afterwards nothing is there but what somebody said."""
    with scratch_folder(tmp_path, "compare") as one, scratch_folder(tmp_path, "search") as two:
        assert one != two
        (one / "b").mkdir()
        (one / "b" / "mini.log").write_text("said", encoding="utf-8")
        (two / "mini.log").touch()
        (two / "big.bin").write_bytes(b"x")
        assert len(_entries(tmp_path)) == 4
    assert _entries(tmp_path) == []
    (log,) = (tmp_path / "logs").iterdir()
    assert log.name == f"{one.name}-b-mini.log"
    assert log.read_text(encoding="utf-8") == "said"


def test_it_is_removed_when_the_work_fails(tmp_path: Path) -> None:
    """An error goes through, the folder goes away."""
    message = "broken"
    with pytest.raises(ValueError, match=message), scratch_folder(tmp_path, "compare") as folder:
        raise ValueError(message)
    assert not folder.exists()
    assert _entries(tmp_path) == []


@pytest.mark.parametrize("how", ["leads", "follows"])
def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path: Path, how: str) -> None:
    """Its folder, its lock and a stopped child in it; the folder of a living process stays."""
    living, other = _holder(tmp_path)
    killed, stray = _holder(tmp_path, how)
    stray.send_signal(signal.SIGSTOP)
    killed.kill()
    killed.communicate()
    assert len(_entries(tmp_path)) == 4
    with scratch_folder(tmp_path, "next") as folder:
        names = _entries(tmp_path)
        assert len(names) == 4
        assert folder.name in names
        psutil.wait_procs([stray], timeout=30)
        assert not stray.is_running() or stray.status() == psutil.STATUS_ZOMBIE
        assert other.is_running()
    (log,) = (tmp_path / "logs").iterdir()
    assert log.read_text(encoding="utf-8") == "last words"
    for process in (living, other):
        process.kill()
    living.communicate()


def test_only_the_newest_logs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old ones make room."""
    monkeypatch.setattr(scratch, "KEPT_LOGS", 2)
    for moment, use in enumerate(("one", "two", "three")):
        with scratch_folder(tmp_path, use) as folder:
            (folder / "m.log").write_text(use, encoding="utf-8")
            os.utime(folder / "m.log", (moment, moment))
    assert sorted(log.name.split("-")[0] for log in (tmp_path / "logs").iterdir()) == ["three", "two"]


def test_a_place_that_cannot_be_had_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in its way, a neighbour that clears up for ever."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught, scratch_folder(tmp_path / "file", "compare"):
        pass
    assert caught.value.code == "not-writable"
    monkeypatch.setattr(scratch, "LOCK_SECONDS", 0.05)
    (tmp_path / "scratch").mkdir()
    with (
        FileLock(tmp_path / "scratch" / ".lock"),
        pytest.raises(StorageError) as caught,
        scratch_folder(tmp_path, "compare"),
    ):
        pass
    assert (caught.value.code, caught.value.retryable) == ("scratch-busy", True)
