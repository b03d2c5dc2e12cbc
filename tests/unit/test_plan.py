"""What a comparison will do: which clips, which run, which batches."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym.audio import Measured
from grym.compare.plan import Usable, choose_run, distinct, fingerprint, make_plan, run_key
from grym.config import CompareSettings, Settings, WorkerLimits
from grym.corpus.manifest import Entry
from grym.store import RunRef, Store

COMPARE = CompareSettings(latency_clips=3, batch_clips=4)
SETTINGS = Settings(compare=COMPARE)


def _usable(number: int, *, text: str = "one", clip_id: str = "") -> Usable:
    entry = Entry(key=f"k{number}", path=Path(f"/d/{number}.wav"), relative=f"{number}.wav", text=text, slices={})
    measured = Measured(16_000, 1, 1.0 + number / 10, -20.0, -3.0, 0.0, 0.0)
    return Usable(entry, clip_id or f"{number:064d}", measured)


def _start(store: Store, run: RunRef, key: str, state: str) -> None:
    row = {"state": state, "flow": "compare", "run_key": key, "ordinal": int(run.id.rsplit("-", 1)[1])}
    store.land("runs", [row], run=run, part=state)


@given(st.permutations(range(8)))
def test_the_question_does_not_depend_on_the_order_of_the_clips(order: list[int]) -> None:
    """Fingerprint, run key and plan are those of the set of clips."""
    clips = [_usable(i) for i in range(8)]
    shuffled = [clips[i] for i in order]
    revisions = {"a": "1", "b": "2"}
    assert fingerprint(clips) == fingerprint(shuffled)
    assert run_key(clips, revisions, SETTINGS) == run_key(shuffled, revisions, SETTINGS)


def test_the_question_changes_with_clips_revisions_and_options() -> None:
    """Another reference, another revision or another option is another run."""
    clips = [_usable(i) for i in range(3)]
    key = run_key(clips, {"a": "1", "b": "2"}, SETTINGS)
    others = (
        run_key([*clips[:2], _usable(2, text="two")], {"a": "1", "b": "2"}, SETTINGS),
        run_key(clips, {"a": "1", "b": "3"}, SETTINGS),
        run_key(clips, {"a": "1", "b": "2"}, SETTINGS.model_copy(update={"worker": WorkerLimits(attempts=9)})),
        run_key(clips, {"a": "1", "b": "2"}, SETTINGS, "other suites"),
    )
    assert len({key, *others}) == 5


def test_the_same_audio_twice_is_refused_once() -> None:
    """The first row of a content id is kept, the second refused with both names."""
    kept, refused = distinct([_usable(1, clip_id="x"), _usable(2), _usable(3, clip_id="x")])
    assert [clip.entry.key for clip in kept] == ["k1", "k2"]
    assert refused[0].error.code == "duplicate-audio"
    assert "k3" in refused[0].error.message
    assert "k1" in refused[0].error.message


def test_an_unfinished_run_is_resumed_and_a_finished_one_is_not(tmp_path: Path) -> None:
    """Resume, next ordinal, --new, and a run whose report is missing."""
    store = Store(tmp_path)
    key = "a" * 64
    fresh, ordinal, resumed = choose_run(store, key, new=False, complete=frozenset())
    assert (fresh.id, ordinal, resumed) == ("a" * 12 + "-1", 1, False)
    _start(store, fresh, key, "started")
    assert choose_run(store, key, new=False, complete=frozenset())[0] == fresh
    assert choose_run(store, key, new=True, complete=frozenset())[1:] == (2, False)
    _start(store, fresh, key, "finished")
    again, _, resumed = choose_run(store, key, new=False, complete=frozenset())
    assert (again, resumed) == (fresh, True)
    following, ordinal, resumed = choose_run(store, key, new=False, complete=frozenset({fresh.id}))
    assert (following.id, ordinal, resumed) == ("a" * 12 + "-2", 2, False)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_latency_sample_is_seeded_and_never_larger_than_the_set(tmp_path: Path, count: int) -> None:
    """The sample is part of the plan: the same every time, without repeats."""
    clips = [_usable(i) for i in range(count)]
    first, second = (
        make_plan(clips, "f" * 64, COMPARE, Store(tmp_path), new=False, complete=frozenset()) for _ in range(2)
    )
    assert first == second
    assert len(set(first.latency_sample)) == len(first.latency_sample) == min(3, count)
    assert {clip_id for batch in first.batches for clip_id in batch.clip_ids} == {clip.clip_id for clip in clips}
