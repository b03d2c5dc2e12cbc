"""Measures the statistics of comparisons: speed, false positives, coverage.

Knows nothing about models. Rates come from named, seeded generators and stand
with the number of data sets behind them and the exact 95 % bounds of Clopper and
Pearson. One thread; times are the best and the median of seven, of the wall and of the process: on a busy machine
the wall says more about the others.

    OMP_NUM_THREADS=1 python -m benchmarks.statistics

Run it as a module: as a file it would hide Python's own ``statistics``.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import betaincinv

from grym.compare.alignment import align
from grym.compare.bootstrap import cluster_bootstrap
from grym.compare.clustered import Sums, delta_of
from grym.compare.verdict import verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable

SEED: Final = 20261120
DATA_SETS: Final = 10_000
WER: Final = 0.10
GENERATOR: Final = (
    "speakers-lognormal: each speaker has 10 to 40 clips (uniform) of 1 + Poisson(10) words; each system has a WER of "
    "its own for each speaker, log-normal around the system's mean with sd 0.3 of the logarithm; the errors of a clip "
    "are Poisson"
)


def run() -> dict[str, Any]:
    """Everything: a few minutes on one core."""
    return {"seed": SEED, "speed": speed(), "rates": rates()}


def speed() -> dict[str, Any]:
    """Seconds for 10 000 pairs of texts and for 10 000 bootstrap replicates of 2 640 clips of 40 speakers."""
    references, hypotheses = _texts(10_000)
    rng = np.random.default_rng(SEED)
    speaker = np.repeat(np.arange(40), 66)
    words = 1 + rng.poisson(10, speaker.size)
    errors = rng.poisson(WER * words, (2, speaker.size))

    def bootstrap() -> None:
        sums = Sums.of(errors[0], words, errors[1], words, speaker)
        cluster_bootstrap(sums, 0.95, np.random.default_rng(SEED), 10_000)

    def by_clip() -> None:
        sums = Sums.of(errors[0], words, errors[1], words, np.arange(speaker.size))
        cluster_bootstrap(sums, 0.95, np.random.default_rng(SEED), 10_000)

    return {
        "pairs": len(references),
        "reference_words": sum(map(len, references)),
        "count_seconds": _timed(lambda: int(align(references, hypotheses).errors.sum())),
        "align_seconds": _timed(lambda: align(references, hypotheses)),
        "bootstrap_40_speakers_seconds": _timed(bootstrap),
        "bootstrap_2640_clips_as_clusters_seconds": _timed(by_clip, times=3),
    }


def rates() -> dict[str, Any]:
    """False positives of equal systems, and coverage of the intervals of a real difference."""
    equal = [_trial(20, 1.0, seed) for seed in range(DATA_SETS)]
    found = {
        "generator": GENERATOR,
        "false_positives_20_speakers": {
            "verdict": _share([trial["winner"] for trial in equal]),
            "p_below_5_percent": _share([trial["significant"] for trial in equal]),
            "clips_taken_as_independent": _share([trial["naive"] for trial in equal]),
        },
    }
    for speakers in (12, 40):
        trials = [_trial(speakers, 1.2, DATA_SETS + seed, replicates=1000) for seed in range(DATA_SETS)]
        found[f"coverage_{speakers}_speakers"] = {
            "clustered_t": _share([trial["covered"] for trial in trials]),
            "cluster_bootstrap": _share([trial["bootstrap_covered"] for trial in trials]),
        }
    return found


def _trial(speakers: int, factor: float, seed: int, replicates: int = 0) -> dict[str, bool]:
    """One data set: the second system has ``factor`` times the errors of the first."""
    rng = np.random.default_rng([SEED, speakers, seed])
    speaker = np.repeat(np.arange(speakers), rng.integers(10, 41, speakers))
    words = 1 + rng.poisson(10, speaker.size)
    means = np.array([WER, WER * factor])
    wer = means[:, None] * np.exp(rng.normal(-(0.3**2) / 2, 0.3, (2, speakers)))
    errors = rng.poisson(wer[:, speaker] * words)
    sums = Sums.of(errors[0], words, errors[1], words, speaker)
    delta, truth = delta_of(sums, 0.95), WER - WER * factor
    verdict = verdict_of(delta.as_difference("speaker-clustered t"), 0.005)
    trial = {
        "winner": verdict in {"a better", "b better"},
        "significant": delta.p_value is not None and delta.p_value < 0.05,  # noqa: PLR2004 - the usual level
        "covered": delta.low is not None and delta.high is not None and delta.low <= truth <= delta.high,
    }
    if replicates:
        bootstrap = cluster_bootstrap(sums, 0.95, rng, replicates)
        low, high = bootstrap.low, bootstrap.high
        trial["bootstrap_covered"] = low is not None and high is not None and low <= truth <= high
    else:
        clips = Sums.of(errors[0], words, errors[1], words, np.arange(speaker.size))
        trial["naive"] = (delta_of(clips, 0.95).p_value or 0.0) < 0.05  # noqa: PLR2004 - the usual level
    return trial


def _texts(count: int) -> tuple[list[list[str]], list[list[str]]]:
    """Random texts of about 12 words with 10 % errors."""
    rng = np.random.default_rng(SEED)
    vocabulary = [f"w{i}" for i in range(3000)]
    references, hypotheses = [], []
    for length in (1 + rng.poisson(10.7, count)).tolist():
        words = [vocabulary[i] for i in rng.integers(0, len(vocabulary), length).tolist()]
        answer: list[str] = []
        for word, dice in zip(words, rng.random(length).tolist(), strict=True):
            if dice < 0.06:  # noqa: PLR2004 - 6 % substitutions, then 2 % deletions, then 2 % insertions
                answer.append("wrong")
            elif dice >= 0.08:  # noqa: PLR2004
                answer += [word, "more"] if dice < 0.1 else [word]  # noqa: PLR2004
        references.append(words)
        hypotheses.append(answer)
    return references, hypotheses


def _timed(work: Callable[[], object], times: int = 7) -> dict[str, float]:
    wall, process = [], []
    for _ in range(times):
        start = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start[0])
        process.append(time.process_time() - start[1])
    found = {"best": min(wall), "median": float(np.median(wall)), "process_best": min(process)}
    return {name: round(seconds, 4) for name, seconds in found.items()}


def _share(hits: list[bool]) -> dict[str, float]:
    """Rate with its two-sided 95 % Clopper-Pearson bounds, and the one-sided upper 95 % bound."""
    count, total = sum(hits), len(hits)
    bounds = {
        "low": float(betaincinv(count, total - count + 1, 0.025)) if count else 0.0,
        "high": float(betaincinv(count + 1, total - count, 0.975)) if count < total else 1.0,
        "at_most": float(betaincinv(count + 1, total - count, 0.95)) if count < total else 1.0,
    }
    return {"rate": count / total, "data_sets": total, **{name: round(value, 5) for name, value in bounds.items()}}


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
