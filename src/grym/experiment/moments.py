"""What the analysis knows of an arm: counts and sums over units, which add up and can be taken apart.

``y`` is a unit's value, ``w`` its weight (1 where the metric has none), ``x`` its covariate (0 where there is none).
Every field is a number, or an array of one shape, so that a simulation analyses all looks of all replicates at once.
Knows nothing about metrics, intervals or storage.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from grym.errors import QualityError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

Numbers: TypeAlias = float | NDArray[np.float64]
DIGITS: Final = 12  # significant digits of what is kept of a moment; the order of adding shows from the 15th
# A spread below a three-millionth of the level is what rounding leaves of equal values: 1e-13 of its square.
_NOTHING: Final = 1e-13


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the units of one arm for one metric.

    Attributes:
        n: units.
        sum_y: of the values, in the metric's unit.
        sum_w: of the weights.
        sum_x: of the covariates.
        sum_yy: of squared values; likewise the others.
        sum_ww: of squared weights.
        sum_xx: of squared covariates.
        sum_yw: of values times weights.
        sum_xy: of covariates times values.
        sum_xw: of covariates times weights.

    Example:
        >>> moments = Moments.from_arrays([1.0, 3.0])
        >>> (moments + moments - moments) == moments
        True
        >>> moments.mean("y"), moments.spread("y", "y")
        (2.0, 2.0)
    """

    n: Numbers
    sum_y: Numbers = 0.0
    sum_w: Numbers = 0.0
    sum_x: Numbers = 0.0
    sum_yy: Numbers = 0.0
    sum_ww: Numbers = 0.0
    sum_xx: Numbers = 0.0
    sum_yw: Numbers = 0.0
    sum_xy: Numbers = 0.0
    sum_xw: Numbers = 0.0

    @classmethod
    def from_arrays(cls, y: ArrayLike, w: ArrayLike | None = None, x: ArrayLike | None = None) -> Moments:
        """Moments of single units.

        Args:
            y: values, ``shape = (..., units)``; sums run over the last axis.
            w: weights of the same shape; default 1.
            x: covariates of the same shape; default 0.

        Raises:
            QualityError: a number is NaN or infinite.
        """
        given = {"y": y} | ({} if w is None else {"w": w}) | ({} if x is None else {"x": x})
        named = {name: np.asarray(array, dtype=np.float64) for name, array in given.items()}
        for name, array in named.items():
            if not np.isfinite(array).all():
                raise _not_finite(name)
        shape = named["y"].shape
        count = np.full(shape[:-1], float(shape[-1]))
        sums = {"n": count, "w": count, "ww": count}  # of weights of 1
        for term in _TERMS:
            factors = [named[letter] for letter in term if letter in named]
            if "x" in term and x is None:
                sums[term] = np.zeros_like(count)
            elif term not in sums or w is not None:
                sums[term] = np.prod(np.broadcast_arrays(*factors), axis=0).sum(axis=-1)
        return cls(plain(count), *(plain(sums[term]) for term in _TERMS))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Moments:
        """Moments of a row of :class:`grym.experiment.evidence.Evidence`.

        Raises:
            QualityError: a number is missing, NaN or infinite, or ``n`` is negative.
        """
        found = []
        for field in fields(cls):
            value = row.get(field.name)
            if value is None or not np.isfinite(value):
                raise _not_finite(field.name, row.get("metric"))
            found.append(float(value))
        if found[0] < 0:
            msg = f"An arm cannot have {found[0]:g} units."
            raise QualityError(msg, code="bad-moments", hint="Subtract only what was added before.")
        return cls(*found)

    @classmethod
    def from_centred(cls, row: Mapping[str, Any]) -> Moments:
        """The inverse of :meth:`centred`.

        Raises:
            QualityError: a number is missing, NaN or infinite.
        """
        n = row.get("n", 0)
        made = {"n": n}
        for name in "ywx":
            made[f"sum_{name}"] = n * _said(row, f"mean_{name}")
        for pair in ("yy", "ww", "xx", "yw", "xy", "xw"):
            level = _said(row, f"mean_{pair[0]}") * _said(row, f"mean_{pair[1]}")
            made[f"sum_{pair}"] = n * (_said(row, f"spread_{pair}") + level)
        return cls.from_row(made)

    def centred(self) -> dict[str, float]:
        """Means and mean centred products, :data:`DIGITS` significant digits: what a decision record keeps.

        Sums of squares lose their spread when they are rounded; these do not. For single numbers, not arrays.
        """
        n = float(self.n)
        if n <= 0:
            names = [f"mean_{name}" for name in "ywx"] + [f"spread_{a}" for a in ("yy", "ww", "xx", "yw", "xy", "xw")]
            return {"n": 0.0} | dict.fromkeys(names, 0.0)
        found: dict[str, float] = {"n": n}
        for name in "ywx":
            found[f"mean_{name}"] = _rounded(self.mean(name))
        for pair in ("yy", "ww", "xx", "yw", "xy", "xw"):
            found[f"spread_{pair}"] = _rounded(self.spread(pair[0], pair[1]) / n)
        return found

    def __add__(self, other: Moments) -> Moments:
        """Both together: the moments of disjoint sets of units."""
        return Moments(*(a + b for a, b in zip(_parts(self), _parts(other), strict=True)))

    def __sub__(self, other: Moments) -> Moments:
        """What is left without units that were added before."""
        return Moments(*(a - b for a, b in zip(_parts(self), _parts(other), strict=True)))

    def mean(self, name: str) -> Numbers:
        """Mean over units of ``y``, ``w`` or ``x``; NaN without units."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return plain(np.divide(getattr(self, f"sum_{name}"), self.n))

    def spread(self, first: str, second: str) -> Numbers:
        """Sum over units of the product of two centred quantities, such as ``spread("y", "y")``.

        What rounding leaves of equal values is 0.
        """
        products = getattr(self, f"sum_{_PAIRS[first + second]}")
        with np.errstate(invalid="ignore", divide="ignore"):
            level = np.multiply(self.mean(first), getattr(self, f"sum_{second}"))
            centred = np.subtract(products, level)
            scale = np.sqrt(np.multiply(getattr(self, f"sum_{first}{first}"), getattr(self, f"sum_{second}{second}")))
            return plain(np.where(np.abs(centred) <= _NOTHING * scale, 0.0, centred))


_TERMS: Final = tuple(field.name.removeprefix("sum_") for field in fields(Moments)[1:])
_PAIRS: Final = {"yy": "yy", "ww": "ww", "xx": "xx", "yw": "yw", "wy": "yw", "xy": "xy", "yx": "xy"} | {
    "xw": "xw",
    "wx": "xw",
}


def _parts(moments: Moments) -> tuple[Numbers, ...]:
    return tuple(getattr(moments, field.name) for field in fields(Moments))


def plain(value: Any) -> Numbers:
    """A number as a float, an array as it is."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value, dtype=np.float64)


def _rounded(value: Numbers) -> float:
    return float(f"{float(value):.{DIGITS}g}")


def _said(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if value is None:
        raise _not_finite(name)
    return float(value)


def _not_finite(name: str, metric: object = "") -> QualityError:
    where = f" of metric {metric!r}" if metric else ""
    msg = f"The {name}{where} is missing or not a finite number."
    return QualityError(msg, code="not-finite", hint="Leave out what was not measured; the collector quarantines it.")
