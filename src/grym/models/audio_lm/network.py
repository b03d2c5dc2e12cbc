"""An audio-language model in memory: audio to embeddings, embeddings and text to answers and likelihoods.

Audio goes in front of the language model as embeddings, put where the prompt has its
place for it. What the library does instead, placeholders that it overwrites, gives the
same numbers (tested for each family), but needs each family's processor, and two of
those need packages that nothing else here does. ``H`` is the width of the language
model, ``A`` the number of audio tokens. Knows nothing about clips.

The encoder sees one window at a time, so nothing of another clip can reach it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from transformers import GenerationConfig, LogitsProcessorList

from grym.errors import ModelError
from grym.models.audio_lm.families import BY_TYPE, markers
from grym.models.checkpoint import Device, Precision, load_network, load_part, read_type
from grym.models.generated import Generated, Recorder, cut_at_end

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grym.models.audio_lm.families import Family
    from grym.models.interface import Samples


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory.

    Attributes:
        network: in evaluation mode.
        extractor: samples to spectrograms.
        tokenizer: of the language model.
        family: its row of the table.
        rung: precision and device in force.
        files: files that answers depend on.
        ends: token ids that end an answer.
        positions: longest sequence that the language model takes.
    """

    network: Any
    extractor: Any
    tokenizer: Any
    family: Family
    rung: str
    files: tuple[Path, ...]
    ends: tuple[int, ...]
    positions: int

    @property
    def width(self) -> int:
        """Width of the language model."""
        return int(self.network.get_input_embeddings().weight.shape[1])

    @property
    def chunk_samples(self) -> int:
        """Samples that the encoder sees at once; 0 for any number."""
        return int(getattr(self.extractor, "n_samples", 0)) if self.family.padding != "none" else 0


def load(name: str, folder: Path, precision: Precision, device: Device) -> Loaded:
    """Read a folder of one of the families.

    Raises:
        ConfigError: another family, no weights in safetensors form, or a rung that cannot be had here.
        ModelError: weights, tokenizer or feature extractor are broken, incomplete or of another model.
        ResourceError: not enough memory; said before anything is loaded.
    """
    family = BY_TYPE[read_type(name, folder, BY_TYPE, "an audio-language model")]
    kind = getattr(transformers, family.class_name)
    network, rung, files = load_network(name, folder, kind, precision, device, kept=family.kept, ignored=family.ignored)
    extractor = load_part(name, folder, transformers.AutoFeatureExtractor, "feature extractor")
    tokenizer = load_part(name, folder, transformers.AutoTokenizer, "tokenizer")
    _check_tokenizer(name, tokenizer, family, network)
    text = network.config.get_text_config()
    ends = _ends(network, tokenizer)
    # Checkpoints come with sampling and penalties of their own, which would otherwise fill what is not set.
    network.generation_config = GenerationConfig(eos_token_id=list(ends), pad_token_id=ends[0])
    return Loaded(
        network, extractor, tokenizer, family, rung, files, ends, int(getattr(text, "max_position_embeddings", 4096))
    )


@torch.inference_mode()
def embed_audio(loaded: Loaded, samples: Samples) -> torch.Tensor:
    """Audio tokens of one window, ``shape = (A, H)``; longer ones go through the encoder in pieces of its own length.

    Args:
        loaded: a model.
        samples: float32 ``shape = (samples,)`` at the extractor's rate.
    """
    network, family = loaded.network, loaded.family
    if family.padding == "none":
        features = loaded.extractor(samples)["input_features"]
        found = network.get_audio_features(features.to(network.device, network.dtype)).pooler_output
        return found.reshape(-1, found.shape[-1])  # type: ignore[no-any-return]
    size = loaded.chunk_samples
    pieces = [samples[start : start + size] for start in range(0, samples.size, size)]
    made = loaded.extractor(
        pieces,
        sampling_rate=loaded.extractor.sampling_rate,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    features = made["input_features"].to(network.device, network.dtype)
    if not family.mask:
        return network.get_audio_features(features).pooler_output  # type: ignore[no-any-return]
    mask = made["attention_mask"].to(network.device)
    if hasattr(network, "get_audio_features"):
        return network.get_audio_features(features, mask).pooler_output  # type: ignore[no-any-return]
    return _qwen2_audio(network.model, features, mask)


def embed_prompt(loaded: Loaded, before: Sequence[int], audio: torch.Tensor, after: Sequence[int]) -> torch.Tensor:
    """A whole prompt as embeddings, ``shape = (before + A + after, H)``."""
    table = loaded.network.get_input_embeddings()
    front, back = (torch.tensor(list(ids), dtype=torch.long, device=audio.device) for ids in (before, after))
    return torch.cat([table(front), audio.to(table.weight.dtype), table(back)])


@torch.inference_mode()
def generate(
    loaded: Loaded, prompts: Sequence[torch.Tensor], max_new_tokens: int, *, temperature: float = 0.0, seed: int = 0
) -> list[Generated]:
    """Answer prompts of any lengths in one batch, padded on the left.

    Args:
        loaded: a model.
        prompts: ``shape = (tokens, H)`` each.
        max_new_tokens: limit of an answer.
        temperature: 0 takes the most probable token; more draws.
        seed: of what is drawn; the state of torch's generators is left as it was.
    """
    longest = max(map(len, prompts))
    rows = torch.stack([torch.nn.functional.pad(p, (0, 0, longest - len(p), 0)) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=rows.device)
    chosen: dict[str, Any] = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=list(loaded.ends), pad_token_id=loaded.ends[0], **chosen
    )
    recorder = Recorder()
    _forget(loaded.network)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # The library's own method of one family switches its adapter off when it is given embeddings.
        new = transformers.GenerationMixin.generate(
            loaded.network,
            inputs_embeds=rows,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList([recorder]),
        )
    scores = recorder.finish(new)
    return [cut_at_end(row, score, loaded.ends) for row, score in zip(new.tolist(), scores.tolist(), strict=True)]


@torch.inference_mode()
def score_texts(loaded: Loaded, prompt: torch.Tensor, texts: Sequence[Sequence[int]]) -> list[float]:
    """Log-probability that each text, and then its end, is the answer to a prompt.

    The prompt is read once; each text goes on from its key-value cache, by itself.

    Args:
        loaded: a model.
        prompt: ``shape = (tokens, H)``.
        texts: ids of the answers, the end not included.
    """
    network, length = loaded.network, len(prompt)
    _forget(network)
    begun = network(inputs_embeds=prompt[None], attention_mask=torch.ones(1, length, device=prompt.device).long(),
                    use_cache=True)  # fmt: skip
    first = begun.logits[0, -1].float().log_softmax(-1)
    cache, found = begun.past_key_values, []
    for text in texts:
        ids = [*text, loaded.ends[0]]
        total = float(first[ids[0]])
        if len(ids) > 1:
            row = torch.tensor([ids[:-1]], device=prompt.device)
            seen = network(
                inputs_embeds=network.get_input_embeddings()(row),
                attention_mask=torch.ones(1, length + row.shape[1], device=prompt.device).long(),
                past_key_values=cache,
                use_cache=True,
            ).logits[0].float().log_softmax(-1)  # fmt: skip
            total += float(seen[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].double().sum())
            cache.crop(-row.shape[1])
        found.append(total)
    return found


def _forget(network: Any) -> None:
    """One family remembers an offset of positions from its last generation; ours have none."""
    inner: Any = getattr(network, "model", None)
    if getattr(inner, "rope_deltas", None) is not None:
        inner.rope_deltas = None


def _qwen2_audio(model: Any, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Audio tokens of Qwen2-Audio, whose library class merges them in its forward pass only.

    Source: ``Qwen2AudioModel.forward`` of transformers 5.23.
    """
    from transformers.masking_utils import create_bidirectional_mask

    tower = model.audio_tower
    seen, given = tower._get_feat_extract_output_lengths(mask.sum(-1))  # noqa: SLF001 - the library offers no other way
    frames = (features.shape[-1] - 2) // 2 + 1
    attended = (torch.arange(frames, device=mask.device)[None] < seen[:, None]).long()
    dummy = torch.zeros(len(features), frames, 1, dtype=features.dtype, device=features.device)
    wide = create_bidirectional_mask(config=tower.config, inputs_embeds=dummy, attention_mask=attended)
    hidden = model.multi_modal_projector(tower(features, attention_mask=wide).last_hidden_state)
    kept: torch.Tensor = hidden[torch.arange(hidden.shape[1], device=mask.device)[None] < given[:, None]]
    return kept


def _check_tokenizer(name: str, tokenizer: Any, family: Family, network: Any) -> None:
    vocabulary = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        msg = f"The tokenizer of {name} has {len(tokenizer)} tokens, its model {vocabulary}."
        raise ModelError(msg, code="wrong-tokenizer", hint="Put the tokenizer of the same model into the folder.")
    split = [m for m in markers(family) if len(tokenizer.encode(m, add_special_tokens=False)) != 1]
    if split:
        msg = f"The tokenizer of {name} does not know {', '.join(split)}, which prompts of {family.name} need."
        raise ModelError(msg, code="wrong-tokenizer", hint="Put the tokenizer of the same model into the folder.")


def _ends(network: Any, tokenizer: Any) -> tuple[int, ...]:
    named = network.generation_config.eos_token_id if network.generation_config is not None else None
    text = network.config.get_text_config()
    for found in (named, getattr(text, "eos_token_id", None), tokenizer.eos_token_id):
        if found is not None:
            return tuple(found) if isinstance(found, list | tuple) else (int(found),)
    msg = "Neither model nor tokenizer names a token that ends a text."
    raise ModelError(msg, code="wrong-tokenizer", hint="Put generation_config.json of the same model into the folder.")


def seconds_per_token(loaded: Loaded, audio: torch.Tensor, samples: Samples) -> float:
    """Audio that one token stands for, in seconds, filling included."""
    rate = loaded.extractor.sampling_rate
    filled = samples.size
    if loaded.family.padding == "half-minutes":
        filled = int(np.ceil(samples.size / loaded.chunk_samples)) * loaded.chunk_samples
    return float(filled / rate / max(1, len(audio)))
