"""What is missing on this machine, in plain words: ``python -m flows doctor``.

Imports nothing heavy (versions are read from the packages' metadata), starts
nothing, and leaves nothing behind. Sizes in bytes unless named otherwise.
"""

from __future__ import annotations

import csv
import importlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import grym
from flows import _installed as installed
from flows._installed import Check
from grym.config import Settings, load_settings
from grym.errors import ConfigError, GrymError

if TYPE_CHECKING:
    from collections.abc import Callable

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
    found = [
        installed.python(),
        installed.packages(root / "pyproject.toml"),
        installed.constraints(root / "constraints.txt"),
        installed.torch_pair(),
        installed.datasets_package(),
        _weights(),
        _tool("espeak-ng", "makes speech for new training clips", "Install it with your system's package manager."),
        _fsdd(),
        _cuda(),
    ]
    settings, config = _settings(settings_path)
    found.append(config)
    if settings is not None:
        home = settings.home
        found += [_corpus(settings), _writable(home), _space(home), _warehouse(home), _prefect(home)]
    return sorted(found, key=lambda check: (not check.required, check.ok))


def report(settings_path: Path | None = None) -> int:
    """Print the findings as a table.

    Returns:
        Exit code: 0 when everything required is there, else 1.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    found = checks(settings_path)
    table = Table("", "check", "what is", "what to do", title="grym-synth doctor", title_justify="left")
    for check in found:
        mark = "[green]ok[/green]" if check.ok else "[red]no[/red]" if check.required else "[yellow]--[/yellow]"
        table.add_row(mark, check.name, escape(check.says), escape(check.todo))
    console = Console()
    console.print(table)
    missing = [check.name for check in found if check.required and not check.ok]
    if missing:
        console.print(f"[bold red]{len(missing)} of the required things are not there:[/bold red] {', '.join(missing)}")
        return 1
    console.print("[green]Everything required is there.[/green] A -- is optional.")
    return 0


def _weights() -> Check:
    path = Path(grym.__file__).parent / WEIGHTS
    size = path.stat().st_size if path.is_file() else 0
    if size > POINTER_BYTES:
        return Check("weights", ok=True, required=True, says=f"wav2vec2-mini is there ({size / 1e6:.1f} MB).")
    says = "The bundled wav2vec2-mini weights are " + ("not complete." if size else "not there.")
    return Check("weights", ok=False, required=True, says=says, todo=f"Check out {WEIGHTS} below src/grym again.")


def _settings(path: Path | None) -> tuple[Settings | None, Check]:
    try:
        settings = load_settings(path)
    except GrymError as error:
        return None, Check("grym.toml", ok=False, required=True, says=error.message, todo=error.hint)
    says = f"Valid: {len(settings.models)} models, {len(settings.datasets)} datasets, home {settings.home}."
    return settings, Check("grym.toml", ok=True, required=True, says=says)


def _corpus(settings: Settings) -> Check:
    name, say = "corpus", "The bundled digits are not registered."
    try:
        manifest = settings.dataset("digits").path
        with manifest.open(encoding="utf-8", newline="") as file:
            clips = [manifest.parent / row["audio_filepath"] for row in csv.DictReader(file)]
    except ConfigError as error:
        return Check(name, ok=False, required=True, says=say, todo=error.hint)
    except (OSError, KeyError) as error:
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
        todo = "To compare on the Free Spoken Digit Dataset, set it to a checkout's folder."
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
