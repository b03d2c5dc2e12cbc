"""Every error of the platform: one root, with what a person and a retry policy need to know.

    GrymError
    ├── ConfigError        grym.toml, options and names a person typed           (ValueError)
    ├── AudioError         a clip that cannot be used                             (ValueError)
    ├── ManifestError      a row or file of a dataset that cannot be used         (ValueError)
    ├── ModelError         a model that cannot be loaded or gave a bad answer     (RuntimeError)
    ├── WorkerError        the child process: crashed, garbled, could not start   (RuntimeError)
    ├── DeadlineError      no answer in time; the child was killed                (TimeoutError)
    ├── ResourceError      memory, disk, descriptors                              (MemoryError)
    ├── QualityError       a gate said no, or could not be evaluated              (RuntimeError)
    ├── StorageError       landing zone, warehouse, feature store                 (OSError)
    └── UnavailableError   not asked: a breaker is open, or nobody has time left  (ConnectionError)

Knows nothing about Prefect. A message is one sentence that names the value and
the rule; ``hint`` says what to do next, and ``suggestion`` what usually helps where
there is no hint. Messages never hold audio content.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping


class Category(StrEnum):
    """What went wrong; retry policies and reports group by it."""

    CONFIG = "config"
    AUDIO = "audio"
    MANIFEST = "manifest"
    MODEL = "model"
    WORKER = "worker"
    DEADLINE = "deadline"
    RESOURCE = "resource"
    QUALITY = "quality"
    STORAGE = "storage"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


# What usually helps, for errors that came without a hint.
SUGGESTIONS: Final[Mapping[str, str]] = {
    Category.CONFIG: "Compare the setting with docs and grym.toml, mend it, and give the command again.",
    Category.AUDIO: "Listen to the clip, decode it again, or leave it out.",
    Category.MANIFEST: "Mend the row of the manifest, or leave it out.",
    Category.MODEL: "Read the worker's log in the home's logs folder, or use another model.",
    Category.WORKER: "Give the command again; if it happens again, read the worker's log in the home's logs folder.",
    Category.DEADLINE: "Send less audio at once, or allow more time under [worker] in grym.toml.",
    Category.RESOURCE: "Free memory or space, or use a smaller batch or a smaller precision.",
    Category.QUALITY: "See table quality for the rule and its reason.",
    Category.STORAGE: "Check that the home can be written to and that nobody else holds it.",
    Category.UNAVAILABLE: "Try again later; python -m flows health says which models answer.",
    Category.INTERNAL: "This is a defect: report it with the log.",
}


class Layer(StrEnum):
    """Where an error arose."""

    VALIDATION = "validation"
    CONTEXT = "context"
    RESOURCE = "resource"
    EXECUTION = "execution"


class Severity(StrEnum):
    """How bad it is for the run."""

    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An error as a row: what crosses process and task borders instead of an exception."""

    category: str
    code: str
    message: str
    retryable: bool = False
    layer: str = Layer.EXECUTION
    severity: str = Severity.ERROR
    hint: str = ""
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def suggestion(self) -> str:
        """What to do next, as a sentence: the hint, or what usually helps with this category."""
        return self.hint or SUGGESTIONS.get(self.category, SUGGESTIONS[Category.INTERNAL])


class GrymError(Exception):
    """Root of all errors of the platform.

    Args:
        message: one sentence for a person: the value and the rule it broke.
        code: short, stable, kebab-case reason (``"too-short"``); groups rows in reports.
        hint: what to do next, as a sentence.
        retryable: overrides the class's default.
        metadata: small facts for the row; never audio, never secrets.
    """

    category: ClassVar[Category] = Category.INTERNAL
    layer: ClassVar[Layer] = Layer.EXECUTION
    severity: ClassVar[Severity] = Severity.ERROR
    default_code: ClassVar[str] = "internal"
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        hint: str = "",
        retryable: bool | None = None,
        metadata: Mapping[str, str | int | float | bool] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.retryable = self.default_retryable if retryable is None else retryable
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        """The message and, if there is one, the hint."""
        return f"{self.message} {self.hint}" if self.hint else self.message

    @property
    def suggestion(self) -> str:
        """What to do next, as a sentence: the hint, or what usually helps with this category."""
        return self.record().suggestion

    def __reduce__(self) -> tuple[object, ...]:
        """Keep every field across pickling (Prefect persists exceptions of failed tasks)."""
        return _rebuild, (type(self), self.message, self.code, self.hint, self.retryable, self.metadata)

    def record(self) -> ErrorRecord:
        """This error as a row."""
        return ErrorRecord(
            category=self.category,
            code=self.code,
            message=self.message,
            retryable=self.retryable,
            layer=self.layer,
            severity=self.severity,
            hint=self.hint,
            metadata=dict(self.metadata),
        )

    @classmethod
    def from_record(cls, record: ErrorRecord) -> Self:
        """Rebuild the typed error that a record describes (for example one from a worker)."""
        kind = next((k for k in _leaves(cls) if k.category == record.category), cls)
        return kind(
            record.message, code=record.code, hint=record.hint, retryable=record.retryable, metadata=record.metadata
        )


class ConfigError(GrymError, ValueError):
    """A setting, option or name that a person typed is wrong."""

    category = Category.CONFIG
    layer = Layer.VALIDATION
    severity = Severity.ERROR
    default_code = "config"
    default_retryable = False


class AudioError(GrymError, ValueError):
    """A clip cannot be used; it goes to quarantine and the run goes on."""

    category = Category.AUDIO
    layer = Layer.VALIDATION
    severity = Severity.WARNING
    default_code = "audio"
    default_retryable = False


class ManifestError(GrymError, ValueError):
    """A dataset, or one row of it, cannot be used."""

    category = Category.MANIFEST
    layer = Layer.VALIDATION
    severity = Severity.WARNING
    default_code = "manifest"
    default_retryable = False


class ModelError(GrymError, RuntimeError):
    """A model cannot be loaded, or its answer is unusable."""

    category = Category.MODEL
    layer = Layer.EXECUTION
    severity = Severity.ERROR
    default_code = "model"
    default_retryable = False


class WorkerError(GrymError, RuntimeError):
    """The child process crashed, could not start or broke the protocol."""

    category = Category.WORKER
    layer = Layer.EXECUTION
    severity = Severity.ERROR
    default_code = "worker-crashed"
    default_retryable = True


class DeadlineError(GrymError, TimeoutError):
    """No answer before the deadline; the child was killed."""

    category = Category.DEADLINE
    layer = Layer.EXECUTION
    severity = Severity.ERROR
    default_code = "deadline"
    default_retryable = True


class ResourceError(GrymError, MemoryError):
    """Memory, disk or descriptors ran out."""

    category = Category.RESOURCE
    layer = Layer.RESOURCE
    severity = Severity.CRITICAL
    default_code = "resource"
    default_retryable = True


class QualityError(GrymError, RuntimeError):
    """A gate said no, or could not be evaluated."""

    category = Category.QUALITY
    layer = Layer.CONTEXT
    severity = Severity.CRITICAL
    default_code = "quality"
    default_retryable = False


class StorageError(GrymError, OSError):
    """The landing zone, the warehouse or the feature store cannot be used."""

    category = Category.STORAGE
    layer = Layer.CONTEXT
    severity = Severity.CRITICAL
    default_code = "storage"
    default_retryable = False


class UnavailableError(GrymError, ConnectionError):
    """Nobody was asked: a breaker is open, a queue is full, or no time is left.

    Metadata may hold ``retry_after_seconds``.
    """

    category = Category.UNAVAILABLE
    layer = Layer.RESOURCE
    severity = Severity.ERROR
    default_code = "unavailable"
    default_retryable = False


E = TypeVar("E", bound="GrymError")


def _rebuild(
    kind: type[GrymError],
    message: str,
    code: str,
    hint: str,
    retryable: bool,  # noqa: FBT001
    metadata: Mapping[str, str | int | float | bool],
) -> GrymError:
    return kind(message, code=code, hint=hint, retryable=retryable, metadata=metadata)


def _leaves(kind: type[E]) -> list[type[E]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in _leaves(child))]
