"""The recipe of ``gama-mini``: every number that decides its result. Imports no torch.

Six stages. The encoder learns alone, with auxiliary heads, from synthetic voices and generated sounds; the language
side learns from what the encoder, now frozen, gives; then both learn together, and real speech is added;
then together with more questions, several about each clip, then with more captions, at last with captions
that name sounds in the order in which they come.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Final

from grym.errors import ConfigError
from grym.models.recipe import read_fields, recipe_key

PARTS: Final = ("encoder", "language", "joint")


@dataclass(frozen=True, slots=True)
class GamaSpec:
    """Everything that decides the result of one stage.

    Attributes:
        part: ``encoder``, ``language`` or ``joint``.
        steps: optimizer steps in all.
        seed: seed of weights and batches.
        learning_rate: peak, of both optimizers.
        weight_decay: on matrices only.
        batch: clips of a step, half of them sounds and half of them speech.
        width: of the audio encoder, the Q-Former and the aggregator.
        blocks: of the audio encoder.
        text_width: of the language model.
        text_layers: of the language model.
        target_frames: frames of 10 ms of a window.
        auxiliary: factor on the losses of the auxiliary heads.
        alignment_steps: first steps in which the digits of joined clips are aligned frame by frame.
        sounds: generated clips of sound events.
        sound_seed: seed of them; the same in all stages, so that they are generated once.
        speech: composed clips of spoken digits.
        voices: English voices of espeak-ng.
        voice_seed: seed of what all synthetic voices say and how.
        strings_per_voice: digit strings by each of them, beside the ten single digits.
        fsdd_share: share of speech from real recordings.
        recorded_share: share of speech from the voices of :mod:`grym.corpus.synthesizers`.
        string_share: share of the synthetic voices' longer clips that were spoken as one string.
        fsdd_warps: copies of every real take with other formants.
        augmentation: name in :data:`grym.corpus.augment.PRESETS`.
        leave_out: speakers of the real recordings that are not trained on.
        checkpoint_every: steps between checkpoints.
        average_decay: decay of the moving average of the weights, which is what is exported.
        stop_after: step after which the stage is exported although its schedule goes on; 0 goes to the end.
        listened: clips of either pool that a frozen encoder hears once; the language side learns from these.
        exercises: prompts with answers for each clip of sounds in a step.
        question_share: share of the exercises about sounds that are questions; captions give way.
        presence_share: share of these that ask whether a sound is there, beside those among the others.
        short_answers: each token of an answer of n tokens weighs ``n ** -short_answers``; 0 weighs tokens alike, and
            one-word answers then hardly count beside captions.
        plain_captions: captions come from the templates of :data:`grym.corpus.sounds.PLAIN` alone.
        start_from: key of the stage whose exported weights this one starts from; empty starts from scratch.
    """

    module: ClassVar[str] = "grym.models.gama.training"
    batch_seconds: ClassVar[float] = 44.0  # of the bank's own batches, which are not used here

    part: str = "encoder"
    steps: int = 1800
    seed: int = 20261128
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.02
    batch: int = 64
    width: int = 160
    blocks: int = 6
    text_width: int = 192
    text_layers: int = 3
    target_frames: int = 384
    auxiliary: float = 1.0
    alignment_steps: int = 0
    sounds: int = 20_000
    sound_seed: int = 20261128
    speech: int = 14_000
    voices: int = 464
    voice_seed: int = 20261120
    strings_per_voice: int = 12
    fsdd_share: float = 0.0
    recorded_share: float = 0.5
    string_share: float = 0.5
    fsdd_warps: int = 0
    augmentation: str = "wide"
    leave_out: tuple[str, ...] = ()
    checkpoint_every: int = 100
    average_decay: float = 0.998
    stop_after: int = 0
    listened: int = 0
    exercises: int = 1
    question_share: float = 0.35
    presence_share: float = 0.0
    short_answers: float = 0.0
    plain_captions: bool = False
    start_from: str = ""

    @classmethod
    def from_json(cls, text: str) -> GamaSpec:
        """Read fields from a JSON object; fields that are not named keep their defaults.

        Raises:
            ConfigError: a field or the part is unknown; the message names the right ones.
        """
        spec = cls(**read_fields(cls, text))
        if spec.part not in PARTS:
            msg = f"Unknown part {spec.part!r}; known are {', '.join(PARTS)}."
            raise ConfigError(msg, code="unknown-option")
        return spec

    @property
    def key(self) -> str:
        """Identity of the stage; a checkpoint of another key is refused."""
        return recipe_key(self)


def gama_stages(
    seed: int = 20261128, voices: int = 464, scale: float = 1.0, leave_out: tuple[str, ...] = ()
) -> tuple[GamaSpec, ...]:
    """The stages of ``gama-mini``; people are heard in the last four only.

    Args:
        seed: seed of everything that is drawn.
        voices: English voices of espeak-ng; 0 is no synthetic voice of any engine.
        scale: factor on every number of steps, for quick trials.
        leave_out: real speakers that are not trained on; the stages that hear no people are the same.
    """

    def steps(count: int) -> int:
        return max(1, round(count * scale))

    encoder = GamaSpec(
        steps=steps(1800),
        stop_after=steps(1200),
        alignment_steps=steps(400),
        seed=seed,
        voices=voices,
        recorded_share=0.5 if voices else 0.0,
    )
    language = dataclasses.replace(
        encoder,
        part="language",
        steps=steps(500),
        stop_after=0,
        alignment_steps=0,
        seed=seed + 1,
        listened=5000,
        average_decay=0.99,
        start_from=encoder.key,
    )
    joint = dataclasses.replace(
        language,
        part="joint",
        steps=steps(400),
        seed=seed + 2,
        learning_rate=1.5e-3,
        speech=6000,
        auxiliary=0.3,
        fsdd_share=0.5,
        fsdd_warps=2,
        recorded_share=0.25 if voices else 0.0,
        augmentation="mixed",
        leave_out=leave_out,
        start_from=language.key,
    )
    # Whether a sound is there and how many strokes it has is what the language side learns last.
    asked = dataclasses.replace(
        joint,
        steps=steps(600),
        seed=seed + 3,
        batch=48,
        exercises=4,
        question_share=0.5,
        presence_share=0.3,
        short_answers=0.5,
        average_decay=0.995,
        start_from=joint.key,
    )
    told = dataclasses.replace(
        asked,
        steps=steps(500),
        seed=seed + 4,
        learning_rate=1.2e-3,
        auxiliary=1.0,
        question_share=0.25,
        presence_share=0.2,
        short_answers=0.3,
        start_from=asked.key,
    )
    # A greedy decoder takes the likeliest word: of all templates together that was "coming", and then "after".
    plain = dataclasses.replace(
        told,
        steps=steps(260),
        seed=seed + 5,
        learning_rate=8e-4,
        plain_captions=True,
        average_decay=0.99,
        start_from=told.key,
    )
    return encoder, language, joint, asked, told, plain
