"""The verdict as one plain sentence for a person.

Knows nothing about how numbers were obtained. Rates are fractions in, points
(percentage points) out; latencies are ms. Every number in a sentence is a column
of the row it stands in, or a count in :class:`Facts`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from grym.compare.significance import Difference

Verdict = Literal["a better", "b better", "equivalent", "cannot tell"]

MIN_CLUSTERS: Final = 6
MAX_UNANSWERED: Final = 0.05


@dataclass(frozen=True, slots=True)
class Facts:
    """What a sentence needs to know besides the numbers of its row.

    Attributes:
        name_a: registered name of the first model.
        name_b: registered name of the second model.
        expected: clips each arm should have answered.
        unanswered_a: clips without a usable answer of the first arm.
        unanswered_b: clips without a usable answer of the second arm.
        pairs: clips both arms answered.
        cluster: what a cluster is, ``speaker`` or ``clip``.
        units: words (or characters) of the references behind a rate.
    """

    name_a: str
    name_b: str
    expected: int
    unanswered_a: int
    unanswered_b: int
    pairs: int
    cluster: str = "clip"
    units: int = 0

    @property
    def a(self) -> str:
        """How the first arm is called; a model against itself gets its arm's letter."""
        return self.name_a if self.name_a != self.name_b else f"{self.name_a} (a)"

    @property
    def b(self) -> str:
        """How the second arm is called."""
        return self.name_b if self.name_a != self.name_b else f"{self.name_b} (b)"

    @property
    def too_many_unanswered(self) -> bool:
        """Whether an arm left so many clips out that the rest may not stand for the set."""
        return max(self.unanswered_a, self.unanswered_b) > MAX_UNANSWERED * self.expected


@dataclass(frozen=True, slots=True)
class _Style:
    label: str
    better: str
    scale: float
    unit: str
    short: str
    things: str = ""


_STYLES: Final = {
    "wer": _Style("WER", "better", 100, "points", " %", "words"),
    "wer_clean": _Style("WER without the clips with a failure class", "better", 100, "points", " %", "words"),
    "cer": _Style("CER", "better", 100, "points", " %", "characters"),
    "latency_p50": _Style("median latency", "faster", 1, "ms", " ms"),
    "latency_p95": _Style("95th percentile of latency", "faster", 1, "ms", " ms"),
}


def sentence(metric: str, verdict: Verdict, d: Difference, margin: float | None, facts: Facts) -> str:
    """The verdict on ``wer``, ``wer_clean``, ``cer``, ``latency_p50`` or ``latency_p95`` in one sentence.

    Args:
        metric: one of these.
        verdict: what was decided.
        d: the difference behind it.
        margin: equivalence margin in the unit of the metric; ``None`` if nobody set one.
        facts: names and counts.

    Example:
        >>> from grym.compare.significance import Difference
        >>> d = Difference(0.05, 0.051, 0.001, -0.001, 0.003, 0.95, 0.3, "speaker-clustered t", 20)
        >>> facts = Facts("mini", "int8", 100, 0, 0, 100, "speaker", 900)
        >>> sentence("wer", "equivalent", d, 0.005, facts)  # doctest: +ELLIPSIS
        'int8 is equivalent to mini: its WER is 0.1 points higher (95 % interval -0.1 to 0.3), inside the margin of ...'
    """
    style = _STYLES[metric]
    rate = bool(style.things)
    if rate and (reason := _nothing_to_judge(facts, style)):
        return f"Cannot tell {facts.a} and {facts.b} apart: {reason}."
    numbers = _Numbers.of(d, margin, style)
    if verdict == "equivalent":
        text = f"{facts.b} is equivalent to {facts.a}: its {numbers.change}, {_inside(d, margin, numbers)}"
    elif verdict == "b better":
        text = f"{facts.b} is {style.better} than {facts.a}: its {numbers.change}, {numbers.values}"
    elif verdict == "a better":
        text = f"{facts.a} is {style.better} than {facts.b}, whose {numbers.change}, {numbers.values}"
    else:
        why = _why_not(d, margin, facts, style, numbers)
        text = f"Cannot tell {facts.a} and {facts.b} apart: the {style.label} of {facts.b} {numbers.bare}{why}"
    return f"{text}{unanswered(facts) if rate else ''}."


def observed(metric: str, a: float | None, b: float | None, facts: Facts) -> str:
    """``rtfx``, ``peak_rss_mb`` or ``failures`` in one sentence: numbers seen once, no claim."""
    if metric == "failures":
        return f"{facts.a} failed on {a or 0:.0f} and {facts.b} on {b or 0:.0f} of {facts.expected} clips."
    label, unit, digits = ("RTFx", "", 1) if metric == "rtfx" else ("Peak memory", " MB", 0)
    first, second = (f"{value:.{digits}f}{unit}" if value is not None else "not measured" for value in (a, b))
    return f"{label} of {facts.a} was {first} and of {facts.b} {second}, observed in one run without an interval."


def unanswered(facts: Facts) -> str:
    """The clips left out of the pairs, as a clause; empty if there are none."""
    if not facts.unanswered_a and not facts.unanswered_b:
        return ""
    return (
        f"; left out: {facts.a} did not answer {facts.unanswered_a} and "
        f"{facts.b} {facts.unanswered_b} of {facts.expected} clips"
    )


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Formatted parts of a sentence, all with the same number of decimals."""

    digits: int
    scale: float
    bare: str
    change: str
    values: str
    margin: str

    @classmethod
    def of(cls, d: Difference, margin: float | None, style: _Style) -> _Numbers:
        difference = d.difference or 0.0
        shown = [difference, d.ci_low or 0.0, d.ci_high or 0.0]
        digits = _digits([style.scale * value for value in shown])
        amount = f"{style.scale * abs(difference):.{digits}f}"
        direction = "higher" if difference > 0 else "lower"
        bare = f"is {amount} {style.unit} {direction}" if difference else "is the same"
        if d.ci_low is not None and d.ci_high is not None:
            ends = f"{fixed(style.scale * d.ci_low, digits)} to {fixed(style.scale * d.ci_high, digits)}"
            bare = f"{bare} ({100 * d.confidence:g} % interval {ends})"
        first, second = (f"{style.scale * (value or 0.0):.{digits}f}{style.short}" for value in (d.a, d.b))
        return cls(
            digits=digits,
            scale=style.scale,
            bare=bare,
            change=f"{style.label} {bare}",
            values=f"{second} against {first}",
            margin=f"{style.scale * (margin or 0.0):.4g} {style.unit}",
        )


def fixed(value: float, digits: int) -> str:
    """A number with that many decimals and never a negative zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _digits(values: list[float]) -> int:
    """One decimal, or two if one of the numbers would vanish with one."""
    return 2 if any(value and abs(value) < 0.05 for value in values) else 1  # noqa: PLR2004 - rounds to 0.0


def _inside(d: Difference, margin: float | None, numbers: _Numbers) -> str:
    low, high, limit = d.ci_low or 0.0, d.ci_high or 0.0, margin or 0.0
    if -limit <= low and high <= limit:
        return f"inside the margin of {numbers.margin}"
    ends = " to ".join(fixed(numbers.scale * (end or 0.0), numbers.digits) for end in (d.inner_low, d.inner_high))
    level = f"{100 * (2 * d.confidence - 1):.4g} %"
    return f"and its {level} interval {ends} lies inside the margin of {numbers.margin}"


def _nothing_to_judge(facts: Facts, style: _Style) -> str:
    if not facts.expected:
        return "the run has no clips"
    if not facts.pairs:
        return f"no clip was answered by both{unanswered(facts)}"
    if not facts.units:
        return f"the {facts.pairs} clips that both answered have no reference {style.things}{unanswered(facts)}"
    if facts.too_many_unanswered:
        worst, missing = max(((facts.a, facts.unanswered_a), (facts.b, facts.unanswered_b)), key=lambda pair: pair[1])
        return (
            f"{worst} did not answer {missing} of {facts.expected} clips, more than the {100 * MAX_UNANSWERED:g} % "
            "that may be left out of a verdict; table outcomes says why"
        )
    return ""


def _why_not(d: Difference, margin: float | None, facts: Facts, style: _Style, numbers: _Numbers) -> str:
    cluster = facts.cluster
    if d.clusters < MIN_CLUSTERS:
        what = f"{d.clusters} {cluster}{'s are' if d.clusters != 1 else ' is'}"
        return f", but {what} too few, at least {MIN_CLUSTERS} are needed; more {cluster}s would help"
    low, high = d.ci_low or 0.0, d.ci_high or 0.0
    if low > 0 or high < 0:
        return (
            f", but with {d.clusters} {cluster}s its p-value is only {d.p_value or 0.0:.2g}; more {cluster}s would help"
        )
    if low == high and margin and facts.units:
        needed = math.ceil(-math.log(1 - d.confidence) / margin)
        return (
            f", but {facts.units} {style.things} are too few to promise a margin of {numbers.margin}; "
            f"about {needed} are needed"
        )
    if margin is None:
        return f", which includes zero; more {cluster}s would narrow it"
    half = (high - low) / 2
    if 0 < margin < half:
        needed = _two_figures(d.clusters * (half / margin) ** 2)
        help_ = f"about {needed} {cluster}s instead of {d.clusters} would narrow it to the margin"
    else:
        help_ = f"more {cluster}s would narrow it"
    return f", which includes zero and reaches beyond the margin of {numbers.margin}; {help_}"


def _two_figures(value: float) -> int:
    """Rounded up to two significant figures: an estimate must not look exact."""
    step: int = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step
