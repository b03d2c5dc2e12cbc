"""Whether a configuration can be a network, and whether weights on disk are those of it; asked before reading any.

Only headers of weight files are read. A network of the asked sizes is built without memory, and not even that if its
number of layers is another one: a wrong number in a file cannot take time or memory.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from grym.errors import ModelError
from grym.models.gama.configuration import GamaConfig
from grym.models.gama.reading import read_json, shapes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

HINT: Final = "Convert or train it again."
LEAST_ROOM: Final = 32  # positions for a prompt and an answer behind the audio
# Where the layers of each part stand in the names of weights.
LAYERS: Final[Mapping[str, str]] = {
    "audio_config": "audio_tower.blocks",
    "qformer_config": "qformer.encoder.layer",
    "aggregator_config": "aggregator.layers",
    "text_config": "language_model.model.layers",
}


def read_config(name: str, folder: Path) -> GamaConfig:
    """The configuration of a folder.

    Raises:
        ConfigError: ``not-a-checkpoint``: there is no config.json.
        ModelError: ``not-a-gama-checkpoint``: nothing can be built from it.
    """
    given = read_json(folder / "config.json")
    parts = [part for part in LAYERS if not isinstance(given.get(part), dict)]
    if parts:
        why = f"{parts[0]} is no table of sizes"
        raise _refused(name, why)
    try:
        config: GamaConfig = GamaConfig.from_dict(given)
        found = next(problems(config), "")
    except Exception as error:
        why = f"its config.json cannot be used ({type(error).__name__})"
        raise _refused(name, why) from error
    if found:
        raise _refused(name, found)
    return config


def problems(config: GamaConfig) -> Iterator[str]:
    """Why no network can be made of these sizes, in words; nothing if it can.

    Example:
        >>> list(problems(GamaConfig()))
        []
    """
    audio, text = config.audio_config, config.text_config
    for part in LAYERS:
        sizes = getattr(config, part)
        if sizes.hidden_size < 1 or sizes.num_attention_heads < 1 or sizes.hidden_size % sizes.num_attention_heads:
            yield f"{part} has {sizes.num_attention_heads} attention heads for a width of {sizes.hidden_size}"
    if not 0 < audio.patch_size <= min(audio.num_mel_bins, audio.target_frames):
        yield f"patches of {audio.patch_size} do not fit {audio.num_mel_bins} x {audio.target_frames} log-mel values"
    if not (math.isfinite(audio.mean) and math.isfinite(audio.std) and audio.std > 0):
        yield f"mean {audio.mean} and std {audio.std} of the log-mel values are none"
    if not (math.isfinite(config.pool_divisor) and config.pool_divisor > 0):
        yield f"pool_divisor is {config.pool_divisor}"
    if not all(isinstance(word, str) for pair in (config.prompts or {}).items() for word in pair):
        yield "prompts are not all texts"
    ends = text.eos_token_id if isinstance(text.eos_token_id, list | tuple) else [text.eos_token_id]
    if not ends or not all(type(token) is int and 0 <= token < text.vocab_size for token in (text.bos_token_id, *ends)):
        yield f"tokens {text.bos_token_id} and {text.eos_token_id} do not begin and end texts"
    # Where audio tokens depend on a patch size of zero, something above has been said already.
    elif audio.patch_size > 0 and text.max_position_embeddings < config.audio_tokens + LEAST_ROOM:
        yield f"{text.max_position_embeddings} positions have no room behind {config.audio_tokens} audio tokens"


def expected_shapes(config: GamaConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of a model of these sizes; no memory is taken."""
    import torch

    from grym.models.gama.modeling import GamaModel

    with torch.device("meta"):
        model = GamaModel(config)
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def check_weights(name: str, config: GamaConfig, weights: Sequence[Path]) -> None:
    """Compare the headers of weight files with what a configuration would build.

    Raises:
        ModelError: ``broken-file`` or ``not-a-gama-checkpoint``.
    """
    stored = {tensor: shape for file in weights for tensor, (_, shape) in shapes(file).items()}
    for part, prefix in LAYERS.items():
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
        layers = len({found[1] for tensor in stored if (found := pattern.match(tensor))})
        asked = _layers(config, part)
        if layers != asked:
            why = f"{part} asks for {asked} layers, and there are weights of {layers}"
            raise _refused(name, why)
    try:
        expected = expected_shapes(config)
    except Exception as error:
        why = f"no network has its sizes ({type(error).__name__})"
        raise _refused(name, why) from error
    tied = {"language_model.lm_head.weight"} if config.tie_word_embeddings else set()
    wrong = [tensor for tensor in expected if expected[tensor] != stored.get(tensor) and tensor not in tied]
    wrong += [tensor for tensor in stored if tensor not in expected and tensor not in tied]
    if wrong:
        why = f"it lacks or has too many weights: {len(wrong)}, for example {wrong[0]}"
        raise _refused(name, why)


def _layers(config: Any, part: str) -> int:
    if part == "aggregator_config" and config.aggregator != "released":
        return len(config.audio_config.tap_layers)
    return int(getattr(config, part).num_hidden_layers)


def _refused(name: str, why: str) -> ModelError:
    return ModelError(f"{name} is no GAMA model: {why}.", code="not-a-gama-checkpoint", hint=HINT)
