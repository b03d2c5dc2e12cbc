"""The verdict on label accuracy as one plain sentence.

Knows nothing about how numbers were obtained. Accuracies are fractions in, per cent
and points (percentage points) out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grym.compare.wording import MAX_UNANSWERED, MIN_CLUSTERS, fixed, unanswered

if TYPE_CHECKING:
    from grym.compare.exact_tests import McNemar
    from grym.compare.significance import Difference
    from grym.compare.wording import Facts, Verdict

_NAMES: Final = {
    "accuracy": "names the right label in",
    "accuracy_clean": "names the right label, where neither arm's text has a failure class, in",
    "accuracy_mixtures": "names all labels of a mixture in",
    "any_of_mixtures": "names a right label of a mixture in",
}


def accuracy_sentence(metric: str, verdict: Verdict, d: Difference, margin: float, facts: Facts, test: McNemar) -> str:
    """The verdict on one of the accuracies in one sentence.

    Args:
        metric: ``accuracy``, ``accuracy_clean``, ``accuracy_mixtures`` or ``any_of_mixtures``.
        verdict: what was decided.
        d: the difference behind it.
        margin: equivalence margin as a fraction.
        facts: names and counts; ``units`` are the clips behind the accuracies.
        test: which clips only one of the arms got right.

    Example:
        >>> from grym.compare.exact_tests import McNemar
        >>> from grym.compare.significance import Difference
        >>> from grym.compare.wording import Facts
        >>> d = Difference(0.9, 0.98, 0.08, 0.03, 0.13, 0.95, 0.0078, "", 100)
        >>> facts = Facts("old", "new", 100, 0, 0, 100, units=100)
        >>> accuracy_sentence("accuracy", "b better", d, 0.02, facts, McNemar(90, 0, 8, 2, 0.0078))
        'new is better than old: it names the right label in 98.0 % of 100 clips, old in 90.0 % (8.0 points more, \
95 % interval 3.0 to 13.0; 8 clips that only new got right against 0, p = 0.0078).'
    """
    if reason := _nothing(facts):
        return f"Cannot tell {facts.a} and {facts.b} apart: {reason}."
    name = _NAMES[metric]
    a, b = (f"{100 * (value or 0.0):.1f} %" for value in (d.a, d.b))
    numbers = _numbers(d, facts, test, first=verdict == "a better")
    clips = f"{facts.units} clips"
    if verdict == "a better":
        text = f"{facts.a} is better than {facts.b}: it {name} {a} of {clips}, {facts.b} in {b} ({numbers})"
    elif verdict == "b better":
        text = f"{facts.b} is better than {facts.a}: it {name} {b} of {clips}, {facts.a} in {a} ({numbers})"
    elif verdict == "equivalent":
        text = (
            f"{facts.b} is equivalent to {facts.a}: it {name} {b} of {clips}, {facts.a} in {a} ({numbers}), "
            f"{_inside(d, margin)}"
        )
    else:
        text = (
            f"Cannot tell {facts.a} and {facts.b} apart: {facts.b} {name} {b} of {clips}, {facts.a} in {a} ({numbers})"
            f"{_why_not(d, margin, facts)}"
        )
    return f"{text}{unanswered(facts)}."


def _nothing(facts: Facts) -> str:
    if not facts.expected:
        return "the run has no clips"
    if not facts.units:
        return f"no clip was answered by both{unanswered(facts)}"
    if facts.too_many_unanswered:
        worst, missing = max(((facts.a, facts.unanswered_a), (facts.b, facts.unanswered_b)), key=lambda pair: pair[1])
        return (
            f"{worst} did not answer {missing} of {facts.expected} clips, more than the {100 * MAX_UNANSWERED:g} % "
            "that may be left out of a verdict; table outcomes says why"
        )
    return ""


def _numbers(d: Difference, facts: Facts, test: McNemar, *, first: bool) -> str:
    """Difference, interval and discordant clips, from the side of the arm that the sentence is about."""
    sign = -1 if first else 1
    difference = sign * (d.difference or 0.0)
    more = f"{100 * abs(difference):.1f} points {'more' if difference > 0 else 'less'}" if difference else "the same"
    interval = ""
    if d.ci_low is not None and d.ci_high is not None:
        ends = sorted((100 * sign * d.ci_low, 100 * sign * d.ci_high))
        interval = f", {100 * d.confidence:g} % interval {fixed(ends[0], 1)} to {fixed(ends[1], 1)}"
    mine, other = (facts.a, facts.b) if first else (facts.b, facts.a)
    won, lost = (test.only_a_right, test.only_b_right) if first else (test.only_b_right, test.only_a_right)
    if won == lost == 0:
        apart = f"no clip that only {mine} or only {other} got right"
    else:
        p = d.p_value if d.p_value is not None else test.p_value
        said = "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"  # noqa: PLR2004 - what two figures can show
        apart = f"{won} clip{'' if won == 1 else 's'} that only {mine} got right against {lost}, {said}"
    return f"{more}{interval}; {apart}"


def _inside(d: Difference, margin: float) -> str:
    """Which of the intervals lies inside the margin: the narrower one decides, and often the wide one does too."""
    limit = f"the margin of {100 * margin:.4g} points"
    if -margin <= (d.ci_low or 0.0) and (d.ci_high or 0.0) <= margin:
        return f"inside {limit}"
    ends = " to ".join(fixed(100 * (end or 0.0), 1) for end in (d.inner_low, d.inner_high))
    return f"and the {100 * (2 * d.confidence - 1):.4g} % interval {ends} lies inside {limit}"


def _why_not(d: Difference, margin: float, facts: Facts) -> str:
    if d.clusters < MIN_CLUSTERS:
        what = f"{d.clusters} {facts.cluster}{'s are' if d.clusters != 1 else ' is'}"
        return f"; {what} too few, at least {MIN_CLUSTERS} are needed"
    low, high = d.ci_low or 0.0, d.ci_high or 0.0
    if low > 0 or high < 0 or max(-low, high) <= margin:
        return f"; more {facts.cluster}s would help"
    return f", which includes zero and reaches beyond the margin of {100 * margin:.4g} points"
