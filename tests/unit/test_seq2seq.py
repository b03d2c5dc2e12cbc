"""Speech-to-text models: times, windows sewn together, refusals; tiny random checkpoints."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from grym.config import ModelSpec
from grym.errors import ConfigError, GrymError, ResourceError
from grym.models.gama import memory
from grym.models.interface import AudioClip, Options
from grym.models.seq2seq.adapter import Seq2Seq, Seq2SeqOptions
from grym.models.seq2seq.stitch import Word, group_words, overlapping, stitch
from tests.audio_models import save_moonshine, save_whisper
from tests.gama_models import one_thread, tone

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["one_thread"]  # a fixture: pytest finds it by its name


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whisper with and without alignment heads, windows of two seconds, and a model without times."""
    root = tmp_path_factory.mktemp("seq2seq")
    return {
        "words": save_whisper(root / "words"),
        "segments": save_whisper(root / "segments", heads=False),
        "none": save_moonshine(root / "none"),
    }


def _model(folder: Path, **options: Any) -> Seq2Seq:
    chosen = {"path": str(folder), "device": "cpu", "overlap_seconds": 0.5, **options}
    return Seq2Seq(ModelSpec(name="tiny", adapter="seq2seq"), Seq2SeqOptions(**chosen))


def _clip(seconds: float, pitch: float = 440.0) -> AudioClip:
    return AudioClip(f"clip-{seconds}-{pitch}", tone(seconds, pitch), 16_000)


@pytest.mark.parametrize("kind", ["words", "segments", "none"])
def test_a_clip_gets_the_same_answer_alone_and_in_any_batch(folders: dict[str, Path], kind: str) -> None:
    """Long clips and short ones share passes; times lie in the clip and in order, where there are any."""
    model, options = _model(folders[kind]), Options(max_new_tokens=5, features=True)
    assert model.card.details["timestamps"] == kind
    assert model.card.details["licence_class"] == "permissive"
    clips = [_clip(0.5), _clip(5.2, 250.0), _clip(1.3, 900.0)]
    together = model.process(clips, options)
    backwards = model.process(clips[::-1], options)[::-1]
    matrix = model.features(clips)
    for place, (clip, one, other) in enumerate(zip(clips, together, backwards, strict=True)):
        alone = model.process([clip], options)[0]
        for answer in (one, other):
            assert answer.text == alone.text
            assert answer.confidence == pytest.approx(alone.confidence, abs=1e-4)
            assert [s.text for s in answer.segments] == [s.text for s in alone.segments]
            assert answer.features is not None
            np.testing.assert_allclose(answer.features, matrix[place], atol=1e-4)
        assert bool(alone.segments) == (kind != "none")
        assert all(0 <= s.start <= s.end <= clip.seconds for s in alone.segments)
        assert [s.start for s in alone.segments] == sorted(s.start for s in alone.segments)
        assert all(0 < s.confidence <= 1 for s in alone.segments)


def test_times_of_words_follow_the_attention(folders: dict[str, Path]) -> None:
    """Heads that look at known frames while each token is chosen give these frames as the tokens' beginnings."""
    from grym.models.seq2seq.network import _token_times

    loaded = _model(folders["words"])._load()
    prompt, looks = 4, [5, 20, 41, 70]  # the last one is what was looked at when the text ended
    weights = torch.full((1, 2, prompt + len(looks), 100), 1e-4)
    for row, frame in enumerate(looks):
        weights[0, :, prompt - 1 + row, frame - 2 : frame + 3] = 1.0
    times = _token_times(loaded, (weights, weights), prompt, 1.8)
    assert len(times) == len(looks)
    for before, time, look in zip(looks, times[1:], looks[1:], strict=False):
        assert before <= time / 0.02 <= look, "a token begins between the look before and its own"
    assert times[0] == 0.0
    assert (np.diff(times) > 0).all()
    assert times[-1] <= 1.8


def _said(words: list[str], seconds: float = 0.4) -> list[Word]:
    return [Word(f" {w}", i * seconds, (i + 1) * seconds, -0.1, 1) for i, w in enumerate(words)]


@pytest.mark.parametrize("seed", range(8))
def test_sewn_windows_hold_every_word_once(seed: int) -> None:
    """Times that wander, words cut off or misheard at the edges of windows, and many repeats: none twice, none lost."""
    rng = random.Random(seed)
    truth = _said([rng.choice(["one", "two", "three", "oh"]) for _ in range(200)])
    spans = overlapping(80 * 100, 100, 10.0, 3.0)
    borders = [(span.start / 100, span.stop / 100) for span in spans]
    windows = []
    for start, end in borders:
        heard = [
            Word(w.text, w.start + rng.uniform(-0.1, 0.1), w.end + rng.uniform(-0.1, 0.1), w.log_probability, 1)
            for w in truth
            if w.end > start and w.start < end
        ]
        if start > 0:  # the first word of a window may be the end of one
            heard[0] = Word(" huh", heard[0].start, heard[0].end, -3.0, 1)
        windows.append(heard)
    sewn = stitch(windows, borders)
    assert [w.plain for w in sewn] == [w.plain for w in truth]


def test_windows_without_common_words_meet_in_the_middle() -> None:
    """Nothing in common, one word at the seam that both heard, and an empty window."""
    left, right = [Word(" a", 0, 1, 0, 1), Word(" b", 7, 8, 0, 1)], [Word(" c", 6.5, 7, 0, 1), Word(" d", 9, 10, 0, 1)]
    assert [w.plain for w in stitch([left, right], [(0, 8), (6, 14)])] == ["a", "d"]
    assert stitch([left, []], [(0, 8), (6, 14)]) == left[:1]
    assert overlapping(500, 100, 10.0, 3.0) == overlapping(500, 100, 10.0, 1.0)
    assert [(s.start, s.stop) for s in overlapping(1750, 100, 10.0, 2.0)] == [(0, 1000), (750, 1750)]


def test_tokens_become_words() -> None:
    """Spaces begin words, punctuation stays with the word before, half characters wait, or every character is one."""
    pieces = [" he", "llo", ",", " wor", "\ufffd", "ld"]

    def decode(ids: Any) -> str:
        text = "".join(pieces[i] for i in ids)
        return text.replace("\ufffdld", "ld")

    assert group_words(decode, range(6), spaced=True) == [(" hello,", 0, 3), (" world", 3, 6)]
    assert len(group_words(decode, range(6), spaced=False)) == 5


def test_silence_is_not_transcribed(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that the network itself takes for silence, unsure of what it wrote, has no words."""
    from grym.models.seq2seq import network

    model = _model(folders["words"])
    assert model.process([_clip(0.7)], Options(max_new_tokens=4))[0].text
    monkeypatch.setattr(network, "NO_SPEECH", 0.0)
    monkeypatch.setattr(network, "UNSURE", 0.0)
    silent = model.process([_clip(0.7)], Options(max_new_tokens=4))[0]
    assert (silent.text, silent.failure, silent.segments) == ("", "empty", ())
    assert 0 < (silent.confidence or 0) < 1


def test_what_cannot_be_asked_is_a_typed_error(folders: dict[str, Path], tmp_path: Path) -> None:
    """Other tasks, prompts, unknown languages, times that are not there, another family, pickled weights."""
    model = _model(folders["words"])
    cases = [
        ({"task": "describe"}, "task-not-offered"),
        ({"prompt": "word " * 10_000}, "no-prompts"),
        ({"max_new_tokens": 0}, "bad-option"),
    ]
    for options, code in cases:
        with pytest.raises(ConfigError) as refused:
            model.process([_clip(0.5)], Options(**options))  # type: ignore[arg-type]
        assert refused.value.code == code
    loads: list[tuple[Path, dict[str, Any], str]] = [
        (folders["words"], {"language": "xx"}, "unknown-language"),
        (folders["segments"], {"timestamps": "words"}, "no-timestamps"),
        (folders["words"], {"overlap_seconds": 1.5}, "bad-option"),
    ]
    pickled = tmp_path / "pickled"
    shutil.copytree(folders["none"], pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    other = tmp_path / "other"
    shutil.copytree(folders["none"], other)
    (other / "config.json").write_text('{"model_type": "clap"}', encoding="utf-8")
    loads += [(pickled, {}, "no-weights"), (other, {}, "wrong-family")]
    for folder, options, code in loads:
        with pytest.raises(GrymError) as refused_too:
            _ = _model(folder, **options).card
        assert refused_too.value.code == code
    for wrong in ({"max_seconds": 0.0}, {"together": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            _model(folders["words"], **wrong)


def test_language_task_and_memory(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A given language and the other task change the prompt; too little memory is said before loading."""
    from grym.models.seq2seq.network import _prompts

    loaded = _model(folders["words"])._load()
    states = torch.zeros(2, 100, 16)
    row = _prompts(loaded, states, "de", translate=True, timed=True)[1].tolist()
    assert loaded.tokenizer.convert_ids_to_tokens(row) == ["<|startoftranscript|>", "<|de|>", "<|translate|>"]
    detected = _prompts(loaded, states, "", translate=False, timed=False)[0].tolist()
    assert loaded.tokenizer.convert_ids_to_tokens(detected)[1] in {"<|en|>", "<|de|>"}
    assert loaded.tokenizer.convert_ids_to_tokens(detected)[3] == "<|notimestamps|>"
    model = _model(folders["words"], max_seconds=2.0)
    answers = model.process(
        [_clip(3.0), AudioClip("x", tone(1.0)[:399], 16_000), _clip(0.5)], Options(max_new_tokens=1)
    )
    assert [a.error.code if a.error else "" for a in answers] == ["too-long", "too-short", ""]
    assert model.ping()["loaded"] == "true"
    model.close()
    assert model.ping()["loaded"] == "false"
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 1.0)
    with pytest.raises(ResourceError, match="needs"):
        _ = model.card
