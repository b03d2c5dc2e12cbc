"""grym.toml becomes frozen settings, or an error that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from grym.config import ensure_home, find_config, load_settings
from grym.errors import ConfigError, StorageError


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
        ('[models.x]\nadapter = "fake"\ncolour = "red"\n', r"models\.x\.colour: there is no such key"),
        ("[compare]\nconfidence = 2.0\n", "compare.confidence"),
        ('[datasets.d]\nloader = "tape"\npath = "x"\n', "datasets.d.loader"),
        ('[datasets.d]\nloader = "folder"\npath = 3\n', r"datasets\.d\.path"),
        ('paths = "x"\n', r"valid: paths: should be a table"),
        ("models = 3\n", r"valid: models: should be a table"),
        ("datasets = []\n", r"valid: datasets: "),
        ("plugins = 3\n", r"valid: plugins: "),
        ("[models]\nx = 3\n", r"models\.x: "),
        ("[models.x]\noptions = 3\n", r"models\.x\.options"),
        ("[paths]\nhome = 3\n", r"paths\.home: should be a text"),
        ('[plugins]\npaths = "plug"\n', r"plugins\.paths: should be a list"),
        ("[plugins]\npaths = [3]\n", r"plugins\.paths\.0"),
        ('root = "x"\n', "known: root"),
        ("_env_file = 'x'\n", "known: _env_file"),
        ('[models.x]\nadapter = "fake"\nname = "y"\n', r"models\.x\.name"),
        ("[audio]\nrate = 0\n", r"audio\.rate"),
        ("[audio]\nmin_seconds = -1\n", r"audio\.min_seconds"),
        ("[audio]\nmax_seconds = nan\n", r"audio\.max_seconds"),
        ("[audio]\nmax_seconds = inf\n", r"audio\.max_seconds"),
        ("[audio]\nmin_seconds = 5000\n", r"audio\.max_seconds: 3600 should be greater than audio\.min_seconds"),
        ("[audio]\nmin_seconds = 2\nmax_seconds = 2\n", r"audio\.max_seconds"),
        ("[audio]\nmin_rate = 48000\nmax_rate = 8000\n", r"audio\.max_rate: 8000 should not be less"),
        ("[audio]\nmax_channels = 0\n", r"audio\.max_channels"),
        ("[audio]\nsilence_dbfs = 3.0\n", r"audio\.silence_dbfs"),
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


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, and a file that is not there, are one sentence each."""
    file = tmp_path / "grym.toml"
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(file)
    file.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8: byte 6") as caught:
        load_settings(file)
    assert (caught.value.code, caught.value.hint) == ("bad-config", "Save it as UTF-8.")


def test_limits_of_audio_may_meet_where_that_makes_sense(tmp_path: Path) -> None:
    """Files of one rate only can be asked for."""
    audio = load_settings(_write(tmp_path, "[audio]\nmin_rate = 16000\nmax_rate = 16000\nmax_seconds = 2\n")).audio
    assert (audio.min_rate, audio.max_rate, audio.max_seconds) == (16_000, 16_000, 2.0)


def test_paths_of_weights_datasets_and_plugins_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker runs elsewhere, so relative paths are resolved; what has a scheme is no path and stays."""
    monkeypatch.setenv("DATA", "deep/data")
    text = """
    [models.own]
    adapter = "wav2vec2"
    options = { path = "weights/mini" }
    [models.shipped]
    adapter = "wav2vec2"
    options = { path = "bundled:wav2vec2-mini" }
    [models.elsewhere]
    adapter = "wav2vec2"
    options = { path = "/srv/weights" }
    [datasets.d]
    loader = "folder"
    path = "$DATA"
    [plugins]
    paths = ["plug", "/opt/plug"]
    """
    settings = load_settings(_write(tmp_path, text))
    assert settings.model("own").options["path"] == str(tmp_path / "weights/mini")
    assert settings.model("shipped").options["path"] == "bundled:wav2vec2-mini"
    assert settings.model("elsewhere").options["path"] == "/srv/weights"
    assert settings.dataset("d").path == tmp_path / "deep/data"
    assert settings.plugins.paths == (tmp_path / "plug", Path("/opt/plug"))


def test_the_home_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing home is made with the folders above it; an existing one is left as it is."""
    monkeypatch.setenv("GRYM_HOME", str(tmp_path / "deep/var"))
    settings = load_settings(_write(tmp_path, ""))
    assert ensure_home(settings) == tmp_path / "deep/var"
    (tmp_path / "deep/var/kept").write_text("")
    ensure_home(settings)
    assert [path.name for path in (tmp_path / "deep/var").iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("home", "why"),
    [
        ("grym.toml", "it is a file"),
        ("grym.toml/var", "not a directory"),
        ("/proc/nope", "cannot be used"),
        ("/proc", "cannot be used"),
        ("a\\u0000b", "null"),
    ],
)
def test_a_home_that_cannot_be_made_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, why: str
) -> None:
    """A file, a folder below a file, a place where none can be made and a broken name are one sentence with a hint."""
    monkeypatch.delenv("GRYM_HOME", raising=False)
    settings = load_settings(_write(tmp_path, f'[paths]\nhome = "{home}"\n'))
    with pytest.raises(StorageError, match=why) as caught:
        ensure_home(settings)
    assert (caught.value.code, "GRYM_HOME" in caught.value.hint) == ("no-home", True)


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
    assert settings.model(settings.compare.b).options["path"] == "bundled:gama-mini"
    assert [settings.dataset(name).task for name in settings.compare.datasets] == ["transcribe", "classify"]
    assert all(settings.dataset(name).path.is_file() for name in settings.compare.datasets)
