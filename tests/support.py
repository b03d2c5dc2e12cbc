"""What tests of the command line share: a project in a folder, processes to watch and kill, homes to compare."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import psutil
import pytest
from filelock import FileLock, Timeout

from grym.memory import FeatureStore
from grym.schema import TABLES
from grym.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 400.0  # of patience: machines that run these tests do other things too
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
# Runs the command line, but waits at the n-th call of one function until a file says go on: the process can be
# killed exactly there. Arguments: module, name, n, folder for the files `reached` and `go`, then those of `flows`.
PAUSED = """
import functools, importlib, itertools, pathlib, runpy, sys, time
module, name, count, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), pathlib.Path(sys.argv[4])
owner = importlib.import_module(module)
*parents, last = name.split(".")
owner = functools.reduce(getattr, parents, owner)
original, calls = getattr(owner, last), itertools.count(1)
def pausing(*args, **kwargs):
    if next(calls) == count:
        (folder / "reached").touch()
        while not (folder / "go").exists():
            time.sleep(0.02)
    return original(*args, **kwargs)
setattr(owner, last, pausing)
sys.argv = ["flows", *sys.argv[5:]]
runpy.run_module("flows", run_name="__main__")
"""
# Runs the command line under a limit on the size of files, the first argument, as on a disk that is full.
LIMITED = """
import resource, runpy, sys
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
sys.argv[0] = "flows"
runpy.run_module("flows", run_name="__main__")
"""
# What may differ between a run that was interrupted and one that was not: time, ids, resources, attempts.
VOLATILE = {
    "run_id", "at", "flow_run_id", "wall_seconds", "compute_seconds", "cpu_seconds", "peak_rss_mb", "load_seconds",
    "worker_pid",
}  # fmt: skip
TIMED = {"latency_p50", "latency_p95", "rtfx", "peak_rss_mb"}


@dataclass(frozen=True)
class Project:
    """A folder with grym.toml and data, and the environment to run the command line in."""

    folder: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        """Where everything is stored."""
        return Path(self.environment["GRYM_HOME"])

    def at(self, home: str | Path) -> Project:
        """The same project with another home."""
        return Project(self.folder, {**self.environment, "GRYM_HOME": str(self.folder / home)})

    def bare(self) -> Project:
        """The same project without coverage in its processes: quicker, and killed ones leave none anyway."""
        kept = {key: value for key, value in self.environment.items() if not key.startswith("COVERAGE_")}
        return Project(self.folder, kept)

    def alone(self) -> Project:
        """The same project with a Prefect server of its own, as a person has it."""
        return Project(self.folder, {k: v for k, v in self.environment.items() if not k.startswith("PREFECT_")})

    def start(self, *arguments: str, entry: Iterable[str] = ("-m", "flows")) -> subprocess.Popen[str]:
        """Start ``python -m flows`` and do not wait."""
        return subprocess.Popen(
            [sys.executable, *entry, *arguments],
            cwd=ROOT, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def start_pausing(self, function: str, count: int, folder: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start it; it waits at the n-th call of ``module:name`` until ``folder/go`` exists. Returns once it waits."""
        folder.mkdir()
        module, _, name = function.partition(":")
        flow = self.start(*arguments, entry=("-c", PAUSED, module, name, str(count), str(folder)))
        wait(lambda: (folder / "reached").exists() or flow.poll() is not None)
        assert flow.poll() is None, f"{function} was not reached: {flow.communicate()}"
        return flow

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run ``python -m flows`` to its end and check the exit code."""
        return end(self.start(*arguments), code)

    def models(self, *, worker: str = "", **scripts: dict[str, object]) -> None:
        """Write grym.toml with the bundled models and fake ones with these options."""
        lines = [MODELS, "[compare]", "batch_clips = 6", "latency_clips = 8", "[worker]", "threads = 1", worker]
        for name, options in scripts.items():
            fields = ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
            lines += [f"[models.{name}]", 'adapter = "fake"', f"options = {{ {fields} }}"]
        (self.folder / "grym.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def end(flow: subprocess.Popen[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    """Wait for a command's end and check its exit code; a failure is never a traceback."""
    stdout, stderr = flow.communicate(timeout=SECONDS)
    assert flow.returncode == code, f"exit {flow.returncode}\n{stdout}\n{stderr}"
    if code:
        assert "Traceback" not in stdout + stderr
        # Below it a library may report objects that were alive when the process ended.
        assert any(line.startswith("error: ") for line in stderr.splitlines()), stderr
    return subprocess.CompletedProcess(flow.args, flow.returncode, stdout, stderr)


def kill(flow: subprocess.Popen[str]) -> None:
    """End a command without any chance to clean up, and wait until its workers have noticed."""
    children = workers(flow.pid)
    flow.send_signal(signal.SIGKILL)
    flow.communicate()
    wait(lambda: not any(map(is_alive, children)), 60)


def wait(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait until something is true, and give it back."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail("nothing happened in time")


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def workers(pid: int) -> list[psutil.Process]:
    """The worker processes below a command's process."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if any("worker" in part for part in _command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def parts(home: Path, table: str = "outcomes") -> dict[str, int]:
    """Landed parts with the time they were written."""
    found = home.glob(f"landing/{table}/*/*/part-*.parquet")
    return {path.relative_to(home).as_posix(): path.stat().st_mtime_ns for path in found}


def run_id(home: Path) -> str:
    """The id of a home's first run."""
    return str(Store(home).runs()["run_id"][0])


def pages(home: Path) -> set[str]:
    """Ids of the runs whose page exists."""
    return {path.stem for path in (home / "reports").glob("*-*.html")}


def tables(home: Path) -> dict[str, pl.DataFrame]:
    """Every table without what may differ, in a fixed order."""
    store = Store(home)
    found = {}
    for name in TABLES:
        frame = store.read(name)
        if name == "attempts":
            continue
        if name == "comparisons":
            frame = frame.filter(~pl.col("metric").is_in(TIMED))
        if name == "operations":
            frame = frame.filter(pl.col("pass") != "warmup")
        if name == "quality":  # times themselves differ, that they were judged does not
            measured = pl.col("suite") == "response_time"
            frame = frame.with_columns(pl.when(measured).then(pl.lit("")).otherwise("observed").alias("observed"))
        kept = [column for column in frame.columns if column not in VOLATILE]
        found[name] = frame.select(kept).sort(kept)
    return found


def features(home: Path) -> dict[str, list[tuple[str, list[float]]]]:
    """Every stored vector by space and clip; a doubled one is listed twice."""
    store = FeatureStore(home)
    found = {}
    for space in store.spaces():
        rows = store.table(space).search().select(["id", "vector"]).limit(1_000_000).to_list()
        found[f"{space}"] = sorted((row["id"], list(row["vector"])) for row in rows)
    return found


def assert_same(left: Path, right: Path) -> None:
    """Two homes hold the same rows and the same vectors, apart from times."""
    first, second = tables(left), tables(right)
    for name, frame in first.items():
        assert frame.equals(second[name]), f"table {name} differs:\n{frame}\n{second[name]}"
    assert features(left) == features(right)


def assert_finished(home: Path, runs: int = 1) -> None:
    """Every run has its page, the warehouse tells of it, and nothing of any process is left behind."""
    store = Store(home)
    states = store.runs()
    assert states.height == 2 * runs
    assert pages(home) == set(states["run_id"])
    with store.connect() as warehouse:
        for name in ("runs", "outcomes", "words", "comparisons"):
            counted = warehouse.execute(f"SELECT count(*) FROM {name}").fetchall()  # noqa: S608 - names above
            assert counted == [(store.read(name).height,)], name
    assert_nothing_left(home)


def assert_nothing_left(home: Path) -> None:
    """No process works in the home, no lock is held, no scratch folder, shared memory or unfinished warehouse stays."""
    assert [process for process in psutil.process_iter() if _works_in(process, home)] == []
    for path in home.rglob("*.lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            pytest.fail(f"{path} is still held")
    assert [path for path in (home / "scratch").iterdir() if path.name != ".lock"] == []
    assert list(home.glob(".publish-*")) == []
    assert list(Path("/dev/shm").glob("*grym*")) == []  # noqa: S108 - memory of workers has no name and ends with them


def _works_in(process: psutil.Process, home: Path) -> bool:
    try:
        return home.resolve() in Path(process.cwd()).parents and is_alive(process)
    except (psutil.Error, OSError):
        return False
