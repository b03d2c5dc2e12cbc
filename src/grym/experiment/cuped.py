"""The difference of two arms, and how much of its error a covariate known before the exposure explains (CUPED).

    difference = (Y_t - Y_c) - theta (X_t - X_c)

Randomisation makes the last bracket zero on average, so any fixed theta leaves the estimate unbiased; the one taken
here gives the smallest error, and is estimated from both arms together. Works on numbers and arrays. Knows nothing
about looks or decisions.

Source: Deng, Xu, Kohavi, Walker, "Improving the sensitivity of online controlled experiments by utilizing
pre-experiment data", WSDM 2013, section 3. Relative intervals: Fieller, Journal of the Royal Statistical
Society B 16 (1954).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grym.experiment.moments import plain

if TYPE_CHECKING:
    from grym.experiment.moments import Numbers
    from grym.experiment.ratio import Linear


@dataclass(frozen=True, slots=True)
class Contrast:
    """Treatment minus control; numbers, or arrays of one shape.

    Attributes:
        delta: the difference, in the metric's unit.
        variance: of the difference.
        control: the control's value, as it would be at the average covariate of both arms.
        treatment: likewise.
        theta: slope on the covariate; 0 without one.
        reduction: fraction of the variance that the covariate took away.
        linear: second coefficient of the variance of ``treatment - (1 + r) control`` in r; the first is ``variance``.
        square: the third.
    """

    delta: Numbers
    variance: Numbers
    control: Numbers
    treatment: Numbers
    theta: Numbers
    reduction: Numbers
    linear: Numbers
    square: Numbers

    def relative(self, multiplier: Numbers) -> tuple[Numbers, Numbers]:
        """Interval of the difference as a fraction of the control's size; NaN where the control may be 0.

        It holds the ratios r that are not rejected by ``treatment - (1 + r) control``. At r = 0 that is the test of
        the difference itself: the interval excludes 0 exactly if the one in the metric's unit does.

        Args:
            multiplier: half-width in standard errors (:func:`grym.experiment.sequential.multiplier`).
        """
        c2 = np.square(multiplier)
        delta, base = np.asarray(self.delta), np.asarray(self.control)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            a = base**2 - c2 * self.square
            b = -(2 * delta * base + c2 * self.linear)
            d = delta**2 - c2 * self.variance
            # The form of the roots that does not subtract nearly equal numbers: signs are exact.
            half = -(b + np.where(b < 0, -1.0, 1.0) * np.sqrt(np.maximum(b * b - 4 * a * d, 0.0))) / 2
            first, second = half / a, np.where(half == 0, 0.0, d / half)
            sign = np.where(base < 0, -1.0, 1.0)
            roots = np.stack(np.broadcast_arrays(sign * first, sign * second))
            known = a > 0
            low, high = (np.where(known, edge, np.nan) for edge in (roots.min(axis=0), roots.max(axis=0)))
        return plain(low), plain(high)


def contrast(control: Linear, treatment: Linear, *, adjust: bool = False) -> Contrast:
    """The difference of two arms.

    Args:
        control: first arm.
        treatment: second arm.
        adjust: whether to use the covariate; one that does not vary changes nothing.

    Example:
        >>> from grym.experiment.moments import Moments
        >>> from grym.experiment.ratio import linear
        >>> a = linear(Moments.from_arrays([1.0, 2.0, 3.0], x=[1.0, 2.0, 3.0]), "mean")
        >>> b = linear(Moments.from_arrays([3.0, 4.0, 5.5], x=[2.0, 3.0, 4.0]), "mean")
        >>> plain, adjusted = contrast(a, b), contrast(a, b, adjust=True)
        >>> round(plain.delta, 3), round(adjusted.delta, 3), bool(adjusted.variance < plain.variance)
        (2.167, 1.042, True)
    """
    xx = np.asarray(control.variance_x) + treatment.variance_x
    xy = np.asarray(control.covariance) + treatment.covariance
    raw = np.asarray(control.variance) + treatment.variance
    with np.errstate(invalid="ignore", divide="ignore"):
        theta = np.where(xx > 0, xy / xx, 0.0) if adjust else np.zeros_like(raw)
        variance = raw - 2 * theta * xy + theta**2 * xx
        share = np.divide(treatment.n, np.add(control.n, treatment.n))
        gap = np.subtract(treatment.mean_x, control.mean_x)
        # Both arms at the mean covariate of both: the treatment moves by the control's share of the gap.
        base = control.value + theta * gap * share
        other = treatment.value - theta * gap * (1 - share)
        slope = theta * share
        linear = 2 * np.asarray(control.variance) - 2 * slope * xy - 2 * theta * control.covariance
        square = np.asarray(control.variance) - 2 * slope * control.covariance + slope**2 * xx
        return Contrast(
            delta=plain(np.subtract(other, base)),
            variance=plain(variance),
            control=plain(base),
            treatment=plain(other),
            theta=plain(theta),
            reduction=plain(np.where(raw > 0, 1 - variance / raw, 0.0)),
            linear=plain(linear + 2 * slope * theta * xx),
            square=plain(square),
        )
