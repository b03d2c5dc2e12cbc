"""A speech-to-text network in memory: windows to tokens with their probabilities and times.

Knows nothing about clips. Times are seconds from the window's beginning.

Decoding is the library's plain greedy loop with the model's own suppressed tokens.
Times of words come from the cross-attention of the heads that the checkpoint names, by
dynamic time warping as in the published implementation; checkpoints that name none but
have time tokens give times of segments; others give none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
import transformers
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from grym.errors import ConfigError, ModelError
from grym.models.checkpoint import Device, Precision, load_network, load_part, read_type
from grym.models.generated import Generated, Recorder, cut_at_end
from grym.models.seq2seq.stitch import Word, group_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from grym.models.interface import Samples

Times = Literal["words", "segments", "none"]
TYPES: Final = ("whisper", "moonshine", "speech_to_text")
TIME_TOKEN_SECONDS: Final = 0.02
UNSPACED: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
# A window is taken for silence if the network says so and is unsure of what it wrote. Source: Whisper's own script.
NO_SPEECH: Final = 0.6
UNSURE: Final = -1.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory.

    Attributes:
        network: in evaluation mode.
        extractor: samples to what the encoder reads.
        tokenizer: of the decoder.
        kind: its ``model_type``.
        rung: precision and device in force.
        files: files that answers depend on.
        facts: the checkpoint's own generation_config: languages, tasks, suppressed tokens, alignment heads.
        times: what times it can give.
        ends: token ids that end a text.
        positions: longest text with its beginning.
    """

    network: Any
    extractor: Any
    tokenizer: Any
    kind: str
    rung: str
    files: tuple[Path, ...]
    facts: Any
    times: Times
    ends: tuple[int, ...]
    positions: int

    @property
    def window_seconds(self) -> float:
        """Audio that the encoder takes at once."""
        return float(self.extractor.chunk_length) if self.kind == "whisper" else 30.0

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that it knows by name; empty if it knows one."""
        known = getattr(self.facts, "lang_to_id", None) or {}
        return tuple(sorted(token.strip("<|>") for token in known))


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard in a window.

    Attributes:
        words: with times; a model without times has one word over the whole window.
        log_probability: mean over the tokens and the end.
        tokens: number emitted.
        ended: whether the text ended by itself.
        features: mean of the encoder's states that hold sound, float32 ``shape = (dim,)``.
    """

    words: tuple[Word, ...]
    log_probability: float
    tokens: int
    ended: bool
    features: npt.NDArray[np.float32]


def load(name: str, folder: Path, precision: Precision, device: Device) -> Loaded:
    """Read a folder of the Whisper family or of another speech-to-text model.

    Raises:
        ConfigError: another family, no weights in safetensors form, or a rung that cannot be had here.
        ModelError: weights, tokenizer or feature extractor are broken, incomplete or of another model.
        ResourceError: not enough memory; said before anything is loaded.
    """
    kind = read_type(name, folder, TYPES, "a speech-to-text model")
    network, rung, files = load_network(
        name, folder, transformers.AutoModelForSpeechSeq2Seq, precision, device, kept=("encoder", "proj_out"),
        optional=("embed_positions.weights", "proj_out.weight"),
    )  # fmt: skip
    # Cross-attention weights are only to be had this way; on a CPU it is no slower.
    network.set_attn_implementation("eager")
    extractor = load_part(name, folder, transformers.AutoFeatureExtractor, "feature extractor")
    tokenizer = load_part(name, folder, transformers.AutoTokenizer, "tokenizer")
    if len(tokenizer) > network.get_input_embeddings().weight.shape[0]:
        msg = f"The tokenizer of {name} has more tokens than its model."
        raise ModelError(msg, code="wrong-tokenizer", hint="Put the tokenizer of the same model into the folder.")
    facts, config = network.generation_config, network.config
    end = facts.eos_token_id if facts.eos_token_id is not None else config.eos_token_id
    ends = tuple(end) if isinstance(end, list | tuple) else (int(end),)
    network.generation_config = GenerationConfig(eos_token_id=list(ends), pad_token_id=ends[0])
    positions = int(getattr(config, "max_target_positions", 0) or getattr(config, "max_position_embeddings", 448))
    return Loaded(network, extractor, tokenizer, kind, rung, files, facts, _times(kind, facts), ends, positions)


def choose_language(loaded: Loaded, asked: str, name: str) -> str:
    """The language to transcribe; empty lets the model find out, or is its only one.

    Raises:
        ConfigError: ``unknown-language``.
    """
    if asked and asked not in loaded.languages:
        known = ", ".join(loaded.languages[:12]) or "one language only"
        msg = f"{name} does not know the language {asked!r}; it knows {known}."
        raise ConfigError(msg, code="unknown-language", hint="Give a code of two letters, or leave it out.")
    return asked


@torch.inference_mode()
def transcribe(
    loaded: Loaded, windows: Sequence[Samples], max_new_tokens: int, *, language: str, translate: bool, times: Times
) -> list[Transcript]:
    """What is said in windows, greedily.

    Args:
        loaded: a model.
        windows: float32 ``shape = (samples,)`` each, no longer than the encoder takes.
        max_new_tokens: limit of each text.
        language: as :func:`choose_language` gave it.
        translate: into English, where the model has that task.
        times: what times are wanted; no more than ``loaded.times``.
    """
    if loaded.kind != "whisper":
        return [_plain(loaded, samples, max_new_tokens) for samples in windows]
    features = loaded.extractor(
        list(windows), sampling_rate=loaded.extractor.sampling_rate, return_tensors="pt"
    )["input_features"]  # fmt: skip
    states = loaded.network.get_encoder()(features.to(loaded.network.device, loaded.network.dtype)).last_hidden_state
    prompts = _prompts(loaded, states, language, translate=translate, timed=times == "segments")
    said = _generate(loaded, BaseModelOutput(states), prompts, max_new_tokens, timed=times == "segments")
    return [
        _finish(loaded, states[i : i + 1], prompts[i].tolist(), said[i], windows[i], times) for i in range(len(windows))
    ]


@torch.inference_mode()
def encode(loaded: Loaded, samples: Samples) -> npt.NDArray[np.float32]:
    """Mean of the encoder's states over one window's sound, float32 ``shape = (dim,)``."""
    given = loaded.extractor(samples, sampling_rate=loaded.extractor.sampling_rate, return_tensors="pt")
    states = loaded.network.get_encoder()(**_placed(loaded, given)).last_hidden_state
    return _mean(loaded, states[0], samples)


def _placed(loaded: Loaded, given: Any) -> dict[str, torch.Tensor]:
    network = loaded.network
    return {k: v.to(network.device, network.dtype if v.is_floating_point() else None) for k, v in given.items()}


def _plain(loaded: Loaded, samples: Samples, max_new_tokens: int) -> Transcript:
    """A model without languages, tasks and times: the window as it is, without padding."""
    given = loaded.extractor(samples, sampling_rate=loaded.extractor.sampling_rate, return_tensors="pt")
    encoded = loaded.network.get_encoder()(**_placed(loaded, given))
    states = encoded.last_hidden_state
    start = loaded.network.config.decoder_start_token_id
    prompt = torch.tensor([[loaded.network.config.bos_token_id if start is None else start]], device=states.device)
    (said,) = _generate(loaded, encoded, prompt, max_new_tokens, timed=False)
    return Transcript(
        words=_one_word(loaded, said, samples.size / loaded.extractor.sampling_rate),
        log_probability=said.log_probability,
        tokens=len(said.ids),
        ended=said.ended,
        features=_mean(loaded, states[0], samples),
    )


def _prompts(loaded: Loaded, states: torch.Tensor, language: str, *, translate: bool, timed: bool) -> torch.Tensor:
    """Beginning of each text: start, language, task, and that no times are wanted; int64 ``shape = (B, tokens)``."""
    facts, start = loaded.facts, int(loaded.network.config.decoder_start_token_id)
    rows = torch.full((len(states), 1), start, device=states.device)
    known = getattr(facts, "lang_to_id", None) or {}
    if known:
        ids = torch.tensor(sorted(known.values()), device=states.device)
        if language:
            chosen = torch.full((len(states),), known[f"<|{language}|>"], device=states.device)
        else:
            first = loaded.network(encoder_outputs=BaseModelOutput(states), decoder_input_ids=rows).logits[:, -1]
            chosen = ids[first[:, ids].argmax(dim=-1)]
        task = (getattr(facts, "task_to_id", None) or {}).get("translate" if translate else "transcribe")
        rows = torch.cat([rows, chosen[:, None]], dim=1)
        if task is not None:
            rows = torch.cat([rows, torch.full((len(states), 1), task, device=states.device)], dim=1)
    untimed = getattr(facts, "no_timestamps_token_id", None)
    if untimed is not None and not timed:
        rows = torch.cat([rows, torch.full((len(states), 1), untimed, device=states.device)], dim=1)
    return rows


def _generate(
    loaded: Loaded, encoded: Any, prompts: torch.Tensor, max_new_tokens: int, *, timed: bool
) -> list[Generated]:
    begin, device = prompts.shape[1], str(prompts.device)
    recorder, facts = Recorder(), loaded.facts
    processors = LogitsProcessorList([recorder])
    suppressed = list(getattr(facts, "suppress_tokens", None) or ())
    untimed = getattr(facts, "no_timestamps_token_id", None)
    if untimed is not None and not timed:  # times come last in the vocabulary, and none were asked for
        suppressed += range(untimed + 1, loaded.network.config.vocab_size)
    if suppressed:
        processors.append(SuppressTokensLogitsProcessor(suppressed, device=device))
    if getattr(facts, "begin_suppress_tokens", None):
        at_begin = SuppressTokensAtBeginLogitsProcessor(list(facts.begin_suppress_tokens), begin, device=device)
        processors.append(at_begin)
    if timed:
        processors.append(WhisperTimeStampLogitsProcessor(facts, begin_index=begin))
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(1, min(max_new_tokens, loaded.positions - begin)),
        eos_token_id=list(loaded.ends),
        pad_token_id=loaded.ends[0],
        decoder_start_token_id=int(prompts[0, 0]),
    )
    # Whisper's own method of that name detects, falls back and windows; all of that happens elsewhere here.
    new = transformers.GenerationMixin.generate(
        loaded.network,
        encoder_outputs=encoded,
        decoder_input_ids=prompts,
        generation_config=settings,
        logits_processor=processors,
    )[:, begin:]
    scores = recorder.finish(new)
    return [cut_at_end(row, score, loaded.ends) for row, score in zip(new.tolist(), scores.tolist(), strict=True)]


def _finish(
    loaded: Loaded, states: torch.Tensor, prompt: list[int], said: Generated, samples: Samples, times: Times
) -> Transcript:
    """Words with times, from one more pass of the decoder over the whole text."""
    ids = [*prompt, *said.ids, loaded.ends[0]]
    row = torch.tensor([ids], device=states.device)
    seen = loaded.network(
        encoder_outputs=BaseModelOutput(states), decoder_input_ids=row[:, : loaded.positions],
        output_attentions=times == "words",
    )  # fmt: skip
    seconds = samples.size / loaded.extractor.sampling_rate
    if _is_silence(loaded, seen.logits[0, 0], said):
        words: tuple[Word, ...] = ()
    elif times == "words" and said.ids:
        words = _timed_words(loaded, said, _token_times(loaded, seen.cross_attentions, len(prompt), seconds), prompt)
    elif times == "segments":
        words = _segments(loaded, said, seconds)
    else:
        words = _one_word(loaded, said, seconds)
    return Transcript(
        words=words,
        log_probability=said.log_probability,
        tokens=len(said.ids),
        ended=said.ended,
        features=_mean(loaded, states[0], samples),
    )


def _is_silence(loaded: Loaded, first: torch.Tensor, said: Generated) -> bool:
    """Whether the network held the window for silence, and was unsure of its text."""
    ids = [loaded.tokenizer.convert_tokens_to_ids(token) for token in ("<|nospeech|>", "<|nocaptions|>")]
    known = [i for i in ids if i is not None and i != loaded.tokenizer.unk_token_id]
    if not known:
        return False
    return float(first.float().softmax(-1)[known[0]]) > NO_SPEECH and said.log_probability < UNSURE


def _token_times(loaded: Loaded, attentions: Any, begin: int, seconds: float) -> npt.NDArray[np.float64]:
    """Time at which each token begins, and at which the last one ends, float64 ``shape = (tokens + 1,)``.

    Source: ``find_alignment`` of Whisper's published implementation.
    """
    config = loaded.network.config
    per_state = loaded.window_seconds / config.max_source_positions
    frames = max(1, min(config.max_source_positions, math.ceil(seconds / per_state)))
    heads = torch.stack(
        [attentions[layer][0, head, :, :frames] for layer, head in loaded.facts.alignment_heads]
    ).float()
    heads = heads / heads.sum(-1, keepdim=True).clamp_min(1e-9)
    std, mean = torch.std_mean(heads, dim=-2, keepdim=True, unbiased=False)
    width = min(config.median_filter_width, frames - (1 - frames % 2))
    smooth = _median_filter((heads - mean) / std.clamp_min(1e-9), max(1, width)).mean(dim=0)
    # Each row is what stood before a token was chosen: the first row is that of the prompt's last token.
    matrix = smooth[begin - 1 : -1]
    tokens, places = _dynamic_time_warping(-matrix.double().cpu().numpy())
    jumps = np.diff(tokens, prepend=-1).astype(bool)
    starts: npt.NDArray[np.float64] = places[jumps].astype(np.float64) * per_state
    return np.minimum(starts, seconds)


def _timed_words(
    loaded: Loaded, said: Generated, times: npt.NDArray[np.float64], prompt: Sequence[int]
) -> tuple[Word, ...]:
    known = {i: token.strip("<|>") for token, i in (getattr(loaded.facts, "lang_to_id", None) or {}).items()}
    spaced = not any(known.get(token) in UNSPACED for token in prompt)
    grouped = group_words(_decoder(loaded), said.ids, spaced=spaced)
    return tuple(
        Word(text, float(times[first]), float(times[min(last, len(times) - 1)]), _sum(said, first, last), last - first)
        for text, first, last in grouped
        if text.strip()
    )


def _segments(loaded: Loaded, said: Generated, seconds: float) -> tuple[Word, ...]:
    """Pieces of text between the time tokens that a model writes."""
    zero = loaded.facts.no_timestamps_token_id + 1
    words, first, start = [], 0, 0.0
    for place, token in enumerate([*said.ids, zero]):
        if token < zero:
            continue
        last = place == len(said.ids)
        time = seconds if last else min(seconds, (token - zero) * TIME_TOKEN_SECONDS)
        text = _decoder(loaded)(said.ids[first:place])
        if text.strip():
            words.append(Word(text, start, time, _sum(said, first, place), place - first))
        first, start = place + 1, time
    return tuple(words)


def _one_word(loaded: Loaded, said: Generated, seconds: float) -> tuple[Word, ...]:
    text = _decoder(loaded)(said.ids)
    return (Word(text, 0.0, seconds, _sum(said, 0, len(said.ids)), len(said.ids)),) if text.strip() else ()


def _decoder(loaded: Loaded) -> Any:
    return lambda ids: str(loaded.tokenizer.decode(list(ids), skip_special_tokens=True))


def _sum(said: Generated, first: int, last: int) -> float:
    return float(sum(said.token_log_probabilities[first:last]))


def _mean(loaded: Loaded, states: torch.Tensor, samples: Samples) -> npt.NDArray[np.float32]:
    kept = len(states)
    if loaded.kind == "whisper":  # the rest is filling
        kept = math.ceil(samples.size / loaded.extractor.n_samples * len(states))
    mean: npt.NDArray[np.float32] = states[: max(1, kept)].float().mean(dim=0).cpu().numpy()
    return mean


def _times(kind: str, facts: Any) -> Times:
    if kind != "whisper":
        return "none"
    if getattr(facts, "alignment_heads", None):
        return "words"
    return "segments" if getattr(facts, "no_timestamps_token_id", None) is not None else "none"
