"""What is tried when a call fails: strategies, waits, splits, and what they are configured to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from grym._resilience_settings import CATEGORIES, RecoverySettings
from grym.errors import (
    SUGGESTIONS,
    Category,
    ConfigError,
    DeadlineError,
    ErrorRecord,
    GrymError,
    ModelError,
    ResourceError,
)
from grym.errors import WorkerError as Died
from grym.parts import full
from grym.resilience.recovery import DEFAULTS, Attempt, Failure, Recovery, decide, find_strategy, tried_again

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FEW = RecoverySettings(attempts=3, base_seconds=0.5, max_seconds=0.8)


def always(failure: Failure) -> str:
    """A strategy of a plugin that never gives up."""
    return "retry"


def odd(failure: Failure) -> str:
    """A strategy that says what nobody knows."""
    return "pray"


class Script:
    """Fails as long as errors are left, and on poison; remembers what it was asked."""

    def __init__(self, *errors: BaseException, poison: str = "") -> None:
        self.errors, self.poison = list(errors), poison
        self.asked: list[str] = []
        self.told: list[Attempt] = []
        self.slept: list[float] = []
        self.restarts = 0

    def ask(self, items: Sequence[str]) -> list[str]:
        """Upper case, unless it fails."""
        self.asked.append("".join(items))
        if self.errors:
            raise self.errors.pop(0)
        if self.poison and self.poison in items:
            message = "It died."
            raise Died(message)
        return [item.upper() for item in items]

    def restart(self) -> None:
        """Count."""
        self.restarts += 1

    def run(self, items: str, settings: RecoverySettings = FEW, seconds: float = 1e9) -> list[str | GrymError]:
        """Recover a call about some letters."""
        recovery = Recovery(
            self.ask, settings, restart=self.restart, tell=self.told.append, sleep=self.slept.append, seconds=seconds
        )
        return recovery.run(items)


def test_what_may_pass_is_tried_again_after_a_random_wait() -> None:
    """Two failures, two waits within their bounds, then the answer; every try is told."""
    waits = set()
    for _ in range(8):
        script = Script(Died("It died."), Died("It died."))
        assert script.run("ab") == ["A", "B"]
        assert [(told.attempt, told.action) for told in script.told] == [(1, "retry"), (2, "retry"), (3, "answered")]
        assert [told.delay_seconds for told in script.told[:2]] == script.slept
        assert 0 <= script.slept[0] <= 0.5
        assert 0 <= script.slept[1] <= 0.8
        waits.add(script.slept[0])
    assert len(waits) > 1


def test_one_clip_does_not_take_the_others_along() -> None:
    """After the last try the call is halved until the bad clip is alone."""
    script = Script(poison="c")
    found = script.run("abcd", RecoverySettings(attempts=1))
    assert [found[0], found[1], found[3]] == ["A", "B", "D"]
    assert isinstance(found[2], Died)
    assert script.asked == ["abcd", "ab", "cd", "c", "d"]
    assert [(told.path, told.action) for told in script.told] == [("", "split"), ("1", "split"), ("10", "give up")]


def test_too_much_for_the_memory_is_halved_at_once() -> None:
    """The same size would be too much again; a full disk is the same disk for both halves."""
    script = Script(ResourceError("Too much."))
    assert script.run("abcd") == list("ABCD")
    assert script.asked == ["abcd", "ab", "cd"]
    assert script.slept == []
    script = Script(full("Full."))
    assert {getattr(error, "code", "") for error in script.run("abcd")} == {"disk-full"}
    assert script.asked == ["abcd"]


def test_what_does_not_pass_is_not_tried_again() -> None:
    """A single clip, an error that stays: one call. A defect is raised as it is."""
    script = Script(ModelError("Bad weights."))
    assert isinstance(script.run("a")[0], ModelError)
    assert script.asked == ["a"]
    with pytest.raises(ZeroDivisionError):
        Script(ZeroDivisionError()).run("a")


def test_no_wait_outlives_the_budget() -> None:
    """With less time than the longest wait there is no second try."""
    script = Script(Died("It died."))
    assert isinstance(script.run("a", seconds=0.1)[0], Died)
    assert script.slept == []
    assert script.told[0].action == "give up"


def test_strategies_are_replaced_by_configuration() -> None:
    """A built-in by name, a function by its path; one that never gives up is stopped after the last try."""
    settings = RecoverySettings(attempts=2, strategies={"model": "restart", "worker": f"{__name__}:always"})
    script = Script(ModelError("Bad."))
    assert script.run("a", settings) == ["A"]
    assert script.restarts == 1
    script = Script(*[Died("It died.", retryable=False)] * 9)
    assert isinstance(script.run("a", settings)[0], Died)
    assert len(script.asked) == 2
    script = Script(Died("It died."))
    assert isinstance(script.run("a", RecoverySettings(strategies={"worker": "give-up"}))[0], Died)
    assert len(script.asked) == 1


@pytest.mark.parametrize("name", ["nothing", "no.such.module:f", f"{__name__}:missing", "json:__doc__"])
def test_an_unknown_strategy_names_the_known_ones(name: str) -> None:
    """A typo is found with the list of what there is."""
    with pytest.raises(ConfigError, match="known are give-up, restart, retry") as caught:
        find_strategy(name)
    assert caught.value.code == "unknown-strategy"


def test_an_installed_package_offers_strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point group ``grym.strategies`` is the door; its name stands in grym.toml like a built-in one."""
    info = tmp_path / "patience-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: patience\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[grym.strategies]\npatient = patience_plugin:patient\n")
    (tmp_path / "patience_plugin.py").write_text("def patient(failure):\n    return 'retry'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = RecoverySettings(attempts=3, base_seconds=0.0, strategies={"config": "patient"})
    script = Script(*[ConfigError("Wrong.")] * 2)
    assert script.run("a", settings) == ["A"]
    assert len(script.asked) == 3


def test_an_unknown_action_or_category_is_named() -> None:
    """What a plugin or a person gets wrong is said."""
    failure = Failure(Died("It died.").record(), 1, 3, 1)
    with pytest.raises(ConfigError, match="'pray'"):
        decide(failure, RecoverySettings(strategies={"worker": f"{__name__}:odd"}))
    with pytest.raises(ValidationError, match="wroker should be one of"):
        RecoverySettings(strategies={"wroker": "retry"})


def test_every_category_has_a_strategy_and_a_suggestion() -> None:
    """Nothing is left to chance; an error without a hint still says what to do, and an unknown one too."""
    assert set(DEFAULTS) == set(Category) == set(SUGGESTIONS) == set(CATEGORIES)
    assert all(text.endswith(".") for text in SUGGESTIONS.values())
    assert Died("x").suggestion == SUGGESTIONS["worker"]
    assert Died("x", hint="Mend it.").suggestion == "Mend it."
    assert ErrorRecord("novel", "c", "m").suggestion == SUGGESTIONS["internal"]


def test_other_loops_ask_the_same_strategies() -> None:
    """Prefect tries again what the strategies would: by default what may pass."""
    assert tried_again(Died("x"), FEW)
    assert not tried_again(Died("x", retryable=False), FEW)
    assert tried_again(ModelError("x"), RecoverySettings(strategies={"model": "restart"}))
    assert not tried_again(Died("x"), RecoverySettings(strategies={"worker": "give-up"}))


def test_prefect_tries_again_as_grym_toml_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The condition of every task asks the configured strategy; a defect is never tried again."""
    from tasks.policies import retry_by_category

    class State:
        """A failed task run."""

        def __init__(self, error: Exception) -> None:
            self.error = error

        def result(self) -> None:
            """Raise, as Prefect's states do."""
            raise self.error

    file = tmp_path / "grym.toml"
    file.write_text('[recovery]\nstrategies = { deadline = "give-up" }\n')
    monkeypatch.setenv("GRYM_CONFIG", str(file))
    assert retry_by_category(None, None, State(Died("x")))
    assert not retry_by_category(None, None, State(DeadlineError("x")))
    assert not retry_by_category(None, None, State(ZeroDivisionError()))
    file.unlink()
    assert retry_by_category(None, None, State(DeadlineError("x")))
