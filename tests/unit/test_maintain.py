"""Upkeep: nothing that a reader reads changes, whenever it is killed; what is left over goes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grym.errors import StorageError
from grym.maintain import (
    Compacted,
    FeaturesTended,
    Maintained,
    Pruned,
    Tended,
    compact,
    lines,
    markdown,
    prune,
    tend,
)
from grym.memory import FeatureStore, Space
from grym.parts import COMPACTED
from grym.scratch import scratch_folder
from grym.store import PublishResult, RunRef, Store
from grym.warehouse import SkippedPart

ROOT = Path(__file__).resolve().parents[2]
RUN = RunRef("0123456789ab-1", "2026-11-20")
OTHER = RunRef("ba9876543210-1", "2026-11-20")
NAMES = frozenset({"a-0", "a-1", "a-2", "a-3", "b-0"})

# Compacts a run and kills itself at the n-th event of a kind that touches a part.
KILLED = """
import os, signal, sys
from pathlib import Path
from grym.maintain import compact
from grym.store import Store
seen = 0
def hook(event, arguments):
    global seen
    if event == sys.argv[2] and ".parquet" in str(arguments[-1 if event == "os.rename" else 0]) + str(arguments[1]):
        seen += 1
        if seen == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
compact(Store(Path(sys.argv[1])), {sys.argv[4]}, min_parts=2)
"""


def word(clip: str, position: int, said: str) -> dict[str, object]:
    """A row of table ``words``."""
    return {"arm": "a", "clip_id": clip, "position": position, "operation": "sub", "hypothesis": said}


def land(store: Store, run: RunRef = RUN) -> None:
    """Five parts: rows that later parts replace, rows that stand alone, and an empty part."""
    store.land("words", [word("c1", 0, "old"), word("c1", 1, "stays")], run=run, part="a-0")
    store.land("words", [word("c1", 0, "newer"), word("c2", 0, "alone")], run=run, part="a-1")
    store.land("words", [], run=run, part="a-2")
    store.land("words", [word("c1", 0, "newest"), word("c3", 0, "alone")], run=run, part="a-3")
    store.land("words", [word("c3", 0, "last")], run=run, part="b-0")


def parts(store: Store) -> list[Path]:
    """Every part, in order."""
    return sorted(store.landing.glob("*/*/*/part-*.parquet"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A home with five parts of one run."""
    made = Store(tmp_path / "home")
    land(made)
    return made


@pytest.fixture
def whole(store: Store) -> pl.DataFrame:
    """What is read from it."""
    return store.read("words")


def test_many_parts_become_one_and_every_reader_reads_the_same(store: Store, whole: pl.DataFrame) -> None:
    """Rows, names of what has landed, and the warehouse are as before; a second pass touches nothing."""
    before = store.publish().rows
    assert compact(store, {RUN.id}, min_parts=2) == Compacted(1, 5, 1)
    (one,) = parts(store)
    assert store.read("words").equals(whole)
    assert store.read("words", RUN).equals(whole)
    assert store.landed("words", RUN) == NAMES
    assert store.publish().rows == before
    written = one.stat().st_mtime_ns
    assert compact(store, {RUN.id}, min_parts=2) == Compacted(0, 1, 1)
    assert one.stat().st_mtime_ns == written


def test_at_every_point_of_the_deletion_the_same_rows_count(store: Store, whole: pl.DataFrame, tmp_path: Path) -> None:
    """With the new part and any number of the last old ones the rows are right, and the next pass deletes these."""
    saved = tmp_path / "saved"
    shutil.copytree(store.landing, saved)
    compact(store, {RUN.id}, min_parts=2)
    old = sorted(saved.glob("*/*/*/part-*.parquet"))
    for deleted in range(len(old) + 1):
        for path in old[deleted:]:
            shutil.copy(path, store.landing / path.relative_to(saved))
        assert len(parts(store)) == 1 + len(old) - deleted
        assert store.read("words").equals(whole)
        assert store.landed("words", RUN) == NAMES
        compact(store, {RUN.id}, min_parts=100)
        assert len(parts(store)) == 1
        assert store.read("words").equals(whole)


@pytest.mark.parametrize(("event", "count", "left"), [("os.rename", 1, 5), ("os.remove", 3, 4)])
def test_a_kill_loses_nothing(store: Store, whole: pl.DataFrame, event: str, count: int, left: int) -> None:
    """A process killed before the new part has its name, and in the middle of the deletion, is finished by the next."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(store.home), event, str(count), RUN.id],
        env=env, cwd=store.home, check=False, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(parts(store)) == left
    assert store.read("words").equals(whole)
    assert store.landed("words", RUN) == NAMES
    assert compact(store, {RUN.id}, min_parts=2).parts_after == 1
    assert store.read("words").equals(whole)


def test_a_reader_is_not_disturbed(store: Store) -> None:
    """Reads while parts are put together and deleted always give every row."""
    for number in range(80):
        store.land("words", [word("c9", number, "x")], run=RUN, part=f"c-{number:03}")
    whole = store.read("words", RUN)
    work = threading.Thread(target=compact, args=(store, {RUN.id}), kwargs={"min_parts": 2})
    work.start()
    reads = 0
    while work.is_alive() or not reads:
        assert store.read("words", RUN).equals(whole)
        assert "c-079" in store.landed("words", RUN)
        reads += 1
    work.join()
    assert len(parts(store)) == 1


def test_what_is_not_complete_small_or_in_use_is_left_alone(store: Store) -> None:
    """Only named runs with enough parts are touched, and never one that a process works on."""
    land(store, OTHER)
    before = parts(store)
    assert compact(store, (), min_parts=2) == Compacted(0, 10, 10)
    assert compact(store, {RUN.id, OTHER.id}, min_parts=6) == Compacted(0, 10, 10)
    with store.question_lock(RUN.id):
        found = compact(store, {RUN.id, OTHER.id}, min_parts=2)
    assert (found.runs, found.parts_after) == (1, 6)
    assert RUN.id in found.left[0]
    assert [path for path in before if f"run={RUN.id}" in str(path)] == parts(store)[:5]


def test_a_part_landed_again_wins_and_is_kept(store: Store) -> None:
    """A part that was put together and landed anew with other rows counts, and the next pass takes it in."""
    compact(store, {RUN.id}, min_parts=2)
    store.land("words", [word("c1", 0, "landed again")], run=RUN, part="a-0")
    for _ in range(2):
        said = store.read("words").filter(pl.col("clip_id") == "c1", pl.col("position") == 0)["hypothesis"]
        assert said.to_list() == ["landed again"]
        assert store.landed("words", RUN) == NAMES
        assert compact(store, {RUN.id}, min_parts=2).parts_after == 1


def test_what_cannot_be_put_together_is_left_and_named(store: Store) -> None:
    """A damaged part and a part with a column of another version stop the compaction of their table only."""
    land(store, OTHER)
    damaged, foreign = parts(store)[0], parts(store)[5]
    damaged.write_bytes(b"PAR1 torn")
    rows = pq.read_table(foreign)
    pq.write_table(rows.append_column("mood", pa.array(["glad"] * rows.num_rows)), foreign)
    found = compact(store, {RUN.id, OTHER.id}, min_parts=2)
    assert (found.runs, found.parts_before, found.parts_after) == (0, 10, 10)
    assert len(found.left) == 2
    assert "mood" in found.left[1]


def test_parts_that_vanish_for_good_are_an_error(store: Store) -> None:
    """A file that is listed and never there is an error; it is not taken for compaction for ever."""
    (parts(store)[0].parent / "part-z.parquet").symlink_to("nowhere")
    with pytest.raises(StorageError, match="vanish"):
        store.read("words")


def test_a_compacted_part_never_counts_as_a_landed_name(store: Store) -> None:
    """A resumed run asks for its own names; that of the new part is nobody's."""
    compact(store, {RUN.id}, min_parts=2)
    assert parts(store)[0].name.startswith(f"part-{COMPACTED}")
    assert not [name for name in store.landed("words", RUN) if name.startswith(COMPACTED)]


def test_features_lose_versions_and_no_rows(tmp_path: Path) -> None:
    """Old versions go, young ones stay, and a search finds the same clips."""
    assert tend(tmp_path, keep=timedelta(0)) == FeaturesTended((), 0, 0)
    store, space = FeatureStore(tmp_path), Space("mini", "rev", 4)
    vectors = np.eye(4, dtype=np.float32)
    for i, vector in enumerate(vectors):
        store.store([{"id": f"c{i}", "vector": vector}], space=space)
    found = store.find_similar(vectors[0], 4, space=space)
    kept = tend(tmp_path, keep=timedelta(days=1)).spaces[0]
    assert kept.versions_after >= kept.versions_before > 1
    tended = tend(tmp_path, keep=timedelta(milliseconds=1))
    (after,) = tended.spaces
    assert (after.rows, after.versions_after, after.indexed, after.recall) == (4, 1, False, 1.0)
    assert tended.bytes_after < tended.bytes_before
    assert FeatureStore(tmp_path).find_similar(vectors[0], 4, space=space) == found


def test_only_scratch_folders_of_dead_processes_go(tmp_path: Path) -> None:
    """A folder in use stays, one that nobody holds is removed and its size told."""
    assert prune(tmp_path) == Pruned((), 0)
    with scratch_folder(tmp_path, "live") as live:
        dead = live.with_name("compare-1-dead")
        dead.mkdir()
        (dead / "model.tmp").write_bytes(b"x" * 1000)
        assert prune(tmp_path) == Pruned(("compare-1-dead",), 1000)
        assert live.is_dir()
    assert not dead.exists()


def test_the_page_says_what_was_done_and_what_was_not(tmp_path: Path) -> None:
    """Each step is a line; a failed one gives its reason, and what was left alone is listed."""
    published = PublishResult(tmp_path, {"words": 3, "runs": 2}, (SkippedPart(tmp_path / "part-x.parquet", "torn"),))
    space = Tended("mini", 4, 9, 1, indexed=True, recall=0.95)
    done = Maintained(
        Compacted(1, 5, 1, ("Run r | s is being worked on.",)),
        published,
        FeaturesTended((space,), 3 * 2**20, 2048),
        None,
        {"scratch folders": StorageError("The place is held.", hint="Wait.").record()},
    )
    said = lines(done)
    assert list(said) == ["landing zone", "warehouse", "feature store", "scratch folders"]
    assert said["landing zone"] == "5 parts became 1, in one run."
    assert said["warehouse"] == "Published 5 rows in 2 tables."
    assert said["feature store"] == "4 vectors, 9 versions became 1, 3.0 MiB became 2.0 KiB; lowest recall 0.950."
    assert said["scratch folders"] == "Failed: The place is held. Wait."
    page = markdown(done)
    assert "| warehouse | Published 5 rows in 2 tables. |" in page
    assert "* Run r \\| s is being worked on." in page
    assert "* Part part-x.parquet is not in the warehouse: torn." in page
    idle = lines(Maintained(Compacted(0, 7, 7), None, FeaturesTended((), 0, 0), Pruned(("a", "b"), 3 * 2**30), {}))
    assert list(idle.values()) == [
        "Nothing to put together in 7 parts.",
        "Not published.",
        "No features are stored.",
        "Removed a, b: 3.0 GiB.",
    ]
    assert "Left" not in markdown(Maintained(None, None, None, Pruned((), 0), {}))
