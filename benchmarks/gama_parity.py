r"""``python -m benchmarks.gama_parity CHECKOUT --libraries FOLDER [--record FILE]``: ours and the published one.

CHECKOUT is a clone of the published code (Sreyan88/GAMA at 041c3a6). FOLDER holds
what its old fork of transformers imports, installed without dependencies::

    pip install --no-deps --target FOLDER tokenizers==0.13.3 huggingface-hub==0.17.3 \
        accelerate==0.23.0 timm==1.0.31 torchvision pillow

Both networks get the same random weights, ours through the converter's own map of
names. Compared are encoder, Q-Former, aggregator, the embeddings in front of BOS
and the logits; the largest absolute difference of each is printed. ``--record``
stores the published network's outputs, arrays only, for the tests.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.gama_reference import fill, inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

TOLERANCE = 1e-4
STAGES = ("encoder", "qformer", "aggregator", "prefix", "logits")
HEAD_SIZE = 8
FORK = Path("hf-dev-train/transformers-main/src")
PEFT = Path("peft-main/src")


@dataclass(frozen=True, slots=True)
class Difference:
    """Largest absolute difference of one stage, and the largest value it is to be seen against."""

    stage: str
    largest: float
    scale: float


def main() -> int:
    """Compare; 1 if a stage differs by more than the tolerance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gama_parity", description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--libraries", type=Path, required=True)
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "reference.npz"
        run_reference(asked.checkout.resolve(), asked.libraries.resolve(), out)
        with np.load(out) as stored:
            recorded = dict(stored)
    found = compare(recorded)
    for one in found:
        print(f"{one.stage:12} {one.largest:.1e} of {one.scale:.2f}")
    print(f"{len(recorded['dead_names'])} dead tensors changed: {float(recorded['dead_effect']):.1e}")
    if asked.record:
        asked.record.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = recorded
        np.savez_compressed(asked.record, **arrays)
    return int(any(one.largest > TOLERANCE for one in found) or float(recorded["dead_effect"]) != 0.0)


def run_reference(checkout: Path, libraries: Path, out: Path) -> None:
    """Run :mod:`benchmarks.gama_reference` with the published code on its path."""
    script = Path(__file__).with_name("gama_reference.py")
    paths = [checkout / FORK, checkout / PEFT, libraries]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    # -P: this folder holds a module named statistics, which the standard library also has.
    subprocess.run([sys.executable, "-P", str(script), str(out)], check=True, env=environment)


def port(recorded: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Our network with the weights of the published one, by name and shape alone."""
    import torch

    from grym.models.gama import keys
    from grym.models.gama.convert import infer_config
    from grym.models.gama.modeling import GamaModel

    shapes = {name.removeprefix("shape/"): tuple(value.tolist()) for name, value in recorded.items() if "/" in name}
    weights = {name: torch.from_numpy(fill(name, shape)) for name, shape in shapes.items()}
    base = {n: w for n, w in weights.items() if keys.llama_name(n, ()) is not None and "lora" not in n}
    stage = {n: w for n, w in weights.items() if n not in base}
    vocabulary, hidden = shapes["base_model.model.lm_head.weight"]
    config = infer_config(stage, llama_sizes(shapes, vocabulary, hidden), head_size=HEAD_SIZE)
    config.text_config.num_attention_heads = config.text_config.num_key_value_heads = 4
    mapped = keys.translate(stage)
    state = {ours: stage[name] for name, ours in mapped.live.items()}
    for name, weight in base.items():
        ours = keys.llama_name(name.removeprefix("base_model.model."), config.lora_targets)
        state[str(ours)] = weight
    model = GamaModel(config)
    model.load_state_dict(state, strict=True)
    return model.eval()


def llama_sizes(shapes: Mapping[str, tuple[int, ...]], vocabulary: int, hidden: int) -> dict[str, Any]:
    """What the configuration file of a Llama folder says."""
    inner = shapes["base_model.model.model.layers.0.mlp.up_proj.weight"][0]
    layers = 1 + max(int(name.split("layers.")[1].split(".")[0]) for name in shapes if ".model.layers." in name)
    return {
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


def stages(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """What our network gives at each stage, as the recording has it."""
    import torch

    spectrogram, ids = (torch.from_numpy(value) for value in inputs())
    kept: dict[str, Any] = {}
    watched = {"qformer": model.qformer, "aggregator": model.aggregator}
    hooks = [
        part.register_forward_hook(lambda _m, _i, out, name=name: kept.__setitem__(name, out))
        for name, part in watched.items()
    ]
    with torch.no_grad():
        kept["encoder"] = model.audio_tower(spectrogram)[0][:, ::16]
        kept["prefix"] = model.listen(spectrogram).tokens
        kept["logits"] = model(spectrogram, ids).logits
    for hook in hooks:
        hook.remove()
    kept["qformer"] = kept["qformer"].last_hidden_state
    return {name: kept[name].numpy() for name in STAGES}


def compare(recorded: Mapping[str, npt.NDArray[Any]]) -> list[Difference]:
    """Our stages against recorded ones."""
    ours = stages(port(recorded))
    return [
        Difference(name, float(np.abs(ours[name] - recorded[name]).max()), float(np.abs(recorded[name]).max()))
        for name in STAGES
    ]


if __name__ == "__main__":
    sys.exit(main())
