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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
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

    from grym.experiment.config import Experiment
    from grym.store import Store

RANDOMISED: Final = ("assigned", "sticky")
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
    SELECT metric, unit, arm, count(*) AS events, {value} AS y, {weight} AS w, {covariate} AS x
    FROM measurements GROUP BY metric, unit, arm
)
SELECT u.metric, u.arm, count(*) FILTER (e.randomised) AS n,
       {sums},
       coalesce(sum(u.events) FILTER (e.unit IS NULL), 0)::BIGINT AS lost
FROM units u LEFT JOIN exposed e ON e.unit = u.unit AND e.arm = u.arm
GROUP BY u.metric, u.arm
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
            yield Events(connection, store, experiment, until_ms)
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

    Attributes:
        connection: with ``exposures``, ``measurements`` and ``exposed``.
        repeated: rows that were landed more than once.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, store: Store, experiment: Experiment, until_ms: int | None
    ) -> None:
        self.connection = connection
        self._experiment = experiment
        self._until_ms = until_ms
        run = run_id(experiment.name, experiment.version)
        # Measurements are listed first: what is landed meanwhile then lacks no exposure.
        self.repeated = sum(
            _view(connection, table, _parts(store, table, run), until_ms) for table in ("measurements", "exposures")
        )
        connection.execute(_EXPOSED)
        connection.execute(_MIXED)
        self._mixed = _count(connection, "SELECT count(*) FROM mixed")

    def evidence(self) -> Evidence:
        """The sufficient statistics."""
        arms = {name: found for name, *found in self.connection.sql(_ARMS).fetchall()}
        if self._mixed:
            self.connection.execute("UPDATE exposed SET randomised = false WHERE unit IN (FROM mixed)")
        query = moments_query(self._experiment)
        asked = queries(self._experiment)
        found = {(row[0], row[1]): row[2:] for row in self.connection.sql(query).fetchall()}
        exposed = dict(
            self.connection.sql("SELECT arm, count(*) FROM exposed WHERE randomised GROUP BY arm").fetchall()
        )
        times = [time for row in arms.values() for time in row[2:]]
        return Evidence(
            rows=tuple(_rows(self._experiment, found, exposed)),
            arms=tuple(ArmCount(a.name, *arms.get(a.name, (0, 0))[:2]) for a in self._experiment.arms),
            mixed=self._mixed,
            lost=sum(row[-1] for row in found.values()),
            repeated=self.repeated,
            first_ms=min(times, default=None),
            last_ms=max(times, default=None),
            until_ms=self._until_ms,
            query_digest=hashlib.sha256(asked.encode()).hexdigest(),
        )


def queries(experiment: Experiment) -> str:
    """Every query that the statistics of a configuration come from, whose sha256 is :attr:`Evidence.query_digest`."""
    return f"{_EXPOSED}{_MIXED}{_ARMS}{moments_query(experiment)}"


def moments_query(experiment: Experiment) -> str:
    """The query that computes the sums, for the metrics of a configuration."""
    happened = ", ".join(literal(metric.name) for metric in experiment.metrics if metric.kind == "proportion")
    value = f"CASE WHEN metric IN ({happened}) THEN max(value) ELSE sum(value) END" if happened else "sum(value)"
    explained = any(metric.covariate for metric in experiment.metrics)
    sums = [
        f"fsum({'*'.join(f'u.{factor}' for factor in term)}) FILTER (e.randomised)"
        if explained or "x" not in term
        else "0.0::DOUBLE"  # nobody names a covariate: nearly half of the work is saved
        for term in (name.removeprefix("sum_") for name in SUMS)
    ]
    return _MOMENTS.format(
        value=value,
        weight="sum(coalesce(weight, 1))" if any(metric.weight for metric in experiment.metrics) else "count(*)",
        covariate="sum(coalesce(covariate, 0))" if explained else "0.0",
        sums=",\n       ".join(sums),
    )


def _rows(
    experiment: Experiment, found: Mapping[tuple[str, str], Any], exposed: Mapping[str, int]
) -> Iterator[Mapping[str, Any]]:
    """One row per metric and arm; units without a measurement count as 0 where the metric says so."""
    for metric in experiment.metrics:
        for arm in experiment.arms:
            n, *sums = found.get((metric.name, arm.name), (0, *(0.0 for _ in SUMS), 0))[:-1]
            if metric.absent == "zero":
                n = exposed.get(arm.name, 0)
            named = zip(SUMS, (total or 0.0 for total in sums), strict=True)
            yield {"metric": metric.name, "arm": arm.name, "n": n, **dict(named)}


def _parts(store: Store, table: str, run: str) -> list[Path]:
    return sorted(store.landing.glob(f"{table}/dt=*/run={run}/part-*.parquet"), key=str)


def _view(connection: duckdb.DuckDBPyConnection, table: str, paths: list[Path], until_ms: int | None) -> int:
    """Make a view of a table's rows without repeated ones; the number of those."""
    names = ", ".join(f'"{column.name}"' for column in TABLES[table].columns)
    if not paths:
        connection.register(table, arrow_schema(TABLES[table]).empty_table())
        return 0
    files = f"[{', '.join(literal(str(path)) for path in paths)}]"
    wanted = "" if until_ms is None else f" WHERE at_ms <= {int(until_ms)}"
    twice = _repeated(connection, files)
    if not len(twice):
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT {names} FROM read_parquet({files}){wanted}")  # noqa: S608
        return 0
    connection.register("hashes", {"hashed": twice})
    connection.execute(f"CREATE TEMP TABLE twice_{table} AS FROM hashes")
    connection.unregister("hashes")
    # Only rows that share the hash of their id are compared: the rest cannot be repeated.
    connection.execute(_KEPT.format(table=table, names=names, files=files))
    connection.execute(_ONCE.format(table=table, names=names, files=files, wanted=wanted))
    return _count(connection, _EXTRA.format(table=table, files=files))


def _repeated(connection: duckdb.DuckDBPyConnection, files: str) -> NDArray[np.uint64]:
    """Hashes that more than one row's id has, ``uint64``; different hashes prove that no id comes twice.

    Sorting numbers takes half the time of counting distinct ones in DuckDB; 10 million need 160 MB.
    """
    hashes = connection.sql(f"SELECT hash(event_id) AS h FROM read_parquet({files})").fetchnumpy()["h"]  # noqa: S608
    lower = hashes < np.uint64(1 << 63)
    with ThreadPoolExecutor(2) as pool:  # a half of them in each thread: equal hashes are in one half
        return np.concatenate(list(pool.map(_twice, (hashes[lower], hashes[~lower]))))


def _twice(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.sql(query).fetchall()[0][0])
