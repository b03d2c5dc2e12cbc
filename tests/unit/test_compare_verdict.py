"""The verdict table, and the sentences a person reads."""

import pytest

from grym.compare.significance import Difference, rate_difference
from grym.compare.verdict import verdict_of
from grym.compare.wording import Facts, observed, sentence

FACTS = Facts("mini", "int8", 300, 0, 0, 300, "speaker", 1200)


def make(difference, wide, inner=None, *, p=0.5, clusters=20, a=0.05):
    """A difference with symmetric intervals."""
    inner = 0.8 * wide if inner is None else inner
    ends = (difference - wide, difference + wide)
    inside = (difference - inner, difference + inner)
    return Difference(a, a + difference, difference, *ends, 0.95, p, "speaker-clustered t", clusters, wide / 2, *inside)


@pytest.mark.parametrize(
    ("d", "margin", "verdict"),
    [
        (make(-0.02, 0.01, p=0.001), 0.005, "b better"),
        (make(0.02, 0.01, p=0.001), 0.005, "a better"),
        (make(0.001, 0.003), 0.005, "equivalent"),
        (
            make(0.002, 0.0035, 0.0029),
            0.005,
            "equivalent",
        ),  # the 95 % interval leaves the margin, the 90 % one does not
        (make(0.002, 0.001, p=0.001), 0.005, "equivalent"),  # significant, and too small to matter
        (make(0.002, 0.001, p=0.001), None, "a better"),
        (make(0.001, 0.008), 0.005, "cannot tell"),
        (make(0.001, 0.003), 0.0, "cannot tell"),
        (make(0.0, 0.0, 0.002, p=1.0), 0.005, "equivalent"),
        (make(0.0, 0.0, 0.02, p=1.0), 0.005, "cannot tell"),  # identical in too few words
        (make(0.0, 0.0, 0.0, p=1.0), None, "cannot tell"),
        (make(0.1, 0.0, 0.02, p=0.06), 0.005, "cannot tell"),  # no variance, but p is not below alpha
        (make(-0.5, 0.01, p=1e-9, clusters=5), 0.005, "cannot tell"),
        (make(0.0, 0.001, p=1.0, clusters=5), 0.5, "cannot tell"),
        (make(-0.5, 0.01, p=1e-9, clusters=6), 0.005, "b better"),
        (Difference(0.1, 0.2, 0.1, None, None, 0.95, None, "t", 20), 0.5, "cannot tell"),
        (Difference(None, None, None, None, None, 0.95, None, "t", 20), 0.5, "cannot tell"),
    ],
)
def test_verdict_table(d, margin, verdict):
    """Each row of the decision: few clusters, TOST, significance, nothing."""
    assert verdict_of(d, margin) == verdict


def test_higher_can_be_better():
    """For a metric such as RTFx the arm with the higher value wins."""
    d = make(5.0, 1.0, p=0.001)
    assert verdict_of(d, None, lower_is_better=False) == "b better"
    assert verdict_of(d, None) == "a better"


def test_swapping_the_arms_swaps_the_verdict():
    """Who is called a has no influence on who wins."""
    errors, worse = [1, 0, 2, 1, 0, 1, 2], [4, 4, 5, 3, 5, 4, 6]
    units, clusters = [50] * 7, list(range(7))
    assert verdict_of(rate_difference(errors, worse, units, clusters, 0.95), 0.005) == "a better"
    assert verdict_of(rate_difference(worse, errors, units, clusters, 0.95), 0.005) == "b better"


@pytest.mark.parametrize(
    ("metric", "verdict", "d", "margin", "text"),
    [
        (
            "wer",
            "equivalent",
            make(0.001, 0.002),
            0.005,
            (
                "int8 is equivalent to mini: its WER is 0.1 points higher (95 % interval -0.1 to 0.3), inside "
                "the margin of 0.5 points."
            ),
        ),
        (
            "wer",
            "equivalent",
            make(0.002, 0.004, 0.0028),
            0.005,
            (
                "int8 is equivalent to mini: its WER is 0.2 points higher (95 % interval -0.2 to 0.6), and its "
                "90 % interval -0.1 to 0.5 lies inside the margin of 0.5 points."
            ),
        ),
        (
            "wer",
            "equivalent",
            make(0.0, 0.0, 0.0025, p=1.0),
            0.005,
            (
                "int8 is equivalent to mini: its WER is the same (95 % interval 0.0 to 0.0), inside the margin "
                "of 0.5 points."
            ),
        ),
        (
            "wer",
            "b better",
            make(-0.02, 0.01, p=0.001),
            0.005,
            "int8 is better than mini: its WER is 2.0 points lower (95 % interval -3.0 to -1.0), 3.0 % against 5.0 %.",
        ),
        (
            "cer",
            "a better",
            make(0.02, 0.01, p=0.001),
            None,
            "mini is better than int8, whose CER is 2.0 points higher (95 % interval 1.0 to 3.0), 7.0 % against 5.0 %.",
        ),
        (
            "wer",
            "cannot tell",
            make(0.003, 0.01),
            0.005,
            (
                "Cannot tell mini and int8 apart: the WER of int8 is 0.3 points higher (95 % interval -0.7 to "
                "1.3), which includes zero and reaches beyond the margin of 0.5 points; about 80 speakers "
                "instead of 20 would narrow it to the margin."
            ),
        ),
        (
            "wer",
            "cannot tell",
            make(0.003, 0.0044),
            0.0045,
            (
                "Cannot tell mini and int8 apart: the WER of int8 is 0.3 points higher (95 % interval -0.1 to "
                "0.7), which includes zero and reaches beyond the margin of 0.45 points; more speakers would "
                "narrow it."
            ),
        ),
        (
            "cer",
            "cannot tell",
            make(0.0003, 0.0031),
            None,
            (
                "Cannot tell mini and int8 apart: the CER of int8 is 0.03 points higher (95 % interval -0.28 to "
                "0.34), which includes zero; more speakers would narrow it."
            ),
        ),
        (
            "wer",
            "cannot tell",
            make(-0.1, 0.01, clusters=3),
            0.005,
            (
                "Cannot tell mini and int8 apart: the WER of int8 is 10.0 points lower (95 % interval -11.0 to "
                "-9.0), but 3 speakers are too few, at least 6 are needed; more speakers would help."
            ),
        ),
        (
            "wer",
            "cannot tell",
            Difference(0.05, 0.15, 0.1, None, None, 0.95, None, "speaker-clustered t", 1),
            0.005,
            (
                "Cannot tell mini and int8 apart: the WER of int8 is 10.0 points higher, but 1 speaker is too "
                "few, at least 6 are needed; more speakers would help."
            ),
        ),
        (
            "wer",
            "cannot tell",
            make(0.0, 0.0, 0.02, p=1.0),
            0.001,
            (
                "Cannot tell mini and int8 apart: the WER of int8 is the same (95 % interval 0.0 to 0.0), but "
                "1200 words are too few to promise a margin of 0.1 points; about 2996 are needed."
            ),
        ),
        (
            "wer",
            "cannot tell",
            make(0.1, 0.0, 0.02, p=0.0625),
            0.005,
            (
                "Cannot tell mini and int8 apart: the WER of int8 is 10.0 points higher (95 % interval 10.0 to "
                "10.0), but with 20 speakers its p-value is only 0.062; more speakers would help."
            ),
        ),
        (
            "latency_p50",
            "b better",
            make(-3.0, 1.0, p=0.001, a=43.25),
            None,
            (
                "int8 is faster than mini: its median latency is 3.0 ms lower (95 % interval -4.0 to -2.0), 40.2"
                " ms against 43.2 ms."
            ),
        ),
    ],
)
def test_sentences(metric, verdict, d, margin, text):
    """The sentence states the verdict, its numbers, and for "cannot tell" why and what would help."""
    assert sentence(metric, verdict, d, margin, FACTS) == text


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (
            Facts("mini", "int8", 300, 2, 0, 298, "clip", 1200),
            (
                "int8 is equivalent to mini: its WER is 0.1 points higher (95 % interval -0.1 to 0.3), inside "
                "the margin of 0.5 points; left out: mini did not answer 2 and int8 0 of 300 clips."
            ),
        ),
        (
            Facts("mini", "mini", 300, 0, 0, 300, "clip", 1200),
            (
                "mini (b) is equivalent to mini (a): its WER is 0.1 points higher (95 % interval -0.1 to 0.3), "
                "inside the margin of 0.5 points."
            ),
        ),
        (
            Facts("mini", "int8", 300, 3, 16, 284, "clip", 1200),
            (
                "Cannot tell mini and int8 apart: int8 did not answer 16 of 300 clips, more than the 5 % that "
                "may be left out of a verdict; table outcomes says why."
            ),
        ),
        (
            Facts("mini", "int8", 10, 10, 0, 0),
            (
                "Cannot tell mini and int8 apart: no clip was answered by both; left out: mini did not answer 10"
                " and int8 0 of 10 clips."
            ),
        ),
        (
            Facts("mini", "int8", 10, 0, 0, 10),
            "Cannot tell mini and int8 apart: the 10 clips that both answered have no reference words.",
        ),
        (Facts("mini", "int8", 0, 0, 0, 0), "Cannot tell mini and int8 apart: the run has no clips."),
    ],
)
def test_sentences_name_what_is_missing(facts, text):
    """Failures are named, and nothing to judge is said plainly."""
    assert sentence("wer", "equivalent", make(0.001, 0.002), 0.005, facts) == text


@pytest.mark.parametrize(
    ("metric", "a", "b", "text"),
    [
        ("rtfx", 30.0, 45.25, "RTFx of mini was 30.0 and of int8 45.2, observed in one run without an interval."),
        (
            "peak_rss_mb",
            912.4,
            None,
            "Peak memory of mini was 912 MB and of int8 not measured, observed in one run without an interval.",
        ),
        ("failures", 2.0, 0.0, "mini failed on 2 and int8 on 0 of 300 clips."),
    ],
)
def test_observed_sentences_claim_nothing(metric, a, b, text):
    """What was seen once is reported without a verdict."""
    assert observed(metric, a, b, FACTS) == text
