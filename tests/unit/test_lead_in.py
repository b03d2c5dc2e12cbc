"""Background before a clip: as loud as its pauses, the same every time, and invisible in what is answered."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from grym.config import ModelSpec
from grym.errors import ConfigError
from grym.models import AudioClip, Options, load_model
from grym.models.lead_in import FILE, lead_in, read_lead_in
from grym.models.wav2vec2 import CHECKPOINTS

ROOT = Path(__file__).resolve().parents[2]
MINI = CHECKPOINTS / "wav2vec2-mini"


def test_the_background_is_as_loud_as_the_pauses() -> None:
    """Not as loud as the speech; nothing is added before nothing, and the clip itself is unchanged."""
    rng = np.random.default_rng(1)
    pause = rng.normal(0, 0.01, 8_000).astype(np.float32)
    clip = np.concatenate([rng.normal(0, 0.3, 8_000).astype(np.float32), pause])
    led = lead_in(clip, 1_600)
    assert led.dtype == np.float32
    assert np.array_equal(led[1_600:], clip)
    assert float(led[:1_600].std()) == pytest.approx(0.01, rel=0.15)
    assert np.array_equal(led, lead_in(clip, 1_600))
    assert lead_in(clip, 0) is clip
    assert not lead_in(np.zeros(50, np.float32), 1_600).any()
    assert lead_in(np.full(50, 0.1, np.float32), 160).size == 210


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"seconds": "0.1"}', '{"seconds": -0.1}', '{"seconds": 2}', '{"seconds": true}']
)
def test_the_file_is_read_strictly(tmp_path: Path, text: str) -> None:
    """Without a file there is no lead-in; one that names no sensible length is an error."""
    assert read_lead_in(tmp_path) == 0.0
    (tmp_path / FILE).write_text('{"seconds": 0.1}', encoding="utf-8")
    assert read_lead_in(tmp_path) == 0.1
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="names no length") as raised:
        read_lead_in(tmp_path)
    assert raised.value.code == "bad-lead-in"


def test_times_and_windows_are_those_of_the_clip(tmp_path: Path) -> None:
    """Words lie where they lie without a lead-in, in one window and in several; the revision tells them apart."""
    folder = shutil.copytree(MINI, tmp_path / "mini")
    (folder / FILE).write_text('{"seconds": 0.2}', encoding="utf-8")
    audio = sorted((ROOT / "datasets/digits/test").rglob("*.ogg")) + sorted(
        (ROOT / "datasets/digits/test").rglob("*.flac")
    )
    samples = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in audio[:4]])
    clip = AudioClip("a", samples, 16_000)
    answers = {}
    for name, options in (
        ("off", {"lead_in": "off"}),
        ("on", {}),
        ("windows", {"window_seconds": 3.0, "overlap_seconds": 1.0}),
    ):
        model = load_model(ModelSpec(name="m", adapter="wav2vec2", options={"path": str(folder), **options}))
        answers[name] = model.process([clip], Options(segments=True))[0]
    texts = {name: answer.text for name, answer in answers.items()}
    assert texts["on"] == texts["windows"] == texts["off"] != ""
    for name in ("on", "windows"):
        shifts = [
            abs(led.start - plain.start)
            for led, plain in zip(answers[name].segments, answers["off"].segments, strict=True)
        ]
        assert max(shifts) < 0.1
        assert max(segment.end for segment in answers[name].segments) <= clip.seconds
    assert len({answer.revision for answer in answers.values()}) == 3
