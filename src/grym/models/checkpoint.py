"""Folders in Hugging Face form for every adapter but the first two: found, memory asked, weights read strictly.

Safetensors only; pickled weights, half a file, missing weights and other families are
typed errors that name the next step. Knows nothing about clips. Runs inside a worker.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grym.errors import ConfigError, ModelError
from grym.models.gama import memory
from grym.models.gama.loading import Device, Precision, choose_device, choose_precision
from grym.models.gama.reading import read_json, shapes, weight_files

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["Device", "Precision", "find_folder", "load_network", "load_part", "needed_bytes", "read_type", "sidecars"]
BUNDLED: Final = Path(__file__).parent / "checkpoints"
# What the library writes beside weights and no answer depends on.
_NO_FACTS: Final = frozenset({"training.json", "conversion.json", "trainer_state.json"})


def find_folder(path: str) -> Path:
    """The folder that an option ``path`` names.

    Raises:
        ConfigError: ``no-model-folder``.
    """
    bundled = path.startswith("bundled:")
    folder = BUNDLED / path.removeprefix("bundled:") if bundled else Path(path)
    if not folder.is_dir():
        msg = f"There is no model folder {path if bundled else folder.name!r}."
        hint = "Mend the option path of the model in grym.toml; it counts from the folder of that file."
        raise ConfigError(msg, code="no-model-folder", hint=hint)
    return folder


def read_type(name: str, folder: Path, known: Collection[str], what: str) -> str:
    """The ``model_type`` of a folder, if it is one that an adapter knows.

    Args:
        name: registered name.
        folder: as :func:`find_folder` gave it.
        known: types that the adapter runs.
        what: what they are, for the message: ``"an audio-language model"``.

    Raises:
        ConfigError: ``not-a-checkpoint`` (no config.json) or ``wrong-family``.
    """
    said = str(read_json(folder / "config.json").get("model_type", ""))
    if said not in known:
        msg = f"{name} is a model of the type {said!r}, which is not {what} known here: {', '.join(sorted(known))}."
        raise ConfigError(msg, code="wrong-family", hint=_advice(said))
    return said


def needed_bytes(files: Sequence[Path], *, kept: Sequence[str] = (), ignored: Sequence[str] = ()) -> dict[str, float]:
    """Memory that a model takes on each rung, in bytes, from the headers of its weight files.

    Args:
        files: of safetensors.
        kept: parts of names whose weights are in bfloat16 where the rest has 8 or 4 bits.
        ignored: beginnings of names that are not loaded.
    """
    whole = small = 0
    for file in files:
        for tensor, (_, shape) in shapes(file).items():
            if tensor.startswith(tuple(ignored)):
                continue
            size = math.prod(shape)
            if any(part in tensor for part in kept):
                small += size
            else:
                whole += size
    return {
        rung: whole * size + small * max(size, 2.0 if rung in memory.GPU_ONLY else size) + memory.WORK_BYTES
        for rung, size in memory.RUNGS.items()
    }


def load_network(
    name: str,
    folder: Path,
    kind: Any,
    precision: Precision,
    device: Device,
    *,
    kept: Sequence[str] = (),
    ignored: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> tuple[Any, str, tuple[Path, ...]]:
    """Read a network, in evaluation mode, on its device.

    Args:
        name: registered name.
        folder: in Hugging Face form.
        kind: class of the library with ``from_pretrained``.
        precision: rung; ``auto`` is bf16 on a GPU and fp32 on a CPU.
        device: ``auto``, ``cpu`` or ``cuda``.
        kept: parts of names of modules that are never quantised.
        ignored: beginnings of names of weights that are not wanted.
        optional: ends of names that may be missing: the library makes them up without harm.

    Returns:
        The network, the rung in force (``"bf16/cuda"``), and the files that answers depend on.

    Raises:
        ConfigError: no weights in safetensors form, or a rung that cannot be had here.
        ModelError: ``broken-file``, ``not-a-checkpoint`` or ``missing-weights``.
        ResourceError: ``not-enough-memory``, said before anything is loaded.
    """
    weights = weight_files(folder)
    place, remark = choose_device(device)
    rung = choose_precision(precision, place)
    needed = needed_bytes(weights, kept=kept, ignored=ignored)
    memory.check(name, needed, rung, place, memory.free_bytes(place))
    network, info = _read(name, folder, kind, rung, kept)
    _refuse_partial(name, info, ignored, optional)
    placed = network.eval() if rung in memory.GPU_ONLY else network.eval().to(place)
    return placed, f"{rung}/{place}{remark}", (*weights, *sidecars(folder))


def load_part(name: str, folder: Path, kind: Any, what: str) -> Any:
    """What belongs to a network: its tokenizer or feature extractor.

    Args:
        name: registered name.
        folder: in Hugging Face form.
        kind: class of the library with ``from_pretrained``.
        what: for the message, ``"tokenizer"``.

    Raises:
        ModelError: ``no-tokenizer``, ``no-feature-extractor``: it is missing or broken.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a library says about a file that it cannot read
        msg = f"The {what} of {name} cannot be read: {type(error).__name__}."
        hint = "Put tokenizer.json and preprocessor_config.json of the same model into the folder."
        if what == "tokenizer" and (folder / "tekken.json").is_file():
            hint = "Its tekken.json needs the package mistral-common: pip install mistral-common."
        raise ModelError(msg, code=f"no-{what.replace(' ', '-')}", hint=hint) from error


def sidecars(folder: Path) -> list[Path]:
    """Files beside the weights that answers depend on, in a fixed order."""
    kinds = ("*.json", "*.txt", "*.jinja", "*.model")
    return sorted(p for kind in kinds for p in folder.glob(kind) if p.name not in _NO_FACTS)


def _read(name: str, folder: Path, kind: Any, rung: str, kept: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    import transformers
    from safetensors import SafetensorError

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        network, info = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **_arguments(rung, kept)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        msg = f"{name} cannot be loaded as {kind.__name__}: {type(error).__name__}."
        raise ModelError(msg, code="not-a-checkpoint", hint="Get the folder again, and compare checksums.") from error
    return network, info


def _arguments(rung: str, kept: Sequence[str]) -> dict[str, Any]:
    import torch

    if rung not in memory.GPU_ONLY:
        return {"dtype": torch.bfloat16 if rung == "bf16" else torch.float32}
    from transformers import BitsAndBytesConfig

    skip = [*kept, "lm_head"]
    if rung == "int8":
        settings = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    else:
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=skip,
        )
    return {"quantization_config": settings, "dtype": torch.bfloat16, "device_map": {"": 0}}


def _refuse_partial(name: str, info: Mapping[str, Any], ignored: Sequence[str], optional: Sequence[str]) -> None:
    """The library fills missing weights with random numbers and says nothing; here that is an error."""
    problems = [str(key) for key in sorted(info["missing_keys"]) if not str(key).endswith(tuple(optional) or ("\0",))]
    problems += [str(key) for key in sorted(info["unexpected_keys"]) if not str(key).startswith(tuple(ignored))]
    problems += [str(item[0] if isinstance(item, tuple) else item) for item in info["mismatched_keys"]]
    if problems:
        msg = f"{name} lacks or has too many weights: {len(problems)}, for example {problems[0]}."
        raise ModelError(msg, code="missing-weights", hint="Get all files of the checkpoint again.")


def _advice(said: str) -> str:
    other = {
        "gama": "gama", "whisper": "seq2seq", "moonshine": "seq2seq", "clap": "clap", "wav2vec2": "wav2vec2",
        "hubert": "wav2vec2", "wavlm": "wav2vec2", "data2vec-audio": "wav2vec2",
        "qwen2_audio": "audio_lm", "qwen2_5_omni": "audio_lm", "audioflamingo3": "audio_lm", "voxtral": "audio_lm",
        "granite_speech": "audio_lm",
    }.get(said)  # fmt: skip
    return f'Use adapter = "{other}" for it.' if other else "Give the folder of one of these."
