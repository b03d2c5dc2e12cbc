"""Measures how often live experiments are wrong when they are looked at all the time.

Equal arms from named, seeded generators are looked at up to 200 times; what counts is whether any look finds a
difference. Each rate stands with the number of replicates behind it and the exact bounds of Clopper and Pearson
(``at_most``: one-sided, 95 %). One thread, no models, no files.

    OMP_NUM_THREADS=1 python -m benchmarks.live_rates [NAME…]   # two minutes of one core; REPLICATES=1000 for a tenth
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.stats import norm

from benchmarks.figures import FULL, QUICK, Figure, rate, share
from grym.experiment import srm
from grym.experiment.cuped import Contrast, contrast
from grym.experiment.effects import EARLY
from grym.experiment.moments import Moments
from grym.experiment.quantiles import quantile_of
from grym.experiment.ratio import linear
from grym.experiment.sequential import MIN_UNITS, multiplier, p_value, planned_time, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from grym.experiment.config import Kind

    Floats = NDArray[np.float64]
    Draw = Callable[[np.random.Generator, int, int], Moments]  # replicates, units -> moments of a batch

SEED: Final = 20261120
ALPHA: Final = 0.05
LOOKS: Final = 200
STEP: Final = 5  # units of the smaller arm between looks
PLANNED: Final = MIN_UNITS + (LOOKS - 1) * STEP
BLOCK: Final = 250  # replicates at a time: what fits into memory
FLIPS: Final = 20_000


def _normal(rng: np.random.Generator, rows: int, n: int) -> Moments:
    """Sums of normal values need no values: sum and squares about the mean are independent."""
    total = n + np.sqrt(n) * rng.standard_normal((rows, _batches(n)))
    squares = rng.chisquare(n - 1, total.shape) + total**2 / n
    return _plain(total, squares, n)


def _lognormal(sd: float) -> Draw:
    def draw(rng: np.random.Generator, rows: int, n: int) -> Moments:
        values = np.exp(np.float32(sd) * rng.standard_normal((rows, _batches(n), n), dtype=np.float32))
        return _plain(values.sum(axis=-1, dtype=float), np.square(values).sum(axis=-1, dtype=float), n)

    return draw


def _happened(rate: float) -> Draw:
    def draw(rng: np.random.Generator, rows: int, n: int) -> Moments:
        events = rng.binomial(n, rate, (rows, _batches(n))).astype(float)
        return _plain(events, events, n)

    return draw


def _wer(rng: np.random.Generator, rows: int, n: int) -> Moments:
    rate = rng.gamma(2.0, 0.05, (rows, _batches(n), n))
    words = 5.0 + rng.poisson(20, rate.shape)
    return Moments.from_arrays(rng.poisson(rate * words), words, rate + 0.03 * rng.standard_normal(rate.shape))


# Draws, kind, what they are, units of the smaller arm between looks, ratios of the arms.
GENERATORS: Final[dict[str, tuple[Draw, Kind, str, int, tuple[int, ...]]]] = {
    "normal": (_normal, "mean", "normal, mean 1, sd 1", STEP, (1, 9)),
    "rare 1 %": (_happened(0.01), "proportion", "Bernoulli, 0.01", 50, (1, 9)),
    "rare 0.1 %": (_happened(0.001), "proportion", "Bernoulli, 0.001", 500, (1, 9)),
    "lognormal": (_lognormal(1.0), "mean", "log-normal, sd 1 of the logarithm (skewness 6)", STEP, (1, 9)),
    "heavy": (_lognormal(2.0), "mean", "log-normal, sd 2 of the logarithm (skewness 414)", STEP, (1,)),
    "wer": (
        _wer,
        "ratio",
        (
            "errors per word: 5 + Poisson(20) words to a unit, errors Poisson around the unit's own rate, "
            "gamma(2, 0.05); the covariate is that rate plus normal noise of sd 0.03 (CUPED)"
        ),
        STEP,
        (1,),
    ),
}


def peeking(replicates: int = FULL) -> Iterator[tuple[str, Any]]:
    """False positives of 200 looks, the first at the minimum, the last at the plan."""
    for name, (_, _, text, step, ratios) in GENERATORS.items():
        for odds in ratios:
            hits = _any_difference(name, replicates, odds)
            label = f"{name}, {'50:50' if odds == 1 else '90:10'}"
            yield label, {"generator": text, "looks": LOOKS, "planned_units": _size(step), **share(hits)}
    hits = _any_difference("normal", replicates, 1, planned=MIN_UNITS)
    yield "normal, 50:50, planned to end at the minimum, looked at for ten times as long", share(hits)


def _any_difference(name: str, replicates: int, odds: int, planned: int = 0) -> list[bool]:
    """Whether any look finds a difference, for every replicate; the first arm is ``odds`` times as large."""
    draw, kind, _, step, _ = GENERATORS[name]
    planned = planned or _size(step)
    hits: list[bool] = []
    for rng, rows in _blocks(replicates, [*name.encode(), odds, planned]):
        arms = [_looks(draw, rng, rows, step, times) for times in (odds, 1)]
        found = contrast(*(linear(arm, kind) for arm in arms), adjust=name == "wer")
        part = progress(arms[0].n, arms[1].n, float(planned * odds), float(planned))
        hits += (_p(found, part) < ALPHA).any(axis=1).tolist()
    return hits


def _looks(draw: Draw, rng: np.random.Generator, rows: int, step: int, times: int = 1) -> Moments:
    """Moments at every look, ``shape = (replicates, looks)``: the minimum first, then ``step`` units more at a time."""
    first, rest = draw(rng, rows, MIN_UNITS * times), draw(rng, rows, step * times)
    columns = []
    for field in fields(Moments):
        head, tail = np.asarray(getattr(first, field.name)), np.asarray(getattr(rest, field.name))
        columns.append(np.cumsum(np.concatenate([head[:, :1], tail[:, 1:]], axis=1), axis=1))
    return Moments(*columns)


def quantile(replicates: int = FULL) -> Iterator[tuple[str, Any]]:
    """False positives of the p95 of three latencies to a unit, five looks from 200 to 1000 units per arm."""
    looks, planned, values = range(200, 1001, 200), 1000, 3
    hits: list[bool] = []
    for rng, rows in _blocks(replicates, [95]):
        own = rng.standard_normal((rows, 2, planned, 1))
        seconds = np.exp(-2 + 0.3 * own + 0.4 * rng.standard_normal((rows, 2, planned, values)))
        hits += [any(_quantile_p(pair[:, :n], n / planned) < ALPHA for n in looks) for pair in seconds]
    text = "three latencies to a unit, log-normal: sd 0.3 between units, 0.4 within; five looks"
    yield "p95", {"generator": text, "planned_units": planned, **share(hits)}


def _quantile_p(pair: Floats, part: float) -> float:
    units = np.repeat(np.arange(pair.shape[1]), pair.shape[2])
    found = contrast(*(quantile_of(arm.ravel(), 0.95, units).linear() for arm in pair))
    return 1.0 if np.isnan(found.variance) else float(_p(found, np.asarray(part)))


def guardrail(replicates: int = FULL) -> Iterator[tuple[str, Any]]:
    """With a harm of exactly the margin: how often a guardrail is called broken, how often held, in 200 looks."""
    broken: list[bool] = []
    held: list[bool] = []
    for rng, rows in _blocks(replicates, [7]):
        z, part = _scores(rng, rows)
        time = part * planned_time(ALPHA, 1)
        broken += (np.asarray(p_value(z, time / EARLY, 1)) < ALPHA).any(axis=1).tolist()
        held += (np.asarray(p_value(-z, time, 1)) < ALPHA).any(axis=1).tolist()
    yield "broken", share(broken)
    yield "held", share(held)


def power(replicates: int = FULL) -> Iterator[tuple[str, Any]]:
    """How often the effect that was planned for with power 0.8 is found by the planned end, and how early."""
    effect = float(multiplier(planned_time(ALPHA), ALPHA)) + float(norm.ppf(0.8))  # in standard errors at the end
    stops: list[float] = []
    for rng, rows in _blocks(replicates, [8]):
        z, part = _scores(rng, rows)
        hit = np.asarray(p_value(z + effect * np.sqrt(part), part * planned_time(ALPHA))) < ALPHA
        stops += np.where(hit.any(axis=1), part[0, hit.argmax(axis=1)], np.inf).tolist()
    yield "found", share([stop <= 1 for stop in stops])
    yield "median_part_of_the_plan", float(np.median(stops))


def _scores(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """Differences of equal normal arms in standard errors, and parts of the plan."""
    arms = [_looks(_normal, rng, rows, STEP) for _ in range(2)]
    found = contrast(*(linear(arm, "mean") for arm in arms))
    part = progress(arms[0].n, arms[1].n, PLANNED, PLANNED)
    return np.asarray(found.delta / np.sqrt(found.variance)), np.asarray(part)


def width(replicates: int = 0) -> Iterator[tuple[str, Any]]:  # noqa: ARG001 - nothing is drawn
    """Widths, in those of an interval that may be looked at once, by the part of the plan."""
    once = float(norm.ppf(1 - ALPHA / 2))
    for part in (0.1, 0.25, 0.5, 1.0, 2.0, 4.0):
        yield f"{part:g} of the plan", round(float(multiplier(part * planned_time(ALPHA), ALPHA)) / once, 4)


def mismatch(replicates: int = FULL) -> Iterator[tuple[str, Any]]:
    """False alarms of the sample ratio over 100 looks, and how soon a mismatch is found."""
    for shares, units in (((0.5, 0.5), 20), ((0.5, 0.5), 1000), ((0.9, 0.1), 100), ((0.4, 0.4, 0.2), 100)):
        hits: list[bool] = []
        for rng, rows in _blocks(replicates, [units, *(int(100 * part) for part in shares)]):
            counts = np.cumsum(rng.multinomial(units, shares, (rows, 100)), axis=1)
            hits += (srm.p_values(counts, shares) < srm.ALPHA).any(axis=1).tolist()
        yield f"{':'.join(f'{100 * part:g}' for part in shares)}, 100 looks of {units} units", share(hits)
    for actual in (0.52, 0.51, 0.505):
        rng = np.random.default_rng([SEED, int(1000 * actual)])
        counts = np.cumsum(rng.multinomial(1000, (actual, 1 - actual), (200, 500)), axis=1)
        alarm = srm.p_values(counts, (0.5, 0.5)) < srm.ALPHA
        looks = np.where(alarm.any(axis=1), alarm.argmax(axis=1) + 1, 501)
        yield f"median units until {100 * actual:g}:{100 - 100 * actual:g} is found", int(np.median(looks)) * 1000


def flips(replicates: int = 0) -> Iterator[tuple[str, Any]]:  # noqa: ARG001 - 20 000 were promised
    """Verdicts that depend on the display: in the metric's unit, as a fraction, as a logarithm; and a usual engine's.

    The usual relative interval takes the error of the ratio by the delta method at the estimate.
    """
    rng = np.random.default_rng([SEED, 9])
    effect = rng.normal(0, 0.5, (FLIPS, 1))
    arms = [Moments.from_arrays(rng.standard_exponential((FLIPS, 200)) + part * effect) for part in (0, 1)]
    found = contrast(*(linear(arm, "mean") for arm in arms))
    time, delta = planned_time(ALPHA), np.asarray(found.delta)
    reach = float(multiplier(time, ALPHA)) * np.sqrt(found.variance)
    low, high = (np.asarray(edge) for edge in found.relative(float(multiplier(time, ALPHA))))
    absolute = (delta - reach > 0) | (delta + reach < 0)
    shown, logged = np.isfinite(low), low > -1
    logs = [np.log1p(np.where(logged, edge, 0.0)) for edge in (low, high)]
    tested = np.asarray(p_value(delta / np.sqrt(found.variance), time)) < ALPHA
    ratio = np.asarray(found.treatment) / found.control
    once = np.sqrt(found.variance - found.square + ratio**2 * found.square) / np.abs(found.control)
    usual = np.abs(ratio - 1) > float(multiplier(time, ALPHA)) * once
    different = [
        absolute != tested,
        (absolute != ((low > 0) | (high < 0)))[shown],
        (absolute != ((logs[0] > 0) | (logs[1] < 0)))[logged],
    ]
    yield "data_sets", FLIPS
    yield "significant", int(absolute.sum())
    yield "relative_shown", int(shown.sum())
    yield "log_shown", int(logged.sum())
    yield "flips", sum(int(which.sum()) for which in different)
    yield "flips_of_the_delta_method", int((absolute != usual).sum())


PARTS: Final[dict[str, Callable[[int], Iterator[tuple[str, Any]]]]] = {
    "width": width,
    "flips": flips,
    "peeking": peeking,
    "srm": mismatch,
    "guardrail": guardrail,
    "power": power,
    "quantile": quantile,
}


def run(replicates: int = FULL, names: list[str] | None = None) -> dict[str, Any]:
    """Everything, or the named parts, as JSON can say it; each number is noted on stderr as soon as it is known."""
    found: dict[str, Any] = {"seed": SEED, "alpha": ALPHA, "minimum_units_per_arm": MIN_UNITS}
    started = time.process_time()
    for name in names or PARTS:
        found[name] = {}
        for label, value in PARTS[name](replicates):
            found[name][label] = value
            said = f"{time.process_time() - started:7.1f} s  {name}: {label}: {json.dumps(value)}"
            print(said, file=sys.stderr, flush=True)
    return found


def measure(folder: Path, *, quick: bool = False) -> Iterator[Figure]:  # noqa: ARG001 - nothing is written
    """What was promised of live decisions: peeking, width, sample ratio, display, guardrails."""
    found, full = run(QUICK if quick else FULL), not quick
    for name, rates in found["peeking"].items():
        yield from rate(f"peeking, {name}", rates, at_most=ALPHA, full=full)
    for name, rates in found["quantile"].items():
        yield from rate(f"peeking, {name}", rates, at_most=ALPHA, full=full)
    yield Figure("width at the planned n against one look", found["width"]["1 of the plan"], "", 1.6, "at most")
    for name, rates in found["srm"].items():
        if isinstance(rates, dict):
            yield from rate(f"sample ratio, false alarms, {name}", rates, at_most=srm.ALPHA, full=full)
        else:
            yield Figure(f"sample ratio, {name}", rates, "units")
    shown = found["flips"]
    yield Figure("flips between display units", shown["flips"], f"of {FLIPS}", 0, "at most", detail=shown)
    for name, rates in found["guardrail"].items():
        yield from rate(f"guardrail called {name} at its margin", rates, at_most=ALPHA, full=full)
    yield from rate("planned effect found by the plan", found["power"]["found"], at_least=0.8, full=full)


def _plain(total: Floats, squares: Floats, n: int) -> Moments:
    """Moments without weights and covariates."""
    count = np.full_like(total, n)
    nothing = np.zeros_like(total)
    return Moments(count, total, count, nothing, squares, count, nothing, total, nothing, nothing)


def _p(found: Contrast, part: Any) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.asarray(found.delta) / np.sqrt(found.variance)
    return np.asarray(p_value(z, np.asarray(part) * planned_time(ALPHA)))


def _batches(n: int) -> int:
    """How many batches of a size are drawn: the first look needs one, the others one each."""
    return 1 if n % MIN_UNITS == 0 and n // MIN_UNITS in {1, 9} else LOOKS


def _size(step: int) -> int:
    return MIN_UNITS + (LOOKS - 1) * step


def _blocks(replicates: int, key: list[int]) -> Iterator[tuple[np.random.Generator, int]]:
    """A generator of its own and a number of rows for each block."""
    for start in range(0, replicates, BLOCK):
        yield np.random.default_rng([SEED, start, *key]), min(BLOCK, replicates - start)


if __name__ == "__main__":
    print(json.dumps(run(int(os.environ.get("REPLICATES", FULL)), sys.argv[1:]), indent=1))
