"""One clip of ``sounds``, drawn as a pure function of its arguments.

    >>> from grym.corpus.sounds import draw
    >>> clip = draw(seed=7, index=0, split="test", labels=("bell",), mixture=False)
    >>> clip.events[0].label, clip.rate
    ('bell', 16000)

Audio is float32 mono at 16 kHz, 2.0 to 2.5 s; levels are in dB relative to full scale.
Knows nothing about files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import scipy.fft

from grym.corpus.sounds import strokes, textures, tonal
from grym.corpus.sounds.language import ask, captions
from grym.corpus.sounds.signals import gains, hum, loudness, random_spectrum, seconds, white
from grym.corpus.sounds.vocabulary import ATTRIBUTES, BACKGROUNDS, LABELS, QUIET, RATE, draw_event
from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from grym.corpus.sounds.signals import Samples
    from grym.corpus.sounds.vocabulary import Event

    Renderer = Callable[[Mapping[str, str], int, np.random.Generator], Samples]

RENDERERS: Final[Mapping[str, Renderer]] = {
    "siren": tonal.siren,
    "bell": strokes.bell,
    "engine": textures.engine,
    "rain": textures.rain,
    "clap": strokes.clap,
    "bird chirp": strokes.bird_chirp,
    "dog bark": strokes.dog_bark,
    "alarm": tonal.alarm,
    "footsteps": strokes.footsteps,
    "babble": textures.babble,
    "arpeggio": tonal.arpeggio,
    "silence": textures.silence,
    "wind": textures.wind,
    "whistle": tonal.whistle,
    "knock": strokes.knock,
    "horn": tonal.horn,
    "clock": strokes.clock,
    "helicopter": textures.helicopter,
}
LENGTH_SECONDS: Final = (2.0, 2.5)
PEAK_DB: Final = (-30.0, -6.0)
MIXTURE_SHARE: Final = 0.4
# RMS of the recording's own noise below the peak of the clip, and how quiet it may be at all.
FLOOR_DB: Final = (-70.0, -45.0)
FLOOR_DBFS: Final = -80.0
QUIET_DBFS: Final = (-70.0, -50.0)
# How much quieter the background of "over" and how different the second of "then" is, by the loudest 100 ms.
BEHIND_DB: Final = (4.0, 9.0)
APART_DB: Final = (-5.0, 5.0)
SNR_DB: Final = (None, 20.0, 10.0)
# No babble and no rain: a clip with noise must not be a clip with one sound more.
NOISES: Final = ("white", "pink", "hum")
# The spectra of those that are Gaussian, as (Hz, dB).
GAUSSIAN: Final = {"white": ((20.0, 0.0), (8000.0, 0.0)), "pink": ((20.0, -20.0), (30.0, 0.0), (8000.0, -24.2))}
_ECHO_SECONDS: Final = (0.04, 0.2)
_STREAM: Final = 0x736F756E
_SPLITS: Final = {"train": 0, "test": 1}


@dataclass(frozen=True, slots=True)
class SoundClip:
    """A clip and everything that is known about it.

    Attributes:
        id: unique for the arguments of :func:`draw`, but for ``labels`` and ``mixture``.
        samples: float32, ``shape = (n,)``, 2.0 to 2.5 s.
        events: one sound or two; of ``then`` the first one first, of ``over`` the foreground first.
        relation: ``""`` (one sound), ``"then"`` or ``"over"``.
        snr_db: signal-to-noise ratio over the whole clip in dB; ``None`` is clean but for the recording's floor.
        noise_kind: ``none``, ``white``, ``pink`` or ``hum``.
        caption: a sentence that names labels, attributes and relation.
        questions: pairs of a question and its short answer.
        rate: samples a second.
    """

    id: str
    samples: Samples
    events: tuple[Event, ...]
    relation: str
    snr_db: float | None
    noise_kind: str
    caption: str
    questions: tuple[tuple[str, str], ...]
    rate: int = RATE


def draw(
    seed: int, index: int, split: str, *, labels: Sequence[str] | None = None, mixture: bool | None = None
) -> SoundClip:
    """Make clip ``index`` of a split; the same arguments give the same clip.

    Args:
        seed: of the corpus, 0 to 2**32 - 1.
        index: of the clip, 0 to 2**32 - 1.
        split: ``"train"`` or ``"test"``; they share no random numbers, whatever the seeds.
        labels: what may occur; all of :data:`LABELS` without it.
        mixture: two sounds or one; drawn (40 % mixtures) without it.

    Raises:
        ConfigError: the split or a label is unknown, a number is out of range, or the labels allow no mixture.
    """
    rng = np.random.default_rng(_entropy(seed, index, split))
    allowed = tuple(labels) if labels is not None else LABELS
    _check(allowed)
    pairs = _pairs(allowed)
    if mixture is None:
        mixture = bool(rng.random() < MIXTURE_SHARE) and any(pairs.values())
    if mixture and not any(pairs.values()):
        msg = f"Of {', '.join(allowed)} no mixture can be made: it takes two sounds other than {QUIET}."
        raise ConfigError(msg, code="no-mixture", hint="Allow more labels.")
    size = int(rng.integers(seconds(LENGTH_SECONDS[0]), seconds(LENGTH_SECONDS[1]) + 1))
    if mixture:
        relation = str(rng.choice([name for name, some in pairs.items() if some]))
        chosen = pairs[relation][int(rng.integers(len(pairs[relation])))]
        events = tuple(draw_event(label, rng, short=relation == "then") for label in chosen)
        size = max(size, seconds(2.3)) if relation == "then" else size
        sound = (_then if relation == "then" else _over)(events, size, rng)
    else:
        relation = ""
        events = (draw_event(allowed[int(rng.integers(len(allowed)))], rng),)
        sound = render(events[0], size, rng)
    snr: float | None = None
    kind = "none"
    if events[0].label == QUIET:
        samples = sound * np.float32(10 ** (rng.uniform(*QUIET_DBFS) / 20))
    else:
        snr = SNR_DB[int(rng.integers(len(SNR_DB)))]
        kind = "none" if snr is None else NOISES[int(rng.integers(len(NOISES)))]
        samples = _record(sound, snr, kind, rng)
    caption = captions(events, relation, rng)
    return SoundClip(
        f"{split}-{seed}-{index:05d}", samples, events, relation, snr, kind, caption, ask(events, relation, rng)
    )


def render(event: Event, samples: int, rng: np.random.Generator) -> Samples:
    """One event alone, without room, noise or level: float32, ``shape = (samples,)``."""
    return RENDERERS[event.label](event.attributes, samples, rng)


def _entropy(seed: int, index: int, split: str) -> list[int]:
    if split not in _SPLITS:
        msg = f"Unknown split {split!r}: use 'train' or 'test'."
        raise ConfigError(msg, code="unknown-split", hint="They share no random numbers.")
    for name, value in (("seed", seed), ("index", index)):
        if not 0 <= value < 2**32:  # words of this size keep different arguments apart in the entropy
            msg = f"The {name} {value} is not between 0 and 4294967295."
            raise ConfigError(msg, code="bad-seed", hint="Use a smaller number.")
    return [_STREAM, _SPLITS[split], seed, index]


def _check(labels: Sequence[str]) -> None:
    for label in labels:
        if label not in ATTRIBUTES:
            msg = f"Unknown sound {label!r}: use some of {', '.join(LABELS)}."
            raise ConfigError(msg, code="unknown-label", hint="See grym.corpus.sounds.LABELS.")
    if not labels:
        msg = "No label is allowed, so no clip can be drawn."
        raise ConfigError(msg, code="unknown-label", hint="Leave labels out to allow all.")


def _pairs(labels: tuple[str, ...]) -> dict[str, list[tuple[str, str]]]:
    """Which labels can be combined: two in turn, or a foreground over a background."""
    loud = [label for label in labels if label != QUIET]
    return {
        "then": [(a, b) for a in loud for b in loud if a != b],
        "over": [(a, b) for a in loud if a not in BACKGROUNDS for b in loud if b in BACKGROUNDS],
    }


def _then(events: Sequence[Event], samples: int, rng: np.random.Generator) -> Samples:
    """The first in one half, the second in the other, at about the same loudness."""
    middle = int(samples * rng.uniform(0.48, 0.52))
    pause = seconds(float(rng.uniform(0.02, 0.06)))
    first = _at_level(render(events[0], middle - pause, rng), 0.0)
    second = _at_level(render(events[1], samples - middle, rng), float(rng.uniform(*APART_DB)))
    return np.concatenate([first, np.zeros(pause, np.float32), second])


def _over(events: Sequence[Event], samples: int, rng: np.random.Generator) -> Samples:
    front = _at_level(render(events[0], samples, rng), 0.0)
    return front + _at_level(render(events[1], samples, rng), -float(rng.uniform(*BEHIND_DB)))


def _at_level(sound: Samples, level_db: float) -> Samples:
    return sound * np.float32(10 ** (level_db / 20) / max(loudness(sound), 1e-9))


def _record(sound: Samples, snr_db: float | None, kind: str, rng: np.random.Generator) -> Samples:
    """Through a microphone in a room, with noise and the recording's own floor, at a level."""
    size = scipy.fft.next_fast_len(sound.size + seconds(_ECHO_SECONDS[1]), real=True)
    spectrum = scipy.fft.rfft(sound, size) * _room(size, rng)
    # Both noises are Gaussian, so one draw with the sum of their powers is both; levels follow from the spectrum.
    wet_rms = float(np.sqrt(2 * np.vdot(spectrum, spectrum).real / size / sound.size))
    peak_db = float(rng.uniform(*PEAK_DB))
    floor_db = max(float(rng.uniform(*FLOOR_DB)), FLOOR_DBFS - peak_db)
    floor_rms = float(np.abs(sound).max()) * 10 ** (floor_db / 20)
    tilt = ((20, float(rng.uniform(0, 20))), (1000, 0), (8000, float(rng.uniform(-8, 0))))
    power = _power(gains(size, tilt), floor_rms)
    noise_rms = 0.0 if snr_db is None else wet_rms * 10 ** (-snr_db / 20)
    if kind in GAUSSIAN:
        power += _power(gains(size, GAUSSIAN[kind]), noise_rms)
    spectrum += random_spectrum(size, rng) * np.sqrt(power)
    mixed: Samples = scipy.fft.irfft(spectrum, size)[: sound.size].astype(np.float32)
    if kind == "hum":
        mixed += hum(mixed.size, rng) * np.float32(noise_rms)
    return mixed * np.float32(10 ** (peak_db / 20) / max(float(np.abs(mixed).max()), 1e-9))


def _power(gain: Samples, level: float) -> Samples:
    """The square of a curve of gains, so that noise of that spectrum has an RMS of ``level``."""
    squared = gain * gain
    return squared * np.float32(level * level / max(float(squared.mean()), 1e-20))


def _room(size: int, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    """The response of a gentle random equalizer of +-4 dB and, in half of the clips, the short echo of a room."""
    curve = gains(size, tuple(zip((60, 200, 700, 2400, 8000), rng.uniform(-4, 4, 5), strict=True)))
    response = curve.astype(np.complex64)
    if rng.random() < 0.5:  # noqa: PLR2004 - an even chance
        length = seconds(float(rng.uniform(*_ECHO_SECONDS)))
        tail = white(length, rng) * np.exp(-np.arange(length, dtype=np.float32) * np.float32(6.9 / length))
        tail *= np.float32(rng.uniform(0.08, 0.35) / max(float(np.sqrt(np.sum(tail**2))), 1e-9))
        tail[0] = 1
        response *= scipy.fft.rfft(tail, size)
    return response
