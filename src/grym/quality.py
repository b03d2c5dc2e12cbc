"""Judgements of the quality gate, and the small frames its suites judge.

The suites themselves (Great Expectations, top-level folder ``expectations``)
are unknown here; this module says what a judgement is, and the frame functions
say which columns a suite may rely on. Row positions count from 0 in the frame
that was judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from grym._answer_frames import DESCRIPTION_COLUMNS, LABEL_COLUMNS, answers_frame, description_frame, label_frame
from grym._frames import (
    AUDIO_COLUMNS,
    FEATURES_COLUMNS,
    RESPONSE_COLUMNS,
    TRANSCRIPTION_COLUMNS,
    audio_frame,
    features_frame,
    response_frame,
    transcription_frame,
)
from grym.errors import QualityError

__all__ = [
    "AUDIO_COLUMNS",
    "DESCRIPTION_COLUMNS",
    "FEATURES_COLUMNS",
    "LABEL_COLUMNS",
    "RESPONSE_COLUMNS",
    "TRANSCRIPTION_COLUMNS",
    "Held",
    "Judgement",
    "RuleResult",
    "Severity",
    "Status",
    "answers_frame",
    "audio_frame",
    "description_frame",
    "features_frame",
    "label_frame",
    "response_frame",
    "transcription_frame",
]

Severity = Literal["critical", "warning", "info"]
Status = Literal["pass", "fail", "not evaluated"]


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
