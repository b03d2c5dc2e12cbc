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

LETTER_LOOPS: Final = 8  # a piece of a word said this many times in a row is a loop
LETTER_SHARE: Final = 0.5  # and the repeats make up this share of the text, white space left out
SENTENCE_WORDS: Final = 24  # longer transcripts that begin like a description are taken for speech

_REFUSAL: Final = re.compile(
    r"\b(i('m| am)? (can('|no)?t|cannot|can not|unable to|not able to|sorry)|as an? (ai|(large )?language model)"
    r"|i (do not|don't) (have (the )?(ability|access)|process)"
    r"|(sorry|apologi[sz]e)\b.{0,40}\b(can('|no)?t|cannot|unable)|unfortunately\b.{0,30}\bno audio"
    r"|no audio (was |is )?(provided|given|attached))\b",
    re.IGNORECASE,
)
_DESCRIPTION: Final = re.compile(
    r"\b(the (audio|sound|recording|clip|speaker|speech|speaker's)|(a|the) (man|woman|person|male|female|child|voice)"
    r"( voice)?) (is|are|was|contains?|features?|consists?|sounds?|speaks?|says?|says|talks?|appears?|can be heard)\b"
    r"|\bthe (audio|sound|recording|clip) (has|holds|is of)\b|\bin the background\b|\bcan be heard\b",
    re.IGNORECASE,
)
# A sound named as descriptions name it: an article, some adjectives, then what makes it. People talk about these
# things too, so what follows must not go on like a story.
_ADJECTIVE: Final = (
    r"(?:\w+ly|low|high|loud|faint|soft|quiet|heavy|light|slow|fast|short|long|steady|distant|nearby|near|deep|shrill"
    r"|rising|falling|growing|fading|accelerating|repeated|wailing|two-tone|gentle|strikes?|blasts?|blows?"
    r"|of|an?|dog|bird|church|police|car|beeping|ticking|approaching|leaving) "
)
_SOUND: Final = (
    r"(?:bells?|sirens?|engines?|rain|claps?|clapping|applause|chirps?|birds?|barks?|dogs?|alarms?|beeps?|footsteps"
    r"|babble|arpeggios?|silence|winds?|whistles?|knocks?|knocking|horns?|clocks?|helicopters?|thunder|music|noise"
    r"|hiss|hum)\b"
)
_OPENING: Final = (
    r"(?:here we have |in this (?:clip|recording) we have |(?:you|we) (?:can )?hear |what is heard:? |it sounds like "
    r"|listen to |just |only |the microphone caught |first (?:we hear )?|after |before |over |behind |in front of "
    r"|it starts with |in the (?:background|foreground),? )?"
)
_NAMED: Final = re.compile(
    r"(?:a |the )?(?:sounds?|noises?|recording) of\b"
    rf"|{_OPENING}(?:(?:a|an|one|two|three|four|some|several) (?:{_ADJECTIVE}){{0,5}}|(?:{_ADJECTIVE}){{1,5}}){_SOUND}"
    rf"|{_OPENING}(?:somebody|someone|hands) (?:clapping|knocking|walking|running)\b",
    re.IGNORECASE,
)
_STORY: Final = re.compile(
    r"\b(i|i'm|you|he|she|they|me|him|her|us|them|my|your|his|our|their|said|says|who|please|will|would|had|were"
    r"|(?<!that )(?:is|are)|was|has)\b",
    re.IGNORECASE,
)
_STUTTER: Final = re.compile(rf"(\S{{1,12}}?)\1{{{LETTER_LOOPS - 1},}}")
_NUMBERS: Final = frozenset({"zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"})
_NO_SPEECH: Final = re.compile(
    r"(there is |there's )?no (speech|voice|words?|one (is )?(speaking|talking))\W*", re.IGNORECASE
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
        >>> find_failure("one two three", "describe")
        'wrong-task'
    """
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())
    if not words:
        return "empty"
    if is_loop(words, speech=task == "transcribe") or is_stutter(text):
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
        if _DESCRIPTION.match(opening) or _names_a_sound(text, words):
            return "wrong-task"
    if task == "describe" and _is_no_description(text, words):
        return "wrong-task"
    return ""


def is_stutter(text: str) -> bool:
    """Whether a piece of a word is repeated in a row, and the repeats are half of the text or more.

    The piece has 1 to 12 characters without white space, letters or digits among them; writing without spaces counts
    as words do.

    Example:
        >>> is_stutter("nonononononononono"), is_stutter("ha ha ha")
        (True, False)
    """
    whole = sum(not letter.isspace() for letter in text)
    return any(
        re.search(r"[^\W_]", found[1]) and found.end() - found.start() >= LETTER_SHARE * whole
        for found in _STUTTER.finditer(text)
    )


def _names_a_sound(text: str, words: list[str]) -> bool:
    """Whether a transcript is a caption: it names a sound and says nothing that only people say."""
    found = _NAMED.match(text.strip())
    if found is None or len(words) > SENTENCE_WORDS:
        return False
    return not _STORY.search(text.strip(), found.end())


def _is_no_description(text: str, words: list[str]) -> bool:
    """Whether a description is the answer to another question: yes or no, digits alone, that nobody speaks."""
    if words in (["yes"], ["no"]) or _NO_SPEECH.fullmatch(text.strip()):
        return True
    return all(word in _NUMBERS or word.isdigit() for word in words)


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
