"""Further speech synthesizers for training data: voices built from recordings of real people, and foreign accents.

Development tools only, none is needed to run or test the platform: MBROLA
(through espeak-ng), Flite, Festival, RHVoice and SVOX Pico, each used where it
is installed. A voice of another language speaks English digits in its own
spelling, with its own sounds, as a person with that accent does.

Audio is float32 mono at 16 kHz. Knows nothing about models.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import soundfile
import soxr

from grym.corpus.digits import RATE, WORDS, trim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grym.corpus.digits import Samples

TIMEOUT_SECONDS: Final = 20.0
MBROLA_FOLDER: Final = Path("/usr/share/mbrola")

# The ten digits as a reader of that language would write down how they sound, zero to nine.
SPELLINGS: Final = {
    "de": "sihro wan tu dri for faif sicks seven äit nain",
    "nl": "ziero wan toe srie foor faif siks sevven eet nain",
    "af": "ziero wan toe srie foor faaif siks sewen eet naain",
    "fr": "ziro ouanne tou sri for faïve sixe sévène éïte naïne",
    "es": "siro uan tu zri for faif six seven eit nain",
    "es-mx": "siro uan tu sri for faif six seven eit nain",
    "it": "ziro uan tu tri for faiv sics seven eit nain",
    "pt": "ziro uane tu tri fór faive sics séven eite naine",
    "ro": "ziro uan tu tri for faiv sics seven eit nain",
    "pl": "ziro łan tu sri for fajw siks sewen ejt najn",
    "cs": "zírou van tú srí for fajv siks sevn ejt najn",
    "hr": "zirou uan tu tri for fajv siks seven ejt najn",
    "hu": "zíró van tú szrí for fájv sziksz szeven éjt nájn",
    "sv": "siråo oann to tri får fajv sicks sevven ejt najn",
    "is": "síró úan tú þrí fór fæv sixs seven eit næn",
    "et": "siirou uan tuu srii foor faiv siks seven eit nain",
    "lt": "zyro uan tu tri for faiv siks seven eit nain",
    "tr": "ziro van tu sri for fayv siks sevın eyt nayn",  # noqa: RUF001 - a Turkish letter
    "id": "ziro wan tu tri for faif siks seven eit nain",
    "ms": "ziro wan tu tri for faif siks seven eit nain",
    "la": "siro uan tu tri for faif six seven eit nain",
    "el": "ζίροου γουάν του θρι φορ φάιβ σιξ σέβεν έιτ νάιν",
    "hi": "ज़ीरो वन टू थ्री फ़ोर फ़ाइव सिक्स सेवन एट नाइन",
    "te": "జీరో వన్ టూ త్రీ ఫోర్ ఫైవ్ సిక్స్ సెవెన్ ఎయిట్ నైన్",
    "ja": "ゼロ ワン ツー スリー フォー ファイブ シックス セブン エイト ナイン",
    "ru": "зироу уан ту сри фор файв сикс сэвэн эйт найн",
    "fi": "siirou van tuu srii foor faiv siks seven eit nain",
    "da": "siro van tu tri for fajv siks seven ejt najn",
    "nb": "siro oann to tri får faiv siks seven eit nain",
}
# MBROLA voices whose espeak-ng definition speaks English by itself.
ENGLISH_MBROLA: Final = (  # noqa: SIM905 - as in digits.VARIANTS
    "en1 us1 us2 us3 af1-en de1-en de2-en de3-en de4-en de5-en de6-en fr1-en fr4-en gr2-en hu1-en nl2-en pl1-en ro1-en "
    "sw1-en sw2-en"
).split()
FOREIGN_MBROLA: Final = {
    "de": "de1 de2 de3 de4 de5 de6 de7 de8",
    "nl": "nl2 nl3",
    "af": "af1",
    "fr": "fr1 fr2 fr3 fr4 fr5 fr6 fr7 ca1 ca2",
    "es": "es1 es2 es3 es4",
    "es-mx": "mx1 mx2 vz1",
    "it": "it1 it2 it3 it4",
    "pt": "pt1 br1 br2 br3 br4",
    "ro": "ro1",
    "pl": "pl1",
    "cs": "cz1 cz2",
    "hr": "cr1",
    "hu": "hu1",
    "sv": "sw1 sw2",
    "is": "ic1",
    "et": "ee1",
    "lt": "lt1 lt2",
    "tr": "tr1 tr2",
    "id": "id1",
    "ms": "ma1",
    "la": "la1",
    "el": "gr1 gr2",
    "hi": "in1 in2",
    "te": "tl1",
    "ja": "jp1 jp2 jp3",
}
FOREIGN_ESPEAK: Final = (  # noqa: SIM905 - as above
    "de nl af fr-fr es es-419 it pt pt-br ro pl cs hr hu sv is et lt tr id ms el hi te ru fi da nb"
).split()
FOREIGN_VARIANTS: Final = ("m3", "f2", "steph", "Mike")
FLITE: Final = ("kal", "kal16", "awb", "rms", "slt")
FESTIVAL: Final = ("kal_diphone", "ked_diphone", "rab_diphone", "don_diphone", "cmu_us_slt_arctic_hts")
RHVOICE: Final = ("alan", "bdl", "clb", "evgeniy-eng", "lyubov", "slt")
PICO: Final = ("en-US", "en-GB")


@dataclass(frozen=True, slots=True)
class Manner:
    """How something is said: ``rate`` and ``pitch`` are factors on the voice's own."""

    rate: float = 1.0
    pitch: float = 1.0


@dataclass(frozen=True, slots=True)
class RecordedVoice:
    """A voice of one engine; ``spelling`` is a key of :data:`SPELLINGS`, empty where it speaks English."""

    engine: str
    voice: str
    spelling: str = ""

    @property
    def name(self) -> str:
        """Stable across runs, used as the speaker of a take."""
        return f"{self.engine}-{self.voice}"

    def text(self, digits: Sequence[int], pause: str) -> str:
        """What the engine has to read aloud for these digits."""
        words = SPELLINGS[self.spelling].split() if self.spelling else list(WORDS)
        return pause.join(words[digit] for digit in digits)


def installed() -> list[RecordedVoice]:
    """The voices that this machine can speak with, in a fixed order."""
    found: list[RecordedVoice] = []
    if shutil.which("espeak-ng") and shutil.which("mbrola"):
        found += [RecordedVoice("mbrola", voice) for voice in ENGLISH_MBROLA if _has_database(voice)]
        found += [
            RecordedVoice("mbrola", voice, spelling)
            for spelling, names in FOREIGN_MBROLA.items()
            for voice in names.split()
            if _has_database(voice)
        ]
    if shutil.which("espeak-ng"):
        found += [
            RecordedVoice("espeak", f"{language}+{variant}", _spelling(language))
            for language in FOREIGN_ESPEAK
            for variant in FOREIGN_VARIANTS
        ]
    for engine, program, voices in (
        ("flite", "flite", FLITE),
        ("festival", "text2wave", FESTIVAL),
        ("rhvoice", "RHVoice-test", RHVOICE),
        ("pico", "pico2wave", PICO),
    ):
        if shutil.which(program):
            found += [RecordedVoice(engine, voice) for voice in voices]
    return found


def _has_database(voice: str) -> bool:
    base = voice.removesuffix("-en")
    return (MBROLA_FOLDER / base / base).is_file()


def _spelling(language: str) -> str:
    return {"fr-fr": "fr", "es-419": "es-mx", "pt-br": "pt"}.get(language, language)


def speak(voice: RecordedVoice, text: str, manner: Manner) -> Samples | None:
    """Let a voice read a text.

    Returns:
        float32, ``shape = (samples,)`` at 16 kHz, silence at both ends removed; ``None`` where the engine does not
        have the voice, lacks a sound of the text, or gives up.
    """
    try:
        samples, rate = _ENGINES[voice.engine](voice, text, manner)
    except (OSError, subprocess.SubprocessError, soundfile.LibsndfileError):
        return None
    if samples.ndim > 1:
        samples = samples.mean(axis=1)
    if samples.size < rate // 10 or float(np.abs(samples).max(initial=0.0)) < 1e-3:  # noqa: PLR2004 - silence
        return None
    return trim(soxr.resample(samples, rate, RATE).astype(np.float32))


def _run(command: list[str], text: str = "") -> bytes:
    done = subprocess.run(
        command,
        check=True,
        input=text.encode(),
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    return done.stdout


def _espeak(voice: RecordedVoice, text: str, manner: Manner) -> tuple[Samples, int]:
    name = f"mb-{voice.voice}" if voice.engine == "mbrola" else voice.voice
    speed, pitch = round(155 * manner.rate), round(min(99.0, max(0.0, 50 + 60 * (manner.pitch - 1))))
    wave = _run(["espeak-ng", "-v", name, "-s", str(speed), "-p", str(pitch), "--stdout", "--", text])
    # The header of a streamed file claims a wrong length; soundfile reads what is there.
    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
    return samples, rate


def _to_file(build: Callable[[str], list[str]], text: str = "") -> tuple[Samples, int]:
    with tempfile.TemporaryDirectory(prefix="grym-voice-") as folder:
        out = str(Path(folder) / "voice.wav")
        _run(build(out), text)
        samples, rate = soundfile.read(out, dtype="float32")
        return samples, rate


def _flite(voice: RecordedVoice, text: str, manner: Manner) -> tuple[Samples, int]:
    stretch = f"duration_stretch={1 / manner.rate:.3f}"
    # The natural pitch of Flite's voices: rms and awb about 100 Hz, slt 170 Hz, kal 95 Hz.
    pitch = f"int_f0_target_mean={manner.pitch * (170 if voice.voice == 'slt' else 100):.1f}"
    return _to_file(
        lambda out: ["flite", "-voice", voice.voice, "--setf", stretch, "--setf", pitch, "-t", text, "-o", out]
    )


def _festival(voice: RecordedVoice, text: str, manner: Manner) -> tuple[Samples, int]:
    setup = f"(begin (voice_{voice.voice}) (Parameter.set 'Duration_Stretch {1 / manner.rate:.3f}))"
    return _to_file(lambda out: ["text2wave", "-eval", setup, "-o", out], text)


def _rhvoice(voice: RecordedVoice, text: str, manner: Manner) -> tuple[Samples, int]:
    rate, pitch = str(round(100 * manner.rate)), str(round(100 * manner.pitch))
    return _to_file(lambda out: ["RHVoice-test", "-p", voice.voice, "-r", rate, "-t", pitch, "-o", out], text)


def _pico(voice: RecordedVoice, text: str, manner: Manner) -> tuple[Samples, int]:
    rate, pitch = round(100 * manner.rate), round(100 * manner.pitch)
    marked = f'<speed level="{rate}"><pitch level="{pitch}">{text}</pitch></speed>'
    return _to_file(lambda out: ["pico2wave", "-l", voice.voice, "-w", out, marked])


_ENGINES: Final = {
    "mbrola": _espeak,
    "espeak": _espeak,
    "flite": _flite,
    "festival": _festival,
    "rhvoice": _rhvoice,
    "pico": _pico,
}
