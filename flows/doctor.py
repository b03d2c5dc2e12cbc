"""What is missing on this machine, in plain words: ``python -m flows doctor``.

Imports nothing heavy (versions are read from the packages' metadata), starts
nothing, and leaves nothing behind. Needs the standard library only: a check that
needs a package which is missing says so. Where even the command line cannot start
there is ``python -m flows.doctor``. Sizes in bytes unless named otherwise.
"""

from __future__ import annotations

import csv
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flows import _installed as installed
from flows._installed import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grym.config import Settings

__all__ = ["Check", "checks", "report"]

ROOT = Path(__file__).resolve().parents[1]
FREE_BYTES = 1_000_000_000
WEIGHTS = "models/checkpoints/wav2vec2-mini/model.safetensors"
# Smaller than any weights: the stand-in that git leaves when large files were not fetched.
POINTER_BYTES = 10_000


def checks(settings_path: Path | None = None, *, root: Path = ROOT) -> list[Check]:
    """Look at everything the platform needs.

    Args:
        settings_path: a ``grym.toml``; default the one in force.
        root: the checkout, with ``pyproject.toml`` and ``constraints.txt``.

    Returns:
        All findings, required ones and optional ones; never raises for a finding.
    """
    espeak = ("espeak-ng", "makes speech for new training clips", "Install it with your system's package manager.")
    found = [
        _look("Python", installed.python),
        _look("packages", installed.packages, root / "pyproject.toml"),
        _look("versions", installed.constraints, root / "constraints.txt", required=False),
        _look("torch pair", installed.torch_pair),
        _look("datasets", installed.datasets_package),
        _look("weights", _weights),
        _look("espeak-ng", _tool, *espeak, required=False),
        _look("GRYM_FSDD", _fsdd, required=False),
        _look("CUDA", _cuda, required=False),
    ]
    settings: list[Settings] = []
    found.append(_look("grym.toml", _settings, settings_path, settings))
    for known in settings:
        found += [
            _look("corpus", _corpus, known),
            _look("home", _writable, known.home),
            _look("disk", _space, known.home),
            _look("warehouse", _warehouse, known.home),
            _look("Prefect", _prefect, known.home),
        ]
    return sorted(found, key=lambda check: (not check.required, check.ok))


def report(settings_path: Path | None = None) -> int:
    """Print the findings as a table, or line by line where rich is missing.

    Returns:
        Exit code: 0 when everything required is there, else 1.
    """
    found = checks(settings_path)
    try:
        _print_table(found)
    except ImportError:
        for check in found:
            mark = "ok" if check.ok else "no" if check.required else "--"
            print(f"{mark}  {check.name}: {check.says} {check.todo}".rstrip())
    missing = [check.name for check in found if check.required and not check.ok]
    if missing:
        print(f"{len(missing)} of the required things are not there: {', '.join(missing)}")
        return 1
    print("Everything required is there. A -- is optional.")
    return 0


def _print_table(found: Sequence[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    from flows.terminal import terminal

    table = Table("", "check", "what is", "what to do", title="grym-synth doctor", title_justify="left")
    for check in found:
        mark, colour = ("ok", "green") if check.ok else ("no", "red") if check.required else ("--", "yellow")
        table.add_row(Text(mark, style=colour), check.name, check.says, check.todo)
    terminal().print(table)


def _look(name: str, check: Callable[..., Check], *arguments: object, required: bool = True) -> Check:
    """The finding of a check; one that cannot be made is a finding, too, and never stops the others."""
    try:
        return check(*arguments)
    except ModuleNotFoundError as error:
        package = (error.name or "of that check").partition(".")[0]
        says, todo = f"Cannot be checked: the package {package} is missing.", installed.INSTALL
    except Exception as error:  # noqa: BLE001 - whatever it is, the person wants to read about the other things as well
        why = str(error).strip().partition("\n")[0].rstrip(".")
        says, todo = (
            f"Cannot be checked: {type(error).__name__}: {why}.",
            f"Mend that; if in doubt: {installed.INSTALL}",
        )
    return Check(name, ok=False, required=required, says=says, todo=todo)


def _weights() -> Check:
    import grym

    path = Path(grym.__file__).parent / WEIGHTS
    size = path.stat().st_size if path.is_file() else 0
    if size > POINTER_BYTES:
        return Check("weights", ok=True, required=True, says=f"wav2vec2-mini is there ({size / 1e6:.1f} MB).")
    says = "The bundled wav2vec2-mini weights are " + ("not complete." if size else "not there.")
    return Check("weights", ok=False, required=True, says=says, todo=f"Check out {WEIGHTS} below src/grym again.")


def _settings(path: Path | None, loaded: list[Settings]) -> Check:
    """Whether grym.toml can be used; if so, what it says is added to ``loaded``."""
    from grym.config import load_settings
    from grym.errors import GrymError

    try:
        settings = load_settings(path)
    except GrymError as error:
        return Check("grym.toml", ok=False, required=True, says=error.message, todo=error.hint)
    loaded.append(settings)
    says = f"Valid: {len(settings.models)} models, {len(settings.datasets)} datasets, home {settings.home}."
    return Check("grym.toml", ok=True, required=True, says=says)


def _corpus(settings: Settings) -> Check:
    from grym.errors import ConfigError

    name, say = "corpus", "The bundled digits are not registered."
    try:
        manifest = settings.dataset("digits").path
        with manifest.open(encoding="utf-8", newline="") as file:
            clips = [manifest.parent / row["audio_filepath"] for row in csv.DictReader(file)]
    except ConfigError as error:
        return Check(name, ok=False, required=True, says=say, todo=error.hint)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:  # the file, its columns, a row, its text
        say = f"The bundled digits cannot be read: {error}."
        return Check(name, ok=False, required=True, says=say, todo="Check out datasets/digits again.")
    missing = sum(not clip.is_file() for clip in clips)
    if missing or not clips:
        say = f"{missing} of {len(clips)} bundled clips are not there."
        return Check(name, ok=False, required=True, says=say, todo="Check out datasets/digits again.")
    return Check(name, ok=True, required=True, says=f"All {len(clips)} bundled clips are there.")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _writable(home: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=_existing(home)):
            return Check("home", ok=True, required=True, says=f"{home} can be written.")
    except OSError as error:
        says = f"{home} cannot be written: {error.strerror}."
        todo = "Change its permissions, or set GRYM_HOME to another folder."
        return Check("home", ok=False, required=True, says=says, todo=todo)


def _space(home: Path, needed: int = FREE_BYTES) -> Check:
    free = shutil.disk_usage(_existing(home)).free
    ok = free > needed
    todo = "" if ok else f"Free {needed / 1e9:.0f} GB, or set GRYM_HOME to another disk."
    return Check("disk", ok, required=True, says=f"{free / 1e9:.1f} GB free at the home.", todo=todo)


def _warehouse(home: Path) -> Check:
    name, path = "warehouse", home / "warehouse.duckdb"
    if not path.exists():
        return Check(name, ok=True, required=True, says="None yet; the first run makes one.")
    import duckdb

    try:
        duckdb.connect(str(path), read_only=True).close()
    except duckdb.Error as error:
        says = f"It cannot be read: {str(error).splitlines()[0].rstrip('.')}."
        todo = "Close the program that holds it open; if it is damaged, delete it: the next run makes it anew."
        return Check(name, ok=False, required=True, says=says, todo=todo)
    return Check(name, ok=True, required=True, says="It can be read.")


def _prefect(home: Path) -> Check:
    from flows._prefect.api import is_healthy
    from flows.server import state

    name, named = "Prefect", os.environ.get("PREFECT_API_URL")
    if named:
        ok = is_healthy(named.rstrip("/"))
        says = f"PREFECT_API_URL is {named}; a server {'answers' if ok else 'does not answer'} there."
        todo = "" if ok else "Unset it to use a server of this home, or start that one."
        return Check(name, ok, required=True, says=says, todo=todo)
    now = state(home)
    if now.server is None:
        return Check(name, ok=True, required=True, says="No server runs; a flow starts one and stops it.")
    says = f"A server runs at {now.server.ui}"
    if not is_healthy(now.server.url):
        todo = f"Wait a little; if it stays, end process {now.server.pid}. Its log is {now.log}."
        return Check(name, ok=False, required=True, says=f"{says} but does not answer.", todo=todo)
    if now.holders:
        used = ", ".join(map(str, sorted(set(now.holders))))
        return Check(name, ok=True, required=True, says=f"{says}, used by process {used}.")
    todo = "The next flow takes it over and stops it; or run `python -m flows ui` and press Ctrl-C."
    return Check(name, ok=True, required=True, says=f"{says}, used by nobody.", todo=todo)


def _tool(name: str, purpose: str, todo: str) -> Check:
    path = shutil.which(name)
    if path:
        return Check(name, ok=True, required=False, says=f"Found; {purpose}.")
    return Check(name, ok=False, required=False, says=f"Not found; it {purpose}.", todo=todo)


def _fsdd() -> Check:
    name, folder = "GRYM_FSDD", os.environ.get("GRYM_FSDD")
    if not folder:
        todo = "Fetch this dataset of real speech (python -m flows datasets fetch fsdd), or set it to a copy's folder."
        return Check(name, ok=False, required=False, says="Not set.", todo=todo)
    count = sum(1 for _ in Path(folder).rglob("*.wav")) if Path(folder).is_dir() else 0
    if count:
        return Check(name, ok=True, required=False, says=f"{count} recordings.")
    return Check(name, ok=False, required=False, says=f"{folder} holds no recordings.", todo="Point it at the dataset.")


def _cuda(devices: Callable[[], list[str]] | None = None) -> Check:
    try:
        names = (devices or _nvidia)()
    except Exception as error:  # noqa: BLE001 - the driver's library has its own errors, and none of them matters here
        todo = "Nothing is needed: all models run on the processor. For a GPU, install NVIDIA's driver."
        return Check("CUDA", ok=False, required=False, says=f"No GPU found ({error}).", todo=todo)
    return Check("CUDA", ok=bool(names), required=False, says=f"{len(names)} GPU: {', '.join(names)}.")


def _nvidia() -> list[str]:
    pynvml = importlib.import_module("pynvml")  # it brings no types
    pynvml.nvmlInit()
    try:
        count = pynvml.nvmlDeviceGetCount()
        return [str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(count)]
    finally:
        pynvml.nvmlShutdown()


if __name__ == "__main__":
    sys.exit(report())
