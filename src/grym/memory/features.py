"""The feature store: one vector per clip and model, searched by likeness (LanceDB).

Knows nothing about models or audio: rows come with their vectors. A feature
space is one revision of one model; vectors of different spaces are never
compared. Vectors are float32, ``shape = (dim,)``. Times are UTC.

Concurrent upserts are safe: the id is declared as primary key, the merge uses no
index (either alone still writes duplicates), and writers of one machine take
turns by a lock file, because maintenance and upserts conflict.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from grym.errors import ConfigError, GrymError, StorageError
from grym.memory.filters import COLUMNS, NOTHING, predicate, text_literal
from grym.memory.rows import (
    CHANGEABLE,
    NAMED,
    Space,
    Vector,
    arrow_batch,
    check_rows,
    name_of,
    query_vector,
    space_name,
)
from grym.parts import full, is_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Feature", "FeatureStore", "Match", "Metric", "Space", "space_name"]

Metric = Literal["cosine", "dot", "l2"]
_EF: Final = 64  # candidates the graph search keeps; recall@10 0.925 at 100 000 vectors
_LOCK_SECONDS: Final = 600.0
_PAGE: Final = 1000


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
        name = name_of(space)
        given = [{**known, **row} for row in rows]
        check_rows(given, name)
        if not given:
            return ()
        latest = {str(row["id"]): row for row in given}  # a merge must not meet one id twice
        batch = arrow_batch(list(latest.values()), self._clock())
        with self.writing():
            table = self._connect().create_table(name, schema=batch.schema, exist_ok=True)
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.use_index(False).execute(batch)  # noqa: FBT003 - the library takes it by position
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
        if wrong := sorted(set(changes) - set(CHANGEABLE)):
            msg = f"A stored feature has no changeable column {', '.join(wrong)}."
            raise ConfigError(msg, code="unknown-column", hint=f"Change any of: {', '.join(CHANGEABLE)}.")
        with self.writing():
            found = self.get(clip_id, space=space)
            if found is None:
                return False
            row = {**found.metadata, "id": clip_id, "vector": found.vector, **changes}
            created = row.pop("created_at")
            check_rows([row], name_of(space))
            merge = self.table(space).merge_insert("id").when_matched_update_all()
            merge.use_index(False).execute(arrow_batch([row], created))  # noqa: FBT003 - the library takes it by position
        return True

    def delete(self, clip_ids: Sequence[str], *, space: Space | str) -> int:
        """Remove clips; returns how many were there."""
        where = predicate({"id": list(clip_ids)}) or NOTHING
        with self.writing():
            return int(self.table(space).delete(where).num_deleted_rows)

    def count(self, *, space: Space | str, where: Mapping[str, object] | str | None = None) -> int:
        """Number of rows, of those a filter lets through."""
        with _lance("count", where):
            return int(self.table(space).count_rows(predicate(where)))

    def spaces(self) -> tuple[Space, ...]:
        """Every space that holds rows, the one written last coming last."""
        if not self.path.is_dir():
            return ()
        with _lance("list"):
            found = [self._described(self._connect().open_table(name)) for name in self._names()]
        return tuple(space for _, space in sorted(filter(None, found), key=lambda item: (item[0], item[1].name)))

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
        table = self.table(space)
        query = query_vector(vector, _dim(table), k, metric)
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
        where: Mapping[str, object] | str | None = None,
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
        others = f"`id` <> {text_literal(found.id)}"
        if filters := predicate(where):
            others += f" AND ({filters})"
        return self.find_similar(found.vector, k, space=space, where=others, min_score=min_score, metric=metric)

    def resolve(self, clip: str, *, space: Space | str) -> str:
        """The id of a stored clip from its id, a unique beginning of it, or its name in the manifest.

        Raises:
            ConfigError: no stored clip is called so, or several are.
        """
        text = text_literal(clip)
        for where in (f"`id` = {text}", f"`key` = {text}", f"starts_with(`id`, {text})"):
            ids = sorted(row["id"] for row in self._rows(space, where, ("id",), NAMED + 1))
            if len(ids) == 1:
                return str(ids[0])
            if ids:
                listed = ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
                msg = f"{clip!r} is ambiguous: {listed}."
                raise ConfigError(msg, code="ambiguous-clip", hint="Give more of the id.")
        msg = f"No stored clip has the id or name {clip!r} in {name_of(space)}."
        raise ConfigError(msg, code="unknown-clip", hint="Give the path of an audio file, or run a comparison with it.")

    def optimize(self, *, keep: timedelta | None = None) -> None:
        """Compact every space and take new rows into its index, if it has one.

        Args:
            keep: drop versions older than this; never less than the longest reader lives. Default: LanceDB's week.
        """
        for space in self.spaces():
            with self.writing():
                self.table(space).optimize(cleanup_older_than=keep)

    def table(self, space: Space | str) -> Any:
        """The LanceDB table of a space, for maintenance and for what this class does not offer.

        Raises:
            ConfigError: there is no such space.
        """
        name = name_of(space)
        with _lance("open"):
            try:
                if self.path.is_dir():  # connecting would make it
                    return self._connect().open_table(name)
                names = []
            except ValueError:
                names = self._names()
                if name in names:
                    raise
        msg = f"There is no feature space {name!r}; stored are {', '.join(sorted(names)) or 'none'}."
        raise ConfigError(msg, code="unknown-space", hint="Run a comparison with this model first.")

    @contextmanager
    def writing(self) -> Iterator[None]:
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

    @staticmethod
    def _described(table: Any) -> tuple[datetime, Space] | None:
        """When a table was last written and which space it holds, ``None`` if it is empty."""
        rows = table.search().select(["model", "revision", "created_at"]).to_arrow()
        if not rows.num_rows:
            return None
        model, revision = rows["model"][0].as_py(), rows["revision"][0].as_py()
        return max(rows["created_at"].to_pylist()), Space(model, revision, _dim(table))

    def _rows(self, space: Space | str, where: str, columns: Sequence[str], limit: int) -> list[dict[str, Any]]:
        table = self.table(space)
        with _lance("read"):
            rows: list[dict[str, Any]] = table.search().where(where).select(list(columns)).limit(limit).to_list()
        return rows


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
        if is_full(error):
            raise full(msg) from error
        hint = "Check the home folder; features can be made again by a new run."
        raise StorageError(msg, code="features", hint=hint) from error
