"""One part of the landing zone: rows of a table as a Parquet file that is whole or absent.

Knows the schema's types and how to write safely; not where parts lie. Times are UTC.
"""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grym.describe import arrow_schema
from grym.errors import GrymError, ResourceError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from grym.schema import Table

UNREADABLE: Final = (OSError, ValueError, pa.ArrowException)  # what reading a damaged part raises
COMPACTED: Final = "0+compacted-"  # sorts before every part's name, so that a part landed again later still wins
_COVERS: Final = b"grym.covers"
# Events come by the million and are read again at every look: LZ4 takes twice the space of Zstandard, and sums over
# ten million of them a seventh less time. Everything else is small.
_READ_OFTEN: Final = frozenset({"exposures", "measurements"})
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # what a full disk, quota or limit says
FULL_HINT: Final = "Free space, then give the same command again; it goes on where it stopped."


def to_arrow(table: Table, rows: Sequence[Mapping[str, object]], run_id: str) -> Any:
    """The rows as an Arrow table of exactly the schema's columns.

    Raises:
        StorageError: an unknown column, a value of the wrong type, an empty key, a row of another run.
    """
    known = {column.name for column in table.columns}
    for row in rows:
        if unknown := sorted(set(row) - known):
            msg = f"Table {table.name!r} has no column {', '.join(unknown)}."
            raise StorageError(msg, code="unknown-column", hint="Mend the row or add the column to grym.schema.")
        if row.get("run_id", run_id) != run_id:
            msg = f"A row of run {row['run_id']!r} was landed under run {run_id!r}."
            raise StorageError(msg, code="wrong-run", hint="Leave run_id out; land fills it in.")
    columns = []
    for field in arrow_schema(table):
        values = [run_id if field.name == "run_id" else row.get(field.name) for row in rows]
        columns.append(_column(table, field, values))
    return pa.Table.from_arrays(columns, schema=arrow_schema(table))


def to_parquet(name: str, rows: Any) -> memoryview:
    """An Arrow table as the bytes of a Parquet file of the table ``name``."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="lz4" if name in _READ_OFTEN else "zstd")
    return memoryview(sink.getvalue())


def _column(table: Table, field: Any, values: Sequence[object]) -> Any:
    where = f"Column {field.name!r} of table {table.name!r}"
    if field.name in table.key and None in values:
        # Rows without a key would count as one row and all but one would be lost.
        msg = f"{where} belongs to the key and is empty in row {values.index(None)}."
        raise StorageError(msg, code="empty-key", hint="Give every row its key.")
    try:
        return pa.array([_value(v, field.type) for v in values], field.type)
    except (TypeError, ValueError, pa.ArrowException) as error:
        msg = f"{where} is of type {field.type} and cannot hold a given value: {reason(error)}."
        raise StorageError(msg, code="wrong-type", hint="Convert the value; JSON goes in as text.") from error


def _value(value: object, kind: Any) -> object:
    if isinstance(value, (float, np.floating)) and math.isnan(value):
        return None  # a rate without a denominator is unknown, and one NaN would spoil every sum in SQL
    if isinstance(value, (float, np.floating)) and kind == pa.int64() and not value.is_integer():
        msg = f"{value} is not a whole number"  # Arrow would cut it off without a word
        raise ValueError(msg)
    if isinstance(value, datetime) and value.tzinfo is None:
        msg = f"the time {value.isoformat()} has no time zone"
        raise ValueError(msg)
    return value


def load(path: Path, table: Table) -> Any:
    """One part as an Arrow table of the schema's columns, those it was written without as nulls.

    The bytes are read at once: the file may be replaced at any time.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: the file is damaged or gone (:data:`UNREADABLE`).
    """
    found = pq.read_table(pa.BufferReader(path.read_bytes()), use_threads=False)
    wanted = arrow_schema(table)
    columns = [
        found[f.name].cast(f.type) if f.name in found.column_names else pa.nulls(found.num_rows, f.type) for f in wanted
    ]
    return pa.Table.from_arrays(columns, schema=wanted)


def covering(rows: Any, names: Mapping[str, str]) -> Any:
    """Arrow rows that say which parts they were put together from: name and sha256 of each part's bytes."""
    return rows.replace_schema_metadata({_COVERS: json.dumps(names, sort_keys=True)})


def covered(path: Path) -> dict[str, str]:
    """The parts that a compacted part was put together from, by name; empty for any other part.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: the file is damaged or gone (:data:`UNREADABLE`).
    """
    if not name_of(path).startswith(COMPACTED):
        return {}
    found = pq.read_schema(pa.BufferReader(path.read_bytes())).metadata or {}
    return dict(json.loads(found.get(_COVERS, b"{}")))


def name_of(path: Path) -> str:
    """A part's name, from its file's."""
    return path.name.removeprefix("part-").removesuffix(".parquet")


def write(path: Path, content: memoryview) -> None:
    """Write beside the target, flush to the disk, rename: the target is whole or as before."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason(error: BaseException) -> str:
    """The first line of a library's message, without its final stop."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


def why_full(error: BaseException) -> str | None:
    """What a full disk, quota or limit on file sizes is called in an error, anywhere in a library's message."""
    number = error.errno if isinstance(error, OSError) else None
    return next((os.strerror(known) for known in FULL if number == known or os.strerror(known) in str(error)), None)


def is_full(error: BaseException) -> bool:
    """Whether the reason of an error is a full disk, quota or limit on file sizes."""
    return why_full(error) is not None


def full(message: str, hint: str = FULL_HINT) -> ResourceError:
    """The error of a full disk; trying again at once would meet the same disk."""
    return ResourceError(message, code="disk-full", hint=hint, retryable=False)


@contextmanager
def disk(what: str) -> Iterator[None]:
    """Turn a failing disk into a typed error.

    Raises:
        ResourceError: the disk, or a limit on file sizes, is full.
        StorageError: the place cannot be written to.
    """
    try:
        yield
    except GrymError:
        raise
    except OSError as error:
        msg = f"{what} could not be written: {reason(error)}."
        if is_full(error):
            raise full(msg) from error
        raise StorageError(msg, code="not-writable", hint="Check the home folder and its permissions.") from error
