"""Tiny audio-language models with random weights, their tokenizers and feature extractors, made in the test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from grym.models.audio_lm.families import BY_TYPE, markers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TEXT = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "tie_word_embeddings": False,
}  # fmt: skip
WHISPER = {"num_mel_bins": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 16}
CHUNK_SECONDS = 2
FAMILY_TYPES = ("qwen2_audio", "qwen2_5_omni_thinker", "audioflamingo3", "voxtral", "granite_speech")


def byte_tokenizer(special: Sequence[str] = (), size: int = 0) -> Any:
    """A byte-level tokenizer: any text can be spelt; special tokens are one token each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    made.add_special_tokens({"additional_special_tokens": [*special]})
    assert not size or len(made) <= size
    return made


def shake(network: Any, seed: int = 0, scale: float = 0.2) -> Any:
    """A model whose every weight matters: zeros of fresh biases would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "embed_positions" in name:
                continue
            weight.copy_(scale * torch.randn(weight.shape, generator=generator))
            if "norm" in name and name.endswith("weight"):
                weight.add_(1.0)
    return network.eval()


def config_of(kind: str) -> Any:
    """A configuration with every size small."""
    import transformers as t

    positions = CHUNK_SECONDS * 50
    if kind == "qwen2_audio":
        audio = {**WHISPER, "model_type": "qwen2_audio_encoder", "max_source_positions": positions}
        return t.Qwen2AudioConfig(
            audio_config=audio, text_config={**TEXT, "model_type": "qwen2"}, audio_token_index=260
        )
    if kind == "qwen2_5_omni_thinker":
        rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
        vision = {
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        }  # fmt: skip
        return t.Qwen2_5OmniThinkerConfig(
            audio_config={**WHISPER, "max_source_positions": positions, "n_window": 20, "output_dim": 32},
            vision_config=vision, text_config={**TEXT, "rope_parameters": rope}, audio_token_index=260,
            vision_start_token_id=290, audio_start_token_id=291,
        )  # fmt: skip
    if kind == "audioflamingo3":
        audio = {
            "num_mel_bins": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
            "hidden_size": 16, "max_source_positions": positions,
        }  # fmt: skip
        return t.AudioFlamingo3Config(
            audio_config=audio, text_config={**TEXT, "model_type": "qwen2"}, audio_token_id=260
        )
    if kind == "voxtral":
        audio = {
            "num_mel_bins": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "hidden_size": 16, "max_source_positions": positions,
        }  # fmt: skip
        text = {**TEXT, "model_type": "llama", "head_dim": 8}
        return t.VoxtralConfig(audio_config=audio, text_config=text, audio_token_id=24)
    encoder = {
        "input_dim": 160, "num_layers": 2, "hidden_dim": 16, "num_heads": 2, "output_dim": 8, "context_size": 20,
        "max_pos_emb": 32, "conv_kernel_size": 5,
    }  # fmt: skip
    projector = {
        "model_type": "blip_2_qformer", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "encoder_hidden_size": 16, "cross_attention_frequency": 1,
    }  # fmt: skip
    return t.GraniteSpeechConfig(
        text_config={**TEXT, "model_type": "granite"}, encoder_config=encoder, projector_config=projector,
        has_lora_adapter=False, audio_token_index=260, tie_word_embeddings=False,
    )  # fmt: skip


def extractor_of(kind: str) -> Any:
    """The family's feature extractor, with windows of two seconds where it has any."""
    import transformers as t

    if kind == "granite_speech":
        return t.GraniteSpeechFeatureExtractor()
    return t.WhisperFeatureExtractor(feature_size=16, chunk_length=CHUNK_SECONDS)


def save_family(folder: Path, kind: str, seed: int = 0) -> Path:
    """A folder as it is published, with random weights."""
    import transformers as t

    family = BY_TYPE[kind]
    network = shake(getattr(t, family.class_name)(config_of(kind)), seed)
    network.save_pretrained(folder)
    byte_tokenizer(markers(family)).save_pretrained(folder)
    extractor_of(kind).save_pretrained(folder)
    return folder


def edit_json(file: Path, **changes: Any) -> None:
    """Change fields of a JSON object."""
    found = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(found | changes), encoding="utf-8")


def whisper_tokens() -> list[str]:
    """Special tokens of a Whisper vocabulary, in its order: times come last."""
    names = ("startoftranscript", "en", "de", "transcribe", "translate", "nospeech", "notimestamps")
    return [*(f"<|{name}|>" for name in names), *(f"<|{i * 0.02:.2f}|>" for i in range(CHUNK_SECONDS * 50 + 1))]


def save_whisper(folder: Path, *, heads: bool = True, seed: int = 0) -> Path:
    """A multilingual Whisper folder, windows of two seconds; without heads it has times of segments only."""
    import transformers as t

    tokenizer = byte_tokenizer(whisper_tokens())
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in whisper_tokens()}
    config = t.WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=16, encoder_layers=2, encoder_attention_heads=2, decoder_layers=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, d_model=16,
        max_source_positions=CHUNK_SECONDS * 50, max_target_positions=64, pad_token_id=2, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=ids["<|startoftranscript|>"], median_filter_width=3,
    )  # fmt: skip
    network = shake(t.WhisperForConditionalGeneration(config), seed)
    network.generation_config = t.GenerationConfig(
        eos_token_id=2, pad_token_id=2, bos_token_id=1, decoder_start_token_id=config.decoder_start_token_id,
        is_multilingual=True, lang_to_id={"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"], begin_suppress_tokens=[2], max_initial_timestamp_index=50,
        suppress_tokens=sorted(ids[token] for token in whisper_tokens()[:7]),
        **({"alignment_heads": [[0, 0], [1, 1]]} if heads else {}),
    )  # fmt: skip
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    t.WhisperFeatureExtractor(feature_size=16, chunk_length=CHUNK_SECONDS).save_pretrained(folder)
    return folder


def save_moonshine(folder: Path) -> Path:
    """A speech-to-text folder that reads waveforms and knows neither languages nor times."""
    import transformers as t

    config = t.MoonshineConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, encoder_num_hidden_layers=1, decoder_num_hidden_layers=1,
        encoder_num_attention_heads=2, decoder_num_attention_heads=2, encoder_num_key_value_heads=2,
        decoder_num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    shake(t.MoonshineForConditionalGeneration(config)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    t.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def save_clap(folder: Path, *, fusion: bool = False) -> Path:
    """A CLAP folder, windows of one second."""
    import transformers as t

    audio = {
        "hidden_size": 32, "patch_embeds_hidden_size": 4, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
        "num_mel_bins": 32, "spec_size": 128, "projection_dim": 8, "enable_fusion": fusion, "window_size": 4,
    }  # fmt: skip
    text = {
        "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "projection_dim": 8, "max_position_embeddings": 130,
    }  # fmt: skip
    network = shake(t.ClapModel(t.ClapConfig(audio_config=audio, text_config=text, projection_dim=8)), scale=0.3)
    with torch.no_grad():
        network.logit_scale_a.fill_(1.0)
    network.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    t.ClapFeatureExtractor(
        feature_size=32, sampling_rate=16_000, hop_length=320, fft_window_size=512, max_length_s=1,
        truncation="fusion" if fusion else "rand_trunc",
    ).save_pretrained(folder)  # fmt: skip
    return folder
