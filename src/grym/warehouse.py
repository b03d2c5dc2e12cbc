"""The DuckDB file that analysts read: built from parts, opened read-only.

Knows the schema, the views and what DuckDB says when something is wrong; not
where the files lie, nor when to build (:mod:`grym.store` does).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from grym.describe import View, arrow_schema, ddl, literal, quoted, view_ddl
from grym.errors import GrymError, ResourceError, StorageError
from grym.parts import FULL_HINT, UNREADABLE, full, load, reason, why_full
from grym.schema import TABLES, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

STORAGE_VERSION: Final = "v1.2.0"  # the oldest DuckDB that opens the file; 2.0's own format shuts 1.x out
_STAGED_PARTS: Final = 200  # parts in memory at once while building
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SkippedPart:
    """A part that could not be read: its file and why."""

    path: Path
    reason: str


def build(
    path: Path, parts: Callable[[Table], Sequence[Path]], views: Sequence[View]
) -> tuple[dict[str, int], tuple[SkippedPart, ...]]:
    """Write a warehouse of every table and view into a new file.

    Args:
        path: the file to make; its folder also takes what does not fit into memory.
        parts: the files of a table; of two rows with one key the later file's counts.
        views: the views to make.

    Returns:
        Rows per table, and the parts left out because they cannot be read.

    Raises:
        StorageError: a view is not valid or DuckDB could not write the file.
        ResourceError: memory or disk ran out.
    """
    skipped: list[SkippedPart] = []
    with duckdb.connect(config={"temp_directory": str(path.parent / "spill")}) as connection:
        try:
            connection.execute(f"ATTACH {literal(str(path))} AS warehouse (STORAGE_VERSION '{STORAGE_VERSION}')")
            connection.execute("USE warehouse")
            rows = {table.name: _fill(connection, table, parts(table), skipped) for table in TABLES.values()}
            _add_views(connection, views)
            connection.execute("USE memory")
            connection.execute("DETACH warehouse")  # writes everything into the one file
        except duckdb.Error as error:
            raise _unbuilt(error) from error
    return rows, tuple(skipped)


def open_warehouse(path: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to a warehouse.

    The file is attached to a connection of its own: ``duckdb.connect(path)`` hands a process that still has the
    previous file open that one again.

    Raises:
        StorageError: there is none, it is open for writing elsewhere, or it is not a database.
    """
    if not path.is_file():
        msg = "There is no warehouse yet."
        raise StorageError(msg, code="no-warehouse", hint="Run publish once: python -m flows report.")
    connection = duckdb.connect()
    try:
        connection.execute(f"ATTACH {literal(str(path))} AS warehouse (READ_ONLY)")
        connection.execute("USE warehouse")
    except duckdb.Error as error:
        connection.close()
        raise _unopened(error) from error
    return connection


def _fill(
    connection: duckdb.DuckDBPyConnection, table: Table, paths: Sequence[Path], skipped: list[SkippedPart]
) -> int:
    """Make one table; append what could not be read to ``skipped``; return the number of rows."""
    _execute(connection, ddl(table))
    name, columns = quoted(table.name), ", ".join(quoted(c.name) for c in table.columns)
    connection.execute(f"CREATE TEMP TABLE staged AS SELECT *, 0::BIGINT AS _order FROM {name} LIMIT 0")  # noqa: S608
    for chunk in _chunks(table, paths, skipped):
        connection.register("chunk", chunk)
        connection.execute("INSERT INTO staged SELECT * FROM chunk")
        connection.unregister("chunk")
    key = ", ".join(quoted(k) for k in table.key)
    counted = connection.execute(
        f"INSERT INTO {name} SELECT {columns} FROM staged "  # noqa: S608 - names of the schema
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY _order DESC) = 1 ORDER BY {key}"
    ).fetchall()
    connection.execute("DROP TABLE staged")
    return int(counted[0][0])


def _chunks(table: Table, paths: Sequence[Path], skipped: list[SkippedPart]) -> Iterator[Any]:
    """The rows as Arrow tables with a running number ``_order``, some hundred parts at a time."""
    first = 0
    for start in range(0, len(paths), _STAGED_PARTS):
        loaded = [arrow_schema(table).empty_table()]
        for path in paths[start : start + _STAGED_PARTS]:
            try:
                loaded.append(load(path, table))
            except UNREADABLE as error:
                skipped.append(SkippedPart(path, reason(error)))
                _log.warning("Left out of the warehouse: %s cannot be read: %s.", path.name, reason(error))
        chunk = pa.concat_tables(loaded)
        yield chunk.append_column("_order", pa.array(range(first, first + chunk.num_rows), pa.int64()))
        first += chunk.num_rows


def _add_views(connection: duckdb.DuckDBPyConnection, views: Sequence[View]) -> None:
    """Make the views; one that builds on another waits for it."""
    waiting = list(views)
    while waiting:
        failed: list[tuple[View, duckdb.Error]] = []
        for view in waiting:
            try:
                _execute(connection, view_ddl(view))
            except duckdb.CatalogException as error:
                failed.append((view, error))
            except duckdb.Error as error:
                raise _bad_view(view, error) from error
        if len(failed) == len(waiting):
            raise _bad_view(*failed[0]) from failed[0][1]
        waiting = [view for view, _ in failed]


def _execute(connection: duckdb.DuckDBPyConnection, statements: Iterable[str]) -> None:
    """Run statements as one transaction: each of their own would wait for the disk, and there are hundreds."""
    connection.begin()
    try:
        for statement in statements:
            connection.execute(statement)
    except duckdb.Error:
        connection.rollback()
        raise
    connection.commit()


def _bad_view(view: View, error: duckdb.Error) -> GrymError:
    if why_full(error):
        return _unbuilt(error)
    msg = f"The view {view.name!r} is not valid: {reason(error)}."
    return StorageError(msg, code="bad-view", hint=f"Mend {view.name}.sql; the previous warehouse is unchanged.")


def _unopened(error: duckdb.Error) -> StorageError:
    # Not just "lock": a damaged file has a wrong checksum "in block 3".
    if "lock on file" in str(error).lower() or isinstance(error, duckdb.ConnectionException):
        msg = "Another program has warehouse.duckdb open for writing."
        return StorageError(
            msg,
            code="warehouse-locked",
            hint="Close the other program that has warehouse.duckdb open for writing, then try again.",
            retryable=True,
        )
    msg = f"warehouse.duckdb cannot be opened: {reason(error)}."
    return StorageError(
        msg, code="bad-warehouse", hint="Run publish, which builds the file anew: python -m flows report."
    )


def _unbuilt(error: duckdb.Error) -> GrymError:
    full_reason = why_full(error)
    msg = f"The warehouse could not be built: {full_reason or reason(error)}."
    hint = "The previous warehouse is unchanged; mend the cause and publish again."
    if isinstance(error, duckdb.OutOfMemoryException):
        return ResourceError(msg, code="no-memory", hint=hint)
    if full_reason:
        return full(msg, f"{FULL_HINT} The previous warehouse is unchanged.")
    return StorageError(msg, code="publish-failed", hint=hint)
