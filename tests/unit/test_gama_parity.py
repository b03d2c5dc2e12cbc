"""Our GAMA against what the published code computed with the same random weights (arrays recorded once)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.gama_parity import STAGES, TOLERANCE, compare
from grym.models.gama.keys import translate
from tests.gama_models import one_thread

pytestmark = pytest.mark.usefixtures("one_thread")
__all__ = ["one_thread"]  # a fixture: pytest finds it by its name
RECORDED = Path(__file__).resolve().parents[1] / "fixtures/gama/reference.npz"


def test_every_stage_agrees_with_the_published_network() -> None:
    """Encoder, Q-Former, aggregator, audio tokens and logits, two prompts in a batch, LoRA included."""
    with np.load(RECORDED) as stored:
        recorded = dict(stored)
    found = {one.stage: one for one in compare(recorded)}
    assert set(found) == set(STAGES)
    for one in found.values():
        assert one.scale > 1.0
        assert one.largest < TOLERANCE


def test_the_published_network_ignores_what_we_call_dead() -> None:
    """The recording changed exactly our dead tensors inside the published network, and its logits did not move."""
    with np.load(RECORDED) as stored:
        dead, effect = set(stored["dead_names"].tolist()), float(stored["dead_effect"])
        names = [name.removeprefix("shape/") for name in stored if name.startswith("shape/")]
    ours = {name for name in translate(names).dead if not name.endswith("position_ids")}
    assert dead == ours
    assert effect == 0.0
