"""GAMA as one network: audio tower, Q-Former, aggregator, projector and a Llama with LoRA behind them.

``B`` is the batch, ``A`` the audio tokens (96), ``T`` the text tokens with BOS, ``H`` the width of the language
model. Knows nothing about files, windows or words. The audio parts stay in float32 whatever the precision of the
language model: they are 4 % of the weights, and the pooled values are small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerLayer, Blip2QFormerModel

from grym.models.gama.configuration import GamaConfig
from grym.models.gama.encoder import AudioEncoder

if TYPE_CHECKING:
    from transformers import GenerationConfig, LogitsProcessorList


@dataclass(frozen=True, slots=True)
class AudioTokens:
    """What the audio parts give.

    Attributes:
        tokens: for the language model, Q-Former first, ``shape = (B, A, H)``.
        pooled: encoder output, mean over frequency, divided by ``pool_divisor``, ``shape = (B, columns, D)``.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True, slots=True)
class Sequence:
    """Input of the language model, ``length = A + T``, or ``T`` without audio.

    Attributes:
        embeddings: ``shape = (B, length, H)``.
        mask: 1 where something stands, int64 ``shape = (B, length)``.
        positions: int64 ``shape = (B, length)``; without gaps where the mask is 1.
    """

    embeddings: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor


class Aggregator(nn.Module):
    """Post-norm transformer layers over the pooled tokens; see ``GamaConfig.aggregator``."""

    def __init__(self, config: GamaConfig) -> None:
        super().__init__()
        sizes = config.aggregator_config
        sizes._attn_implementation = config._attn_implementation  # noqa: SLF001 - the library sets it on whole models only
        self.formula = config.aggregator
        if self.formula == "released":
            layers: list[nn.Module] = [BertLayer(sizes) for _ in range(sizes.num_hidden_layers)]
        else:
            attending = config.sub_configs["qformer_config"](
                **{name: getattr(sizes, name) for name in _SHARED_SIZES},
                cross_attention_frequency=1,
                encoder_hidden_size=config.audio_config.hidden_size,
                attn_implementation=config._attn_implementation,  # noqa: SLF001
            )
            layers = [Blip2QFormerLayer(attending, index) for index in range(len(config.audio_config.tap_layers))]
        self.layers = nn.ModuleList(layers)

    def forward(self, pooled: torch.Tensor, taps: list[torch.Tensor]) -> torch.Tensor:
        """``shape = (B, columns, D)`` to the same; ``taps`` hold as many tensors of it, or none."""
        for index, layer in enumerate(self.layers):
            if self.formula == "released":
                pooled = layer(pooled)
            else:
                pooled = layer(pooled, encoder_hidden_states=taps[index], query_length=pooled.shape[1])
        return pooled


class Branch(nn.Module):
    """Norm without parameters, then two linear layers into the language model's width."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.linear1 = nn.Linear(width, out)
        self.linear2 = nn.Linear(out, out)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """``shape = (B, tokens, D)`` to ``(B, tokens, H)``."""
        projected: torch.Tensor = self.linear2(nn.functional.gelu(self.linear1(self.norm(hidden))))
        return projected


class Projector(nn.Module):
    """One branch for the Q-Former's tokens, one for the aggregator's."""

    def __init__(self, config: GamaConfig) -> None:
        super().__init__()
        out = config.text_config.hidden_size
        self.qformer = Branch(config.qformer_config.hidden_size, out)
        self.aggregator = Branch(config.audio_config.hidden_size, out)


class GamaModel(PreTrainedModel):  # type: ignore[misc]
    """GAMA with random weights; ``from_pretrained`` reads a folder in Hugging Face form."""

    config_class = GamaConfig
    base_model_prefix = "gama"
    main_input_name = "spectrogram"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict: ClassVar[set[str]] = {
        "audio_tower", "qformer", "qformer_norm", "query_tokens", "aggregator", "projector",
    }  # fmt: skip
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "language_model.lm_head.weight": "language_model.model.embed_tokens.weight"
    }

    def __init__(self, config: GamaConfig) -> None:
        super().__init__(config)
        self.audio_tower = AudioEncoder(config.audio_config, taps=config.aggregator == "paper")
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size))
        self.qformer_norm = nn.LayerNorm(config.audio_config.hidden_size)
        self.qformer = Blip2QFormerModel._from_config(config.qformer_config)  # noqa: SLF001 - as the library does it
        self.aggregator = Aggregator(config)
        self.projector = Projector(config)
        self.language_model = LlamaForCausalLM._from_config(config.text_config)  # noqa: SLF001
        if config.lora_rank:
            inject_adapter_in_model(_lora(config), self.language_model)
        self.post_init()
        for module in self.language_model.modules():
            if isinstance(module, LoraLayer):  # an adapter that has learnt nothing changes nothing
                for weight in module.lora_B.parameters():
                    nn.init.zeros_(weight)

    def get_input_embeddings(self) -> nn.Module:
        """Those of the language model."""
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace those of the language model."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Those of the language model."""
        head: nn.Module = self.language_model.get_output_embeddings()
        return head

    def listen(self, spectrogram: torch.Tensor) -> AudioTokens:
        """Audio tokens of windows, ``shape = (B, target_frames, num_mel_bins)``."""
        hidden, taps = self.audio_tower(spectrogram)
        pooled = self.audio_tower.pool(hidden, self.config.pool_divisor)
        return self.understand(pooled, [self.audio_tower.pool(tap, self.config.pool_divisor) for tap in taps])

    def understand(self, pooled: torch.Tensor, taps: list[torch.Tensor]) -> AudioTokens:
        """Audio tokens from what the encoder gave, pooled, ``shape = (B, columns, D)``."""
        asked = self.qformer(
            query_embeds=self.query_tokens.expand(len(pooled), -1, -1),
            encoder_hidden_states=self.qformer_norm(pooled),
        ).last_hidden_state
        branches = [self.projector.qformer(asked), self.projector.aggregator(self.aggregator(pooled, taps))]
        return AudioTokens(torch.cat(branches, dim=1), pooled)

    def sequence(
        self, audio: torch.Tensor | None, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> Sequence:
        """Put the audio tokens directly in front of each prompt's first token.

        Padding on the left of a prompt stays on the left of its audio, so that nothing stands between audio and BOS.
        Text token ``j`` stands at ``A + j``.

        Args:
            audio: ``shape = (B, A, H)``, or ``None`` for text alone.
            input_ids: int64 ``shape = (B, T)``, padded on either side.
            attention_mask: 0 at padding, ``shape = (B, T)``; ``None`` for none.
        """
        text = self.get_input_embeddings()(input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype)
        if audio is not None:
            both = torch.cat([audio.to(text.dtype), text], dim=1)
            before = (mask.cumsum(dim=1) == 0).sum(dim=1, keepdim=True)
            place = torch.arange(both.shape[1], device=text.device).expand(len(both), -1)
            count = audio.shape[1]
            source = torch.where(place < before, place + count, place - before)
            source = torch.where(place < before + count, source, place)
            text = both.gather(1, source.unsqueeze(-1).expand_as(both))
            mask = torch.cat([torch.ones_like(mask[:, :1]).expand(-1, count), mask], dim=1).gather(1, source)
        return Sequence(text, mask, (mask.cumsum(dim=1) - 1).clamp(min=0))

    def forward(
        self,
        spectrogram: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        audio: torch.Tensor | None = None,
        **_ignored: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the text positions, ``shape = (B, T, vocabulary)``, and the loss if ``labels`` are given.

        Args:
            spectrogram: ``shape = (B, target_frames, num_mel_bins)``; ``None`` for text alone.
            input_ids: int64 ``shape = (B, T)``.
            attention_mask: 0 at padding, ``shape = (B, T)``.
            labels: ids to predict at the next position, -100 where none, ``shape = (B, T)``.
            audio: audio tokens that :meth:`listen` gave, instead of ``spectrogram``.
        """
        if audio is None and spectrogram is not None:
            audio = self.listen(spectrogram).tokens
        if input_ids is None:
            msg = "forward() needs input_ids."
            raise TypeError(msg)
        given = self.sequence(audio, input_ids, attention_mask)
        hidden = self.language_model.model(
            inputs_embeds=given.embeddings, attention_mask=given.mask, position_ids=given.positions, use_cache=False
        ).last_hidden_state
        logits = self.language_model.lm_head(hidden[:, 0 if audio is None else audio.shape[1] :])
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits)

    @torch.no_grad()
    def generate(
        self,
        audio: torch.Tensor | None,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        generation_config: GenerationConfig,
        logits_processor: LogitsProcessorList | None = None,
    ) -> torch.Tensor:
        """New token ids, int64 ``shape = (B, new)``, with the key-value cache; arguments as in :meth:`sequence`."""
        given = self.sequence(audio, input_ids, attention_mask)
        ids: torch.Tensor = self.language_model.generate(
            inputs_embeds=given.embeddings,
            attention_mask=given.mask,
            generation_config=generation_config,
            logits_processor=logits_processor,
        )
        return ids

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if module is self:
            init.normal_(self.query_tokens, mean=0.0, std=std)
        elif isinstance(module, AudioEncoder):
            init.normal_(module.position, mean=0.0, std=std)
            init.normal_(module.modality, mean=0.0, std=std)


_SHARED_SIZES = (
    "hidden_size", "num_attention_heads", "intermediate_size", "hidden_act", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "layer_norm_eps",
)  # fmt: skip


def _lora(config: GamaConfig) -> LoraConfig:
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # it is divided, and published scales need not be whole
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets),
        bias="none",
    )
