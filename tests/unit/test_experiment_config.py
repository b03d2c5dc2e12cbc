"""Experiments: what a file may say, what it comes to, and that a version never changes."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import json
import math
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from grym.errors import ConfigError
from grym.experiment.config import Arm, Experiment, Metric, Namespace, Power, Ramp, Success
from grym.experiment.control import kill
from grym.experiment.loading import check_namespaces, find_experiment, load_experiment, load_experiments
from grym.experiment.power import paired_units, plan, proportion_units, tuning, two_sample_units
from grym.experiment.registry import check_exclusive, latest, register, registered
from grym.store import Store

ROOT = Path(__file__).parents[2]
TEXT = """
version = 1
unit = "user"
arms = [{ name = "a", share = 0.5, model = "one" }, { name = "b", share = 0.5, model = "two" }]
[[metrics]]
name = "wer"
kind = "ratio"
direction = "lower"
value = "errors"
weight = "words"
"""
ARMS = (Arm("a", 0.5, "one"), Arm("b", 0.5, "two"))
WER = Metric("wer", "ratio", "lower", "errors", weight="words")
MEAN = Metric("seconds", "mean", "lower", "wall_seconds")


def written(folder: Path, text: str = TEXT, name: str = "demo") -> Path:
    """A file with an experiment."""
    path = folder / "experiments" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def changed(**fields: Any) -> Experiment:
    """The experiment of :data:`TEXT` with other fields."""
    return dataclasses.replace(Experiment("demo", 1, "user", ARMS, (WER,)), **fields)


def test_a_file_becomes_an_experiment(tmp_path: Path) -> None:
    """The name is the file's, the salt the name, the first arm the control, the first metric the primary."""
    experiment = load_experiment(written(tmp_path))
    assert experiment == changed()
    assert (experiment.name, experiment.salt, experiment.control.model) == ("demo", "demo", "one")
    assert (experiment.primary.name, [arm.name for arm in experiment.treatments]) == ("wer", ["b"])
    assert experiment.ramp.coverage == (0.01, 0.05, 0.25, 1.0)
    assert experiment.arm("b").model == "two"
    assert find_experiment(tmp_path, "demo") == experiment


def test_the_bundled_example_is_valid_and_its_plan_is_two_weeks() -> None:
    """experiments/mini-int8.toml loads, names models of grym.toml, and its plan comes to days that make sense."""
    (experiment,) = [e for e in load_experiments(ROOT) if e.name == "mini-int8"]
    text = (ROOT / "grym.toml").read_text(encoding="utf-8")
    assert all(f"[models.{arm.model}]" in text for arm in experiment.arms)
    found = plan(experiment)
    assert 7 <= found.days < 21
    assert found.fixed_control < found.control < 3 * found.fixed_control


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("version = 1", "version = 1\nsharez = 2", "bad-config", "sharez: there is no such key"),
        ("version = 1\n", "", "bad-config", "version: is missing"),
        ("version = 1", 'version = "1"', "bad-config", "version: input should be a valid integer"),
        ("share = 0.5, model", 'share = "0.5", model', "bad-config", "arms[0].share: input should be a valid number"),
        ("share = 0.5, model", "share = nan, model", "bad-config", "arms[0].share"),
        ("share = 0.5, model", "share = 0.4, model", "bad-shares", "shares should add up to 1, not 0."),
        ('kind = "ratio"', 'kind = "median"', "bad-config", "metrics[0].kind"),
        ('weight = "words"', "level = 0.5", "bad-metric", "level belongs to a quantile"),
        ('kind = "ratio"', 'kind = "mean"', "bad-metric", "weight belongs to a ratio"),
        ('kind = "ratio"', 'kind = "ratio"\nabsent = "zero"', "bad-metric", "has no meaning"),
        ('name = "b"', 'name = "a"', "bad-arms", "different names"),
        ('unit = "user"', 'unit = "user"\nname = "other"', "bad-name", "names the experiment 'other'"),
        ('unit = "user"', 'unit = "user"\nsalt = "a\\u0000"', "bad-salt", "zero byte"),
        ('unit = "user"', 'unit = "user"\noverrides = { u1 = "c" }', "unknown-arm", "do not exist: c"),
        ('unit = "user"', 'unit = "user"\nguardrails = [{ metric = "x", margin = 1 }]', "unknown-metric", "x"),
        ('unit = "user"', 'unit = "user"\nramp = { coverage = [0.5, 0.1] }', "bad-ramp", "grow"),
        ('unit = "user"', 'unit = "user"\nnamespace = { name = "n", range = [0.5, 0.5] }', "bad-namespace", "grow"),
        ('unit = "user"', 'unit = "user"\nsticky = { min_bucket_version = 1 }', "bad-sticky", "exceed"),
        ('unit = "user"', 'unit = "user"\npower = { effect = 1, units_per_day = 1 }', "bad-power", "power.sd"),
        (
            'unit = "user"',
            'unit = "user"\npower = { effect = 1e-9, sd = 1, units_per_day = 1 }',
            "bad-power",
            "power.effect should be",
        ),
        (
            'unit = "user"',
            'unit = "user"\npower = { effect = 1e-200, sd = 1e-200, units_per_day = 1 }',
            "bad-power",
            "power.effect should be",
        ),
        ('unit = "user"', 'unit = "user"\nsuccess = { confidence = 0.75 }', "bad-config", "greater than 0.75"),
        ('unit = "user"', "unit = user", "bad-config", "cannot be read"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_key(tmp_path: Path, old: str, new: str, code: str, words: str) -> None:
    """The code groups, the message says which key and why."""
    with pytest.raises(ConfigError) as error:
        load_experiment(written(tmp_path, TEXT.replace(old, new)))
    assert error.value.code == code
    assert words in str(error.value)
    assert error.value.hint


def test_shares_must_leave_the_control_something() -> None:
    """An arm may be closed with share 0, the control may not; the same holds in code."""
    closed = changed(arms=(Arm("a", 1, "one"), Arm("b", 0, "two")))
    assert closed.arm("b").share == 0
    with pytest.raises(ValueError, match="control 'a' should have a share above 0"):
        changed(arms=(Arm("a", 0, "one"), Arm("b", 1, "two")))


def test_files_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    """No file, no UTF-8, a name that is none."""
    path = written(tmp_path)
    path.with_name("bytes.toml").write_bytes(b"version = 1 # \xff")
    for name, code in (("missing", "bad-config"), ("bytes", "bad-config"), ("Not A Name", "bad-name")):
        with pytest.raises(ConfigError) as error:
            load_experiment(path.with_name(f"{name}.toml"))
        assert error.value.code == code
    for name in ("missing", "../demo"):
        with pytest.raises(ConfigError, match=r"the folder experiments has: bytes, demo\.") as error:
            find_experiment(tmp_path, name)
        assert error.value.code == "unknown-experiment"


def test_names_that_are_not_there_are_errors() -> None:
    """Asking for an arm or metric that does not exist names those that do."""
    for ask, code in ((changed().arm, "unknown-arm"), (changed().metric, "unknown-metric")):
        with pytest.raises(ConfigError, match="it has: ") as error:
            ask("x")
        assert error.value.code == code


def test_the_digest_is_of_what_is_said_and_never_changes() -> None:
    """Canonical JSON: defaults left out, 1 and 1.0 alike; this literal holds for ever, or running versions break."""
    experiment = changed(arms=(Arm("a", 1.0, "one"), Arm("b", 0, "two")), success=Success(min_units=0))
    assert experiment.canonical == (
        '{"arms":[{"model":"one","name":"a","share":1},{"model":"two","name":"b","share":0}],"metrics":[{"direction":'
        '"lower","kind":"ratio","name":"wer","value":"errors","weight":"words"}],"name":"demo","salt":"demo",'
        '"unit":"user","version":1}'
    )
    assert experiment.digest == "d78f17e8d4029f539666e40d83fe85ad7c1fef0d71e3ffadea46bd64569e1a52"
    assert changed(question="Größer?").digest != changed().digest


def test_defaults_never_change() -> None:
    """They are left out of the digest, so another default would change a running version unnoticed."""
    defaults = {
        name: json.loads(json.dumps(value, default=dataclasses.asdict))
        for name, value in vars(Experiment("d", 1, "u", ARMS, (MEAN,))).items()
        if name not in {"name", "version", "unit", "arms", "metrics", "salt"} and not name.startswith("_")
    }
    assert defaults == {
        "hash": "sha256",
        "question": "",
        "guardrails": [],
        "ramp": {"coverage": [0.01, 0.05, 0.25, 1.0], "days": 1.0},
        "namespace": None,
        "overrides": {},
        "holdout": None,
        "sticky": {"enabled": False, "bucket_version": 0, "min_bucket_version": 0},
        "success": {"rule": "superior", "confidence": 0.95, "min_units": 0, "min_days": 0.0},
        "power": None,
    }
    assert (MEAN.margin, MEAN.absent, MEAN.weight, MEAN.level, MEAN.covariate) == (0, "missing", None, None, None)
    power = Power(1, 1)
    assert (power.power, power.correlation, power.design, power.sd) == (0.8, 0, "two-sample", None)


def test_a_version_keeps_its_configuration(tmp_path: Path) -> None:
    """Registering again is nothing new; a change under the same version is refused, a new version is not."""
    store = Store(tmp_path)
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert register(store, changed(), now=noon)
    assert not register(store, changed())
    other = changed(arms=(Arm("a", 0.9, "one"), Arm("b", 0.1, "two")))
    with pytest.raises(ConfigError, match="has run version 1 with another configuration") as error:
        register(store, other)
    assert error.value.code == "changed-configuration"
    assert "version = 2" in error.value.hint
    assert register(store, dataclasses.replace(other, version=2))
    assert registered(store) == {("demo", 1): changed(), ("demo", 2): dataclasses.replace(other, version=2)}
    assert store.read("experiments")["at"][0] == noon


def test_versions_go_up_by_one(tmp_path: Path) -> None:
    """A version that skips one, or goes back to one that never ran, is refused; the first may be any."""
    store = Store(tmp_path)
    assert register(store, changed(version=4))
    for version in (3, 6):
        with pytest.raises(ConfigError, match=f"up to version 4; version {version} is not the next") as error:
            register(store, changed(version=version))
        assert (error.value.code, error.value.hint) == ("bad-version", "Set version = 5.")
    assert register(store, changed(version=5))
    assert not register(store, changed(version=4))
    assert latest(store, "demo").version == 5


def test_units_of_an_experiment_in_force_are_taken(tmp_path: Path) -> None:
    """Only the last version of what is not stopped counts; what is stopped comes back only if its units are free."""
    store = Store(tmp_path)
    first, half = changed(namespace=Namespace("asr", (0, 1))), changed(version=2, namespace=Namespace("asr", (0, 0.5)))
    other = changed(name="other", namespace=Namespace("asr", (0.5, 1)))
    register(store, first)
    with pytest.raises(ConfigError, match="ranges overlap"):
        register(store, other)
    assert set(registered(store)) == {("demo", 1)}
    register(store, half)
    assert register(store, other)
    third = changed(name="third", namespace=Namespace("asr", (0.4, 0.5)))
    kill(tmp_path, half, "test")
    assert register(store, third)
    with pytest.raises(ConfigError, match="'demo' and 'third'"):
        check_exclusive(store, half)


def test_of_two_that_register_at_once_one_wins(tmp_path: Path) -> None:
    """Eight threads with two configurations of one version: one configuration stays, the other is refused."""
    store = Store(tmp_path)
    results: list[str] = []

    def attempt(number: int) -> None:
        try:
            results.append("new" if register(store, changed(question=f"{number % 2}")) else "known")
        except ConfigError as error:
            results.append(error.code)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(["changed-configuration"] * 4 + ["known"] * 3 + ["new"])


def test_namespaces_keep_experiments_apart(tmp_path: Path) -> None:
    """Overlapping ranges, or units hashed differently, are errors; other namespaces and none do not matter."""
    left = changed(namespace=Namespace("asr", (0, 0.5)))
    right = changed(name="right", namespace=Namespace("asr", (0.5, 1)))
    check_namespaces([left, right, changed(namespace=Namespace("tts", (0, 1))), changed()])
    with pytest.raises(ConfigError, match="ranges overlap"):
        check_namespaces([left, dataclasses.replace(right, namespace=Namespace("asr", (0.4, 1)))])
    with pytest.raises(ConfigError, match="differ in unit or hash"):
        check_namespaces([left, dataclasses.replace(right, hash="growthbook-v2")])
    written(tmp_path, TEXT + '[namespace]\nname = "n"', "one")
    written(tmp_path, TEXT + '[namespace]\nname = "n"', "two")
    with pytest.raises(ConfigError, match="Experiments 'one' and 'two'"):
        load_experiments(tmp_path)


def test_power_agrees_with_published_numbers() -> None:
    """Two-sample t, paired t, proportions, and the tuning of the normal mixture."""
    assert round(two_sample_units(0.2), 4) == 393.4057
    assert round(paired_units(0.1), 4) == 786.8089
    assert round(proportion_units(0.085, 0.063), 2) == 2210.69
    assert round(100 / (100 * tuning(100, 0.05) ** 2), 5) == 12.60056


def test_the_tuning_is_the_best_one_for_the_planned_number() -> None:
    """No other tuning gives a sequence that is narrower by a hundredth at the planned n."""

    def width(rho: float, n: int) -> float:
        u = n * rho**2
        return math.sqrt(2 * (u + 1) / (n * u) * math.log(math.sqrt(u + 1) / 0.05))

    best = width(tuning(2_000, 0.05), 2_000)
    assert all(best <= 1.001 * width(tuning(2_000, 0.05) * factor, 2_000) for factor in (0.2, 0.7, 0.9, 1.1, 1.5, 5))
    for units, alpha in ((0, 0.05), (10, 0), (10, 0.7)):
        with pytest.raises(ConfigError):
            tuning(units, alpha)


def planned(power: Power, **fields: Any) -> Any:
    """The plan of an experiment with a power plan; enrolment is complete at once unless said otherwise."""
    return plan(changed(power=power, **{"ramp": Ramp((1.0,)), **fields}))


def test_a_plan_says_units_and_days() -> None:
    """A covariate and a pairing save units, the ramp and the holdout cost days, the criteria are the least."""
    power = Power(effect=0.1, units_per_day=1000, sd=1)
    base = planned(power)
    assert base.fixed_control == pytest.approx(two_sample_units(0.1))
    assert base.total == 2 * base.control
    assert base.days == pytest.approx(base.total / 1000)
    assert base.rho == pytest.approx(tuning(base.control, base.alpha))
    explained = planned(dataclasses.replace(power, correlation=0.6))
    assert explained.control == pytest.approx(base.control * (1 - 0.36), rel=1e-3)
    paired = planned(dataclasses.replace(power, correlation=0.9, design="paired"))
    assert paired.total == paired.control == pytest.approx(base.control * 0.1, rel=1e-2)
    assert paired.fixed_control == pytest.approx(paired_units(0.1 / math.sqrt(0.2)))
    assert planned(power, success=Success(min_days=99)).days == 99
    half = planned(power, namespace=Namespace("n", (0, 0.5)))
    assert half.days == pytest.approx(2 * base.days)
    slow = planned(power, ramp=Ramp((0.5, 1.0), days=2))
    assert slow.days == pytest.approx(base.days + 1)
    early = planned(power, ramp=Ramp((0.9, 1.0), days=99))
    assert early.days == pytest.approx(base.days / 0.9)
    three = planned(power, arms=(Arm("a", 0.5, "m"), Arm("b", 0.25, "m"), Arm("c", 0.25, "m")))
    assert three.alpha == pytest.approx(0.025)
    assert three.control > base.control
    happened = Metric("kept", "proportion", "higher", "kept")
    share = planned(Power(0.022, 1000, baseline=0.063), metrics=(happened,))
    assert share.fixed_control == pytest.approx(2210.69, abs=0.01)
    assert share.control > share.fixed_control
    with pytest.raises(ConfigError, match="no power plan"):
        plan(changed())
    with pytest.raises(ValueError, match="out of"):
        planned(Power(0.7, 1000, baseline=0.6), metrics=(happened,))


@pytest.mark.parametrize("name", ["assignment", "events", "growthbook", "power", "rare", "registry"])
def test_the_examples_of_a_module_are_true(name: str) -> None:
    """Docstrings show what the code does."""
    found = doctest.testmod(importlib.import_module(f"grym.experiment.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
