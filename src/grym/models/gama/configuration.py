"""Every size of a GAMA model; the defaults are those of the published one.

Knows nothing about weights. Importing it imports transformers, so it belongs inside a worker.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

from huggingface_hub.dataclasses import strict
from transformers import BertConfig, LlamaConfig, PreTrainedConfig
from transformers.models.blip_2.configuration_blip_2 import Blip2QFormerConfig

SAMPLE_RATE: Final = 16_000
FRAME_SAMPLES: Final = 400  # 25 ms, the shortest clip that gives one frame
SHIFT_SAMPLES: Final = 160  # 10 ms


@strict
class GamaAudioConfig(PreTrainedConfig):  # type: ignore[misc]
    """Front end and audio encoder.

    Attributes:
        num_mel_bins: mel bins of the log-mel spectrogram.
        target_frames: frames of 10 ms that one window has; shorter clips are filled with zeros, longer ones cut.
        mean: subtracted from the log-mel values.
        std: they are divided by this afterwards (by one standard deviation, not two).
        patch_size: side of the square patches, in bins and frames; no overlap.
        hidden_size: width of the encoder.
        num_hidden_layers: transformer blocks.
        num_attention_heads: heads of each block.
        intermediate_size: width of the feed-forward part.
        layer_norm_eps: epsilon of every norm of the encoder.
        tap_layers: 0-based blocks whose output the paper's aggregator reads, in the order of its layers.
        initializer_range: standard deviation of new weights.
    """

    model_type = "gama_audio"
    base_config_key = "audio_config"

    num_mel_bins: int = 128
    target_frames: int = 1024
    mean: float = -5.081
    std: float = 4.4849
    patch_size: int = 16
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    layer_norm_eps: float = 1e-5
    tap_layers: tuple[int, ...] | list[int] = (4, 8)
    initializer_range: float = 0.02

    @property
    def rows(self) -> int:
        """Patches along frequency."""
        return self.num_mel_bins // self.patch_size

    @property
    def columns(self) -> int:
        """Patches along time: the number of tokens after pooling."""
        return self.target_frames // self.patch_size


@strict
class GamaConfig(PreTrainedConfig):  # type: ignore[misc]
    """The whole model.

    Attributes:
        audio_config: front end and encoder.
        qformer_config: Q-Former; its ``encoder_hidden_size`` is the encoder's width.
        aggregator_config: BERT layers of the aggregator; ``num_hidden_layers`` counts them.
        text_config: language model.
        num_query_tokens: tokens that the Q-Former gives.
        pool_divisor: the pooled encoder output is divided by this.
        aggregator: ``released`` runs plain BERT layers over the last encoder layer, as the released code does in
            effect; ``paper`` also attends to ``tap_layers``, for new training only.
        lora_rank: rank of the LoRA adapters; 0 builds none.
        lora_alpha: scale is ``lora_alpha / lora_rank``.
        lora_dropout: dropout in front of them, in training.
        lora_targets: linear layers of the language model that have one.
        prompts: default instruction for each task; see :mod:`grym.models.gama.prompts`.
        stage: training stage of the published checkpoint, empty for others.
    """

    model_type = "gama"
    sub_configs: ClassVar[dict[str, Any]] = {
        "audio_config": GamaAudioConfig,
        "qformer_config": Blip2QFormerConfig,
        "aggregator_config": BertConfig,
        "text_config": LlamaConfig,
    }

    audio_config: Any = None
    qformer_config: Any = None
    aggregator_config: Any = None
    text_config: Any = None
    num_query_tokens: int = 32
    pool_divisor: float = 50.0
    aggregator: Literal["released", "paper"] = "released"
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] | list[str] = ("q_proj", "v_proj")
    prompts: dict[str, str] | None = None
    stage: str = ""
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the parts that are not given, and turn dictionaries into configurations."""
        self.audio_config = _part(GamaAudioConfig, self.audio_config, {})
        width = self.audio_config.hidden_size
        self.qformer_config = _part(Blip2QFormerConfig, self.qformer_config, {"encoder_hidden_size": width})
        self.aggregator_config = _part(
            BertConfig, self.aggregator_config, {"num_hidden_layers": 2, "hidden_size": width}
        )
        self.text_config = _part(LlamaConfig, self.text_config, LLAMA_2_7B)
        self.tie_word_embeddings = self.tie_word_embeddings or self.text_config.tie_word_embeddings
        super().__post_init__(**kwargs)

    @property
    def audio_tokens(self) -> int:
        """Positions that a window takes in front of BOS: 32 + 64 in the published model."""
        return int(self.num_query_tokens + self.audio_config.columns)

    @property
    def window_seconds(self) -> float:
        """Audio that one window holds: 10.24 s in the published model."""
        return float(self.audio_config.target_frames * SHIFT_SAMPLES / SAMPLE_RATE)


LLAMA_2_7B: Final[dict[str, Any]] = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _part(kind: Any, given: Any, defaults: dict[str, Any]) -> Any:
    if given is None:
        return kind(**defaults)
    return kind(**given) if isinstance(given, dict) else given
