"""What differs between audio-language models: prompts, front ends, limits, licences. One row for each family.

Knows nothing about torch. Prompts are those of the model cards, with one place for the
audio; the checkpoint's own template is not run, because several put today's date into
the prompt, and then answers would change overnight. Times are seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from grym.errors import ConfigError
from grym.models.gama.prompts import INSTRUCTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

LicenceClass = Literal["permissive", "non-commercial"]
Padding = Literal["window", "none", "half-minutes"]


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table.

    Attributes:
        name: for the card and for people.
        model_types: values of ``model_type`` in config.json.
        class_name: class of the library.
        template: prompt with ``{audio}`` and ``{prompt}``.
        transcription: template for ``transcribe``; empty uses ``template``. May hold ``{language}``.
        instructions: default prompt of each task; a task without an entry is not offered.
        window_seconds: longest audio in one prompt, as used here.
        max_seconds: what the model's makers say it takes in one prompt; for people.
        padding: ``window`` fills the spectrogram up to the feature extractor's window, ``half-minutes`` up to the
            next 30 s, ``none`` leaves it.
        mask: name of the argument for the spectrogram's mask; empty for none.
        multi_audio: whether a prompt may hold several clips; the platform gives one.
        kept: parts of names that are never quantised.
        ignored: beginnings of names of weights that are not loaded.
        licence: of the published weights.
        licence_class: whether a business may use them.
        languages: that its makers name.
        checkpoints: published ones.
        opening: beginnings of sentences that stand in front of a transcript; they and quotation marks are cut.
    """

    name: str
    model_types: tuple[str, ...]
    class_name: str
    template: str
    instructions: Mapping[str, str]
    window_seconds: float
    max_seconds: float
    padding: Padding
    licence: str
    licence_class: LicenceClass
    checkpoints: tuple[str, ...]
    transcription: str = ""
    mask: str = ""
    multi_audio: bool = True
    kept: tuple[str, ...] = ("audio_tower", "multi_modal_projector")
    ignored: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("en",)
    opening: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it is offered for."""
        return tuple(self.instructions)


def _chat(system: str, body: str) -> str:
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{body}<|im_end|>\n<|im_start|>assistant\n"


_HELPFUL: Final = "You are a helpful assistant."
_OMNI: Final = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving auditory and "
    "visual inputs, as well as generating text and speech."
)
_GRANITE: Final = (
    "Knowledge Cutoff Date: April 2024.\nYou are Granite, developed by IBM. You are a helpful AI assistant."
)

FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        name="Qwen2-Audio",
        model_types=("qwen2_audio",),
        class_name="Qwen2AudioForConditionalGeneration",
        template=_chat(_HELPFUL, "Audio 1: <|audio_bos|>{audio}<|audio_eos|>\n{prompt}"),
        instructions=INSTRUCTIONS,
        window_seconds=30.0,
        max_seconds=30.0,
        padding="window",
        mask="feature_attention_mask",
        licence="Apache-2.0",
        licence_class="permissive",
        languages=("en", "zh", "fr", "de", "it", "es", "ja", "ko"),
        checkpoints=("Qwen/Qwen2-Audio-7B-Instruct",),
    ),
    Family(
        name="Qwen2.5-Omni (thinker)",
        model_types=("qwen2_5_omni", "qwen2_5_omni_thinker"),
        class_name="Qwen2_5OmniThinkerForConditionalGeneration",
        template=_chat(_OMNI, "<|audio_bos|>{audio}<|audio_eos|>{prompt}"),
        instructions=INSTRUCTIONS,
        window_seconds=30.0,
        max_seconds=300.0,
        padding="window",
        mask="feature_attention_mask",
        kept=("audio_tower", "visual"),
        ignored=("talker", "token2wav"),
        licence="Apache-2.0 (7B; see the card of the 3B)",
        licence_class="permissive",
        languages=("en", "zh"),
        checkpoints=("Qwen/Qwen2.5-Omni-7B",),
    ),
    Family(
        name="Audio Flamingo 3",
        model_types=("audioflamingo3",),
        class_name="AudioFlamingo3ForConditionalGeneration",
        template=_chat(_HELPFUL, "{audio}{prompt}"),
        instructions={**INSTRUCTIONS, "transcribe": "Transcribe the input speech."},
        window_seconds=30.0,
        max_seconds=600.0,
        padding="window",
        mask="input_features_mask",
        licence="NVIDIA OneWay Noncommercial",
        licence_class="non-commercial",
        checkpoints=("nvidia/audio-flamingo-3-hf",),
        opening=(
            "The spoken content of the audio is",
            "The transcription of the audio is",
            "The content of the input audio is",
        ),
    ),
    Family(
        name="Voxtral",
        model_types=("voxtral",),
        class_name="VoxtralForConditionalGeneration",
        template="<s>[INST][BEGIN_AUDIO]{audio}{prompt}[/INST]",
        transcription="<s>[INST][BEGIN_AUDIO]{audio}[/INST]{language}[TRANSCRIBE]",
        instructions=INSTRUCTIONS,
        window_seconds=30.0,
        max_seconds=1800.0,
        padding="half-minutes",
        licence="Apache-2.0",
        licence_class="permissive",
        languages=("en", "es", "fr", "pt", "hi", "de", "nl", "it"),
        checkpoints=("mistralai/Voxtral-Mini-3B-2507", "mistralai/Voxtral-Small-24B-2507"),
    ),
    Family(
        name="Granite Speech",
        model_types=("granite_speech",),
        class_name="GraniteSpeechForConditionalGeneration",
        template="<|start_of_role|>system<|end_of_role|>"
        + _GRANITE
        + "<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>{audio}{prompt}<|end_of_text|>\n"
        + "<|start_of_role|>assistant<|end_of_role|>",
        # Speech recognition and translation only, says its card; other questions get an answer about the words.
        instructions={"transcribe": "can you transcribe the speech into a written format?"},
        window_seconds=30.0,
        max_seconds=600.0,
        padding="none",
        multi_audio=False,
        kept=("encoder", "projector", "lora"),
        licence="Apache-2.0",
        licence_class="permissive",
        languages=("en", "fr", "de", "es", "pt"),
        checkpoints=("ibm-granite/granite-speech-3.3-2b", "ibm-granite/granite-speech-3.3-8b"),
    ),
)
_MARKER: Final = re.compile(r"<\|[a-z_]+\|>|<s>|\[/?[A-Z_]+\]")
BY_TYPE: Final[Mapping[str, Family]] = {kind: family for family in FAMILIES for kind in family.model_types}


def build_prompt(family: Family, task: str, instruction: str, language: str = "") -> tuple[str, str]:
    r"""The text in front of the audio and the text behind it.

    Args:
        family: whose template.
        task: one of the family's.
        instruction: what is asked; empty for a template that transcribes without being asked in words.
        language: code of two letters, for templates that name one; empty lets the model find out.

    Example:
        >>> build_prompt(BY_TYPE["voxtral"], "transcribe", "", "en")
        ('<s>[INST][BEGIN_AUDIO]', '[/INST]lang:en[TRANSCRIBE]')
    """
    alone = task == "transcribe" and family.transcription and not instruction
    before, _, after = (family.transcription if alone else family.template).partition("{audio}")
    after = after.replace("{language}", f"lang:{language}" if language else "")
    return before, after.replace("{prompt}", instruction)


def markers(family: Family) -> tuple[str, ...]:
    """Tokens of a family's templates that its tokenizer has to know as one token each."""
    return tuple(sorted(set(_MARKER.findall(family.template + family.transcription))))


def check_task(family: Family, task: str, name: str) -> None:
    """Refuse a task that a family is not offered for.

    Raises:
        ConfigError: ``task-not-offered``; it names those that are.
    """
    if task not in family.tasks:
        offered = ", ".join(family.tasks)
        msg = f"{name} is a {family.name} model, which is not offered for {task!r}, only for {offered}."
        raise ConfigError(msg, code="task-not-offered", hint="Use one of these, or another model.")


def strip_opening(family: Family, text: str) -> str:
    """A transcript without the sentence and the quotation marks that a family puts around it.

    Source: ``AudioFlamingo3Processor.decode(strip_prefix=True)``.
    """
    opening = next((o for o in family.opening if text.startswith(o)), "")
    if not opening:
        return text
    bare = text.removeprefix(opening).strip().removesuffix(".").strip()
    quoted = len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\""
    return bare[1:-1].strip() if quoted else bare
