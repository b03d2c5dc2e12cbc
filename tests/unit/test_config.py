"""grym.toml becomes frozen settings, or an error that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from grym.config import describe, find_config, load_settings
from grym.errors import ConfigError


def _write(folder: Path, text: str) -> Path:
    file = folder / "grym.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home resolves against grym.toml, not against the working directory."""
    monkeypatch.delenv("GRYM_HOME", raising=False)
    settings = load_settings(_write(tmp_path, '[paths]\nhome = "deep/var"\n'))
    assert settings.home == tmp_path / "deep/var"


def test_the_environment_overrides_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GRYM_HOME wins over the file."""
    monkeypatch.setenv("GRYM_HOME", str(tmp_path / "elsewhere"))
    assert load_settings(_write(tmp_path, "")).home == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[compare]\nmargn = 1\n", "compare.margn"),
        ("[nonsense]\nx = 1\n", "nonsense"),
        ('[models.x]\nadapter = "fake"\ncolour = "red"\n', "models.x.colour"),
        ("[compare]\nconfidence = 2.0\n", "compare.confidence"),
        ('[datasets.d]\nloader = "tape"\npath = "x"\n', "datasets.d.loader"),
    ],
)
def test_an_unknown_or_wrong_key_is_an_error_that_names_it(tmp_path: Path, text: str, named: str) -> None:
    """A typo in grym.toml is said, not ignored."""
    with pytest.raises(ConfigError, match=named):
        load_settings(_write(tmp_path, text))


def test_a_file_that_is_not_toml_is_an_error(tmp_path: Path) -> None:
    """Broken TOML is one sentence."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(_write(tmp_path, "[compare\n"))


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    """A wrong model or dataset name is answered with the right ones."""
    settings = load_settings(_write(tmp_path, '[models.good]\nadapter = "fake"\n'))
    with pytest.raises(ConfigError, match="good") as caught:
        settings.model("god")
    assert caught.value.code == "unknown-model"
    with pytest.raises(ConfigError, match="none") as caught:
        settings.dataset("x")
    assert caught.value.code == "unknown-dataset"


def test_settings_are_frozen(tmp_path: Path) -> None:
    """Nobody changes settings behind another's back."""
    settings = load_settings(_write(tmp_path, ""))
    with pytest.raises(ValidationError):
        settings.compare.seed = 3  # type: ignore[misc]


def test_the_nearest_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """grym.toml is looked for upwards; GRYM_CONFIG names another; none at all is an error."""
    monkeypatch.delenv("GRYM_CONFIG", raising=False)
    file = _write(tmp_path, "")
    (tmp_path / "a/b").mkdir(parents=True)
    assert find_config(tmp_path / "a/b") == file
    monkeypatch.setenv("GRYM_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigError, match="GRYM_CONFIG"):
        find_config()
    monkeypatch.setenv("GRYM_CONFIG", str(file))
    assert find_config() == file
    monkeypatch.delenv("GRYM_CONFIG")
    file.unlink()
    with pytest.raises(ConfigError, match=r"No grym\.toml"):
        find_config(tmp_path)


def test_the_shipped_file_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grym.toml of the repository loads and names the default arms and dataset."""
    monkeypatch.delenv("GRYM_CONFIG", raising=False)
    settings = load_settings(Path(__file__).resolve().parents[2] / "grym.toml")
    assert settings.model(settings.compare.a).options["precision"] == "fp32"
    assert settings.model(settings.compare.b).options["precision"] == "int8"
    assert settings.dataset(settings.compare.dataset).path.is_file()
    assert '"wav2vec2-mini"' in describe(settings)
