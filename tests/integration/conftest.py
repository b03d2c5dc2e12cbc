"""A checkout's command line on a temporary home, and one Prefect server for all tests that need one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "datasets/digits/test"
MODELS = """
[models.mini]
adapter = "wav2vec2"
options = { path = "bundled:wav2vec2-mini", precision = "fp32" }
[models.mini-int8]
adapter = "wav2vec2"
options = { path = "bundled:wav2vec2-mini", precision = "int8" }
[models.mini-degraded]
adapter = "wav2vec2"
options = { path = "bundled:wav2vec2-mini", precision = "fp32", weight_noise = 0.7, seed = 1 }
[models.no-weights]
adapter = "wav2vec2"
options = { path = "empty-model" }
"""


@dataclass(frozen=True)
class Project:
    """A folder with grym.toml and data, and the environment to run the command line in."""

    folder: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        """Where everything is stored."""
        return Path(self.environment["GRYM_HOME"])

    def at(self, home: str) -> Project:
        """The same project with another home."""
        return Project(self.folder, {**self.environment, "GRYM_HOME": str(self.folder / home)})

    def bare(self) -> Project:
        """The same project without coverage in its processes: quicker, and killed ones leave none anyway."""
        kept = {key: value for key, value in self.environment.items() if not key.startswith("COVERAGE_")}
        return Project(self.folder, kept)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``python -m flows`` and do not wait."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments],
            cwd=ROOT, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run ``python -m flows`` to its end and check the exit code."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=240)
        assert process.returncode == code, f"exit {process.returncode}\n{stdout}\n{stderr}"
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def models(self, **scripts: dict[str, object]) -> None:
        """Write grym.toml with the bundled models and fake ones with these options."""
        lines = [MODELS, "[compare]", "batch_clips = 6", "latency_clips = 8", "[worker]", "threads = 1"]
        for name, options in scripts.items():
            fields = ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
            lines += [f"[models.{name}]", 'adapter = "fake"', f"options = {{ {fields} }}"]
        (self.folder / "grym.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one real Prefect server for the whole session."""
    from flows.server import server

    with server(tmp_path_factory.mktemp("prefect-home")) as found:
        yield found.url


@pytest.fixture
def project(tmp_path: Path, prefect_url: str) -> Project:
    """A project with the bundled models, a home of its own and the session's Prefect server."""
    environment = {
        **os.environ,
        "GRYM_CONFIG": str(tmp_path / "grym.toml"),
        "GRYM_HOME": str(tmp_path / "var"),
        "PREFECT_API_URL": prefect_url,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
        "COLUMNS": "160",
    }
    made = Project(tmp_path, environment)
    made.models()
    return made


def bundled_rows(count: int, step: int = 1) -> list[dict[str, str]]:
    """Rows of the bundled test manifest."""
    with (DIGITS / "manifest.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))[: count * step : step]


def write_dataset(folder: Path, rows: Sequence[dict[str, str]]) -> Path:
    """Copy bundled clips into a folder and write their manifest; returns the manifest."""
    (folder / "audio").mkdir(parents=True)
    for row in rows:
        shutil.copy(DIGITS / row["audio_filepath"], folder / row["audio_filepath"])
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


@pytest.fixture
def digits() -> tuple[object, object]:
    """Helpers to make small datasets of bundled clips."""
    return bundled_rows, write_dataset
