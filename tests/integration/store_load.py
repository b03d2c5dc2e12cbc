"""Processes that write to a home or read from it, for tests of several at once.

``python store_load.py write HOME NAME SECONDS`` lands whole runs in the order of the compare flow and publishes.
``python store_load.py read HOME NAME SECONDS`` asks the warehouse until the file ``HOME/stop`` exists. Each prints
one JSON object. Seconds bound the writing: no run is started after them, but everybody makes at least two.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import duckdb

from grym.errors import StorageError
from grym.store import RunRef, Store
from reports import VIEWS
from reports.questions import questions

LEAST_RUNS: Final = 2
PAUSE: Final = 0.05  # seconds between two rounds of a reader, so that writers get their turn
BATCHES: Final = 2
CLIPS: Final = 4  # of a batch, so a run has 8
# Each query counts what must not be there: half a batch, half a run.
TORN: Final = {
    "an outcome without all of its words": """
        SELECT count(*) FROM outcomes o
        LEFT JOIN (SELECT run_id, arm, clip_id, count(*) AS n FROM words GROUP BY ALL) w USING (run_id, arm, clip_id)
        WHERE o.hits <> coalesce(w.n, 0)""",
    "half a batch": """
        SELECT count(*) FROM (SELECT 1 FROM outcomes GROUP BY run_id, arm, batch_id HAVING count(*) <> 4)""",
    "a clip twice, or one too few": """
        SELECT count(*) FROM (SELECT 1 FROM clips GROUP BY run_id HAVING count(*) <> 8)""",
    "an outcome without its clip": "SELECT count(*) FROM outcomes ANTI JOIN clips USING (run_id, clip_id)",
    "an outcome of no run": "SELECT count(*) FROM outcomes ANTI JOIN runs USING (run_id)",
    "a comparison without all outcomes": """
        SELECT count(*) FROM comparisons c
        WHERE 2 * 8 <> (SELECT count(*) FROM outcomes o WHERE o.run_id = c.run_id)""",
    "a finished run whose rows are not those of its control row": """
        SELECT count(*) FROM runs r
        WHERE state = 'finished' AND options <> json_object(
            'words', (SELECT count(*) FROM words w WHERE w.run_id = r.run_id),
            'outcomes', (SELECT count(*) FROM outcomes o WHERE o.run_id = r.run_id),
            'comparisons', (SELECT count(*) FROM comparisons c WHERE c.run_id = r.run_id))::VARCHAR""",
}  # fmt: skip
STATE: Final = "SELECT count(*) FILTER (WHERE state = 'finished'), count(*) FROM runs"


@dataclass
class Read:
    """What a reader met.

    Attributes:
        queries: queries that were answered.
        states: different contents that fresh connections saw.
        failed: queries and connections that failed, with why.
        torn: what was there in part only, and steps back in time.
    """

    queries: int = 0
    states: int = 0
    failed: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)


def land_run(store: Store, run: RunRef, rng: random.Random) -> None:
    """A comparison as the flow lands it: what speaks of other rows comes after them."""
    facts: dict[str, Any] = {
        "flow": "compare", "run_key": run.id, "ordinal": 1, "dataset": "load", "arm_a": "x", "arm_b": "y"
    }  # fmt: skip
    store.land("runs", [{**facts, "state": "started", "at": datetime.now(UTC)}], run=run, part="started")
    ids = [f"{batch}-{clip}" for batch in range(BATCHES) for clip in range(CLIPS)]
    clips = [{"clip_id": i, "key": i, "speaker": f"s{i[-1]}", "slices": '{"noise": "none"}'} for i in ids]
    total = 0
    for arm in "ab":
        store.land("clips", clips, run=run, part="all")  # again, as a resumed run does: it replaces itself
        for batch in range(BATCHES):
            total += land_batch(store, run, arm, f"b{batch}", [i for i in ids if i.startswith(f"{batch}-")], rng)
    store.land("comparisons", [{"metric": "wer", "verdict": "cannot tell"}], run=run, part="all")
    control = json.dumps({"words": total, "outcomes": 2 * len(ids), "comparisons": 1}, separators=(",", ":"))
    finished = {**facts, "state": "finished", "at": datetime.now(UTC), "options": control}
    store.land("runs", [finished], run=run, part="finished")


def land_batch(store: Store, run: RunRef, arm: str, batch: str, ids: list[str], rng: random.Random) -> int:
    """Words, then outcomes that say how many words there are; returns the number of words."""
    lengths = {clip: rng.randrange(60) for clip in ids}
    words = [
        {"arm": arm, "clip_id": clip, "position": i, "operation": "ok", "reference": "one", "hypothesis": "one"}
        for clip, length in lengths.items()
        for i in range(length)
    ]
    store.land("words", words, run=run, part=f"{arm}-{batch}")
    counts = {"substitutions": 0, "deletions": 0, "insertions": 0, "reference_characters": 3, "character_errors": 0}
    outcomes = [
        {"arm": arm, "clip_id": c, "batch_id": batch, "status": "ok", "reference_words": n, "hits": n, **counts}
        for c, n in lengths.items()
    ]
    store.land("outcomes", outcomes, run=run, part=f"{arm}-{batch}")
    return len(words)


def write(store: Store, name: str, seconds: float) -> dict[str, int]:
    """Land run after run and publish after each, unless another process is about it."""
    rng = random.Random(name)
    until = time.monotonic() + seconds
    runs = published = 0
    while runs < LEAST_RUNS or time.monotonic() < until:
        runs += 1
        land_run(store, RunRef(f"{name}{runs}-1", "2026-11-20"), rng)
        try:
            store.publish(VIEWS, wait_seconds=0)
            published += 1
        except StorageError as error:
            if error.code != "publish-busy":
                raise
        time.sleep(rng.uniform(0, seconds / 40))  # so that the landing zone of a long test stays readable
    return {"runs": runs, "published": published}


def read(store: Store) -> Read:
    """Query through a connection that stays open, and through a new one each time."""
    seen, last = Read(), (0, 0)
    with duckdb.connect(str(store.warehouse), read_only=True) as old:
        first = old.sql(STATE).fetchall()
        stop = False
        for question in cycle(questions()):
            if stop:
                break
            stop = (store.home / "stop").exists()  # what was published before it is still looked at
            try:
                with store.connect() as new:
                    seen.torn += [what for what, query in TORN.items() if new.sql(query).fetchall() != [(0,)]]
                    state = new.sql(STATE).fetchall()[0]
                    new.sql(question.sql).fetchall()
                stays = old.sql(STATE).fetchall() == first
                old.sql(question.sql).fetchall()
            except Exception as error:  # noqa: BLE001 - whatever fails is what the test is about
                seen.failed.append(f"{question.name}: {error}")
                continue
            seen.torn += [] if stays else ["a connection that changed under its reader"]
            seen.torn += ["an older state after a newer one"] if state < last else []
            seen.states += state != last
            seen.queries += len(TORN) + 4
            last = state
            time.sleep(PAUSE)
    return seen


def main() -> None:
    """One process: role, home, name, seconds."""
    role, home, name, seconds = sys.argv[1:]
    store = Store(Path(home))
    result = write(store, name, float(seconds)) if role == "write" else asdict(read(store))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
