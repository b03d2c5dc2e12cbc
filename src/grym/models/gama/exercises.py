"""What ``gama-mini`` is asked in training, and how: paraphrases of every task.

Knows nothing about audio or networks. The instructions are those that :mod:`.prompts` and people may use; a question
comes with its clip.
"""

from __future__ import annotations

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
        "What do you hear?",
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
# Prompts are paraphrased by people in ways that nobody listed: some have no capital or no full stop.
PLAIN_SHARE: Final = 0.25


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


def roughen(text: str, rng: np.random.Generator) -> str:
    """Text as people type it: sometimes in lower case, sometimes without the mark at its end."""
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
