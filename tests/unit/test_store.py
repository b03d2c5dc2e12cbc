"""The landing zone and the warehouse."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grym.errors import ConfigError, GrymError, ResourceError, StorageError
from grym.schema import TABLES
from grym.store import RunRef, Store

RUN = RunRef("abc-1", "2026-11-20")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store in an empty home."""
    return Store(tmp_path / "home")


def word(position: int, **fields: object) -> dict[str, object]:
    """A row of ``words``."""
    return {"arm": "a", "clip_id": "c1", "position": position, "operation": "ok", **fields}


def state(name: str, ordinal: int = 1, key: str = "k", at: datetime = NOON) -> dict[str, object]:
    """A row of ``runs``."""
    return {"state": name, "flow": "compare", "run_key": key, "ordinal": ordinal, "at": at}


def test_landed_rows_come_back_typed_in_the_order_of_the_key(store: Store) -> None:
    """What lands is read back, run id filled in, missing columns null, sorted by key."""
    path = store.land("words", [word(1, reference="two"), word(0)], run=RUN, part="batch-1")
    assert path.relative_to(store.home).as_posix() == "landing/words/dt=2026-11-20/run=abc-1/part-batch-1.parquet"
    frame = store.read("words", RUN)
    assert frame["position"].to_list() == [0, 1]
    assert frame["reference"].to_list() == [None, "two"]
    assert frame["run_id"].to_list() == ["abc-1", "abc-1"]
    assert store.landed("words", RUN) == {"batch-1"}


@pytest.mark.parametrize("table", TABLES)
def test_reading_nothing_gives_the_schemas_columns_and_types(store: Store, table: str) -> None:
    """A table without parts reads as an empty frame of the right types."""
    types = {"text": pl.String, "int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean}
    expected = {c.name: types.get(c.type, pl.Datetime("us", "UTC")) for c in TABLES[table].columns}
    frame = store.read(table)
    assert frame.is_empty()
    assert dict(frame.schema) == expected


def test_the_same_part_again_replaces_itself(store: Store) -> None:
    """Landing a part twice leaves the second one, and no other file."""
    store.land("words", [word(0), word(1)], run=RUN, part="p")
    path = store.land("words", [word(0, reference="new")], run=RUN, part="p")
    assert store.read("words", RUN)["reference"].to_list() == ["new"]
    assert [p.name for p in path.parent.iterdir()] == ["part-p.parquet"]


def test_an_empty_part_marks_a_batch_as_done(store: Store) -> None:
    """No rows are a part too."""
    store.land("words", [], run=RUN, part="p")
    assert store.landed("words", RUN) == {"p"}
    assert store.read("words", RUN).is_empty()


def test_of_two_rows_with_one_key_the_later_part_counts_everywhere(store: Store) -> None:
    """Reading and publishing keep the same row of a key."""
    store.land("words", [word(0, reference="second")], run=RUN, part="b")
    store.land("words", [word(0, reference="first"), word(1)], run=RUN, part="a")
    assert store.read("words")["reference"].to_list() == ["second", None]
    assert store.publish().rows["words"] == 2
    with store.connect() as warehouse:
        assert warehouse.sql("SELECT reference FROM words ORDER BY position").fetchall() == [("second",), (None,)]


def test_runs_are_kept_apart(store: Store) -> None:
    """Reading one run does not show another's rows."""
    other = RunRef("abc-2", "2026-11-21")
    store.land("words", [word(0)], run=RUN, part="p")
    store.land("words", [word(0), word(1)], run=other, part="p")
    assert (store.read("words", RUN).height, store.read("words", other).height, store.read("words").height) == (1, 2, 3)


def test_values_are_converted_where_nothing_is_lost(store: Store) -> None:
    """NumPy numbers, NaN and times of other zones land as the schema's types."""
    row = {
        "arm": "a",
        "call": "c",
        "attempt": np.int64(2),
        "worker_pid": 1,
        "at": NOON.astimezone(timezone(timedelta(hours=5))),
        "retryable": np.bool_(1),
    }
    store.land("attempts", [row], run=RUN, part="p")
    assert store.read("attempts").select("attempt", "at", "retryable").row(0) == (2, NOON, True)
    metrics = [
        {"metric": name, "a": value} for name, value in (("x", np.float32("nan")), ("y", float("nan")), ("z", 1))
    ]
    store.land("comparisons", metrics, run=RUN, part="p")
    assert store.read("comparisons")["a"].to_list() == [None, None, 1.0]


@pytest.mark.parametrize(
    ("table", "row", "code"),
    [
        ("wurds", {}, "unknown-table"),
        ("words", word(0, wer=0.1), "unknown-column"),
        ("words", word(0, run_id="other-1"), "wrong-run"),
        ("words", {"arm": "a", "clip_id": "c"}, "empty-key"),
        ("words", word(0, reference=3), "wrong-type"),
        ("words", word(0, reference="\ud800"), "wrong-type"),
        ("words", {**word(0), "position": 1.5}, "wrong-type"),
        ("runs", {"state": "started", "at": datetime(2026, 11, 20)}, "wrong-type"),  # noqa: DTZ001 - the error itself
    ],
)
def test_rows_that_do_not_fit_the_schema_are_refused(
    store: Store, table: str, row: dict[str, object], code: str
) -> None:
    """A wrong row is a typed error with a hint, and nothing lands."""
    with pytest.raises(StorageError) as caught:
        store.land(table, [row], run=RUN, part="p")
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)
    assert not store.landing.exists()


@pytest.mark.parametrize(
    ("run", "part"),
    [(RUN, "../up"), (RUN, ""), (RUN, "x" * 151), (RunRef("a/b", "2026-11-20"), "p"), (RunRef("a", "yesterday"), "p")],
)
def test_names_that_would_leave_the_folder_are_refused(store: Store, run: RunRef, part: str) -> None:
    """Part, run and date become folder names, so they are checked."""
    with pytest.raises(StorageError, match=r"name|date") as caught:
        store.land("words", [word(0)], run=run, part=part)
    assert caught.value.code == "bad-name"


def test_a_full_disk_says_so_and_leaves_nothing(store: Store) -> None:
    """A write that hits the limit on file size is a resource error, and the part is absent."""
    store.land("words", [], run=RUN, part="before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(ResourceError, match="Free space") as caught:
            store.land("words", [word(0)], run=RUN, part="p")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "disk-full"
    assert store.landed("words", RUN) == {"before"}
    assert not list(store.landing.rglob("*.tmp"))


def test_a_disk_that_fills_up_while_publishing_leaves_the_old_warehouse(store: Store) -> None:
    """Building aside means that a full disk costs nothing but the new file."""
    store.publish()
    before = store.warehouse.stat().st_ino
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ResourceError, match="previous warehouse is unchanged") as caught:
            store.publish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "disk-full"
    assert store.warehouse.stat().st_ino == before
    assert not list(store.home.glob(".publish-*"))
    store.connect().close()


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_disk_that_fills_up_late_in_publishing_blames_no_view(store: Store, share: float) -> None:
    """Wherever DuckDB meets the limit (its log, a view, the last checkpoint) the reason is told, not a symptom."""
    store.publish()
    size = store.warehouse.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), hard))
    try:
        with pytest.raises(ResourceError, match=os.strerror(errno.EFBIG)) as caught:
            store.publish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "disk-full"


def test_a_warehouse_with_a_damaged_block_is_not_called_locked(store: Store) -> None:
    """Its checksum is wrong "in block 0", which is no lock: it is built anew."""
    store.publish()
    damaged = bytearray(store.warehouse.read_bytes())
    damaged[4200] ^= 0xFF
    store.warehouse.unlink()
    store.warehouse.write_bytes(damaged)
    with pytest.raises(StorageError) as caught:
        store.connect()
    assert caught.value.code == "bad-warehouse"
    store.publish()
    store.connect().close()


def test_a_home_that_cannot_be_written_to_says_so(tmp_path: Path) -> None:
    """Landing and publishing under a file are storage errors."""
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "home")
    for act in (lambda: store.land("words", [], run=RUN, part="p"), store.publish):
        with pytest.raises(StorageError, match="could not be written") as caught:
            act()
        assert caught.value.code == "not-writable"


def test_a_crash_before_the_rename_leaves_nothing_visible(store: Store) -> None:
    """A process killed between writing and renaming leaves no part; its file goes once it is a day old."""
    script = (
        "import os, pathlib, sys; from grym.store import RunRef, Store\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "row = {'arm': 'a', 'clip_id': 'c1', 'position': 0}\n"
        "Store(pathlib.Path(sys.argv[1])).land('words', [row], run=RunRef('abc-1', '2026-11-20'), part='p')"
    )
    ended = subprocess.run([sys.executable, "-c", script, store.home], env={"PYTHONPATH": str(SRC)}, check=False)
    assert ended.returncode == -9
    (orphan,) = store.landing.rglob("*.tmp")
    assert store.landed("words", RUN) == frozenset()
    assert store.read("words").is_empty()
    assert store.publish().rows["words"] == 0
    assert orphan.exists()
    os.utime(orphan, (time.time() - 2 * 86400,) * 2)
    store.publish()
    assert not orphan.exists()


def test_runs_of_a_key_are_found_with_their_folder_and_state(store: Store) -> None:
    """Newest ordinal last, numerically; the date is the folder's even when a state was reached after midnight."""
    late = RunRef("k-2", "2026-11-21")
    tenth = RunRef("k-10", "2026-11-22")
    store.land("runs", [state("started", 10)], run=tenth, part="started")
    store.land("runs", [state("started", 2)], run=late, part="started")
    store.land("runs", [state("finished", 2, at=NOON + timedelta(days=2))], run=late, part="finished")
    store.land("runs", [state("started", 1, key="other")], run=RUN, part="started")
    assert store.find_runs("k") == [(late, True), (tenth, False)]
    assert store.find_runs("unknown") == []
    assert store.runs()["run_id"].to_list() == ["abc-1", "k-10", "k-2", "k-2"]


def test_parts_written_before_a_column_existed_are_read(store: Store) -> None:
    """A part that lacks a column reads as null there, and one that has an old column is not in the way."""
    path = store.land("words", [word(0)], run=RUN, part="p")
    old = pq.read_table(path, partitioning=None).drop_columns(["reference"])
    pq.write_table(old.append_column("gone", pa.array([1])), path)
    assert store.read("words")["reference"].to_list() == [None]
    assert store.publish().rows["words"] == 1


@pytest.mark.parametrize("content", [b"", b"PAR1 not parquet", None])
def test_a_damaged_part_is_left_out_and_named(store: Store, content: bytes | None) -> None:
    """Publishing skips a damaged part and reports it; reading for a run stops with what to do."""
    store.land("words", [word(0)], run=RUN, part="good")
    path = store.land("words", [word(1)], run=RUN, part="torn")
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    result = store.publish()
    assert result.rows["words"] == 1
    assert [part.path for part in result.skipped] == [path]
    assert result.skipped[0].reason
    with pytest.raises(StorageError, match=r"part-torn.*Delete the file") as caught:
        store.read("words", RUN)
    assert caught.value.code == "bad-part"


def test_the_warehouse_explains_itself(store: Store) -> None:
    """Every table carries its grain and every column its meaning."""
    store.publish()
    with store.connect() as warehouse:
        tables = dict(warehouse.sql("SELECT table_name, comment FROM duckdb_tables()").fetchall())
        columns = warehouse.sql("SELECT table_name, column_name, comment FROM duckdb_columns()").fetchall()
    assert {name: comment.split(". Key")[0] for name, comment in tables.items()} == {
        name: f"Grain: {table.grain}" for name, table in TABLES.items()
    }
    assert {(t, c): m for t, c, m in columns if t in TABLES} == {
        (t.name, c.name): c.meaning for t in TABLES.values() for c in t.columns
    }


def test_the_warehouse_has_the_old_storage_format_and_cannot_be_changed(store: Store) -> None:
    """Clients of DuckDB 1.2 can open it; the file and the connection are read-only."""
    store.publish()
    with store.connect() as warehouse:
        tags = warehouse.sql("SELECT tags FROM duckdb_databases() WHERE database_name = 'warehouse'").fetchall()
        assert tags[0][0]["storage_version"].startswith("v1.2")
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            warehouse.execute("DELETE FROM words")
    assert store.warehouse.stat().st_mode & 0o222 == 0


def test_a_reader_keeps_its_file_and_the_next_one_sees_the_new(store: Store) -> None:
    """Publishing under an open connection disturbs it not, and a second connection is not served the old file."""
    store.publish()
    with store.connect() as before:
        store.land("words", [word(0)], run=RUN, part="p")
        store.publish()
        with store.connect() as after:
            assert after.sql("SELECT count(*) FROM words").fetchall() == [(1,)]
        assert before.sql("SELECT count(*) FROM words").fetchall() == [(0,)]


def test_many_parts_are_published_in_pieces(store: Store) -> None:
    """More parts than are held in memory at once lose no row, and the last piece still wins."""
    for number in range(205):
        store.land("words", [word(number % 203, reference=str(number))], run=RUN, part=f"{number:03}")
    assert store.publish().rows["words"] == 203
    with store.connect() as warehouse:
        assert warehouse.sql("SELECT reference FROM words WHERE position < 2 ORDER BY 1").fetchall() == [
            ("203",),
            ("204",),
        ]


def test_no_warehouse_says_what_to_do(store: Store) -> None:
    """Connecting before the first publish names the remedy."""
    with pytest.raises(StorageError, match="Run publish") as caught:
        store.connect()
    assert caught.value.code == "no-warehouse"


def test_a_file_that_is_no_database_says_so_and_publishing_mends_it(store: Store) -> None:
    """A broken warehouse is a typed error, and the landing zone makes a new one."""
    store.home.mkdir()
    store.warehouse.write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError, match="Run publish") as caught:
        store.connect()
    assert caught.value.code == "bad-warehouse"
    store.publish()
    store.connect().close()


def test_what_killed_programs_left_is_removed(store: Store) -> None:
    """Folders of killed publishes and the log of a killed writer do not outlive the next publish."""
    (store.home / ".publish-old").mkdir(parents=True)
    (store.home / ".publish-old" / "warehouse.duckdb").write_bytes(b"half")
    (store.home / "warehouse.duckdb.wal").write_bytes(b"log of another file")
    store.publish()
    assert sorted(p.name for p in store.home.iterdir() if p.name != "warehouse.lock") == ["warehouse.duckdb"]
    store.connect().close()


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"v.sql": "SELECT 1"}, ConfigError),
        ({"v.sql": "-- Grain: x.\n-- Columns:\n--   a  one\n-- Example:\n--   FROM v\nSELEC 1 AS a"}, StorageError),
        ({"v.sql": "-- Grain: x.\n-- Columns:\n--   a  one\n-- Example:\n--   FROM v\nFROM w"}, StorageError),
    ],
)
def test_a_wrong_view_leaves_the_warehouse_as_it_was(
    store: Store, tmp_path: Path, files: dict[str, str], error: type[GrymError]
) -> None:
    """A view that cannot be made stops publishing, names itself, and the old file stays."""
    store.publish()
    before = store.warehouse.stat().st_ino
    folder = tmp_path / "views"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(error) as caught:
        store.publish(folder)
    assert caught.value.code == "bad-view"
    assert "v" in caught.value.message
    assert store.warehouse.stat().st_ino == before
    assert not list(store.home.glob(".publish-*"))
    with pytest.raises(ConfigError, match="no folder"):
        store.publish(tmp_path / "nowhere")


def test_a_view_may_build_on_another_whatever_their_names(store: Store, tmp_path: Path) -> None:
    """Views are made in the order of their needs, and carry their comments."""
    head = "-- Grain: one number.\n-- Columns:\n--   a    number without unit\n-- Example:\n--   FROM {}\n"
    (tmp_path / "a_first.sql").write_text(head.format("a_first") + "FROM z_base SELECT a + 1 AS a;")
    (tmp_path / "z_base.sql").write_text(head.format("z_base") + "SELECT 1 AS a")
    store.publish(tmp_path)
    with store.connect() as warehouse:
        assert warehouse.sql("FROM a_first").fetchall() == [(2,)]
        comments = warehouse.sql("SELECT comment FROM duckdb_views() WHERE view_name = 'a_first'").fetchall()
    assert comments == [("Grain: one number.",)]
