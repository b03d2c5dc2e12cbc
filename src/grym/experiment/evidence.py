"""From events to sufficient statistics: one row per metric and arm, computed in DuckDB over the landed parts.

What counts, defined once:

* An event that was landed twice counts once; of two rows with one id the later part's counts, as everywhere.
* A unit belongs to the arm it was randomised into (reasons ``assigned`` and ``sticky``). A unit that was randomised
  into two arms of one version is mixed: it is counted as such and enters no statistic.
* A measurement counts for its unit if the unit belongs to the measurement's arm. Overridden, forced and shadow uses are
  stored and do not count. Measurements of a unit and arm without any exposure are counted as lost exposures.
* The values of a unit are summed first (y, weights w, covariates x; a missing weight is 1, a missing covariate 0; a
  column that no metric of the configuration names is not read); of a proportion the unit's y is 1 if it ever happened.
  Sums then run over units.
* Times do not matter, except that ``until_ms`` leaves later events out: a clock that goes back changes nothing.

Sums over units are compensated (``fsum``), so that the order in which threads add does not show in 12 digits.
Knows nothing about intervals or decisions.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import duckdb
import numpy as np

from grym.describe import arrow_schema, literal
from grym.errors import ResourceError, StorageError
from grym.experiment.registry import run_id
from grym.parts import reason
from grym.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from grym.experiment.config import Experiment, Metric
    from grym.store import Store

RANDOMISED: Final = ("assigned", "sticky")
_SUSPECT_BITS: Final = 20  # of a table that fits into a cache
SUMS: Final = ("sum_y", "sum_w", "sum_x", "sum_yy", "sum_ww", "sum_xx", "sum_yw", "sum_xy", "sum_xw")

_EXPOSED: Final = """
CREATE OR REPLACE TEMP TABLE exposed AS
SELECT unit, arm, bool_or(reason IN ('assigned', 'sticky')) AS randomised, count(*) AS events,
       min(at_ms) AS first_ms, max(at_ms) AS last_ms
FROM exposures GROUP BY unit, arm
"""
_MIXED: Final = """
CREATE OR REPLACE TEMP TABLE mixed AS
SELECT unit FROM exposed WHERE randomised GROUP BY unit HAVING count(*) > 1
"""
_ARMS: Final = """
SELECT arm, count(*) FILTER (randomised), coalesce(sum(events), 0)::BIGINT, min(first_ms), max(last_ms)
FROM exposed GROUP BY arm
"""
_MOMENTS: Final = """
WITH units AS (
    SELECT unit, arm,
           {values}
    FROM (SELECT *, {flags} FROM measurements) GROUP BY unit, arm
), counted AS (
    SELECT u.*, e.randomised, e.unit IS NULL AS lost
    FROM units u LEFT JOIN exposed e ON e.unit = u.unit AND e.arm = u.arm
)
SELECT arm,
       {metrics}
FROM counted GROUP BY arm
"""
_KEPT: Final = """
CREATE TEMP TABLE kept_{table} AS
SELECT {names} FROM read_parquet({files}, filename = true, file_row_number = true)
WHERE hash(event_id) IN (SELECT hashed FROM twice_{table})
QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY filename DESC, file_row_number DESC) = 1
"""
_ONCE: Final = """
CREATE TEMP VIEW {table} AS SELECT * FROM (
    SELECT {names} FROM read_parquet({files}) WHERE hash(event_id) NOT IN (SELECT hashed FROM twice_{table})
    UNION ALL SELECT {names} FROM kept_{table}
){wanted}
"""
_EXTRA: Final = """
SELECT count(*) - (SELECT count(*) FROM kept_{table}) FROM read_parquet({files})
WHERE hash(event_id) IN (SELECT hashed FROM twice_{table})
"""


@dataclass(frozen=True, slots=True)
class ArmCount:
    """What reached one arm.

    Attributes:
        arm: name of the arm.
        units: units that were randomised into it, mixed ones too.
        exposures: exposures for whatever reason.
    """

    arm: str
    units: int
    exposures: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the analysis starts from, for one version.

    Attributes:
        rows: one per metric and arm of the configuration, in its order: ``metric``, ``arm``, ``n`` and :data:`SUMS`.
        arms: one per arm of the configuration, in its order.
        mixed: units that were randomised into more than one arm; in no row.
        lost: measurements of units that have no exposure in their arm.
        repeated: rows that were landed more than once.
        first_ms: earliest exposure, none without exposures.
        last_ms: latest exposure.
        until_ms: later events were left out; none means all are in.
        query_digest: sha256 of the queries that were run.
    """

    rows: tuple[Mapping[str, Any], ...]
    arms: tuple[ArmCount, ...]
    mixed: int
    lost: int
    repeated: int
    first_ms: int | None
    last_ms: int | None
    until_ms: int | None
    query_digest: str


def gather(
    store: Store, experiment: Experiment, *, until_ms: int | None = None, threads: int | None = None
) -> Evidence:
    """The sufficient statistics of one version.

    Args:
        store: whose landing zone.
        experiment: the version.
        until_ms: leave later events out.
        threads: of DuckDB; default all cores.

    Raises:
        StorageError: a part cannot be read, or a publish does not end.
        ResourceError: memory ran out.
    """
    with open_events(store, experiment, until_ms=until_ms, threads=threads) as events:
        return events.evidence()


@contextmanager
def open_events(
    store: Store, experiment: Experiment, *, until_ms: int | None = None, threads: int | None = None
) -> Iterator[Events]:
    """The events of one version as tables of a DuckDB connection of its own.

    ``exposures`` and ``measurements`` have the schema's columns and no row twice; ``exposed`` has a row per unit and
    arm with ``randomised``, which is false for mixed units too. Nobody puts parts together while it is open.

    Raises:
        StorageError: a part cannot be read, or a publish does not end.
        ResourceError: memory ran out.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {"threads": threads} if threads else {}
    try:
        with store.publishing(), duckdb.connect(config=settings) as connection:
            connection.execute("SET enable_progress_bar = false")
            events = Events(connection, store, experiment, until_ms)
            try:
                yield events
            finally:
                events.close()
    except duckdb.OutOfMemoryException as error:
        msg = f"The statistics of experiment {experiment.name!r} do not fit into memory."
        raise ResourceError(
            msg, code="no-memory", hint="Give the process more memory, or use fewer threads."
        ) from error
    except duckdb.Error as error:
        msg = f"Events of experiment {experiment.name!r} cannot be read: {reason(error)}."
        raise StorageError(msg, code="bad-part", hint="Delete or mend the part that the message names.") from error


class Events:
    """An open set of events; made by :func:`open_events`.

    Looking for rows that were landed twice takes as long as a third of the statistics, and there hardly ever are any:
    it goes on in a thread while the statistics are computed as if there were none. :meth:`settle` waits for it.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, store: Store, experiment: Experiment, until_ms: int | None
    ) -> None:
        self._connection = connection
        self._experiment = experiment
        self._until_ms = until_ms
        self._settled: int | None = None
        run = run_id(experiment.name, experiment.version)
        # Measurements are listed first: what is landed meanwhile then lacks no exposure.
        self._files = {table: _files(_parts(store, table, run)) for table in ("measurements", "exposures")}
        for table, files in self._files.items():
            _view(connection, table, files, until_ms)
        self._twice: dict[str, NDArray[np.uint64]] = {}
        self._failed: Exception | None = None
        self._looking = Thread(target=self._look, args=(connection.cursor(),))
        self._looking.start()
        try:
            self._group()
        except BaseException:
            self.close()
            raise

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """With ``exposures``, ``measurements`` and ``exposed``, no row of which comes twice."""
        self.settle()
        return self._connection

    def settle(self) -> int:
        """Take away rows that were landed more than once; how many those were."""
        if self._settled is None:
            self._looking.join()
            if self._failed is not None:
                raise self._failed
            self._settled = sum(
                _once(self._connection, table, self._files[table], hashes, self._until_ms)
                for table, hashes in self._twice.items()
                if len(hashes)
            )
            if self._settled:
                self._group()
        return self._settled

    def close(self) -> None:
        """Wait until nobody uses the connection any more."""
        self._looking.join()

    def _look(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            self._twice = {table: _repeated(connection, files) for table, files in self._files.items() if files}
        except Exception as error:  # noqa: BLE001 - raised again by settle(), in the thread that asks
            self._failed = error

    def _group(self) -> None:
        self._connection.execute(_EXPOSED)
        self._arms = {name: found for name, *found in self._connection.sql(_ARMS).fetchall()}
        self._connection.execute(_MIXED)
        self._mixed = _count(self._connection, "SELECT count(*) FROM mixed")
        if self._mixed:
            self._connection.execute("UPDATE exposed SET randomised = false WHERE unit IN (FROM mixed)")

    def evidence(self) -> Evidence:
        """The sufficient statistics."""
        found, exposed = self._sums()
        if self._settled is None and self.settle():
            found, exposed = self._sums()
        arms = self._arms
        times = [time for row in arms.values() for time in row[2:]]
        return Evidence(
            rows=tuple(_rows(self._experiment, found, exposed)),
            arms=tuple(ArmCount(a.name, *arms.get(a.name, (0, 0))[:2]) for a in self._experiment.arms),
            mixed=self._mixed,
            lost=sum(row[f"{metric.name}.lost"] for row in found.values() for metric in self._experiment.metrics),
            repeated=self.settle(),
            first_ms=min(times, default=None),
            last_ms=max(times, default=None),
            until_ms=self._until_ms,
            query_digest=hashlib.sha256(queries(self._experiment).encode()).hexdigest(),
        )

    def _sums(self) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
        """Sums and units of each arm, from the rows as they are known now."""
        answer = self._connection.sql(moments_query(self._experiment))
        found = {row[0]: dict(zip(answer.columns, row, strict=True)) for row in answer.fetchall()}
        exposed = "SELECT arm, count(*) FROM exposed WHERE randomised GROUP BY arm"
        return found, dict(self._connection.sql(exposed).fetchall())


def queries(experiment: Experiment) -> str:
    """Every query that the statistics of a configuration come from, whose sha256 is :attr:`Evidence.query_digest`."""
    return f"{_EXPOSED}{_MIXED}{_ARMS}{moments_query(experiment)}"


def moments_query(experiment: Experiment) -> str:
    """The query that computes the sums: a row per arm, columns such as ``wer.sum_yy`` for the metrics.

    Units are grouped once for all metrics: grouping is what takes the time.
    """
    metrics = list(enumerate(experiment.metrics))
    return _MOMENTS.format(
        flags=", ".join(f"metric = {literal(metric.name)} AS m{i}" for i, metric in metrics),
        values=",\n           ".join(item for i, metric in metrics for item in _of_unit(i, metric)),
        metrics=",\n       ".join(item for i, metric in metrics for item in _of_metric(i, metric)),
    )


def _of_unit(i: int, metric: Metric) -> Iterator[str]:
    """What a unit's events of one metric come to: their number n, and y, w and x where the metric has them."""
    mine = f"FILTER (m{i})"
    yield f"count(*) {mine} AS n{i}"
    yield f"{'max' if metric.kind == 'proportion' else 'sum'}(value) {mine} AS y{i}"
    if metric.weight:
        yield f"sum(coalesce(weight, 1)) {mine} AS w{i}"
    if metric.covariate:
        yield f"sum(coalesce(covariate, 0)) {mine} AS x{i}"


def _of_metric(i: int, metric: Metric) -> Iterator[str]:
    """What all units come to; sums that are 0 for want of a covariate are left out."""
    yield f'count(*) FILTER (randomised AND n{i} > 0) AS "{metric.name}.n"'
    names = {"y": f"y{i}", "w": f"w{i}" if metric.weight else f"n{i}", "x": f"x{i}"}
    for name in SUMS:
        term = name.removeprefix("sum_")
        if metric.covariate or "x" not in term:
            product = " * ".join(names[factor] for factor in term)
            yield f'fsum({product}) FILTER (randomised) AS "{metric.name}.{name}"'
    yield f'coalesce(sum(n{i}) FILTER (lost), 0)::BIGINT AS "{metric.name}.lost"'


def _rows(
    experiment: Experiment, found: Mapping[str, Mapping[str, Any]], exposed: Mapping[str, int]
) -> Iterator[Mapping[str, Any]]:
    """One row per metric and arm; units without a measurement count as 0 where the metric says so."""
    for metric in experiment.metrics:
        for arm in experiment.arms:
            said = found.get(arm.name, {})
            units = exposed.get(arm.name, 0) if metric.absent == "zero" else said.get(f"{metric.name}.n", 0)
            sums = {name: said.get(f"{metric.name}.{name}") or 0.0 for name in SUMS}
            yield {"metric": metric.name, "arm": arm.name, "n": units, **sums}


def _parts(store: Store, table: str, run: str) -> list[Path]:
    return sorted(store.landing.glob(f"{table}/dt=*/run={run}/part-*.parquet"), key=str)


def _files(paths: list[Path]) -> str:
    """Paths as DuckDB's list; empty if there is none."""
    return f"[{', '.join(literal(str(path)) for path in paths)}]" if paths else ""


def _view(connection: duckdb.DuckDBPyConnection, table: str, files: str, until_ms: int | None) -> None:
    """Make a view of a table's rows as they were landed."""
    if files:
        query = f"SELECT {_names(table)} FROM read_parquet({files}){_wanted(until_ms)}"  # noqa: S608
        connection.execute(f"CREATE TEMP VIEW {table} AS {query}")
    else:
        connection.register(table, arrow_schema(TABLES[table]).empty_table())


def _once(
    connection: duckdb.DuckDBPyConnection, table: str, files: str, twice: NDArray[np.uint64], until_ms: int | None
) -> int:
    """Make the view one without repeated rows; the number of those."""
    connection.register("hashes", {"hashed": twice})
    connection.execute(f"CREATE TEMP TABLE twice_{table} AS FROM hashes")
    connection.unregister("hashes")
    connection.execute(f"DROP VIEW {table}")
    # Only rows that share the hash of their id are compared: the rest cannot be repeated.
    connection.execute(_KEPT.format(table=table, names=_names(table), files=files))
    connection.execute(_ONCE.format(table=table, names=_names(table), files=files, wanted=_wanted(until_ms)))
    return _count(connection, _EXTRA.format(table=table, files=files))


def _names(table: str) -> str:
    return ", ".join(f'"{column.name}"' for column in TABLES[table].columns)


def _wanted(until_ms: int | None) -> str:
    return "" if until_ms is None else f" WHERE at_ms <= {int(until_ms)}"


def _repeated(connection: duckdb.DuckDBPyConnection, files: str) -> NDArray[np.uint64]:
    """Hashes that more than one row's id has, ``uint64``; different hashes prove that no id comes twice.

    Sorting numbers is faster than counting distinct ones in DuckDB, and sorting halves of them several times faster
    again: where the upper half of a hash comes once, so does the hash. 10 million need 160 MB.
    """
    hashes = connection.sql(f"SELECT hash(event_id) AS h FROM read_parquet({files})").fetchnumpy()["h"]  # noqa: S608
    upper = _twice((hashes >> np.uint64(32)).astype(np.uint32))
    suspects = np.zeros(1 << _SUSPECT_BITS, dtype=bool)
    suspects[upper >> np.uint32(32 - _SUSPECT_BITS)] = True
    return _twice(hashes[suspects[hashes >> np.uint64(64 - _SUSPECT_BITS)]])


def _twice(numbers: NDArray[Any]) -> NDArray[Any]:
    """The numbers that come more than once, sorted."""
    ordered = np.sort(numbers)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.sql(query).fetchall()[0][0])
