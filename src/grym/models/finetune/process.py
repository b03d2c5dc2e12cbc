"""Runs a fine-tuning in its own process and reads its progress. Knows nothing about Prefect or torch.

A fine-tuning that is killed goes on at its last checkpoint when it is started again
with the same recipe, data and folder.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from grym.models.training_process import follow

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from grym.models.finetune.recipe import FinetuneData, FinetuneSpec


def finetune(
    spec: FinetuneSpec, data: FinetuneData, *, base: Path, clips: Path, out: Path
) -> Generator[dict[str, Any], None, None]:
    """Fine-tune, or go on, and yield the process's events as they come.

    Args:
        spec: the recipe.
        data: what is heard.
        base: folder of the model that is trained; it is only read.
        clips: list that :func:`grym.models.finetune.recipe.write_clips` wrote.
        out: folder of checkpoint, log and exported model (``out/model``); one training at a time.

    Yields:
        ``resume`` (with step), ``restart`` (with reason and the kept checkpoint), ``step`` (with step and loss),
        ``done`` (with step, folder, trained, parameters, loss, left_out); each with ``stage`` and ``steps``.

    Raises:
        GrymError: the model cannot be read, or can learn from none of the clips.
        WorkerError: another process trains in ``out``, or the process ended without the event ``done``.
    """
    command = [sys.executable, "-m", "grym.models.finetune.trainer", "--parent", str(os.getpid())]
    command += ["--spec", spec.to_json(), "--data", data.to_json()]
    command += ["--base", str(base), "--clips", str(clips), "--out", str(out)]
    yield from follow(command, out, {"stage": data.base, "steps": spec.steps})
