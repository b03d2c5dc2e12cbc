"""Runs :mod:`grym.models.gama.convert` in its own process. Knows nothing about torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grym
from grym.errors import ErrorRecord, GrymError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Sequence


def run_conversion(stage_file: Path, llama: Path, out: Path, *, stage: str = "") -> dict[str, Any]:
    """Convert a published GAMA checkpoint.

    Returns:
        The fields of :class:`grym.models.gama.convert.Conversion`.

    Raises:
        GrymError: what the conversion raised.
        WorkerError: ``conversion-failed``: the process ended without an answer.
    """
    return ask(
        "grym.models.gama.convert", [*(str(path.absolute()) for path in (stage_file, llama, out)), f"--stage={stage}"]
    )


def ask(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a module that prints ``{"done": …}`` or ``{"error": …}`` as its last line; see :func:`run_conversion`."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(grym.__file__).resolve().parent.parent), "HF_HUB_OFFLINE": "1"},
    )
    try:
        said = json.loads(done.stdout.strip().splitlines()[-1])
        if "error" in said:
            raise GrymError.from_record(ErrorRecord(**said["error"]))
        result: dict[str, Any] = said["done"]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        if isinstance(error, GrymError):
            raise
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        msg = f"The conversion ended with exit code {done.returncode}; it last said: {last[:200]}."
        hint = "It needs about 4 GB of memory and as much disk as the weights have."
        raise WorkerError(msg, code="conversion-failed", hint=hint, retryable=False) from error
    return result
