"""Normalisers: what they do, and that a row can name exactly which one it was."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper_normalizer.english import EnglishTextNormalizer

from grym.compare.normalize import get_normalizer
from grym.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none", "  Hello,\tWorld! \n", "Hello, World!"),
        ("basic", "  Hello,\tWorld! \n", "hello world"),
        ("basic", "one [noise] two (um)", "one two"),
        ("basic", "Größe", "größe"),
        ("basic", "...", ""),
        ("english", "Don't colour it", "do not color it"),
        ("english", "one two", "12"),
    ],
)
def test_rules(name, text, expected):
    """Each normaliser does what its docstring says, joined digits of English included."""
    assert get_normalizer(name)(text) == expected


def test_label_names_library_version_and_digest():
    """A stored label holds the name, the library with its version and 8 hex digits."""
    assert re.fullmatch(r"basic@whisper-normalizer-\d+\.\d+\.\d+#[0-9a-f]{8}", get_normalizer("basic").label)
    assert get_normalizer("none").label.startswith("none@grym-1#")


def test_digests_differ_and_are_stable():
    """Different rules have different digests; the same rules have the same one when built afresh."""
    names = ("none", "basic", "english")
    before = [get_normalizer(name).digest for name in names]
    get_normalizer.cache_clear()
    assert [get_normalizer(name).digest for name in names] == before
    assert len(set(before)) == len(names)


def test_unknown_name_lists_the_known_ones():
    """A wrong name is a typed error that says which names exist."""
    with pytest.raises(ConfigError, match=r"'klingon'.*none, basic, english") as caught:
        get_normalizer("klingon")
    assert caught.value.code == "unknown-normalizer"


NUMBERS = ("one", "hundred", "o'clock", "one's", "point", "oh", "per", "cents", "twenty-one", "3", "$5")
TOGETHER = ("he's", "she'd", "it's", "been", "gone", "gotta", "gotten", "done", "and", "a", "half", "'tis", "n't", "'s")
ALONE = (
    "Colour", "MR.", "st", "wanna", "imma", "hmm", "um,", "don't", "y'all", "rock'n'roll", "dogs'", "so.", "what?!",
    "a.b", "x-y", "[noise]", "(uh)", "café", "\u212aelvin", "isn't,", "organise", "d'you",
)  # fmt: skip


@given(st.lists(st.sampled_from(NUMBERS + TOGETHER + ALONE), max_size=7), st.sampled_from((" ", "  ", " \n")))
@settings(max_examples=400, deadline=None)
def test_words_that_are_read_one_by_one_give_what_the_library_gives(words, space):
    """The short cut of the English rules is none in what comes out, whatever stands beside what."""
    text = space.join(words)
    assert get_normalizer("english")(text) == " ".join(EnglishTextNormalizer()(text).split())
