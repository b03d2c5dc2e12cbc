"""Answers and likelihoods from a GAMA model: decoding presets, token probabilities, scores of given texts.

Knows nothing about files or windows. Texts go in and come out as token ids; probabilities are natural logarithms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import GenerationConfig, LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from grym.models.gama.decoding import follows, greedy
from grym.models.generated import Generated, Recorder, cut_at_end

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.models.gama.modeling import GamaModel

# The last two are those of the published scripts: gama_inf.py, and the demos with the single-audio script. Repetition
# penalty covers new tokens only; the published script also penalised those of the prompt.
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "greedy": {"do_sample": False},
    "gama-benchmark": {
        "do_sample": True, "temperature": 0.1, "top_p": 0.95, "top_k": 500, "repetition_penalty": 1.1,
    },
    "gama-demo": {"do_sample": True, "temperature": 0.1, "top_p": 0.95, "top_k": 50},
}  # fmt: skip
PRESET_TOKENS: Final = 400  # max_new_tokens of both published presets


def generate(
    model: GamaModel,
    audio: torch.Tensor | None,
    prompts: Sequence[Sequence[int]],
    *,
    preset: str = "greedy",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> list[Generated]:
    """Answer every prompt, each behind its own audio.

    Args:
        model: on any device.
        audio: tokens of :meth:`GamaModel.listen`, ``shape = (B, A, H)``, or ``None`` for text alone.
        prompts: ``B`` lists of ids with BOS, of any lengths.
        preset: a name in :data:`PRESETS`.
        max_new_tokens: limit of an answer.
        seed: of the presets that sample; the state of torch's generators is left as it was.
    """
    text, chosen = model.config.text_config, PRESETS[preset]
    ids, mask = left_padded(prompts, _padding(text), model.device)
    if preset == "greedy" and follows(model.language_model):
        given = model.sequence(audio, ids, mask)
        limits: dict[str, Any] = {"max_new_tokens": max_new_tokens, "ends": ends(text), "pad": _padding(text)}
        return _cut(*greedy(model.language_model, given, **limits), ends(text))
    settings = GenerationConfig(
        **{name: value for name, value in chosen.items() if name != "repetition_penalty"},
        max_new_tokens=max_new_tokens,
        bos_token_id=text.bos_token_id,
        eos_token_id=list(ends(text)),
        pad_token_id=_padding(text),
    )
    recorder = Recorder()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        new = model.generate(audio, ids, mask, settings, _processors(recorder, chosen))
    return _cut(new, recorder.finish(new), ends(text))


@torch.inference_mode()
def score_texts(
    model: GamaModel, audio: torch.Tensor | None, prompt: Sequence[int], texts: Sequence[Sequence[int]], together: int
) -> list[float]:
    """Log-probability that each text, and then its end, is the answer to a prompt.

    The prompt is read once; its key-value cache serves all texts.

    Args:
        model: on any device.
        audio: tokens of one window, ``shape = (1, A, H)``, or ``None``.
        prompt: ids with BOS.
        texts: ids of the answers, the end of the text not included.
        together: texts in one pass.
    """
    found: list[float] = []
    for first in range(0, len(texts), together):
        found += _score_some(model, audio, prompt, texts[first : first + together])
    return found


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as one matrix and its mask, int64 ``shape = (rows, longest)`` each."""
    longest = max(map(len, rows))
    ids = [[pad] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _cut(ids: torch.Tensor, scores: torch.Tensor, stops: tuple[int, ...]) -> list[Generated]:
    return [cut_at_end(row, score, stops) for row, score in zip(ids.tolist(), scores.tolist(), strict=True)]


def _score_some(
    model: GamaModel, audio: torch.Tensor | None, prompt: Sequence[int], texts: Sequence[Sequence[int]]
) -> list[float]:
    llama, end = model.language_model, ends(model.config.text_config)[0]
    ids, mask = left_padded([prompt], 0, model.device)
    given = model.sequence(audio, ids, mask)
    begun = llama.model(inputs_embeds=given.embeddings, attention_mask=given.mask, use_cache=True)
    first = llama.lm_head(begun.last_hidden_state[:, -1]).float().log_softmax(-1)[0]
    answers = [[*text, end] for text in texts]
    longest = max(map(len, answers))
    if longest == 1:
        return [float(first[answer[0]]) for answer in answers]
    cache = begun.past_key_values
    cache.batch_repeat_interleave(len(answers))
    rows = torch.tensor([answer + [end] * (longest - len(answer)) for answer in answers], device=model.device)
    width = given.mask.shape[1]
    hidden = llama.model(
        input_ids=rows[:, :-1],
        # What stands behind an answer's end is padding on the right: nothing that counts can see it.
        attention_mask=given.mask.new_ones(len(answers), width + longest - 1),
        position_ids=(width + torch.arange(longest - 1, device=model.device)).expand(len(answers), -1),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    rest = llama.lm_head(hidden).float().log_softmax(-1).gather(2, rows[:, 1:, None])[..., 0]
    return [
        float(first[answer[0]]) + float(rest[index, : len(answer) - 1].double().sum())
        for index, answer in enumerate(answers)
    ]


def _processors(recorder: Recorder, preset: Mapping[str, Any]) -> LogitsProcessorList:
    """The recorder, then the penalty: the library would run its own in front of what it is given."""
    penalty = preset.get("repetition_penalty", 1.0)
    penalties = [RepetitionPenaltyLogitsProcessor(penalty)] if penalty != 1.0 else []
    return LogitsProcessorList([recorder, *penalties])


def ends(text: Any) -> tuple[int, ...]:
    """Tokens that end a text; the first is what training and likelihoods put there.

    Args:
        text: configuration of the language model, whose ``eos_token_id`` is a number or several.
    """
    named = text.eos_token_id
    return tuple(named) if isinstance(named, list | tuple) else (int(named),)


def _padding(text: Any) -> int:
    return int(text.pad_token_id if text.pad_token_id is not None else ends(text)[0])
