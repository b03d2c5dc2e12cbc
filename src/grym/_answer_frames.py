"""The small frames of answers that are no transcripts: labels and descriptions, one row per answer.

Says which columns a suite may rely on; what is plausible in them is the suites'
affair. A missing number is NaN, which no suite lets pass.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from grym._frames import foreign_characters, transcription_frame
from grym.errors import QualityError
from grym.models.failures import FAILURES, find_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from grym.models.interface import Answer

LABEL_COLUMNS: Final = (
    "clip_id", "text", "seconds", "confidence", "known", "scores", "expected_scores", "score_sum", "lowest_score",
    "twin_share",
)  # fmt: skip
DESCRIPTION_COLUMNS: Final = (
    "clip_id", "text", "seconds", "words", "confidence", "foreign_characters", "failure",
    *(kind.replace("-", "_") for kind in FAILURES), "twin_share",
)  # fmt: skip
_TWIN_MINIMUM: Final = 8  # fewer answers may be equal by chance
_WINDOW_MARKS: Final = frozenset("[]")  # the times of windows stand in brackets


def label_frame(answers: Sequence[Answer], seconds: Sequence[float], labels: Sequence[str] = ()) -> pd.DataFrame:
    """One row for each answer, for suite ``classification``.

    ``scores`` is how many labels have a probability, ``score_sum`` and ``lowest_score`` their sum and the lowest (1
    and 0 where the model gives none), ``known`` whether the text is one of the labels, and ``twin_share`` the share of
    the batch with the same text (0 in batches below eight answers).

    Args:
        answers: what the model said.
        seconds: length of each clip, in the same order.
        labels: what there was to choose from; without them the labels of the scores.

    Raises:
        QualityError: the two differ in length.
    """
    shares = _twin_shares(answers)
    rows = []
    for answer, length in _zipped(answers, seconds):
        values = [_number(value) for value in answer.scores.values()]
        offered = set(labels) or set(answer.scores)
        text = " ".join((answer.text or "").replace("_", " ").split())
        rows.append((
            answer.clip_id,
            answer.text,
            length,
            _number(answer.confidence),
            float(text in offered),
            len(values),
            len(labels) or len(values),
            sum(values) if values else 1.0,
            min(values, default=0.0),
            shares.get(answer.text or "", 0.0),
        ))  # fmt: skip
    return _frame(rows, LABEL_COLUMNS)


def description_frame(answers: Sequence[Answer], seconds: Sequence[float], task: str = "describe") -> pd.DataFrame:
    """One row for each answer, for suite ``descriptions``.

    A column of 0 and 1 for each failure class (:mod:`grym.models.failures`), ``failure`` with its name, and
    ``twin_share``: the share of the batch with the same text (0 in batches below eight answers).

    Args:
        answers: what the model said.
        seconds: length of each clip, in the same order.
        task: what was asked, for answers that do not say themselves what is wrong with them.

    Raises:
        QualityError: the two differ in length.
    """
    shares = _twin_shares(answers)
    rows = []
    for answer, length in _zipped(answers, seconds):
        text = answer.text or ""
        failure = answer.failure or find_failure(text, task)
        rows.append((
            answer.clip_id,
            answer.text,
            length,
            len(text.split()),
            _number(answer.confidence),
            foreign_characters("".join(c for c in text if c not in _WINDOW_MARKS)),
            failure,
            *(float(failure == kind) for kind in FAILURES),
            shares.get(text, 0.0),
        ))  # fmt: skip
    return _frame(rows, DESCRIPTION_COLUMNS)


def answers_frame(suite: str, answers: Sequence[Answer], seconds: Sequence[float]) -> pd.DataFrame:
    """The frame of answers that a suite judges: by name, and for suites of one's own the one of transcripts.

    Raises:
        QualityError: answers and lengths differ in number.
    """
    if suite == "descriptions":
        return description_frame(answers, seconds)
    if suite == "classification":
        return label_frame(answers, seconds)
    return transcription_frame(answers, seconds)


def _twin_shares(answers: Sequence[Answer]) -> dict[str, float]:
    if len(answers) < _TWIN_MINIMUM:
        return {}
    return {text: times / len(answers) for text, times in Counter(answer.text or "" for answer in answers).items()}


def _zipped(answers: Sequence[Answer], seconds: Sequence[float]) -> Sequence[tuple[Answer, float]]:
    if len(answers) != len(seconds):
        msg = f"There are {len(answers)} answers but {len(seconds)} lengths; the gate needs one of each per row."
        raise QualityError(msg, code="frame-shape", hint="Give both in the same order and length.")
    return list(zip(answers, seconds, strict=True))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _frame(rows: Sequence[tuple[Any, ...]], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns))
