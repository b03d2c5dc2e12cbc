"""The recipe of a training, every number that decides its result, and a record of the speech it heard.

Imports no torch. The recipe's key names folders and checkpoints; the data are
recorded beside it, so that a training never goes on with other speech unnoticed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from grym.corpus.recorded import voices_sha256
from grym.corpus.synthesizers import installed
from grym.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from grym.models.gama.recipe import GamaSpec

# Takes 0-4 of the Free Spoken Digit Dataset are its test split.
FSDD_FIRST_TAKE: Final = 5


def read_fields(recipe: type[Any], text: str) -> dict[str, Any]:
    """Arguments of a recipe (a dataclass with the field ``leave_out``) from a JSON object.

    Raises:
        ConfigError: a field is unknown; the message names the right ones.
    """
    fields: dict[str, Any] = json.loads(text)
    known = [field.name for field in dataclasses.fields(recipe)]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        msg = f"Unknown training fields {', '.join(unknown)}; known are {', '.join(known)}."
        raise ConfigError(msg, code="unknown-option")
    return {**fields, "leave_out": tuple(fields.get("leave_out", ()))}


def recipe_key(spec: Any) -> str:
    """Identity of a recipe (a dataclass): the first 12 digits of the hash of its fields."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(spec), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """Everything that decides the result of a training.

    Attributes:
        steps: optimizer steps in all.
        alignment_steps: first steps with frame-level cross-entropy instead of CTC.
        seed: seed of weights, batches, dropout and masks.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of the optimizer, on matrices only.
        optimizer: ``adamw``, or ``muon`` for the matrices between layers.
        batch_seconds: rough amount of audio in a batch, in seconds.
        voices: English voices of espeak-ng.
        voice_seed: seed of what all synthetic voices say and how; the same in all stages, so that it is spoken once.
        strings_per_voice: digit strings by each of them, beside the ten single digits.
        fsdd_share: share of clips from real recordings.
        string_share: share of the synthetic voices' longer clips that were spoken as one string.
        recorded_share: share of clips from the voices of :mod:`grym.corpus.synthesizers`.
        fsdd_warps: copies of every real take with other formants.
        augmentation: name in :data:`grym.corpus.augment.PRESETS`.
        leave_out: speakers of the real recordings that are not trained on.
        checkpoint_every: steps between checkpoints.
        average_decay: decay of the moving average of the weights, which is what is exported.
        stop_after: step after which the stage is exported although its schedule goes on; 0 goes to the end.
        start_from: key of the stage whose exported weights this one starts from; empty starts from scratch.
    """

    module: ClassVar[str] = "grym.models.training"

    steps: int = 6000
    alignment_steps: int = 400
    seed: int = 20261120
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    optimizer: str = "adamw"
    batch_seconds: float = 44.0
    voices: int = 464
    voice_seed: int = 20261120
    strings_per_voice: int = 5
    fsdd_share: float = 0.55
    string_share: float = 0.4
    recorded_share: float = 0.0
    fsdd_warps: int = 0
    augmentation: str = "wide"
    leave_out: tuple[str, ...] = ()
    checkpoint_every: int = 250
    average_decay: float = 0.999
    stop_after: int = 0
    start_from: str = ""

    @classmethod
    def from_json(cls, text: str) -> TrainSpec:
        """Read fields from a JSON object; fields that are not named keep their defaults.

        Raises:
            ConfigError: a field is unknown; the message names the right ones.
        """
        return cls(**read_fields(cls, text))

    @property
    def key(self) -> str:
        """Identity of the training; a checkpoint of another key is refused."""
        return recipe_key(self)


@dataclass(frozen=True, slots=True)
class TrainData:
    """Which speech a training hears; two trainings with equal records hear the same.

    Attributes:
        voices: synthetic training voices.
        recorded_voices: voices of further synthesizers; 0 where the recipe uses none.
        recorded_sha256: fingerprint of their names, what they read and how often.
        fsdd_takes: recordings of the Free Spoken Digit Dataset; 0 is none.
        fsdd_speakers: how many people spoke them.
        fsdd_sha256: fingerprint of their file names and sizes; empty without them.
        manifest: file name of the manifest of further clips; empty without one.
        manifest_sha256: content hash of the manifest, not of its audio.
    """

    voices: int = 0
    recorded_voices: int = 0
    recorded_sha256: str = ""
    fsdd_takes: int = 0
    fsdd_speakers: int = 0
    fsdd_sha256: str = ""
    manifest: str = ""
    manifest_sha256: str = ""

    @classmethod
    def of(cls, spec: TrainSpec | GamaSpec, fsdd: Path | None, manifest: Path | None) -> Self:
        """Describe what a training of this recipe would hear; reads no audio and synthesises none.

        Raises:
            ConfigError: the FSDD folder holds no training take, or the manifest is missing.
        """
        takes = _fsdd_takes(spec, fsdd) if fsdd is not None and spec.fsdd_share else []
        recorded = installed() if spec.recorded_share else []
        if manifest is not None and not manifest.is_file():
            msg = f"{manifest} is not a manifest to train on."
            raise ConfigError(msg, code="no-manifest", hint="Name a CSV or JSONL file.")
        files = json.dumps([(path.name, path.stat().st_size) for path in takes])
        return cls(
            voices=spec.voices,
            recorded_voices=len(recorded),
            recorded_sha256=voices_sha256(recorded) if recorded else "",
            fsdd_takes=len(takes),
            fsdd_speakers=len({path.stem.split("_")[1] for path in takes}),
            fsdd_sha256=hashlib.sha256(files.encode()).hexdigest() if takes else "",
            manifest=manifest.name if manifest is not None else "",
            manifest_sha256=hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest is not None else "",
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> Self | None:
        """Read what a checkpoint or training.json holds; ``None`` where none was recorded."""
        return None if record is None else cls(**record)

    def difference(self, now: TrainData) -> str:
        """Name what differs, as ``field: before, now``; empty if nothing does."""
        names = [field.name for field in dataclasses.fields(self)]
        pairs = [(name, getattr(self, name), getattr(now, name)) for name in names]
        return "; ".join(
            f"{name} {old or 'none'} before, {new or 'none'} now" for name, old, new in pairs if old != new
        )


def _fsdd_takes(spec: TrainSpec | GamaSpec, fsdd: Path) -> list[Path]:
    files = sorted((fsdd / "recordings").glob("*_*_*.wav"))
    parts = [path.stem.split("_") for path in files]  # digit, speaker, take
    takes = [
        path
        for path, (_, who, take) in zip(files, parts, strict=True)
        if int(take) >= FSDD_FIRST_TAKE and who not in spec.leave_out
    ]
    if not takes:
        msg = f"{fsdd} holds no training take of the Free Spoken Digit Dataset."
        raise ConfigError(msg, code="no-data", hint="Set GRYM_FSDD to the folder above recordings/, or unset it.")
    return takes


def recorded_data(model: Path) -> TrainData | None:
    """What an exported model (a folder with ``training.json``) was trained on; ``None`` if it does not say."""
    facts = _facts(model)
    return TrainData.from_record(facts.get("data"))


def exported(model: Path, spec: TrainSpec | GamaSpec, data: TrainData) -> bool:
    """Whether a folder holds what a stage ends with, so that neither its checkpoint nor the stages before are needed.

    Args:
        model: an exported model, whatever machine trained it.
        spec: the stage.
        data: what a training of it would hear now.
    """
    facts = _facts(model)
    heard = TrainData.from_record(facts.get("data"))
    finished = facts.get("key") == spec.key and facts.get("step") == (spec.stop_after or spec.steps)
    return finished and heard is not None and not heard.difference(data)


def _facts(model: Path) -> dict[str, Any]:
    file = model / "training.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def mini_stages(
    seed: int = 20261120, voices: int = 464, scale: float = 1.0, leave_out: tuple[str, ...] = ()
) -> tuple[TrainSpec, ...]:
    """The stages of ``wav2vec2-mini``.

    The first hears synthetic voices alone, so that what it knows about speech does not lean on a few people; the
    second hears them in a hurry and cut tightly. The third adds real speech, cut by its level as recordings often are;
    the others settle on a mixture with more strings.

    Args:
        seed: seed of everything that is drawn.
        voices: English voices of espeak-ng; 0 is no synthetic voice of any engine.
        scale: factor on every number of steps, for quick trials.
        leave_out: real speakers that are not trained on; the stages before the last are the same.
    """

    def steps(count: int) -> int:
        return max(1, round(count * scale))

    first = TrainSpec(
        steps=steps(3200),
        alignment_steps=steps(400),
        seed=seed,
        voices=voices,
        strings_per_voice=12,
        fsdd_share=0.0,
        recorded_share=0.6 if voices else 0.0,
        string_share=0.5,
    )
    second = dataclasses.replace(
        first,
        steps=steps(2300),
        alignment_steps=0,
        seed=seed + 1,
        learning_rate=1.2e-3,
        augmentation="hurried",
        start_from=first.key,
    )
    third = dataclasses.replace(
        second,
        steps=steps(700),
        seed=seed + 2,
        learning_rate=8e-4,
        augmentation="trimmed",
        fsdd_share=0.4,
        fsdd_warps=3,
        recorded_share=0.36 if voices else 0.0,
        string_share=0.6,
        leave_out=leave_out,
        start_from=second.key,
    )
    fourth = dataclasses.replace(
        third,
        steps=steps(500),
        seed=seed + 3,
        learning_rate=5e-4,
        augmentation="mixed",
        fsdd_share=0.35,
        recorded_share=0.3 if voices else 0.0,
        string_share=0.7,
        start_from=third.key,
    )
    fifth = dataclasses.replace(
        fourth,
        steps=steps(900),
        seed=seed + 4,
        learning_rate=8e-4,
        string_share=0.75,
        start_from=fourth.key,
    )
    return first, second, third, fourth, fifth
