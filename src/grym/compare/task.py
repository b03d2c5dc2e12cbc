"""What models are asked about the clips of a run, and how what they answer is judged, scored and compared.

A run has one task: to transcribe (word error rate) or to classify (label accuracy).
Everything else of a run, from the batches to the report, is the same for both.
Knows nothing about processes or stores.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from grym.compare.accuracy import accuracy_rows, compare_labels
from grym.compare.labels import joined, known_labels, labels_of, score_labels
from grym.compare.normalize import get_normalizer
from grym.compare.run_evidence import evidence_rows, noise_rows
from grym.compare.score import Aligned, outcome_scores, score
from grym.compare.verdict import compare_run
from grym.errors import ConfigError
from grym.models.failures import find_failure
from grym.models.interface import Options
from grym.quality import label_frame, transcription_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import polars as pl

    from grym.config import CompareSettings, DatasetSpec, TaskName
    from grym.corpus.manifest import Dataset, Entry
    from grym.models.interface import Answer, Card

Row = dict[str, Any]
NO_LABELS: Final = "labels"  # stands for a normaliser where no words are counted


class Task(Protocol):
    """One kind of question, with everything that depends on it."""

    name: ClassVar[TaskName]
    metric: ClassVar[str]
    suite: ClassVar[str]
    words: ClassVar[bool]

    @property
    def rule(self) -> str:
        """How answers are scored, for the column ``normalizer``."""
        ...

    @property
    def identity(self) -> Mapping[str, object]:
        """What of it can change an answer or a verdict, for the key of the run."""
        ...

    def options(self, *, features: bool = False, segments: bool = True) -> Options:
        """What a model is asked."""
        ...

    def frame(self, answers: Sequence[Answer], seconds: Sequence[float]) -> pd.DataFrame:
        """Answers as the frame that the expectation suite judges."""
        ...

    def score(self, entry: Entry, answer: Answer) -> tuple[Row, tuple[Aligned, ...]]:
        """Columns of ``outcomes`` for an answer, and its aligned words if words are counted."""
        ...

    def evidence(
        self, tables: Mapping[str, pl.DataFrame], names: Mapping[str, str], *, one_look: bool = True
    ) -> dict[str, list[Row]]:
        """What stands behind the verdict: rows by table; ``one_look`` is false for a run that may stop early."""
        ...

    def compare(
        self, tables: Mapping[str, pl.DataFrame], names: Mapping[str, str], run_id: str, planned: int | None
    ) -> list[Row]:
        """Rows of ``comparisons``; the one of :attr:`metric` carries the verdict."""
        ...


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Words against a reference text.

    Attributes:
        settings: normaliser, confidence, margin and seed of ``[compare]``.
        prompt: instruction for models that take one.
    """

    settings: CompareSettings
    prompt: str = ""
    name: ClassVar[TaskName] = "transcribe"
    metric: ClassVar[str] = "wer"
    suite: ClassVar[str] = "transcription"
    words: ClassVar[bool] = True

    @property
    def rule(self) -> str:
        """Name, version and hash of the normaliser."""
        return get_normalizer(self.settings.normalizer).label

    @property
    def identity(self) -> Mapping[str, object]:
        """The prompt; everything else is in ``[compare]``."""
        return {"task": self.name, "prompt": self.prompt}

    def options(self, *, features: bool = False, segments: bool = True) -> Options:
        """To transcribe."""
        return Options(features=features, segments=segments, task=self.name, prompt=self.prompt)

    def frame(self, answers: Sequence[Answer], seconds: Sequence[float]) -> pd.DataFrame:
        """For suite ``transcription``."""
        return transcription_frame(answers, seconds)

    def score(self, entry: Entry, answer: Answer) -> tuple[Row, tuple[Aligned, ...]]:
        """Word and character errors, and what is wrong with the text as a text.

        A failure class is looked for in every arm's text, generated or not, so that both are counted alike.
        """
        normalizer = get_normalizer(self.settings.normalizer)
        text = answer.text or ""
        result = score(entry.text, text, normalizer)
        failure = answer.failure or find_failure(text, self.name)
        return outcome_scores(result, normalizer) | {"failure": failure}, result.alignment

    def evidence(
        self, tables: Mapping[str, pl.DataFrame], names: Mapping[str, str], *, one_look: bool = True
    ) -> dict[str, list[Row]]:
        """Tests, analyses, blame, radar and the noise floor; tests hold only where nobody looked before the end."""
        compare = self.settings
        found = evidence_rows(
            tables,
            normalizer=compare.normalizer,
            confidence=compare.confidence,
            margin=compare.margin_wer,
            seed=compare.seed if one_look else None,
        )
        return found | {"noise": noise_rows(tables["repeats"], tables["clips"], names, compare.confidence)}

    def compare(
        self, tables: Mapping[str, pl.DataFrame], names: Mapping[str, str], run_id: str, planned: int | None
    ) -> list[Row]:
        """By word error rate."""
        compare = self.settings
        return compare_run(
            tables["outcomes"],
            tables["clips"],
            tables["operations"],
            name_a=names["a"],
            name_b=names["b"],
            run_id=run_id,
            confidence=compare.confidence,
            margin_wer=compare.margin_wer,
            seed=compare.seed,
            planned=planned,
        )


@dataclass(frozen=True, slots=True)
class Classify:
    """Labels against the right ones; see :mod:`grym.compare.labels` for mixtures.

    Fragility, blame list, reference radar, noise floor and early stop are about words and left out.

    Attributes:
        settings: confidence, margin and seed of ``[compare]``.
        spec: the labelled dataset.
        labels: what there is to choose from, sorted.
    """

    settings: CompareSettings
    spec: DatasetSpec
    labels: tuple[str, ...] = field(repr=False)
    name: ClassVar[TaskName] = "classify"
    metric: ClassVar[str] = "accuracy"
    suite: ClassVar[str] = "classification"
    words: ClassVar[bool] = False

    @property
    def rule(self) -> str:
        """Name of the rule and a hash of the labels."""
        return f"{NO_LABELS}/{hashlib.sha256(json.dumps(self.labels).encode()).hexdigest()[:8]}"

    @property
    def identity(self) -> Mapping[str, object]:
        """Labels, prompt, and where they stand."""
        spec = self.spec
        return {
            "task": self.name,
            "labels": list(self.labels),
            "prompt": spec.prompt,
            "column": [spec.label, spec.separator],
        }

    def options(self, *, features: bool = False, segments: bool = True) -> Options:
        """To choose among the labels."""
        return Options(
            features=features, segments=segments, task=self.name, prompt=self.spec.prompt, labels=self.labels
        )

    def frame(self, answers: Sequence[Answer], seconds: Sequence[float]) -> pd.DataFrame:
        """For suite ``classification``."""
        return label_frame(answers, seconds, self.labels)

    def score(self, entry: Entry, answer: Answer) -> tuple[Row, tuple[Aligned, ...]]:
        """Which labels are right. A text that is none of the labels is a failure class of its own, ``wrong-task``."""
        expected, text = labels_of(entry, self.spec), answer.text or ""
        found = score_labels(expected, text, answer.scores)
        failure = answer.failure or find_failure(text, self.name)
        if not failure and not set(found.predicted) <= set(self.labels):
            failure = "wrong-task"
        scores = {label: round(share, 6) for label, share in answer.scores.items()}
        return {
            "failure": failure,
            "label": joined(found.expected),
            "predicted": joined(found.predicted),
            "label_scores": json.dumps(scores, ensure_ascii=False),
            "correct": found.correct,
            "any_correct": found.any_correct,
        }, ()

    def evidence(
        self,
        tables: Mapping[str, pl.DataFrame],
        names: Mapping[str, str],  # noqa: ARG002 - the contract
        *,
        one_look: bool = True,  # noqa: ARG002 - as above
    ) -> dict[str, list[Row]]:
        """Accuracy by label and by slice."""
        return {"accuracies": accuracy_rows(tables, label=self.spec.label, confidence=self.settings.confidence)}

    def compare(
        self, tables: Mapping[str, pl.DataFrame], names: Mapping[str, str], run_id: str, planned: int | None
    ) -> list[Row]:
        """By label accuracy; all clips are asked, so ``planned`` is not looked at."""
        del planned
        compare = self.settings
        return compare_labels(
            tables,
            names=names,
            run_id=run_id,
            confidence=compare.confidence,
            margin=compare.margin_accuracy,
            seed=compare.seed,
        )


def make_task(
    name: TaskName, spec: DatasetSpec, dataset: Dataset, training: Dataset | None, settings: CompareSettings
) -> Task:
    """The task of a dataset.

    Args:
        name: ``transcribe`` or ``classify``.
        spec: the dataset as registered.
        dataset: its clips.
        training: the clips that say which labels there are; ``None``: those of the dataset itself.
        settings: ``[compare]`` of grym.toml.

    Raises:
        ConfigError: ``too-few-labels``: there is nothing to choose from; ``unknown-label``: clips have labels that the
            training clips do not.
        ManifestError: a clip has no label.
    """
    if name == "transcribe":
        return Transcribe(settings, spec.prompt)
    own = known_labels(dataset.entries, spec)
    labels = known_labels(training.entries, spec) if training is not None else own
    if unknown := sorted(set(own) - set(labels)):
        msg = f"{spec.name} has labels that {spec.train} does not: {', '.join(unknown[:5])}."
        raise ConfigError(msg, code="unknown-label", hint="Mend the labels; no model could name these.")
    if len(labels) < 2:  # noqa: PLR2004 - a choice needs two
        msg = f"{spec.name} has {len(labels)} label in column {spec.label!r}; a choice needs at least two."
        hint = f'Name another column: label = "..." in [datasets.{spec.name}] of grym.toml.'
        raise ConfigError(msg, code="too-few-labels", hint=hint)
    return Classify(settings, spec, labels)


def can_answer(card: Card, task: TaskName) -> bool:
    """Whether a model does the task by itself."""
    return task in card.tasks


def require_able(card: Card, task: TaskName) -> None:
    """Refuse a model that can neither do the task nor give features for a probe.

    Raises:
        ConfigError: ``cannot-transcribe`` or ``cannot-classify``.
    """
    if can_answer(card, task) or (task == "classify" and "features" in card.tasks and card.feature_dim > 0):
        return
    msg = f"{card.name!r} cannot {task}; it can {', '.join(card.tasks) or 'do nothing'}."
    hint = "Choose another model or dataset." if task == "transcribe" else "It gives no features for a probe either."
    raise ConfigError(msg, code=f"cannot-{task}", hint=hint)
