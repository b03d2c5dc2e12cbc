"""Sample ratio mismatch: are units spread over the arms as configured? Looked at as often as one likes.

A Bayes factor against the configured shares: under them it is a martingale, so it exceeds 1/alpha at any look with
probability alpha at most. The alternative mixes Dirichlet distributions around the shares, from wide to narrow: a mean
of martingales is one. Only the counts so far matter, not how they were batched. Knows nothing about metrics.

Source: Lindon, Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022 (arXiv 2011.03567).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import gammaln

from grym.errors import ConfigError, QualityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

ALPHA: Final = 0.01  # false alarms over all looks
# Units that the prior is worth. Narrow ones find a small mismatch late, wide ones a large one at once.
CONCENTRATIONS: Final = (10.0, 1_000.0, 100_000.0)
_TOLERANCE: Final = 1e-6  # of the sum of shares; they are scaled to 1


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What the counts say.

    Attributes:
        p_value: always valid; 0 if the counts are impossible.
        impossible: indices of arms that have a share of 0 and units.
        mismatch: whether the units are not spread as configured.
    """

    p_value: float
    impossible: tuple[int, ...]
    mismatch: bool


def check(counts: Sequence[int], shares: Sequence[float], *, alpha: float = ALPHA) -> Mismatch:
    """Compare counts with shares.

    Args:
        counts: units of each arm.
        shares: configured fractions; a unit in an arm of share 0 is impossible at once.
        alpha: probability of a false alarm over all looks.

    Raises:
        ConfigError: shares are negative or do not add up to 1.
        QualityError: a count is negative or not finite.

    Example:
        >>> check([5_000, 5_100], [0.5, 0.5]).mismatch, check([5_000, 5_400], [0.5, 0.5]).mismatch
        (False, True)
        >>> check([50, 50, 1], [0.5, 0.5, 0.0]).impossible
        (2,)
    """
    found = p_values(np.asarray(counts, dtype=np.float64), shares)
    impossible = tuple(i for i, (count, share) in enumerate(zip(counts, shares, strict=True)) if share == 0 < count)
    p = 0.0 if impossible else float(found)
    return Mismatch(p, impossible, bool(impossible) or p < alpha)


def p_values(counts: ArrayLike, shares: Sequence[float]) -> NDArray[np.float64]:
    """Always-valid p-values of many looks at once.

    Args:
        counts: cumulative units, ``shape = (..., arms)``.
        shares: configured fractions, ``shape = (arms,)``.

    Returns:
        ``float64, shape = (...)``; 0 where an arm of share 0 has units.

    Raises:
        ConfigError: shares are negative or do not add up to 1.
        QualityError: a count is negative or not finite.
    """
    seen, theta = _valid(counts, shares)
    open_arms = theta > 0
    outside = seen[..., ~open_arms].sum(axis=-1) > 0
    inside, odds = seen[..., open_arms], theta[open_arms]
    null = (inside * np.log(odds)).sum(axis=-1)
    wealth = [_evidence(inside, total * odds) - null for total in CONCENTRATIONS]
    log_mean = np.logaddexp.reduce(wealth, axis=0) - math.log(len(wealth))
    return np.asarray(np.where(outside, 0.0, np.exp(np.minimum(0.0, -log_mean))), dtype=np.float64)


def log_marginals(
    batches: ArrayLike, shares: Sequence[float], prior: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log probabilities of everything seen after each batch: under the alternative, and under the shares.

    With the multinomial coefficient of each batch, as published; the difference is the log Bayes factor.

    Args:
        batches: units by batch and arm, ``shape = (batches, arms)``.
        shares: configured fractions, all above 0.
        prior: parameters of the Dirichlet distribution.

    Raises:
        ConfigError: shares are not positive or do not add up to 1.
        QualityError: a count is negative or not finite.

    Example:
        >>> mixed, null = log_marginals([[20, 17, 9], [18, 21, 8]], [0.4, 0.4, 0.2], [1, 1, 1])
        >>> [round(float(x), 4) for x in (*mixed, *null)]
        [-7.0282, -11.9478, -4.0776, -8.2659]
    """
    seen, theta = _valid(batches, shares)
    if (theta <= 0).any():
        msg = "A share of 0 has no log probability."
        raise ConfigError(msg, code="bad-shares", hint="Leave closed arms out, or use check().")
    coefficient = np.cumsum(gammaln(seen.sum(axis=-1) + 1) - gammaln(seen + 1).sum(axis=-1))
    total = np.cumsum(seen, axis=0)
    null = coefficient + (total * np.log(theta)).sum(axis=-1)
    return coefficient + _evidence(total, np.asarray(prior, dtype=np.float64)), np.asarray(null, dtype=np.float64)


def _evidence(counts: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log probability of a sequence with these counts under a Dirichlet prior."""
    found = gammaln(prior + counts).sum(axis=-1) - gammaln(prior).sum()
    return np.asarray(found + gammaln(prior.sum()) - gammaln(prior.sum() + counts.sum(axis=-1)), dtype=np.float64)


def _valid(counts: ArrayLike, shares: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    theta: Any = np.asarray(shares, dtype=np.float64)
    if not ((theta >= 0).all() and abs(theta.sum() - 1) <= _TOLERANCE):
        msg = f"Shares should be fractions that add up to 1, not {', '.join(f'{share:g}' for share in shares)}."
        raise ConfigError(msg, code="bad-shares", hint="Give the shares of the configuration, in its order.")
    seen = np.asarray(counts, dtype=np.float64)
    if seen.shape[-1:] != theta.shape or not (np.isfinite(seen) & (seen >= 0)).all():
        msg = f"Counts of {theta.size} arms should be finite and not negative."
        raise QualityError(msg, code="bad-counts", hint="Give one count of units for each arm.")
    return seen, theta / theta.sum()
