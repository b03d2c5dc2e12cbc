"""What is deployed: read, checked, said in words, and the page about it up to date."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
import yaml
from typer.testing import CliRunner

from flows.__main__ import app
from flows.cron import in_words
from flows.deploy import worker_command
from flows.deployments import FILE, ROOT, Limit, Schedule, read_deployments
from flows.snapshot import PAGE, RENEW, renew, snapshot
from grym.config import load_settings
from grym.errors import ConfigError
from tasks.policies import GLOBAL_LIMITS, POOLS, TAG_LIMITS

if TYPE_CHECKING:
    from pathlib import Path

GOOD = {
    "name": "one",
    "description": "A comparison.",
    "tags": ["comparison"],
    "entrypoint": "flows.compare.compare",
    "work_pool": {"name": "cpu"},
}


def write(folder: Path, **changes: object) -> Path:
    """A prefect.yaml with one deployment, changed."""
    entry = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "prefect-version": "3", "pull": None, "deployments": [entry]}))
    return path


def test_the_page_about_deployments_is_up_to_date() -> None:
    """docs/deployments.md is what prefect.yaml and the policies say."""
    page = snapshot(read_deployments(), load_settings(ROOT / "grym.toml"))
    assert PAGE.read_text(encoding="utf-8") == page, f"docs/deployments.md is out of date; renew it: {RENEW}"


def test_what_has_to_be_deployed_is() -> None:
    """A nightly comparison, an hourly upkeep, a comparison on demand; every one with pool, tags and a limit."""
    found = {deployment.name: deployment for deployment in read_deployments()}
    assert found["compare/nightly"].when == "every day at 03:00 UTC"
    assert found["maintain/hourly"].when == "every hour at minute 20"
    assert found["compare/on-demand"].when == "on demand"
    assert {deployment.spec.work_pool.name for deployment in found.values()} == {pool.name for pool in POOLS}
    assert all(deployment.spec.concurrency_limit for deployment in found.values())
    assert found["compare/nightly"].parameters["new"] is False
    assert {"infer", "publish"} <= set(found["compare/nightly"].tasks)


def test_every_limited_tag_is_one_that_tasks_carry() -> None:
    """A limit on a tag that no task has would guard nothing."""
    tags = {tag for deployment in read_deployments() for task in deployment.tasks.values() for tag in task.tags}
    assert set(TAG_LIMITS) - tags <= {"gpu"}  # a model's task gets it when the model runs on CUDA
    assert all(slots > 0 for slots in {**TAG_LIMITS, **GLOBAL_LIMITS}.values())


def test_the_page_names_everything_that_matters(tmp_path: Path) -> None:
    """Entry point, parameters, limit, tags, tries and waits of a small file are on the page."""
    schedules = [{"interval": 90, "slug": "often", "active": False}]
    limit = {"limit": 2, "collision_strategy": "CANCEL_NEW"}
    file = write(tmp_path, schedules=schedules, concurrency_limit=limit, parameters={"dataset": "fsdd"})
    page = snapshot(read_deployments(file), load_settings(ROOT / "grym.toml"))
    for text in (
        "| `compare/one` | every 90 s (paused) | `cpu` | 2 at a time; one more is cancelled | comparison |",
        "* Entry point: `flows.compare.compare`",
        '`dataset = "fsdd"`',
        "| `tag:gpu` | 1 |",
        "| infer | cpu or gpu, the model's device | 3, then clip by clip | 0.5, 1 |",
        "| publish | cpu, publish | 3 | 0.5, 1 |",
        "| score and test | cpu | 1 |  |",
        "deadline, resource, worker may",
    ):
        assert text in page
    target = tmp_path / "docs" / "page.md"
    assert renew(page, target)
    assert not renew(page, target)
    assert target.read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"work_pool": {"name": "tpu"}}, "the pool 'tpu'"),
        ({"entrypoint": "flows.nowhere.compare"}, "no module flows.nowhere"),
        ({"entrypoint": "flows.compare.Compared"}, "is not a flow"),
        ({"entrypoint": "flows/compare.py:compare"}, "deployments.0.entrypoint"),
        ({"parameters": {"c": 1}}, "wrong parameters"),
        ({"parameters": {"new": "perhaps"}}, "wrong parameters"),
        ({"schedule": {"cron": "* * * * *"}}, "deployments.0.schedule"),
        ({"schedules": [{"slug": "both", "cron": "* * * * *", "interval": 5}]}, "either cron or interval"),
        ({"schedules": [{"cron": "* * * * *"}]}, "slug"),
        ({"concurrency_limit": {"limit": 0}}, "greater than or equal to 1"),
        ({"description": None}, "description"),
    ],
)
def test_a_wrong_deployment_is_named(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    """Unknown keys, pools, flows and parameters are found before any server is asked."""
    with pytest.raises(ConfigError, match=r"prefect\.yaml cannot be used") as caught:
        read_deployments(write(tmp_path, **changes))
    assert says in caught.value.message
    assert "--check" in caught.value.hint


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """No file, no YAML, and one name twice are each said in words."""
    path = tmp_path / "prefect.yaml"
    with pytest.raises(ConfigError, match="no such file"):
        read_deployments(path)
    path.write_text("deployments: [")
    with pytest.raises(ConfigError, match="not YAML"):
        read_deployments(path)
    path.write_text(yaml.safe_dump({"name": "x", "prefect-version": "3", "deployments": [GOOD, GOOD]}))
    with pytest.raises(ConfigError, match="compare/one is there twice"):
        read_deployments(path)


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 3 * * *", "every day at 03:00 UTC"),
        ("5 * * * *", "every hour at minute 5"),
        ("*/15 * * * *", "every 15 minutes"),
        ("30 6 * * 1", "every Monday at 06:30 UTC"),
        ("30 6 * * 7", "every Sunday at 06:30 UTC"),
        ("0 0 1 * *", "by the clock of UTC at `0 0 1 * *`"),
        ("@daily", "by the clock of UTC at `@daily`"),
    ],
)
def test_a_schedule_is_said_in_words(cron: str, words: str) -> None:
    """What has no words is shown as it is written."""
    assert in_words(cron, "UTC") == words
    assert Schedule(slug="s", cron=cron).words == words
    assert Limit(limit=1).words == "1 at a time; one more waits"


def test_the_command_of_a_worker_carries_home_and_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be pasted into a shell, blanks in a path included."""
    monkeypatch.setenv("GRYM_HOME", "my home")
    monkeypatch.delenv("GRYM_CONFIG", raising=False)
    words = shlex.split(worker_command("gpu", "http://host/api"))
    assert words[:2] == ["PREFECT_API_URL=http://host/api", "GRYM_HOME=my home"]
    assert words[3:] == ["-m", "prefect", "worker", "start", "--pool", "gpu", "--type", "process"]


@pytest.mark.parametrize("option", ["--check", "--dry-run"])
def test_the_command_line_shows_what_would_be_deployed(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server and without writing anything, the page is printed."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    done = CliRunner().invoke(app, ["deploy", option])
    assert done.exit_code == 0, done.output
    assert done.output == snapshot(read_deployments(FILE), load_settings(ROOT / "grym.toml"))


def test_the_command_line_leaves_a_page_alone_that_is_up_to_date() -> None:
    """Nothing is written, so that a build that looks at times is not misled."""
    assert PAGE.read_text(encoding="utf-8") == snapshot(read_deployments(), load_settings(ROOT / "grym.toml")), RENEW
    before = PAGE.stat().st_mtime_ns
    done = CliRunner().invoke(app, ["deploy", "--snapshot"])
    assert "Up to date: docs/deployments.md" in done.output
    assert PAGE.stat().st_mtime_ns == before
