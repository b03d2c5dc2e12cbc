"""Does a verdict hold if the texts are scored in another way? Every recorded choice, in every combination.

Knows nothing about how answers came about. The choices: how texts are normalised,
whether compounds are merged, whether fillers count, whether words or clips have the
same weight, and whether speakers or clips are taken as independent. What is counted
are verdicts; none of the analyses is a test by itself, and nothing is corrected:
the verdict rests on one analysis, the others say how much it depends on it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import chain, combinations, pairwise, product
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from grym.compare.alternations import NULL, Text, parse, plain
from grym.compare.clustered import Sums, delta_of
from grym.compare.decide import verdict_of
from grym.compare.normalize import get_normalizer
from grym.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from grym.compare.significance import Difference
    from grym.compare.wording import Verdict

NORMALIZERS: Final = ("none", "basic", "english")
FILLERS: Final = frozenset(
    "ah eh er erm hm hmm huh mhm mm mmm uh uhm um umm".split()  # noqa: SIM905 - one line to read
)
"""English sounds without meaning ("oh" is not among them: it is a digit too).

Other languages have others: there this choice changes nothing.
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """How one analysis was done.

    Attributes:
        normalizer: ``none``, ``basic`` or ``english``.
        compounds: ``kept``, or ``merged``: two neighbours that stand as one word in another text of the
            same clip are written as one, in the reference and in both answers.
        fillers: ``kept``, or ``dropped``: :data:`FILLERS` are left out of references and answers.
        weighting: ``words`` (errors / words over all clips) or ``clips`` (the mean of the clips' own rates).
        cluster: what is taken as independent, ``speaker`` or ``clip``.
    """

    normalizer: str
    compounds: Literal["kept", "merged"] = "kept"
    fillers: Literal["kept", "dropped"] = "kept"
    weighting: Literal["words", "clips"] = "words"
    cluster: Literal["speaker", "clip"] = "clip"


@dataclass(frozen=True, slots=True)
class Analysis:
    """One analysis: its difference b - a, and what would follow from it."""

    choice: Choice
    difference: Difference
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Fragility:
    """All analyses, the one that was chosen first.

    Attributes:
        analyses: all of them.
        agreeing: how many come to the verdict of the first.
        flips: the smallest set of choices without which nothing dissents, for example
            ``{"compounds": ("merged",)}``; empty if all agree or no one or two choices explain it.
        always: whether every analysis with these choices dissents.
        sentence: the same for a person.
    """

    analyses: tuple[Analysis, ...]
    agreeing: int
    flips: Mapping[str, tuple[str, ...]]
    always: bool
    sentence: str

    @property
    def verdict(self) -> Verdict:
        """Of the analysis that was chosen."""
        return self.analyses[0].verdict


@dataclass(frozen=True, slots=True)
class Written:
    """Two systems' answers to the same clips as they were written, before any normaliser.

    Attributes:
        references: what was said in each clip.
        first: answers of the first system.
        second: answers of the second.
        speakers: who speaks in each clip; one that is empty makes clips the only unit.
        ignore_case: whether case counts in no analysis.
        alternations: whether braces mean alternations in references, first and second answers.
    """

    references: Sequence[str]
    first: Sequence[str]
    second: Sequence[str]
    speakers: Sequence[str] = ()
    ignore_case: bool = False
    alternations: tuple[bool, bool, bool] = (False, False, False)

    @property
    def known_speakers(self) -> bool:
        """Whether every clip has a speaker."""
        return len(self.speakers) > 0 and all(self.speakers)


def comparable(normalizer: str, *, ignore_case: bool) -> Callable[[str], str]:
    """The rule that makes a stretch of text comparable; ``none`` leaves spaces to whoever splits it."""
    normalize = get_normalizer(normalizer)

    def rule(text: str) -> str:
        done = normalize(text) if normalizer != "none" else text
        return done.lower() if ignore_case else done

    return rule


def fragility(
    written: Written,
    chosen: Choice,
    *,
    names: tuple[str, str] = ("a", "b"),
    confidence: float = 0.95,
    margin: float = 0.005,
) -> Fragility:
    """Score and test the same answers under every choice.

    Args:
        written: the answers.
        chosen: the analysis that the verdict rests on; if it is not among the choices it is added.
        names: of the systems, for the sentence.
        confidence: level of the intervals, between 0.5 and 1.
        margin: equivalence margin as a fraction; 0 asks for no equivalence.

    Example:
        >>> said = ["so it is"] * 8
        >>> written = Written(said, said, ["So it is."] * 8, [f"s{i}" for i in range(8)])
        >>> found = fragility(written, Choice("none", cluster="speaker"))
        >>> found.agreeing, found.flips
        (16, {'normalizer': ('basic', 'english')})
    """
    analyses = [
        Analysis(choice, d, verdict_of(d, margin or None)) for choice, d in _differences(written, chosen, confidence)
    ]
    return summed(analyses, chosen, names)


def summed(analyses: Sequence[Analysis], chosen: Choice, names: tuple[str, str]) -> Fragility:
    """Count how many analyses agree with the chosen one, and say which choices change the verdict."""
    ordered = tuple(sorted(analyses, key=lambda analysis: analysis.choice != chosen))  # stable: the chosen one first
    dissent = [analysis.choice for analysis in ordered if analysis.verdict != ordered[0].verdict]
    flips, always = _explained([a.choice for a in ordered], dissent)
    found = Fragility(ordered, len(ordered) - len(dissent), flips, always, "")
    return replace(found, sentence=_sentence(found, names))


def by_choice(found: Fragility) -> list[tuple[str, str, int, int]]:
    """How many analyses agree with the chosen one under each choice: what is chosen, how, agreeing, all."""
    rows = []
    for name in (f.name for f in fields(Choice)):
        values = dict.fromkeys(str(getattr(a.choice, name)) for a in found.analyses)
        for value in values:
            inside = [a for a in found.analyses if getattr(a.choice, name) == value]
            rows.append((name, value, sum(a.verdict == found.verdict for a in inside), len(inside)))
    return rows


def _differences(written: Written, chosen: Choice, confidence: float) -> Iterator[tuple[Choice, Difference]]:
    units: tuple[Literal["speaker", "clip"], ...] = ("speaker", "clip") if written.known_speakers else ("clip",)
    labels = {"clip": np.arange(len(written.references))}
    if written.known_speakers:
        labels["speaker"] = np.unique(np.asarray(written.speakers), return_inverse=True)[1]
    names = dict.fromkeys((*NORMALIZERS, chosen.normalizer))
    # An answer that is right is normalised with its reference: the English rules take longer than all the rest.
    rules = {name: cache(comparable(name, ignore_case=written.ignore_case)) for name in names}
    texts = {name: _texts(written, rules[name]) for name in names}
    ways: product[tuple[str, Literal["kept", "merged"], Literal["kept", "dropped"]]]
    ways = product(names, ("kept", "merged"), ("kept", "dropped"))
    for name, compounds, fillers in ways:
        counts = _counts(texts[name], merge=compounds == "merged", drop=fillers == "dropped")
        for cluster in units:
            choice = Choice(name, compounds, fillers, "words", cluster)
            yield choice, _difference(counts, labels[cluster], confidence)
            yield replace(choice, weighting="clips"), _difference(_rates(counts), labels[cluster], confidence)


_Counted = tuple["npt.NDArray[np.float64]", ...]  # errors and words of the first system, then of the second


def _difference(counts: _Counted, clusters: npt.NDArray[np.int64], confidence: float) -> Difference:
    kept = (counts[1] > 0) | (counts[0] > 0) | (counts[2] > 0)
    first, words, second, others = (column[kept] for column in counts)
    sums = Sums.of(first, words, second, others, clusters[kept])
    return delta_of(sums, confidence).as_difference("clustered t")


def _rates(counts: _Counted) -> _Counted:
    """Each clip's own rates with weight 1; a clip without reference words has none and is left out."""
    kept = (counts[1] > 0) & (counts[3] > 0)
    ones = kept.astype(np.float64)
    first, second = (
        np.divide(errors, words, out=np.zeros_like(errors), where=kept)
        for errors, words in ((counts[0], counts[1]), (counts[2], counts[3]))
    )
    return first, ones, second, ones


_Texts = tuple[list[Text], list[Text], list[Text]]


def _texts(written: Written, rule: Callable[[str], str]) -> _Texts:
    sides = zip((written.references, written.first, written.second), written.alternations, strict=True)
    first, second, third = ([_text(text, rule, several=several) for text in side] for side, several in sides)
    return first, second, third


def _text(text: str, rule: Callable[[str], str], *, several: bool) -> Text:
    if not several:
        return plain(text, rule)
    try:
        return parse(text, rule)
    except ManifestError:  # only an answer can have a broken brace here: references have been read before
        return plain(text, rule)


def _counts(texts: _Texts, *, merge: bool, drop: bool) -> _Counted:
    from grym.compare.aligned import align_all

    sides = [[_without_fillers(text) for text in side] for side in texts] if drop else list(texts)
    if merge:
        merged = [_merged(clip) for clip in zip(*sides, strict=True)]
        sides = [[clip[side] for clip in merged] for side in range(3)]
    found = [align_all(sides[0], sides[side], characters=False).alignments for side in (1, 2)]
    columns = (found[0].errors, found[0].words, found[1].errors, found[1].words)
    return tuple(column.astype(np.float64) for column in columns)


def _without_fillers(text: Text) -> Text:
    if text.plain:
        kept = tuple(word for word in text.words if word not in FILLERS and word.lower() not in FILLERS)
        return text if len(kept) == len(text.words) else replace(text, words=kept)
    arcs = tuple(replace(arc, word=NULL) if arc.word.lower() in FILLERS else arc for arc in text.arcs)
    return replace(text, arcs=arcs)


def _merged(clip: tuple[Text, ...]) -> tuple[Text, ...]:
    """One clip's texts with compounds written as one word; texts with alternations stay as they are."""
    if clip[0].words == clip[1].words == clip[2].words or not all(text.plain for text in clip):
        return clip
    single = {word for text in clip for word in text.words}
    joined = {first + second for text in clip for first, second in pairwise(text.words)} & single
    return tuple(replace(text, words=tuple(_joined(text.words, joined))) for text in clip) if joined else clip


def _joined(words: Sequence[str], joined: set[str]) -> Iterator[str]:
    place = 0
    while place < len(words):
        both = "".join(words[place : place + 2])
        two = place + 1 < len(words) and both in joined
        yield both if two else words[place]
        place += 2 if two else 1


def _explained(choices: Sequence[Choice], dissent: Sequence[Choice]) -> tuple[dict[str, tuple[str, ...]], bool]:
    """The one or two choices that every dissenting analysis shares, and whether all that have them dissent."""
    if not dissent:
        return {}, False
    possible, shared = (
        {f.name: tuple(dict.fromkeys(getattr(c, f.name) for c in some)) for f in fields(Choice)}
        for some in (choices, dissent)
    )
    common = [name for name, values in shared.items() if len(values) < len(possible[name])]
    for names in chain(combinations(common, 1), combinations(common, 2)):
        having = sum(all(getattr(c, name) in shared[name] for name in names) for c in choices)
        if having == len(dissent):
            return {name: shared[name] for name in names}, True
    return {name: shared[name] for name in common[:2]}, False


_SAID: Final[dict[tuple[str, ...], str]] = {
    ("compounds", "merged"): "compounds are merged",
    ("compounds", "kept"): "compounds are not merged",
    ("fillers", "dropped"): "fillers are dropped",
    ("fillers", "kept"): "fillers count",
    ("weighting", "clips"): "every clip has the same weight",
    ("weighting", "words"): "every word has the same weight",
    ("cluster", "speaker"): "speakers are taken as independent",
    ("cluster", "clip"): "clips are taken as independent",
    ("normalizer", "none"): "texts are not normalised",
}


def said(name: str, *values: str) -> str:
    """A choice as a clause.

    Example:
        >>> said("compounds", "merged"), said("normalizer", "none", "english")
        ('compounds are merged', 'the none or english normaliser is used')
    """
    return _SAID.get((name, *values), f"the {' or '.join(values)} normaliser is used")


def outcome(verdict: Verdict, names: tuple[str, str]) -> str:
    """A verdict with the names of the systems, as the beginning of a sentence."""
    known = {"a better": f"{names[0]} is better", "b better": f"{names[1]} is better"}
    return known.get(verdict, verdict)


def _sentence(found: Fragility, names: tuple[str, str]) -> str:
    total = len(found.analyses)
    opening = f"{outcome(found.verdict, names)} in {found.agreeing} of {total} analyses"
    opening = opening[0].upper() + opening[1:] if found.verdict in {"equivalent", "cannot tell"} else opening
    if found.agreeing == total:
        return f"{opening}: no choice of scoring changes the verdict."
    others = Counter(a.verdict for a in found.analyses if a.verdict != found.verdict)
    rest = ", ".join(f"{outcome(verdict, names)} in {count}" for verdict, count in sorted(others.items()))
    why = " and ".join(said(name, *values) for name, values in found.flips.items())
    if not why:
        return f"{opening}; {rest}. No one or two choices explain it."
    return f"{opening}; {rest}. It changes {'whenever' if found.always else 'only when'} {why}."
