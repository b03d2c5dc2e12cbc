"""Answers while a model fails: one of two models failing always, a primary that hangs, and what a breaker costs.

Real worker processes with the scripted fake model. Milliseconds; ``run`` gives
everything as a dict, ``measure`` the figures beside what was promised.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from statistics import quantiles
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.figures import Figure, median
from grym._resilience_settings import BreakerSettings, Fallback, RouteSettings
from grym.config import ModelSpec, Paths, Settings, WorkerLimits
from grym.errors import UnavailableError, WorkerError
from grym.models.interface import AudioClip, Options
from grym.resilience.breaker import Breakers
from grym.resilience.opening import open_route
from grym.resilience.state import States
from grym.store import Store
from grym.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

REQUESTS = 10_000
HANGS = 20
MOST_BUSY = 200
DEADLINE = 0.25
CLIP = AudioClip("clip", np.zeros(8000, np.float32), 16_000)
FAILS = {"*": {"do": "raise", "category": "worker", "code": "down", "retryable": True}}
HANGING = {"*": {"do": "hang"}}
ANSWERS = {"*": "one two"}


def run(folder: Path, requests: int = REQUESTS, hangs: int = HANGS) -> dict[str, Any]:
    """Measure everything; values of JSON.

    Args:
        folder: an empty one.
        requests: with the primary failing always.
        hangs: requests with the primary hanging, each with a breaker that is closed.
    """
    return {
        **_failing(folder / "failing", requests),
        **_hanging(folder / "hanging", hangs),
        **_breaker(folder / "breaker"),
    }


def measure(folder: Path) -> Iterator[Figure]:
    """The figures, with what was promised."""
    found = run(folder)
    share = 100 * found["answered"] / found["requests"]
    yield Figure("resilience: requests answered, primary failing always", share, "%", 99.9, detail=found)
    yield Figure("resilience: requests not answered", 100 - share, "%", 0.1, "at most")
    yield Figure("resilience: added latency p95, breaker open", found["added_ms_p95"], "ms", 5, "at most")
    yield Figure("resilience: latest failover after a deadline", found["late_ms_max"], "ms", 50, "at most")
    yield Figure("resilience: a closed breaker around a call", found["closed_us"] / 1000, "ms")
    yield Figure("resilience: a refusal of an open breaker", found["open_us"] / 1000, "ms")


def _settings(home: Path, primary: dict[str, Any], breaker: BreakerSettings, deadline: float) -> Settings:
    def spec(name: str, script: dict[str, Any]) -> ModelSpec:
        return ModelSpec(name=name, adapter="fake", options={"script": json.dumps(script)}, breaker=breaker)

    route = RouteSettings(
        name="route", primary="a", fallbacks=(Fallback(model="b"),), deadline_seconds=deadline, budget_seconds=30
    )
    return Settings(
        root=home,
        paths=Paths(home=home),
        worker=WorkerLimits(threads=1),
        models={"a": spec("a", primary), "b": spec("b", ANSWERS)},
        routes={"route": route},
    )


def _failing(home: Path, requests: int) -> dict[str, Any]:
    """Every request answered although the primary never is; what the way through the route costs beside one call."""
    settings = _settings(home, FAILS, BreakerSettings(), 5.0)
    alone, through, statuses = [], [], []
    with Worker(settings.model("b"), settings.worker, home / "alone") as worker, open_route(settings, "route") as route:
        for _ in range(50):
            worker.process([CLIP], Options())
            route.ask([CLIP])
        for number in range(requests):
            if number % 5 == 0:  # in turns, so that a busy machine is as busy for both
                started = time.perf_counter()
                worker.process([CLIP], Options())
                alone.append(1e3 * (time.perf_counter() - started))
            started = time.perf_counter()
            (served,) = route.ask([CLIP])
            took = 1e3 * (time.perf_counter() - started)
            statuses.append(served.answer.error is None)
            if served.refused and served.refused[0].code == "breaker-open":
                through.append(took)
    rows = Store(home).read("requests")
    return {
        "requests": requests,
        "answered": sum(statuses),
        "rows": rows.height - 50,
        "breaker_open": len(through),
        "direct_ms_p50": round(median(alone), 3),
        "direct_ms_p95": round(_p95(alone), 3),
        "route_ms_p50": round(median(through), 3),
        "route_ms_p95": round(_p95(through), 3),
        "added_ms_p50": round(median(through) - median(alone), 3),
        "added_ms_p95": round(_p95(through) - _p95(alone), 3),
    }


def _hanging(home: Path, hangs: int) -> dict[str, Any]:
    """How much later than the deadline the fallback is asked."""
    breaker = BreakerSettings(max_failures=10_000, max_errors=10_000)
    settings = _settings(home, HANGING, breaker, DEADLINE)
    late, busy = [], 0
    with open_route(settings, "route") as route:
        route.ask([CLIP])
        while len(late) < hangs and busy < MOST_BUSY:
            (served,) = route.ask([CLIP])
            if served.refused[0].code == "deadline":
                late.append(1e3 * (served.lost_seconds - DEADLINE))
            else:  # its process is still being started again, so it was passed over at once
                busy += 1
                time.sleep(DEADLINE)
    return {
        "hangs": len(late),
        "passed_over": busy,
        "deadline_ms": 1e3 * DEADLINE,
        "late_ms_p50": round(median(late), 3),
        "late_ms_max": round(max(late), 3),
    }


def _breaker(home: Path) -> dict[str, Any]:
    """Microseconds that a breaker adds to a call, closed, and that its refusal takes, open."""
    states = States(home)
    breakers = Breakers(states, {})

    def down() -> None:
        message = "It is down."
        raise WorkerError(message)

    closed = [_microseconds(lambda: breakers.call("a", "process_audio", int)) for _ in range(2000)]
    for _ in range(5):
        _microseconds(lambda: breakers.call("a", "process_audio", down))
    refused = [_microseconds(lambda: breakers.call("a", "process_audio", int)) for _ in range(2000)]
    states.close()
    return {"closed_us": round(median(closed), 1), "open_us": round(median(refused), 1)}


def _microseconds(call: Any) -> float:
    started = time.perf_counter()
    with suppress(UnavailableError, WorkerError):
        call()
    return 1e6 * (time.perf_counter() - started)


def _p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20)[-1]


if __name__ == "__main__":
    import tempfile
    from pathlib import Path as _Path

    with tempfile.TemporaryDirectory(prefix="grym-bench-resilience-") as made:
        print(json.dumps(run(_Path(made)), indent=1))
