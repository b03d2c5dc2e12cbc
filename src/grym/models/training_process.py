"""Runs a training in its own process and reads its progress.

Knows nothing about Prefect or torch. A training that is killed goes on at its
last checkpoint when it is started again with the same recipe and folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grym
from grym.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grym.models.recipe import TrainSpec


def train(
    spec: TrainSpec,
    out: Path,
    *,
    fsdd: Path | None = None,
    manifest: Path | None = None,
    start: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Train, or go on training, and yield the process's events as they come.

    Args:
        spec: the recipe.
        out: folder of checkpoint and exported model (``out/model``).
        fsdd: folder of the Free Spoken Digit Dataset; without it only synthetic voices are used.
        manifest: further clips, as CSV or JSONL.
        start: exported model to start from; default random weights.

    Yields:
        Events with the key ``event``: ``data``, ``resume``, ``step`` (with loss), ``done`` (with folder).

    Raises:
        WorkerError: the process ended without the event ``done``.
    """
    out.mkdir(parents=True, exist_ok=True)
    # The recipe decides how long the schedule is; the process finds its checkpoint by itself.
    command = [sys.executable, "-m", "grym.models.training", "--out", str(out)]
    command += ["--spec", json.dumps(dataclasses.asdict(spec))]
    for option, path in (("--fsdd", fsdd), ("--manifest", manifest), ("--start", start)):
        if path is not None:
            command += [option, str(path)]
    source = str(Path(grym.__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": source, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    finished = False
    with (
        (out / "training.log").open("ab") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        try:
            for line in process.stdout or ():
                event = json.loads(line)
                finished = event["event"] == "done"
                yield event
        finally:
            if process.poll() is None and not finished:
                process.terminate()
    if not finished:
        msg = f"The training ended early with exit code {process.returncode}."
        raise WorkerError(msg, code="training-failed", hint="See training.log beside the checkpoint; start it again.")
