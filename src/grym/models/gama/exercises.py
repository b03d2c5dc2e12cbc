"""What ``gama-mini`` is asked in training, and how: paraphrases of every task.

Knows nothing about audio or networks. The instructions are those that :mod:`.prompts` and people may use; a question
comes with its clip.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grym.models.gama.prompts import INSTRUCTIONS, fill

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

# The first of each is the default of :mod:`.prompts`, and is drawn as often as all others together.
PARAPHRASES: Final[Mapping[str, tuple[str, ...]]] = {
    "describe": (
        INSTRUCTIONS["describe"],
        "Describe the audio in detail.",
        "Describe the sound.",
        "Describe what you hear.",
        "What can be heard?",
        "Write an audio caption describing the sound.",
        "Write a caption for this clip.",
        "Caption the audio.",
        "Tell me what happens in the recording.",
    ),
    "classify": (
        INSTRUCTIONS["classify"],
        "Classify the sound.",
        "Classify the audio clip.",
        "Name the sound event.",
        "Which sound event is in the clip?",
        "What is the label of this sound?",
        "Label the audio.",
        "Which class does the sound belong to?",
    ),
    "transcribe": (
        INSTRUCTIONS["transcribe"],
        "Transcribe the speech.",
        "Transcribe the audio.",
        "Transcribe the digits.",
        "Write down what is said.",
        "What is said in the audio?",
        "What does the speaker say?",
        "Which digits are spoken?",
        "Convert the speech to text.",
    ),
}
# Questions of :func:`grym.corpus.sounds.ask` in other words; ``{x}`` is what the first group of the pattern found.
REWORDED: Final[Sequence[tuple[re.Pattern[str], tuple[str, ...]]]] = tuple(
    (re.compile(pattern), others)
    for pattern, others in (
        (
            r"(?:Is there (.+) in the clip|Do you hear (.+))\?",
            (
                "Can you hear {x}?",
                "Is {x} heard?",
                "Can {x} be heard?",
                "Does the clip contain {x}?",
                "Is {x} present?",
                "Is there {x}?",
                "Is {x} in the audio?",
                "Does one hear {x}?",
            ),
        ),
        (
            r"(?:Is|Does) (.+?) (?:sound )?low or high\?",
            (
                "What is the pitch of {x}?",
                "What's the pitch of {x}?",
                "How high is {x}?",
                "Does {x} have a low or high pitch?",
            ),
        ),
        (
            r"Is (?:the pace of )?(.+) slow or fast\?",
            ("How fast is {x}?", "What is the pace of {x}?", "What's the pace of {x}?", "Is {x} fast or slow?"),
        ),
        (
            r"(?:Does|Is) (.+) (?:rise or fall|rising or falling)\?",
            (
                "What is the direction of {x}?",
                "Which way does {x} go?",
                "Does {x} go up or down?",
                "Is {x} falling or rising?",
            ),
        ),
        (r"Is (.+) near or far\?", ("How far is {x}?", "What is the distance of {x}?", "Is {x} far or near?")),
        (r"Is (.+) light or heavy\?", ("How heavy is {x}?", "What is the intensity of {x}?", "Is {x} heavy or light?")),
        (r"Is (.+) short or long\?", ("How long is {x}?", "What is the length of {x}?", "Is {x} long or short?")),
        (r"Is (.+) approaching or leaving\?", ("Which way does {x} move?", "Is {x} leaving or approaching?")),
        (r"Is (.+) wailing or two-tone\?", ("What is the pattern of {x}?", "Is {x} two-tone or wailing?")),
        (r"How many (claps|knocks) are there\?", ("How many {x}?", "Count the {x}.", "What is the number of {x}?")),
        (
            r"How many times does (.+)\?",
            ("How often does {x}?", "What is the number of times {x}s?", "Count how often {x}s."),
        ),
        (
            r"(?:Which sound comes first|What do you hear first)\?",
            ("Which sound is first?", "Name the first sound.", "What comes first?"),
        ),
        (
            r"(?:Which sound comes second|What do you hear last)\?",
            ("Which sound is second?", "Name the second sound.", "What comes second?", "What comes last?"),
        ),
        (
            r"(?:What is in the background|Which sound is behind the other)\?",
            ("Which sound is in the background?", "Name the background sound."),
        ),
        (
            r"(?:What is in the foreground|Which sound is in front)\?",
            ("Which sound is in the foreground?", "Name the foreground sound."),
        ),
        (r"How many different sounds are there\?", ("How many sounds are there?", "Count the different sounds.")),
        (r"What sound is this\?", ("Which sound is it?", "What is this sound?", "Name the sound.")),
    )
)
REWORDED_SHARE: Final = 0.4
# Prompts are paraphrased by people in ways that nobody listed: some have no capital or no full stop, few are shouted.
PLAIN_SHARE: Final = 0.25
SHOUTED_SHARE: Final = 0.04


@dataclass(frozen=True, slots=True)
class Exercise:
    """One prompt (an instruction, not yet in the template) and the answer to it."""

    instruction: str
    answer: str


def phrase(task: str, rng: np.random.Generator) -> str:
    """An instruction of a task, now and then without capital or full stop."""
    known = PARAPHRASES[task]
    index = 0 if rng.random() < 0.5 else int(rng.integers(1, len(known)))  # noqa: PLR2004 - see above
    return roughen(known[index], rng) if index else known[0]


def reword(question: str, rng: np.random.Generator) -> str:
    """A question in other words, now and then; one that no pattern knows stays as it is."""
    if rng.random() >= REWORDED_SHARE:
        return question
    for pattern, others in REWORDED:
        found = pattern.fullmatch(question)
        if found:
            subject = next((group for group in found.groups() if group), "")
            return others[int(rng.integers(len(others)))].format(x=subject)
    return question


def roughen(text: str, rng: np.random.Generator) -> str:
    """Text as people type it: sometimes in lower case, shouted, or without the mark at its end."""
    if rng.random() < SHOUTED_SHARE:
        return text.upper()
    if rng.random() < PLAIN_SHARE:
        text = text[:1].lower() + text[1:]
    if rng.random() < PLAIN_SHARE:
        text = text.rstrip(".?")
    return text


def texts(answers: Sequence[str], questions: Sequence[str]) -> Iterator[str]:
    """Everything that the tokenizer is made from."""
    for known in PARAPHRASES.values():
        for text in known:
            yield fill(text)
            yield fill(text[:1].lower() + text[1:].rstrip(".?"))
    for question in questions:
        yield fill(question)
    yield from answers
