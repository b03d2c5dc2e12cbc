"""Labels of clips, and whether an answer has them right.

Knows nothing about models or tables. A clip has one right label, or several if it
is a mixture. An answer is the probability of each label; its prediction are as many
labels as the clip has right ones, the most probable first. Both arms are told that
number, so neither has an advantage, and an arm that was never taught to count (a
linear probe) can be asked about mixtures too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grym.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from grym.config import DatasetSpec
    from grym.corpus.manifest import Entry

JOINT: Final = " + "
"""What stands between the labels of a mixture in tables and on pages."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer against the right labels.

    Attributes:
        expected: the right labels, sorted.
        predicted: as many labels, the most probable first; fewer if the model gave fewer.
        correct: whether they are the same labels.
        any_correct: whether at least one is right.
    """

    expected: tuple[str, ...]
    predicted: tuple[str, ...]

    @property
    def correct(self) -> bool:
        """Whether all labels are right."""
        return set(self.predicted) == set(self.expected)

    @property
    def any_correct(self) -> bool:
        """Whether one of them is right."""
        return bool(set(self.predicted) & set(self.expected))


def labels_of(entry: Entry, spec: DatasetSpec) -> tuple[str, ...]:
    """The right labels of a clip, sorted, each once; underscores become spaces as in its text.

    Raises:
        ManifestError: ``no-label``: it has none.

    Example:
        >>> from pathlib import Path
        >>> from grym.config import DatasetSpec
        >>> from grym.corpus.manifest import Entry
        >>> spec = DatasetSpec(name="sounds", loader="manifest", path=Path("m.csv"), task="classify")
        >>> labels_of(Entry("k", Path("k.wav"), "k.wav", "It rains.", slices={"label": "siren+rain"}), spec)
        ('rain', 'siren')
    """
    written = entry.slices.get(spec.label) or ("" if spec.label in entry.slices else entry.text)
    parts = {" ".join(part.replace("_", " ").split()) for part in written.split(spec.separator)}
    found = tuple(sorted(parts - {""}))
    if not found:
        msg = f"{entry.key} has no label in column {spec.label!r}."
        raise ManifestError(msg, code="no-label", hint="Fill the column, or remove the row.")
    return found


def known_labels(entries: Iterable[Entry], spec: DatasetSpec) -> tuple[str, ...]:
    """Every label that some clips have, sorted."""
    return tuple(sorted({label for entry in entries for label in labels_of(entry, spec)}))


def most_probable(scores: Mapping[str, float], count: int) -> tuple[str, ...]:
    """So many labels with the highest probability, the highest first; of equals the first by name.

    Example:
        >>> most_probable({"rain": 0.2, "bell": 0.2, "siren": 0.6}, 2)
        ('siren', 'bell')
    """
    ranked = sorted(scores, key=lambda label: (-scores[label], label))
    return tuple(ranked[:count])


def score_labels(expected: Sequence[str], text: str, scores: Mapping[str, float]) -> Labelled:
    """Compare an answer with the right labels.

    Args:
        expected: the right labels.
        text: what the model said; it counts if there are no scores.
        scores: probability of each label.
    """
    predicted = most_probable(scores, len(expected)) if scores else (" ".join(text.replace("_", " ").split()),)
    return Labelled(tuple(sorted(expected)), predicted)


def joined(labels: Iterable[str]) -> str:
    """Labels as one text.

    Example:
        >>> joined(("rain", "siren"))
        'rain + siren'
    """
    return JOINT.join(labels)
