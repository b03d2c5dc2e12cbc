"""Comparisons to disturb, and what the same ones come to when nobody disturbs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from flows.server import server
from tests.integration.conftest import bundled_rows, write_dataset
from tests.support import ROOT, SECONDS, Project, assert_finished, assert_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A call hangs when it has a sixth clip, a whole batch, and the model's state file does not say that it did before.
ONCE = '"#5"\n'
FAKE = {"*": "one two", "#5": {"do": "hang", "first": 1, "text": "one two"}}
# A fake call lasts a tenth of a second: the deadline only ends one that was stopped.
WORKER = "call_seconds = 10\ncall_seconds_per_audio_second = 0"


@dataclass(frozen=True)
class Case:
    """A comparison.

    Attributes:
        project: its grym.toml and home.
        command: arguments of the command line.
        whole: home of the same comparison, never disturbed.
        begun: appears when a call has begun that hangs, after :meth:`arm`.
        seconds: what the undisturbed run took.
    """

    project: Project
    command: tuple[str, ...]
    whole: Path
    begun: Path
    seconds: float

    @property
    def home(self) -> Path:
        """Where the disturbed run is stored."""
        return self.project.home

    def arm(self) -> None:
        """Let the first call of a whole batch hang."""
        self.begun.unlink()

    def start(self) -> subprocess.Popen[str]:
        """Start the command and do not wait."""
        return self.project.start(*self.command)

    def pause(self, function: str, count: int = 1) -> tuple[subprocess.Popen[str], Path]:
        """Start the command up to the n-th call of ``module:name``; it goes on when the returned file exists."""
        folder = self.project.folder / f"pause-{time.time_ns()}"
        return self.project.start_pausing(function, count, folder, *self.command), folder / "go"

    def finish(self) -> float:
        """Give the command once more: it ends well, and everything is as if nothing had happened; its seconds."""
        started = time.monotonic()
        self.project.run(*self.command)
        taken = time.monotonic() - started
        self.check()
        return taken

    def check(self) -> None:
        """The run is finished, equals the undisturbed one, and nothing is left behind."""
        assert_same(self.whole, self.home)
        assert_finished(self.home)


def make(folder: Path, url: str, count: int, arms: tuple[str, str]) -> Case:
    """A case whose undisturbed run is still to be made, in its own home."""
    folder.mkdir(exist_ok=True)
    begun = folder / "begun"
    begun.write_text(ONCE, encoding="utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "COVERAGE_"))},
        "GRYM_CONFIG": str(folder / "grym.toml"),
        "GRYM_HOME": str(folder / "var"),
        "PREFECT_API_URL": url,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
        "COLUMNS": "160",
    }
    project = Project(folder, environment)
    fake = {"script": json.dumps(FAKE), "latency_seconds": 0.1}
    project.models(
        worker=WORKER,
        left={**fake, "error_rate": 0.2, "state": str(begun)},
        right={**fake, "script": '{"*": "one three"}', "error_rate": 0.3, "seed": 4},
    )
    manifest = folder.parent / f"set-{count}" / "manifest.csv"
    if not manifest.exists():
        write_dataset(manifest.parent, bundled_rows(count, 5))
    command = ("compare", "--a", arms[0], "--b", arms[1], "--dataset", str(manifest))
    return Case(project, command, project.home, begun, 0.0)


def undisturbed(case: Case) -> Case:
    """Run a case to its end; with its seconds."""
    started = time.monotonic()
    case.project.run(*case.command)
    return Case(case.project, case.command, case.home, case.begun, time.monotonic() - started)


@pytest.fixture(autouse=True)
def machine(record_property: Callable[[str, object], None]) -> None:
    """How busy the machine is, beside the times that are measured."""
    record_property("load", round(os.getloadavg()[0], 1))


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one real Prefect server for the cases that are not about servers."""
    with server(tmp_path_factory.mktemp("prefect-home"), start_seconds=SECONDS) as found:
        yield found.url


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for everything of this session: the datasets must lie at one place for all."""
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="session")
def whole_fake(folder: Path, prefect_url: str) -> Case:
    """The comparison of two fake models on 36 clips, undisturbed."""
    return undisturbed(make(folder / "whole-fake", prefect_url, 36, ("left", "right")))


@pytest.fixture(scope="session")
def whole_real(folder: Path, prefect_url: str) -> Case:
    """The comparison of wav2vec2-mini in fp32 and int8 on 24 clips, undisturbed."""
    return undisturbed(make(folder / "whole-real", prefect_url, 24, ("mini", "mini-int8")))


@pytest.fixture
def fake(whole_fake: Case, folder: Path, prefect_url: str, request: pytest.FixtureRequest) -> Case:
    """Two fake models, a home of its own."""
    case = make(folder / _name(request), prefect_url, 36, ("left", "right"))
    request.node.user_properties.append(("two fake models", round(whole_fake.seconds, 1)))
    return Case(case.project, case.command, whole_fake.home, case.begun, whole_fake.seconds)


@pytest.fixture
def real(whole_real: Case, folder: Path, prefect_url: str, request: pytest.FixtureRequest) -> Case:
    """Two real models, a home of its own."""
    case = make(folder / _name(request), prefect_url, 24, ("mini", "mini-int8"))
    request.node.user_properties.append(("wav2vec2-mini", round(whole_real.seconds, 1)))
    return Case(case.project, case.command, whole_real.home, case.begun, whole_real.seconds)


def _name(request: pytest.FixtureRequest) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:80]


@dataclass(frozen=True)
class Disk:
    """A small file system of its own, and the program that mounts."""

    path: Path
    mount: str

    def remount(self, option: str) -> None:
        """Make it read-only (``ro``) or writable (``rw``)."""
        subprocess.run([self.mount, "-o", f"remount,{option}", str(self.path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    """Mounts file systems of some megabytes, where that is allowed."""
    mounted: list[Path] = []
    tool, end = shutil.which("mount"), shutil.which("umount")

    def mount(megabytes: int) -> Disk:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(place)]
        if tool is None or end is None or subprocess.run([tool, *options], capture_output=True, check=False).returncode:
            pytest.skip("mounting a small file system is not allowed here")
        mounted.append(place)
        return Disk(place, tool)

    yield mount
    for place in mounted:
        subprocess.run([str(end), "--lazy", str(place)], capture_output=True, check=False)
