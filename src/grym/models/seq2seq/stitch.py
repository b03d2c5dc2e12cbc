"""Windows that overlap, and one list of words from those of the windows: none twice, none lost.

Knows nothing about networks. Times are seconds from the clip's beginning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from grym.models.gama.windows import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NEAR_SECONDS: Final = 1.0  # the same word in two windows: their middles are this close
SLACK_SECONDS: Final = 0.5  # words of a window may be timed a little outside of what both windows hear


@dataclass(frozen=True, slots=True)
class Word:
    """One word as it stands in the text.

    Attributes:
        text: with the space in front of it, if it has one.
        start: in seconds.
        end: in seconds.
        log_probability: sum over its tokens.
        tokens: number of them.
    """

    text: str
    start: float
    end: float
    log_probability: float
    tokens: int

    @property
    def middle(self) -> float:
        """Halfway through."""
        return (self.start + self.end) / 2

    @property
    def plain(self) -> str:
        """Letters and digits alone, for comparisons."""
        return re.sub(r"[^\w]+", "", self.text).casefold()


def overlapping(samples: int, rate: int, seconds: float, overlap: float) -> list[Span]:
    """Windows of ``seconds`` of which neighbours share ``overlap``; the last one ends with the clip.

    The last window is as long as the others where the clip has room, so it may share more.
    """
    size, hop = int(seconds * rate), int((seconds - overlap) * rate)
    if samples <= size:
        return [Span(0, samples)]
    starts = [*range(0, samples - size, hop), samples - size]
    return [Span(start, start + size) for start in starts]


def stitch(windows: Sequence[Sequence[Word]], borders: Sequence[tuple[float, float]]) -> list[Word]:
    """One list of words.

    In what two windows share, the longest run of words that both heard at about the same time is looked for, and the
    seam goes through it: both windows are sure there, and whatever one of them cut off at its edge lies outside. Where
    there is no such run, the seam is the middle of what they share.

    Args:
        windows: words of each window, in order, with times of the clip.
        borders: start and end of each window.
    """
    joined: list[Word] = []
    for index, words in enumerate(windows):
        if index == 0:
            joined = list(words)
            continue
        joined = _join(joined, list(words), borders[index][0], borders[index - 1][1])
    return joined


def _join(left: list[Word], right: list[Word], start: float, end: float) -> list[Word]:
    middle = (start + end) / 2
    run = _common_run(left, right, start - SLACK_SECONDS, end + SLACK_SECONDS)
    if run is not None:
        first, second, length = run
        cut = min(range(length + 1), key=lambda k: abs(_seam(left, first + k) - middle))
        return left[: first + cut] + right[second + cut :]
    head = [word for word in left if word.middle < middle]
    tail = [word for word in right if word.middle >= middle]
    if head and tail and head[-1].plain == tail[0].plain and head[-1].end > tail[0].start:
        tail = tail[1:]
    return head + tail


def _seam(words: Sequence[Word], place: int) -> float:
    """Time in front of the word at ``place``."""
    return words[place].start if place < len(words) else words[-1].end


def _common_run(left: Sequence[Word], right: Sequence[Word], start: float, end: float) -> tuple[int, int, int] | None:
    """Longest run of equal words at about the same times: its places and length; the closest in time of several."""
    best: tuple[int, float, int, int] | None = None
    for i, word in enumerate(left):
        if word.end < start:
            continue
        for j, other in enumerate(right):
            if other.start > end:
                break
            length = _run(left[i:], right[j:])
            if length and (best is None or (-length, abs(word.middle - other.middle)) < best[:2]):
                best = (-length, abs(word.middle - other.middle), i, j)
    return None if best is None else (best[2], best[3], -best[0])


def _run(left: Sequence[Word], right: Sequence[Word]) -> int:
    count = 0
    for word, other in zip(left, right, strict=False):
        if not word.plain or word.plain != other.plain or abs(word.middle - other.middle) > NEAR_SECONDS:
            break
        count += 1
    return count


def group_words(
    decode: Callable[[Sequence[int]], str], ids: Sequence[int], *, spaced: bool
) -> list[tuple[str, int, int]]:
    """Token ids as words: text, first token, end.

    Args:
        decode: ids to text.
        ids: of one text.
        spaced: whether the language puts spaces between words; else every character that is whole counts as one.
    """
    words: list[tuple[str, int, int]] = []
    first = 0
    for place in range(1, len(ids) + 1):
        text = decode(ids[first:place])
        if text.endswith("\ufffd") and place < len(ids):
            continue  # half of a character
        begins = not words or not spaced or text[:1].isspace()
        if begins or not words[-1][0].strip():
            words.append((text, first, place))
        else:
            words[-1] = (words[-1][0] + text, words[-1][1], place)
        first = place
    return words


def shifted(words: Sequence[Word], seconds: float) -> list[Word]:
    """The same words later."""
    return [replace(word, start=word.start + seconds, end=word.end + seconds) for word in words]
