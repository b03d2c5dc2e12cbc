"""CTC networks of the transformers library: read, placed on a device, put into a precision, run.

Knows nothing about clips, windows or text. Imports torch and transformers only
inside functions, so that options can be looked at without them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from grym.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch

    from grym.models.wav2vec2 import Wav2Vec2Options

MASKED_FAMILIES: Final = frozenset({"wav2vec2", "hubert", "wavlm"})


def place(options: Wav2Vec2Options) -> tuple[torch.device, str]:
    """Device, and a remark for the rung if it is not the one asked for; int8 kernels exist on CPU only."""
    import torch

    int8 = options.precision.startswith("int8")
    wanted = "cpu" if int8 else options.device
    device = "cuda" if wanted in {"auto", "cuda"} and torch.cuda.is_available() else "cpu"
    fallback = options.device == "cuda" and device == "cpu"
    if int8 and options.padded_batch > 1:
        msg = f"{options.precision} has one activation scale per call, so padded_batch must be 1 for a scale per clip."
        raise ConfigError(msg, code="bad-option", hint="Remove padded_batch from the model's options.")
    return torch.device(device), " (no GPU)" if fallback else ""


def read(name: str, folder: Path, options: Wav2Vec2Options) -> tuple[Any, Any]:
    """Network in float32 and processor of a checkpoint."""
    import torch
    import transformers

    with _quiet(transformers):
        try:
            network, info = transformers.AutoModelForCTC.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            msg = f"{name} cannot be loaded as a CTC checkpoint: {type(error).__name__}."
            raise ModelError(msg, code="not-a-ctc-checkpoint", hint="Give a folder saved with a CTC head.") from error
    _refuse_partial(name, info)
    if options.weight_noise:
        _disturb(network, options.weight_noise, options.seed)
    return network.eval(), processor


def arrange(
    network: Any, again: Callable[[], Any], files: Sequence[Path], options: Wav2Vec2Options, device: torch.device
) -> tuple[Any, str]:
    """The network as it will run, and the precision that was asked for or, for ``auto``, chosen."""
    import torch

    from grym.models._cpu import rebuild

    alone = device.type == "cpu" and padded_batch(options, network.config, device.type) == 1
    precision: str = options.precision
    if precision == "auto" and not alone:
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "auto":
        from grym.models._calibrate import choose
        from grym.models.registry import revision_hash

        identity = revision_hash(files, {"noise": options.weight_noise, "seed": options.seed})
        return choose(network, again, identity)
    if alone:
        rebuild(network, precision)
        return network, precision
    return network.to(device, torch.bfloat16 if precision == "bf16" else torch.float32), precision


def padded_batch(options: Wav2Vec2Options, config: Any, device: str) -> int:
    """Clips in one padded pass; 1 where padding would reach the answer in spite of the mask.

    The position embedding of data2vec-audio is a stack of convolutions with norms in between, and HuBERT's may
    start with a batch norm: both turn masked zeros into something that leaks into the last valid frames.
    """
    masked = config.model_type in MASKED_FAMILIES and not getattr(config, "conv_pos_batch_norm", False)
    if not masked:
        return 1
    return options.padded_batch or (16 if device == "cuda" else 1)


def receptive_field(config: Any) -> int:
    """Samples that the first frame sees."""
    field, stride = 1, 1
    for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (int(kernel) - 1) * stride
        stride *= int(step)
    return field


def front_end(network: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The front end of a network as a function from samples ``shape = (samples,)`` to ``(frames, channels)``."""
    from grym.models._cpu import FrontEnd

    extractor = getattr(network, network.base_model_prefix).feature_extractor
    if isinstance(extractor, FrontEnd):
        return extractor
    number = next(extractor.parameters()).dtype

    def one_by_one(wave: torch.Tensor) -> torch.Tensor:
        frames: torch.Tensor = extractor(wave[None].to(number))[0].transpose(0, 1)
        return frames

    return one_by_one


def contextualize(network: Any, states: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What follows the front end: log-probabilities and hidden states, float32 ``shape = (clips, frames, …)``.

    Args:
        network: a CTC network.
        states: frames of the front end, ``shape = (clips, frames, channels)``.
        mask: which frames are no padding, bool ``shape = (clips, frames)``; ``None`` for all.
    """
    base = getattr(network, network.base_model_prefix)
    projected = base.feature_projection(states)
    # wav2vec2 and WavLM return (states, features before projection), HuBERT the states alone.
    projected = projected[0] if isinstance(projected, tuple) else projected
    hidden = base.encoder(projected, attention_mask=mask)[0]
    scores = network.lm_head(hidden.to(network.lm_head.weight.dtype)).float().log_softmax(-1)
    return scores, hidden.float()


def _refuse_partial(name: str, info: dict[str, Any]) -> None:
    """Refuse a checkpoint that lacks weights: the library would fill them with random numbers and say nothing."""
    # This vector is only used in training.
    lacking = sorted(str(key) for key in info["missing_keys"] if not str(key).endswith("masked_spec_embed"))
    lacking += [str(item[0] if isinstance(item, tuple) else item) for item in info["mismatched_keys"]]
    if lacking:
        msg = f"{name} lacks {len(lacking)} weights of a CTC model, for example {lacking[0]}."
        raise ModelError(msg, code="not-a-ctc-checkpoint", hint="Give a folder saved with its CTC head.")


def _disturb(network: Any, strength: float, seed: int) -> None:
    """Add seeded normal noise to every weight matrix, relative to the matrix's own standard deviation."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.add_(strength * weight.std() * torch.randn(weight.shape, generator=generator))


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without progress bars and advice on stderr while loading."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
