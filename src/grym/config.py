"""The one reader of ``grym.toml``: what a person edits becomes frozen, validated objects.

Knows nothing about how the settings are used. Paths in the file are relative to
the file; ``GRYM_HOME`` and ``GRYM_CONFIG`` override the home and the file. An
unknown key is an error that names it.
"""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from grym._registered import add_registered
from grym._resilience_settings import (
    BreakerSettings,
    HealthSettings,
    ModelHealth,
    RecoverySettings,
    RouteSettings,
    plain_name,
)
from grym._worker_settings import WorkerLimits as WorkerLimits  # noqa: PLC0414 - part of this module for its users
from grym.errors import ConfigError, StorageError

Scalar = str | int | float | bool
TaskName = Literal["transcribe", "classify"]
FETCHED: Final = ("fsdd", "hub")  # loaders whose data may lie in HOME/datasets/LOADER
# pydantic speaks of Python's types; these are the file's.
_WORDS: Final = {
    "extra_forbidden": "there is no such key",
    "missing": "is missing",
    "model_type": "should be a table",
    "dict_type": "should be a table",
    "mapping_type": "should be a table",
    "path_type": "should be a text",
    "tuple_type": "should be a list in square brackets",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSpec(_Frozen):
    """One registered model: ``[models.NAME]``.

    Attributes:
        adapter: entry point name (``wav2vec2``) or ``package.module:Class``.
        options: options of the adapter, for example ``path`` and ``precision``.
        licence: licence of the weights, shown in reports.
        breaker: when it is no longer asked; a matter of the caller, so the worker is not told.
        health: the clip that it is checked with; as above.
        memory_mb: memory that its worker may use in MB (10^6 bytes), instead of that of ``[worker]``; as above.
        ladder: cheaper settings for when memory is short, in order, instead of the adapter's own; as above.
    """

    name: str
    adapter: str
    options: Mapping[str, Scalar] = Field(default_factory=dict)
    licence: str = "unknown"
    breaker: BreakerSettings = Field(default=BreakerSettings(), exclude=True)
    health: ModelHealth = Field(default=ModelHealth(), exclude=True)
    memory_mb: float = Field(default=0.0, ge=0, exclude=True)
    ladder: tuple[Mapping[str, Scalar], ...] | None = Field(default=None, exclude=True)

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        return plain_name(value)


class DatasetSpec(_Frozen):
    """One registered dataset: ``[datasets.NAME]``.

    Attributes:
        loader: who reads it; see docs/loaders.md.
        path: where it lies. ``fsdd`` and ``hub`` may leave it out, or name an environment variable that is not
            set: then it is HOME/datasets/LOADER, where ``python -m flows datasets fetch`` puts them.
        options: options of the loader.
        card: TOML file with licence, source and known limits; see :mod:`grym.corpus.cards`.
        task: what models are asked about its clips: to ``transcribe`` them, or to ``classify`` them.
        label: for ``classify``, the column with the right label; without it the reference text is the label.
        separator: what stands between the labels of a clip that has several.
        train: for ``classify``, the registered dataset that says which labels there are, and from which alone a
            linear probe may learn; without it the labels are those of this dataset, and no probe can be fitted.
        prompt: instruction for models that take one; empty for the task's own.
        slices: columns that results are broken down by; empty means all of them.
    """

    name: str
    loader: Literal["manifest", "folder", "fsdd", "librispeech", "esc50", "hub"]
    path: Path
    options: Mapping[str, Scalar] = Field(default_factory=dict)
    card: Path | None = None
    task: TaskName = "transcribe"
    label: str = "label"
    separator: str = Field(default="+", min_length=1)
    train: str = ""
    prompt: str = ""
    slices: tuple[str, ...] = ()


class Paths(_Frozen):
    """``[paths]``: the home of everything that is stored."""

    home: Path = Path("var")


class CompareSettings(_Frozen):
    """``[compare]``: defaults of the compare flow.

    ``datasets`` are what a comparison is about if nobody says otherwise, one run for each; where it is empty,
    ``dataset`` is the only one.
    """

    a: str = "wav2vec2-mini"
    b: str = "wav2vec2-mini-int8"
    dataset: str = "digits"
    datasets: tuple[str, ...] = ()
    normalizer: Literal["none", "basic", "english"] = "basic"
    batch_seconds: float = Field(default=60.0, gt=0, description="audio in one batch, in seconds")
    batch_clips: int = Field(default=64, ge=1, le=256)
    latency_clips: int = Field(default=40, ge=0, description="clips of the latency pass")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    margin_wer: float = Field(default=0.005, ge=0, description="equivalence margin of WER, as a fraction")
    margin_accuracy: float = Field(default=0.02, ge=0, description="equivalence margin of label accuracy, a fraction")
    seed: int = 7
    stop_early: bool = Field(default=False, description="stop as soon as a confidence sequence decides")
    repeats: int = Field(
        default=0, ge=0, le=50, description="answers to each clip of the latency sample; 0: no noise floor"
    )


class AudioLimits(_Frozen):
    """``[audio]``: what a usable clip is. Rates in Hz, times in seconds."""

    rate: int = Field(default=16_000, gt=0, description="rate that clips are converted to")
    min_seconds: float = Field(default=0.05, gt=0)
    max_seconds: float = Field(default=3600.0, gt=0, validate_default=True)
    min_rate: int = Field(default=4_000, gt=0)
    max_rate: int = Field(default=384_000, gt=0, validate_default=True)
    max_channels: int = Field(default=2, ge=1)
    silence_dbfs: float = Field(default=-60.0, ge=-200, lt=0, description="frames below it are silent")

    @field_validator("max_seconds")
    @classmethod
    def _longer(cls, value: float, info: ValidationInfo) -> float:
        least = info.data.get("min_seconds")
        if least is not None and value <= least:
            msg = f"{value:g} should be greater than audio.min_seconds, which is {least:g}"
            raise ValueError(msg)
        return value

    @field_validator("max_rate")
    @classmethod
    def _not_lower(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min_rate")
        if least is not None and value < least:  # equal: files of one rate only
            msg = f"{value} should not be less than audio.min_rate, which is {least}"
            raise ValueError(msg)
        return value


class PluginPaths(_Frozen):
    """``[plugins]``: folders that a worker may import adapters from."""

    paths: tuple[Path, ...] = ()


class Settings(BaseSettings):
    """Everything that ``grym.toml`` says."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    root: Path = Field(default=Path(), description="folder of grym.toml")
    paths: Paths = Paths()
    compare: CompareSettings = CompareSettings()
    audio: AudioLimits = AudioLimits()
    worker: WorkerLimits = WorkerLimits()
    plugins: PluginPaths = PluginPaths()
    recovery: RecoverySettings = RecoverySettings()
    health: HealthSettings = HealthSettings()
    routes: Mapping[str, RouteSettings] = Field(default_factory=dict)
    models: Mapping[str, ModelSpec] = Field(default_factory=dict)
    datasets: Mapping[str, DatasetSpec] = Field(default_factory=dict)

    @field_validator("datasets")
    @classmethod
    def _plain(cls, value: Mapping[str, DatasetSpec]) -> Mapping[str, DatasetSpec]:
        for name in value:  # a dataset that is given by its path has no name in the file
            plain_name(name)
        return value

    @classmethod
    def settings_customise_sources(  # noqa: D102 - the library's hook
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @property
    def home(self) -> Path:
        """Absolute folder of everything that is stored."""
        return self.paths.home

    def model(self, name: str) -> ModelSpec:
        """The registered model of that name.

        Raises:
            ConfigError: there is none; the message names those that exist.
        """
        found: ModelSpec = _pick("model", name, self.models)
        return found

    def route(self, name: str) -> RouteSettings:
        """The route of that name.

        Raises:
            ConfigError: there is none, or it names a model that is not registered.
        """
        found: RouteSettings = _pick("route", name, self.routes)
        for model in found.models:
            self.model(model)
        return found

    def dataset(self, name: str) -> DatasetSpec:
        """The registered dataset of that name.

        Raises:
            ConfigError: there is none; the message names those that exist.
        """
        found: DatasetSpec = _pick("dataset", name, self.datasets)
        return found


def _pick(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        msg = f"Unknown {kind} {name!r}; grym.toml knows: {', '.join(sorted(known)) or 'none'}."
        raise ConfigError(msg, code=f"unknown-{kind}", hint=f"Use one of these or add [{kind}s.{name}] to grym.toml.")
    return known[name]


def find_config(start: Path | None = None) -> Path:
    """The ``grym.toml`` in force: ``GRYM_CONFIG``, else the nearest one at or above ``start``.

    Raises:
        ConfigError: there is none.
    """
    named = os.environ.get("GRYM_CONFIG")
    if named:
        path = Path(named)
        if not path.is_file():
            msg = f"GRYM_CONFIG names {named}, which is not a file."
            raise ConfigError(msg, code="no-config", hint="Point it at a grym.toml.")
        return path.resolve()
    folder = (start or Path.cwd()).resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / "grym.toml").is_file():
            return candidate / "grym.toml"
    msg = f"No grym.toml in {folder} or above."
    raise ConfigError(msg, code="no-config", hint="Run from the checkout, or set GRYM_CONFIG.")


def load_settings(path: Path | None = None) -> Settings:
    """Read ``grym.toml`` into frozen settings.

    Args:
        path: the file; default :func:`find_config`.

    Raises:
        ConfigError: the file is missing, is not TOML, or has an unknown or wrong key.
    """
    file = path or find_config()
    raw = _read(file)
    root = file.resolve().parent
    if unknown := _unknown(raw):
        msg = f"{file.name} has keys that are not known: {', '.join(unknown)}."
        raise ConfigError(msg, code="bad-config", hint="Remove them, or look for a typo.")
    _resolve(raw, root)
    add_registered(raw)
    try:
        return Settings(root=root, **raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {_problem(e['type'], e['msg'])}" for e in error.errors())
        msg = f"{file.name} is not valid: {problems}."
        raise ConfigError(msg, code="bad-config", hint="Mend or remove these keys.") from error


def ensure_home(settings: Settings) -> Path:
    """Make the folder of everything that is stored, if it is missing.

    Returns:
        The home, a folder that can be written to.

    Raises:
        StorageError: it is a file, cannot be made or cannot be written to.
    """
    home = settings.home
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):  # permissions alone do not tell: the disk may be read-only
            return home
    except FileExistsError:
        why = "it is a file"
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = (getattr(error, "strerror", None) or str(error)).lower()
    msg = f"The home {str(home)!r} cannot be used: {why}."
    hint = "Set GRYM_HOME, or home in [paths] of grym.toml, to a folder that can be written to."
    raise StorageError(msg, code="no-home", hint=hint)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        msg = f"{file.name} is not UTF-8: byte {error.start + 1} cannot be decoded."
        raise ConfigError(msg, code="bad-config", hint="Save it as UTF-8.") from error
    except OSError as error:
        msg = f"{file} cannot be read: {(error.strerror or str(error)).lower()}."
        raise ConfigError(msg, code="bad-config", hint="Check the file and its permissions.") from error
    except tomllib.TOMLDecodeError as error:
        msg = f"{file.name} cannot be read: {str(error).rstrip('.')}."
        raise ConfigError(msg, code="bad-config", hint="Mend the file.") from error


def _unknown(raw: Mapping[str, Any]) -> list[str]:
    """Keys that would not get as far as the validation: the settings' own arguments, and names given twice."""
    known = set(Settings.model_fields) - {"root"}
    named = [f"{table}.{name}.name" for table, name, fields in _specs(raw) if "name" in fields]
    return sorted(set(raw) - known) + named


def _resolve(raw: dict[str, Any], root: Path) -> None:
    """Make paths absolute and name the tables; what has a wrong type is left for the validation to name."""
    paths = raw.setdefault("paths", {})
    if isinstance(paths, dict) and isinstance(home := paths.get("home", "var"), str):
        paths["home"] = root / (os.environ.get("GRYM_HOME") or home)
    for table, name, fields in _specs(raw):
        fields["name"] = name
        _resolve_weights(fields.get("options"), root)
        if table == "models":
            _resolve_clip(fields.get("health"), root)
        if table == "datasets":
            _resolve_dataset(fields, root, paths.get("home") if isinstance(paths, dict) else None)
    _resolve_clip(raw.get("health"), root)
    plugins = raw.get("plugins")
    if isinstance(plugins, dict) and isinstance(folders := plugins.get("paths"), list):
        plugins["paths"] = [root / folder if isinstance(folder, str) else folder for folder in folders]


def _resolve_dataset(fields: dict[str, Any], root: Path, home: object) -> None:
    """Make the paths of a dataset absolute; loaders whose data is fetched have a place of their own in the home."""
    given = fields.get("path", "")
    if isinstance(given, str):
        path = os.path.expandvars(given)
        unset = not path or (given.startswith("$") and path == given)
        if unset and fields.get("loader") in FETCHED and isinstance(home, Path):
            fields["path"] = home / "datasets" / fields["loader"]
        elif "path" in fields:
            fields["path"] = root / path
    if isinstance(fields.get("card"), str):
        fields["card"] = root / fields["card"]


def _resolve_clip(health: object, root: Path) -> None:
    """Make the path of a known clip absolute."""
    if isinstance(health, dict) and isinstance(health.get("clip"), str):
        health["clip"] = root / health["clip"]


def _specs(raw: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """The tables ``[models.NAME]``, ``[datasets.NAME]`` and ``[routes.NAME]`` that are tables."""
    tables = [(kind, raw[kind]) for kind in ("models", "datasets", "routes") if isinstance(raw.get(kind), dict)]
    return [
        (kind, name, fields) for kind, table in tables for name, fields in table.items() if isinstance(fields, dict)
    ]


def _problem(kind: str, text: str) -> str:
    """A finding of the validation in the words of the file, for the middle of a sentence."""
    text = _WORDS.get(kind, text).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _resolve_weights(options: object, root: Path) -> None:
    """Make an option ``path`` absolute: a worker runs in its own scratch folder."""
    if isinstance(options, dict) and isinstance(options.get("path"), str) and ":" not in options["path"]:
        options["path"] = str(root / os.path.expanduser(options["path"]))  # noqa: PTH111 - "~" only if it is there
