"""Audio and text in one space, with tiny random checkpoints of both published kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from grym.config import ModelSpec
from grym.errors import AudioError, ConfigError
from grym.models.clap import Clap, ClapOptions
from grym.models.interface import AudioClip, Options
from tests.audio_models import edit_json, save_clap
from tests.gama_models import one_thread, tone

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["one_thread"]  # a fixture: pytest finds it by its name
LABELS = ("bell", "rain", "a dog")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Without and with fusion; windows of one second at 16 kHz."""
    root = tmp_path_factory.mktemp("clap")
    return {fusion: save_clap(root / str(fusion), fusion=fusion) for fusion in (False, True)}


def _model(folder: Path, **options: Any) -> Clap:
    return Clap(ModelSpec(name="tiny", adapter="clap"), ClapOptions(path=str(folder), device="cpu", **options))


def _clip(seconds: float, pitch: float = 440.0, rate: int = 16_000) -> AudioClip:
    time = np.arange(round(seconds * rate)) / rate
    return AudioClip(f"{seconds}-{pitch}", (0.3 * np.sin(2 * np.pi * pitch * time)).astype(np.float32), rate)


@pytest.mark.parametrize("fusion", [False, True])
def test_a_clip_gets_the_same_answer_alone_and_in_any_batch(folders: dict[bool, Path], fusion: bool) -> None:  # noqa: FBT001
    """Neither random crops nor clips marked at random; shares are those of the similarities."""
    model = _model(folders[fusion])
    clips, options = [_clip(0.4), _clip(1.7, 250.0)], Options(labels=LABELS, features=True)
    together, matrix = model.process(clips, options), model.features(clips)
    alone = model.process(clips[1:], options)[0]
    assert together[1].scores == alone.scores
    texts = model.embed_texts([f"This is a sound of {label}." for label in LABELS])
    for row, answer in zip(matrix, together, strict=True):
        assert answer.features is not None
        np.testing.assert_allclose(answer.features, row, atol=1e-6)
        assert np.linalg.norm(row) == pytest.approx(1.0, abs=1e-5)
        logits = np.e * (texts @ row)
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose([answer.scores[label] for label in LABELS], expected, atol=1e-5)
        assert answer.text == LABELS[int(expected.argmax())]
    assert (model.card.licence, model.card.details["licence_class"]) == ("Apache-2.0", "permissive")
    assert (model.card.feature_dim, model.card.tasks) == (8, ("classify", "features", "analyze"))


def test_any_rate_is_heard(folders: dict[bool, Path]) -> None:
    """The same tone at 48 kHz is resampled here, and lies where it lay."""
    model = _model(folders[False])
    one, other = model.features([_clip(1.0, 500.0), _clip(1.0, 500.0, 48_000)])
    assert float(one @ other) > 0.999
    assert model.embed_texts([]).shape == model.features([]).shape == (0, 8)


def test_what_cannot_be_used_is_a_typed_error(folders: dict[bool, Path], tmp_path: Path) -> None:
    """Labels, tasks, texts, templates, rungs and clips; another family."""
    model, clip = _model(folders[False], max_seconds=2.0), _clip(0.4)
    for options, code in (
        ({}, "no-labels"),
        ({"labels": ("a", "")}, "empty-label"),
        ({"labels": ("a", "a")}, "duplicate-labels"),
        ({"labels": ("word " * 10_000,)}, "prompt-too-long"),
        ({"task": "describe"}, "task-not-offered"),
    ):
        with pytest.raises(ConfigError) as refused:
            model.process([clip], Options(**options))  # type: ignore[arg-type]
        assert refused.value.code == code
    with pytest.raises(ConfigError, match="empty"):
        model.embed_texts([" "])
    for wrong in ({"template": "a sound"}, {"max_seconds": 0.0}, {"max_seconds": float("nan")}):
        with pytest.raises(ConfigError):
            _model(folders[False], **wrong)
    with pytest.raises(ConfigError, match="int8"):
        _ = _model(folders[False], precision="int8").card
    wave = tone(1.0)
    bad = {
        "too-short": AudioClip("a", wave[:399], 16_000),
        "not-mono": AudioClip("c", np.stack([wave, wave]), 16_000),
        "silent": AudioClip("d", np.zeros(16_000, np.float32), 16_000),
        "too-long": AudioClip("f", np.zeros(30 * 60 * 16_000, np.float32), 16_000),
    }
    answers = model.process([*bad.values(), clip], Options(labels=LABELS))
    assert [answer.error.code for answer in answers[:-1] if answer.error] == list(bad)
    assert answers[-1].error is None
    with pytest.raises(AudioError):
        model.features([bad["silent"]])
    assert len(model.analyze([clip], "basic")) == 1
    edit_json(folders[True] / "config.json", model_type="whisper")
    with pytest.raises(ConfigError, match='adapter = "seq2seq"'):
        _ = _model(folders[True]).card
    assert model.ping()["loaded"] == "true"
    model.close()
    assert model.ping()["loaded"] == "false"
