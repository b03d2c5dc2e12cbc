"""Weights from outside: stage files that may be pickled, folders of safetensors. Nothing from outside is executed.

Errors name the file and what to do; they never show a path.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from typing import TYPE_CHECKING, Any, Final

from grym.errors import ConfigError, ModelError
from grym.models.registry import PICKLED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

HEADER_BYTES: Final = 100_000_000  # the limit of the format itself
# Bytes of each element, by the format's names.
WIDTHS: Final[Mapping[str, int]] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4,
    "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


def read_stage(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a stage file, ``pytorch_model.bin`` or safetensors.

    Raises:
        ConfigError: ``no-file``.
        ModelError: ``pickled-code`` (it holds more than tensors), ``broken-file``, ``not-a-state-dict`` (names and
            dense tensors of real numbers are wanted), ``not-finite``.
    """
    import torch

    if not file.is_file():
        msg = f"There is no file {file.name!r}."
        raise ConfigError(msg, code="no-file", hint="Give the pytorch_model.bin of stage 4 or 5.")
    if file.suffix == ".safetensors":
        return _all_tensors(file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        msg = f"{file.name} holds pickled code or objects; only tensors are read."
        hint = "Do not open it otherwise: get the file again from whoever published it, and compare checksums."
        raise ModelError(msg, code="pickled-code", hint=hint) from error
    except Exception as error:  # flipped bytes end the reader in whatever way they lead it
        raise _broken(file) from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(v, torch.Tensor) for name, v in found.items()
    ):
        msg = f"{file.name} is not a mapping from names to tensors."
        raise ModelError(msg, code="not-a-state-dict", hint="Give the pytorch_model.bin of stage 4 or 5.")
    return {name: _usable(file, name, tensor) for name, tensor in found.items()}


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ConfigError: ``not-a-checkpoint``: there is no such file, or it holds something else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{file.name} of {file.parent.name!r} cannot be read as JSON."
        hint = "Give a folder in Hugging Face form, with config.json."
        raise ConfigError(msg, code="not-a-checkpoint", hint=hint) from error
    if not isinstance(found, dict):
        msg = f"{file.name} of {file.parent.name!r} is not a JSON object."
        raise ConfigError(msg, code="not-a-checkpoint", hint="Give a folder in Hugging Face form.")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder.

    Raises:
        ConfigError: ``no-weights``: there are none.
        ModelError: ``broken-file``: one is cut, or named by the index and not there.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        names = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
        # An index names files beside it; anything else would lead elsewhere.
        files = [folder / str(name) for name in names if "/" not in str(name)]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = any(path.suffix in PICKLED for path in folder.iterdir())
        msg = f"{folder.name!r} holds no weights in safetensors form."
        hint = "Its weights are pickled: get the safetensors files of the same model." if pickled else "Put them there."
        raise ConfigError(msg, code="no-weights", hint=hint)
    for file in files:
        shapes(file)
    return files


def shapes(file: Path) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """Type (``F32``, ``BF16``) and shape of each tensor of a safetensors file, from its header alone.

    Raises:
        ModelError: ``broken-file``: it is cut, missing or something else.
    """
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size)) if size < min(file.stat().st_size, HEADER_BYTES) else None
        entries = {name: entry for name, entry in (header or {}).items() if name != "__metadata__"}
        end = max(_end(entry) for entry in entries.values())
        if file.stat().st_size != 8 + size + end:
            raise _broken(file)
        return {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}
    # Deep nesting ends the parser with a RecursionError; the rest are entries that are none.
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(file) from error


def _end(entry: Mapping[str, Any]) -> int:
    """Where the bytes of a tensor end, if type, shape and place fit together.

    Raises:
        ValueError: they do not.
    """
    first, last = entry["data_offsets"]
    shape = entry["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in (*shape, first, last)):
        msg = "shape and data_offsets are lists of natural numbers"
        raise ValueError(msg)
    if last - first != math.prod(shape) * WIDTHS[entry["dtype"]]:
        msg = "type and shape need another number of bytes"
        raise ValueError(msg)
    return int(last)


def digest(file: Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _all_tensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    shapes(file)
    try:
        found = load_file(file)
    except Exception as error:
        raise _broken(file) from error
    return {name: _usable(file, name, tensor) for name, tensor in found.items()}


def _usable(file: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may become a weight; constants that nothing depends on may be integers."""
    import torch

    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        msg = f"{name[:80]} in {file.name} is no dense tensor of real numbers."
        raise ModelError(msg, code="not-a-state-dict", hint="Give the pytorch_model.bin of stage 4 or 5.")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        msg = f"{name[:80]} in {file.name} holds NaN or infinite weights."
        raise ModelError(msg, code="not-finite", hint="Its training diverged, or the file is damaged: get another.")
    return tensor


def _broken(file: Path) -> ModelError:
    msg = f"{file.name} is cut or damaged, or no file of weights at all."
    return ModelError(msg, code="broken-file", hint="Download or copy it again, and compare checksums.")
