"""Runs a training in its own process, reads its progress, and installs what it exported.

Knows nothing about Prefect or torch. A training that is killed goes on at its
last checkpoint when it is started again with the same recipe, data and folder.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grym
from grym.errors import ErrorRecord, GrymError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from grym.models.gama.recipe import GamaSpec
    from grym.models.recipe import TrainSpec

    Recipe = TrainSpec | GamaSpec

Listener = Callable[[dict[str, Any]], None]

# Who hears every event of a training as it comes, for example a progress bar. Flow parameters have to be JSON, so the
# command line calls listener.set(show) before it calls the flow, and listener.reset(token) after. It is called in the
# thread that reads the training, with the dictionary that train() yields; what it raises ends the training.
listener: ContextVar[Listener | None] = ContextVar("listener", default=None)

# By module of the training. Activations of a small model are a few megabytes each: given back to the kernel after every
# operation, as malloc does by default, they are mapped and cleared again thousands of times in a step, which took half
# of the time. One thread each: several processes train together.
_MEMORY: Final[dict[str, dict[str, str]]] = {
    "grym.models.gama.training": {
        "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
        "MALLOC_TOP_PAD_": str(1 << 29),
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "OMP_NUM_THREADS": "1",
    }
}
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


def train(
    spec: Recipe,
    out: Path,
    *,
    fsdd: Path | None = None,
    manifest: Path | None = None,
    start: Path | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Train, or go on training, and yield the process's events as they come; :data:`listener` hears them first.

    Args:
        spec: the recipe.
        out: folder of checkpoint, log and exported model (``out/model``); one training at a time.
        fsdd: folder of the Free Spoken Digit Dataset; without it only synthetic voices are used.
        manifest: further clips, as CSV or JSONL.
        start: exported model to start from; default random weights.

    Yields:
        Events with the keys ``event``, ``stage`` (the recipe's key) and ``steps`` (the last step of this stage).
        ``event`` is ``data`` (what is trained on), ``resume`` (with step), ``restart`` (with reason and the kept
        checkpoint), ``step`` (with step, loss, steps_per_second; every 50 steps) or ``done`` (with step, folder).

    Raises:
        WorkerError: another process trains in ``out``, or the process ended without the event ``done``.
    """
    known = {"stage": spec.key, "steps": spec.stop_after or spec.steps}
    command = _command(spec, out, {"--fsdd": fsdd, "--manifest": manifest, "--start": start})
    yield from follow(command, out, known, _MEMORY.get(spec.module))


def follow(
    command: list[str], out: Path, known: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> Generator[dict[str, Any], None, None]:
    """Run a training process and yield its events as they come; :data:`listener` hears them first.

    Args:
        command: of a process that prints one JSON object per line and ends with the event ``done``.
        out: folder of its log; made if it is missing.
        known: fields that every event gets.
        environment: variables of the process beside the usual ones.

    Raises:
        GrymError: what the process reported as the event ``failed``, with the fields of its record under ``error``.
        WorkerError: another process trains in ``out``, or the process ended without the event ``done``.
    """
    out.mkdir(parents=True, exist_ok=True)
    finished = False
    with (
        (out / "training.log").open("ab") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**_environment(), **(environment or {})},
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                event = parse_event(line)
                if event is None:  # a library printed something
                    log.write(line.encode())
                    log.flush()
                    continue
                if event["event"] == "busy":
                    raise _busy(out)
                if event["event"] == "failed":
                    raise GrymError.from_record(ErrorRecord(**event["error"]))
                finished = finished or event["event"] == "done"
                told = {**known, **event}
                _tell(told)
                yield told
        finally:
            if process.poll() is None and not finished:
                process.terminate()
    if not finished:
        msg = f"The training ended early with exit code {process.returncode}."
        raise WorkerError(msg, code="training-failed", hint=f"See {out / 'training.log'}; start it again.")


def parse_event(line: str) -> dict[str, Any] | None:
    """Read one line of a training's standard output; ``None`` if it is no event."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def install(folder: Path, target: Path) -> None:
    """Replace ``target`` by a copy of ``folder``; a kill at any moment leaves the old or the new one, whole.

    The copy is made beside the target and the two names are exchanged in one
    step where the kernel can (Linux), else by two renames.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(folder, aside)
    if not target.exists():
        aside.rename(target)
        return
    if not _exchange(aside, target):
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        aside.rename(target)
        aside = old
    shutil.rmtree(aside)


def _exchange(left: Path, right: Path) -> bool:
    """Exchange two names with renameat2(2); says whether it could."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and (
        rename(_AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE) == 0
    )


def _command(spec: Recipe, out: Path, paths: dict[str, Path | None]) -> list[str]:
    # The recipe decides how long the schedule is; the process finds its checkpoint by itself.
    command = [sys.executable, "-m", spec.module, "--out", str(out), "--parent", str(os.getpid())]
    command += ["--spec", json.dumps(dataclasses.asdict(spec))]
    for option, path in paths.items():
        if path is not None:
            command += [option, str(path)]
    return command


def _environment() -> dict[str, str]:
    source = str(Path(grym.__file__).resolve().parent.parent)
    # A thread that waits by spinning takes the core from whatever else runs, and both get slower.
    return {
        **os.environ,
        "PYTHONPATH": source,
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


def _busy(out: Path) -> WorkerError:
    msg = f"Another process trains in {out}."
    return WorkerError(
        msg, code="training-busy", retryable=False, hint="Wait until it ends, or give this training another --name."
    )


def _tell(event: dict[str, Any]) -> None:
    hear = listener.get()
    if hear is not None:
        hear(event)
