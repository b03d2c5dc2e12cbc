"""The linear probe: fitted on the training clips alone, stored, found again, never judged on what it learnt from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from grym.audio import decode
from grym.compare.arms import check_task, needs_probe, through_probe
from grym.compare.labels import most_probable
from grym.compare.plan import check_entries
from grym.compare.probe import fit_probe
from grym.compare.probe_arm import Probed
from grym.compare.probe_files import load_probe, save_probe
from grym.compare.session import Arm
from grym.compare.task import make_task
from grym.config import CompareSettings, DatasetSpec, ModelSpec, Paths, Settings
from grym.corpus.manifest import Dataset, Entry
from grym.errors import ConfigError, StorageError, WorkerError
from grym.models.fake import FakeModel, FakeOptions
from grym.models.interface import Options
from grym.worker import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grym.models.interface import AudioClip

TONES = {"beep": 900.0, "hum": 150.0, "whistle": 4000.0}


def gaussians(count: int, seed: int, dim: int = 6) -> tuple[np.ndarray, list[tuple[str, ...]], list[str]]:
    """Three clouds and mixtures that lie between two of them: features, labels, names."""
    rng = np.random.default_rng(seed)
    centers = dict(zip("xyz", 3 * np.eye(3, dim), strict=True))
    labels = [("x",), ("y",), ("z",), ("x", "y"), ("y", "z")] * count
    features = [np.mean([centers[one] for one in row], axis=0) + rng.normal(0, 0.3, dim) for row in labels]
    return np.stack(features) * [1, 100, 1, 0.01, 1, 1] + 7, labels, [f"{seed}-{i}" for i in range(len(labels))]


def test_separable_clouds_are_told_apart_and_mixtures_have_both_labels() -> None:
    """On held-out clips and on new ones; the probabilities of a clip add up to 1."""
    linear = fit_probe(*gaussians(12, 1))
    assert linear.cv_accuracy > 0.9
    assert linear.cv_folds == 5
    fresh, labels, _ = gaussians(20, 2)
    shares = linear.probabilities(fresh)
    assert shares.sum(axis=1) == pytest.approx(1)
    right = [
        set(most_probable(dict(zip(linear.labels, share, strict=True)), len(row))) == set(row)
        for share, row in zip(shares, labels, strict=True)
    ]
    assert np.mean(right) > 0.9


def test_the_same_clips_in_any_order_give_the_same_probe() -> None:
    """Folds, penalty and weights follow from the names of the clips."""
    features, labels, names = gaussians(8, 3)
    first = fit_probe(features, labels, names)
    order = np.random.default_rng(0).permutation(len(names))
    again = fit_probe(features[order], [labels[i] for i in order], [names[i] for i in order])
    assert np.array_equal(first.weights, again.weights)
    assert (first.l2, first.cv_accuracy) == (again.l2, again.cv_accuracy)


def test_labels_that_say_nothing_are_not_learnt() -> None:
    """Shuffled labels: chance on held-out clips, and the strongest penalties are taken."""
    features, labels, names = gaussians(20, 4)
    single = [row[:1] for row in labels]
    shuffled = [single[i] for i in np.random.default_rng(1).permutation(len(single))]
    linear = fit_probe(features, shuffled, names)
    assert linear.cv_accuracy < 0.55
    assert linear.l2 >= 0.1


def test_a_dimension_that_never_varies_does_no_harm() -> None:
    """Its weight is as good as nothing, whatever it holds in another clip."""
    features, labels, names = gaussians(8, 5)
    constant = np.column_stack([features, np.full(len(names), 4.2)])
    linear = fit_probe(constant, labels, names)
    assert linear.scale[-1] == 1.0
    assert abs(linear.weights[-1]).max() < 1e-6


@pytest.mark.parametrize(
    ("labels", "value", "code"),
    [([("x",)] * 4, 1.0, "probe-too-little"), ([("x",), ("x",), ("y",), ("x",)], 1.0, "probe-too-little"),
     ([("x",), ("x",), ("y",), ("y",)], np.nan, "probe-not-finite")],
)  # fmt: skip
def test_what_cannot_be_learnt_is_an_error(labels: list[tuple[str, ...]], value: float, code: str) -> None:
    """One label, a label that occurs once, a feature that is not finite."""
    with pytest.raises(ConfigError) as caught:
        fit_probe(np.full((4, 2), value), labels, list("abcd"))
    assert caught.value.code == code


@dataclass
class Features:
    """The fake's spectral features without a child process; counts calls and can fail."""

    model: FakeModel
    load_seconds: float = 1.5
    calls: int = 0
    fails: set[str] = field(default_factory=set)

    def features(self, clips: Sequence[AudioClip], **_more: float) -> tuple[Any, Usage]:
        """Log energies in bands."""
        self.calls += 1
        if self.fails & {clip.id for clip in clips}:
            message = "The worker died."
            raise WorkerError(message)
        return self.model.features(clips), Usage(0.1, 0.05, 0.05, 100.0, 1)


def tones(folder: Path, name: str, per_label: int, seed: int) -> Dataset:
    """Clips of three tones at different pitches."""
    rng = np.random.default_rng(seed)
    (folder / name).mkdir(parents=True)
    entries = []
    for label, pitch in TONES.items():
        for i in range(per_label):
            path = folder / name / f"{label}-{i}.wav"
            time = np.arange(4000) / 16_000
            wave = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time) + rng.normal(0, 0.01, 4000)
            soundfile.write(path, wave, 16_000)
            entries.append(Entry(f"{label}-{i}", path, path.name, "A tone.", slices={"label": label}))
    return Dataset(name, folder / name, tuple(entries), ())


def arm_of(worker: Features) -> Arm:
    """An arm that cannot name labels."""
    return Arm("a", worker, worker.model.card)  # type: ignore[arg-type]


@pytest.fixture
def setting(tmp_path: Path) -> tuple[Settings, DatasetSpec, Dataset, Dataset]:
    """Settings with a home of their own, the labelled dataset, its clips and its training clips."""
    settings = Settings(paths=Paths(home=tmp_path / "var"), compare=CompareSettings(batch_clips=4))
    spec = DatasetSpec(name="tones", loader="manifest", path=tmp_path / "m.csv", task="classify", train="more")
    return settings, spec, tones(tmp_path, "tones", 3, 1), tones(tmp_path, "more", 6, 2)


def test_a_model_without_labels_answers_through_a_probe_that_is_kept(
    setting: tuple[Settings, DatasetSpec, Dataset, Dataset],
) -> None:
    """Fitted once, found again without a call; right on clips it never saw; its identity is part of the question."""
    settings, spec, test, training = setting
    worker = Features(FakeModel(ModelSpec(name="ears", adapter="fake"), FakeOptions(feature_dim=32)))
    task = make_task("classify", spec, test, training, settings.compare)
    arm = arm_of(worker)
    assert needs_probe(arm, task, spec)
    clips, _ = check_entries(test.entries, settings.audio)
    probed = through_probe(arm, spec, training, clips, settings)
    assert worker.calls == 5  # eighteen clips in batches of four
    assert probed.probe is not None
    assert probed.facts.endswith(f"probe {probed.probe.id}")
    assert probed.probe.row("a")["clips"] == 18
    again = through_probe(arm, spec, training, clips, settings)
    assert worker.calls == 5
    assert again.probe is not None
    assert np.array_equal(again.probe.linear.weights, probed.probe.linear.weights)
    assert again.probe.seconds == 0
    audio = [clip.entry for clip in clips]
    answers, usage = probed.worker.process([decode(e.path, settings.audio)[0] for e in audio], Options(features=True))
    assert [answer.text for answer in answers] == [entry.slices["label"] for entry in audio]
    assert all(sum(answer.scores.values()) == pytest.approx(1) for answer in answers)
    assert answers[0].features is not None
    assert (answers[0].model, answers[0].revision) == ("ears", worker.model.card.revision)
    assert usage.wall_seconds > 0.1
    probed.worker.close()
    assert isinstance(probed.worker, Probed)


def test_another_training_set_is_another_probe_and_damage_is_mended(
    setting: tuple[Settings, DatasetSpec, Dataset, Dataset],
) -> None:
    """A changed label, a changed file or a damaged store make a new one; nothing pickled is ever read."""
    settings, spec, test, training = setting
    worker = Features(FakeModel(ModelSpec(name="ears", adapter="fake"), FakeOptions(feature_dim=32)))
    clips, _ = check_entries(test.entries, settings.audio)
    first = through_probe(arm_of(worker), spec, training, clips, settings).probe
    assert first is not None
    folder = settings.home / "probes"
    other = replace(training.entries[0], slices={"label": "hum"})
    changed = through_probe(
        arm_of(worker), spec, replace(training, entries=(other, *training.entries[1:])), clips, settings
    )
    assert changed.probe is not None
    assert changed.probe.id != first.id
    arrays = folder / f"{first.id}.npz"
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError) as caught:
        load_probe(folder, first.id)
    assert caught.value.code == "probe-damaged"
    before = worker.calls
    mended = through_probe(arm_of(worker), spec, training, clips, settings).probe
    assert worker.calls > before
    assert mended is not None
    assert np.array_equal(mended.linear.weights, first.linear.weights)
    told = folder / f"{first.id}.json"
    facts = json.loads(told.read_text(encoding="utf-8"))
    told.write_text(json.dumps({**facts, "labels": facts["labels"][:2]}), encoding="utf-8")
    with pytest.raises(StorageError):
        load_probe(folder, first.id)
    told.write_text("{", encoding="utf-8")
    with pytest.raises(StorageError):
        load_probe(folder, first.id)
    assert load_probe(folder, "nothing") is None
    assert save_probe(folder, first) == told
    assert not list(folder.glob(".*"))


def test_a_test_clip_among_the_training_clips_is_refused(
    setting: tuple[Settings, DatasetSpec, Dataset, Dataset], tmp_path: Path
) -> None:
    """By its content, whatever it is called; also when the probe is stored already."""
    settings, spec, test, training = setting
    worker = Features(FakeModel(ModelSpec(name="ears", adapter="fake"), FakeOptions(feature_dim=32)))
    renamed = tmp_path / "renamed.wav"
    renamed.write_bytes(training.entries[0].path.read_bytes())
    leaked = Entry("other", renamed, "renamed.wav", "A tone.", slices={"label": "beep"})
    clips, _ = check_entries([*test.entries, leaked], settings.audio)
    for _ in range(2):
        with pytest.raises(ConfigError, match="1 clips of tones are also in more") as caught:
            through_probe(arm_of(worker), spec, training, clips, settings)
        assert caught.value.code == "probe-leak"
    with pytest.raises(ConfigError, match="names no training clips") as caught:
        needs_probe(arm_of(worker), make_task("classify", spec, test, None, settings.compare), replace_train(spec, ""))
    assert caught.value.code == "cannot-classify"


def replace_train(spec: DatasetSpec, train: str) -> DatasetSpec:
    """The same dataset with other training clips."""
    return spec.model_copy(update={"train": train})


def test_a_training_clip_that_breaks_the_model_is_left_out_and_many_are_an_error(
    setting: tuple[Settings, DatasetSpec, Dataset, Dataset],
) -> None:
    """One of eighteen is more than a twentieth; none of forty would be."""
    settings, spec, test, training = setting
    clips, _ = check_entries(test.entries, settings.audio)
    ids = [clip.clip_id for clip in check_entries(training.entries, settings.audio)[0]]
    worker = Features(FakeModel(ModelSpec(name="ears", adapter="fake"), FakeOptions(feature_dim=32)), fails={ids[0]})
    with pytest.raises(WorkerError):
        through_probe(arm_of(worker), spec, training, clips, settings)
    assert not (settings.home / "probes").exists()


def test_a_task_that_is_none_is_said() -> None:
    """Only two are known, and nothing means what grym.toml says."""
    assert [check_task(given) for given in ("", "classify", "transcribe")] == ["", "classify", "transcribe"]
    with pytest.raises(ConfigError, match="describe"):
        check_task("describe")
