"""Checks of what is installed, from the packages' metadata; imports none of the heavy ones."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

PYTHON = (3, 11)
INSTALL = 'python -m pip install -c constraints.txt -e ".[dev]"'
_TRAPS = {
    "fastapi": " (others stop the Prefect server from starting)",
    "cachetools": " (Prefect's limit)",
    "prefect": " (the one these flows were tested with)",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at, one or two words.
        ok: whether it is as it should be.
        required: whether the platform cannot work without it.
        says: what was found, a sentence.
        todo: what to do about it; empty when there is nothing to do.
    """

    name: str
    ok: bool
    required: bool
    says: str
    todo: str = ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def python() -> Check:
    """The interpreter."""
    wanted, have = ".".join(map(str, PYTHON)), ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info[:2] >= PYTHON
    return Check("Python", ok, required=True, says=f"Python {have}.", todo="" if ok else f"Use {wanted} or newer.")


def packages(pyproject: Path) -> Check:
    """Every declared dependency, with the ranges that are traps (fastapi, cachetools) among them."""
    import tomllib

    from packaging.requirements import Requirement

    try:
        lines = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return Check(
            "packages", ok=False, required=True, says="No readable pyproject.toml.", todo="Run from a checkout."
        )
    wrong = []
    for need in map(Requirement, lines):
        have = _version(need.name)
        if have is None:
            wrong.append(f"{need.name} is missing")
        elif not need.specifier.contains(have, prereleases=True):
            why = _TRAPS.get(need.name, "")
            wrong.append(f"{need.name} is {have}, needs {need.specifier}{why}")
    if wrong:
        return Check("packages", ok=False, required=True, says="; ".join(wrong) + ".", todo=f"{INSTALL}")
    return Check("packages", ok=True, required=True, says=f"All {len(lines)} packages are in their ranges.")


def constraints(path: Path) -> Check:
    """Installed versions against the set that was tested together."""
    name = "versions"
    if not path.is_file():
        return Check(name, ok=True, required=False, says="No constraints.txt here to compare with.")
    from packaging.requirements import InvalidRequirement, Requirement

    differ = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            pin = Requirement(line.split("#")[0].strip())
        except InvalidRequirement:
            continue  # a comment, a blank line or an option
        have = _version(pin.name)
        if have is not None and not pin.specifier.contains(have, prereleases=True):
            differ.append(f"{pin.name} {have} ({pin.specifier})")
    if not differ:
        return Check(name, ok=True, required=False, says="Installed packages agree with constraints.txt.")
    shown = ", ".join(differ[:5]) + (f" and {len(differ) - 5} more" if len(differ) > 5 else "")  # noqa: PLR2004 - a line
    says = f"Differ from the tested set: {shown}."
    return Check(name, ok=False, required=False, says=says, todo=f"If something odd happens: {INSTALL}")


def torch_pair() -> Check:
    """Whether torch and torchaudio are one pair; a broken torchaudio breaks `import transformers`."""
    torch, torchaudio = _version("torch"), _version("torchaudio")
    says = f"torch {torch or 'missing'}, torchaudio {torchaudio or 'missing'}."
    # A local part such as +cu128 tells the build; both have to be the same one.
    pair = [version and (version.split(".")[:2], version.partition("+")[2]) for version in (torch, torchaudio)]
    ok = torch is not None and pair[0] == pair[1]
    todo = "" if ok else f"Install both from one source at one version, or transformers cannot be imported: {INSTALL}"
    return Check("torch pair", ok, required=True, says=says, todo=todo)


def datasets_package() -> Check:
    """Whether the data folder `datasets` hides the package of that name."""
    name = "datasets"
    try:
        installed = Path(str(importlib.metadata.distribution("datasets").locate_file("datasets/__init__.py")))
    except importlib.metadata.PackageNotFoundError:
        says = "The Hugging Face package `datasets` is missing, so the folder of that name is imported instead."
        return Check(name, ok=False, required=True, says=says, todo=INSTALL)
    spec = importlib.util.find_spec("datasets")
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    if origin is not None and origin.resolve() == installed.resolve():
        return Check(name, ok=True, required=True, says="`import datasets` finds the Hugging Face package.")
    says = f"`import datasets` finds {origin or 'a folder without code'}, which breaks LanceDB."
    return Check(name, ok=False, required=True, says=says, todo="Remove __init__.py and other Python from that folder.")
