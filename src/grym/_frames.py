"""The small frames that the suites of the quality gate judge: one row per clip, vector, answer or call.

Says which columns a suite may rely on; what is plausible in them is the
suites' affair. Times are seconds, levels dB relative to full scale, shares
fractions in [0, 1]. A missing number is NaN, which no suite lets pass.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from grym.errors import QualityError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pandas as pd

    from grym.models.interface import Answer, AudioClip, Segment

AUDIO_COLUMNS: Final = (
    "clip_id", "rate", "seconds", "nonfinite_samples", "rms_dbfs", "peak_dbfs",
    "clipped_fraction", "silent_fraction", "source_rate", "source_channels",
    "expected_rate", "shortest_seconds", "longest_seconds",
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


def audio_frame(
    clips: Sequence[AudioClip],
    measured: Sequence[Mapping[str, float]],
    *,
    rate: int = 16_000,
    min_seconds: float = 0.05,
    max_seconds: float = 3600.0,
) -> pd.DataFrame:
    """One row for each decoded clip, for suite ``input_audio``.

    Args:
        clips: the clips.
        measured: what was measured of each, in the same order: ``source_rate`` (Hz), ``source_channels``,
            ``rms_dbfs``, ``peak_dbfs``, ``clipped_fraction``, ``silent_fraction``. A missing value becomes NaN.
        rate: what every clip was resampled to, in Hz (``[audio] rate``).
        min_seconds: shortest clip (``[audio] min_seconds``).
        max_seconds: longest clip (``[audio] max_seconds``).

    Raises:
        QualityError: the two differ in length.
    """
    _same_length("clips", len(clips), "measurements", len(measured))
    names = AUDIO_COLUMNS[4:10]
    sample = 1 / rate  # resampling rounds a length to whole samples, and the limits hold for the file's own length
    limits = (rate, min_seconds - sample, max_seconds + sample)
    rows = [
        (
            clip.id,
            clip.rate,
            clip.seconds,
            int(clip.samples.size - np.isfinite(clip.samples).sum()),
            *(_number(values.get(name)) for name in names),
            *limits,
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
    import pandas as pd

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
    columns: Mapping[str, Any] = {
        "clip_id": list(ids),
        "dimension": wide.shape[1],
        "expected_dimension": expected_dim,
        "nonfinite_values": (~np.isfinite(wide)).sum(axis=1),
        "norm": norm,
        "spread": spread,
        "twins": twins,
        "twin_share": [number / others if others else 0.0 for number in twins],
    }
    return pd.DataFrame(columns, columns=list(FEATURES_COLUMNS))


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
        rows.append(
            (row.get("call"), row.get("pass"), wall, audio, deadline, share, missed, rtf, compute, float(failed))
        )
    return _frame(rows, RESPONSE_COLUMNS)


def _spoken(answer: Answer, seconds: float, charset: Collection[str] | None) -> tuple[Any, ...]:
    text = answer.text or ""
    words = text.split()
    letters = sum(map(len, words))
    base = max(seconds, 1.0)
    outside = sum(not _inside(segment, seconds) for segment in answer.segments)
    unordered = sum(not before.start <= after.start for before, after in pairwise(answer.segments))
    # A segment may hold several words: a model that hears in windows gives one for each window.
    timed = sum(len(segment.text.split()) for segment in answer.segments)
    unmatched = abs(len(words) - timed) if answer.segments else 0
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


def foreign_characters(text: str) -> int:
    """Control characters and the marks that a tokenizer leaks."""
    return sum(_foreign(character, None) for character in text)


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
