"""The gate: one suite judges one frame.

Great Expectations runs in memory behind one lock, because its engine keeps the
frame under a name all threads share; nothing is written. What the library says
is read with suspicion: a rule without a result, or one that raised (a missing
column, a wrong type), is "not evaluated", and that fails the gate.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from expectations.loader import Rule, Suite, load_suite, quiet_library
from grym.errors import QualityError
from grym.quality import Judgement, RuleResult

if TYPE_CHECKING:
    import pandas as pd

_LOCK: Final = threading.RLock()
_FIRST: Final = {"result_format": "BASIC", "partial_unexpected_count": 3}
# costs about a third more, so only rules that failed are asked for the positions of rows
_POSITIONS: Final = {
    "result_format": "COMPLETE",
    "include_unexpected_rows": False,
    "return_unexpected_index_query": False,
    "partial_unexpected_count": 3,
}
_SHOWN: Final = 3  # examples in an observation
_LONGEST: Final = 200  # characters of an observation


def judge(suite: str | Suite, frame: pd.DataFrame, subject: str) -> Judgement:
    """What a suite says about a frame.

    Args:
        suite: name of a shipped suite, or a loaded one.
        frame: a pandas frame of one of the functions in :mod:`grym.quality`; its index is ignored.
        subject: what is judged, for the records: batch and arm.

    Raises:
        QualityError: the suite cannot be loaded, or the frame is not a pandas frame.

    Example:
        >>> import numpy as np
        >>> from grym.quality import features_frame
        >>> judge("features", features_frame(["a"], np.array([[1.0, np.nan]]), 2), "batch-0 a").held_rows[0].rule
        'finite'
    """
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        msg = f"The gate judges pandas frames, not {type(frame).__name__}."
        raise QualityError(msg, code="frame-shape", hint="Convert it, for example with to_pandas().")
    with _LOCK:
        loaded = suite if isinstance(suite, Suite) else _shipped(suite)
        raw = _validate(loaded, frame.reset_index(drop=True))
    results = tuple(_result(loaded.name, subject, rule, raw.get(rule.name), len(frame)) for rule in loaded.rules)
    return Judgement(loaded.name, subject, results, len(frame))


@lru_cache
def _shipped(name: str) -> Suite:
    return load_suite(name)


@lru_cache
def _batches() -> Any:
    """The library's door for frames in memory; made once, without progress bars."""
    quiet_library()
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    # the library overrules TQDM_DISABLE with this setting
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("grym").add_dataframe_asset("frame")
    return asset.add_batch_definition_whole_dataframe("whole")


def _validate(suite: Suite, frame: pd.DataFrame) -> dict[str, Any]:
    """The library's result of each rule that gave one; those of failed rules about rows name the rows."""
    batch = _batches().get_batch({"dataframe": frame})
    answered = batch.validate(suite.expectations, result_format=_FIRST).results
    results = {result.expectation_config.meta["rule"]: result for result in answered}
    for rule, expectation in zip(suite.rules, suite.expectations.expectations, strict=True):
        first = results.get(rule.name)
        if first is not None and not first.success and first.result.get("unexpected_count"):
            results[rule.name] = batch.validate(expectation, result_format=_POSITIONS)
    return results


def _result(suite: str, subject: str, rule: Rule, raw: Any, height: int) -> RuleResult:
    """Read one of the library's results, or the lack of one."""
    problem = "the rule gave no result" if raw is None else _problem(raw.exception_info)
    if problem:
        return RuleResult(suite, subject, rule.name, rule.severity, "not evaluated", 0, 0, _short(problem), rule.reason)
    detail = raw.result
    ok = bool(raw.success)
    rows = () if ok else tuple(sorted(int(position) for position in detail.get("unexpected_index_list") or ()))
    return RuleResult(
        suite=suite,
        subject=subject,
        rule=rule.name,
        severity=rule.severity,
        status="pass" if ok else "fail",
        evaluated=int(detail.get("element_count", height)),
        unexpected=int(detail.get("unexpected_count", 0 if ok else 1)),
        observed=_short(_observed(detail)),
        reason=rule.reason,
        rows=rows,
    )


def _problem(info: Mapping[str, Any] | None) -> str:
    """The first exception that the library caught: a flat record, or one for each metric."""
    records = [info, *info.values()] if info else []
    for record in records:
        if isinstance(record, Mapping) and record.get("raised_exception"):
            return str(record.get("exception_message") or "the rule raised an exception")
    return ""


def _observed(detail: Mapping[str, Any]) -> str:
    if "observed_value" in detail:
        return str(detail["observed_value"])
    examples = ", ".join(_example(value) for value in (detail.get("partial_unexpected_list") or ())[:_SHOWN])
    found = f"{detail.get('unexpected_count', 0)} of {detail.get('element_count', 0)} rows"
    return f"{found}: {examples}" if examples else found


def _example(value: Any) -> str:
    return f"({', '.join(map(str, value))})" if isinstance(value, tuple) else str(value)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
