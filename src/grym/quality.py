"""Judgements of the quality gate, and the small frames its suites judge.

The suites themselves (Great Expectations, top-level folder ``expectations``)
are unknown here; this module only says what a judgement is and which columns a
suite may rely on. Times are seconds, levels dB relative to full scale, shares
fractions in [0, 1]. Row positions count from 0 in the frame that was judged.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt

from grym.errors import QualityError
from grym.models.interface import Answer, AudioClip, Segment

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["critical", "warning", "info"]
Status = Literal["pass", "fail", "not evaluated"]

AUDIO_COLUMNS: Final = (
    "clip_id", "rate", "seconds", "nonfinite_samples", "rms_dbfs", "peak_dbfs",
    "clipped_fraction", "silent_fraction", "source_rate", "source_channels",
)  # fmt: skip
FEATURES_COLUMNS: Final = (
    "clip_id", "dimension", "expected_dimension", "nonfinite_values", "norm", "spread", "twins", "twin_share",
)  # fmt: skip
TRANSCRIPTION_COLUMNS: Final = (
    "clip_id", "text", "seconds", "words", "characters", "words_per_second", "characters_per_second", "confidence",
    "foreign_characters", "longest_run", "segments", "segments_outside", "segments_unordered", "segments_unmatched",
)  # fmt: skip
RESPONSE_COLUMNS: Final = (
    "call", "pass", "wall_seconds", "audio_seconds", "deadline_seconds", "deadline_share", "missed",
    "real_time_factor", "compute_share", "failed",
)  # fmt: skip

_TOLERANCE_SECONDS: Final = 0.05  # two frames of a CTC model, and rounding
_TWIN_MINIMUM: Final = 4  # fewer vectors may be equal by chance, for example of two silent clips
_LEAKED: Final = frozenset("<>|[]\u2581\ufffd")  # marks of special tokens, word delimiters and broken decoding


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What one rule said about one frame.

    Attributes:
        suite: name of the suite.
        subject: what was judged, for example batch and arm.
        rule: stable name of the rule within its suite.
        severity: what a failure means: critical, warning or info.
        status: "not evaluated" if the rule could not run (for example, a column is missing).
        evaluated: rows judged.
        unexpected: rows that broke the rule; 1 for a rule about the whole frame that failed.
        observed: what was observed, as short text.
        reason: why the rule exists, as a sentence.
        rows: positions of the rows that broke the rule; empty for a rule about the whole frame.
    """

    suite: str
    subject: str
    rule: str
    severity: Severity
    status: Status
    evaluated: int
    unexpected: int
    observed: str
    reason: str
    rows: tuple[int, ...] = ()

    @property
    def critical(self) -> bool:
        """Whether the gate says no because of this rule; a rule that could not run always counts."""
        return self.status == "not evaluated" or (self.status == "fail" and self.severity == "critical")


@dataclass(frozen=True, slots=True)
class Held:
    """Why a row is held back: the first critical rule it broke, and that rule's reason."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a suite said about one frame.

    Attributes:
        suite: name of the suite.
        subject: what was judged.
        results: one result for each rule of the suite, in its order.
        judged: number of rows of the frame.
    """

    suite: str
    subject: str
    results: tuple[RuleResult, ...]
    judged: int

    @property
    def passed(self) -> bool:
        """Whether at least one rule was judged and none failed critically, not even on a single row."""
        return bool(self.results) and not any(result.critical for result in self.results)

    @property
    def usable(self) -> bool:
        """Whether the batch can go on without its held rows: no critical failure beyond single rows."""
        return bool(self.results) and not self._blocking()

    @property
    def held_rows(self) -> dict[int, Held]:
        """Positions of the rows that broke a critical rule, in ascending order, with the first such rule."""
        held: dict[int, Held] = {}
        for result in self.results:
            for row in result.rows if result.critical else ():
                held.setdefault(row, Held(result.rule, result.reason))
        return dict(sorted(held.items()))

    def failures(self, severity: Severity | None = None) -> tuple[RuleResult, ...]:
        """Rules that did not pass: all, or those of one severity; "not evaluated" counts as critical."""
        failed = (result for result in self.results if result.status != "pass")
        return tuple(r for r in failed if severity is None or ("critical" if r.critical else r.severity) == severity)

    def rows(self, run_id: str) -> list[dict[str, Any]]:
        """Rows of the table ``quality``, one for each rule."""
        columns = ("suite", "subject", "rule", "severity", "status", "evaluated", "unexpected", "observed", "reason")
        return [{"run_id": run_id, **{name: getattr(result, name) for name in columns}} for result in self.results]

    def require(self) -> Self:
        """This judgement, if the batch can go on (:attr:`usable`).

        Raises:
            QualityError: a critical rule about the whole frame failed, or a rule could not be evaluated.
        """
        if self.usable:
            return self
        broken = "; ".join(f"{r.rule} ({r.status}: {r.observed})" for r in self._blocking()) or "no rule was evaluated"
        msg = f"The gate {self.suite} refused {self.subject}: {broken}."
        hint = "See table quality for the reasons of these rules."
        raise QualityError(msg, code=f"gate-{self.suite}", hint=hint, metadata={"rows": self.judged})

    def _blocking(self) -> tuple[RuleResult, ...]:
        return tuple(result for result in self.results if result.critical and not result.rows)


def audio_frame(clips: Sequence[AudioClip], measured: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """One row for each decoded clip, for suite ``input_audio``.

    Args:
        clips: the clips.
        measured: what was measured of each, in the same order: ``source_rate`` (Hz), ``source_channels``,
            ``rms_dbfs``, ``peak_dbfs``, ``clipped_fraction``, ``silent_fraction``. A missing value becomes NaN.

    Raises:
        QualityError: the two differ in length.
    """
    _same_length("clips", len(clips), "measurements", len(measured))
    names = AUDIO_COLUMNS[4:]
    rows = [
        (
            clip.id,
            clip.rate,
            clip.seconds,
            int(clip.samples.size - np.isfinite(clip.samples).sum()),
            *(_number(values.get(name)) for name in names),
        )
        for clip, values in zip(clips, measured, strict=True)
    ]
    return _frame(rows, AUDIO_COLUMNS)


def features_frame(ids: Sequence[str], features: npt.NDArray[np.floating[Any]], expected_dim: int) -> pd.DataFrame:
    """One row for each feature vector, for suite ``features``.

    ``spread`` is the standard deviation within a vector, ``twins`` the number of other vectors equal to it and
    ``twin_share`` that number relative to the others (0 in batches below four vectors).

    Args:
        ids: content id of each clip.
        features: float ``shape = (len(ids), dim)``.
        expected_dim: dimension that the model's card promises.

    Raises:
        QualityError: ``features`` is not such an array.
    """
    if features.ndim != 2:  # noqa: PLR2004 - rows and dimensions
        msg = f"Features have {features.ndim} axes; the gate judges arrays of shape (clips, dimension)."
        raise QualityError(msg, code="frame-shape", hint="Pool the features over time first.")
    _same_length("ids", len(ids), "feature vectors", len(features))
    wide = features.astype(np.float64)
    with np.errstate(all="ignore"):  # NaN and inf are what the suite looks for
        norm = np.sqrt((wide**2).sum(axis=1))
        spread = wide.std(axis=1) if wide.shape[1] else np.zeros(len(wide))
    keys = [vector.tobytes() for vector in wide]
    count = Counter(keys)
    twins = [count[key] - 1 for key in keys]
    others = len(keys) - 1 if len(keys) >= _TWIN_MINIMUM else 0
    rows = [
        (clip_id, wide.shape[1], expected_dim, int(bad), norm[i], spread[i], twins[i], twins[i] / others if others else 0.0)
        for i, (clip_id, bad) in enumerate(zip(ids, (~np.isfinite(wide)).sum(axis=1), strict=True))
    ]  # fmt: skip
    return _frame(rows, FEATURES_COLUMNS)


def transcription_frame(
    answers: Sequence[Answer], seconds: Sequence[float], *, charset: Collection[str] | None = None
) -> pd.DataFrame:
    """One row for each answer, for suite ``transcription``.

    Give the answers that have a text: one without becomes a row that the suite holds back. Rates are per second
    of audio, and a clip under a second counts as one second, because its trimmed edges would dominate.

    Args:
        answers: what the model said.
        seconds: length of each clip, in the same order.
        charset: characters that the model can emit, the space included; by default everything but control
            characters and the marks that a tokenizer leaks (``<``, ``>``, ``|``, ``[``, ``]``).

    Raises:
        QualityError: the two differ in length.
    """
    _same_length("answers", len(answers), "lengths", len(seconds))
    rows = [_spoken(answer, length, charset) for answer, length in zip(answers, seconds, strict=True)]
    return _frame(rows, TRANSCRIPTION_COLUMNS)


def response_frame(
    operations: Sequence[Mapping[str, Any]],
    *,
    call_seconds: float = 30.0,
    call_seconds_per_audio_second: float = 2.0,
) -> pd.DataFrame:
    """One row for each call to a model but those of the warm-up, for suite ``response_time``.

    Args:
        operations: rows of table ``operations``.
        call_seconds: deadline of a call before the audio's share (``[worker] call_seconds``).
        call_seconds_per_audio_second: the audio's share (``[worker] call_seconds_per_audio_second``).
    """
    rows = []
    for row in operations:
        if row.get("pass") == "warmup":
            continue
        wall, audio = _number(row.get("wall_seconds")), _number(row.get("audio_seconds"))
        failed = row.get("status") != "ok"
        deadline = call_seconds + call_seconds_per_audio_second * audio
        share = _ratio(wall, deadline)
        compute = 0.0 if failed else _ratio(_number(row.get("compute_seconds")), wall)
        missed = share if math.isnan(share) else float(share > 1)
        rtf = _ratio(wall, audio)
        rows.append((row.get("call"), row.get("pass"), wall, audio, deadline, share, missed, rtf, compute, float(failed)))
    return _frame(rows, RESPONSE_COLUMNS)


def _spoken(answer: Answer, seconds: float, charset: Collection[str] | None) -> tuple[Any, ...]:
    text = answer.text or ""
    words = text.split()
    letters = sum(map(len, words))
    base = max(seconds, 1.0)
    outside = sum(not _inside(segment, seconds) for segment in answer.segments)
    unordered = sum(not before.start <= after.start for before, after in pairwise(answer.segments))
    unmatched = abs(len(words) - len(answer.segments)) if answer.segments else 0
    run = max((len(list(group)) for _, group in groupby(words)), default=0)
    return (
        answer.clip_id,
        answer.text,
        seconds,
        len(words),
        letters,
        len(words) / base,
        letters / base,
        _number(answer.confidence),
        sum(_foreign(character, charset) for character in text),
        run,
        len(answer.segments),
        outside,
        unordered,
        unmatched,
    )


def _inside(segment: Segment, seconds: float) -> bool:
    return -_TOLERANCE_SECONDS <= segment.start <= segment.end <= seconds + _TOLERANCE_SECONDS


def _foreign(character: str, charset: Collection[str] | None) -> bool:
    if charset is not None:
        return character not in charset
    return character in _LEAKED or unicodedata.category(character).startswith("C")


def _number(value: Any) -> float:
    """The value as a float; NaN, which no suite lets pass, for one that is missing."""
    return math.nan if value is None else float(value)


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.inf


def _same_length(first: str, first_count: int, second: str, second_count: int) -> None:
    if first_count != second_count:
        msg = f"There are {first_count} {first} but {second_count} {second}; the gate needs one of each per row."
        raise QualityError(msg, code="frame-shape", hint="Give both in the same order and length.")


def _frame(rows: Sequence[tuple[Any, ...]], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns))
