"""What stands behind the verdict on a pair of systems whose answers are transcripts.

Knows nothing about files or terminals. Joins the fragility of the verdict, the
blame list and the reference radar, so that ``python -m flows score`` and a notebook
get the same. Differences here are b - a; :func:`as_json` turns them into a - b, as
everything in that JSON is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from grym.compare.blame import Blame, Part, blame
from grym.compare.fragility import Choice, Fragility, Written, by_choice, fragility
from grym.compare.heard import heard
from grym.compare.radar import Radar, Span, radar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.compare.noise import NoiseFloor
    from grym.compare.systems import Dataset, Options, System


@dataclass(frozen=True, slots=True)
class Raw:
    """Texts as they were written.

    Attributes:
        references: what was said in each utterance.
        answers: for each system its answers in the same order; empty where there is none.
        alternations: systems whose answers may hold alternations.
        normalizer: name of the normaliser that the verdict rests on.
        ignore_case: whether case does not count.
    """

    references: Sequence[str]
    answers: Mapping[str, Sequence[str]]
    alternations: frozenset[str] = frozenset()
    normalizer: str = "none"
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class PairEvidence:
    """What stands behind the verdict on one pair."""

    a: str
    b: str
    fragility: Fragility
    blame: Blame
    radar: Radar


def evidence_of(data: Dataset, first: System, second: System, raw: Raw, options: Options) -> PairEvidence:
    """Look behind the verdict on two scored systems.

    Args:
        data: the utterances.
        first: the system that is called a.
        second: the system that is called b.
        raw: their texts before any rule.
        options: confidence and margin.
    """
    names = first.name, second.name
    written = Written(
        references=raw.references,
        first=raw.answers[first.name],
        second=raw.answers[second.name],
        speakers=data.speakers if data.cluster == "speaker" else (),
        ignore_case=raw.ignore_case,
        alternations=(True, first.name in raw.alternations, second.name in raw.alternations),
    )
    unit: Literal["speaker", "clip"] = "speaker" if data.cluster == "speaker" else "clip"
    chosen = Choice(raw.normalizer, cluster=unit)
    pair = heard(data, first.aligned, second.aligned)
    return PairEvidence(
        a=first.name,
        b=second.name,
        fragility=fragility(written, chosen, names=names, confidence=options.confidence, margin=options.margin),
        blame=blame(pair),
        radar=radar(pair),
    )


def as_json(found: PairEvidence) -> dict[str, Any]:
    """Keys ``fragility``, ``blame`` and ``radar`` of a pair; every difference is a - b."""
    return {
        "fragility": _fragility_json(found.fragility),
        "blame": [_part_json(part) for part in found.blame.parts],
        "radar": _radar_json(found.radar),
    }


def _negative(value: float | None) -> float | None:
    return None if value is None else 0.0 - value


def _fragility_json(found: Fragility) -> dict[str, Any]:
    return {
        "analyses": len(found.analyses),
        "agreeing": found.agreeing,
        "flips": {name: list(values) for name, values in found.flips.items()},
        "always": found.always,
        "sentence": found.sentence,
        "by_choice": [
            {"choice": name, "value": value, "agreeing": agreeing, "analyses": total}
            for name, value, agreeing, total in by_choice(found)
        ],
        "all": [
            {
                **asdict(analysis.choice),
                "wer_a": analysis.difference.a,
                "wer_b": analysis.difference.b,
                "delta": _negative(analysis.difference.difference),
                "low": _negative(analysis.difference.ci_high),
                "high": _negative(analysis.difference.ci_low),
                "p": analysis.difference.p_value,
                "verdict": analysis.verdict,
            }
            for analysis in found.analyses
        ],
    }


def _part_json(part: Part) -> dict[str, Any]:
    return {
        "dimension": part.dimension,
        "name": part.name,
        "value": part.value,
        "errors_a": part.errors_a,
        "errors_b": part.errors_b,
        "words": part.words,
        "contribution": _negative(part.contribution),
        "utterances": part.clip_count,
        "examples": list(part.clips),
    }


def _radar_json(found: Radar) -> dict[str, Any]:
    rates = {"all": found.rates, "without_spans": found.without_spans, "without_utterances": found.without_clips}
    return {
        "utterances": found.clips,
        "compared": found.compared,
        "skipped": found.skipped,
        **{name: {"wer_a": rate.a, "wer_b": rate.b} for name, rate in rates.items()},
        "spans": [_span_json(span) for span in found.spans],
    }


def _span_json(span: Span) -> dict[str, Any]:
    return {
        "id": span.clip,
        "position": span.position,
        "kind": span.kind,
        "reference": span.reference,
        "said": span.said,
        "errors": span.errors,
        "words": span.words,
    }


def noise_json(found: NoiseFloor) -> dict[str, Any]:
    """Key ``noise`` of a system."""
    return asdict(found) | {"rates": list(found.rates)}
