"""What the schema, the views and the questions say about themselves: every column, with its unit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from grym.describe import arrow_schema, read_questions, read_views
from grym.schema import TABLES
from grym.store import Store
from reports import QUESTIONS, VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from grym.schema import Table

# A number says in its name or its meaning what it counts in.
UNIT = re.compile(
    r"seconds?\b|\bms\b|\bmb\b|\bgb\b|\bhz\b|\bdbfs\b|\bdb\b|percent|fraction|share|in \[0, 1\]|p-value|metric's unit",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty warehouse with every table and view."""
    store = Store(tmp_path_factory.mktemp("home"))
    store.publish(VIEWS)
    with store.connect() as connection:
        yield connection


def says_its_unit(name: str, meaning: str) -> bool:
    """Whether a column's name or meaning has a unit."""
    return bool(UNIT.search(f"{name.replace('_', ' ')} {meaning}"))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_says_its_grain_its_key_and_every_column(table: Table) -> None:
    """Grain and key are there, every column has a meaning, every measured number a unit, no name comes twice."""
    names = [column.name for column in table.columns]
    assert len(table.grain.split()) > 1
    assert table.key
    assert set(table.key) <= set(names)
    assert len(names) == len(set(names)) == len(arrow_schema(table))
    for column in table.columns:
        assert len(column.meaning) > 3, column.name
        assert column.type != "float" or says_its_unit(column.name, column.meaning), column.name


def test_the_warehouse_carries_every_description(warehouse: duckdb.DuckDBPyConnection) -> None:
    """Inside DuckDB each table and view has its grain, and each column its meaning, as a comment."""
    grains = dict(
        warehouse.sql(
            "SELECT table_name, comment FROM duckdb_tables() WHERE database_name = 'warehouse' "
            "UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE database_name = 'warehouse' AND NOT internal"
        ).fetchall()
    )
    views = {view.name: view for view in read_views(VIEWS)}
    assert set(grains) == {*TABLES, *views}
    assert all(grains[name].startswith(f"Grain: {table.grain}. Key: ") for name, table in TABLES.items())
    assert all(grains[name] == f"Grain: {view.grain}" for name, view in views.items())
    found = warehouse.sql(
        "SELECT table_name, column_name, comment FROM duckdb_columns() "
        "WHERE database_name = 'warehouse' AND NOT internal"
    ).fetchall()
    wanted = {(t.name, c.name, c.meaning) for t in TABLES.values() for c in t.columns}
    assert set(found) == wanted | {(view.name, *column) for view in views.values() for column in view.columns}


def test_measured_numbers_of_views_and_questions_say_their_unit(warehouse: duckdb.DuckDBPyConnection) -> None:
    """A column of type DOUBLE has a unit in its name or its meaning."""
    described = [(view.name, f"FROM {view.name}", view.columns) for view in read_views(VIEWS)]
    described += [(question.name, question.sql, question.columns) for question in read_questions(QUESTIONS)]
    for name, query, columns in described:
        relation = warehouse.sql(query)
        assert relation.columns == [column for column, _ in columns], name
        for kind, (column, meaning) in zip(relation.types, columns, strict=True):
            assert str(kind) != "DOUBLE" or says_its_unit(column, meaning), f"{name}.{column}"


def test_the_rules_of_units_can_fail() -> None:
    """A number without a unit is noticed."""
    assert not says_its_unit("speed", "how fast it is")
    assert says_its_unit("latency_ms", "how long it takes")
