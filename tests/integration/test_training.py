"""Training in its own process: killed and resumed, refused, and as a flow with its model card."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from grym.errors import ConfigError, WorkerError
from grym.models.recipe import TrainSpec, mini_stages
from grym.models.training_process import train

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "datasets/digits/train/manifest.csv"
TINY = TrainSpec(steps=6, alignment_steps=2, voices=0, batch_seconds=4.0, checkpoint_every=2)


def _weights(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / "model.safetensors"))


def _train_and_kill(folder: Path) -> None:
    """Start a training and kill its process as soon as there is a checkpoint."""
    for _ in train(TINY, folder, manifest=MANIFEST):
        child = next(p for p in psutil.Process().children() if "grym.models.training" in p.cmdline())
        while not (folder / "checkpoint.pt").is_file():
            assert child.is_running()
        child.send_signal(signal.SIGKILL)


def test_a_killed_training_goes_on_at_its_checkpoint_to_the_same_weights(tmp_path: Path) -> None:
    """SIGKILL after a checkpoint, started again: the exported weights equal those of an undisturbed training."""
    whole = [event["event"] for event in train(TINY, tmp_path / "whole", manifest=MANIFEST)]
    assert whole[0] == "data"
    assert whole[-1] == "done"
    killed = tmp_path / "killed"
    with pytest.raises(WorkerError, match="ended early"):
        _train_and_kill(killed)
    resumed = list(train(TINY, killed, manifest=MANIFEST))
    assert any(event["event"] == "resume" and event["step"] >= 2 for event in resumed)
    finished = [event["event"] for event in train(TINY, killed, manifest=MANIFEST)]
    assert finished == ["resume", "done"]
    left, right = _weights(tmp_path / "whole/model"), _weights(killed / "model")
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], atol=1e-5, err_msg=name)


def test_a_checkpoint_of_another_recipe_is_not_used(tmp_path: Path) -> None:
    """Another recipe in the same folder starts from the beginning and says so."""
    short = TrainSpec(steps=2, alignment_steps=1, voices=0, batch_seconds=4.0, checkpoint_every=1)
    list(train(short, tmp_path, manifest=MANIFEST))
    other = TrainSpec(steps=2, alignment_steps=1, voices=0, batch_seconds=4.0, checkpoint_every=1, seed=3)
    events = [event["event"] for event in train(other, tmp_path, manifest=MANIFEST)]
    assert "restart" in events
    assert "resume" not in events


def test_a_recipe_is_read_strictly() -> None:
    """Unknown fields are named; stages build on each other by key."""
    with pytest.raises(ConfigError, match="stps"):
        TrainSpec.from_json('{"stps": 3}')
    spec = TrainSpec.from_json('{"steps": 7, "leave_out": ["theo"]}')
    assert (spec.steps, spec.leave_out) == (7, ("theo",))
    first, second = mini_stages(scale=0.001)
    assert second.start_from == first.key != second.key
    assert first.stop_after == 3


def test_the_train_flow_leaves_a_measured_checkpoint(project: Any, digits: Any) -> None:
    """Two stages, a card with measured rates in both precisions, and a folder that a comparison can use."""
    rows, write = digits
    measured = write(project.folder / "set", rows(8, step=40))
    project.environment.pop("GRYM_FSDD", None)
    done = project.run(
        "train", "--scale", "0.0006", "--voices", "0", "--manifest", str(MANIFEST), "--measure-on", str(measured)
    )  # fmt: skip
    folders = sorted((project.home / "training" / "wav2vec2-mini").iterdir())
    assert len(folders) == 2
    assert "WER" in done.stdout
    folder = next(f / "model" for f in folders if (f / "model" / "README.md").is_file())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "fp32" in card
    assert "int8" in card
    assert "| all | 8 |" in card
    assert json.loads((folder / "training.json").read_text(encoding="utf-8"))["spec"]["voices"] == 0
