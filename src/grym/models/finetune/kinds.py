"""What differs between kinds of models when they are fine-tuned: reading, examples, loss. One class for each.

Audio is float32 mono at 16 kHz. Every clip goes through the network by itself, as it
does when a model answers, so padding can teach nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch

from grym.errors import ConfigError
from grym.models.checkpoint import load_network, load_part, read_type

if TYPE_CHECKING:
    from pathlib import Path

    from grym.models.finetune.recipe import FinetuneSpec
    from grym.models.interface import Samples

Example = dict[str, torch.Tensor]
NAME = "the base model"


class Kind(Protocol):
    """A kind of model that can be fine-tuned.

    Attributes:
        network: with gradients, in float32.
        targets: linear layers that get a low-rank update: ends of names, or a regular expression for whole names.
        heads: ends of names of layers that are trained as a whole beside them.
    """

    network: Any
    targets: tuple[str, ...] | str
    heads: tuple[str, ...]

    def example(self, samples: Samples, text: str) -> Example | None:
        """What the loss needs of one clip; ``None`` if the model cannot learn from it."""
        ...

    def loss(self, network: Any, example: Example) -> torch.Tensor:
        """A scalar with gradient."""
        ...


def read_kind(folder: Path, spec: FinetuneSpec) -> Kind:
    """Read a model for training.

    Raises:
        GrymError: as when the model is read for answering.
    """
    kinds: dict[str, Any] = {"wav2vec2": Ctc, "seq2seq": SpeechToText, "audio_lm": AudioLanguage, "gama": GamaKind}
    kind: Kind = kinds[spec.adapter](folder, spec)
    return kind


class Ctc:
    """wav2vec2, HuBERT, WavLM, data2vec-audio."""

    targets: ClassVar[tuple[str, ...]] = (
        "q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense",
    )  # fmt: skip
    heads: ClassVar[tuple[str, ...]] = ("lm_head",)

    def __init__(self, folder: Path, spec: FinetuneSpec) -> None:
        from grym.models._network import read
        from grym.models.lead_in import read_lead_in
        from grym.models.wav2vec2 import Wav2Vec2Options, checkpoint_folder

        options = Wav2Vec2Options(path=str(folder))
        self.network, processor = read(NAME, checkpoint_folder(str(folder)), options)
        config = self.network.config
        config.ctc_loss_reduction, config.ctc_zero_infinity = "mean", True
        self._tokenizer = processor.tokenizer
        self._normalize = bool(processor.feature_extractor.do_normalize)
        self._letters = set(self._tokenizer.get_vocab())
        self._stride = int(np.prod(config.conv_stride))
        self._lead = round(read_lead_in(folder) * 16_000 / self._stride) * self._stride
        if spec.method == "full" and hasattr(self.network, "freeze_feature_encoder"):
            self.network.freeze_feature_encoder()

    def example(self, samples: Samples, text: str) -> Example | None:
        """Samples as the model gets them, and the letters of its vocabulary that the text has."""
        from grym.models.lead_in import lead_in

        delimiter = str(getattr(self._tokenizer, "word_delimiter_token", "|") or "|")
        cased = text.upper() if "E" in self._letters else text.lower()
        words = ["".join(letter for letter in word if letter in self._letters) for word in cased.split()]
        letters = [*delimiter.join(word for word in words if word)]
        frames = (samples.size + self._lead) // self._stride
        if not letters or len(letters) > frames:
            return None
        wave = lead_in(samples, self._lead)
        values = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7) if self._normalize else wave
        ids = self._tokenizer.convert_tokens_to_ids(letters)
        return {"values": torch.from_numpy(values.astype(np.float32))[None], "labels": torch.tensor([ids])}

    def loss(self, network: Any, example: Example) -> torch.Tensor:
        """CTC."""
        found: torch.Tensor = network(input_values=example["values"], labels=example["labels"]).loss
        return found


class SpeechToText:
    """The Whisper family and other models of encoder and decoder."""

    targets: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "out_proj", "o_proj")
    heads: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, spec: FinetuneSpec) -> None:
        import transformers

        from grym.models.seq2seq.network import TYPES

        self._kind = read_type(NAME, folder, TYPES, "a speech-to-text model")
        self.network, _, _ = load_network(
            NAME, folder, transformers.AutoModelForSpeechSeq2Seq, "fp32", "auto",
            optional=("embed_positions.weights", "proj_out.weight"),
        )  # fmt: skip
        self._extractor = load_part(NAME, folder, transformers.AutoFeatureExtractor, "feature extractor")
        self._tokenizer = load_part(NAME, folder, transformers.AutoTokenizer, "tokenizer")
        facts, config = self.network.generation_config, self.network.config
        end = facts.eos_token_id if facts.eos_token_id is not None else config.eos_token_id
        self._end = int(end[0] if isinstance(end, list | tuple) else end)
        start = config.decoder_start_token_id
        self._start = [int(config.bos_token_id if start is None else start), *self._prefix(facts, spec.language)]
        self._positions = int(
            getattr(config, "max_target_positions", 0) or getattr(config, "max_position_embeddings", 448)
        )

    @staticmethod
    def _prefix(facts: Any, language: str) -> list[int]:
        known = getattr(facts, "lang_to_id", None) or {}
        token = f"<|{language or 'en'}|>"
        if known and token not in known:
            msg = f"The model does not know the language {language or 'en'!r}."
            raise ConfigError(msg, code="unknown-language", hint="Give the option language, a code of two letters.")
        task = (getattr(facts, "task_to_id", None) or {}).get("transcribe")
        parts = [known.get(token), task if known else None, getattr(facts, "no_timestamps_token_id", None)]
        return [int(part) for part in parts if part is not None]

    def example(self, samples: Samples, text: str) -> Example | None:
        """What the encoder reads, and the text behind its usual beginning."""
        ids = self._tokenizer.encode(f" {text}" if self._kind == "whisper" else text, add_special_tokens=False)
        whole = [*self._start, *ids, self._end]
        limit = getattr(self._extractor, "n_samples", samples.size) if self._kind == "whisper" else samples.size
        if not text.strip() or len(whole) > self._positions or samples.size > limit:
            return None
        given = self._extractor(samples, sampling_rate=16_000, return_tensors="pt")
        row = torch.tensor([whole])
        labels = row[:, 1:].clone()
        labels[:, : len(self._start) - 1] = -100
        return {**dict(given), "decoder_input_ids": row[:, :-1], "labels": labels}

    def loss(self, network: Any, example: Example) -> torch.Tensor:
        """Cross-entropy of the text and its end."""
        given = {key: value for key, value in example.items() if key != "labels"}
        return _cross_entropy(network(**given, use_cache=False).logits, example["labels"])


class AudioLanguage:
    """Audio-language models: the language model learns; what it hears stays as it is."""

    targets: ClassVar[str] = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj)"
    heads: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, spec: FinetuneSpec) -> None:
        from grym.models.audio_lm.families import build_prompt
        from grym.models.audio_lm.network import load
        from grym.models.gama.prompts import choose_instruction

        self._loaded = load(NAME, folder, "fp32", "auto")
        self.network, family = self._loaded.network, self._loaded.family
        alone = bool(family.transcription) and not spec.instruction
        asked = "" if alone else choose_instruction("transcribe", spec.instruction, family.instructions)
        encode = self._loaded.tokenizer.encode
        parts = build_prompt(family, "transcribe", asked, spec.language)
        self._before, self._after = (encode(part, add_special_tokens=False) for part in parts)
        self._longest = int(family.window_seconds * 16_000)

    def example(self, samples: Samples, text: str) -> Example | None:
        """Audio tokens, and the answer's ids with their end."""
        from grym.models.audio_lm.network import embed_audio

        ids = self._loaded.tokenizer.encode(text.strip(), add_special_tokens=False)
        if not ids or samples.size > self._longest:
            return None
        # What was made for answering cannot take part in a gradient.
        return {
            "audio": embed_audio(self._loaded, samples).clone(),
            "labels": torch.tensor([*ids, self._loaded.ends[0]]),
        }

    def loss(self, network: Any, example: Example) -> torch.Tensor:
        """Cross-entropy of the answer and its end."""
        from grym.models.audio_lm.network import embed_prompt

        prompt = embed_prompt(self._loaded, self._before, example["audio"], self._after)
        answer = example["labels"].to(prompt.device)
        table = network.get_input_embeddings()
        given = torch.cat([prompt, table(answer[:-1])])
        mask = torch.ones(1, len(given), dtype=torch.long, device=given.device)
        logits = network(inputs_embeds=given[None], attention_mask=mask, use_cache=False).logits
        return _cross_entropy(logits[:, len(prompt) - 1 :], answer[None])


class GamaKind:
    """GAMA; adapters that a checkpoint has already are what LoRA trains."""

    targets: ClassVar[str] = r".*language_model.*\.(q_proj|v_proj)"
    heads: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, spec: FinetuneSpec) -> None:
        from grym.models.gama.loading import load
        from grym.models.gama.prompts import choose_instruction, fill

        loaded = load(NAME, folder, "fp32", "auto")
        self.network, self._tokenizer = loaded.model, loaded.tokenizer
        config = self.network.config
        self._text = fill(choose_instruction("transcribe", spec.instruction, config.prompts or {}))
        self._longest = int(config.window_seconds * 16_000)

    def example(self, samples: Samples, text: str) -> Example | None:
        """One window's spectrogram, prompt and answer; labels of the prompt do not count."""
        from grym.models.gama.frontend import log_mel
        from grym.models.gama.generation import ends
        from grym.models.gama.loading import encode, encode_answer

        sizes = self.network.config.text_config
        prompt = encode(self._tokenizer, self._text, sizes.bos_token_id)
        answer = [*encode_answer(self._tokenizer, self._text, text.strip()), ends(sizes)[0]]
        room = sizes.max_position_embeddings - self.network.config.audio_tokens
        if not text.strip() or samples.size > self._longest or len(prompt) + len(answer) > room:
            return None
        ids = torch.tensor([[*prompt, *answer]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        return {"spectrogram": log_mel(samples, self.network.config.audio_config)[None], "ids": ids, "labels": labels}

    def loss(self, network: Any, example: Example) -> torch.Tensor:
        """Cross-entropy of the answer and its end."""
        found: torch.Tensor = network(example["spectrogram"], example["ids"], labels=example["labels"]).loss
        return found


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten().to(logits.device))
