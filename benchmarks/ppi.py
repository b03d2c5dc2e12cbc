"""Measures prediction-powered error rates: how often the interval covers the truth, and how narrow it is.

A named, seeded generator makes calls; every replicate is analysed from its counts as live calls would be. Rates stand
with exact 95 % bounds (Clopper and Pearson).

    python -m benchmarks.ppi            # a few minutes; REPLICATES=1000 for a tenth
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.figures import FULL, QUICK, Figure, rate, share
from grym.experiment.ppi import live_rate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED: Final = 20261120
GENERATOR: Final = (
    "calls-gamma: a call has 1 + Poisson(10) words and a difficulty, gamma with mean 1 and shape 0.6, times its "
    "speaker's, log-normal with sd 0.3, where there are speakers; a word is wrong with probability 0.10 times the "
    "difficulty; the second model errs on a third or more of the same words, in two of five cases with the same "
    "answer, and on others with probability 0.08 times the difficulty; a useless prediction is shuffled over calls; "
    "calls-rare: 2000 calls of 10 words, 200 labelled; a word is wrong with the probability named, times a "
    "difficulty of the call as above where errors come in clumps; the second model errs on four of ten of the same "
    "words and on others with probability 0.02"
)


@dataclass(frozen=True, slots=True)
class Case:
    """One setting: calls, how many are labelled, speakers (0: calls are independent), whether predictions help."""

    name: str
    calls: int
    labelled: int
    speakers: int = 0
    useless: bool = False


CASES: Final = (
    Case("100 of 2000", 2000, 100),
    Case("300 of 5000", 5000, 300),
    Case("300 of 5000, 40 speakers", 5000, 300, speakers=40),
    Case("300 of 5000, useless prediction", 5000, 300, useless=True),
)


@dataclass(frozen=True, slots=True)
class Rare:
    """A setting with few errors: the error rate, and whether they come in clumps."""

    wer: float
    clumped: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"200 of 2000, WER {100 * self.wer:g} %{', in clumps' if self.clumped else ''}"


RARE: Final = tuple(Rare(wer, clumped) for clumped in (False, True) for wer in (0.0005, 0.002, 0.01))


def run(replicates: int = FULL) -> dict[str, Any]:
    """Coverage and width in every case, as JSON can say it."""
    cases = {case.name: _measure(case, replicates) for case in CASES}
    rare = {case.name: _measure_rare(case, replicates) for case in RARE}
    return {"seed": SEED, "generator": GENERATOR, "confidence": 0.95, "cases": cases, "rare": rare}


def measure(folder: Path, *, quick: bool = False) -> Iterator[Figure]:  # noqa: ARG001 - nothing is written
    """Coverage, and how much narrower the interval is than that of the labels alone."""
    done = run(QUICK if quick else FULL)
    for name, found in done["rare"].items():
        label = f"error rate without labels, {name}: covered"
        yield from rate(label, found["coverage"], at_least=0.93, full=not quick)
    for name, found in done["cases"].items():
        label = f"error rate without labels, {name}"
        yield from rate(f"{label}: covered", found["coverage"], at_least=0.93, at_most=0.97, full=not quick)
        most = 1.0 if "useless" in name else 0.95
        ratio = found["median_of_width_ratios"]
        yield Figure(f"{label}: width against labels alone", ratio, "", most, "at most", detail=found)


def _measure(case: Case, replicates: int) -> dict[str, Any]:
    truth = _truth(speakers=bool(case.speakers))
    found = np.array([_replicate(case, np.random.default_rng([SEED, case.calls, k]), truth) for k in range(replicates)])
    covered, alone, width, width_alone, worth = found.T
    return {
        "truth": round(truth, 5),
        "coverage": share(covered),
        "coverage_labels_only": share(alone),
        "mean_width": round(float(width.mean()), 5),
        "mean_width_labels_only": round(float(width_alone.mean()), 5),
        "median_of_width_ratios": round(float(np.median(width / width_alone)), 4),
        "median_labels_worth": round(float(np.median(worth)), 1),
    }


def _measure_rare(case: Rare, replicates: int) -> dict[str, Any]:
    found = np.array([_rare_replicate(case, np.random.default_rng([SEED, k])) for k in range(replicates)])
    covered, alone, width, empty = found.T
    return {
        "truth": case.wer,
        "coverage": share(covered),
        "coverage_labels_only": share(alone),
        "median_width": round(float(np.median(width)), 5),
        "without_a_labelled_error": round(float(empty.mean()), 4),
    }


def _rare_replicate(case: Rare, rng: np.random.Generator) -> tuple[float, ...]:
    words = np.full(2000, 10)
    difficulty = rng.gamma(0.6, 1 / 0.6, 2000) if case.clumped else np.ones(2000)
    errors = rng.binomial(words, np.clip(case.wer * difficulty, 0, 0.9)).astype(float)
    proxy = rng.binomial(errors.astype(int), 0.4) + rng.binomial(words, 0.02)
    known = np.arange(2000) < 200  # noqa: PLR2004 - as the name of the case says
    found = live_rate(np.where(known, errors, np.nan), np.where(known, words, np.nan), proxy, words)
    ends = [(rate.low or 0.0, rate.high or 0.0) for rate in (found.estimate, found.labels_only)]
    hits = [float(low <= case.wer <= high) for low, high in ends]
    return (*hits, ends[0][1] - ends[0][0], float(errors[known].sum() == 0))


def _replicate(case: Case, rng: np.random.Generator, truth: float) -> tuple[float, ...]:
    errors, words, proxy_errors, proxy_words, speaker = _calls(case.calls, case.speakers, rng)
    if case.useless:
        order = rng.permutation(case.calls)
        proxy_errors, proxy_words = proxy_errors[order], proxy_words[order]
    errors[case.labelled :] = words[case.labelled :] = np.nan
    units = [str(label) for label in speaker.tolist()] if case.speakers else None
    found = live_rate(errors, words, proxy_errors, proxy_words, units=units)
    both, alone = found.estimate, found.labels_only
    ends = [(rate.low or 0.0, 1.0 if rate.high is None else rate.high) for rate in (both, alone)]
    hits = [float(low <= truth <= high) for low, high in ends]
    return (*hits, ends[0][1] - ends[0][0], ends[1][1] - ends[1][0], found.worth)


def _calls(count: int, speakers: int, rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], ...]:
    words = 1 + rng.poisson(10, count)
    speaker = rng.integers(0, max(1, speakers), count)
    difficulty = rng.gamma(0.6, 1 / 0.6, count)
    if speakers:
        difficulty = difficulty * np.exp(rng.normal(-(0.3**2) / 2, 0.3, speakers))[speaker]
    errors = rng.binomial(words, np.clip(0.10 * difficulty, 0, 0.9))
    both = rng.binomial(errors, np.clip(0.35 + 0.1 * difficulty, 0, 0.8))
    alike = rng.binomial(both, 0.4)
    other = rng.binomial(words - errors, np.clip(0.08 * difficulty, 0, 0.9))
    heard = np.maximum(words + rng.integers(-1, 2, count), 0)
    return errors.astype(float), words.astype(float), (errors - alike + other).astype(float), heard, speaker


def _truth(*, speakers: bool) -> float:
    """Errors per word of the generator: words do not depend on difficulty, so it is the mean chance of an error."""
    rng = np.random.default_rng([SEED, 0])
    difficulty = rng.gamma(0.6, 1 / 0.6, 8_000_000)
    if speakers:
        difficulty *= np.exp(rng.normal(-(0.3**2) / 2, 0.3, difficulty.size))
    return float(np.clip(0.10 * difficulty, 0, 0.9).mean())


if __name__ == "__main__":
    print(json.dumps(run(int(os.environ.get("REPLICATES", FULL))), indent=1))
