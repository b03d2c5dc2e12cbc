"""Cards: what a dataset is, where it comes from and what it must not be used for, as a small TOML file.

Knows nothing about clips; :mod:`grym.corpus.describe` counts those. A card is named
by ``card`` in ``[datasets.NAME]`` of grym.toml. An unknown key is an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping  # noqa: TC003 - pydantic reads it at run time
from pathlib import Path  # noqa: TC003 - so it does this
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from grym.errors import ConfigError

_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Download(_Frozen):
    """``[download]``: a ``.tar.gz`` archive and how to know that it is the right one.

    Attributes:
        url: where it is.
        size: its size in bytes; an archive of the same files that was compressed anew may differ.
        sha256: its checksum. If it differs, ``contents`` decides.
        keep: what is unpacked, as patterns below the archive's own folder.
        unpacked: bytes of the unpacked archive; twice as much is refused.
        pattern: the files that ``contents`` covers.
        files: how many they are.
        contents: ``cd FOLDER && LC_ALL=C sha256sum PATTERN | sha256sum``.
    """

    url: str
    size: int = Field(gt=0)
    sha256: _Digest | None = None
    keep: tuple[str, ...]
    unpacked: int = Field(gt=0)
    pattern: str
    files: int = Field(gt=0)
    contents: _Digest


class Card(_Frozen):
    """What people should know before they use a dataset.

    Attributes:
        title: its name in full.
        about: what is in it, in a sentence or two.
        licence: under which it may be used.
        source: where it comes from, an address or a command.
        version: of the data, if it has one.
        language: code of the language that is spoken.
        citation: how its authors want to be cited.
        slices: what each slice means.
        limits: what it cannot tell, a sentence each.
        download: where ``python -m flows datasets fetch`` gets it.
    """

    title: str
    about: str = ""
    licence: str = "unknown"
    source: str = ""
    version: str = ""
    language: str = ""
    citation: str = ""
    slices: Mapping[str, str] = Field(default_factory=dict)
    limits: tuple[str, ...] = ()
    download: Download | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.title.strip():
            msg = "title is empty"
            raise ValueError(msg)
        return self


def read_card(path: Path) -> Card:
    """The card in a TOML file.

    Raises:
        ConfigError: ``bad-card``: it is missing, is not TOML, or has an unknown or wrong key.
    """
    try:
        return Card.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        why = f"it cannot be read: {(error.strerror or 'unknown reason').lower()}"
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        why = f"{where}: {first['msg']}" if where else first["msg"]
    except ValueError as error:  # not UTF-8, not TOML
        why = str(error).rstrip(".")
    msg = f"The card {path.name} cannot be used: {why}."
    raise ConfigError(msg, code="bad-card", hint="Mend it; docs/loaders.md shows one.")
