"""From transcript files to a scoreboard.

Knows nothing about terminals. The one place that joins reading, wording rules,
scoring and testing, so that a notebook can do what ``python -m flows score`` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from grym.compare.alternations import parse_answer, parse_reference
from grym.compare.evidence import PairEvidence, Raw, evidence_of
from grym.compare.fragility import comparable as rule_of
from grym.compare.noise import NoiseFloor, noise_floor
from grym.compare.normalize import Normalizer, get_normalizer
from grym.compare.score_metrics import metric_pairs
from grym.compare.systems import Dataset, Options, Pair, System, compare_systems, score_system
from grym.compare.transcripts import Transcripts, Utterance, read_transcripts
from grym.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from grym.compare.metrics import MetricPair

_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes two texts the same.

    Attributes:
        normalizer: name of a normaliser; ``none`` splits at whitespace.
        ignore_case: whether case does not count, in texts, ids and speakers.
        speaker: how speakers are known, see :func:`grym.compare.transcripts.read_transcripts`.
        by: columns of the references that become slices.
    """

    normalizer: str = "none"
    ignore_case: bool = False
    speaker: str = "auto"
    by: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Scoreboard:
    """Everything about some systems on one set of references.

    Attributes:
        references: name of their file.
        data: the utterances.
        systems: in the order given.
        pairs: every pair, tested.
        rules: what makes two texts the same.
        options: how pairs were tested.
        normalizer: the one that was used.
        notes: what a reader has to know.
        evidence: what stands behind each verdict, in the order of ``pairs``; empty if nobody asked.
        noise: noise floors by system, of those with repeats.
        metrics: every pair on every other metric, with what was asked for.
    """

    references: str
    data: Dataset
    systems: tuple[System, ...]
    pairs: tuple[Pair, ...]
    rules: Rules
    options: Options
    normalizer: Normalizer
    notes: tuple[str, ...]
    evidence: tuple[PairEvidence, ...] = ()
    noise: Mapping[str, NoiseFloor] = field(default_factory=dict)
    metrics: tuple[tuple[str, MetricPair], ...] = ()


def score_files(
    references: Path,
    systems: Mapping[str, Path],
    rules: Rules | None = None,
    options: Options | None = None,
    *,
    evidence: bool = False,
    repeats: Mapping[str, Sequence[Path]] | None = None,
    metrics: Sequence[str] = (),
) -> Scoreboard:
    """Score and compare systems whose answers are files.

    Alternations are read in references of any format, and in answers only in NIST ``trn``; a broken one
    is an error in a reference and plain characters in an answer.

    Args:
        references: what was said.
        systems: for each name the file of its answers.
        rules: what makes two texts the same.
        options: how pairs are tested.
        evidence: whether to look behind each verdict: fragility, blame list, reference radar.
        repeats: further answers of systems to the same references, for noise floors.
        metrics: what to compare besides words, see :mod:`grym.compare.score_metrics`.

    Raises:
        ManifestError: a file, or a line of it, cannot be used.
        ConfigError: an option is wrong, no answer belongs to any reference, or a repeat is of no system.
    """
    rules, options = rules or Rules(), options or Options()
    normalizer = get_normalizer(rules.normalizer)
    said = read_transcripts(references, speaker=rules.speaker, ignore_case=rules.ignore_case)
    data = _dataset(said, rules, rule_of(rules.normalizer, ignore_case=rules.ignore_case))
    answers = {name: _read(path, rules) for name, path in systems.items()}
    found = [_scored(name, data, answers[name], rules, options) for name in systems]
    pairs = compare_systems(data, found, options)
    notes = (*_speaker_notes(data, said), *(note for system in found for note in _id_notes(system)))
    known = {system.name: system for system in found}
    raw = _raw(said, answers, rules)
    behind = [evidence_of(data, known[p.a], known[p.b], raw, options) for p in pairs] if evidence else []
    noise = {
        name: _noise(known[_known(name, known)], [_read(path, rules) for path in paths], data, rules, options)
        for name, paths in (repeats or {}).items()
    }
    board = Scoreboard(said.name, data, tuple(found), tuple(pairs), rules, options, normalizer, notes)
    measured = metric_pairs(metrics, data, known, answers, options)
    return replace(board, evidence=tuple(behind), noise=noise, metrics=tuple(measured))


def _read(path: Path, rules: Rules) -> Transcripts:
    return read_transcripts(path, answers=True, speaker="none", ignore_case=rules.ignore_case)


def _scored(name: str, data: Dataset, answers: Transcripts, rules: Rules, options: Options) -> System:
    rule = rule_of(rules.normalizer, ignore_case=rules.ignore_case)
    texts = {
        identity: parse_answer(item.text, rule, alternations=answers.format == "trn")
        for identity, item in answers.utterances.items()
    }
    return score_system(name, data, texts, options.confidence)


def _raw(said: Transcripts, answers: Mapping[str, Transcripts], rules: Rules) -> Raw:
    empty = Utterance("")
    return Raw(
        references=[item.text for item in said.utterances.values()],
        answers={
            name: [found.utterances.get(identity, empty).text for identity in said.utterances]
            for name, found in answers.items()
        },
        alternations=frozenset(name for name, found in answers.items() if found.format == "trn"),
        normalizer=rules.normalizer,
        ignore_case=rules.ignore_case,
    )


def _known(name: str, systems: Mapping[str, System]) -> str:
    if name not in systems:
        msg = f"There is a repeat of {name!r}, but no such system; there are {', '.join(systems)}."
        raise ConfigError(msg, code="unknown-system", hint="Give --system NAME=FILE for the first answers.")
    return name


def _noise(system: System, repeats: Sequence[Transcripts], data: Dataset, rules: Rules, options: Options) -> NoiseFloor:
    """Over the utterances that every repeat answered; a missing answer is no luck of decoding."""
    every = [system, *(_scored(system.name, data, answers, rules, options) for answers in repeats)]
    missing = {identity for found in every for identity in found.missing}
    kept = np.array([identity not in missing for identity in data.ids], dtype=bool)
    errors = np.stack([found.aligned.alignments.errors[kept] for found in every], axis=1)
    words = system.aligned.alignments.words[kept]
    return noise_floor(errors, words, data.clusters[kept], options.confidence)


def _dataset(said: Transcripts, rules: Rules, comparable: Callable[[str], str]) -> Dataset:
    if not said.utterances:
        msg = f"{said.name} holds no utterance."
        raise ManifestError(msg, code="no-utterances", hint="Write one line for each utterance.")
    references = [
        parse_reference(item.text, comparable, f"The reference {identity!r} in {said.name}")
        for identity, item in said.utterances.items()
    ]
    return Dataset(
        ids=tuple(said.utterances),
        references=references,
        speakers=[item.speaker for item in said.utterances.values()],
        slices={column: _slice(said, column) for column in rules.by},
    )


def _slice(said: Transcripts, column: str) -> list[str]:
    values = [
        item.speaker if column == "speaker" else item.columns.get(column, "") for item in said.utterances.values()
    ]
    if not any(values):
        known = sorted({name for item in said.utterances.values() for name in item.columns} | {"speaker"})
        msg = f"{said.name} has no values in a column {column!r}."
        raise ConfigError(msg, code="unknown-slice", hint=f"It has {', '.join(known)}.")
    return values


def _speaker_notes(data: Dataset, said: Transcripts) -> Iterator[str]:
    without = sum(not speaker for speaker in data.speakers)
    if 0 < without < len(data.ids):
        yield f"{without} of {len(data.ids)} utterances of {said.name} have no speaker, so none is used."
    if data.cluster == "utterance":
        yield (
            "No speakers are known: utterances are taken as independent, and if few people speak many of them the "
            "intervals are too narrow."
        )
    elif len(set(data.speakers)) == 1:
        yield (
            f"All {len(data.ids)} utterances have the speaker {data.speakers[0]!r}; if that is no speaker, name the "
            "speakers with --speaker."
        )


def _id_notes(system: System) -> Iterator[str]:
    if system.missing:
        yield (
            f"{system.name} has no answer to {len(system.missing)} of {system.sentences} utterances, scored as "
            f"deletions: {_some(system.missing)}."
        )
    if system.unknown:
        case = {identity.lower() for identity in system.missing} & {identity.lower() for identity in system.unknown}
        advice = " Some ids differ by case only: see --ignore-case." if case else ""
        yield (
            f"{system.name} has {len(system.unknown)} answers without a reference, not scored: "
            f"{_some(system.unknown)}.{advice}"
        )


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:_SHOWN])
    return f"{shown} and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else shown
