"""How soon 1 000 task runs can be seen on the Prefect server, with the platform's settings and with Prefect's own.

Task states travel as events; a recorder on the server writes them down. By
default it writes one task run at a time, ``flows/_prefect/process.py`` sets
batches. Each server is a new one on a temporary home; both run the same flow of
tasks that do nothing. Times in seconds, of one machine at one moment: the ratio
says more than either.

Run: ``python -m benchmarks.recorder`` (one JSON object; `--tasks 1000`)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parent.parent
SERVICES: Final = {"task_run_recorder": "TASK_RUN_RECORDER", "event_persister": "EVENT_PERSISTER"}
KNOBS: Final = ("batch_size", "read_batch_size", "flush_interval")
LIMIT_SECONDS: Final = 300.0
START_SECONDS: Final = 600.0  # a first start makes the database, which takes minutes on a busy machine
POLL_SECONDS: Final = 0.2  # a count is work for the server too


def default_settings() -> dict[str, str]:
    """Prefect's own values of the settings that the platform changes, as environment variables."""
    from prefect.settings import Settings

    services = Settings.model_fields["server"].annotation.model_fields["services"].annotation.model_fields  # type: ignore[union-attr]
    return {
        f"PREFECT_SERVER_SERVICES_{prefix}_{knob.upper()}": str(services[name].annotation.model_fields[knob].default)
        for name, prefix in SERVICES.items()
        for knob in KNOBS
    }


def our_settings() -> dict[str, str]:
    """The same settings as the platform sets them."""
    from flows._prefect.process import SERVER_ENV

    return {name: SERVER_ENV[name] for name in default_settings()}


def measure(tasks: int) -> dict[str, float]:
    """Start a server, run the flow, and ask until the server counts every task run.

    Args:
        tasks: how many task runs.

    Returns:
        ``flow_seconds`` of the flow itself, ``seen_seconds`` from its end until all task runs are counted, and
        ``counted`` task runs at the end.
    """
    from flows._prefect import api
    from flows.server import server

    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    with (
        tempfile.TemporaryDirectory(prefix="recorder-") as folder,
        server(Path(folder), start_seconds=START_SECONDS) as found,
    ):
        from prefect import flow, runtime, task
        from prefect.cache_policies import NO_CACHE
        from prefect.task_runners import ThreadPoolTaskRunner

        @task(cache_policy=NO_CACHE, persist_result=False)
        def nothing(number: int) -> int:
            return number

        @flow(task_runner=ThreadPoolTaskRunner(max_workers=8), persist_result=False)  # type: ignore[arg-type]
        def many() -> str:
            for future in [nothing.submit(number) for number in range(tasks)]:
                future.wait()
            return str(runtime.flow_run.id)

        started = time.perf_counter()
        run = many()
        ended = time.perf_counter()
        counted = 0
        while counted < tasks and time.perf_counter() - ended < LIMIT_SECONDS:
            counted = api.ended(found.url, run) or counted
            time.sleep(POLL_SECONDS if counted < tasks else 0)
        seen = time.perf_counter()
    return {"flow_seconds": ended - started, "seen_seconds": seen - ended, "counted": counted}


def in_process(tasks: int, settings: Mapping[str, str]) -> dict[str, float]:
    """Measure in a process of its own: Prefect reads its settings once.

    Raises:
        subprocess.CalledProcessError: the measurement failed; its last words are on standard error.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.recorder", "--one", "--tasks", str(tasks)],
        cwd=ROOT, env={**clean, **settings}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(tasks: int) -> dict[str, Any]:
    """Both settings, one after the other, and how many times sooner the platform's are seen."""
    settings = {"ours": our_settings(), "defaults": default_settings()}
    measured = {name: in_process(tasks, chosen) for name, chosen in settings.items()}
    ratio = measured["defaults"]["seen_seconds"] / measured["ours"]["seen_seconds"]
    return {
        "benchmark": "recorder",
        "task_runs": tasks,
        **{name: {**measured[name], "settings": chosen} for name, chosen in settings.items()},
        "ratio": ratio,
        "ratio_is_a_lower_bound": measured["defaults"]["counted"] < tasks,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000, help="how many task runs")
    parser.add_argument("--one", action="store_true", help="with the settings of the environment only")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.tasks) if arguments.one else compare(arguments.tasks)))


if __name__ == "__main__":
    main()
