"""Measures early stops: how often they are wrong, and how many clips they save.

Knows nothing about models. Every replicate is a data set of a named, seeded
generator, walked in random order and looked at after each step as a comparison
does; rates stand with the exact 95 % bounds of Clopper and Pearson. "Wrong" is a
verdict at any look that the truth of the generator forbids.

    OMP_NUM_THREADS=1 python -m benchmarks.early_stop
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.figures import FULL, QUICK, Figure, rate, share
from grym.compare.early_stop import MIN_CLIPS, MIN_DIFFERING, look, student, tuning, walk, width
from grym.compare.wording import MIN_CLUSTERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

SEED: Final = 20261120
CHECKED: Final = 20
"""Replicates of each generator that are also walked by :func:`grym.compare.early_stop.look` itself."""
MARGIN: Final = 0.005
ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True)
class Generator:
    """One kind of data set.

    Attributes:
        name: of the generator.
        clips: planned clips.
        speakers: speakers, each with about as many clips; 0 makes every clip its own.
        wer: error rate of the first system.
        factor: errors of the second system, as a multiple.
        effect: sd of the logarithm of each system's error rate over speakers.
        words: mean words of a reference; 0 is one word in each, right or wrong.
        heavy: whether clips differ in difficulty by a log-normal factor with sd 1, the same for both systems.
    """

    name: str
    clips: int
    speakers: int
    wer: float
    factor: float = 1.0
    effect: float = 0.0
    words: int = 10
    heavy: bool = False

    def draw(self, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
        """Errors ``shape = (2, clips)``, words and speaker of each clip."""
        speaker = rng.integers(0, self.speakers, self.clips) if self.speakers else np.arange(self.clips)
        rates = np.array([self.wer, self.wer * self.factor])[:, None]
        if self.effect:
            drawn = rng.normal(-(self.effect**2) / 2, self.effect, (2, max(self.speakers, 1)))
            rates = rates * np.exp(drawn)[:, speaker]
        if not self.words:
            one = np.ones(self.clips, dtype=np.int64)
            return rng.binomial(1, np.broadcast_to(rates, (2, self.clips))), one, speaker
        words = 1 + rng.poisson(self.words, self.clips)
        hard = np.exp(rng.normal(-0.5, 1.0, self.clips)) if self.heavy else 1.0
        return rng.poisson(rates * words * hard), words, speaker


EQUAL: Final = (
    Generator("poisson", 2640, 40, 0.10),
    Generator("poisson, 448 clips of 16 speakers", 448, 16, 0.08, words=4),
    Generator("lognormal difficulty", 1000, 40, 0.10, heavy=True),
    Generator("speaker effects of sd 0.3, 20 speakers", 1000, 20, 0.10, effect=0.3),
    Generator("speaker effects of sd 0.3, 8 speakers", 600, 8, 0.10, effect=0.3),
    Generator("rare binary, 2 %", 2000, 0, 0.02, words=0),
)
AT_MARGIN: Final = (
    Generator("second worse by just the margin", 6000, 0, 0.03, factor=1 + MARGIN / 0.03),
    Generator("rare binary, worse by just the margin", 6000, 0, 0.01, factor=1 + MARGIN / 0.01, words=0),
)
APART: Final = (
    Generator("10 against 12 %", 2640, 40, 0.10, factor=1.2),
    Generator("10 against 15 %", 2640, 40, 0.10, factor=1.5),
    Generator("10 against 15 %, speaker effects of sd 0.3", 2640, 40, 0.10, factor=1.5, effect=0.3),
    Generator("8 against 16 %, 448 clips of 16 speakers", 448, 16, 0.08, factor=2.0, words=4),
)


def run(replicates: int = FULL) -> dict[str, Any]:
    """Everything: a few minutes on one core with 10 000 replicates of each generator."""
    return {
        "benchmark": "early stop",
        "seed": SEED,
        "replicates": replicates,
        "min_clips": MIN_CLIPS,
        "min_differing": MIN_DIFFERING,
        "width_at_plan_against_one_look": round(width(1000, tuning(1000, ALPHA), ALPHA) / 1.959964, 4),
        "equal_systems": [_measure(g, {"a better", "b better"}, replicates) for g in EQUAL],
        "at_the_margin": [_measure(g, {"equivalent", "b better"}, replicates) for g in AT_MARGIN],
        "apart": [_measure(g, {"equivalent", "b better"}, replicates) for g in APART],
    }


def measure(folder: Path, *, quick: bool = False) -> Iterator[Figure]:  # noqa: ARG001 - nothing is written
    """How often an early stop is wrong, and how many clips it saves."""
    replicates = QUICK if quick else FULL
    found = run(replicates)
    for kind in ("equal_systems", "at_the_margin", "apart"):
        for row in found[kind]:
            name = f"early stop wrong, {row['generator']['name']}"
            yield from rate(name, row["wrong"], at_most=ALPHA, full=not quick)
            if kind == "apart":
                yield Figure(f"clips used, {row['generator']['name']}", 100 * row["clips_used_mean"], "%")


def _measure(generator: Generator, wrong: set[str], replicates: int) -> dict[str, Any]:
    """How often a walk ends with a wrong verdict, how often with a winner, and the share of clips it used."""
    ends = [_walk(generator, seed) for seed in range(replicates)]
    used = np.array([share for _, share in ends])
    return {
        "generator": asdict(generator),
        "wrong": share(verdict in wrong for verdict, _ in ends),
        "verdicts": {name: sum(v == name for v, _ in ends) / replicates for name in sorted({v for v, _ in ends})},
        "clips_used_mean": round(float(used.mean()), 4),
        "clips_used_median": round(float(np.median(used)), 4),
        "clips_saved_mean": round(1 - float(used.mean()), 4),
    }


def _walk(generator: Generator, seed: int) -> tuple[str, float]:
    """The verdict of one data set, and the share of its clips that were used."""
    rng = np.random.default_rng([SEED, seed])
    errors, words, speaker = generator.draw(rng)
    seen = rng.permutation(generator.clips)
    errors, words, speaker = errors[:, seen], words[seen], speaker[seen]
    ends = np.cumsum([len(step) for step in walk([str(i) for i in range(generator.clips)], 0)])
    found = _fast(errors[1] - errors[0], words, speaker, ends)
    if seed < CHECKED and found != _plain(errors, words, speaker, ends):
        message = f"The fast walk of {generator.name} {seed} is not what grym.compare.early_stop.look says."
        raise RuntimeError(message)
    return found


def _plain(errors: Ints, words: Ints, speaker: Ints, ends: Ints) -> tuple[str, float]:
    """The walk as a comparison does it, look by look."""
    for end in ends.tolist():
        found = look(*errors[:, :end], words[:end], speaker[:end], planned=int(ends[-1]), margin=MARGIN)
        if found.decided:
            break
    return found.verdict, end / int(ends[-1])


def _fast(d: Ints, words: Ints, speaker: Ints, ends: Ints) -> tuple[str, float]:
    """The same with all looks in one piece."""
    at = ends - 1
    sums = {
        name: np.cumsum(x)[at] for name, x in {"d": d, "w": words, "dd": d * d, "dw": d * words, "ww": words**2}.items()
    }
    differences = sums["d"] / sums["w"]
    squares = sums["dd"] - 2 * differences * sums["dw"] + differences**2 * sums["ww"]
    by_clip = np.sqrt(ends / (ends - 1) * squares) / sums["w"]
    groups = np.full(ends.size, 0)
    by_cluster = by_clip
    if (speaker != speaker[0]).any() and np.unique(speaker).size < speaker.size:
        by_cluster, groups = _clustered(d, words, speaker, ends, differences)
    else:
        groups = ends
    differing = np.cumsum(d != 0)[at]
    for i, end in enumerate(ends.tolist()):
        verdict = _decide(
            differences[i],
            max(by_clip[i], by_cluster[i]),
            int(groups[i]),
            end,
            int(ends[-1]),
            int(sums["w"][i]),
            int(differing[i]),
        )
        if verdict != "cannot tell":
            break
    return verdict, end / int(ends[-1])


def _clustered(
    d: Ints, words: Ints, speaker: Ints, ends: Ints, differences: npt.NDArray[np.float64]
) -> tuple[Any, Ints]:
    """Clustered standard errors and numbers of clusters at each look."""
    steps = np.repeat(np.arange(ends.size), np.diff(ends, prepend=0))
    speakers = int(speaker.max()) + 1
    cells = steps * speakers + speaker
    tables = [
        np.cumsum(np.bincount(cells, weights=x, minlength=ends.size * speakers).reshape(ends.size, speakers), axis=0)
        for x in (d, words)
    ]
    residuals = tables[0] - differences[:, None] * tables[1]
    groups = (tables[1] > 0).sum(axis=1)
    return np.sqrt(groups / (groups - 1) * (residuals**2).sum(axis=1)) / tables[1].sum(axis=1), groups


def _decide(difference: float, se: float, groups: int, count: int, planned: int, total: int, differing: int) -> str:
    if count < min(MIN_CLIPS, planned) or groups < MIN_CLUSTERS or 0 < differing < MIN_DIFFERING:
        return "cannot tell"
    rule_of_three = -math.log(ALPHA) / total
    if not differing:
        return "equivalent" if rule_of_three <= MARGIN else "cannot tell"
    rho = tuning(planned, ALPHA)
    inner = max(student(width(count, rho, 2 * ALPHA), groups) * se, rule_of_three)
    if abs(difference) + inner <= MARGIN:
        return "equivalent"
    if abs(difference) <= student(width(count, rho, ALPHA), groups) * se:
        return "cannot tell"
    return "b better" if difference < 0 else "a better"


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicates", type=int, default=FULL, help="data sets of each generator")
    print(json.dumps(run(parser.parse_args().replicates), indent=2))


if __name__ == "__main__":
    main()
