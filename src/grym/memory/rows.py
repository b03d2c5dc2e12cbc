"""Rows of the feature store: what a space is, and what may be stored in it.

Knows Arrow and the shape of a row; not LanceDB. Vectors are float32, ``shape = (dim,)``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from grym.errors import ConfigError, QualityError
from grym.memory.filters import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Vector = npt.NDArray[np.float32]
NAMED: Final = 5  # ids named in a message
CHANGEABLE: Final = (
    "vector",
    *(column for column in COLUMNS if column not in ("id", "model", "revision", "created_at")),
)


@dataclass(frozen=True, slots=True)
class Space:
    """One feature space: vectors of one model at one revision."""

    model: str
    revision: str
    dim: int

    @property
    def name(self) -> str:
        """Name of its table."""
        return space_name(self.model, self.revision, self.dim)


def space_name(model: str, revision: str, dim: int) -> str:
    """The table name of a feature space; two spaces never share one.

    Example:
        >>> space_name("wav2vec2-mini", "abc", 256)
        'wav2vec2-mini-256-9e805fb8'
    """
    digest = hashlib.sha256(f"{model}\0{revision}\0{dim}".encode()).hexdigest()[:8]
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", model)[:60]
    return f"{slug}-{dim}-{digest}"


def name_of(space: Space | str) -> str:
    """The table name of a space."""
    return space.name if isinstance(space, Space) else space


def _schema(dim: int) -> Any:
    texts = [pa.field(name, pa.string()) for name in COLUMNS if name not in ("id", "seconds", "created_at")]
    return pa.schema(
        [
            # Declared with the table, not after: two first writers must not race for it.
            pa.field("id", pa.string(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}),
            pa.field("vector", pa.list_(pa.float32(), dim)),
            *texts,
            pa.field("seconds", pa.float64()),
            pa.field("created_at", pa.timestamp("us", tz="UTC")),
        ]
    )


def arrow_batch(rows: Sequence[Mapping[str, object]], created: object) -> Any:
    """Checked rows of one space as an Arrow table."""
    vectors = np.stack([np.asarray(row["vector"], dtype=np.float32) for row in rows])
    schema = _schema(vectors.shape[1])
    columns: dict[str, Any] = {"vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])}
    columns["created_at"] = pa.array([created] * len(rows), schema.field("created_at").type)
    try:
        for name in set(schema.names) - set(columns):
            columns[name] = pa.array([row.get(name) for row in rows], schema.field(name).type)
    except (pa.ArrowException, TypeError, ValueError) as error:
        msg = f"A feature's columns do not have the right types: {error}."
        raise ConfigError(msg, code="wrong-type", hint="All columns are text but vector and seconds.") from error
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def check_rows(rows: Sequence[Mapping[str, object]], space: str) -> None:
    """Refuse what would be lost in searches: Lance takes infinite and zero vectors, and never finds them.

    Raises:
        ConfigError: an unknown column, or id, vector, model or revision is missing.
        QualityError: a vector is not finite, is zero, or is not of this space.
    """
    bad: list[str] = []
    for row in rows:
        wrong = sorted(set(row) - {*CHANGEABLE, "id", "model", "revision"})
        missing = [name for name in ("id", "vector", "model", "revision") if row.get(name) is None]
        if wrong or missing:
            msg = f"A feature row has unknown columns ({', '.join(wrong)}) or lacks some ({', '.join(missing)})."
            raise ConfigError(msg, code="bad-feature-row", hint="Give id, vector, model, revision and known columns.")
        vector = np.asarray(row["vector"], dtype=np.float32)
        if vector.ndim != 1 or space_name(str(row["model"]), str(row["revision"]), vector.size) != space:
            msg = f"The vector of {row['id']} has shape {vector.shape} and does not belong to the space {space}."
            hint = "Store a vector with the model, revision and dimension of its space."
            raise QualityError(msg, code="wrong-space", hint=hint)
        if not _usable(vector):
            bad.append(str(row["id"]))
    if bad:
        listed = ", ".join(bad[:NAMED]) + (", ..." if len(bad) > NAMED else "")
        msg = f"{len(bad)} of {len(rows)} vectors are zero or not finite: {listed}."
        raise QualityError(msg, code="bad-vector", hint="Nothing was stored; look at these clips and their model.")


def _usable(vector: Vector) -> bool:
    return bool(np.isfinite(vector).all()) and float(np.linalg.norm(vector.astype(np.float64))) > 0


def query_vector(vector: npt.ArrayLike, dim: int, k: int, metric: str) -> Vector:
    """The vector to search with as float32 ``shape = (dim,)``.

    Raises:
        ConfigError: an unknown metric, a ``k`` below 1, or a vector of another length.
        QualityError: the vector is zero or not finite.
    """
    query = np.asarray(vector, dtype=np.float32)
    if metric not in ("cosine", "dot", "l2") or k < 1:
        msg = f"A search needs a metric of cosine, dot or l2 and k of at least 1, not {metric!r} and {k}."
        raise ConfigError(msg, code="bad-search", hint="Mend the search.")
    if query.shape != (dim,):
        msg = f"The vector has shape {query.shape}; the space holds vectors of {dim} numbers."
        raise ConfigError(msg, code="wrong-dimension", hint="Search with features of the space's own model.")
    if not _usable(query):
        msg = "The vector to search with is zero or not finite."
        raise QualityError(msg, code="bad-vector", hint="Look at the clip and its model.")
    return query
