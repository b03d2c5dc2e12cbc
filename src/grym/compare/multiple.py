"""Corrections for looking many times: Holm over pairs of systems, Benjamini-Hochberg over slices.

Knows nothing about where p-values come from. ``None`` is a test that could not be
done: it stays ``None`` and is not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values that control the chance of one false positive in the family.

    Example:
        >>> holm([0.01, None, 0.04])
        [0.02, None, 0.04]

    Source:
        Holm, Scandinavian Journal of Statistics 6(2), 1979, pp. 65-70.
    """
    return _adjusted(p_values, "holm")


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values that control the share of false positives among the positives.

    Example:
        >>> benjamini_hochberg([0.01, 0.04])
        [0.02, 0.04]

    Source:
        Benjamini & Hochberg, Journal of the Royal Statistical Society B 57(1), 1995, pp. 289-300.
    """
    return _adjusted(p_values, "fdr_bh")


def _adjusted(p_values: Sequence[float | None], method: Literal["holm", "fdr_bh"]) -> list[float | None]:
    known = [p for p in p_values if p is not None]
    if len(known) <= 1:
        return list(p_values)
    from statsmodels.stats.multitest import multipletests

    adjusted = iter(multipletests(known, method=method)[1].tolist())
    return [None if p is None else float(next(adjusted)) for p in p_values]
