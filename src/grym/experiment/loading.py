"""Experiments as files: ``experiments/NAME.toml`` becomes a frozen :class:`~grym.experiment.config.Experiment`.

Strict: an unknown key, a text where a number belongs or shares that do not add up to 1 are errors that name the key.
Knows nothing about what has run before (:mod:`grym.experiment.registry`).
"""

from __future__ import annotations

import json
import tomllib
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from grym.errors import ConfigError
from grym.experiment.config import NAME, Experiment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FOLDER: Final = "experiments"  # below the folder of grym.toml
_WORDS: Final = {
    "unexpected_keyword_argument": "there is no such key",
    "missing": "is missing",
    "missing_argument": "is missing",
    "dataclass_type": "should be a table",
    "dict_type": "should be a table",
    "mapping_type": "should be a table",
    "tuple_type": "should be a list in square brackets",
    "string_pattern_mismatch": "should be a name of small letters, digits, - and _",
}


def load_experiment(path: Path) -> Experiment:
    """Read one file; its name is the experiment's.

    Raises:
        ConfigError: the file is missing, is not TOML, or says something that is not valid.
    """
    if not NAME.fullmatch(path.stem):
        msg = f"{path.name!r} cannot name an experiment."
        raise ConfigError(msg, code="bad-name", hint="Use up to 64 small letters, digits, - and _.")
    raw = _read(path)
    if raw.setdefault("name", path.stem) != path.stem:
        msg = f"{path.name} names the experiment {raw['name']!r}."
        raise ConfigError(msg, code="bad-name", hint="Leave name out: the file's name is the experiment's.")
    return parse_experiment(raw, source=path.name)


def find_experiment(root: Path, name: str) -> Experiment:
    """The experiment of that name below the folder of ``grym.toml``.

    Raises:
        ConfigError: there is none, or it is not valid; the message names those that exist.
    """
    path = root / FOLDER / f"{name}.toml"
    if not NAME.fullmatch(name) or not path.is_file():
        known = ", ".join(sorted(p.stem for p in (root / FOLDER).glob("*.toml"))) or "none"
        msg = f"There is no experiment {name!r}; the folder {FOLDER} has: {known}."
        raise ConfigError(msg, code="unknown-experiment", hint=f"Use one of these or add {FOLDER}/NAME.toml.")
    return load_experiment(path)


def load_experiments(root: Path) -> tuple[Experiment, ...]:
    """Every experiment below the folder of ``grym.toml``, by name.

    Raises:
        ConfigError: one is not valid, or two want the same units of one namespace.
    """
    found = tuple(load_experiment(path) for path in sorted((root / FOLDER).glob("*.toml")))
    check_namespaces(found)
    return found


def check_namespaces(experiments: Sequence[Experiment]) -> None:
    """Make sure that experiments of one namespace exclude each other.

    Raises:
        ConfigError: ranges overlap, or units are hashed differently, so that disjoint ranges would not exclude.
    """
    for one, other in combinations(experiments, 2):
        if one.namespace is None or other.namespace is None or one.namespace.name != other.namespace.name:
            continue
        where = f"Experiments {one.name!r} and {other.name!r} share the namespace {one.namespace.name!r}"
        (start, end), (first, last) = one.namespace.range, other.namespace.range
        if start < last and first < end:
            msg = f"{where} and their ranges overlap: {[start, end]} and {[first, last]}."
            raise ConfigError(msg, code="bad-namespace", hint="Make the ranges disjoint.")
        if (one.unit, one.hash == "sha256") != (other.unit, other.hash == "sha256"):
            msg = f"{where} but differ in unit or hash, so that it cannot keep them apart."
            raise ConfigError(msg, code="bad-namespace", hint="Use the same unit and the same kind of hash.")


def parse_experiment(raw: Mapping[str, Any], *, source: str = "The configuration") -> Experiment:
    """Build an experiment from what TOML or JSON says.

    Args:
        raw: the tables and keys, name included.
        source: what to call it in messages.

    Raises:
        ConfigError: a key is unknown, missing or wrong; ``code`` is ``bad-shares`` and the like where one rule says
            it, else ``bad-config``.
    """
    try:
        # As JSON because strictness then means what a file can say: lists are tuples, but "1" is no number.
        return _adapter().validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        found = error.errors()
        problems = "; ".join(_problem(e["loc"], e["type"], e["msg"]) for e in found)
        code = found[0]["type"] if "-" in found[0]["type"] else "bad-config"
        msg = f"{source} is not valid: {problems}."
        raise ConfigError(
            msg, code=code, hint="Mend or remove these keys; docs/experiments.md has them all."
        ) from error


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Experiment]:
    return TypeAdapter(Experiment)


def _problem(place: Sequence[int | str], kind: str, text: str) -> str:
    """A finding of the validation in the words of the file, for the middle of a sentence."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    said = _WORDS.get(kind, text)
    said = said[:1].lower() + said[1:]
    return f"{where}: {said}" if where else said


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        msg = f"{path.name} is not UTF-8: byte {error.start + 1} cannot be decoded."
        raise ConfigError(msg, code="bad-config", hint="Save it as UTF-8.") from error
    except OSError as error:
        msg = f"{path.name} cannot be read: {(error.strerror or str(error)).lower()}."
        raise ConfigError(msg, code="bad-config", hint="Check the file and its permissions.") from error
    except tomllib.TOMLDecodeError as error:
        msg = f"{path.name} cannot be read: {str(error).rstrip('.')}."
        raise ConfigError(msg, code="bad-config", hint="Mend the file.") from error
