"""Models that the platform made itself: each a folder ``HOME/models/NAME`` with its weights and a ``model.toml``.

grym.toml stays the one file that a person edits. What a fine-tuning leaves registers
itself by being there, and removing the folder forgets it. A model of the same name in
grym.toml goes before it. Knows nothing about torch.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE: Final = "model.toml"
FOLDER: Final = "models"
KEYS: Final = frozenset({"adapter", "licence", "options"})


def models_folder(home: Path) -> Path:
    """Where registered models lie."""
    return home / FOLDER


def add_registered(raw: dict[str, Any]) -> None:
    """Add the models of the home to what grym.toml says, before it is validated.

    Args:
        raw: tables of grym.toml with absolute paths; changed in place.

    Raises:
        ConfigError: ``bad-model-file``: a ``model.toml`` cannot be read, or holds other keys.
    """
    paths, models = raw.get("paths"), raw.setdefault("models", {})
    home = paths.get("home") if isinstance(paths, dict) else None
    if not isinstance(home, Path) or not isinstance(models, dict):
        return  # the validation has something to say about it
    for file in sorted(models_folder(home).glob(f"*/{FILE}")):
        name = file.parent.name
        if name.startswith(".") or name in models:
            continue
        models[name] = {"name": name, **_read(file)}


def write_model_file(folder: Path, adapter: str, licence: str, options: Mapping[str, str | int | float | bool]) -> None:
    """Write the ``model.toml`` of a folder that is about to become ``HOME/models/NAME``.

    Args:
        folder: holds the weights.
        adapter: registered name of the adapter.
        licence: of the weights.
        options: of the adapter; ``path`` is the folder itself and is left out.
    """
    lines = [
        "# Written by `python -m flows finetune`. Remove this folder to forget the model.",
        f"adapter = {json.dumps(adapter)}",
        f"licence = {json.dumps(licence)}",
        "[options]",
        *(f"{name} = {json.dumps(value)}" for name, value in sorted(options.items()) if name != "path"),
    ]
    (folder / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    place = f"{FOLDER}/{file.parent.name}/{FILE}"
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{place} in the home cannot be read: {type(error).__name__}."
        raise ConfigError(msg, code="bad-model-file", hint="Mend it, or remove the folder of the model.") from error
    options = found.get("options", {})
    wrong = sorted(set(found) - KEYS) + ([] if isinstance(options, dict) else ["options"])
    if wrong or "adapter" not in found:
        msg = f"{place} in the home is wrong: {', '.join(wrong) or 'adapter is missing'}."
        raise ConfigError(msg, code="bad-model-file", hint="Mend it, or remove the folder of the model.")
    return {**found, "options": {**options, "path": str(file.parent)}}
