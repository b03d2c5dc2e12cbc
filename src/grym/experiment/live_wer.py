"""The error rate of live calls from files: answers of two models, and references for a few hundred of the calls.

Joins the reading of transcripts with :mod:`grym.experiment.ppi`. Knows nothing about terminals.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from grym.compare.alternations import parse_answer, parse_reference
from grym.compare.fragility import comparable
from grym.compare.transcripts import Transcripts, read_transcripts
from grym.errors import ManifestError
from grym.experiment.ppi import Call, Powered, live_wer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from grym.compare.alternations import Text

_SHOWN: Final = 5


def live_wer_of_files(
    answers: Path,
    other: Path,
    references: Path,
    *,
    normalizer: str = "none",
    ignore_case: bool = False,
    speaker: str = "auto",
    confidence: float = 0.95,
) -> Powered:
    """The word error rate of the model behind ``answers``, over all calls in both files of answers.

    A call without an answer counts as one without words, as in scoring, and a note says how many there are.
    Alternations are read as in scoring too: in references of any format, in answers only in ``trn``.

    Args:
        answers: of the model whose rate is wanted: NIST ``trn``, CSV or JSONL.
        other: a second model's answers to the same calls.
        references: what was said in a random few hundred of them.
        normalizer: ``none``, ``basic`` or ``english``, for all texts.
        ignore_case: whether case does not count.
        speaker: how callers are known, see :func:`grym.compare.transcripts.read_transcripts`.
        confidence: level of the interval.

    Raises:
        ManifestError: ``other-calls`` (the models answered different calls, or a reference is of none), or a file
            cannot be read.
        QualityError: no call has a reference with a word in it.
        ConfigError: an option is wrong.
    """
    rule = comparable(normalizer, ignore_case=ignore_case)
    ours, theirs = (
        read_transcripts(path, answers=True, speaker=speaker, ignore_case=ignore_case) for path in (answers, other)
    )
    said = read_transcripts(references, speaker=speaker, ignore_case=ignore_case)
    known, seen = _ids(ours), _ids(theirs)
    _same(known, seen, f"{ours.name} and {theirs.name} do not answer the same calls")
    _same(known, known | set(said.utterances), f"{said.name} has references of calls that {ours.name} does not have")
    calls = [
        Call(
            _text(ours, call, rule),
            _text(theirs, call, rule),
            _reference(said, call, rule) if call in said.utterances else None,
            _unit(call, ours, said),
        )
        for call in sorted(known)
    ]
    found = live_wer(calls, confidence=confidence)
    return replace(found, notes=(*found.notes, *_unanswered(ours), *_unanswered(theirs)))


def _ids(transcripts: Transcripts) -> set[str]:
    return {*transcripts.utterances, *transcripts.unanswered}


def _text(transcripts: Transcripts, call: str, rule: Callable[[str], str]) -> Text:
    found = transcripts.utterances.get(call)
    return parse_answer(found.text if found else "", rule, alternations=transcripts.format == "trn")


def _reference(said: Transcripts, call: str, rule: Callable[[str], str]) -> Text:
    return parse_reference(said.utterances[call].text, rule, f"The reference {call!r} in {said.name}")


def _unanswered(transcripts: Transcripts) -> Iterator[str]:
    lost = transcripts.unanswered
    if lost:
        some = ", ".join(lost[:_SHOWN]) + (f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else "")
        yield f"{transcripts.name} has no answer to {len(lost)} of its calls, which count as without words: {some}."


def _unit(call: str, *files: Transcripts) -> str:
    return next((t.utterances[call].speaker for t in files if call in t.utterances and t.utterances[call].speaker), "")


def _same(known: set[str], given: set[str], trouble: str) -> None:
    apart = sorted(known ^ given)
    if apart:
        more = f" and {len(apart) - _SHOWN} more" if len(apart) > _SHOWN else ""
        msg = f"{trouble}: {', '.join(apart[:_SHOWN])}{more}."
        raise ManifestError(msg, code="other-calls", hint="Give both models' answers to every call, under one id.")
