"""The flows of live experiments on a real Prefect server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.audit import audit
from flows.experiment import experiment
from grym.experiment.control import read_state
from grym.experiment.loading import find_experiment
from grym.experiment.simulator import Simulator, Traffic, synthetic
from grym.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TOML = """
version = 1
unit = "user"
arms = [{ name = "a", share = 0.5, model = "one" }, { name = "b", share = 0.5, model = "two" }]
metrics = [{ name = "wer", kind = "ratio", direction = "lower", value = "errors", weight = "words", margin = 0.01 }]
"""


def test_decide_and_audit(tmp_path: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worse treatment is rolled back and stopped at once; the audit lands rates; both leave pages in Prefect."""
    import httpx

    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "demo.toml").write_text(TOML, encoding="utf-8")
    (tmp_path / "grym.toml").write_text("", encoding="utf-8")
    monkeypatch.setenv("GRYM_CONFIG", str(tmp_path / "grym.toml"))
    monkeypatch.setenv("GRYM_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    store, config = Store(tmp_path / "var"), find_experiment(tmp_path, "demo")
    Simulator(config, synthetic(config, factor=2.0), Traffic(500), looks=1).through_store(store, 1)
    made = experiment(name="demo", looks=2, act=True)
    assert (made.decision.verdict, made.decision.arm, made.stopped) == ("ROLLBACK", "b", True)
    assert read_state(store.home, config).killed
    assert "ROLLBACK" in made.page.read_text(encoding="utf-8")
    done = audit(name="demo", replicates=5, units=200, looks=2, seed=1)
    assert done.alerts == len(done.audit.broken)
    with store.connect() as warehouse:
        assert warehouse.sql("SELECT verdict FROM decisions").fetchall() == [("ROLLBACK",)]
        assert warehouse.sql("SELECT count(*) FROM aa_audits").fetchall() == [(4,)]
    wanted = {"artifacts": {"key": {"any_": ["experiment-demo", "audit-demo"]}}}
    found: list[dict[str, Any]] = httpx.post(f"{prefect_url}/artifacts/filter", json=wanted).json()
    assert {artifact["key"] for artifact in found} == {"experiment-demo", "audit-demo"}
