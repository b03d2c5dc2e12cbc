"""The feature store: one vector per clip and model, searched by likeness (LanceDB).

Knows nothing about models or audio: rows come with their vectors. A feature
space is one revision of one model; vectors of different spaces are never
compared. Vectors are float32, ``shape = (dim,)``. Times are UTC.

Concurrent upserts are safe: the id is declared as primary key, the merge uses no
index (either alone still writes duplicates), and writers of one machine take
turns by a lock file, because maintenance and upserts conflict.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock, Timeout

from grym.errors import ConfigError, GrymError, QualityError, StorageError
from grym.memory.filters import COLUMNS, NOTHING, predicate, text_literal

Metric = Literal["cosine", "dot", "l2"]
Vector = npt.NDArray[np.float32]
INDEX_FROM: Final = 50_000  # rows; below, the flat search is fast enough and exact
_EF: Final = 64  # candidates the graph search keeps; recall@10 0.925 at 100 000 vectors
_LOCK_SECONDS: Final = 600.0
_NAMED: Final = 5  # ids named in a message
_PAGE: Final = 1000


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


@dataclass(frozen=True, slots=True)
class Feature:
    """A stored row: id of the clip, float32 vector ``shape = (dim,)``, and the other columns by name."""

    id: str
    vector: Vector
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Match:
    """A neighbour: id of the clip, score (higher is more alike), and the other columns by name."""

    id: str
    score: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IndexReport:
    """State of a space's index.

    Attributes:
        rows: vectors in the space.
        indexed: whether searches use an index.
        recall: share of the flat search's neighbours that the index finds, in [0, 1]; 1 without an index.
        k: neighbours per query behind the recall.
        queries: queries behind the recall.
    """

    rows: int
    indexed: bool
    recall: float
    k: int
    queries: int


def space_name(model: str, revision: str, dim: int) -> str:
    """The table name of a feature space; two spaces never share one.

    Example:
        >>> space_name("wav2vec2-mini", "abc", 256)
        'wav2vec2-mini-256-01ac9e9a'
    """
    digest = hashlib.sha256(f"{model}\0{revision}\0{dim}".encode()).hexdigest()[:8]
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", model)[:60]
    return f"{slug}-{dim}-{digest}"


class FeatureStore:
    """Features under one home.

    Args:
        home: folder of everything that is stored; the store lies in ``features.lance``.
        clock: current time; stamps ``created_at``.
    """

    def __init__(self, home: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = home / "features.lance"
        self._lock = home / "features.lock"
        self._clock = clock
        self._connection: Any = None

    def store(self, rows: Sequence[Mapping[str, object]], *, space: Space | str) -> tuple[str, ...]:
        """Insert or replace rows by id; storing the same rows again changes nothing but the time.

        Args:
            rows: each with ``id``, ``vector`` float32 ``shape = (dim,)``, ``model`` and ``revision``, and any of
                ``key``, ``dataset``, ``path``, ``text``, ``speaker``, ``seconds``, ``run_id``.
            space: the space, or its name by :func:`space_name`.

        Returns:
            The ids, in the order of the rows.

        Raises:
            QualityError: a vector is not finite, is zero, or is not of this space; nothing is written.
            ConfigError: an unknown column or a missing id.
            StorageError: the store cannot be written to.
        """
        known: Mapping[str, object] = {}
        if isinstance(space, Space):
            known = {"model": space.model, "revision": space.revision}
        name = _name(space)
        given = [{**known, **row} for row in rows]
        _check_rows(given, name)
        if not given:
            return ()
        latest = {str(row["id"]): row for row in given}  # a merge must not meet one id twice
        batch = _batch(list(latest.values()), self._clock())
        with self._writing():
            table = self._connect().create_table(name, schema=batch.schema, exist_ok=True)
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.use_index(False).execute(batch)
        return tuple(str(row["id"]) for row in given)

    def get(self, clip_id: str, *, space: Space | str) -> Feature | None:
        """The row of a clip, ``None`` if there is none."""
        rows = self._rows(space, f"`id` = {text_literal(clip_id)}", ("vector", *COLUMNS), 1)
        if not rows:
            return None
        vector = np.asarray(rows[0].pop("vector"), dtype=np.float32)
        return Feature(rows[0].pop("id"), vector, rows[0])

    def update(self, clip_id: str, changes: Mapping[str, object], *, space: Space | str) -> bool:
        """Change columns of one clip, its vector included; whether it was there.

        Raises:
            ConfigError: a column that cannot be changed (id, model, revision, created_at) or is unknown.
            QualityError: the new vector is not finite, is zero, or is not of this space.
        """
        if wrong := sorted(set(changes) - set(_CHANGEABLE)):
            msg = f"A stored feature has no changeable column {', '.join(wrong)}."
            raise ConfigError(msg, code="unknown-column", hint=f"Change any of: {', '.join(_CHANGEABLE)}.")
        with self._writing():
            found = self.get(clip_id, space=space)
            if found is None:
                return False
            row = {**found.metadata, "id": clip_id, "vector": found.vector, **changes}
            created = row.pop("created_at")
            _check_rows([row], _name(space))
            merge = self._table(space).merge_insert("id").when_matched_update_all()
            merge.use_index(False).execute(_batch([row], created))
        return True

    def delete(self, clip_ids: Sequence[str], *, space: Space | str) -> int:
        """Remove clips; returns how many were there."""
        where = predicate({"id": list(clip_ids)}) or NOTHING
        with self._writing():
            return int(self._table(space).delete(where).num_deleted_rows)

    def count(self, *, space: Space | str, where: Mapping[str, object] | str | None = None) -> int:
        """Number of rows, of those a filter lets through."""
        with _lance("count", where):
            return int(self._table(space).count_rows(predicate(where)))

    def spaces(self) -> tuple[Space, ...]:
        """Every space that holds rows, the one written first coming first."""
        if not self.path.is_dir():
            return ()
        found = []
        with _lance("list"):
            for name in self._names():
                query = self._connect().open_table(name).search().select(["model", "revision", "vector", "created_at"])
                for row in query.limit(1).to_list():
                    found.append((row["created_at"], name, Space(row["model"], row["revision"], len(row["vector"]))))
        return tuple(space for _, _, space in sorted(found, key=lambda item: item[:2]))

    def find_similar(
        self,
        vector: npt.ArrayLike,
        k: int = 5,
        *,
        space: Space | str,
        where: Mapping[str, object] | str | None = None,
        min_score: float | None = None,
        metric: Metric = "cosine",
        exact: bool = False,
    ) -> list[Match]:
        """The nearest stored clips, most alike first.

        The score is the cosine similarity in [-1, 1] for ``cosine``, the dot product for ``dot``, and
        ``1 / (1 + distance)`` in (0, 1] with the Euclidean distance for ``l2``. Only ``cosine`` uses the index.

        Args:
            vector: float32 ``shape = (dim,)``.
            k: how many at most.
            space: where to search.
            where: filter, applied before the search: column to a value or a list of values; see
                :func:`grym.memory.filters.predicate`.
            min_score: leave out matches below.
            metric: what alike means.
            exact: search every row even if there is an index.

        Raises:
            ConfigError: an unknown space, filter or metric, or a vector of another length.
            QualityError: the vector is zero or not finite.
        """
        table = self._table(space)
        query = _query_vector(vector, _dim(table), k, metric)
        with _lance("search", where):
            search = table.search(query, vector_column_name="vector").distance_type(metric).limit(k)
            if exact or metric != "cosine":
                search = search.bypass_vector_index()
            else:
                search = search.ef(max(_EF, 2 * k)).refine_factor(2)  # refined: scores from the vectors themselves
            if filters := predicate(where):
                search = search.where(filters, prefilter=True)
            rows = search.select([*COLUMNS, "_distance"]).to_list()
        matches = [_match(row, metric) for row in rows]
        kept = [match for match in matches if min_score is None or match.score >= min_score]
        return sorted(kept, key=lambda match: (-match.score, match.id))

    def find_similar_to(
        self,
        clip: str,
        k: int = 5,
        *,
        space: Space | str,
        where: Mapping[str, object] | None = None,
        min_score: float | None = None,
        metric: Metric = "cosine",
    ) -> list[Match]:
        """The nearest other clips of a stored one; see :meth:`find_similar`.

        Args:
            clip: content id, a unique beginning of it, or a name in the manifest.
            k: how many at most.
            space: where to search.
            where: filter by column.
            min_score: leave out matches below.
            metric: what alike means.

        Raises:
            ConfigError: no stored clip is called so, or several are.
        """
        found = self.get(self.resolve(clip, space=space), space=space)
        if found is None:
            msg = f"The clip {clip!r} was removed while it was looked up."
            raise ConfigError(msg, code="unknown-clip", hint="Search for another clip.")
        others = " AND ".join(filter(None, [predicate(where), f"`id` <> {text_literal(found.id)}"]))
        return self.find_similar(found.vector, k, space=space, where=others, min_score=min_score, metric=metric)

    def resolve(self, clip: str, *, space: Space | str) -> str:
        """The id of a stored clip from its id, a unique beginning of it, or its name in the manifest.

        Raises:
            ConfigError: no stored clip is called so, or several are.
        """
        text = text_literal(clip)
        for where in (f"`id` = {text}", f"`key` = {text}", f"starts_with(`id`, {text})"):
            ids = sorted(row["id"] for row in self._rows(space, where, ("id",), _NAMED + 1))
            if len(ids) == 1:
                return str(ids[0])
            if ids:
                listed = ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
                msg = f"{clip!r} is ambiguous: {listed}."
                raise ConfigError(msg, code="ambiguous-clip", hint="Give more of the id.")
        msg = f"No stored clip has the id or name {clip!r} in {_name(space)}."
        raise ConfigError(msg, code="unknown-clip", hint="Give the path of an audio file, or run a comparison with it.")

    def optimize(self, *, keep: timedelta | None = None, index_from: int = INDEX_FROM) -> dict[str, IndexReport]:
        """Compact every space and keep its index current; returns the state of each by name.

        Args:
            keep: drop versions older than this; never less than the longest reader lives. Default: LanceDB's.
            index_from: rows from which a space is indexed.
        """
        reports = {}
        for space in self.spaces():
            with self._writing():
                self._table(space).optimize(cleanup_older_than=keep)
            reports[space.name] = self.ensure_index(space, index_from=index_from)
        return reports

    def ensure_index(
        self, space: Space | str, *, index_from: int = INDEX_FROM, rebuild: bool = False, k: int = 10, queries: int = 50
    ) -> IndexReport:
        """Build the index of a space (IVF_HNSW_SQ, cosine) once it is large enough, and measure its recall.

        Args:
            space: the space.
            index_from: rows from which an index pays.
            rebuild: build anew, for example after the data has shifted.
            k: neighbours per query of the recall.
            queries: stored vectors that serve as queries of the recall.
        """
        table = self._table(space)
        rows = int(table.count_rows())
        indexed = _is_indexed(table)
        if rows >= index_from and (rebuild or not indexed):
            from lancedb.index import IvfHnswSq

            with self._writing():
                # One partition: a graph search needs no probes, whose number would have to be tuned.
                config = IvfHnswSq(distance_type="cosine", num_partitions=1, ef_construction=80)
                table.create_index("vector", config=config, replace=True)
            indexed = True
        recall = self.recall(space, k=k, queries=queries) if indexed else 1.0
        return IndexReport(rows, indexed, recall, k, queries if indexed else 0)

    def recall(self, space: Space | str, *, k: int = 10, queries: int = 50, seed: int = 0) -> float:
        """Share of the flat search's ``k`` neighbours that the search finds, over seeded stored vectors, in [0, 1]."""
        table = self._table(space)
        rows = int(table.count_rows())
        with _lance("sample"):
            offsets = np.random.default_rng(seed).choice(rows, size=min(queries, rows), replace=False)
            sample = table.take_offsets(sorted(map(int, offsets))).select(["vector"]).to_arrow()["vector"].to_pylist()
        found = wanted = 0
        for vector in sample:
            truth = {match.id for match in self.find_similar(vector, k, space=space, exact=True)}
            found += len(truth & {match.id for match in self.find_similar(vector, k, space=space)})
            wanted += len(truth)
        return found / wanted if wanted else 1.0

    def _connect(self) -> Any:
        if self._connection is None:
            import lancedb

            # Handles are snapshots by default; interval 0 shows every handle what others wrote.
            self._connection = lancedb.connect(str(self.path), read_consistency_interval=timedelta(0))
        return self._connection

    def _names(self) -> list[str]:
        names: list[str] = []
        token = None
        while True:
            page = self._connect().list_tables(limit=_PAGE, page_token=token)
            names += page.tables
            token = page.page_token
            if not token:
                return names

    def _table(self, space: Space | str) -> Any:
        name = _name(space)
        names = self._names() if self.path.is_dir() else []
        if name not in names:
            msg = f"There is no feature space {name!r}; stored are {', '.join(sorted(names)) or 'none'}."
            raise ConfigError(msg, code="unknown-space", hint="Run a comparison with this model first.")
        with _lance("open"):
            return self._connect().open_table(name)

    def _rows(self, space: Space | str, where: str, columns: Sequence[str], limit: int) -> list[dict[str, Any]]:
        table = self._table(space)
        with _lance("read"):
            rows: list[dict[str, Any]] = table.search().where(where).select(list(columns)).limit(limit).to_list()
        return rows

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time on this machine; failures of the store as typed errors."""
        with _lance("write"):
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(self._lock, timeout=_LOCK_SECONDS):
                    yield
            except Timeout as error:
                msg = f"Another writer has held the feature store for more than {_LOCK_SECONDS:g} s."
                hint = "Wait for it to end, then try again."
                raise StorageError(msg, code="features-busy", hint=hint, retryable=True) from error


_CHANGEABLE: Final = (
    "vector",
    *(column for column in COLUMNS if column not in ("id", "model", "revision", "created_at")),
)


def _name(space: Space | str) -> str:
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


def _batch(rows: Sequence[Mapping[str, object]], created: object) -> Any:
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


def _check_rows(rows: Sequence[Mapping[str, object]], space: str) -> None:
    """Refuse what would be lost in searches: Lance takes infinite and zero vectors, and never finds them."""
    bad: list[str] = []
    for row in rows:
        wrong = sorted(set(row) - {*_CHANGEABLE, "id", "model", "revision"})
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
        listed = ", ".join(bad[:_NAMED]) + (", ..." if len(bad) > _NAMED else "")
        msg = f"{len(bad)} of {len(rows)} vectors are zero or not finite: {listed}."
        raise QualityError(msg, code="bad-vector", hint="Nothing was stored; look at these clips and their model.")


def _usable(vector: Vector) -> bool:
    return bool(np.isfinite(vector).all()) and float(np.linalg.norm(vector.astype(np.float64))) > 0


def _query_vector(vector: npt.ArrayLike, dim: int, k: int, metric: str) -> Vector:
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


def _match(row: dict[str, Any], metric: Metric) -> Match:
    distance = float(row.pop("_distance"))
    if metric == "cosine":
        score = min(1.0, max(-1.0, 1.0 - distance))  # rounding may leave the interval by a hair
    elif metric == "dot":
        score = 1.0 - distance
    else:
        score = 1.0 / (1.0 + float(np.sqrt(max(0.0, distance))))  # Lance gives the squared distance
    return Match(row.pop("id"), score, row)


def _dim(table: Any) -> int:
    return int(table.schema.field("vector").type.list_size)


def _is_indexed(table: Any) -> bool:
    return any("vector" in index.columns for index in table.list_indices())


@contextmanager
def _lance(action: str, where: object = None) -> Iterator[None]:
    """Turn LanceDB's errors into typed ones; a filter that a person wrote is theirs to mend."""
    try:
        yield
    except GrymError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        if isinstance(where, str) and isinstance(error, ValueError):
            msg = f"The filter {where!r} cannot be used: {reason}."
            raise ConfigError(msg, code="bad-filter", hint=f"The columns are {', '.join(COLUMNS)}.") from error
        msg = f"The feature store could not {action}: {reason}."
        hint = "Check the home folder; features can be made again by a new run."
        raise StorageError(msg, code="features", hint=hint) from error
