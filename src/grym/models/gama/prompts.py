"""The prompt template of the published checkpoints and the default instruction of each task.

Knows nothing about tokenizers or audio.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final, Literal, get_args

from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Task = Literal["describe", "classify", "question", "transcribe"]
TASKS: Final[tuple[str, ...]] = get_args(Task)
INSTRUCTIONS: Final[Mapping[str, str]] = {
    "describe": "Describe the audio.",
    "classify": "Classify the sound events in the audio clip.",
    "question": "",  # there is no default question
    "transcribe": "Transcribe the speech in the audio.",
}


def fill(instruction: str, context: str = "") -> str:
    r"""The text in front of an answer (template ``alpaca_short``).

    Example:
        >>> fill("Describe the audio.")
        '### Instruction:\nDescribe the audio.\n\n### Response:\n'
    """
    middle = f"### Input:\n{context}\n\n" if context else ""
    return f"### Instruction:\n{instruction}\n\n{middle}### Response:\n"


def choose_task(asked: str, default: str) -> str:
    """The task of a call: the one asked for, else the model's own.

    Raises:
        ConfigError: ``unknown-task``: there is no such task.
    """
    task = asked or default
    if task not in TASKS:
        msg = f"Unknown task {task!r}; known are {', '.join(TASKS)}."
        raise ConfigError(msg, code="unknown-task", hint="Mend the option task.")
    return task


def choose_instruction(task: str, prompt: str, defaults: Mapping[str, str]) -> str:
    """The instruction of a call: the prompt that was given, else the task's own.

    Args:
        task: one of :data:`TASKS`.
        prompt: what a person wrote, empty for the default.
        defaults: instructions of the checkpoint, which go before those of this module.

    Raises:
        ConfigError: ``empty-prompt``: nothing that can be seen, or a question that was not given.
    """
    instruction = prompt or defaults.get(task) or INSTRUCTIONS[task]
    if is_blank(instruction):
        msg = "The prompt is empty." if prompt or task != "question" else "The task 'question' needs a question."
        raise ConfigError(msg, code="empty-prompt", hint="Give the option prompt, for example 'What is heard?'.")
    return instruction.strip()


def is_blank(text: str) -> bool:
    r"""Whether nothing of a text can be seen: white space, and marks without width only.

    Example:
        >>> is_blank(" \\u200b\\n"), is_blank("a")
        (True, False)
    """
    return all(letter.isspace() or unicodedata.category(letter) == "Cf" for letter in text)


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels without white space around them.

    Raises:
        ConfigError: ``bad-labels`` (one text instead of several), ``no-labels``, ``empty-label`` or
            ``duplicate-labels``.
    """
    if isinstance(labels, str):
        msg = f"Labels are one text, {labels[:40]!r}; a sequence of texts is wanted."
        raise ConfigError(msg, code="bad-labels", hint="Give a tuple, for example ('bell', 'rain').")
    clean = tuple("" if is_blank(label) else label.strip() for label in labels)
    if not clean:
        msg = "The task 'classify' needs labels, and none were given."
        raise ConfigError(msg, code="no-labels", hint="Give the option labels, for example ['bell', 'rain'].")
    if not all(clean):
        msg = f"Label {clean.index('') + 1} of {len(clean)} is empty."
        raise ConfigError(msg, code="empty-label", hint="Leave it out.")
    twice = sorted({label for label in clean if clean.count(label) > 1})
    if twice:
        msg = f"Labels occur more than once: {', '.join(map(repr, twice))}."
        raise ConfigError(msg, code="duplicate-labels", hint="Give each label once.")
    return clean
