"""Expectations of our own: finite columns, and quantiles whose verdict can be stored.

Importing this module registers them with Great Expectations (and imports it,
seconds); a suite that uses them loses those rules silently if that did not
happen first, so only :mod:`expectations.loader` loads suites.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.core import ExpectColumnQuantileValuesToBeBetween
from great_expectations.expectations.expectation import MulticolumnMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import MulticolumnMapMetricProvider
from great_expectations.expectations.metrics.map_metric_provider.multicolumn_condition_partial import (
    multicolumn_condition_partial,
)


class ColumnsFinite(MulticolumnMapMetricProvider):  # type: ignore[misc] # the library has no types here
    """Row by row: is every value of the listed columns a finite number?"""

    condition_metric_name = "multicolumn_values.finite"
    condition_domain_keys = ("batch_id", "table", "column_list", "row_condition", "condition_parser", "ignore_row_if")
    condition_value_keys = ()

    @multicolumn_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column_list: pd.DataFrame, **_: Any) -> pd.Series[bool]:  # noqa: N805 - the library's class hook
        values: npt.NDArray[np.float64] = column_list.to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Series(np.isfinite(values).all(axis=1), index=column_list.index)


class ExpectColumnsToBeFinite(MulticolumnMapExpectation):  # type: ignore[misc]
    """Expect no NaN, no infinity and nothing missing in any of ``column_list``.

    The library's own rules count NaN as missing and let it pass.
    """

    map_metric: ClassVar[str] = "multicolumn_values.finite"
    args_keys: ClassVar[tuple[str, ...]] = ("column_list",)
    # a row whose values are all missing is a broken row, not one to skip
    ignore_row_if: str = "never"


class ExpectColumnQuantilesToBeBetween(ExpectColumnQuantileValuesToBeBetween):  # type: ignore[misc]
    """Expect quantiles within ranges, with a verdict that is a plain ``bool`` and can be stored as JSON.

    The library's rule answers with a ``numpy.bool``, on which its stores crash.
    """

    def _validate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        judged: dict[str, Any] = super()._validate(*args, **kwargs)
        details = [bool(verdict) for verdict in judged["result"]["details"]["success_details"]]
        values = [float(value) for value in judged["result"]["observed_value"]["values"]]
        observed = {**judged["result"]["observed_value"], "values": values}
        return {
            "success": all(details),
            "result": {"observed_value": observed, "details": {"success_details": details}},
        }
