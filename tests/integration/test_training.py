"""Training in its own process: killed and resumed, orphaned, refused, and as a flow with its model card."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from grym.errors import ConfigError, WorkerError
from grym.models.recipe import TrainData, TrainSpec, exported, mini_stages, recorded_data
from grym.models.training_process import install, listener, parse_event, train

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "datasets/digits/train/manifest.csv"
TINY = TrainSpec(steps=6, alignment_steps=2, voices=0, batch_seconds=4.0, checkpoint_every=2)


def _weights(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / "model.safetensors"))


def _export(folder: Path, spec: TrainSpec, heard: TrainData) -> None:
    """Say that a folder is what a finished stage left."""
    facts = {"spec": dataclasses.asdict(spec), "key": spec.key, "step": spec.steps, "data": dataclasses.asdict(heard)}
    (folder / "training.json").write_text(json.dumps(facts), encoding="utf-8")


def _train_and_kill(folder: Path) -> None:
    """Start a training and kill its process as soon as there is a checkpoint."""
    for _ in train(TINY, folder, manifest=MANIFEST):
        child = next(p for p in psutil.Process().children() if "grym.models.training" in p.cmdline())
        while not (folder / "checkpoint.pt").is_file():
            assert child.is_running()
        child.send_signal(signal.SIGKILL)


@pytest.mark.chaos
def test_a_killed_training_goes_on_at_its_checkpoint_to_the_same_weights(tmp_path: Path) -> None:
    """SIGKILL after a checkpoint, started again: the exported weights equal those of an undisturbed training."""
    heard: list[dict[str, Any]] = []
    token = listener.set(heard.append)
    events = list(train(TINY, tmp_path / "whole", manifest=MANIFEST))
    listener.reset(token)
    assert heard == events
    assert {(event["stage"], event["steps"]) for event in events} == {(TINY.key, 6)}
    whole = [event["event"] for event in events]
    assert whole[0] == "data"
    assert whole[-1] == "done"
    assert recorded_data(tmp_path / "whole/model") == TrainData.of(TINY, None, MANIFEST)
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


def test_a_checkpoint_of_other_data_is_put_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Same recipe: a manifest with other rows starts from the beginning, names what differs, and loses nothing."""
    from grym.models.training import Trainer

    fewer = tmp_path / "manifest.csv"
    fewer.write_text("".join(MANIFEST.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    first = Trainer(TINY, tmp_path, TrainData.of(TINY, None, MANIFEST))
    first.step = 4
    first.save()
    assert Trainer(TINY, tmp_path, TrainData.of(TINY, None, MANIFEST)).step == 4
    assert Trainer(TINY, tmp_path, TrainData.of(TINY, None, fewer)).step == 0
    resumed, restarted = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert resumed["event"] == "resume"
    assert restarted["event"] == "restart"
    assert "other data: manifest_sha256" in restarted["reason"]
    Path(restarted["kept"]).rename(tmp_path / "checkpoint.pt")
    assert Trainer(TINY, tmp_path, TrainData.of(TINY, None, MANIFEST)).step == 4


def test_a_checkpoint_without_a_record_is_used_and_stays_unknown(tmp_path: Path) -> None:
    """An older checkpoint goes on with any data; what it exports does not claim to know what it heard."""
    import torch

    from grym.models.training import Trainer

    older = Trainer(TINY, tmp_path, TrainData())
    older.step = 4
    older.save()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state.pop("data") == dataclasses.asdict(TrainData())
    torch.save(state, tmp_path / "checkpoint.pt")
    resumed = Trainer(TINY, tmp_path, TrainData.of(TINY, None, MANIFEST))
    assert resumed.step == 4
    resumed.export(tmp_path / "model")
    assert recorded_data(tmp_path / "model") is None


ORPHAN = """
import json, sys
from pathlib import Path
from grym.models.recipe import TrainSpec
from grym.models.training_process import train
for event in train(TrainSpec.from_json(sys.argv[1]), Path(sys.argv[2]), manifest=Path(sys.argv[3])):
    print(json.dumps(event), flush=True)
"""


@pytest.mark.chaos
def test_a_training_ends_with_its_parent_and_leaves_its_folder_free(tmp_path: Path) -> None:
    """A second training in the folder is refused; SIGKILL of the parent ends the child, and the next one resumes."""
    endless = dataclasses.replace(TINY, steps=100_000)
    arguments = [json.dumps(dataclasses.asdict(endless)), str(tmp_path), str(MANIFEST)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen([sys.executable, "-c", ORPHAN, *arguments], env=environment) as parent:
        while not (tmp_path / "checkpoint.pt").is_file():
            assert parent.poll() is None
            time.sleep(0.05)
        (child,) = psutil.Process(parent.pid).children()
        with pytest.raises(WorkerError, match="Another process trains in") as refused:
            list(train(endless, tmp_path, manifest=MANIFEST))
        assert (refused.value.code, refused.value.retryable) == ("training-busy", False)
        assert child.is_running()
        parent.kill()
    child.wait(timeout=20)
    going_on = train(endless, tmp_path, manifest=MANIFEST)
    first = next(going_on)
    assert first["event"] == "resume"
    going_on.close()


@pytest.mark.parametrize(
    "line", ["Loading weights: 100%\n", '{"event": "st', "3", "[1]", '{"step": 1}', '{"event": 1}', ""]
)
def test_lines_that_are_no_events_are_passed_over(line: str) -> None:
    """What a library prints, half a line, and JSON of another shape are no events."""
    assert parse_event(line) is None
    assert parse_event('{"event": "step", "loss": NaN}') is not None


INSTALLER = """
import sys
from pathlib import Path
from grym.models.training_process import install
while True:
    for source in sys.argv[1:3]:
        install(Path(source), Path(sys.argv[3]))
        print(source, flush=True)
"""


def test_a_kill_during_install_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """SIGKILL at any moment: the target is one of the two sources, never a mixture, never missing."""
    target = tmp_path / "checkpoints" / "mini"
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        for part in range(20):
            (tmp_path / name / f"{part}.txt").write_text(name, encoding="utf-8")
    command = [sys.executable, "-c", INSTALLER, str(tmp_path / "old"), str(tmp_path / "new"), str(target)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for _ in range(8):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random.uniform(0, 0.05))
            process.kill()
        found = [path.read_text(encoding="utf-8") for path in sorted(target.iterdir())]
        assert found in (["old"] * 20, ["new"] * 20)
    (tmp_path / "new" / "0.txt").unlink()
    install(tmp_path / "new", target)
    assert len(list(target.iterdir())) == 19
    assert [path.name for path in target.parent.iterdir()] == ["mini"]


def test_an_exported_stage_needs_no_checkpoint(tmp_path: Path) -> None:
    """A model that another machine trained with the same recipe and speech is taken as it is; with others it is not."""
    spec = dataclasses.replace(TINY, steps=1, alignment_steps=0)
    heard = TrainData.of(spec, None, MANIFEST)
    assert not exported(tmp_path / "out" / "model", spec, heard)
    (tmp_path / "out" / "model").mkdir(parents=True)
    _export(tmp_path / "out" / "model", spec, heard)
    assert exported(tmp_path / "out" / "model", spec, heard)
    assert not exported(tmp_path / "out" / "model", spec, TrainData.of(spec, None, None))
    assert not exported(tmp_path / "out" / "model", dataclasses.replace(spec, steps=2), heard)
    events = list(train(spec, tmp_path / "out", manifest=MANIFEST))
    assert [event["event"] for event in events] == ["done"]
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


def test_an_optimizer_is_one_of_two() -> None:
    """Muon takes the matrices between layers; another name is refused before anything is heard."""
    from grym.models.training import Trainer

    spec = dataclasses.replace(TINY, optimizer="sgd")
    with pytest.raises(ConfigError, match=r"no optimizer 'sgd'; known are adamw, muon\."):
        Trainer(spec, Path("nowhere"), TrainData())
    groups = Trainer(dataclasses.replace(TINY, optimizer="muon"), Path("nowhere"), TrainData())._optimizer.param_groups
    assert [group["muon"] for group in groups] == [True, False]
    assert sum(p.numel() for p in groups[0]["params"]) > 10 * sum(p.numel() for p in groups[1]["params"])


def test_a_recipe_is_read_strictly() -> None:
    """Unknown fields are named; stages build on each other by key."""
    with pytest.raises(ConfigError, match="stps"):
        TrainSpec.from_json('{"stps": 3}')
    spec = TrainSpec.from_json('{"steps": 7, "leave_out": ["theo"]}')
    assert (spec.steps, spec.leave_out) == (7, ("theo",))
    stages = mini_stages(scale=0.001)
    assert [spec.start_from for spec in stages] == ["", *(spec.key for spec in stages[:-1])]
    assert len({spec.key for spec in stages}) == len(stages)
    others = mini_stages(scale=0.001, leave_out=("theo",))
    assert others[:2] == stages[:2], "what is learned before real speech does not depend on who is left out"
    assert {spec.leave_out for spec in others[2:]} == {("theo",)}
    assert [spec.start_from for spec in others[2:]] == [stages[1].key, *(spec.key for spec in others[2:-1])]
    assert {spec.recorded_share for spec in mini_stages(voices=0)} == {0.0}


def test_the_train_flow_leaves_a_measured_checkpoint(project: Any, digits: Any) -> None:
    """The stages that are not there already, a card with rates in both precisions, a folder for comparisons."""
    rows, write = digits
    measured = write(project.folder / "set", rows(8, step=40))
    project.environment.pop("GRYM_FSDD", None)
    # The first stages come from another machine, so that the flow trains the last two.
    for spec in mini_stages(voices=0, scale=0.0006)[:-2]:
        stage = project.home / "training" / "wav2vec2-mini" / spec.key / "model"
        shutil.copytree(ROOT / "src/grym/models/checkpoints/wav2vec2-mini", stage)
        _export(stage, spec, TrainData.of(spec, None, MANIFEST))
    done = project.run(
        "train", "--scale", "0.0006", "--voices", "0", "--manifest", str(MANIFEST), "--measure-on", str(measured)
    )  # fmt: skip
    folders = [f for f in (project.home / "training" / "wav2vec2-mini").iterdir() if f.name != "voices"]
    assert len(folders) == len(mini_stages())
    assert "WER" in done.stdout
    assert sum((f / "checkpoint.pt").is_file() for f in folders) == 2
    folder = project.home / "training" / "wav2vec2-mini" / mini_stages(voices=0, scale=0.0006)[-1].key / "model"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "fp32" in card
    assert "int8" in card
    assert "| all | 8 | 0 |" in card
    assert "No recordings of the Free Spoken Digit Dataset." in card
    assert "`manifest.csv`" in card
    assert json.loads((folder / "training.json").read_text(encoding="utf-8"))["spec"]["voices"] == 0


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "/a", "Mini", ".hidden", "-x", "mini\n"])
def test_a_name_that_is_no_plain_folder_is_refused(name: str) -> None:
    """Install replaces a folder of that name, so it has to be one below the checkpoints."""
    from flows.train import check_name

    with pytest.raises(ConfigError, match="cannot name a checkpoint"):
        check_name(name)
    check_name("wav2vec2-mini.2")


def test_a_refused_name_trains_nothing(project: Any) -> None:
    """The command line says what is wrong with the name before anything is written below HOME/training."""
    done = project.run("train", "--name", "../escape", "--install", code=2)
    assert "cannot name a checkpoint" in done.stderr
    assert not (project.home / "training").exists()
    assert not (project.home / "escape").exists()
