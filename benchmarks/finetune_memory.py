"""``python -m benchmarks.finetune_memory``: what gradient checkpointing saves when a CTC model is fine-tuned on CPU.

A network of wav2vec2-base's size with random weights takes one step on one clip of ten
seconds, in a process of its own for each setting. Printed are the bytes that the
forward pass keeps for the backward pass (each storage once) and the peak of the
process's resident memory over what it had before the step, both in MB, and their
ratios with checkpointing to without.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

SECONDS = 10.0
STEP = """
import json, sys
from pathlib import Path
from benchmarks.finetune_memory import step
print(json.dumps(step(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "again")))
"""


def main() -> int:
    """Measure and print every setting."""
    with tempfile.TemporaryDirectory() as folder:
        base = _base(Path(folder) / "base")
        for method in ("lora", "full"):
            kept, again = (_run(base, method, mode) for mode in ("kept", "again"))
            for name in ("saved_mb", "peak_mb"):
                ratio = again[name] / kept[name]
                print(f"{method} {name}: {kept[name]:.0f} without, {again[name]:.0f} with, ratio {ratio:.2f}")
            print(f"{method} loss: {kept['loss']:.4f} without, {again['loss']:.4f} with")
    return 0


def step(base: Path, method: str, again: bool) -> dict[str, float]:  # noqa: FBT001
    """One step in this process; what it kept and needed, in MB."""
    import numpy as np
    import psutil
    import torch

    from grym.models.finetune.recipe import FinetuneData, FinetuneSpec
    from grym.models.finetune.trainer import Finetuner

    torch.set_num_threads(1)
    spec: Any = FinetuneSpec(method=method, gradient_checkpointing=again, steps=1)  # type: ignore[arg-type]
    trainer = Finetuner(spec, FinetuneData("noise", 1, SECONDS, "", "base", ""), base, base)
    noise = np.random.default_rng(0).standard_normal(int(SECONDS * 16_000)).astype(np.float32)
    example = trainer.kind.example(noise, "one two three")
    if example is None:
        msg = "The model can learn nothing from this clip."
        raise RuntimeError(msg)
    trainer.network.train()
    weights = {p.untyped_storage().data_ptr() for p in trainer.network.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    process, peak, running = psutil.Process(), [0], [True]
    before = process.memory_info().rss

    def watch() -> None:
        while running[0]:
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - transformers draws its masks here
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.kind.loss(trainer.network, example)
        saved = sum(seen.values())
    loss.backward()
    running[0] = False
    watcher.join()
    return {"saved_mb": saved / 1e6, "peak_mb": (peak[0] - before) / 1e6, "loss": float(loss.detach())}


def _run(base: Path, method: str, mode: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(base), method, mode], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _base(folder: Path) -> Path:
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    torch.manual_seed(0)
    folder.mkdir()
    words = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(words), layerdrop=0.0)).save_pretrained(folder)
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), word_delimiter_token="|")  # noqa: S106
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=False), tokenizer).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
