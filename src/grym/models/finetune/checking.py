"""What can be wrong with a fine-tuning, said before anything is read or trained. Imports no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from grym._registered import models_folder
from grym.errors import ConfigError
from grym.models.checkpoint import find_folder
from grym.models.finetune.recipe import ADAPTERS, FinetuneSpec
from grym.models.registry import build_options, check_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from grym.config import ModelSpec, Settings

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")


def check_finetune(
    model: str, name: str, recipe: Mapping[str, Any], settings: Settings, *, replace: bool
) -> tuple[ModelSpec, Path, FinetuneSpec]:
    """Look at everything that a person typed.

    Args:
        model: registered name of the model that is trained.
        name: of the new model.
        recipe: fields of :class:`FinetuneSpec` without the adapter.
        settings: what is registered.
        replace: a model of that name that was made by a fine-tuning may be replaced.

    Returns:
        The model, the folder of its weights, the recipe.

    Raises:
        ConfigError: unknown model, a name that cannot be used or is taken, a recipe with unknown or wrong fields.
    """
    if not NAME.fullmatch(name):
        msg = f"{name!r} cannot name a model."
        raise ConfigError(msg, code="bad-name", hint="Use lower case letters, digits and ._-, such as mini-kitchen.")
    spec = settings.model(model)
    if spec.adapter not in ADAPTERS:
        msg = f"Models of the adapter {spec.adapter!r} cannot be fine-tuned; {', '.join(ADAPTERS)} can."
        raise ConfigError(msg, code="cannot-finetune", hint="Choose another model.")
    fields = build_options(FinetuneSpec, {**recipe, "adapter": spec.adapter}, "the recipe")
    check_model(spec)
    if name in settings.models and not (replace and _made_here(name, settings)):
        msg = f"There is a model {name!r} already."
        raise ConfigError(
            msg, code="name-taken", hint="Use another name, or --replace if it was made by a fine-tuning."
        )
    return spec, find_folder(str(spec.options.get("path", ""))), fields


def as_trained(spec: ModelSpec, recipe: FinetuneSpec) -> ModelSpec:
    """The model with the options under which it is asked what it was trained for.

    Models that do several things are told to transcribe, with the instruction of the recipe; others are left alone.
    """
    if spec.adapter not in {"audio_lm", "gama"}:
        return spec
    told: dict[str, Any] = {"task": "transcribe", **({"prompt": recipe.instruction} if recipe.instruction else {})}
    return spec.model_copy(update={"options": {**spec.options, **told}})


def _made_here(name: str, settings: Settings) -> bool:
    path = settings.models[name].options.get("path")
    return path == str(models_folder(settings.home) / name)
