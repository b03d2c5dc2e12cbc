"""The doctor: each thing that can be missing is found, named, and comes with what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import psutil
import pytest

import grym
from flows import _installed as installed
from flows import doctor
from flows.doctor import Check, checks, report

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = '[project]\ndependencies = ["psutil>=7", {}]\n'


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the developer's shell may have set."""
    for name in ("PREFECT_API_URL", "GRYM_HOME", "GRYM_CONFIG", "GRYM_FSDD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A small checkout: a grym.toml and two clips of the bundled corpus."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    (folder / "a.ogg").write_bytes(b"")
    (folder / "b.ogg").write_bytes(b"")
    (folder / "manifest.csv").write_text("id,audio_filepath\na,a.ogg\nb,b.ogg\n")
    path = tmp_path / "grym.toml"
    path.write_text('[datasets.digits]\nloader = "manifest"\npath = "datasets/manifest.csv"\n')
    return path


def package(folder: Path, name: str, version: str) -> None:
    """Metadata of an installed package."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def find(name: str, found: list[Check]) -> Check:
    """The one finding of that name."""
    (check,) = [check for check in found if check.name == name]
    return check


def test_everything_is_looked_at_and_what_is_wrong_says_what_to_do(config: Path) -> None:
    """On the real machine every check gives a sentence, and a failing one a next step."""
    found = checks(config, root=ROOT)
    assert len({check.name for check in found}) == len(found) == 15
    for check in found:
        assert check.says.endswith(".")
        assert check.ok or check.todo
    for name in ("Python", "packages", "torch pair", "datasets", "grym.toml", "corpus", "home", "disk", "Prefect"):
        assert find(name, found).ok, name
    required = [check.required for check in found]
    assert required == sorted(required, reverse=True)


def test_nothing_heavy_is_imported() -> None:
    """Looking takes no import of torch, Prefect, transformers or LanceDB."""
    code = (
        "import sys; from flows.doctor import report; report(); "
        "print(sorted({'torch', 'torchaudio', 'prefect', 'transformers', 'lancedb'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("gone", "named"), [((), "pydantic"), (("grym",), "grym")])
def test_missing_packages_are_findings_and_not_tracebacks(tmp_path: Path, gone: tuple[str, ...], named: str) -> None:
    """Without packages, even grym itself, the doctor looks at the rest and says in plain lines what is missing."""
    absent = ["psutil", "typer", "rich", "pydantic", "pydantic_settings", "packaging", "duckdb", "pynvml", *gone]
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({absent})); "
        "runpy.run_module('flows.doctor', run_name='__main__')"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert "no  packages: Cannot be checked: the package packaging is missing. " + installed.INSTALL in lines
    assert any(line.startswith(f"no  grym.toml: Cannot be checked: the package {named}") for line in lines)
    assert any(line.startswith("ok  Python: ") for line in lines)
    assert "packages" in lines[-1].rpartition("not there:")[2]


def test_what_one_check_needs_does_not_stop_the_others(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psutil only the check of the Prefect server cannot be made."""
    for name in [
        name for name in sys.modules if name in ("flows.server", "psutil") or name.startswith("flows._prefect")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psutil", None)
    found = checks(config)
    assert "the package psutil is missing" in find("Prefect", found).says
    assert not [check.name for check in found if "Cannot be checked" in check.says and check.name != "Prefect"]


def test_a_check_that_breaks_is_a_finding() -> None:
    """Whatever a check meets is said in one line, and optional things stay optional."""

    def broken() -> Check:
        msg = "the disk hums.\nmore"
        raise OSError(msg)

    check = doctor._look("disk", broken, required=False)
    assert (check.ok, check.required) == (False, False)
    assert check.says == "Cannot be checked: OSError: the disk hums."
    assert check.todo


def test_the_report_ends_with_one_when_something_required_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 1 and the last lines name what is missing; square brackets are shown as they are."""
    broken = tmp_path / "grym.toml"
    broken.write_text("[oops]\nkey = 1\n")
    assert report(broken) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "required things are not there" in said
    assert "grym.toml" in said.rpartition("not there:")[2]


def test_the_report_ends_with_zero_when_all_is_there(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With weights in place nothing required is missing."""
    weights = tmp_path / "grym" / doctor.WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(2 * doctor.POINTER_BYTES))
    monkeypatch.setattr(grym, "__file__", str(tmp_path / "grym" / "__init__.py"))
    assert report(config) == 0
    assert "Everything required is there" in capsys.readouterr().out


def test_weights_may_be_missing_or_a_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file and the small stand-in of a checkout without large files are told apart."""
    monkeypatch.setattr(grym, "__file__", str(tmp_path / "__init__.py"))
    assert "not there" in doctor._weights().says
    path = tmp_path / doctor.WEIGHTS
    path.parent.mkdir(parents=True)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    check = doctor._weights()
    assert not check.ok
    assert "not complete" in check.says


@pytest.mark.parametrize(
    ("need", "says"),
    [
        ('"fastapi<0.1"', "stop the Prefect server from starting"),
        ('"cachetools<1"', "Prefect's limit"),
        ('"no-such-package>=1"', "no-such-package is missing"),
        ('"rich>=999"', "needs >=999"),
    ],
)
def test_a_package_out_of_its_range_is_named(need: str, says: str, tmp_path: Path) -> None:
    """A missing package, a wrong version and the known traps are each said in words."""
    path = tmp_path / "pyproject.toml"
    path.write_text(PYPROJECT.format(need))
    check = installed.packages(path)
    assert not check.ok
    assert says in check.says
    assert "pip install" in check.todo


def test_without_a_readable_project_file_packages_cannot_be_judged(tmp_path: Path) -> None:
    """No pyproject.toml, a torn one and one without dependencies are findings."""
    path = tmp_path / "pyproject.toml"
    for text in (None, "[", "[project]"):
        if text is not None:
            path.write_text(text)
        assert not installed.packages(path).ok


def test_constraints_are_compared_with_what_is_installed(tmp_path: Path) -> None:
    """Differing pins are listed, at most five by name; agreeing and absent packages and comments are passed over."""
    path = tmp_path / "constraints.txt"
    assert installed.constraints(path).ok
    have = installed._version("psutil")
    path.write_text(f"# a comment\n\npsutil=={have}  # agrees\nno-such-package==1\n--hash=odd\n")
    assert installed.constraints(path).ok
    names = ("psutil", "rich", "duckdb", "pytest", "numpy", "polars")
    path.write_text("".join(f"{name}==0.0.1\n" for name in names))
    check = installed.constraints(path)
    assert not check.ok
    assert not check.required
    assert f"psutil {have} (==0.0.1)" in check.says
    assert "and 1 more" in check.says


@pytest.mark.parametrize("version", ["2.8.0", "2.11.0+cpu"])
def test_an_unequal_torch_pair_is_found(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another minor version, or another build, of torchaudio is not a pair."""
    package(tmp_path, "torch", "2.11.0")
    package(tmp_path, "torchaudio", version)
    monkeypatch.syspath_prepend(tmp_path)
    check = installed.torch_pair()
    assert not check.ok
    assert version in check.says


def test_an_importable_datasets_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name with code in it hides the package, which breaks LanceDB."""
    (tmp_path / "datasets").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert installed.datasets_package().ok
    (tmp_path / "datasets" / "__init__.py").write_text("")
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    check = installed.datasets_package()
    assert not check.ok
    assert str(tmp_path) in check.says


def test_a_missing_datasets_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the Hugging Face package the data folder itself would be imported."""
    monkeypatch.setattr(sys, "path", [str(ROOT)])
    check = installed.datasets_package()
    assert not check.ok
    assert "missing" in check.says


def test_the_bundled_corpus_is_counted(config: Path) -> None:
    """Missing clips, a missing manifest, a manifest without the column and no registration are all found."""
    (config.parent / "datasets" / "a.ogg").unlink()
    assert "1 of 2" in find("corpus", checks(config)).says
    manifest = config.parent / "datasets" / "manifest.csv"
    manifest.write_text("id,file\na,a.ogg\n")
    assert "audio_filepath" in find("corpus", checks(config)).says
    manifest.write_bytes(b"id,audio_filepath\na,\xff.ogg\n")
    assert "cannot be read" in find("corpus", checks(config)).says
    manifest.unlink()
    assert not find("corpus", checks(config)).ok
    config.write_text("")
    assert "not registered" in find("corpus", checks(config)).says


def test_a_home_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    """A home below a file cannot be made; the finding says how to choose another."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    check = doctor._writable(blocker / "var")
    assert not check.ok
    assert "GRYM_HOME" in check.todo


def test_a_full_disk_is_found(tmp_path: Path) -> None:
    """Less room than needed is a finding with a number, at a home that need not exist yet."""
    assert doctor._space(tmp_path / "var", needed=0).ok
    check = doctor._space(tmp_path / "var", needed=2**62)
    assert not check.ok
    assert "GB" in check.todo


def test_a_locked_warehouse_is_found(tmp_path: Path) -> None:
    """A warehouse that another program holds for writing cannot be read, and the finding says so."""
    path = tmp_path / "warehouse.duckdb"
    duckdb.connect(str(path)).close()
    assert doctor._warehouse(tmp_path).ok
    code = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        check = doctor._warehouse(tmp_path)
        holder.communicate("")
    assert not check.ok
    assert "Close the program" in check.todo
    assert doctor._warehouse(tmp_path).ok


def test_a_named_prefect_server_that_is_dead_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PREFECT_API_URL without a server behind it would stop every flow."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    check = doctor._prefect(tmp_path)
    assert not check.ok
    assert "Unset it" in check.todo


def test_a_prefect_server_that_does_not_answer_is_found(tmp_path: Path) -> None:
    """A live process on record that gives no answer is named with its log."""
    me = psutil.Process()
    (tmp_path / "prefect").mkdir()
    fields = {"pid": me.pid, "port": 1, "started": me.create_time()}
    (tmp_path / "prefect" / "server.json").write_text(json.dumps(fields))
    check = doctor._prefect(tmp_path)
    assert not check.ok
    assert str(me.pid) in check.todo


def test_a_prefect_server_is_told_with_its_users(tmp_path: Path) -> None:
    """A server that answers is fine; without users the finding says who will end it."""
    code = (
        "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "class Healthy(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'true')\n"
        "web = HTTPServer(('127.0.0.1', 0), Healthy); print(web.server_port, flush=True); web.serve_forever()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as web:
        assert web.stdout is not None
        started = psutil.Process(web.pid).create_time()
        fields = {"pid": web.pid, "port": int(web.stdout.readline()), "started": started}
        (tmp_path / "prefect" / "leases").mkdir(parents=True)
        (tmp_path / "prefect" / "server.json").write_text(json.dumps(fields))
        orphan = doctor._prefect(tmp_path)
        me = psutil.Process()
        lease = {"pid": me.pid, "started": me.create_time()}
        (tmp_path / "prefect" / "leases" / "me.json").write_text(json.dumps(lease))
        used = doctor._prefect(tmp_path)
        web.terminate()
    assert orphan.ok
    assert "used by nobody" in orphan.says
    assert used.ok
    assert f"used by process {me.pid}" in used.says


def test_optional_things_are_said_but_not_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """espeak-ng, the spoken digit dataset and a GPU are optional, there or not."""
    monkeypatch.setenv("GRYM_FSDD", str(tmp_path))
    empty = doctor._fsdd()
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "0_a_0.wav").write_bytes(b"")
    full = doctor._fsdd()
    monkeypatch.setenv("PATH", str(tmp_path))
    tool = doctor._tool("espeak-ng", "speaks", "Install it.")
    (tmp_path / "espeak-ng").write_text("")
    (tmp_path / "espeak-ng").chmod(0o755)
    found = doctor._tool("espeak-ng", "speaks", "Install it.")
    gpu = doctor._cuda(lambda: ["A card"])
    assert [check.ok for check in (empty, full, tool, found, gpu)] == [False, True, False, True, True]
    assert not any(check.required for check in (empty, full, tool, found, gpu))
    assert "1 recordings" in full.says
    assert "A card" in gpu.says
