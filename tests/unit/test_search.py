"""Search by clip: which space answers, and what is said when none can."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from grym.audio import decode
from grym.config import load_settings
from grym.errors import AudioError, ConfigError
from grym.memory import FeatureStore, Space
from grym.memory.search import search
from grym.models.registry import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from grym.config import Settings

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TONES = {"low": 200.0, "middle": 1500.0, "high": 5000.0}
DIM = 8


@dataclass
class Project:
    """A folder with grym.toml, tones and a feature store whose clock goes on by an hour with each write."""

    folder: Path
    writes: int = 0
    ids: dict[str, str] = field(default_factory=dict)

    def settings(self, **options: object) -> Settings:
        """grym.toml with the fake model ``toy`` and these options."""
        fields = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
        text = '[compare]\na = "toy"\n[worker]\nthreads = 1\n[models.toy]\nadapter = "fake"\n[models.toy.options]\n'
        (self.folder / "grym.toml").write_text(text + fields)
        return load_settings(self.folder / "grym.toml")

    def tone(self, name: str, hertz: float) -> Path:
        """A second of a tone."""
        path = self.folder / f"{name}.wav"
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000), 16_000)
        return path

    def remember(self, settings: Settings) -> Space:
        """Store all tones as the model of these settings hears them, as a comparison does."""
        model = load_model(settings.model("toy"))
        space = Space("toy", model.card.revision, model.card.feature_dim)
        rows = []
        for name, hertz in TONES.items():
            clip, _ = decode(self.tone(name, hertz), settings.audio)
            self.ids[name] = clip.id
            rows.append({"id": clip.id, "vector": model.features([clip])[0], "key": name, "speaker": name[0]})
        self.writes += 1
        FeatureStore(settings.home, clock=lambda: NOON + timedelta(hours=self.writes)).store(rows, space=space)
        return space


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without stored features."""
    monkeypatch.delenv("GRYM_HOME", raising=False)
    return Project(tmp_path)


def test_a_file_is_compared_with_features_of_the_models_revision(project: Project) -> None:
    """Features that another revision left behind later are not what a file is compared with."""
    settings = project.settings(seed=1)
    space = project.remember(settings)
    newer = project.remember(project.settings(seed=2))
    assert newer != space
    # As far from the tones as vectors can be: a search in the wrong space cannot give these scores.
    rows = [{"id": clip, "vector": -np.arange(1, DIM + 1), "key": name} for name, clip in project.ids.items()]
    FeatureStore(settings.home, clock=lambda: NOON + timedelta(days=1)).store(rows, space=newer)
    best, *others = search(str(project.tone("again", 1510.0)), settings, k=2)
    assert best.metadata["key"] == "middle"
    assert best.metadata["revision"] == space.revision
    assert best.score > 0.95
    assert len(others) == 1


def test_filters_hold_for_a_file(project: Project) -> None:
    """Only what a filter lets through is found."""
    settings = project.settings()
    project.remember(settings)
    path = str(project.tone("again", 1510.0))
    assert [match.metadata["key"] for match in search(path, settings, where=["speaker=h"])] == ["high"]
    with pytest.raises(ConfigError, match="column=value"):
        search(path, settings, where=["speaker"])


def test_a_file_is_not_compared_with_another_revision(project: Project) -> None:
    """After the model was changed a file cannot be looked for until a comparison has stored its features."""
    stored = project.remember(project.settings(seed=1))
    changed = project.settings(seed=2)
    with pytest.raises(ConfigError, match=stored.revision) as caught:
        search(str(project.folder / "low.wav"), changed)
    assert (caught.value.code, caught.value.hint) == ("no-features", "Run a comparison with this model first.")


@pytest.mark.parametrize("by", ["name", "id", "beginning"])
def test_a_stored_clip_needs_no_model(project: Project, by: str) -> None:
    """By id or name the space written last answers, and no worker starts: this model could not even load."""
    project.remember(project.settings(seed=1))
    last = project.remember(project.settings(seed=2))
    settings = project.settings(script=json.dumps({"load": {"do": "raise"}}))
    clip = {"name": "low", "id": project.ids["low"], "beginning": project.ids["low"][:12]}[by]
    matches = search(clip, settings)
    assert {match.metadata["key"] for match in matches} == {"middle", "high"}
    assert {match.metadata["revision"] for match in matches} == {last.revision}


def test_without_features_there_is_nothing_to_search(project: Project) -> None:
    """An unknown model, a model without features, an unknown clip and a file without sound are told apart."""
    settings = project.settings()
    with pytest.raises(ConfigError, match="No features of toy") as caught:
        search("low", settings)
    assert caught.value.code == "no-features"
    with pytest.raises(ConfigError, match="Unknown model"):
        search("low", settings, model="nobody")
    project.remember(settings)
    for clip in ("nowhere.wav", "x" * 5000):
        with pytest.raises(ConfigError, match="No stored clip") as caught:
            search(clip, settings)
        assert caught.value.code == "unknown-clip"
    (project.folder / "text.wav").write_text("not audio")
    with pytest.raises(AudioError):
        search(str(project.folder / "text.wav"), settings)
