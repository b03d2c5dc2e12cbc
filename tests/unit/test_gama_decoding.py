"""Greedy decoding with our own cache: the library's ``generate`` is the reference, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from grym.models.gama import decoding
from grym.models.gama.decoding import follows, greedy
from grym.models.gama.generation import generate, left_padded
from grym.models.generated import Recorder
from tests.gama_models import one_thread, random_model, tiny_config

if TYPE_CHECKING:
    from grym.models.gama.modeling import GamaModel

__all__ = ["one_thread"]  # a fixture: pytest finds it by its name
pytestmark = pytest.mark.usefixtures("one_thread")
NEW = 90  # more than a block of the cache
PROMPTS = [[1, 5, 6], [1, 7, 8, 9, 3, 4, 11], [1, 9]]
BARE = {
    "vocab_size": 300, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 400, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "adapters": {},
    "joined": {"lora_rank": 0},
    "shared heads": {"lora_rank": 0, "text_config": {**BARE, "num_key_value_heads": 2}},
    "biases": {"lora_rank": 0, "text_config": {**BARE, "attention_bias": True, "mlp_bias": True}},
    "scaled angles": {"lora_rank": 0, "text_config": {**BARE, "rope_parameters": LLAMA3}},
    "tied": {"lora_rank": 0, "text_config": {**BARE, "tie_word_embeddings": True}},
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["alone", "padded"])
def test_tokens_and_probabilities_are_those_of_the_library(name: str, prompts: list[list[int]]) -> None:
    """Whatever the shape of the network, padded or not, past the first block of the cache."""
    model = random_model(tiny_config(**NETWORKS[name]))
    assert follows(model.language_model)
    audio = model.listen(torch.randn(len(prompts), 64, 32, generator=torch.Generator().manual_seed(5))).tokens
    ids, scores = _ours(model, audio, prompts)
    expected, recorded = _library(model, audio, prompts)
    assert ids.tolist() == expected.tolist()
    torch.testing.assert_close(scores, recorded, atol=1e-4, rtol=1e-4)


def test_rows_that_have_ended_are_filled_up() -> None:
    """One row ends at once, the other goes on; the mean counts the end and not the filling."""
    model = random_model(tiny_config(lora_rank=0))
    audio = model.listen(torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(5))).tokens
    ids, _ = _ours(model, audio, PROMPTS[:2])
    first = [row[0] for row in ids.tolist()]
    assert first[0] != first[1]
    model.config.text_config.eos_token_id = first[0]
    ended, going = generate(model, audio, PROMPTS[:2], max_new_tokens=5)
    assert (ended.ids, ended.ended) == ((), True)
    assert len(going.ids) == 5
    assert not going.ended
    ids, _ = greedy(
        model.language_model, model.sequence(audio, *_padded(PROMPTS[:2])), max_new_tokens=5, ends=first[:1], pad=77
    )
    assert ids[0].tolist() == [first[0], 77, 77, 77, 77]


def test_the_loop_stops_when_every_row_has_ended() -> None:
    """Nothing is computed behind the last end."""
    model = random_model(tiny_config(lora_rank=0))
    begun = int(_ours(model, None, PROMPTS[:1])[0][0, 0])
    given = model.sequence(None, *_padded(PROMPTS[:1]))
    ids, scores = greedy(model.language_model, given, max_new_tokens=50, ends=(begun,), pad=0)
    assert ids.tolist() == [[begun]]
    assert scores.shape == (1, 1)
    later, _ = greedy(model.language_model, given, max_new_tokens=5, min_new_tokens=5, ends=(begun,), pad=0)
    assert later.shape == (1, 5)
    assert begun not in later[0].tolist()


def test_a_row_that_is_not_a_number_does_not_touch_the_others() -> None:
    """Its probability is NaN, which callers refuse; the other row's answer is that of the row alone."""
    model = random_model(tiny_config(lora_rank=0))
    audio = model.listen(torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(5))).tokens
    alone = generate(model, audio[1:], PROMPTS[1:2], max_new_tokens=6)[0]
    audio[0] = torch.nan
    broken, good = generate(model, audio, PROMPTS[:2], max_new_tokens=6)
    assert broken.log_probability != broken.log_probability  # NaN
    assert good.ids == alone.ids


def test_large_networks_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the modules themselves are used, and say the same."""
    model = random_model(tiny_config(lora_rank=0))
    joined = _ours(model, None, PROMPTS)
    monkeypatch.setattr(decoding, "JOINED_BYTES", 1)
    monkeypatch.setattr(decoding, "_joined", lambda *_: pytest.fail("matrices were copied"))
    apart = _ours(model, None, PROMPTS)
    assert joined[0].tolist() == apart[0].tolist()
    torch.testing.assert_close(*(scores for _, scores in (joined, apart)), atol=1e-4, rtol=1e-4)


def test_angles_that_move_with_the_length_are_left_to_the_library() -> None:
    """Dynamic scaling recomputes all angles as a text grows; a cache of turned keys would be wrong."""
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    model = random_model(tiny_config(lora_rank=0, text_config={**BARE, "rope_parameters": rope}))
    assert not follows(model.language_model)
    assert len(generate(model, None, PROMPTS[:1], max_new_tokens=3)) == 1


def _padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    return left_padded(prompts, 0, torch.device("cpu"))


def _ours(model: GamaModel, audio: torch.Tensor | None, prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Without an end, so that all rows go on."""
    given = model.sequence(audio, *_padded(prompts))
    return greedy(model.language_model, given, max_new_tokens=NEW, ends=(), pad=0)


def _library(model: GamaModel, audio: torch.Tensor, prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    settings = GenerationConfig(max_new_tokens=NEW, do_sample=False, bos_token_id=1, eos_token_id=-1, pad_token_id=0)
    recorder = Recorder()
    ids = model.generate(audio, *_padded(prompts), settings, LogitsProcessorList([recorder]))
    return ids, recorder.finish(ids)
