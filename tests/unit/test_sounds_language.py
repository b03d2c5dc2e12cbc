"""Captions and questions about sounds, and how those of a model are read and scored."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from grym.corpus.sounds import (
    ATTRIBUTES,
    BACKGROUNDS,
    LABELS,
    PLAIN,
    TEMPLATES,
    Event,
    SoundClip,
    ask,
    captions,
    draw,
    draw_event,
    read_caption,
    score_answer,
    score_caption,
)


def events_of(relation: str, rng: np.random.Generator) -> tuple[Event, ...]:
    """Events as a clip of that relation may have them."""
    if not relation:
        return (draw_event(LABELS[int(rng.integers(len(LABELS)))], rng),)
    front = [x for x in LABELS if x != "silence" and (relation == "then" or x not in BACKGROUNDS)]
    first = front[int(rng.integers(len(front)))]
    back = [x for x in (BACKGROUNDS if relation == "over" else LABELS) if x not in {first, "silence"}]
    return draw_event(first, rng), draw_event(back[int(rng.integers(len(back)))], rng)


def clip(events: tuple[Event, ...], relation: str) -> SoundClip:
    """A clip of which only the facts matter."""
    return SoundClip("c", np.zeros(4, np.float32), events, relation, None, "none", "", ())


def test_there_are_forty_templates_and_each_names_what_it_should():
    """All templates differ, and have a place for each event."""
    every = [template for templates in TEMPLATES.values() for template in templates]
    assert len(set(every)) == len(every) >= 40
    assert all(("{b}" in template) == bool(relation) for relation, some in TEMPLATES.items() for template in some)
    assert all("{a}" in template for template in every)


@pytest.mark.parametrize("relation", ["", "then", "over"])
def test_every_caption_is_read_back(relation):
    """Label, attributes and relation of 150 captions are those that were written."""
    rng = np.random.default_rng(2)
    for _ in range(150):
        events = events_of(relation, rng)
        text = captions(events, relation, rng)
        assert text[0].isupper()
        assert text.endswith(".")
        assert score_caption(text, clip(events, relation)).right, text


@pytest.mark.parametrize(
    ("text", "labels", "relation"),
    [
        ("a dog barks twice, deep, then a siren wails slowly", ["dog bark", "siren"], "then"),
        ("A bell rings before a bird chirps", ["bell", "bird chirp"], "then"),
        ("Rain after a horn.", ["horn", "rain"], "then"),
        ("heavy rain with a low bell in the foreground", ["bell", "rain"], "over"),
        ("A dog barks while there is rain", ["dog bark", "rain"], "over"),
        ("RAINING!!", ["rain"], ""),
    ],
)
def test_variants_of_captions_are_understood(text, labels, relation):
    """Other words for the same facts are read too."""
    facts = read_caption(text)
    assert facts is not None
    assert [event.label for event in facts.events] == labels
    assert facts.relation == relation


@pytest.mark.parametrize(
    "text", ["", "music", "a bell and a siren", "a bell, a siren, then rain", "\x00{a}{b}", "then over"]
)
def test_what_cannot_be_read_is_none(text):
    """No sound, or sounds whose relation is not said, are no facts."""
    assert read_caption(text) is None


def test_a_caption_is_scored_by_its_parts():
    """A wrong attribute, a wrong label and a wrong order each cost their own part."""
    bell, rain = (
        Event("bell", {"pitch": "low", "count": "two"}),
        Event("rain", {"intensity": "heavy", "change": "fading"}),
    )
    then = clip((bell, rain), "then")
    assert score_caption("A low bell struck twice, then heavy fading rain.", then).right
    wrong = score_caption("A high bell struck twice, then heavy fading rain.", then)
    assert (wrong.labels, wrong.attributes, wrong.relation) == (True, False, True)
    turned = score_caption("Heavy fading rain, then a low bell struck twice.", then)
    assert (turned.labels, turned.attributes, turned.relation) == (True, True, False)
    other = score_caption("A low horn sounding twice, then heavy fading rain.", then)
    assert (other.labels, other.attributes, other.right) == (False, False, False)
    missing = score_caption("A bell struck twice, then heavy fading rain.", then)
    assert (missing.labels, missing.attributes) == (True, False)
    both = score_caption("A bell that is low and high struck twice, then heavy fading rain.", then)
    assert not both.attributes
    assert not score_caption("nothing of use", then).labels


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("yes", "yes", True), ("Yes, it is.", "yes", True), ("yes and no", "yes", False), ("no", "yes", False),
        ("It is a dog barking.", "dog bark", True), ("a bell", "dog bark", False), ("dog and bell", "bell", False),
        ("twice", "two", True), ("2", "two", True), ("two or three", "two", False), ("", "two", False),
        ("High-pitched.", "high", True), ("low", "high", False), ("quickly", "fast", True), ("nearby", "near", True),
        ("two tones", "two-tone", True), ("blue", "blue", True), ("", "yes", False),
    ],
)  # fmt: skip
def test_answers_are_scored(text, answer, right):
    """An answer counts in other words too, but not beside another answer of its kind."""
    assert score_answer(text, answer) is right


def test_no_constant_answer_does_well():
    """Of 1200 questions no answer is right for more than a sixth; presence is as often yes as no; all count."""
    rng = np.random.default_rng(3)
    answers: Counter[str] = Counter()
    for index in range(600):
        relation = ("", "then", "over")[index % 3]
        events = events_of(relation, rng)
        pairs = ask(events, relation, rng)
        assert len(pairs) == 2
        for question, answer in pairs:
            assert question.endswith("?")
            assert score_answer(answer, answer)
            answers[answer] += 1
    assert max(answers.values()) < 1200 / 6
    assert 0.7 < answers["yes"] / answers["no"] < 1.4
    said = {value for keys in ATTRIBUTES.values() for values in keys.values() for value in values}
    assert said | set(LABELS) - {"silence"} <= set(answers)


def test_plain_captions_name_sounds_in_order() -> None:
    """Every plain template names the first sound first, and is read as what it says."""
    rng = np.random.default_rng(4)
    for number in range(120):
        clip = draw(9, number, "train", mixture=number % 3 > 0)
        said = captions(clip.events, clip.relation, rng, plain=True)
        assert score_caption(said, clip).right, said
    assert all(set(some) <= set(TEMPLATES[relation]) for relation, some in PLAIN.items())
    assert all(template.index("{a}") < template.index("{b}") for key in ("then", "over") for template in PLAIN[key])
