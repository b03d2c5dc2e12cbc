"""The feature store: rows, search, filters, index."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest

from grym.errors import ConfigError, GrymError, QualityError, StorageError
from grym.memory import FeatureStore, Space, ensure_index, recall, space_name
from grym.memory.filters import predicate

if TYPE_CHECKING:
    from pathlib import Path

SPACE = Space("wav2vec2-mini", "rev", 4)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CLIPS = {
    "aa11": ([1, 0, 0, 0], "theo", "one", 1.0),
    "aa22": ([2, 2, 0, 0], "o'hara", "two", 2.0),
    "bb33": ([0, 3, 0, 0], "theo", "three", 3.0),
    "cc44": ([-1, 0, 0, 0], "mia", "four", 4.0),
}


def row(clip_id: str, vector: object, speaker: str = "", key: str = "", seconds: float = 1.0) -> dict[str, object]:
    """A row as the compare flow stores it."""
    facts = {"key": key, "speaker": speaker, "seconds": seconds, "model": SPACE.model, "revision": SPACE.revision}
    return {"id": clip_id, "vector": np.asarray(vector, dtype=np.float32), **facts}


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """A store with four clips."""
    store = FeatureStore(tmp_path, clock=lambda: NOON)
    rows = [row(clip, vector, speaker, key, seconds) for clip, (vector, speaker, key, seconds) in CLIPS.items()]
    assert store.store(rows, space=SPACE.name) == tuple(CLIPS)
    return store


def test_a_row_comes_back_as_it_was_stored(store: FeatureStore) -> None:
    """Vector, columns and the time of storing are kept."""
    feature = store.get("aa22", space=SPACE)
    assert feature is not None
    assert feature.vector.dtype == np.float32
    assert feature.vector.tolist() == [2, 2, 0, 0]
    assert {k: feature.metadata[k] for k in ("speaker", "key", "seconds", "model", "created_at", "text")} == {
        "speaker": "o'hara",
        "key": "two",
        "seconds": 2.0,
        "model": "wav2vec2-mini",
        "created_at": NOON,
        "text": None,
    }
    assert store.get("aa", space=SPACE) is None


def test_storing_again_replaces_and_never_doubles(store: FeatureStore) -> None:
    """The id is the identity: also of two rows with one id in one call the last counts."""
    ids = store.store([row("aa11", [5, 0, 0, 0]), row("dd55", [1, 1, 1, 1]), row("aa11", [7, 0, 0, 0])], space=SPACE)
    assert ids == ("aa11", "dd55", "aa11")
    assert store.count(space=SPACE) == 5
    feature = store.get("aa11", space=SPACE)
    assert feature is not None
    assert (feature.vector[0], feature.metadata["speaker"]) == (7, "")
    assert store.store([], space=SPACE) == ()


def test_what_another_handle_wrote_is_seen_at_once(store: FeatureStore) -> None:
    """An open handle is not a snapshot."""
    assert store.count(space=SPACE) == 4
    FeatureStore(store.path.parent).store([row("dd55", [1, 1, 1, 1])], space=SPACE)
    assert store.count(space=SPACE) == 5


def test_cosine_scores_are_similarities(store: FeatureStore) -> None:
    """Best first, in [-1, 1], whatever the vectors' length."""
    matches = store.find_similar([10, 0, 0, 0], space=SPACE)
    assert [m.id for m in matches] == ["aa11", "aa22", "bb33", "cc44"]
    assert [m.score for m in matches] == pytest.approx([1, 0.5**0.5, 0, -1], abs=1e-6)
    assert matches[1].metadata["speaker"] == "o'hara"
    assert [m.id for m in store.find_similar([10, 0, 0, 0], 2, space=SPACE.name)] == ["aa11", "aa22"]
    assert [m.id for m in store.find_similar([1, 0, 0, 0], space=SPACE, min_score=0.5)] == ["aa11", "aa22"]


@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        ("dot", {"aa22": 2, "aa11": 1, "bb33": 0, "cc44": -1}),
        ("l2", {"aa11": 1, "aa22": 1 / (1 + 5**0.5), "cc44": 1 / 3, "bb33": 1 / (1 + 10**0.5)}),
    ],
)
def test_other_metrics_give_their_documented_scores(store: FeatureStore, metric: str, scores: dict[str, float]) -> None:
    """Dot products as they are; Euclidean distances as 1 / (1 + distance)."""
    found = {m.id: m.score for m in store.find_similar([1, 0, 0, 0], space=SPACE, metric=metric)}  # type: ignore[arg-type]
    assert found == pytest.approx(scores, abs=1e-6)
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ({}, {"aa11", "aa22", "bb33", "cc44"}),
        ({"speaker": "theo"}, {"aa11", "bb33"}),
        ({"speaker": "o'hara"}, {"aa22"}),
        ({"speaker": "' OR 1 = 1 --"}, set()),
        ({"speaker": ["theo", "mia"], "seconds": [3, "4.0"]}, {"bb33", "cc44"}),
        ({"speaker": []}, set()),
        ({"text": None, "key": "one"}, {"aa11"}),
        ({"created_at": "2026-11-20T13:00:00+01:00"}, {"aa11", "aa22", "bb33", "cc44"}),
        ({"created_at": NOON + timedelta(seconds=1)}, set()),
        ("seconds > 2 AND speaker = 'theo'", {"bb33"}),
    ],
)
def test_filters_apply_before_the_search(store: FeatureStore, where: dict[str, object] | str, ids: set[str]) -> None:
    """Values, lists, nulls, times and predicates; a quote in a value is only a quote."""
    assert {m.id for m in store.find_similar([1, 0, 0, 0], space=SPACE, where=where)} == ids
    assert store.count(space=SPACE, where=where) == len(ids)


def test_neighbours_of_a_stored_clip_leave_it_out(store: FeatureStore) -> None:
    """By id, by a unique beginning, by its name in the manifest; other filters hold too."""
    for clip in ("aa11", "aa1", "one"):
        assert [m.id for m in store.find_similar_to(clip, 2, space=SPACE)] == ["aa22", "bb33"]
    assert [m.id for m in store.find_similar_to("one", space=SPACE, where={"speaker": "theo"})] == ["bb33"]
    either = store.find_similar_to("one", space=SPACE, where="speaker = 'theo' OR speaker = 'mia'")
    assert [m.id for m in either] == ["bb33", "cc44"]


@pytest.mark.parametrize(
    ("clip", "code", "told"), [("aa", "ambiguous-clip", "aa11, aa22"), ("zz", "unknown-clip", "audio file")]
)
def test_a_clip_that_is_not_one_says_what_to_do(store: FeatureStore, clip: str, code: str, told: str) -> None:
    """An ambiguous beginning lists the candidates, an unknown one the alternatives."""
    with pytest.raises(ConfigError, match=told) as caught:
        store.find_similar_to(clip, space=SPACE)
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)


def test_columns_and_vectors_can_be_changed(store: FeatureStore) -> None:
    """An update touches what it names, keeps the time, and never inserts."""
    assert store.update("aa11", {"text": "wun", "vector": [0, 0, 0, 9]}, space=SPACE)
    feature = store.get("aa11", space=SPACE)
    assert feature is not None
    assert (feature.metadata["text"], feature.metadata["speaker"]) == ("wun", "theo")
    assert (feature.vector[3], feature.metadata["created_at"]) == (9, NOON)
    assert not store.update("zz", {"text": "x"}, space=SPACE)
    assert store.count(space=SPACE) == 4
    with pytest.raises(ConfigError, match="no changeable column id"):
        store.update("aa11", {"id": "x"}, space=SPACE)
    with pytest.raises(QualityError, match="zero or not finite"):
        store.update("aa11", {"vector": [0, 0, 0, 0]}, space=SPACE)


def test_deleting_says_how_many_were_there(store: FeatureStore) -> None:
    """Unknown ids are no error, and no ids delete nothing."""
    assert store.delete(["aa11", "cc44", "zz"], space=SPACE) == 2
    assert store.delete([], space=SPACE) == 0
    assert store.count(space=SPACE) == 2


@pytest.mark.parametrize("bad", [[0, 0, 0, 0], [np.inf, 0, 0, 0], [np.nan, 0, 0, 0]])
def test_vectors_that_searches_would_lose_are_refused(store: FeatureStore, bad: list[float]) -> None:
    """Zero and infinite vectors stop the whole batch and are named; they cannot be searched with either."""
    with pytest.raises(QualityError, match=r"1 of 2 .*: ee66\.") as caught:
        store.store([row("dd55", [1, 1, 1, 1]), row("ee66", bad)], space=SPACE)
    assert caught.value.code == "bad-vector"
    assert store.count(space=SPACE) == 4
    with pytest.raises(QualityError, match="search with"):
        store.find_similar(bad, space=SPACE)


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"vector": [1, 2, 3]}, QualityError, "wrong-space"),
        ({"vector": [[1, 2, 3, 4]]}, QualityError, "wrong-space"),
        ({"revision": "other"}, QualityError, "wrong-space"),
        ({"id": None}, ConfigError, "bad-feature-row"),
        ({"colour": "red"}, ConfigError, "bad-feature-row"),
        ({"speaker": 3}, ConfigError, "wrong-type"),
    ],
)
def test_rows_that_do_not_fit_the_space_are_refused(
    store: FeatureStore, changes: dict[str, object], error: type[GrymError], code: str
) -> None:
    """A vector of another length, model or revision never gets among the others."""
    with pytest.raises(error) as caught:
        store.store([{**row("dd55", [1, 1, 1, 1]), **changes}], space=SPACE)
    assert caught.value.code == code
    assert store.count(space=SPACE) == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"vector": [1, 0, 0]}, "wrong-dimension"),
        ({"k": 0}, "bad-search"),
        ({"metric": "manhattan"}, "bad-search"),
        ({"space": "nowhere"}, "unknown-space"),
        ({"where": {"colour": "red"}}, "unknown-column"),
        ({"where": {"speaker": 3}}, "bad-filter"),
        ({"where": {"seconds": "long"}}, "bad-filter"),
        ({"where": {"seconds": None, "created_at": "yesterday"}}, "bad-filter"),
        ({"where": {"created_at": "2026-11-20T12:00:00"}}, "bad-filter"),
        ({"where": "colour = 'red'"}, "bad-filter"),
        ({"where": "speaker ="}, "bad-filter"),
    ],
)
def test_searches_that_make_no_sense_are_configuration_errors(
    store: FeatureStore, arguments: dict[str, object], code: str
) -> None:
    """What a person typed wrong is named, with what is right."""
    with pytest.raises(ConfigError) as caught:
        store.find_similar(**{"vector": [1, 0, 0, 0], "space": SPACE, **arguments})  # type: ignore[arg-type]
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)


def test_no_filter_is_no_predicate() -> None:
    """Nothing, no columns and an empty text let everything through."""
    assert predicate(None) is predicate({}) is predicate("") is None


def test_spaces_are_apart_and_the_one_written_last_comes_last(tmp_path: Path) -> None:
    """Each revision has a table of its own; an emptied one is not listed."""
    times = iter([NOON + timedelta(hours=h) for h in (0, 1, 2, 3)])
    store = FeatureStore(tmp_path, clock=lambda: next(times))
    assert store.spaces() == ()
    with pytest.raises(ConfigError, match="stored are none"):
        store.count(space=SPACE)
    assert not store.path.exists()
    first, second, third = Space("m", "r1", 2), Space("m", "r2", 2), Space("m", "r1", 3)
    for space in (second, first, third, second):
        store.store([{"id": "c", "vector": np.ones(space.dim)}], space=space)
    assert store.spaces() == (first, third, second)
    store.delete(["c"], space=first)
    assert store.spaces() == (third, second)


def test_space_names_are_safe_and_distinct() -> None:
    """Odd characters cannot leave the folder, and names that look alike stay apart."""
    names = {space_name(*facts) for facts in (("a/b", "r", 4), ("a-b", "r", 4), ("a-b", "s", 4), ("a-b", "r", 5))}
    assert len(names) == 4
    assert all(name.startswith("a-b-") for name in names)


def test_the_index_is_built_from_a_size_on_and_its_recall_measured(tmp_path: Path) -> None:
    """Flat below the threshold; above it a graph that still finds nearly all neighbours, new rows included."""
    rng = np.random.default_rng(0)
    space = Space("m", "r", 16)
    store = FeatureStore(tmp_path)
    store.store([{"id": f"c{i}", "vector": v} for i, v in enumerate(rng.normal(size=(600, 16)))], space=space)
    below = ensure_index(store, space)
    assert (below.rows, below.indexed, below.recall, below.queries) == (600, False, 1.0, 0)
    built = ensure_index(store, space, index_from=600, queries=20)
    assert (built.indexed, built.queries) == (True, 20)
    assert 0.9 <= built.recall <= 1
    assert ensure_index(store, space, queries=20).indexed
    query = rng.normal(size=16)
    store.store([{"id": "new", "vector": query}], space=space)
    (best,) = store.find_similar(query, 1, space=space)
    assert (best.id, best.score) == ("new", pytest.approx(1, abs=1e-6))
    assert store.table(space).list_indices()[0].num_unindexed_rows == 1
    store.optimize(keep=timedelta(milliseconds=1))
    assert store.table(space).list_indices()[0].num_unindexed_rows == 0
    assert store.find_similar(query, 1, space=space)[0].id == "new"
    assert recall(store, space, k=5, queries=5) >= 0.8


def test_a_home_that_cannot_be_written_to_says_so(tmp_path: Path) -> None:
    """Under a file there is no store."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not write") as caught:
        FeatureStore(tmp_path / "file").store([row("a", [1, 1, 1, 1])], space=SPACE)
    assert caught.value.hint
