"""``python -m benchmarks.fuzz``: broken inputs by the million; prints what came of them as JSON.

    python -m benchmarks.fuzz --protocol 1000000 --manifest 1000000 --audio 100000
    python -m benchmarks.fuzz --guided 60          # coverage-guided, with atheris, for so many seconds a door

Inputs are entered in child processes, one chunk after the other. A child that dies
or needs more than ``DEADLINE`` seconds of the processor for one input is a finding with the number
of the input, and the next child goes on behind it; ``--show audio 4711`` writes that
input to standard output. Exit code 1 if anything was found.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.fuzz_inputs import DOORS

# Seconds of the processor for one input, of which the slowest take a quarter; and of the clock, for one that waits.
DEADLINE: Final = float(os.environ.get("GRYM_FUZZ_DEADLINE", "10"))
WAIT: Final = 30 * DEADLINE  # a machine that does other things may leave a process waiting
CHUNK: Final = {"protocol": 50_000, "manifest": 50_000, "audio": 5_000}
MOST_FINDINGS: Final = 20
MEMORY_BYTES: Final = 4 * 2**30
ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass
class Found:
    """What came of the inputs of one door.

    Attributes:
        door: protocol, manifest or audio.
        inputs: entered.
        codes: how often each outcome.
        findings: inputs that crashed, hung or raised something that is no typed error: number and what happened.
        slowest_ms: milliseconds of the processor for the slowest input.
        seconds: what everything took.
    """

    door: str
    inputs: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    slowest_ms: float = 0.0
    seconds: float = 0.0

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "inputs": self.inputs,
            "findings": self.findings[:MOST_FINDINGS],
            "crashes_or_hangs": len(self.findings),
            "slowest_ms": round(self.slowest_ms, 1),
            "seconds": round(self.seconds, 1),
            "codes": dict(self.codes.most_common()),
        }


def enter(door: str, seed: str, start: int, count: int, folder: Path, progress: Path | None = None) -> Found:
    """Enter inputs in this process; what is no typed error is a finding, a crash ends the process.

    Args:
        door: protocol, manifest or audio.
        seed: of the inputs.
        start: number of the first one.
        count: how many.
        folder: for files.
        progress: holds the number of the input that is being entered, 8 bytes.
    """
    found, chosen = Found(door), DOORS[door]
    told = os.open(progress, os.O_WRONLY | os.O_CREAT) if progress else -1
    began = time.monotonic()
    for number in range(start, start + count):
        if told >= 0:
            os.pwrite(told, number.to_bytes(8, "big"), 0)
            signal.setitimer(signal.ITIMER_PROF, DEADLINE)
            signal.setitimer(signal.ITIMER_REAL, WAIT)
        data = chosen.make(seed, number)
        entered = time.process_time()
        try:
            found.codes[chosen.enter(data, folder)] += 1
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            found.findings.append((number, f"{type(error).__name__}: {error}"[:300]))
        found.slowest_ms = max(found.slowest_ms, 1e3 * (time.process_time() - entered))
        found.inputs += 1
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if told >= 0:
        os.close(told)
    found.seconds = time.monotonic() - began
    return found


def run(door: str, count: int, *, seed: str = "1", chunk: int = 0, start: int = 0) -> Found:
    """Enter the inputs from ``start`` on in child processes, which may die."""
    total, began, number = Found(door), time.monotonic(), start
    with tempfile.TemporaryDirectory(prefix="broken-inputs-", dir=_quick()) as made:
        progress = Path(made) / "progress"
        while number < start + count:
            some = min(chunk or CHUNK[door], start + count - number)
            command = [sys.executable, "-m", "benchmarks.fuzz", "--chunk", door, seed, str(number), str(some), made]
            done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, check=False)
            if done.returncode == 0:
                part = json.loads((Path(made) / "told").read_text(encoding="utf-8"))  # C libraries print to stdout
                number += part["inputs"]
                total.codes.update(part["codes"])
                total.findings += [(int(at), str(what)) for at, what in part["findings"]]
                total.slowest_ms = max(total.slowest_ms, part["slowest_ms"])
            else:
                at = int.from_bytes(progress.read_bytes(), "big") if progress.exists() else number
                total.findings.append((at, _death(done.returncode) + done.stderr.decode(errors="replace")[-200:]))
                number = at + 1  # what went well before it in this chunk is entered again by nobody, nor counted twice
            total.inputs = number - start
            if len(total.findings) >= MOST_FINDINGS:
                break
    total.seconds = time.monotonic() - began
    return total


def guided(door: str, seconds: int) -> dict[str, Any]:
    """Let atheris look for inputs that reach new code, for a bounded time, in a child process."""
    with tempfile.TemporaryDirectory(prefix="broken-inputs-", dir=_quick()) as made:
        corpus = Path(made) / "corpus"
        corpus.mkdir()
        for number, data in enumerate(DOORS[door].seeds()):
            (corpus / str(number)).write_bytes(data)
        limits = [
            f"-max_total_time={seconds}",
            f"-timeout={DEADLINE:.0f}",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
        ]
        command = [sys.executable, "-m", "benchmarks.fuzz", "--atheris", door, made, *limits, str(corpus)]
        done = subprocess.run(command, cwd=made, env=_environment(), capture_output=True, check=False)
        said = done.stderr.decode(errors="replace")
        runs = [line.rsplit(" ", 1)[-1] for line in said.splitlines() if "number_of_executed_units" in line]
        found = [] if done.returncode == 0 else [said[-1500:]]
        return {"inputs": int(runs[0]) if runs else 0, "seconds": seconds, "findings": found}


def _chunk(door: str, seed: str, start: str, count: str, made: str) -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = Path(made) / "work"
    folder.mkdir(exist_ok=True)
    found = enter(door, seed, int(start), int(count), folder, Path(made) / "progress")
    told = {"inputs": found.inputs, "codes": found.codes, "findings": found.findings, "slowest_ms": found.slowest_ms}
    (Path(made) / "told").write_text(json.dumps(told), encoding="utf-8")


def _atheris(door: str, made: str, arguments: list[str]) -> None:
    import atheris

    logging.disable(logging.CRITICAL)
    chosen, folder = DOORS[door], Path(made) / "work"
    folder.mkdir(exist_ok=True)
    for function in (chosen.enter, *_behind(door)):
        atheris.instrument_func(function)

    def one(data: bytes) -> None:
        chosen.enter(data, folder)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def _behind(door: str) -> list[Any]:
    """The functions whose branches count."""
    from types import FunctionType

    from grym import audio
    from grym.corpus import manifest
    from grym.worker import codec, outcome, protocol

    modules = {"protocol": (protocol, codec, outcome), "manifest": (manifest,), "audio": (audio,)}[door]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__
    ]


def _death(code: int) -> str:
    if code in {-signal.SIGALRM, -signal.SIGPROF}:
        return f"hang: not done within {DEADLINE:g} s. "
    return f"died with {signal.Signals(-code).name}. " if code < 0 else f"ended with {code}. "


def _quick() -> str | None:
    """Memory as a file system, where there is some: the disk is not what is tested."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder of its own is made in it


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def main() -> int:
    """Enter what was asked for; 1 if anything was found."""
    if sys.argv[1:2] == ["--chunk"]:
        _chunk(*sys.argv[2:7])
        return 0
    if sys.argv[1:2] == ["--atheris"]:
        _atheris(sys.argv[2], sys.argv[3], sys.argv[4:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    for door in DOORS:
        parser.add_argument(f"--{door}", type=int, default=0, metavar="COUNT", help=f"inputs for the {door}")
    parser.add_argument("--guided", type=int, default=0, metavar="SECONDS", help="with atheris, for each door")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--start", type=int, default=0, metavar="NUMBER", help="first input, to go on with a long run")
    parser.add_argument("--show", nargs=2, metavar=("DOOR", "NUMBER"), help="write one input to standard output")
    asked = parser.parse_args()
    if asked.show:
        sys.stdout.buffer.write(DOORS[asked.show[0]].make(asked.seed, int(asked.show[1])))
        return 0
    told: dict[str, Any] = {}
    for door in DOORS:
        if count := getattr(asked, door):
            told[door] = run(door, count, seed=asked.seed, start=asked.start).told()
        if asked.guided:
            told[f"{door}, guided"] = guided(door, asked.guided)
    print(json.dumps({"seed": asked.seed, **told}, indent=1))
    return 1 if any(found["findings"] for found in told.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
