"""Fine-tuning as a person does it: killed and resumed in its process, and as a flow whose result is compared."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from grym.errors import GrymError, WorkerError
from grym.models.finetune.process import finetune
from grym.models.finetune.recipe import FinetuneData, FinetuneSpec, TrainingClip, write_clips

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "src/grym/models/checkpoints/wav2vec2-mini"
SPEC = FinetuneSpec(steps=6, batch_clips=2, checkpoint_every=2, learning_rate=1e-3)
DATA = FinetuneData("digits", 6, 10.0, "0" * 16, "wav2vec2-mini", "1" * 64)


def _clips(folder: Path, digits: Any) -> Path:
    rows, _ = digits
    root = ROOT / "datasets/digits/test"
    write_clips(
        [TrainingClip(str(root / row["audio_filepath"]), row["text"]) for row in rows(6)], folder / "clips.jsonl"
    )
    return folder / "clips.jsonl"


@pytest.mark.chaos
def test_a_killed_finetuning_goes_on_to_the_same_weights(tmp_path: Path, digits: Any) -> None:
    """SIGKILL after a checkpoint, started again: the exported weights equal those of an undisturbed training."""
    clips = _clips(tmp_path, digits)
    events = list(finetune(SPEC, DATA, base=BASE, clips=clips, out=tmp_path / "whole"))
    assert events[-1]["event"] == "done"
    assert events[-1]["trained"] < events[-1]["parameters"] / 4
    killed = tmp_path / "killed"
    with pytest.raises(WorkerError, match="ended early"):
        _finetune_and_kill(clips, killed)
    resumed = list(finetune(SPEC, DATA, base=BASE, clips=clips, out=killed))
    assert any(event["event"] == "resume" for event in resumed)
    left, right = (dict(load_file(f / "model/model.safetensors")) for f in (tmp_path / "whole", killed))
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], atol=1e-6, err_msg=name)
    empty = tmp_path / "none.jsonl"
    write_clips([], empty)
    with pytest.raises(GrymError, match="none of the 0 clips"):
        list(finetune(SPEC, DATA, base=BASE, clips=empty, out=tmp_path / "empty"))


def _finetune_and_kill(clips: Path, out: Path) -> None:
    """Kill the process as soon as there is a checkpoint; it has more steps to do by then."""
    running = finetune(SPEC, DATA, base=BASE, clips=clips, out=out)
    out.mkdir()

    def watch() -> None:
        while not (out / "checkpoint.pt").is_file():
            time.sleep(0.002)
        for child in psutil.Process().children():
            if "grym.models.finetune.trainer" in child.cmdline():
                child.send_signal(signal.SIGKILL)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        list(running)
    finally:
        watcher.join()


@pytest.mark.chaos
def test_the_flow_leaves_a_registered_model_that_can_be_compared(project: Any, digits: Any) -> None:
    """LoRA on forty clips, measured before and after on others; then the ordinary comparison takes it by its name."""
    rows, write = digits
    dataset = write(project.folder / "set", rows(50, step=8))
    shutil.copy(BASE / "README.md", project.folder)
    done = project.run(
        "finetune", "mini", "--dataset", str(dataset), "--name", "mini-tuned", "--steps", "4", "--batch-clips", "4",
        "--learning-rate", "0.0003",
    )  # fmt: skip
    assert "mini-tuned: WER" in done.stdout
    made = project.home / "models/mini-tuned"
    assert "10 | 0 |" in (made / "README.md").read_text(encoding="utf-8")
    compared = project.run("compare", "--a", "mini-tuned", "--b", "mini", "--dataset", str(dataset))
    assert "mini-tuned" in compared.stdout
    again = project.run("finetune", "mini", "--dataset", str(dataset), "--name", "mini-tuned", code=2)
    assert "--replace" in again.stderr
