"""Finding adapters, checking their options, and the identity of weights."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from grym.config import ModelSpec
from grym.errors import AudioError, ConfigError, ModelError, ResourceError
from grym.models import AudioClip, Options, build_options, find_adapter, known_adapters, load_model, revision_hash
from grym.models.fake import FakeModel, FakeOptions
from grym.models.registry import check_model

TOY = """
from dataclasses import dataclass
from grym.models.fake import FakeModel

@dataclass(frozen=True)
class ToyOptions:
    depth: int
    name: str = "toy"

class Toy(FakeModel):
    options_type = ToyOptions
    def __init__(self, spec, options):
        self.options = options

class Naked:
    pass
"""


def fake(**options):
    """A fake model; the script may be a mapping."""
    if isinstance(options.get("script"), dict):
        options["script"] = json.dumps(options["script"])
    return load_model(ModelSpec(name="f", adapter="fake", options=options))


def clip(name="a", seconds=0.5, seed=0):
    """A clip of seeded noise at 16 kHz."""
    samples = np.random.default_rng(seed).normal(size=int(seconds * 16_000)).astype(np.float32)
    return AudioClip(name, samples, 16_000)


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A folder on the path, as [plugins] puts it there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("toy_plugin", "broken_plugin", "hungry_plugin", "refusing_plugin"):
        sys.modules.pop(name, None)


def test_built_in_adapters_resolve_without_an_installed_package():
    """Both built-in names are known, and the fake is built with its defaults."""
    assert {"fake", "wav2vec2"} <= set(known_adapters())
    assert fake().card.adapter == "fake"
    assert find_adapter("fake") is FakeModel


def test_an_unknown_adapter_names_the_known_ones():
    """The message lists what could have been meant."""
    with pytest.raises(ConfigError, match="known are audio_lm, clap, fake, gama, seq2seq, wav2vec2") as caught:
        load_model(ModelSpec(name="x", adapter="whisper"))
    assert caught.value.code == "unknown-adapter"


def test_an_entry_point_of_an_installed_package_extends_the_built_ins(plugins):
    """A distribution on the path brings an adapter, and cannot replace a built-in one."""
    (plugins / "toy_plugin.py").write_text(TOY)
    info = plugins / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[grym.models]\ntoy = toy_plugin:Toy\nfake = toy_plugin:Toy\n")
    assert "toy" in known_adapters()
    model = load_model(ModelSpec(name="t", adapter="toy", options={"depth": 3}))
    assert (model.options.depth, model.options.name) == (3, "toy")
    assert find_adapter("fake") is FakeModel


def test_a_plugin_is_named_by_module_and_class(plugins):
    """package.module:Class needs no entry point."""
    (plugins / "toy_plugin.py").write_text(TOY)
    model = load_model(ModelSpec(name="t", adapter="toy_plugin:Toy", options={"depth": 1, "name": "n"}))
    assert model.options.name == "n"


@pytest.mark.parametrize(
    ("adapter", "kind", "code"),
    [
        ("no_such_module:Toy", ConfigError, "unknown-adapter"),
        ("toy_plugin:Nothing", ConfigError, "unknown-adapter"),
        ("toy_plugin:", ConfigError, "unknown-adapter"),
        ("toy_plugin:Naked", ConfigError, "bad-adapter"),
        ("broken_plugin:Toy", ModelError, "adapter-import"),
        ("hungry_plugin:Toy", MemoryError, None),
        ("refusing_plugin:Toy", AudioError, "audio"),
    ],
)
def test_a_broken_adapter_is_a_typed_error(plugins, adapter, kind, code):
    """What is wrong with the adapter decides the kind and the code."""
    (plugins / "toy_plugin.py").write_text(TOY)
    (plugins / "broken_plugin.py").write_text("1 / 0")
    (plugins / "hungry_plugin.py").write_text("raise MemoryError")
    (plugins / "refusing_plugin.py").write_text("from grym.errors import AudioError\nraise AudioError('no')")
    with pytest.raises(kind) as caught:
        load_model(ModelSpec(name="t", adapter=adapter))
    assert getattr(caught.value, "code", None) == code


def test_an_unknown_option_names_the_right_ones():
    """The hint lists all options with their defaults."""
    with pytest.raises(ConfigError, match="'sed', 'speed' of model 'f'") as caught:
        fake(speed="high", sed=1)
    assert caught.value.code == "unknown-option"
    assert "seed=0" in caught.value.hint


def test_a_wrong_option_says_what_is_wrong():
    """The message names the option and the rule it broke."""
    with pytest.raises(ConfigError, match="seed: input should be a valid integer") as caught:
        fake(seed="many")
    assert caught.value.code == "wrong-option"
    with pytest.raises(ConfigError, match="'low', 'standard' or 'high'"):
        build_options(Options, {"quality": "best"}, "the request")


def test_a_required_option_is_named_as_such():
    """A missing option is an error whose hint marks it as required."""

    @dataclass(frozen=True)
    class Strict:
        path: str

    with pytest.raises(ConfigError, match="path: field required") as caught:
        build_options(Strict, {}, "model 's'")
    assert "path (required)" in caught.value.hint
    assert build_options(Strict, {"path": "p"}, "model 's'") == Strict("p")


def test_revision_hash_depends_on_contents_and_facts_only(tmp_path):
    """Place and name of a file do not count; one byte or one fact does."""
    (tmp_path / "x").mkdir()
    one, same, other = tmp_path / "a.bin", tmp_path / "x" / "b.bin", tmp_path / "c.bin"
    one.write_bytes(b"weights")
    same.write_bytes(b"weights")
    other.write_bytes(b"weighty")
    base = revision_hash([one], {"a": 1, "b": 2})
    assert base == revision_hash([same], {"b": 2, "a": 1})
    assert len({base, revision_hash([other], {"a": 1, "b": 2}), revision_hash([one], {"a": 1, "b": 3})}) == 3
    assert len(base) == 16
    assert int(base, 16) >= 0


def test_revision_hash_of_a_missing_file_is_a_model_error(tmp_path):
    """The message names the file, not its folder."""
    with pytest.raises(ModelError, match=r"^gone\.bin of the model") as caught:
        revision_hash([tmp_path / "gone.bin"], {})
    assert str(tmp_path) not in str(caught.value)


def test_the_fake_follows_its_script():
    """Clip id goes before place, place before the wildcard; unknown clips get the empty text."""
    model = fake(script={"*": "any", "#1": "second", "c": {"text": "three four", "confidence": 0.25}})
    answers = model.process([clip("a"), clip("b"), clip("c")], Options(features=True))
    assert [a.text for a in answers] == ["any", "second", "three four"]
    assert [(s.text, s.start, s.end) for s in answers[2].segments] == [("three", 0.0, 0.25), ("four", 0.25, 0.5)]
    assert answers[2].confidence == 0.25
    assert answers[0].features.shape == (8,)
    assert fake().process([clip()], Options(segments=False))[0].text == ""


def test_the_fakes_errors_are_seeded_and_batch_invariant():
    """A clip gets the same errors alone and in a batch; another seed gives others; the rate is about right."""
    script = {"*": " ".join(["one", "two", "three"] * 100)}
    clips = [clip(str(n)) for n in range(3)]
    noisy = fake(script=script, error_rate=0.2, seed=1)
    together = [a.text for a in noisy.process(clips, Options())]
    assert together == [noisy.process([c], Options())[0].text for c in clips]
    assert len(set(together)) == 3
    assert together != [a.text for a in fake(script=script, error_rate=0.2, seed=2).process(clips, Options())]
    right = fake(script=script).process(clips, Options())[0].text
    assert right == script["*"]
    assert noisy.card.revision != fake(script=script).card.revision


def test_the_fakes_features_and_measurements_come_from_the_samples():
    """Same samples, same vector; silence is finite and not zero; measurements of known values."""
    model = fake(feature_dim=5)
    matrix = model.features([clip(seed=1), clip(seed=2), clip(seed=1)])
    assert matrix.shape == (3, 5)
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix[0], matrix[2])
    assert not np.array_equal(matrix[0], matrix[1])
    silent = AudioClip("s", np.zeros(3, np.float32), 16_000)
    assert (model.features([silent]) > 0).all()
    square = AudioClip("q", np.tile(np.float32([0.5, -0.5]), 500), 1000)
    assert model.analyze([square], "basic") == [{"seconds": 1.0, "rms": 0.5, "peak": 0.5}]
    assert model.analyze([square], "advanced")[0]["zero_crossings_per_second"] == 999
    empty = AudioClip("e", np.zeros(0, np.float32), 16_000)
    assert model.analyze([empty], "advanced")[0]["zero_crossings_per_second"] == 0
    assert model.ping()["status"] == "ok"
    model.close()


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        ({"do": "raise", "category": "audio", "code": "odd", "retryable": True}, AudioError),
        ({"do": "raise", "category": "resource"}, ResourceError),
        ({"do": "bug"}, ValueError),
        ({"do": "memory"}, MemoryError),
        ({"do": "exit"}, SystemExit),
    ],
)
def test_the_fake_fails_as_scripted(rule, kind):
    """A rule raises in process and, under the operation's name, everywhere else."""
    with pytest.raises(kind):
        fake(script={"*": rule}).process([clip()], Options())
    with pytest.raises(kind):
        fake(script={"load": rule})
    with pytest.raises(kind):
        fake(script={"features": rule}).features([clip()])


def test_the_fake_spoils_answers_as_scripted(capfd):
    """Each way to spoil an answer does what it says."""
    answers = fake(script={"a": {"do": "too-few"}, "b": {"do": "wrong-id"}, "c": {"do": "nan"}}).process(
        [clip("a"), clip("b"), clip("c")], Options()
    )
    assert len(answers) == 2
    assert answers[0].clip_id == "somebody-else"
    assert np.isnan(answers[1].confidence)
    failed = fake(script={"*": {"do": "fail", "category": "audio", "code": "odd"}}).process([clip()], Options())[0]
    assert (failed.text, failed.error.code) == (None, "odd")
    assert isinstance(fake(script={"*": {"do": "junk"}}).process([clip()], Options())[0], dict)
    assert fake(script={"*": {"do": "print", "text": "x"}}).process([clip()], Options())[0].text == "x"
    assert "hello" in capfd.readouterr().out


def test_a_rule_can_hold_for_the_first_calls_only(tmp_path):
    """The count is kept in a file, so a new model goes on counting."""
    options = {"script": {"a": {"do": "bug", "first": 2, "text": "fine"}}, "state": str(tmp_path / "state")}
    for _ in range(2):
        with pytest.raises(ValueError, match="weights"):
            fake(**options).process([clip()], Options())
    assert fake(**options).process([clip()], Options())[0].text == "fine"


@pytest.mark.parametrize(
    ("script", "match"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"a": 3}', "neither a text nor an object"),
        ('{"a": {"do": "dance"}}', "rule 'a'"),
        ('{"a": {"when": 1}}', "Unknown option 'when'"),
        ('{"a": {"first": 1}}', "needs the option state"),
    ],
)
def test_a_bad_script_is_a_config_error(script, match):
    """The message says what is wrong with it."""
    with pytest.raises(ConfigError, match=match):
        fake(script=script)


def test_fake_options_have_defaults():
    """The adapter contract: options_type is a dataclass, and the fake's needs no argument."""
    assert FakeModel.options_type() == FakeOptions()


def test_a_model_is_checked_without_being_built(tmp_path: Path) -> None:
    """Unknown names, wrong options and missing folders are found; a plugin's own code is not run."""
    for adapter, options, code in (
        ("nobody", {}, "unknown-adapter"),
        ("wav2vec2", {"pth": "x"}, "unknown-option"),
        ("wav2vec2", {"path": str(tmp_path / "away")}, "no-model-folder"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_model(ModelSpec(name="m", adapter=adapter, options=options))
        assert caught.value.code == code
    check_model(ModelSpec(name="m", adapter="wav2vec2", options={"path": "bundled:wav2vec2-mini"}))
    check_model(ModelSpec(name="m", adapter="not.there:Class"))
    check_model(ModelSpec(name="m", adapter="fake", options={"script": '{"load": {"do": "crash"}}'}))
