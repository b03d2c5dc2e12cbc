"""What is measured with: a checkpoint of wav2vec2-base size with random weights, and clips of noise.

Speed does not depend on what the weights say. Random ones need no download, and
the same seed makes the same everywhere. Times are seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from grym.models.interface import AudioClip

ROOT = Path(__file__).resolve().parents[1]
RATE = 16_000
CLIPS = 32
SHORTEST, LONGEST = 1.0, 10.0
LETTERS = " '-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAKE = """
import sys, torch, transformers
transformers.logging.disable_progress_bar()
torch.manual_seed(0)
config = transformers.Wav2Vec2Config(vocab_size=int(sys.argv[2]), pad_token_id=0)
transformers.Wav2Vec2ForCTC(config).save_pretrained(sys.argv[1])
"""


def checkpoint(folder: Path) -> Path:
    """Make the checkpoint in a folder, in Hugging Face form; in a process of its own, which needs torch."""
    folder.mkdir(parents=True)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS[1:]]
    subprocess.run([sys.executable, "-c", MAKE, str(folder), str(len(tokens))], check=True)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "Wav2Vec2CTCTokenizer",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "pad_token": "<pad>",
                "word_delimiter_token": "|",
                "do_lower_case": False,
            }
        )
    )
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": RATE, "do_normalize": True}
    facts = {**extractor, "feature_size": 1, "padding_value": 0.0, "padding_side": "right"}
    (folder / "preprocessor_config.json").write_text(json.dumps({**facts, "return_attention_mask": False}))
    return folder


def clips(count: int = CLIPS) -> list[AudioClip]:
    """Noise with an envelope, 1 to 10 seconds, the lengths spread evenly and shuffled."""
    numbers = np.random.default_rng(0)
    lengths = numbers.permutation(np.linspace(SHORTEST, LONGEST, count))
    made = []
    for number, seconds in enumerate(lengths):
        size = int(seconds * RATE)
        envelope = 0.55 + 0.45 * np.sin(np.linspace(0, 6 * seconds, size))
        made.append(
            AudioClip(f"clip-{number}", (envelope * numbers.standard_normal(size) / 8).astype(np.float32), RATE)
        )
    return made
