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
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.figures import FULL, QUICK, Figure, rate, share
from grym.compare.alignment import align
from grym.compare.bootstrap import cluster_bootstrap
from grym.compare.clustered import Sums, delta_of
from grym.compare.verdict import verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SEED: Final = 20261120
WER: Final = 0.10
GENERATOR: Final = (
    "speakers-lognormal: each speaker has 10 to 40 clips (uniform) of 1 + Poisson(10) words; each system has a WER of "
    "its own for each speaker, log-normal around the system's mean with sd 0.3 of the logarithm; the errors of a clip "
    "are Poisson"
)


def run() -> dict[str, Any]:
    """Everything: a few minutes on one core."""
    return {"seed": SEED, "speed": speed(), "rates": rates()}


def measure(folder: Path, *, quick: bool = False) -> Iterator[Figure]:
    """What was promised of offline comparisons: speed, false positives, coverage."""
    fast = speed()
    promised = {"count": ("10 000 pairs counted", 0.1), "align": ("10 000 pairs aligned", 0.3)}
    promised["bootstrap_40_speakers"] = ("10 000 draws of 2 640 clips of 40 speakers", 0.1)
    for name, (label, promise) in promised.items():
        seconds = fast[f"{name}_seconds"]
        yield Figure(label, seconds["best"], "s", promise, "at most", detail=seconds)
    clips = fast["bootstrap_2640_clips_as_clusters_seconds"]
    yield Figure("10 000 draws of 2 640 clips, each its own cluster", clips["best"], "s", detail=clips)
    seconds = report_seconds(folder)
    yield Figure("report: 2 models, 2 640 clips, 20 slices", seconds["best"], "s", 5, "at most", detail=seconds)
    found, full = rates(QUICK if quick else FULL), not quick
    false = found["false_positives_20_speakers"]
    yield from rate("false positives, default verdict", false["verdict"], at_least=0.04, at_most=0.06, full=full)
    yield from rate("false positives, clips as independent", false["clips_taken_as_independent"], full=full)
    for speakers in (12, 40):
        for method, said in found[f"coverage_{speakers}_speakers"].items():
            label = f"coverage, {speakers} speakers, {method.replace('_', ' ')}"
            yield from rate(label, said, at_least=0.93, at_most=0.97, full=full)


def report_seconds(folder: Path) -> dict[str, float]:
    """From three files to the page: all pairs of tests, evidence, 20 slices."""
    from grym.compare.scoreboard import Rules, score_files
    from reports.scoreboard import render_scoreboard

    references, hypotheses = _texts(2_640)
    others = _texts(2_640, seed=SEED + 1, given=references)[1]
    rows = [{"id": f"s{i % 40:02d}-{i:05d}", "speaker": f"s{i % 40:02d}"} for i in range(len(references))]
    columns = {"level": 5, "place": 5, "length": 5, "device": 5}
    rng = np.random.default_rng(SEED)
    slices = [{name: f"{name}{rng.integers(0, values)}" for name, values in columns.items()} for _ in rows]
    said = {"ref": references, "a": hypotheses, "b": others}
    for name, texts in said.items():
        lines = ({**row, **more, "text": " ".join(text)} for row, more, text in zip(rows, slices, texts, strict=True))
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

    def whole() -> None:
        files = {name: folder / f"{name}.jsonl" for name in "ab"}
        board = score_files(folder / "ref.jsonl", files, Rules(by=list(columns)), evidence=True)
        render_scoreboard(board, folder / "report.html")

    return _timed(whole, times=3)


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


def rates(data_sets: int = FULL) -> dict[str, Any]:
    """False positives of equal systems, and coverage of the intervals of a real difference."""
    equal = [_trial(20, 1.0, seed) for seed in range(data_sets)]
    found = {
        "generator": GENERATOR,
        "false_positives_20_speakers": {
            "verdict": share([trial["winner"] for trial in equal]),
            "p_below_5_percent": share([trial["significant"] for trial in equal]),
            "clips_taken_as_independent": share([trial["naive"] for trial in equal]),
        },
    }
    for speakers in (12, 40):
        trials = [_trial(speakers, 1.2, FULL + seed, replicates=1000) for seed in range(data_sets)]
        found[f"coverage_{speakers}_speakers"] = {
            "clustered_t": share([trial["covered"] for trial in trials]),
            "cluster_bootstrap": share([trial["bootstrap_covered"] for trial in trials]),
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


def _texts(
    count: int, *, seed: int = SEED, given: Sequence[list[str]] | None = None
) -> tuple[list[list[str]], list[list[str]]]:
    """Random texts of about 12 words with 10 % errors; or other errors in texts that are given.

    Words are of letters, as in transcripts: the English rules split words with digits, which takes longer.
    """
    rng = np.random.default_rng(seed)
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    vocabulary = ["".join(three) for three in islice(product(syllables, repeat=3), 0, 150_000, 50)]
    references, hypotheses = [], []
    for place, length in enumerate((1 + rng.poisson(10.7, count)).tolist()):
        drawn = [vocabulary[i] for i in rng.integers(0, len(vocabulary), length).tolist()]
        words = drawn if given is None else given[place]
        answer: list[str] = []
        for word, dice in zip(words, rng.random(len(words)).tolist(), strict=True):
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


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
