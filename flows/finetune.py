"""Fine-tune a registered model: train, measure before and after on clips it did not hear, register the result.

A verb of its own beside `train`, which makes the bundled checkpoints from nothing: the two share no parameter.

Run: ``python -m flows finetune wav2vec2-mini --dataset MANIFEST --name NEW``
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect import flow, runtime

from grym.compare.evaluate import overall
from grym.config import load_settings
from grym.models.finetune.checking import as_trained, check_finetune
from grym.models.finetune.recipe import training_key
from tasks.finetune import choose_clips, data_of, finetune_model, measure_model, register_model

BEFORE = "before, the model it was made from"
AFTER = "after"


@dataclass(frozen=True, slots=True)
class Finetuned:
    """Where the model is and how well it hears, as fractions of words."""

    name: str
    folder: str
    before: float
    after: float
    clips: int
    measured: int
    task_runs: int
    flow_run_id: str


@flow(name="finetune", persist_result=False)
def finetune(
    model: str,
    dataset: str,
    name: str,
    recipe: dict[str, Any] | None = None,
    measure_on: str = "",
    held_out: float = 0.2,
    *,
    replace: bool = False,
) -> Finetuned:
    """Fine-tune, or go on, measure and register.

    Args:
        model: a registered model of the adapters wav2vec2, seq2seq, audio_lm or gama.
        dataset: what is trained on: a name in grym.toml, a folder or a manifest with texts.
        name: of the new model, and folder below ``HOME/models``; lower case letters, digits and ``._-``.
        recipe: fields of :class:`grym.models.finetune.recipe.FinetuneSpec`; the adapter is the model's.
        measure_on: dataset to measure on; default a share of ``dataset`` that is then not trained on.
        held_out: that share.
        replace: a model of that name that was made here before may be replaced.

    Raises:
        ConfigError: model, name, recipe or data cannot be used; nothing was trained.
        WorkerError: the training ended early, or another process trains under this name.
        QualityError: the result could not be measured.
    """
    settings = load_settings()
    spec, folder, fields = check_finetune(model, name, recipe or {}, settings, replace=replace)
    spec = as_trained(spec, fields)
    material = choose_clips(dataset, measure_on, held_out, settings)
    data = data_of(dataset, spec, folder, material.training)
    out = settings.home / "training" / f"finetune-{name}-{training_key(fields, data)}"
    before = measure_model(spec, material.held_out, settings)
    done = finetune_model(fields, data, folder, material.training, out)
    trained = spec.model_copy(update={"name": name, "options": {**spec.options, "path": done["folder"]}})
    after = measure_model(trained, material.held_out, settings)
    rates = {BEFORE: before, AFTER: after}
    target = register_model(name, spec, fields, data, done, rates, settings)
    return Finetuned(
        name=name,
        folder=str(target),
        before=overall(before),
        after=overall(after),
        clips=len(material.training),
        measured=len(material.held_out),
        task_runs=5,
        flow_run_id=str(runtime.flow_run.id or ""),
    )
