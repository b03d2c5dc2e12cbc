"""Fitted probes under ``HOME/probes``: one pair of files each, found again by what they depend on.

``NAME.npz`` holds arrays only (nothing pickled is written or read), ``NAME.json``
says what the probe is, which clips it has seen, and the checksum of the arrays; it
is written last, so a probe without it does not count. Knows nothing about fitting.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from grym.compare.probe import FOLDS, PENALTIES, Linear
from grym.errors import ConfigError, StorageError
from grym.parts import disk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from grym.config import AudioLimits
    from grym.corpus.manifest import Entry
    from grym.models.interface import Card

VERSION: Final = 1  # of the way in which probes are fitted; another one never takes an old probe
_ARRAYS: Final = ("mean", "scale", "weights", "bias")


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe and what it is.

    Attributes:
        id: identity: hash of model, settings, training clips and labels.
        linear: what answers.
        model: registered name of the model whose features it reads.
        revision: of that model.
        rung: settings in force when the features were made.
        trained_on: name of the training dataset.
        fingerprint: hash of the training clips and their labels.
        seen: content ids of the training clips.
        seconds: time to make it; 0 if it was stored already.
    """

    id: str
    linear: Linear
    model: str
    revision: str
    rung: str
    trained_on: str
    fingerprint: str
    seen: frozenset[str] = field(repr=False)
    seconds: float = 0.0

    def require_unseen(self, clip_ids: Iterable[str], dataset: str) -> None:
        """Refuse to judge a probe on clips that it learnt from.

        Raises:
            ConfigError: ``probe-leak``: some of the clips are training clips.
        """
        leaked = sorted(self.seen & set(clip_ids))
        if leaked:
            msg = (
                f"{len(leaked)} clips of {dataset} are also in {self.trained_on}, from which the probe of "
                f"{self.model!r} learnt: its accuracy on them would say nothing."
            )
            hint = f"Remove them from one of the two; the first is {leaked[0][:16]}."
            raise ConfigError(msg, code="probe-leak", hint=hint)

    def row(self, arm: str) -> dict[str, object]:
        """A row of table ``probes``."""
        return {
            "arm": arm,
            "model": self.model,
            "probe": self.id,
            "trained_on": self.trained_on,
            "fingerprint": self.fingerprint,
            "clips": len(self.seen),
            "labels": json.dumps(list(self.linear.labels), ensure_ascii=False),
            "feature_dim": int(self.linear.mean.size),
            "l2": self.linear.l2,
            "cv_accuracy": self.linear.cv_accuracy,
            "cv_folds": self.linear.cv_folds,
            "seconds": self.seconds,
        }


def training_fingerprint(entries: Sequence[Entry], labels: Mapping[str, Sequence[str]]) -> str:
    """Hash of training clips: the bytes of their files, where they start and end, and their labels, in any order.

    Args:
        entries: the clips; files that cannot be read count as missing.
        labels: right labels by key.
    """
    hashes: dict[Path, str] = {}
    rows = []
    for entry in entries:
        if entry.path not in hashes:
            try:
                hashes[entry.path] = hashlib.sha256(entry.path.read_bytes()).hexdigest()
            except OSError:
                hashes[entry.path] = "missing"
        rows.append(json.dumps([hashes[entry.path], entry.offset, entry.duration, list(labels[entry.key])]))
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:16]


def probe_id(card: Card, fingerprint: str, audio: AudioLimits) -> str:
    """Identity of a probe before it is fitted: whatever can change what it answers is in it."""
    facts = {
        "version": VERSION,
        "model": [card.revision, card.rung, card.feature_dim],
        "training": fingerprint,
        "audio": audio.model_dump(mode="json"),
        "penalties": PENALTIES,
        "folds": FOLDS,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def load_probe(folder: Path, identity: str) -> Probe | None:
    """The stored probe of that identity, ``None`` if there is none.

    Raises:
        StorageError: ``probe-damaged``: its files are not what was written.
    """
    told, arrays = folder / f"{identity}.json", folder / f"{identity}.npz"
    if not told.is_file():
        return None
    try:
        facts = json.loads(told.read_text(encoding="utf-8"))
        content = arrays.read_bytes()
        if facts["id"] != identity or facts["sha256"] != hashlib.sha256(content).hexdigest():
            raise _damaged(identity)
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            parts = {name: np.asarray(stored[name], dtype=np.float64) for name in _ARRAYS}
        return _read(facts, parts)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise _damaged(identity) from error


def save_probe(folder: Path, probe: Probe) -> Path:
    """Write a probe, its description last; returns that.

    Raises:
        StorageError: it cannot be written.
    """
    linear = probe.linear
    buffer = io.BytesIO()
    np.savez(buffer, **{name: getattr(linear, name) for name in _ARRAYS})
    content = buffer.getvalue()
    facts = {
        "id": probe.id,
        "model": probe.model,
        "revision": probe.revision,
        "rung": probe.rung,
        "trained_on": probe.trained_on,
        "fingerprint": probe.fingerprint,
        "labels": list(linear.labels),
        "l2": linear.l2,
        "cv_accuracy": linear.cv_accuracy,
        "cv_folds": linear.cv_folds,
        "sha256": hashlib.sha256(content).hexdigest(),
        "seen": sorted(probe.seen),
    }
    with disk("The folder of probes"):
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{probe.id}.npz", content)
        described = folder / f"{probe.id}.json"
        _write(described, json.dumps(facts, indent=1, ensure_ascii=False).encode())
    return described


def _read(facts: Mapping[str, Any], parts: Mapping[str, Any]) -> Probe:
    labels = tuple(str(label) for label in facts["labels"])
    dim = parts["mean"].size
    shapes = {"mean": (dim,), "scale": (dim,), "weights": (dim, len(labels)), "bias": (len(labels),)}
    if any(parts[name].shape != shape or not np.isfinite(parts[name]).all() for name, shape in shapes.items()):
        raise _damaged(str(facts["id"]))
    linear = Linear(
        labels=labels,
        mean=parts["mean"],
        scale=parts["scale"],
        weights=parts["weights"],
        bias=parts["bias"],
        l2=float(facts["l2"]),
        cv_accuracy=float(facts["cv_accuracy"]),
        cv_folds=int(facts["cv_folds"]),
    )
    return Probe(
        id=str(facts["id"]),
        linear=linear,
        model=str(facts["model"]),
        revision=str(facts["revision"]),
        rung=str(facts["rung"]),
        trained_on=str(facts["trained_on"]),
        fingerprint=str(facts["fingerprint"]),
        seen=frozenset(map(str, facts["seen"])),
    )


def _damaged(identity: str) -> StorageError:
    msg = f"The stored probe {identity} is not what was written."
    return StorageError(msg, code="probe-damaged", hint="Delete its files; it is made again.")


def _write(path: Path, content: bytes) -> None:
    """Aside, then renamed: a reader never sees half of it."""
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
