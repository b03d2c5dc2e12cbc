"""The model card of ``gama-mini``, written from measured numbers and recorded data only."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Final

from grym.corpus.sounds import LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grym.compare.evaluate import SliceRate
    from grym.models.gama.measure import Rate
    from grym.models.gama.recipe import GamaSpec
    from grym.models.recipe import TrainData

HEAD: Final = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: audio-text-to-text
---

# gama-mini

GAMA at small size ({parameters:.1f} million parameters): the CAV-MAE audio branch, Q-Former, aggregator and Llama of
`grym.models.gama`, trained from scratch on generated sounds and spoken digits. It exists so that grym-synth runs an
audio language model offline; it knows {labels} kinds of sounds and ten words, and nothing else.

* `describe`: one sentence that names each sound with its attributes, and for two sounds which comes first or lies
  behind.
* `classify`: likelihood of each label. In training a mixture is answered by either of its labels, so that the two most
  likely labels of a mixture are both of its sounds.
* `question`: short answers to questions about presence, order and attributes. Paraphrases are understood within limits;
  any text can be spelt (byte-level BPE).
* `transcribe`: English digits as words; "no speech" where nobody speaks.

A window holds {window:.2f} s; longer clips are cut at quiet places.

## Data

* Sounds: {sounds} clips of the `sounds` generator, half of them mixtures (seed {sound_seed}, split `train`).
{data}
* Strings of one to seven digits are composed of single digits and spoken strings, with the augmentation of
  `grym.corpus.augment`; one {speech} clips pool for each stage.

## Training

`python -m flows train --name gama-mini`, in {stages} stages: the encoder with auxiliary heads (CTC and alignment for
digits, labels, attributes and order as facts of a clip), the language side on what the frozen encoder gives, and both
together with people's speech. Muon for matrices, AdamW for the rest, one cycle; the loss of the language model counts
answers only. What is exported is a moving average of the weights in half precision; on a CPU it computes in float32.

```json
{recipe}
```
"""


MEASURED_SOUNDS: Final = """\
## Measured on sounds

Clips of the split `test`, seed {seed}, as many with one sound as with two. Percent right, with Wilson's 95 % interval;
beside it random answers, and the model hearing another clip.
"""
MEASURED_DIGITS: Final = """
## Measured on digits

WER in percent with a 95 % interval, clustered by speaker where there are at least two.
"""


def render_gama_card(
    stages: Sequence[GamaSpec],
    data: Sequence[TrainData],
    sounds: Sequence[Rate],
    digits: Mapping[str, Sequence[SliceRate]],
    controls: Mapping[str, tuple[float, float]],
    *,
    parameters: int,
    seed: int,
    notes: Sequence[str] = (),
) -> str:
    """The card as Markdown.

    Args:
        stages: the recipe, in order.
        data: what each stage heard, in the same order.
        sounds: rates on generated sounds.
        digits: title of each evaluation -> word error rates; the first is the one over all clips.
        controls: title of an evaluation -> WER of random digits, and of the answers to other clips, as fractions.
        parameters: of the model.
        seed: of the sounds that were measured on.
        notes: what else a user should know, one sentence each.
    """
    first = stages[0]
    parts = [
        HEAD.format(
            parameters=parameters / 1e6,
            labels=len(LABELS),
            window=first.target_frames / 100,
            sounds=f"{first.sounds:,}",
            sound_seed=first.sound_seed,
            speech=" / ".join(f"{spec.speech:,}" for spec in stages),
            data="\n".join(_heard(number, heard) for number, heard in enumerate(data, 1)),
            stages=("no", "one", "two", "three", "four", "five", "six", "seven")[len(stages)],
            recipe=json.dumps([dataclasses.asdict(spec) for spec in stages], indent=2),
        ),
        MEASURED_SOUNDS.format(seed=seed),
        "| what | slice | asked | right % | 95 % interval | random % | other clip % |\n|---|---|---|---|---|---|---|",
        *(_sound_row(rate) for rate in sounds),
        MEASURED_DIGITS,
    ]
    for title, rates in digits.items():
        parts.append(f"### {title}\n")
        if title in controls:
            random, other = controls[title]
            parts.append(f"Random digits: {100 * random:.1f} % WER. Answers to other clips: {100 * other:.1f} %.\n")
        parts.append("| slice | clips | no answer | words | WER % | 95 % interval |\n|---|---|---|---|---|---|")
        parts += [_digit_row(rate) for rate in rates]
        parts.append("")
    parts.append("## Limits\n")
    parts += [f"* {note}" for note in notes]
    return "\n".join(parts) + "\n"


def _heard(stage: int, heard: TrainData) -> str:
    people = (
        f"{heard.fsdd_takes} training takes (5-49) of the Free Spoken Digit Dataset by {heard.fsdd_speakers} people "
        "(CC BY-SA 4.0, not part of this repository)"
        if heard.fsdd_takes
        else "no recordings of people"
    )
    return (
        f"* Stage {stage}: {heard.voices} training voices of espeak-ng, {heard.recorded_voices} of other synthesizers "
        f"and languages; {people}."
    )


def _sound_row(rate: Rate) -> str:
    low, high = rate.interval
    return (
        f"| {rate.what} | {rate.slice} | {rate.total} | {100 * rate.rate:.1f} | {100 * low:.1f} to {100 * high:.1f} | "
        f"{100 * rate.random:.1f} | {100 * rate.shuffled:.1f} |"
    )


def _digit_row(rate: SliceRate) -> str:
    known = rate.ci_low is not None and rate.ci_high is not None
    interval = f"{100 * (rate.ci_low or 0):.2f} to {100 * (rate.ci_high or 0):.2f}" if known else ""
    wer = "" if rate.wer is None else f"{100 * rate.wer:.2f}"
    return f"| {rate.slice} | {rate.clips} | {rate.failures} | {rate.words} | {wer} | {interval} |"
