"""The tokenizer of ``gama-mini``: byte-level BPE, learnt from what it is asked and answers. Any text can be spelt.

Knows nothing about audio. Files are those of the libraries: ``tokenizer.json`` and ``tokenizer_config.json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Iterable

PAD, BOS, EOS = 0, 1, 2
SPECIAL: Final = ("<pad>", "<s>", "</s>")
VOCABULARY: Final = 1024  # 259 bytes and marks; the rest are pieces of the corpus, most of them words


def learn(texts: Iterable[str]) -> Any:
    """A tokenizer for these texts, which can spell every other one byte by byte.

    Args:
        texts: prompts and answers; the same texts in the same order give the same tokenizer.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=SPECIAL[PAD],
        bos_token=SPECIAL[BOS],
        eos_token=SPECIAL[EOS],
        clean_up_tokenization_spaces=False,
        # A prompt that spells "</s>" is text, not an end.
        split_special_tokens=True,
    )
