"""From a line in grym.toml to a model: finds the adapter, checks its options, builds it.

An adapter is a class with ``options_type`` (a frozen dataclass with defaults) and
``__init__(self, spec, options)``, registered under the entry point group
``grym.models`` or named as ``package.module:Class``. Knows nothing about
processes; imports an adapter's module only when a model of it is built.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from grym.config import ModelSpec
from grym.errors import ConfigError, GrymError, ModelError
from grym.models.interface import Model

GROUP: Final = "grym.models"
# Endings of weights that are Python objects: reading them would run whatever code they hold.
PICKLED: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
BUILTIN: Final[Mapping[str, str]] = {
    "wav2vec2": "grym.models.wav2vec2:Wav2Vec2",
    "gama": "grym.models.gama.adapter:Gama",
    "audio_lm": "grym.models.audio_lm.adapter:AudioLm",
    "seq2seq": "grym.models.seq2seq.adapter:Seq2Seq",
    "clap": "grym.models.clap:Clap",
    "fake": "grym.models.fake:FakeModel",
}
# Options of built-in adapters that name a file which the adapter writes to.
WRITES: Final[Mapping[str, tuple[str, ...]]] = {"fake": ("state",)}
Adapter = Callable[[ModelSpec, Any], Model]
T = TypeVar("T")


def load_model(spec: ModelSpec) -> Model:
    """Build the model that ``spec`` describes; its weights may load later, on first use.

    Raises:
        ConfigError: no such adapter, or a wrong option; the message names the right ones.
        ModelError: the adapter's module cannot be imported, or the model cannot be built.
    """
    adapter = find_adapter(spec.adapter)
    return adapter(spec, _options(adapter, spec))


def check_model(spec: ModelSpec) -> None:
    """Find what a person can have typed wrong, without building the model: for the process that starts workers.

    Options of built-in adapters are checked, and what their ``verify(options)`` looks at (does the folder exist?).
    Other adapters run code of their own, which belongs into a worker; only that they are known is checked.

    Raises:
        ConfigError: no such adapter, or an option that cannot work.
    """
    if spec.adapter not in BUILTIN:
        if ":" not in spec.adapter and spec.adapter not in _adapters():
            raise _unknown(spec.adapter)
        return
    adapter = find_adapter(spec.adapter)
    options = _options(adapter, spec)
    verify: Callable[[Any], object] | None = getattr(adapter, "verify", None)
    if verify is not None:
        verify(options)


def writable_options(spec: ModelSpec) -> list[Path]:
    """Files outside its own folders that a model may write to, because its options name them.

    Of one that is not there yet, the folder it will be in.
    """
    named = [Path(str(spec.options[name])) for name in WRITES.get(spec.adapter, ()) if spec.options.get(name)]
    return [path if path.exists() else path.parent for path in named]


def _options(adapter: Adapter, spec: ModelSpec) -> object:
    options_type = getattr(adapter, "options_type", None)
    if not (isinstance(options_type, type) and dataclasses.is_dataclass(options_type)):
        msg = f"Adapter {spec.adapter!r} has no options_type that is a dataclass."
        raise ConfigError(msg, code="bad-adapter", hint="Give the class an options_type; see grym.models.registry.")
    return build_options(cast("type[object]", options_type), spec.options, f"model {spec.name!r}")


def known_adapters() -> list[str]:
    """Names of all adapters: the built-in ones and those of installed packages."""
    return sorted(_adapters())


def find_adapter(name: str) -> Adapter:
    """Import an adapter by its registered name or as ``package.module:Class``.

    Raises:
        ConfigError: there is no adapter of that name.
        ModelError: its module raised an exception while it was imported.
    """
    target = name if ":" in name else BUILTIN.get(name) or _adapters().get(name)
    if target is None:
        raise _unknown(name)
    module, _, attribute = target.partition(":")
    found = getattr(_import(module, name), attribute, None)
    if not callable(found):
        msg = f"Adapter {name!r} names {attribute or 'nothing'!r}, which module {module!r} does not have."
        raise ConfigError(msg, code="unknown-adapter", hint="Write it as 'package.module:Class'.")
    return cast("Adapter", found)


def _unknown(name: str) -> ConfigError:
    msg = f"Unknown adapter {name!r}; known are {', '.join(known_adapters())}."
    return ConfigError(msg, code="unknown-adapter", hint="Use one of these or 'package.module:Class'.")


def build_options(options_type: type[T], values: Mapping[str, Any], owner: str) -> T:
    """Validate ``values`` against a dataclass and build it.

    Args:
        options_type: dataclass whose fields are the options.
        values: what a person wrote.
        owner: whose options they are, for the message: ``"model 'a'"``.

    Raises:
        ConfigError: an unknown, missing or wrong option; the message names the right ones.
    """
    fields = {f.name: f for f in dataclasses.fields(cast("Any", options_type))}
    right = ", ".join(map(_describe, fields.values())) or "none"
    unknown = sorted(set(values) - set(fields))
    if unknown:
        msg = f"Unknown option {', '.join(map(repr, unknown))} of {owner}."
        raise ConfigError(msg, code="unknown-option", hint=f"Right are: {right}.")
    try:
        return cast("T", _validator(cast("Any", options_type)).validate_python(dict(values)))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg'].lower()}" for e in error.errors())
        msg = f"Wrong option of {owner}: {wrong}."
        raise ConfigError(msg, code="wrong-option", hint=f"Right are: {right}.") from error


def revision_hash(files: Sequence[Path], facts: Mapping[str, object]) -> str:
    """Identity of weights and of the settings that change answers: 16 hexadecimal digits.

    Args:
        files: files whose contents count, in a fixed order; names and places do not count.
        facts: settings that count; anything JSON can hold.

    Raises:
        ModelError: a file cannot be read.
    """
    total = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            msg = f"{file.name} of the model cannot be read: {error.strerror}."
            raise ModelError(msg, code="missing-file", hint="Check the model's path in grym.toml.") from error
    total.update(json.dumps(dict(facts), sort_keys=True).encode())
    return total.hexdigest()[:16]


@lru_cache
def _validator(options_type: type[Any]) -> TypeAdapter[Any]:
    """Made once for each type: making it takes longer than a call to a small model."""
    return TypeAdapter(options_type)


def _describe(option: dataclasses.Field[Any]) -> str:
    if option.default is not dataclasses.MISSING:
        return f"{option.name}={option.default!r}"
    return option.name if option.default_factory is not dataclasses.MISSING else f"{option.name} (required)"


def _adapters() -> dict[str, str]:
    """Built-in adapters win: a package cannot replace one by accident."""
    return {point.name: point.value for point in entry_points(group=GROUP)} | dict(BUILTIN)


def _import(module: str, adapter: str) -> object:
    try:
        return import_module(module)
    except (GrymError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        msg = f"Adapter {adapter!r} needs the module {error.name!r}, which cannot be found."
        hint = "Install it, or add its folder to [plugins] paths in grym.toml."
        raise ConfigError(msg, code="unknown-adapter", hint=hint) from error
    except Exception as error:
        msg = f"Module {module!r} of adapter {adapter!r} raised {type(error).__name__} when imported: {error}."
        raise ModelError(msg, code="adapter-import", hint="Import it in Python to see the traceback.") from error
