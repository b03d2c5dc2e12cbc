"""GrowthBook's public assignment algorithm: hashes, bucket ranges, namespaces and sticky buckets.

Written from its specification (docs "Build your own SDK", version 0.8.0) and agreeing with its public cases, so that
a client that uses a GrowthBook SDK and this server put a user into the same arm. Known weaknesses are kept on purpose:
under version 1 sibling experiments correlate. Ids are hashed as UTF-8, as the specification's FNV does; GrowthBook's
own JavaScript SDK hashes UTF-16 units instead, which differs for ids outside ASCII.

Knows nothing about experiments of this platform: :mod:`grym.experiment.assignment` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_OFFSET: Final = 0x811C9DC5
_PRIME: Final = 0x01000193
_BUCKETS: Final = {1: 1_000, 2: 10_000}  # by version
_WEIGHT_SUM: Final = (0.99, 1.01)  # outside, GrowthBook falls back to equal weights
_LONGEST: Final = 256  # bytes; longer ids would widen the matrix that everybody is hashed in

Ranges = tuple[tuple[float, float], ...]


def fnv1a(text: bytes) -> int:
    """32-bit FNV-1a.

    Source: Fowler, Noll, Vo; draft-eastlake-fnv.
    """
    value = _OFFSET
    for byte in text:
        value = ((value ^ byte) * _PRIME) & 0xFFFFFFFF
    return value


def fnv1a_many(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    """32-bit FNV-1a of each text, ``uint32, shape = (texts,)``."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if len(texts) == 0 or lengths.max() > _LONGEST:
        return np.fromiter(map(fnv1a, texts), np.uint32, len(texts))
    padded = np.array(texts, dtype=f"S{max(1, int(lengths.max()))}")
    columns = np.ascontiguousarray(padded.view(np.uint8).reshape(len(texts), -1).T)
    values = np.full(len(texts), _OFFSET, np.uint32)
    for position, column in enumerate(columns):
        hashed = (values ^ column) * np.uint32(_PRIME)  # modulo 2^32 by the type
        values = np.where(lengths > position, hashed, values)
    return values


def bucket(seed: str, value: str, version: int) -> float | None:
    """Where a value lies in [0, 1), on a grid of 1/1000 (version 1) or 1/10000 (version 2); none for other versions.

    Example:
        >>> bucket("", "a", 1), bucket("seed", "a", 2)
        (0.22, 0.0505)
    """
    return bucket_bytes(seed.encode(), value.encode(), version) if version in _BUCKETS else None


def bucket_bytes(seed: bytes, value: bytes, version: int) -> float:
    """:func:`bucket` of UTF-8; version 1 or 2."""
    hashed = fnv1a(value + seed) if version == 1 else fnv1a(b"%d" % fnv1a(seed + value))
    return hashed % _BUCKETS[version] / _BUCKETS[version]


def bucket_many(seed: bytes, values: Sequence[bytes], version: int) -> NDArray[np.float64]:
    """:func:`bucket_bytes` of each value; ``float64, shape = (values,)``."""
    if version == 1:
        hashed = fnv1a_many([value + seed for value in values])
    else:
        first = fnv1a_many([seed + value for value in values])
        hashed = fnv1a_many([b"%d" % number for number in first.tolist()])
    return (hashed % np.uint32(_BUCKETS[version])).astype(np.float64) / _BUCKETS[version]


def equal_weights(count: int) -> tuple[float, ...]:
    """The same weight for each of ``count`` variations."""
    return (1 / count,) * count if count > 0 else ()


def bucket_ranges(count: int, coverage: float = 1.0, weights: Sequence[float] | None = None) -> Ranges:
    """The part of [0, 1) that each variation takes.

    Args:
        count: number of variations.
        coverage: fraction of each variation's part that is used; outside [0, 1] the nearer end.
        weights: of the variations; equal ones where none are given, or they do not fit.

    Example:
        >>> bucket_ranges(2, 0.5)
        ((0.0, 0.25), (0.5, 0.75))
    """
    least, most = _WEIGHT_SUM
    if weights is None or len(weights) != count or not least <= sum(weights) <= most:
        weights = equal_weights(count)
    coverage = min(1.0, max(0.0, coverage))
    ranges, start = [], 0.0
    for weight in weights:
        ranges.append((start, start + coverage * weight))
        start += weight
    return tuple(ranges)


def choose(value: float, ranges: Sequence[tuple[float, float]]) -> int:
    """Index of the range ``[start, end)`` that the value lies in, or -1."""
    return next((index for index, (start, end) in enumerate(ranges) if start <= value < end), -1)


def in_namespace(value: str, namespace: str, start: float, end: float) -> bool:
    """Whether a value lies in the slice ``[start, end)`` of a namespace."""
    found = bucket(f"__{namespace}", value, 1)
    return found is not None and start <= found < end


@dataclass(frozen=True, slots=True)
class StickyBucket:
    """What earlier assignments say.

    Attributes:
        variation: index of the variation, or -1 if none is remembered.
        blocked: whether the value was assigned under a version that is no longer allowed.
    """

    variation: int
    blocked: bool = False


def sticky_key(experiment: str, bucket_version: int = 0) -> str:
    """Under which key a document remembers an experiment.

    Example:
        >>> sticky_key("checkout", 3)
        'checkout__3'
    """
    return f"{experiment}__{bucket_version}"


def sticky_variation(
    assignments: Mapping[str, str],
    experiment: str,
    keys: Sequence[str],
    *,
    bucket_version: int = 0,
    min_bucket_version: int = 0,
) -> StickyBucket:
    """Look an experiment up in what is remembered of a user.

    Args:
        assignments: :func:`sticky_key` to key of the variation; see :func:`remembered`.
        experiment: key of the experiment.
        keys: keys of the variations, in order.
        bucket_version: version of the experiment's buckets.
        min_bucket_version: assignments of lower versions block the user.
    """
    if any(sticky_key(experiment, version) in assignments for version in range(min_bucket_version)):
        return StickyBucket(-1, blocked=True)
    key = assignments.get(sticky_key(experiment, bucket_version))
    return StickyBucket(keys.index(key) if key in keys else -1)


def remembered(
    documents: Mapping[tuple[str, str], Mapping[str, str]],
    attribute: tuple[str, str],
    fallback: tuple[str, str] | None = None,
) -> dict[str, str]:
    """What is remembered of a user: the fallback attribute's assignments, and over them the hash attribute's.

    Args:
        documents: assignments by attribute's name and value.
        attribute: name and value of the hash attribute; an empty value has no document.
        fallback: name and value of the fallback attribute.
    """
    found: dict[str, str] = {}
    for place in (fallback, attribute):
        if place is not None and place[1]:
            found |= documents.get(place, {})
    return found
