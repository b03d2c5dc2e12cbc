"""A checkout's command line on a temporary home, and one Prefect server for all tests that need one."""

from __future__ import annotations

import csv
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT, Project

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DIGITS = ROOT / "datasets/digits/test"


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
