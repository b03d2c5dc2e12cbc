"""A GAMA folder in memory: memory checked first, weights read strictly, placed on a device.

Knows nothing about clips. Runs inside a worker.
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from grym.errors import ConfigError, ModelError
from grym.models.gama import memory
from grym.models.gama.reading import read_json, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

    from grym.models.gama.modeling import GamaModel

Precision = Literal["auto", "fp32", "bf16", "int8", "int4"]
Device = Literal["auto", "cpu", "cuda"]
# Small against the language model, or read by name: never quantised.
KEPT: Final = ("audio_tower", "qformer", "qformer_norm", "aggregator", "projector", "lm_head", "lora_A", "lora_B")
# With gama-mini (4.6 million) on two cores an answer takes 50 to 65 ms with one thread, and 105 to 130 with two that
# sleep while they wait, as those of a worker do; batches of 16 gain as well.
SMALL_PARAMETERS: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory.

    Attributes:
        model: the network, in evaluation mode.
        tokenizer: of the language model.
        rung: precision and device in force, for example ``"bf16/cuda"``.
        files: files whose contents the answers depend on.
    """

    model: GamaModel
    tokenizer: Any
    rung: str
    files: tuple[Path, ...]


@contextmanager
def few_threads(model: GamaModel) -> Iterator[None]:
    """One thread for a small network on a CPU: several would only wake each other, thousands of times an answer."""
    import torch

    before = torch.get_num_threads()
    small = model.device.type == "cpu" and sum(part.numel() for part in model.parameters()) < SMALL_PARAMETERS
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load(name: str, folder: Path, precision: Precision, device: Device, together: int = 1) -> Loaded:
    """Read a folder that ``convert-gama`` or ``save_pretrained`` wrote.

    Args:
        name: registered name.
        folder: in Hugging Face form.
        precision: rung of the language model.
        device: ``auto``, ``cpu`` or ``cuda``.
        together: windows in one pass, whose key-value caches need memory.

    Raises:
        ConfigError: the folder is none, or the rung cannot be had here.
        ModelError: the weights are broken, incomplete or do not fit the configuration.
        ResourceError: there is not enough memory; said before anything is loaded.
    """
    from grym.models.gama.checking import check_weights, read_config

    said = read_json(folder / "config.json").get("model_type")
    if said != "gama":
        msg = f"{name} is a model of the type {said!r}, not 'gama'."
        raise ConfigError(msg, code="not-gama", hint="Convert a published checkpoint: python -m flows convert-gama.")
    weights = weight_files(folder)
    place, remark = choose_device(device)
    rung = choose_precision(precision, place)
    config = read_config(name, folder)
    check_weights(name, config, weights)
    needed = memory.needed_bytes(weights, memory.cache_numbers(config, together))
    memory.check(name, needed, rung, place, memory.free_bytes(place))
    model = _read(name, folder, rung, place)
    tokenizer = _tokenizer(name, folder)
    if len(tokenizer) > model.config.text_config.vocab_size:
        msg = f"The tokenizer of {name} has {len(tokenizer)} tokens, its model {model.config.text_config.vocab_size}."
        raise ModelError(msg, code="wrong-tokenizer", hint="Put the tokenizer of the same model into the folder.")
    sidecars = sorted(p for p in folder.glob("*.json") if p.name not in {"conversion.json", "training.json"})
    return Loaded(model, tokenizer, f"{rung}/{place}{remark}", (*weights, *sidecars))


def choose_device(asked: Device) -> tuple[str, str]:
    """``cuda`` or ``cpu``, and a remark if it is not the one asked for."""
    import torch

    has = torch.cuda.is_available()
    return ("cuda" if asked != "cpu" and has else "cpu"), (" (no GPU)" if asked == "cuda" and not has else "")


def choose_precision(asked: Precision, device: str) -> str:
    """The rung: ``auto`` is bfloat16 on a GPU and float32 on a CPU.

    Raises:
        ConfigError: 8 or 4 bits without a GPU, or without the library for them.
    """
    if asked == "auto":
        return "bf16" if device == "cuda" else "fp32"
    if asked in memory.GPU_ONLY and device != "cuda":
        msg = f"Precision {asked} of a language model needs a GPU, and there is none."
        raise ConfigError(msg, code="needs-gpu", hint='Use precision = "bf16" or "fp32".')
    if asked in memory.GPU_ONLY and importlib.util.find_spec("bitsandbytes") is None:
        msg = f"Precision {asked} needs the package bitsandbytes, which is not installed."
        raise ConfigError(msg, code="needs-bitsandbytes", hint="Run: pip install bitsandbytes.")
    return asked


def _read(name: str, folder: Path, rung: str, device: str) -> GamaModel:
    import transformers

    from grym.models.gama.modeling import GamaModel

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, info = GamaModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **_arguments(rung)
        )
    except Exception as error:  # whatever a library says about a folder that it cannot read
        msg = f"{name} cannot be loaded as a GAMA model: {type(error).__name__}."
        raise ModelError(msg, code="not-a-gama-checkpoint", hint="Convert or train it again.") from error
    problems = [str(key) for kind in ("missing_keys", "unexpected_keys") for key in sorted(info[kind])]
    problems += [str(item[0] if isinstance(item, tuple) else item) for item in info["mismatched_keys"]]
    if problems:
        msg = f"{name} lacks or has too many weights: {len(problems)}, for example {problems[0]}."
        raise ModelError(msg, code="not-a-gama-checkpoint", hint="Convert or train it again.")
    placed: GamaModel = model.eval() if rung in memory.GPU_ONLY else model.eval().to(device)
    return placed


def _arguments(rung: str) -> dict[str, Any]:
    import torch

    if rung not in memory.GPU_ONLY:
        return {"dtype": torch.bfloat16 if rung == "bf16" else torch.float32}
    from transformers import BitsAndBytesConfig

    kept = list(KEPT)
    settings = (
        BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
        if rung == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=kept,
        )
    )  # fmt: skip
    return {"quantization_config": settings, "dtype": torch.bfloat16, "device_map": {"": 0}}


def _tokenizer(name: str, folder: Path) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a library says about a file that it cannot read
        msg = f"The tokenizer of {name} cannot be read: {type(error).__name__}."
        raise ModelError(msg, code="no-tokenizer", hint="Put tokenizer.json into the model's folder.") from error


def encode(tokenizer: Any, text: str, bos: int) -> list[int]:
    """Token ids of a prompt, BOS first, nothing else added."""
    return [bos, *tokenizer.encode(text, add_special_tokens=False)]


def encode_answer(tokenizer: Any, prompt: str, answer: str) -> list[int]:
    """Token ids of an answer as it stands behind a prompt; words at the border are spelt as they are there."""
    whole = tokenizer.encode(prompt + answer, add_special_tokens=False)
    before = tokenizer.encode(prompt, add_special_tokens=False)
    if whole[: len(before)] == before and len(whole) > len(before):
        return list(whole[len(before) :])
    return list(tokenizer.encode(answer, add_special_tokens=False))


def pooled_features(pooled: torch.Tensor, seconds: float, seconds_per_token: float) -> torch.Tensor:
    """Mean of the pooled tokens that hold sound, not filling, ``shape = (columns, D)`` to ``(D,)``."""
    kept = max(1, min(len(pooled), round(seconds / seconds_per_token + 0.499)))
    return pooled[:kept].float().mean(dim=0)
