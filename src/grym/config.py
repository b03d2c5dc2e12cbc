"""The one reader of ``grym.toml``: what a person edits becomes frozen, validated objects.

Knows nothing about how the settings are used. Paths in the file are relative to
the file; ``GRYM_HOME`` and ``GRYM_CONFIG`` override the home and the file. An
unknown key is an error that names it.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from grym.errors import ConfigError

Scalar = str | int | float | bool


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(_Frozen):
    """One registered model: ``[models.NAME]``.

    Attributes:
        adapter: entry point name (``wav2vec2``) or ``package.module:Class``.
        options: options of the adapter, for example ``path`` and ``precision``.
        licence: licence of the weights, shown in reports.
    """

    name: str
    adapter: str
    options: Mapping[str, Scalar] = Field(default_factory=dict)
    licence: str = "unknown"


class DatasetSpec(_Frozen):
    """One registered dataset: ``[datasets.NAME]``."""

    name: str
    loader: Literal["manifest", "folder", "fsdd"]
    path: Path
    options: Mapping[str, Scalar] = Field(default_factory=dict)


class Paths(_Frozen):
    """``[paths]``: the home of everything that is stored."""

    home: Path = Path("var")


class CompareSettings(_Frozen):
    """``[compare]``: defaults of the compare flow."""

    a: str = "wav2vec2-mini"
    b: str = "wav2vec2-mini-int8"
    dataset: str = "digits"
    normalizer: Literal["none", "basic", "english"] = "basic"
    batch_seconds: float = Field(default=60.0, gt=0, description="audio in one batch, in seconds")
    batch_clips: int = Field(default=64, ge=1, le=256)
    latency_clips: int = Field(default=40, ge=0, description="clips of the latency pass")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    margin_wer: float = Field(default=0.005, ge=0, description="equivalence margin of WER, as a fraction")
    seed: int = 7


class AudioLimits(_Frozen):
    """``[audio]``: what a usable clip is."""

    rate: int = 16_000
    min_seconds: float = 0.05
    max_seconds: float = 3600.0
    min_rate: int = 4_000
    max_rate: int = 384_000
    max_channels: int = 2
    silence_dbfs: float = -60.0


class WorkerLimits(_Frozen):
    """``[worker]``: what a child process may use and how long it may take."""

    start_seconds: float = Field(default=120.0, gt=0)
    call_seconds: float = Field(default=30.0, gt=0, description="deadline of a call, before the audio's share")
    call_seconds_per_audio_second: float = Field(default=2.0, ge=0)
    threads: int = Field(default=0, ge=0, description="threads of a worker; 0 means all cores")
    attempts: int = Field(default=3, ge=1, description="tries of a batch before its clips are tried one by one")


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
    models: Mapping[str, ModelSpec] = Field(default_factory=dict)
    datasets: Mapping[str, DatasetSpec] = Field(default_factory=dict)

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
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        msg = f"{file.name} cannot be read: {error}."
        raise ConfigError(msg, code="bad-config", hint="Mend the file.") from error
    root = file.resolve().parent
    for table in ("models", "datasets"):
        for name, fields in raw.get(table, {}).items():
            if isinstance(fields, dict):
                fields["name"] = name
                _resolve_weights(fields.get("options"), root)
    for fields in raw.get("datasets", {}).values():
        if isinstance(fields, dict) and "path" in fields:
            fields["path"] = root / os.path.expandvars(str(fields["path"]))
    paths = raw.setdefault("paths", {})
    paths["home"] = root / (os.environ.get("GRYM_HOME") or paths.get("home", "var"))
    plugins = raw.setdefault("plugins", {})
    plugins["paths"] = tuple(root / p for p in plugins.get("paths", ()))
    try:
        return Settings(root=root, **raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
        msg = f"{file.name} is not valid: {problems}."
        raise ConfigError(msg, code="bad-config", hint="Mend or remove these keys.") from error


def _resolve_weights(options: object, root: Path) -> None:
    """Make an option ``path`` absolute: a worker runs in its own scratch folder."""
    if isinstance(options, dict) and isinstance(options.get("path"), str) and ":" not in options["path"]:
        options["path"] = str(root / os.path.expanduser(options["path"]))  # noqa: PTH111 - "~" only if it is there


def describe(settings: Settings) -> str:
    """The settings as JSON, for run details."""
    return json.dumps(settings.model_dump(mode="json"), sort_keys=True)
