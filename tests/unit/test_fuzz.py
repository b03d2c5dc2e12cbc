"""Broken inputs at the three doors: a short run of what ``python -m benchmarks.fuzz`` does a million times."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from benchmarks.fuzz_inputs import DOORS, Door

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = {"protocol": 1500, "manifest": 800, "audio": 300}
QUIET = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("door", DOORS)
def test_a_broken_input_is_a_typed_error_or_an_answer(door: str, tmp_path: Path) -> None:
    """Nothing but typed errors and right answers comes out, and the inputs reach far enough to give many of them."""
    found = fuzz.enter(door, "test", 0, COUNTS[door], tmp_path)
    assert found.findings == []
    assert found.inputs == sum(found.codes.values()) == COUNTS[door]
    assert found.codes["ok"] > COUNTS[door] / 50
    assert len(found.codes) >= 6


@pytest.mark.parametrize("door", DOORS)
def test_the_same_number_is_the_same_input(door: str) -> None:
    """A finding can be looked at again; valid inputs get through as they are."""
    made = DOORS[door].make("1", 7)
    assert made == DOORS[door].make("1", 7)
    assert made != DOORS[door].make("1", 8)


def test_valid_inputs_get_through(tmp_path: Path) -> None:
    """The inputs that everything is made from are not refused for what they are."""
    codes = {door: [DOORS[door].enter(data, tmp_path) for data in DOORS[door].seeds()] for door in DOORS}
    assert set(codes["audio"]) == {"ok"}
    assert codes["manifest"][0] == "ok"
    assert codes["protocol"].count("ok") >= 8


@QUIET
@given(data=st.binary(max_size=400))
def test_a_manifest_of_random_bytes_is_refused_or_read(data: bytes, tmp_path: Path) -> None:
    """Whatever the bytes are, each way of reading them ends in words."""
    for letter in (b"C", b"J"):
        assert DOORS["manifest"].enter(letter + data, tmp_path)


@QUIET
@given(st.lists(st.dictionaries(st.sampled_from(["audio_filepath", "text", "id", "offset", "x"]), st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=2)
), max_size=5), max_size=4))  # fmt: skip
def test_a_manifest_of_any_json_objects_is_refused_or_read(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    """Wrong types, missing columns and paths that lead out cost their row."""
    assert DOORS["manifest"].enter(b"J" + "\n".join(map(json.dumps, rows)).encode(), tmp_path)


@QUIET
@given(prefix=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd"]), data=st.binary(max_size=300))
def test_a_file_of_random_bytes_is_no_audio_or_audio(prefix: bytes, data: bytes, tmp_path: Path) -> None:
    """Random bytes behind a right beginning are refused with a code."""
    assert DOORS["audio"].enter(prefix + data, tmp_path)


def test_what_is_no_typed_error_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search itself works: an exception is a finding with its number, and so is an answer that breaks a promise."""

    def enter(data: bytes, _folder: Path) -> str:
        if data == b"5":
            raise ZeroDivisionError
        return "ok"

    door = Door(lambda: [b""], lambda rng, _: str(rng.randrange(10)).encode(), enter)
    monkeypatch.setitem(fuzz.DOORS, "odd", door)
    found = fuzz.enter("odd", "1", 0, 60, tmp_path)
    assert found.inputs == 60
    assert found.findings
    assert all(what == "ZeroDivisionError: " for _, what in found.findings)
    assert all(door.make("1", number) == b"5" for number, _ in found.findings)


@pytest.mark.chaos
def test_children_enter_the_inputs_and_a_death_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """In child processes; one that is not done with an input in time is killed, named, and the next one goes on."""
    found = fuzz.run("audio", 3000, chunk=1500)
    assert (found.inputs, found.findings) == (3000, [])
    monkeypatch.setenv("GRYM_FUZZ_DEADLINE", "0.000001")
    found = fuzz.run("audio", 3)
    assert [what.split(":")[0] for _, what in found.findings] == ["hang"] * 3
    assert [number for number, _ in found.findings] == [0, 1, 2]


@pytest.mark.chaos
@pytest.mark.parametrize("door", DOORS)
def test_coverage_guided_inputs_break_nothing(door: str) -> None:
    """Atheris looks for inputs that reach new code for a minute, where it is installed; else many more seeded ones."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        assert fuzz.run(door, 20_000, seed="guided").findings == []
        return
    found = fuzz.guided(door, 60)
    assert found["findings"] == []
    assert found["inputs"] > 1000
