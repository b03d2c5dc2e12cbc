"""Any number of systems on one dataset: counts of each, and every pair tested.

Knows nothing about files or terminals. Differences are a - b throughout, so a
positive one means that the first makes more errors. Rates are fractions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from grym.compare.aligned import Aligned, align_all
from grym.compare.bootstrap import Bootstrap, cluster_bootstrap
from grym.compare.clustered import Delta, Sums, delta_of, equivalence_p
from grym.compare.exact_tests import McNemar, Sign, Wilcoxon, mcnemar, sign_test, wilcoxon
from grym.compare.matched_pairs import MatchedPairs, matched_pairs, segments
from grym.compare.multiple import benjamini_hochberg, holm
from grym.compare.significance import rate_interval
from grym.compare.verdict import verdict_of
from grym.compare.wording import MIN_CLUSTERS, Facts, Verdict, sentence
from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from grym.compare.alternations import Text
    from grym.compare.score import Counts


@dataclass(frozen=True, slots=True)
class Options:
    """How pairs are tested.

    Attributes:
        confidence: level of every interval, between 0.5 and 1.
        margin: equivalence margin of the word error rate as a finite fraction; 0 asks for no equivalence.
        replicates: of the bootstrap.
        seed: of the bootstrap; every pair starts from it, so a pair's interval does not depend on the others.
    """

    confidence: float = 0.95
    margin: float = 0.005
    replicates: int = 10_000
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Dataset:
    """Utterances that every system was asked about.

    Attributes:
        ids: of the utterances.
        references: what was said.
        speakers: who spoke, one for each utterance, empty if unknown.
        slices: for each name, the value of each utterance, empty if it has none.
    """

    ids: Sequence[str]
    references: Sequence[Text]
    speakers: Sequence[str]
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def cluster(self) -> Literal["speaker", "utterance"]:
        """What is independent: speakers if every utterance has one, else utterances."""
        return "speaker" if len(self.speakers) and all(self.speakers) else "utterance"

    @property
    def clusters(self) -> npt.NDArray[np.str_]:
        """Cluster of each utterance, ``shape = (utterances,)``."""
        return np.asarray(self.speakers if self.cluster == "speaker" else self.ids, dtype=np.str_)


@dataclass(frozen=True, slots=True)
class System:
    """One system.

    Attributes:
        name: how it is called.
        aligned: its answers against the references.
        sentences: utterances.
        sentences_with_error: utterances with at least one error.
        low: lower end of the interval of its word error rate; ``None`` below two clusters.
        high: upper end.
        missing: ids without an answer, scored as deletions.
        unknown: ids of answers that no reference has, not scored.
    """

    name: str
    aligned: Aligned
    sentences: int
    sentences_with_error: int
    low: float | None
    high: float | None
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def counts(self) -> Counts:
        """Sums over all utterances."""
        return self.aligned.counts


@dataclass(frozen=True, slots=True)
class SliceDelta:
    """The difference within one slice.

    Attributes:
        slice: ``NAME=VALUE``.
        delta: the difference; without a p-value if there are too few clusters.
        p_adjusted: its p-value adjusted over all slices of the pair that have one.
        too_few: whether there are fewer than six clusters, so that nothing is tested.
    """

    slice: str
    delta: Delta
    p_adjusted: float | None
    too_few: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """Two systems; every difference is a - b.

    Attributes:
        a: name of the first system.
        b: name of the second.
        delta: difference of the word error rates, clustered.
        p_holm: its p-value adjusted over all pairs; decides the verdict.
        bootstrap: cluster bootstrap of the same difference.
        mapsswe: matched pairs of sentence segments.
        mapsswe_holm: its p-value (of t) adjusted over all pairs.
        mcnemar: utterances right or wrong.
        sign: signs of the differences of rates by unit.
        wilcoxon: their signed ranks.
        equivalence_p: p-value of lying inside the margin; ``None`` if no margin was asked for.
        slices: the difference by slice.
        verdict: what follows from ``delta`` and ``p_holm``.
        sentence: the same for a person.
    """

    a: str
    b: str
    delta: Delta
    p_holm: float | None
    bootstrap: Bootstrap
    mapsswe: MatchedPairs
    mapsswe_holm: float | None
    mcnemar: McNemar
    sign: Sign
    wilcoxon: Wilcoxon
    equivalence_p: float | None
    slices: tuple[SliceDelta, ...]
    verdict: Verdict
    sentence: str


def score_system(
    name: str,
    data: Dataset,
    answers: Mapping[str, Text],
    confidence: float,
) -> System:
    """Score one system on every utterance of the dataset.

    Args:
        name: how it is called.
        data: the utterances.
        answers: by id; an id that is missing is scored as deletions and listed, one that the dataset
            lacks is listed and not scored.
        confidence: level of the interval of the rate.

    Raises:
        ConfigError: no answer belongs to any utterance.
    """
    from grym.compare.alternations import Text as Words

    known = set(data.ids)
    if answers and known.isdisjoint(answers):
        some, other = next(iter(answers)), data.ids[0]
        msg = f"No answer of {name!r} belongs to a reference: it has ids such as {some!r}, they are such as {other!r}."
        raise ConfigError(msg, code="no-common-id", hint="Give answers and references the same ids.")
    aligned = align_all(data.references, [answers.get(identity, Words(())) for identity in data.ids])
    errors, words = aligned.alignments.errors, aligned.alignments.words
    low, high = rate_interval(errors, words, data.clusters, confidence)
    return System(
        name=name,
        aligned=aligned,
        sentences=len(data.ids),
        sentences_with_error=int((errors > 0).sum()),
        low=low,
        high=high,
        missing=tuple(identity for identity in data.ids if identity not in answers),
        unknown=tuple(identity for identity in answers if identity not in known),
    )


def compare_systems(data: Dataset, systems: Sequence[System], options: Options | None = None) -> list[Pair]:
    """Test every pair of systems, the first-named first.

    Raises:
        ConfigError: two systems have one name, or an option is out of range.
    """
    options = options or Options()
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        msg = f"Two systems have the same name among {', '.join(names)}."
        raise ConfigError(msg, code="same-name", hint="Give each system a name of its own.")
    if not 0 <= options.margin < math.inf or options.replicates < 1:
        msg = f"A margin of {options.margin:g} or {options.replicates} bootstrap replicates make no sense."
        raise ConfigError(msg, code="bad-option", hint="Use a margin such as 0.005 and 10000 replicates.")
    pairs = [_pair(data, a, b, options) for a, b in combinations(systems, 2)]
    adjusted = holm([pair.delta.p_value for pair in pairs])
    segmented = holm([pair.mapsswe.t_p_value for pair in pairs])
    return [
        _judged(replace(pair, p_holm=p, mapsswe_holm=m), data, options, len(pairs))
        for pair, p, m in zip(pairs, adjusted, segmented, strict=True)
    ]


def _pair(data: Dataset, a: System, b: System, options: Options) -> Pair:
    first, second = a.aligned.alignments, b.aligned.alignments
    counts = (first.errors, first.words, second.errors, second.words)
    sums = Sums.of(*counts, data.clusters)
    delta = delta_of(sums, options.confidence)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_unit = sums.table[:, 0] / sums.table[:, 1] - sums.table[:, 2] / sums.table[:, 3]
    by_unit = by_unit[np.isfinite(by_unit)]
    return Pair(
        a=a.name,
        b=b.name,
        delta=delta,
        p_holm=None,
        bootstrap=cluster_bootstrap(sums, options.confidence, np.random.default_rng(options.seed), options.replicates),
        mapsswe=matched_pairs(*segments(first, second)),
        mapsswe_holm=None,
        mcnemar=mcnemar(first.errors, second.errors),
        sign=sign_test(by_unit),
        wilcoxon=wilcoxon(by_unit),
        equivalence_p=equivalence_p(delta, options.margin),
        slices=_by_slice(data, counts, options.confidence),
        verdict="cannot tell",
        sentence="",
    )


def _by_slice(data: Dataset, counts: tuple[npt.NDArray[np.int64], ...], confidence: float) -> tuple[SliceDelta, ...]:
    clusters = data.clusters
    found: list[tuple[str, Delta]] = []
    for name, values in data.slices.items():
        labels = np.asarray(values, dtype=np.str_)
        for value in sorted(set(values) - {""}):
            inside = labels == value
            sums = Sums.of(counts[0][inside], counts[1][inside], counts[2][inside], counts[3][inside], clusters[inside])
            delta = delta_of(sums, confidence)
            # A p-value of two speakers would be the smallest of all, and stand for nothing.
            few = delta.clusters < MIN_CLUSTERS
            found.append((f"{name}={value}", replace(delta, p_value=None) if few else delta))
    adjusted = benjamini_hochberg([delta.p_value for _, delta in found])
    return tuple(
        SliceDelta(name, delta, p, too_few=delta.clusters < MIN_CLUSTERS)
        for (name, delta), p in zip(found, adjusted, strict=True)
    )


def _judged(pair: Pair, data: Dataset, options: Options, family: int) -> Pair:
    method = "speaker-clustered t" if data.cluster == "speaker" else "utterance-level t"
    difference = pair.delta.as_difference(method, pair.p_holm)
    margin = options.margin or None
    verdict = verdict_of(difference, margin)
    facts = Facts(
        name_a=pair.a,
        name_b=pair.b,
        expected=len(data.ids),
        unanswered_a=0,
        unanswered_b=0,
        pairs=len(data.ids),
        cluster=data.cluster,
        units=round(pair.delta.units),
    )
    text = sentence("wer", verdict, difference, margin, facts)
    if family > 1 and pair.p_holm is not None:
        text = f"{text[:-1]}; p = {pair.p_holm:.2g} after Holm's correction over {family} pairs."
    return replace(pair, verdict=verdict, sentence=text)
