"""Where ids lie in [0, 1): one at a time or many at once, with the same result to the last bit.

    sha256: first 53 bits of sha256(purpose NUL salt NUL id) / 2^53

Ids are UTF-8. Purposes keep arms, namespaces and holdouts independent of each other. Knows nothing about experiments.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from grym.errors import ConfigError
from grym.experiment import growthbook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from grym.experiment.config import Hash

Purpose = Literal["arm", "namespace", "holdout"]
_BITS: Final = 53  # of a float's fraction: every bucket is exact


def bucket(kind: Hash, purpose: Purpose, salt: str, raw: bytes) -> float:
    """Where one id lies in [0, 1)."""
    if kind == "sha256" or purpose == "holdout":  # a holdout is the same for experiments of every profile
        digest = hashlib.sha256(_prefix(purpose, salt) + raw).digest()
        return (int.from_bytes(digest[:8], "big") >> (64 - _BITS)) * 2.0**-_BITS  # exact
    return growthbook.bucket_bytes(*_seed(kind, purpose, salt, raw))


def buckets(kind: Hash, purpose: Purpose, salt: str, raw: Sequence[bytes]) -> NDArray[np.float64]:
    """Where each id lies in [0, 1), ``float64, shape = (ids,)``."""
    if kind == "sha256" or purpose == "holdout":
        prefix, sha = _prefix(purpose, salt), hashlib.sha256
        digests = b"".join([sha(prefix + text).digest()[:8] for text in raw])
        return np.ldexp((np.frombuffer(digests, ">u8") >> np.uint64(64 - _BITS)).astype(np.float64), -_BITS)
    seed, _, version = _seed(kind, purpose, salt, b"")
    return growthbook.bucket_many(seed, raw, version)


def encoded(unit: str) -> bytes:
    """An id as UTF-8; empty if it is not valid Unicode.

    Raises:
        ConfigError: it is not text.
    """
    try:
        return unit.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return b""
    except AttributeError as error:
        msg = f"The unit {unit!r} is not text but {type(unit).__name__}."
        raise ConfigError(msg, code="bad-unit", hint="Convert ids to text in one place.") from error


def encoded_many(units: Sequence[str]) -> list[bytes]:
    """:func:`encoded` of each id.

    Raises:
        ConfigError: one is not text.
    """
    try:
        return [unit.encode() for unit in units]
    except (UnicodeEncodeError, AttributeError):
        return [encoded(unit) for unit in units]


def _prefix(purpose: Purpose, salt: str) -> bytes:
    return b"%s\0%s\0" % (purpose.encode(), salt.encode())


def _seed(kind: Hash, purpose: Purpose, salt: str, raw: bytes) -> tuple[bytes, bytes, int]:
    """Seed, value and version of GrowthBook's hash; a namespace is hashed by version 1 whatever the arms are."""
    if purpose == "namespace":
        return f"__{salt}".encode(), raw, 1
    return salt.encode(), raw, 1 if kind == "growthbook-v1" else 2
