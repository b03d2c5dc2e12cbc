"""The tests that papers report, for a run: rows of table ``tests`` beside the verdict, which rests on none of them.

Knows nothing about how clips were answered or where rows are stored. Differences are
b - a: a positive statistic means that the second arm makes more errors. All of them are
about one look; a run that may have stopped early has none.

Source: :mod:`grym.compare.matched_pairs`, :mod:`grym.compare.exact_tests`, :mod:`grym.compare.bootstrap`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from grym.compare.bootstrap import cluster_bootstrap
from grym.compare.clustered import Sums, delta_of, equivalence_p
from grym.compare.exact_tests import mcnemar, sign_test, wilcoxon
from grym.compare.heard import alignments
from grym.compare.matched_pairs import MIN_SEGMENTS, matched_pairs, segments
from grym.compare.wording import MIN_CLUSTERS

if TYPE_CHECKING:
    import numpy.typing as npt

    from grym.compare.heard import Heard

Row = dict[str, Any]


def further_rows(pair: Heard, clusters: npt.ArrayLike, *, confidence: float, margin: float, seed: int) -> list[Row]:
    """MAPSSWE, McNemar, sign, Wilcoxon, bootstrap and, with a margin, equivalence; none without a reference word.

    Args:
        pair: what both arms heard in the clips that both answered.
        clusters: what is independent, ``shape = (clips,)``.
        confidence: level of the bootstrap interval.
        margin: equivalence margin as a fraction; 0 asks for no equivalence.
        seed: of the bootstrap.

    Raises:
        ConfigError: the confidence is not between 0.5 and 1.
    """
    a, b = alignments(pair.first), alignments(pair.second)
    sums = Sums.of(b.errors, b.words, a.errors, a.words, clusters)
    if not sums.defined:
        return []
    drawn = cluster_bootstrap(sums, confidence, np.random.default_rng(seed))
    enough = sums.clusters >= MIN_CLUSTERS
    rows = [*_of_segments(segments(b, a)), *_of_clips(a.errors, b.errors), *_of_clusters(sums)]
    rows.append(_row("bootstrap", "clusters", sums.clusters, ends=(drawn.low, drawn.high), enough=enough))
    if margin > 0:
        p = equivalence_p(delta_of(sums, confidence), margin)
        rows.append(_row("equivalence", "clusters", sums.clusters, p=p, enough=enough))
    return rows


def _of_segments(counts: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]) -> list[Row]:
    found = matched_pairs(*counts)
    enough = found.segments >= MIN_SEGMENTS
    return [_row("mapsswe", "segments", found.segments, statistic=found.z, p=found.t_p_value, enough=enough)]


def _of_clips(errors_a: npt.NDArray[np.int64], errors_b: npt.NDArray[np.int64]) -> list[Row]:
    found = mcnemar(errors_a, errors_b)
    n = found.only_a_right + found.only_b_right
    return [_row("mcnemar", "clips that one arm has right", n, statistic=found.only_a_right, p=found.p_value)]


def _of_clusters(sums: Sums) -> list[Row]:
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = sums.table[:, 0] / sums.table[:, 1] - sums.table[:, 2] / sums.table[:, 3]
    apart = apart[np.isfinite(apart)]
    signs, ranks = sign_test(apart), wilcoxon(apart)
    return [
        _row(
            "sign", "clusters that differ", signs.positive + signs.negative, statistic=signs.positive, p=signs.p_value
        ),
        _row("wilcoxon", "clusters that differ", ranks.pairs, statistic=ranks.statistic, p=ranks.p_value),
    ]


def _row(
    test: str,
    unit: str,
    n: int,
    *,
    statistic: float | None = None,
    p: float | None = None,
    ends: tuple[float | None, float | None] = (None, None),
    enough: bool | None = None,
) -> Row:
    return {
        "test": test,
        "unit": unit,
        "n": n,
        "statistic": None if statistic is None else float(statistic),
        "p_value": p,
        "ci_low": ends[0],
        "ci_high": ends[1],
        "enough": n >= MIN_CLUSTERS if enough is None else enough,
    }
