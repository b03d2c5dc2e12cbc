"""Errors are typed, become rows, and survive every border."""

from __future__ import annotations

import pickle

import pytest

from grym import errors
from grym.errors import DeadlineError, ErrorRecord, GrymError, StorageError

LEAVES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GrymError)]


@pytest.mark.parametrize("kind", LEAVES)
def test_an_error_survives_pickling_and_its_record(kind: type[GrymError]) -> None:
    """Prefect pickles exceptions and workers send records: no field is lost on either way."""
    error = kind("It broke.", code="why", hint="Mend it.", retryable=True, metadata={"pid": 3})
    for copy in (pickle.loads(pickle.dumps(error)), GrymError.from_record(error.record())):  # noqa: S301
        assert type(copy) is kind
        assert str(copy) == "It broke. Mend it."
        assert copy.record() == error.record()


def test_errors_are_also_the_fitting_builtin() -> None:
    """A caller may catch the builtin."""
    assert isinstance(DeadlineError("x"), TimeoutError)
    assert isinstance(StorageError("x"), OSError)
    assert DeadlineError("x").retryable
    assert not StorageError("x").retryable


def test_an_unknown_category_becomes_the_root() -> None:
    """A record of a newer version is still an error."""
    assert type(GrymError.from_record(ErrorRecord("novel", "c", "m"))) is GrymError
