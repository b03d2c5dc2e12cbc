"""An interval for the rate of something that was hardly seen: what Student's t cannot say.

From a handful of errors the spread between units is not known, and from none it looks like none at all. Errors are then
taken as a Poisson number of units that err, each with as many errors as it has. Rates are fractions. Knows nothing
about predictions.

Source: Garwood, *Biometrika* 28, 1936, pp. 437-442 (exact limits of a Poisson mean); Fay & Feuer, *Statistics in
Medicine* 16, 1997, pp. 791-801 (of a weighted sum of Poisson numbers, of which it is a special case).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from scipy.special import gammaincinv

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEW: Final = 12  # errors, or units that err, below which a spread is not known


def is_rare(errors: NDArray[np.float64]) -> bool:
    """Whether errors are too few for Student's t: fewer than :data:`FEW`, or in as few units, which are a minority.

    Args:
        errors: of each labelled unit, ``shape = (units,)``.
    """
    wrong = int((errors > 0).sum())
    return bool(errors.sum() < FEW) or (wrong < FEW and 2 * wrong <= errors.size)


def rare_interval(errors: NDArray[np.float64], words: float, confidence: float) -> tuple[float, float]:
    """Ends of the interval of ``errors.sum() / words``; without an error the upper end is the rule of three.

    Args:
        errors: of each labelled unit, ``shape = (units,)``.
        words: of all labelled units, above 0.
        confidence: level of the interval.

    Example:
        >>> import numpy as np
        >>> round(rare_interval(np.zeros(7), 100, 0.95)[1], 6)
        0.029957
        >>> [round(end, 5) for end in rare_interval(np.array([0.0, 1, 1, 1]), 1000, 0.95)]
        [0.00062, 0.00877]
    """
    alpha, total = 1 - confidence, float(errors.sum())
    if not total > 0:
        return 0.0, -math.log(alpha) / words
    squares, largest = float(errors @ errors), float(errors.max())
    upper, spread = total + largest, squares + largest**2
    low = squares / total * float(gammaincinv(total**2 / squares, alpha / 2))
    high = spread / upper * float(gammaincinv(upper**2 / spread, 1 - alpha / 2))
    return low / words, high / words
