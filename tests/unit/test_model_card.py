"""What a model card claims: recorded data and measured rates, nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grym.compare.evaluate import SliceRate, evaluate, overall
from grym.config import ModelSpec, Settings, load_settings
from grym.corpus.loaders import load_dataset
from grym.errors import ConfigError, QualityError
from grym.models.model_card import render_card
from grym.models.recipe import TrainData, TrainSpec, mini_stages, recorded_data
from grym.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
RATES = {
    "Test, fp32": [SliceRate("all", 8, 20, 0.05, 0.01, 0.09, 2), SliceRate("speaker=ann", 0, 0, None, None, None, 2)]
}
STAGES = mini_stages()
SYNTHETIC = TrainData(voices=464)
REAL = TrainData(voices=464, fsdd_takes=2250, fsdd_speakers=5, fsdd_sha256="ab")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of the checkout."""
    monkeypatch.setenv("GRYM_CONFIG", str(ROOT / "grym.toml"))
    return load_settings()


def _fsdd(folder: Path, *names: str) -> Path:
    (folder / "recordings").mkdir(parents=True)
    for name in names:
        (folder / "recordings" / name).write_bytes(name.encode())
    return folder


def test_real_speech_is_claimed_exactly_where_it_was_recorded() -> None:
    """With takes the card counts them; without, it says that there were none; where stages differ, it says which."""
    real = render_card(STAGES, RATES, data=[REAL] * len(STAGES))
    assert "* Real speech: 2250 training takes (5-49) of the Free Spoken Digit Dataset, 5 speakers" in real
    none = render_card(STAGES, RATES, data=[SYNTHETIC] * len(STAGES))
    assert "Real speech" not in none
    assert "* No recordings of the Free Spoken Digit Dataset." in none
    mixed = render_card(STAGES[:2], RATES, data=[REAL, SYNTHETIC])
    assert "* Stage 1: Real speech: 2250" in mixed
    assert "* Stage 2: No recordings" in mixed


def test_voices_of_other_synthesizers_are_counted_where_they_were_heard() -> None:
    """Their number comes from the record; a training without them has no line about them."""
    more = TrainData(voices=464, recorded_voices=211, recorded_sha256="ab")
    assert "foreign accents: 211 voices" in render_card(STAGES, RATES, data=[more] * len(STAGES))
    assert "foreign accents" not in render_card(STAGES, RATES, data=[SYNTHETIC] * len(STAGES))


def test_a_manifest_is_named_with_its_hash() -> None:
    """Further clips are named; a card without them has no line about them."""
    more = TrainData(manifest="own.csv", manifest_sha256="c0ffee")
    card = render_card(STAGES[:2], RATES, data=[more, more])
    assert "* Further clips: the manifest `own.csv` (SHA-256 c0ffee)." in card
    assert "* No synthetic voices." in card
    assert "Further clips" not in render_card(STAGES[:2], RATES, data=[REAL, REAL])
    assert "* Stage 1: No further clips." in render_card(STAGES[:2], RATES, data=[SYNTHETIC, more])


def test_rates_are_shown_with_the_clips_that_got_no_answer() -> None:
    """A missing rate is an empty cell, not 0.00; notes become the limits."""
    card = render_card(STAGES[:1], RATES, data=[SYNTHETIC], notes=["Ten words only."])
    assert "| all | 8 | 2 | 20 | 5.00 | 1.00 to 9.00 |" in card
    assert "| speaker=ann | 0 | 2 | 0 |  |  |" in card
    assert "* Ten words only." in card


def test_the_record_of_the_data_knows_what_was_heard(tmp_path: Path) -> None:
    """Only training takes of speakers that are not left out count, and a file of another size is other data."""
    fsdd = _fsdd(tmp_path / "fsdd", "3_ann_5.wav", "3_bob_7.wav", "4_ann_2.wav")
    found = TrainData.of(TrainSpec(voices=2), fsdd, None)
    assert (found.voices, found.fsdd_takes, found.fsdd_speakers) == (2, 2, 2)
    assert TrainData.of(TrainSpec(leave_out=("bob",)), fsdd, None).fsdd_takes == 1
    (fsdd / "recordings" / "4_ann_2.wav").write_bytes(b"another test take")
    assert TrainData.of(TrainSpec(voices=2), fsdd, None) == found
    (fsdd / "recordings" / "3_ann_5.wav").write_bytes(b"another training take")
    changed = TrainData.of(TrainSpec(voices=2), fsdd, None)
    assert found.difference(changed).startswith("fsdd_sha256 ")
    assert found.difference(TrainData(voices=2)).startswith("fsdd_takes 2 before, none now")
    assert found.difference(found) == ""


def test_data_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """A folder without takes and a missing manifest are said before anything is trained."""
    with pytest.raises(ConfigError, match="no training take"):
        TrainData.of(TrainSpec(), tmp_path, None)
    with pytest.raises(ConfigError, match="not a manifest"):
        TrainData.of(TrainSpec(), None, tmp_path / "missing.csv")


def test_an_older_training_json_says_nothing_about_its_data(tmp_path: Path) -> None:
    """Without the field there is no claim; with it, the record comes back."""
    (tmp_path / "training.json").write_text('{"key": "abc"}', encoding="utf-8")
    assert recorded_data(tmp_path) is None
    (tmp_path / "training.json").write_text('{"data": {"voices": 3}}', encoding="utf-8")
    assert recorded_data(tmp_path) == TrainData(voices=3)


def _evaluate(settings: Settings, scratch: Path, script: dict[str, object]) -> list[SliceRate]:
    spec = ModelSpec(name="fake", adapter="fake", options={"script": json.dumps(script)})
    with Worker(spec, settings.worker, scratch) as worker:
        return evaluate(worker, load_dataset("digits", settings), settings)


def test_clips_without_an_answer_are_counted_in_every_slice(settings: Settings, tmp_path: Path) -> None:
    """The first clip of each batch fails: the rest is scored, and the counts of a slice's values add up."""
    rates = _evaluate(settings, tmp_path, {"*": "one", "#0": {"do": "fail"}})
    whole = rates[0]
    assert whole.slice == "all"
    assert whole.failures > 0
    speakers = [rate for rate in rates if rate.slice.startswith("speaker=")]
    assert sum(rate.failures for rate in speakers) == whole.failures
    assert sum(rate.clips for rate in speakers) == whole.clips
    assert overall(rates) == whole.wer


def test_nothing_scored_is_an_error_and_no_rate(settings: Settings, tmp_path: Path) -> None:
    """A model that answers no clip has no word error rate, least of all 0."""
    with pytest.raises(QualityError, match="Nothing was scored: 0 clips") as raised:
        _evaluate(settings, tmp_path, {"*": {"do": "fail"}})
    assert raised.value.code == "nothing-scored"
    with pytest.raises(QualityError, match="Nothing was scored"):
        overall([])
