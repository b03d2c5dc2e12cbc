"""The GAMA network: front end, shapes, order of the tokens, padding, cache, saving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor

from grym.errors import AudioError
from grym.models.gama.configuration import GamaAudioConfig, GamaConfig
from grym.models.gama.frontend import log_mel, log_mels
from grym.models.gama.generation import PRESETS, generate, score_texts
from grym.models.gama.modeling import GamaModel
from tests.gama_models import one_thread, random_model, tiny_config, tone

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("one_thread")
CLOSE = 1e-5
PUBLISHED = GamaAudioConfig()


__all__ = ["one_thread"]  # a fixture: pytest finds it by its name


@pytest.fixture(scope="module")
def model() -> GamaModel:
    """A tiny model with random weights."""
    return random_model()


def _spectrograms(count: int) -> torch.Tensor:
    return torch.randn(count, 64, 32, generator=torch.Generator().manual_seed(5))


def test_the_default_configuration_is_the_published_one() -> None:
    """512 patches become 64 tokens; 32 queries make 96 audio tokens of 10.24 s."""
    config = GamaConfig()
    assert (config.audio_config.rows, config.audio_config.columns) == (8, 64)
    assert config.audio_tokens == 96
    assert config.window_seconds == pytest.approx(10.24)
    assert config.text_config.hidden_size == 4096
    assert config.qformer_config.layer_norm_eps == 1e-12
    assert config.aggregator == "released"


def test_the_published_sizes_give_the_published_number_of_parameters() -> None:
    """Counted without memory: each block is as large as the published one."""
    from grym.models.gama.checking import expected_shapes

    shapes = expected_shapes(GamaConfig())
    count: dict[str, int] = {}
    for name, shape in shapes.items():
        part = "lora" if "lora_" in name else name.split(".")[0]
        count[part] = count.get(part, 0) + int(np.prod(shape))
    unused_norms = 12 * 4 * 2 * 768 + 2 * 2 * 768  # stored in the published files, see grym.models.gama.keys
    assert count["audio_tower"] == 85_724_160 - unused_norms
    assert count["qformer"] == 99_239_424
    assert count["query_tokens"] == 24_576
    assert count["qformer_norm"] == 1_536
    assert count["aggregator"] == 14_175_744
    assert count["projector"] == 39_862_272
    assert count["lora"] == 4_194_304


@pytest.mark.parametrize("seconds", [3.0, 10.0, 12.0])
def test_the_front_end_agrees_with_another_implementation(seconds: float) -> None:
    """Filter banks, filling, cutting and normalisation are those of the library's extractor for AST."""
    rng = np.random.default_rng(2)
    samples = (tone(seconds) + 0.01 * rng.standard_normal(round(seconds * 16_000))).astype(np.float32)
    extractor = ASTFeatureExtractor(num_mel_bins=128, max_length=1024, sampling_rate=16_000, mean=-5.081, std=2.24245)
    other = extractor(samples, sampling_rate=16_000, return_tensors="np")["input_values"][0]
    np.testing.assert_allclose(log_mel(samples, PUBLISHED).numpy(), other, atol=2e-4)


def _filter_banks(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Log-mel values of a clip, from the description of the front end alone: float64, a frame and a bin at a time.

    Frames of 400 samples every 160; mean removed, pre-emphasis 0.97, Hann window, power of 512 points; 128 triangles
    of equal width on the mel scale 1127 ln(1 + f/700) between 20 Hz and half the rate; natural logarithm.
    """

    def mel(hertz: Any) -> Any:
        return 1127.0 * np.log(1.0 + np.asarray(hertz, np.float64) / 700.0)

    edges = np.linspace(mel(20.0), mel(8000.0), 130)
    points = mel(np.arange(256) * 16_000 / 512)  # the bin at half the rate has no weight
    rising = (points[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - points[None]) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    wave = samples.astype(np.float64) - samples.astype(np.float64).mean()
    rows = []
    for start in range(0, wave.size - 399, 160):
        frame = wave[start : start + 400] - wave[start : start + 400].mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, 512)) ** 2
        rows.append(np.log(np.maximum(triangles @ power[:256], np.finfo(np.float32).eps)))
    return np.asarray(rows)


@pytest.mark.parametrize("seconds", [3.0, 10.0])
def test_the_front_end_is_what_its_description_says(seconds: float) -> None:
    """Against filter banks written here from the description, without torchaudio or transformers, to 2e-4."""
    rng = np.random.default_rng(4)
    samples = (tone(seconds) + 0.02 * rng.standard_normal(round(seconds * 16_000))).astype(np.float32)
    frames = _filter_banks(samples)
    assert len(frames) == round(seconds * 100) - 2
    expected = (np.pad(frames, ((0, 1024 - len(frames)), (0, 0))) + 5.081) / 4.4849
    np.testing.assert_allclose(log_mel(samples, PUBLISHED).numpy(), expected, atol=2e-4)


def test_edges_of_the_front_end() -> None:
    """Filling is 1.13291, silence -2.42177, 12 s are cut to 10.24 s, the first of two channels counts."""
    short = log_mel(tone(0.025), PUBLISHED)
    assert short.shape == (1024, 128)
    torch.testing.assert_close(short[1:], torch.full((1023, 128), 1.13291), atol=1e-5, rtol=0)
    silence = log_mel(np.zeros(16_000, np.float32), PUBLISHED)
    torch.testing.assert_close(silence[:98], torch.full((98, 128), -2.42177), atol=1e-5, rtol=0)
    long = tone(12.0)
    torch.testing.assert_close(log_mel(long, PUBLISHED), log_mel(long[:164_080], PUBLISHED))
    stereo = np.stack([tone(1.0), tone(1.0, 700.0)])
    torch.testing.assert_close(log_mel(stereo, PUBLISHED), log_mel(stereo[0], PUBLISHED))
    with pytest.raises(AudioError, match="399 samples") as refused:
        log_mel(np.ones(399, np.float32), PUBLISHED)
    assert refused.value.code == "too-short"


def test_bos_follows_the_audio_tokens(model: GamaModel) -> None:
    """BOS stands at the number of audio tokens, positions have no gaps, logits are those of the text."""
    ids = torch.tensor([[1, 7, 8, 9, 3]])
    audio = model.listen(_spectrograms(1)).tokens
    assert audio.shape == (1, 8, 48)
    given = model.sequence(audio, ids)
    torch.testing.assert_close(given.embeddings[:, :8], audio)
    torch.testing.assert_close(given.embeddings[:, 8], model.get_input_embeddings()(ids[:, 0]))
    assert given.positions.tolist() == [list(range(13))]
    assert model(_spectrograms(1), ids).logits.shape == (1, 5, 300)
    assert model(None, ids).logits.shape == (1, 5, 300)


def test_pooled_tokens_are_means_over_frequency_divided_by_fifty(model: GamaModel) -> None:
    """Patches lie frequency first: token t is the mean of patches t, columns + t, …, over 50."""
    hidden, _ = model.audio_tower(_spectrograms(2))
    expected = torch.stack([hidden[:, t::4].mean(dim=1) for t in range(4)], dim=1) / 50
    torch.testing.assert_close(model.listen(_spectrograms(2)).pooled, expected)


def test_a_change_in_time_moves_the_tokens_of_its_time_first(model: GamaModel) -> None:
    """The patch embedding reads the spectrogram the right way round."""
    quiet = torch.zeros(1, 64, 32)
    loud = quiet.clone()
    loud[:, 48:] = 3.0  # the last quarter: column 3 of 4, in both rows
    tower = model.audio_tower
    patches = [tower.patch(x.transpose(1, 2).unsqueeze(1)).flatten(2) for x in (quiet, loud)]
    changed = (patches[0] - patches[1]).abs().sum(dim=1)[0] > CLOSE
    assert changed.tolist() == [False, False, False, True] * 2


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model: GamaModel, side: str) -> None:
    """A short prompt gets the same logits alone and beside a long one, padded on either side."""
    short, long = [1, 5, 6], [1, 7, 8, 9, 3, 4]
    pad = [0] * 3
    ids = torch.tensor([pad + short if side == "left" else short + pad, long])
    mask = torch.tensor([[0] * 3 + [1] * 3 if side == "left" else [1] * 3 + [0] * 3, [1] * 6])
    together = model(_spectrograms(2), ids, mask).logits
    alone = model(_spectrograms(2)[:1], torch.tensor([short])).logits
    place = slice(3, None) if side == "left" else slice(0, 3)
    torch.testing.assert_close(together[:1, place], alone, atol=CLOSE, rtol=CLOSE)


def test_batched_answers_with_cache_are_those_of_a_loop_without(model: GamaModel) -> None:
    """Prompts of unequal length, greedy: the cache and the padding change no token and no probability."""
    prompts = [[1, 5, 6], [1, 7, 8, 9, 3, 4, 11], [1, 9]]
    audio = model.listen(_spectrograms(3)).tokens
    together = generate(model, audio, prompts, max_new_tokens=12)
    for row, (prompt, one) in enumerate(zip(prompts, together, strict=True)):
        ids, scores = list(prompt), []
        while len(ids) < len(prompt) + 12:
            with torch.no_grad():
                seen = model(None, torch.tensor([ids]), audio=audio[row : row + 1]).logits[0, -1].log_softmax(-1)
            ids.append(int(seen.argmax()))
            scores.append(float(seen.max()))
            if ids[-1] == 2:
                break
        new = ids[len(prompt) :]
        assert one.ended == (new[-1] == 2)
        assert list(one.ids) == [i for i in new if i != 2]
        assert one.log_probability == pytest.approx(np.mean(scores), abs=1e-4)


def test_scores_of_texts_are_those_of_the_full_pass(model: GamaModel) -> None:
    """The cached prompt serves texts of unequal length, an empty one too."""
    prompt, texts = [1, 5, 6], [[20, 21, 22], [20], [], [33, 34]]
    audio = model.listen(_spectrograms(1)).tokens
    found = score_texts(model, audio, prompt, texts, together=3)
    for text, score in zip(texts, found, strict=True):
        ids = [*prompt, *text, 2]
        with torch.no_grad():
            seen = model(None, torch.tensor([ids]), audio=audio).logits[0].log_softmax(-1)
        expected = sum(float(seen[i - 1, ids[i]]) for i in range(len(prompt), len(ids)))
        assert score == pytest.approx(expected, abs=1e-4)


def test_presets_that_sample_repeat_with_their_seed(model: GamaModel) -> None:
    """Both published presets exist by name; a seed fixes them and leaves torch's own generator alone."""
    assert PRESETS["gama-benchmark"]["top_k"] == 500
    assert PRESETS["gama-benchmark"]["repetition_penalty"] == 1.1
    assert PRESETS["gama-demo"]["top_k"] == 50
    audio = model.listen(_spectrograms(1)).tokens
    state = torch.get_rng_state()
    for preset in ("gama-benchmark", "gama-demo"):
        first, again = (generate(model, audio, [[1, 5]], preset=preset, max_new_tokens=8, seed=4) for _ in range(2))
        assert first == again
        assert first[0].log_probability < 0
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("formula", ["released", "paper"])
def test_saving_and_loading_change_nothing(tmp_path: Path, formula: str) -> None:
    """A folder of safetensors holds everything, for both aggregators."""
    first = random_model(tiny_config(aggregator=formula))
    first.save_pretrained(tmp_path)
    assert list(tmp_path.glob("*.bin")) == []
    second, info = GamaModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids = torch.tensor([[1, 7, 8]])
    torch.testing.assert_close(second.eval()(_spectrograms(1), ids).logits, first(_spectrograms(1), ids).logits)


def test_the_released_aggregator_reads_the_last_layer_only() -> None:
    """The middle layers change nothing in the released formula and something in the paper's."""
    for formula, matters in (("released", False), ("paper", True)):
        model = random_model(tiny_config(aggregator=formula))
        pooled = torch.randn(1, 4, 32)
        taps = [torch.randn(1, 4, 32), torch.randn(1, 4, 32)]
        with torch.no_grad():
            moved = (model.aggregator(pooled, taps) - model.aggregator(pooled, [2 * t for t in taps])).abs().max()
        assert (float(moved) > CLOSE) is matters


def test_bf16_keeps_the_audio_parts_in_float32(tmp_path: Path, model: GamaModel) -> None:
    """The language model is rounded, the audio tokens are not, and the logits stay near."""
    model.save_pretrained(tmp_path)
    rounded = GamaModel.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert rounded.language_model.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.listen(_spectrograms(1)).tokens, model.listen(_spectrograms(1)).tokens)
    ids = torch.tensor([[1, 7, 8]])
    one, other = (m(_spectrograms(1), ids).logits.float() for m in (rounded, model))
    assert float((one - other).abs().max()) < 0.05 * float(other.abs().max())


def test_a_new_model_learns_a_prompt_by_heart() -> None:
    """Loss falls under training with gradient checkpointing, and every part gets a gradient."""
    torch.manual_seed(1)
    model = GamaModel(tiny_config(lora_rank=0))
    model.gradient_checkpointing_enable()
    model.train()
    ids = torch.tensor([[1, 7, 8, 9, 2], [1, 7, 8, 40, 2]])
    labels = ids.masked_fill(ids == 1, -100)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        loss = model(_spectrograms(2), ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_fresh_adapters_change_nothing_and_freeze_what_they_adapt() -> None:
    """LoRA starts as nothing; the language model's own weights are left alone, the audio parts learn."""
    model = GamaModel(tiny_config())
    adapters = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    assert len(adapters) == 4
    assert all(float(weight.detach().abs().max()) == 0.0 for weight in adapters)
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name for name in learning if name.startswith("language_model.")} == {
        name for name in dict(model.named_parameters()) if "lora_" in name
    }
    assert all(name in learning for name in dict(model.named_parameters()) if not name.startswith("language_model."))


def test_windows_are_independent_of_each_other(model: GamaModel) -> None:
    """A window gives the same audio tokens alone and in a batch."""
    waves = [tone(0.5), tone(0.3, 900.0), tone(0.64, 200.0)]
    together = model.listen(log_mels(waves, model.config.audio_config)).tokens
    for wave, row in zip(waves, together, strict=True):
        alone = model.listen(log_mels([wave], model.config.audio_config)).tokens[0]
        torch.testing.assert_close(alone, row, atol=CLOSE, rtol=CLOSE)
