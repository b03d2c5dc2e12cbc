"""From a published stage file and a Llama folder to one folder that :class:`GamaModel` reads.

Strict: every name is live or known to be dead, every tensor of the model comes
from somewhere, every shape fits; otherwise an error names the keys. Tensors keep
their number format. Reads at most two gigabytes of the Llama weights at a time.

Runs in a process of its own::

    python -m grym.models.gama.convert STAGE_FILE LLAMA_FOLDER OUT_FOLDER
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grym.errors import ConfigError, GrymError, ModelError
from grym.models.gama import keys
from grym.models.gama.reading import digest, read_json, read_stage, shapes, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from grym.models.gama.configuration import GamaConfig

SHARD_BYTES: Final = 2_000_000_000
SHOWN: Final = 5
HEAD_SIZE: Final = 64
PUBLISHED_ALPHA: Final = 16.0
MEL_BINS: Final = 128
# The beginning of the checksum of the published stage-4 file.
STAGE_4_SHA256: Final = "d5a0fd007ede"
COMPANIONS: Final = (
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "LICENSE.txt", "USE_POLICY.md", "Notice",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did.

    Attributes:
        folder: where the model is now.
        stage: training stage, as given or as the checksum says; empty if unknown.
        sha256: checksum of the stage file.
        live: number of tensors taken from the stage file.
        dead: names in the stage file that nothing depends on.
        surplus: names in the Llama folder that the stage file replaces.
        parameters: number of parameters of the model.
    """

    folder: str
    stage: str
    sha256: str
    live: int
    dead: tuple[str, ...]
    surplus: tuple[str, ...]
    parameters: int


def convert(stage_file: Path, llama: Path, out: Path, *, stage: str = "", head_size: int = HEAD_SIZE) -> Conversion:
    """Convert; ``out`` appears when everything is there.

    Args:
        stage_file: ``pytorch_model.bin`` of stage 4 or 5.
        llama: folder of the Llama model in Hugging Face form.
        out: folder to make; must not exist.
        stage: ``"4"`` or ``"5"`` if known; both have the same names and shapes.
        head_size: width of an attention head of the audio parts, which no shape tells.

    Raises:
        ConfigError: a path is wrong.
        ModelError: the weights are not those of a GAMA checkpoint; the message names keys.
    """
    if out.exists():
        msg = f"{out.name!r} exists already."
        raise ConfigError(msg, code="exists", hint="Give another folder, or remove this one.")
    state = read_stage(stage_file)
    mapped = check_names(state)
    counted = [name for name in mapped.live if not state[name].is_floating_point()]
    if counted:
        msg = f"{len(counted)} weights are whole numbers, for example {_some(counted)}."
        raise ModelError(msg, code="not-a-state-dict", hint="Give the pytorch_model.bin of stage 4 or 5.")
    checksum = digest(stage_file)
    stage = check_stage(stage, checksum)
    config = infer_config(state, read_json(llama / "config.json"), head_size=head_size, stage=stage)
    files = weight_files(llama)
    sources = {name: (file, shape) for file in files for name, (_, shape) in shapes(file).items()}
    base = {name: keys.llama_name(name, config.lora_targets) for name in sources}
    given = {mapped.live[name]: tuple(state[name].shape) for name in mapped.live}
    given |= {ours: sources[name][1] for name, ours in base.items() if ours is not None}
    expected = _expected(config)
    check_tokenizer(llama)
    check_complete(given, expected, {ours: name for name, ours in mapped.live.items()})

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    done = Conversion(
        folder=str(out),
        stage=stage,
        sha256=checksum,
        live=len(mapped.live),
        dead=tuple(mapped.dead),
        surplus=tuple(name for name, ours in base.items() if ours is None),
        parameters=sum(map(math.prod, expected.values())),
    )
    facts = {**asdict(done), "folder": out.name, "dead": mapped.dead}
    try:
        partial.mkdir(parents=True)
        audio = _apart({ours: state[name] for name, ours in mapped.live.items()})
        _write_shards(partial, audio, {name: ours for name, ours in base.items() if ours is not None}, files)
        config.architectures = ["GamaModel"]
        config.save_pretrained(partial)
        for name in COMPANIONS:
            if (llama / name).is_file():
                shutil.copyfile(llama / name, partial / name)
        (partial / "conversion.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return done


def check_tokenizer(llama: Path) -> None:
    """Look for a tokenizer before anything is written.

    Raises:
        ModelError: ``no-tokenizer``.
    """
    if not any((llama / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        msg = f"{llama.name!r} holds no tokenizer."
        raise ModelError(
            msg, code="no-tokenizer", hint="Put tokenizer.json or tokenizer.model of the same model there."
        )


def check_names(state: Mapping[str, object]) -> keys.Mapped:
    """The names of a stage file, sorted out.

    Raises:
        ModelError: ``wrong-stage`` (a stage-1 file), ``partial-checkpoint`` (without Q-Former), ``unexpected-keys``.
    """
    names = [name.removeprefix(keys.PREFIX) for name in state]
    if any("audio" in name for name in names) and not any("Qformer" in name for name in names):
        msg = "The file lacks the Q-Former: it was made by a script that keeps names with 'lora' or 'audio' only."
        raise ModelError(msg, code="partial-checkpoint", hint="Use the pytorch_model.bin that training wrote.")
    if any("audio" in name for name in names) and not any("lora_" in name for name in names):
        msg = "The file has no LoRA weights: it is of stage 1, before the language model was adapted."
        raise ModelError(msg, code="wrong-stage", hint="Use the file of stage 4 (GAMA) or 5 (GAMA-IT).")
    mapped = keys.translate(state)
    if mapped.unknown:
        msg = f"The file holds {len(mapped.unknown)} unexpected keys: {_some(mapped.unknown)}."
        raise ModelError(msg, code="unexpected-keys", hint="It is not a stage-4 or stage-5 file of GAMA.")
    return mapped


def check_stage(stage: str, checksum: str) -> str:
    """The stage of a file, from what a person says and from its checksum.

    Raises:
        ConfigError: ``unknown-stage``.
        ModelError: ``wrong-stage``: the checksum says otherwise.
    """
    if stage not in {"", "4", "5"}:
        msg = f"There is no stage {stage!r} to convert."
        raise ConfigError(msg, code="unknown-stage", hint="Stage 4 is GAMA, stage 5 is GAMA-IT.")
    published_4 = checksum.startswith(STAGE_4_SHA256)
    if published_4 and stage == "5":
        msg = "The file is the published one of stage 4, by its checksum."
        raise ModelError(msg, code="wrong-stage", hint="Leave the stage out, or give the file of stage 5.")
    return "4" if published_4 else stage


def infer_config(
    state: Mapping[str, torch.Tensor], llama: Mapping[str, Any], *, head_size: int = HEAD_SIZE, stage: str = ""
) -> GamaConfig:
    """Every size from the shapes of a stage file and the configuration of a Llama folder.

    Raises:
        ModelError: ``missing-keys``, ``not-llama``, or ``wrong-config``: no network has these sizes.
    """
    if llama.get("model_type") != "llama":
        msg = f"The language model is of the type {llama.get('model_type')!r}, not 'llama'."
        raise ModelError(msg, code="not-llama", hint="GAMA stands on meta-llama/Llama-2-7b-chat-hf.")
    read = _Shapes({name.removeprefix(keys.PREFIX): tuple(tensor.shape) for name, tensor in state.items()})
    width, patch = read("audio_encoder.pos_embed_a", 2), read("audio_encoder.patch_embed_a.proj.weight", 3)
    asked = read("query_tokens", 2)
    layers = {int(m[1]): m[2] for name in state if (m := keys.LORA.search(name))}
    crossing = read.numbers("Qformer.bert.encoder.layer.", ".crossattention.")
    if not 0 < patch <= MEL_BINS:
        why = f"patches are {patch} wide, and there are {MEL_BINS} mel bins"
        raise _wrong(why)
    rows = MEL_BINS // patch
    targets = sorted({m[2] for name in state if (m := keys.LORA.search(name))})
    first = min(layers, default=0)
    sizes: dict[str, Any] = {
        "audio_config": {
            "num_mel_bins": MEL_BINS,
            "target_frames": read("audio_encoder.pos_embed_a", 1) // rows * patch,
            "patch_size": patch,
            "hidden_size": width,
            "num_hidden_layers": len(read.numbers("audio_encoder.blocks_a.", ".")) + 1,
            "num_attention_heads": width // head_size,
            "intermediate_size": read("audio_encoder.blocks_u.0.mlp.fc1.weight", 0),
        },
        "qformer_config": {
            "hidden_size": asked,
            "encoder_hidden_size": width,
            "num_hidden_layers": len(read.numbers("Qformer.bert.encoder.layer.", ".")),
            "num_attention_heads": asked // head_size,
            "intermediate_size": read("Qformer.bert.encoder.layer.0.intermediate_query.dense.weight", 0),
            "cross_attention_frequency": crossing[1] if len(crossing) > 1 else 2,
        },
        "aggregator_config": {
            "hidden_size": width,
            "num_hidden_layers": 2,
            "num_attention_heads": width // head_size,
            "intermediate_size": read("audio_aggregator_layer_1.intermediate.dense.weight", 0),
        },
        "text_config": _text_config(llama),
        "num_query_tokens": read("query_tokens", 1),
        "lora_rank": read(f"layers.{first}.self_attn.{targets[0]}.lora_A.default.weight", 0),
        "lora_alpha": PUBLISHED_ALPHA,
        "lora_targets": targets,
        "stage": stage,
    }
    return _config(sizes)


def _config(sizes: Mapping[str, Any]) -> GamaConfig:
    from grym.models.gama.checking import problems
    from grym.models.gama.configuration import GamaConfig

    try:
        config = GamaConfig(**sizes)
        found = next(problems(config), "")
    except Exception as error:
        why = f"the libraries refuse them ({type(error).__name__})"
        raise _wrong(why) from error
    if found:
        raise _wrong(found)
    return config


def _expected(config: GamaConfig) -> dict[str, tuple[int, ...]]:
    from grym.models.gama.checking import expected_shapes

    try:
        return expected_shapes(config)
    except Exception as error:
        why = f"the libraries refuse them ({type(error).__name__})"
        raise _wrong(why) from error


def _wrong(why: str) -> ModelError:
    msg = f"No model has the sizes of the stage file and the Llama folder: {why}."
    return ModelError(msg, code="wrong-config", hint="Check config.json of the Llama folder; is either file damaged?")


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that can be written: each with a memory of its own, which files of other makers need not have."""
    owned: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in owned or storage.nbytes() != tensor.nbytes or not tensor.is_contiguous()
        owned.add(storage.data_ptr())
        apart[name] = tensor.detach().contiguous().clone() if shared else tensor.detach()
    return apart


def check_complete(
    given: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], published: Mapping[str, str]
) -> None:
    """Check that names and shapes are those of the model.

    Args:
        given: shapes by the names here.
        expected: those of the model.
        published: published name of each name here that came from the stage file, for the messages.

    Raises:
        ModelError: ``missing-keys``, ``unexpected-keys`` or ``wrong-shapes``.
    """
    missing = [name for name in expected if name not in given]
    if missing:
        msg = f"{len(missing)} weights are missing, for example {_some(missing)}."
        raise ModelError(msg, code="missing-keys", hint="Check the stage file and the Llama folder; is one cut?")
    unexpected = [published.get(name, name) for name in given if name not in expected]
    if unexpected:
        msg = f"{len(unexpected)} weights have no place in the model, for example {_some(unexpected)}."
        raise ModelError(msg, code="unexpected-keys", hint="Stage file and Llama folder do not belong together.")
    wrong = [
        f"{published.get(name, name)} is {list(shape)}, not {list(expected[name])}"
        for name, shape in given.items()
        if shape != expected[name]
    ]
    if wrong:
        msg = f"{len(wrong)} weights have the wrong shape: {_some(wrong)}."
        raise ModelError(msg, code="wrong-shapes", hint="Stage file and Llama folder do not belong together.")


class _Shapes:
    """Shapes by name; a missing one is a typed error."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes

    def __call__(self, name: str, axis: int) -> int:
        if name not in self._shapes or axis >= len(self._shapes[name]):
            msg = f"1 weights are missing, for example {keys.PREFIX}{name}."
            raise ModelError(msg, code="missing-keys", hint="It is not a stage-4 or stage-5 file of GAMA.")
        return self._shapes[name][axis]

    def numbers(self, before: str, after: str) -> list[int]:
        """The numbers that stand between ``before`` and a name that holds ``after``."""
        rest = [name.removeprefix(before).partition(".") for name in self._shapes if name.startswith(before)]
        return sorted({int(number) for number, dot, tail in rest if number.isdigit() and after in dot + tail})


def _text_config(llama: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the Llama folder; ids that old ones leave out are those of the published scripts."""
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    known = {name: value for name, value in llama.items() if name not in {"_name_or_path", "transformers_version"}}
    return {
        **known,
        **{name: i if _unset(llama.get(name)) else llama[name] for name, i in ids.items()},
    }


def _unset(token: Any) -> bool:
    return token is None or (isinstance(token, int) and token < 0)


def _write_shards(
    folder: Path, audio: Mapping[str, torch.Tensor], base: Mapping[str, str], files: Sequence[Path]
) -> None:
    from safetensors.torch import save_file

    places: dict[str, int] = {}
    total = 0
    for number, shard in enumerate(_shards(audio, base, files)):
        save_file(shard, folder / f"{number}.safetensors", metadata={"format": "pt"})
        places |= dict.fromkeys(shard, number)
        total += sum(tensor.nbytes for tensor in shard.values())
    count = max(places.values()) + 1
    names = [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
    for number, name in enumerate(names):
        (folder / f"{number}.safetensors").rename(folder / name)
    index = {"metadata": {"total_size": total}, "weight_map": {key: names[place] for key, place in places.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _shards(
    audio: Mapping[str, torch.Tensor], base: Mapping[str, str], files: Sequence[Path]
) -> Iterator[dict[str, torch.Tensor]]:
    """The audio parts, then the Llama weights in pieces of :data:`SHARD_BYTES`."""
    from safetensors import safe_open

    yield dict(audio)
    shard: dict[str, torch.Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as handle:
            for name in (name for name in handle.keys() if name in base):  # noqa: SIM118 - it is no mapping
                shard[base[name]] = handle.get_tensor(name)
                if sum(tensor.nbytes for tensor in shard.values()) >= SHARD_BYTES:
                    yield shard
                    shard = {}
    if shard:
        yield shard


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert and print one line of JSON: the conversion, or the error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage_file", type=Path)
    parser.add_argument("llama", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stage", default="")
    parser.add_argument("--head-size", type=int, default=HEAD_SIZE)
    given = parser.parse_args(arguments)
    try:
        done = convert(given.stage_file, given.llama, given.out, stage=given.stage, head_size=given.head_size)
    except GrymError as error:
        print(json.dumps({"error": asdict(error.record())}))  # noqa: T201 - the line is what the caller reads
        return 2
    print(json.dumps({"done": asdict(done)}))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
