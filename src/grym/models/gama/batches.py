"""Batches for the training of ``gama-mini``: spectrograms, targets of the auxiliary heads, prompts with answers.

Every batch is a function of (seed, step). Audio is float32 at 16 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torchaudio.compliance.kaldi import get_mel_banks

from grym.corpus.bank import LENGTHS
from grym.corpus.digits import WORDS
from grym.corpus.sounds import ask, ask_presence, captions
from grym.models.gama.configuration import FRAME_SAMPLES, SAMPLE_RATE, SHIFT_SAMPLES
from grym.models.gama.exercises import Exercise, phrase, reword, roughen, texts
from grym.models.gama.mini import BLANK, Targets
from grym.models.gama.pools import FULL_SCALE, LENGTH_WEIGHTS, Item, digits_of, facts, facts_of
from grym.models.gama.prompts import fill
from grym.models.gama.spelling import BOS, EOS, PAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from grym.models.gama.configuration import GamaAudioConfig
    from grym.models.gama.recipe import GamaSpec

FFT: Final = 512
SHORT_COLUMNS: Final = 16  # 2.56 s: every clip of sounds, most of speech
SHORT_SHARE: Final = 0.6  # of the encoder's batches, which are cut to SHORT_COLUMNS
# Decibels. Sounds keep their own noise; speech is heard at any level, and with the noise of a recording.
SOUND_GAIN: Final = (-6.0, 4.0)
SPEECH_GAIN: Final = (-26.0, 0.0)
SPEECH_FLOOR: Final = (-80.0, -42.0)
MOST_CUT: Final = 400  # samples off the beginning of a sound, so that patches fall on other places
# Shares of the tasks about sounds; captions are what is left beside questions.
CLASSIFY_SHARE: Final = 0.17
NO_SPEECH_SHARE: Final = 0.03
SPEECH_TASKS: Final = (("transcribe", 0.92), ("describe", 0.04), ("classify", 0.04))
NO_SPEECH: Final = "no speech"
SPEECH: Final = "speech"


class FrontEnd:
    """:func:`grym.models.gama.frontend.log_mel` of many clips at once; equal to it but for rounding.

    Args:
        config: sizes and statistics.
    """

    def __init__(self, config: GamaAudioConfig) -> None:
        self._config = config
        banks, _ = get_mel_banks(config.num_mel_bins, FFT, float(SAMPLE_RATE), 20.0, 0.0, 100.0, -500.0, 1.0)
        self._banks = torch.nn.functional.pad(banks, (0, 1)).T.contiguous()
        self._window = torch.hann_window(FRAME_SAMPLES, periodic=False)

    def __call__(self, waves: Sequence[npt.NDArray[np.float32]], frames: int) -> torch.Tensor:
        """Normalised log-mel spectrograms, float32 ``shape = (clips, frames, bins)``; short clips filled up."""
        size = FRAME_SAMPLES + (frames - 1) * SHIFT_SAMPLES
        padded = np.zeros((len(waves), size), np.float32)
        counts = []
        for row, wave in zip(padded, waves, strict=True):
            kept = wave[:size]
            row[: kept.size] = kept
            counts.append(1 + (kept.size - FRAME_SAMPLES) // SHIFT_SAMPLES)
        cut = torch.from_numpy(padded).unfold(1, FRAME_SAMPLES, SHIFT_SAMPLES)
        cut = cut - cut.mean(dim=2, keepdim=True)
        before = torch.cat([cut[..., :1], cut[..., :-1]], dim=2)
        shaped = (cut - 0.97 * before) * self._window
        power = torch.fft.rfft(shaped, n=FFT).abs().square()
        mels = (power @ self._banks).clamp(min=torch.finfo(torch.float32).eps).log()
        for row, count in zip(mels, counts, strict=True):
            row[count:] = 0.0
        scaled: torch.Tensor = (mels - self._config.mean) / self._config.std
        return scaled


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Prompts with answers as the language model reads them.

    Attributes:
        ids: int64 ``shape = (batch, tokens)``, padded on the right.
        mask: 1 where something stands.
        labels: the ids of answers and their ends, -100 elsewhere.
        clips: int64 ``shape = (batch,)``: which of the batch's clips each is about.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    clips: torch.Tensor


class Material:
    """Both pools, and what is drawn from them.

    Args:
        sounds: generated clips.
        speech: composed digits.
        longest: samples of a window.
    """

    def __init__(self, sounds: Sequence[Item], speech: Sequence[Item]) -> None:
        self.items = [*sounds, *speech]
        self._sounds = len(sounds)
        self._facts = {name: index for index, name in enumerate(facts())}
        short = SHORT_COLUMNS * 16 * SHIFT_SAMPLES
        numbers = range(len(sounds), len(self.items))
        self._all = [[n for n in numbers if len(self.items[n].words) == size] for size in LENGTHS]
        self._short = [[n for n in some if self.items[n].samples.size <= short] for some in self._all]

    def fewer(self, count: int) -> Material:
        """The first ``count`` clips of either pool."""
        return Material(self.items[: min(count, self._sounds)], self.items[self._sounds :][:count])

    def choose(self, rng: np.random.Generator, count: int, *, short: bool) -> list[int]:
        """Numbers of clips, sounds first and then as many of speech."""
        groups = self._short if short else self._all
        weights = np.array([w if some else 0.0 for w, some in zip(LENGTH_WEIGHTS, groups, strict=True)])
        sizes = rng.choice(len(groups), count - count // 2, p=weights / weights.sum())
        chosen = [int(n) for n in rng.integers(0, self._sounds, count // 2)]
        return chosen + [groups[size][int(rng.integers(len(groups[size])))] for size in sizes]

    def wave(self, number: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """A clip as it is heard this time."""
        item = self.items[number]
        wave = item.samples.astype(np.float32) / np.float32(FULL_SCALE)
        if item.events:
            wave = wave[int(rng.integers(MOST_CUT + 1)) :] if rng.random() < 0.5 else wave  # noqa: PLR2004 - every second
            gain = min(float(rng.uniform(*SOUND_GAIN)), -20 * np.log10(max(float(np.abs(wave).max()), 1e-6)))
            return wave * np.float32(10 ** (gain / 20))
        wave = wave * np.float32(10 ** (rng.uniform(*SPEECH_GAIN) / 20))
        if rng.random() < 0.6:  # noqa: PLR2004 - the others have the noise that they were composed with
            level = np.float32(10 ** (rng.uniform(*SPEECH_FLOOR) / 20))
            wave = wave + level * rng.standard_normal(wave.size, np.float32)
        return wave

    def targets(self, numbers: Sequence[int], columns: int) -> Targets:
        """What the auxiliary heads are taught about these clips."""
        held = torch.zeros(len(numbers), len(self._facts))
        known = torch.zeros(len(numbers))
        words: list[tuple[int, ...] | None] = []
        places = torch.full((len(numbers), columns), -100)
        for row, number in enumerate(numbers):
            item = self.items[number]
            words.append(digits_of(item) if item.words else None)
            if item.events:
                known[row] = 1.0
                held[row, [self._facts[name] for name in facts_of(item)]] = 1.0
            elif item.spans:
                places[row] = torch.tensor(_columns(item, columns))
        return Targets(held, known, tuple(words), places)

    def exercises(self, number: int, rng: np.random.Generator, spec: GamaSpec) -> list[Exercise]:
        """What is asked about a clip in a step: once about speech, ``spec.exercises`` times about sounds."""
        count = spec.exercises if self.items[number].events else 1
        return [self._exercise(self.items[number], rng, spec) for _ in range(count)]

    @staticmethod
    def _exercise(item: Item, rng: np.random.Generator, spec: GamaSpec) -> Exercise:
        tasks = sound_tasks(spec.question_share) if item.events else SPEECH_TASKS
        task = tasks[int(rng.choice(len(tasks), p=[share for _, share in tasks]))][0]
        if not item.events:
            said = " ".join(item.words)
            answers = {"transcribe": said, "describe": f"A voice says {said}.", "classify": SPEECH}
            return Exercise(phrase(task, rng), answers[task])
        if task == "describe":
            return Exercise(phrase(task, rng), captions(item.events, item.relation, rng, plain=spec.plain_captions))
        if task == "transcribe":
            return Exercise(phrase(task, rng), NO_SPEECH)
        if task == "classify":
            # One of the labels: the likelihoods of both are then half each, and the two best labels are both of them.
            return Exercise(phrase(task, rng), item.events[int(rng.integers(len(item.events)))].label)
        if spec.presence_share and rng.random() < spec.presence_share:
            pair = ask_presence(item.events, rng)
        else:
            pair = ask(item.events, item.relation, rng)[int(rng.integers(2))]
        return Exercise(roughen(reword(pair[0], rng), rng), pair[1])


def sound_tasks(questions: float) -> tuple[tuple[str, float], ...]:
    """Tasks about sounds with their shares; ``questions`` is that of questions."""
    captions_ = max(0.0, 1.0 - CLASSIFY_SHARE - NO_SPEECH_SHARE - questions)
    return (
        ("describe", captions_),
        ("classify", CLASSIFY_SHARE),
        ("question", questions),
        ("transcribe", NO_SPEECH_SHARE),
    )


def corpus(rng: np.random.Generator, items: Sequence[Item]) -> list[str]:
    """Texts that the tokenizer is learnt from."""
    answers, questions = [], []
    for item in items:
        answers.append(captions(item.events, item.relation, rng))
        for question, answer in ask(item.events, item.relation, rng):
            questions.append(question)
            questions.append(question[:1].lower() + question[1:].rstrip("?"))
            answers.append(answer)
    spoken = [" ".join(str(WORDS[int(d)]) for d in rng.integers(0, 10, 4)) for _ in range(len(items) // 4)]
    return list(texts([*answers, *spoken, NO_SPEECH, SPEECH, f"A voice says {WORDS[0]}."], questions))


class Speller:
    """Exercises as token ids, as the adapter spells prompts and answers.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def __call__(self, exercises: Sequence[Sequence[Exercise]]) -> Dialogue:
        """One batch, from what is asked about each of its clips."""
        rows = []
        clips = torch.tensor([clip for clip, some in enumerate(exercises) for _ in some])
        for one in (one for some in exercises for one in some):
            prompt = [BOS, *self._ids(fill(one.instruction))]
            rows.append((prompt, [*self._ids(one.answer), EOS]))
        longest = max(len(a) + len(b) for a, b in rows)
        ids = torch.full((len(rows), longest), PAD)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        labels = torch.full((len(rows), longest), -100)
        for index, (prompt, answer) in enumerate(rows):
            end = len(prompt) + len(answer)
            ids[index, :end] = torch.tensor([*prompt, *answer])
            mask[index, :end] = 1
            labels[index, len(prompt) : end] = torch.tensor(answer)
        return Dialogue(ids, mask, labels, clips)

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = list(self._tokenizer.encode(text, add_special_tokens=False))
        return self._known[text]


def _columns(item: Item, columns: int) -> list[int]:
    """The digit at the middle of each column of 160 ms."""
    found = [BLANK] * columns
    width = 16 * SHIFT_SAMPLES
    for start, end, word in item.spans:
        for column in range(columns):
            if start <= column * width + width // 2 < end:
                found[column] = WORDS.index(word)
    return found
