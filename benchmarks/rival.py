"""What we are compared with, in a process of its own: ``python -m benchmarks.rival KIND FOLDER``.

Kinds: ``pipeline-1`` and ``pipeline-8`` are the speech recognition pipeline of
transformers with that batch size, ``loop`` is its feature extractor, network and
tokenizer in a plain loop. Each line on standard input asks for a pass over the
clips; the answer is a line with seconds and texts. Everything is at its default.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.material import clips

if TYPE_CHECKING:
    from collections.abc import Callable


def listener(kind: str, folder: str) -> Callable[[list[Any]], list[str]]:
    """The function that turns waves into texts."""
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    network = transformers.AutoModelForCTC.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)

    def loop(waves: list[Any]) -> list[str]:
        texts = []
        with torch.inference_mode():
            for wave in waves:
                values = processor.feature_extractor(wave, sampling_rate=16_000, return_tensors="pt").input_values
                texts.append(processor.tokenizer.decode(network(values).logits[0].argmax(-1)))
        return texts

    if kind == "loop":
        return loop
    size = int(kind.rpartition("-")[2])
    recognise = transformers.pipeline(
        "automatic-speech-recognition",
        model=network,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
        device="cpu",
    )
    return lambda waves: [said["text"] for said in recognise([wave.copy() for wave in waves], batch_size=size)]


def main() -> None:
    """Answer requests until the input ends."""
    listen = listener(*sys.argv[1:])
    waves = [clip.samples for clip in clips()]
    listen(waves[:2])
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        texts = listen(waves)
        print(json.dumps({"seconds": time.perf_counter() - started, "texts": texts}), flush=True)


if __name__ == "__main__":
    main()
