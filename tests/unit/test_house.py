"""The rules of the house: where things lie and what may import what."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {
    "flows": {"flows", "tasks", "expectations", "reports", "grym"},
    "tasks": {"tasks", "expectations", "reports", "grym"},
    "expectations": {"expectations", "grym"},
    "reports": {"reports", "grym"},
    "src/grym": {"grym"},
}
OURS = {"flows", "tasks", "expectations", "reports", "grym", "tests", "benchmarks"}
HEAVY = {"torch", "torchaudio", "transformers"}


def _sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("floor", sorted(FLOORS))
def test_imports_point_one_way(floor: str) -> None:
    """Each floor imports only itself and the floors below it."""
    files = _sources(floor)
    assert files
    for path in files:
        above = (_imports(path) & OURS) - FLOORS[floor]
        assert not above, f"{path.relative_to(ROOT)} imports {above}"


def test_the_library_never_imports_prefect() -> None:
    """Grym can be used from a notebook alone."""
    assert [p for p in _sources("src/grym") if "prefect" in _imports(p)] == []


def test_only_models_import_torch() -> None:
    """A flow process never loads torch: only grym.models may import it."""
    folders = ("flows", "tasks", "expectations", "reports", "src/grym")
    users = [p for folder in folders for p in _sources(folder) if _imports(p) & HEAVY]
    assert users
    assert all(ROOT / "src/grym/models" in p.parents for p in users)


def test_a_flow_process_imports_no_torch() -> None:
    """Importing the compare flow leaves torch and transformers out of the process."""
    code = "import sys, flows.compare; print([m for m in ('torch', 'torchaudio', 'transformers') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**_environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)


def test_datasets_holds_data_only() -> None:
    """An importable folder named datasets would break LanceDB and fool transformers."""
    assert list((ROOT / "datasets").rglob("*.py")) == []


def test_the_readme_shows_the_tree_that_exists() -> None:
    """Every path of the annotated tree in README.md exists, and every top-level folder is in it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- tree -->\n```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    named: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in block.group(1).splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        name = line.split("#")[0].strip()
        while parents and parents[-1][0] >= indent:
            parents.pop()
        path = "".join(parent for _, parent in parents) + name
        named.append(path)
        if name.endswith("/"):
            parents.append((indent, name))
    missing = [path for path in named if not (ROOT / path).exists()]
    assert missing == []
    git = ["git", "ls-files"]
    tracked = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    folders = {path.split("/")[0] + "/" for path in tracked if "/" in path and not path.startswith(".")}
    assert [folder for folder in folders if not any(path.startswith(folder) for path in named)] == []
    modules = {
        "/".join(path.split("/")[:3]) for path in tracked if path.startswith("src/grym/") and path.endswith(".py")
    }
    shown = {path.rstrip("/") for path in named}
    assert {m for m in modules if not m.endswith("__init__.py")} <= shown


def test_deployments_name_flows_that_exist() -> None:
    """Each entry point of prefect.yaml is a flow by module path, and each schedule has a slug."""
    plan = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    for deployment in plan["deployments"]:
        module, name = deployment["entrypoint"].rsplit(".", 1)
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", source, re.MULTILINE)
        assert all(schedule["slug"] for schedule in deployment.get("schedules", []))


def test_constraints_name_no_host() -> None:
    """Pins are name==version and nothing else."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line) for line in lines)


def test_bundled_files_stay_small() -> None:
    """Each bundled corpus stays within 6 MB and a checkpoint within 12 MB."""
    for corpus in (ROOT / "datasets").iterdir():
        assert sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file()) <= 6_000_000, corpus.name
    for folder in (ROOT / "src/grym/models/checkpoints").iterdir():
        assert sum(path.stat().st_size for path in folder.rglob("*")) <= 12_000_000
