"""What is wrong with a generated answer, if anything: refusal, repetition loop, empty, truncated, wrong task.

Knows nothing about models. Each rule looks at text and at whether the text ended
by itself; none of them knows what would have been right.
"""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

Failure = Literal["", "refusal", "repetition", "empty", "truncated", "wrong-task"]
FAILURES: Final[tuple[str, ...]] = tuple(kind for kind in get_args(Failure) if kind)
LOOPS: Final = 3  # a phrase said this many times in a row is a loop
LOOP_WORDS: Final = 12  # longest phrase that is looked for
SHORT_PHRASE: Final = 2  # phrases up to this length need one more repeat: "ha ha ha" is an answer
SHORT_LOOPS: Final = 5
LOOP_SHARE: Final = 0.5  # and the repeats make up this share of the words

_REFUSAL: Final = re.compile(
    r"\b(i('m| am)? (can('|no)?t|cannot|can not|unable to|not able to|sorry)|as an ai|i (do not|don't) have (the )?"
    r"(ability|access)|(sorry|apologi[sz]e)\b.{0,40}\b(can('|no)?t|cannot|unable)|no audio (was )?(provided|given))\b",
    re.IGNORECASE,
)
_DESCRIPTION: Final = re.compile(
    r"\b(the (audio|sound|recording|clip|speaker|speech|speaker's)|(a|the) (man|woman|person|male|female|child|voice)"
    r"( voice)?) (is|are|was|contains?|features?|consists?|sounds?|speaks?|says?|says|talks?|appears?|can be heard)\b"
    r"|\bin the background\b|\bcan be heard\b",
    re.IGNORECASE,
)


def find_failure(text: str, task: str, *, ended: bool = True) -> Failure:  # noqa: PLR0911 - one for each class
    """The first failure that applies, or the empty string.

    Args:
        text: the answer.
        task: what was asked: ``describe``, ``classify``, ``question`` or ``transcribe``.
        ended: whether the text ended by itself, not at the limit of new tokens.

    Example:
        >>> find_failure("A dog barks. A dog barks. A dog barks. A dog barks.", "describe")
        'repetition'
        >>> find_failure("The audio contains a man who counts.", "transcribe")
        'wrong-task'
        >>> find_failure("one two three", "transcribe")
        ''
    """
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())
    if not words:
        return "empty"
    if is_loop(words, speech=task == "transcribe"):
        return "repetition"
    if not ended:
        return "truncated"
    if task != "transcribe" and _REFUSAL.search(text):
        return "refusal"
    if task == "transcribe":
        # Somebody may say these very sentences; a transcript that is nothing else is taken for a failure.
        opening = text.strip()[:80]
        if _REFUSAL.match(opening):
            return "refusal"
        if _DESCRIPTION.match(opening):
            return "wrong-task"
    return ""


def is_loop(words: list[str], *, speech: bool = False) -> bool:
    """Whether a phrase of 1 to 12 words is repeated in a row, and the repeats are half of the words or more.

    Args:
        words: normalised words.
        speech: a transcript: people do repeat single words, so one-word and two-word phrases need more repeats.
    """
    for size in range(1, min(LOOP_WORDS, len(words) // LOOPS) + 1):
        needed = LOOPS if size > SHORT_PHRASE else SHORT_LOOPS + (SHORT_LOOPS if speech else 0)
        run = best = 0
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            best = max(best, run)
        repeats = best // size + 1
        if repeats >= needed and best + size >= LOOP_SHARE * len(words):
            return True
    return False
