"""The main job for real: command line, Prefect server, workers, stores; killed and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
import polars as pl
import pytest
import soundfile

from grym.store import Store
from tests.support import assert_same, end, kill, parts, run_id, wait, workers

Rows = Callable[..., list[dict[str, str]]]
Write = Callable[..., Path]


def test_two_real_models_are_compared_and_everything_is_left_behind(
    project: Any, digits: tuple[Rows, Write], prefect_url: str
) -> None:
    """Verdict on the terminal, queryable warehouse and views, report, features, task runs and artifacts in Prefect."""
    rows, write = digits
    manifest = write(project.folder / "set", rows(48, step=9))
    done = project.run("compare", "--a", "mini", "--b", "mini-int8", "--dataset", str(manifest))
    assert "WER %" in done.stdout
    assert "warehouse.duckdb" in done.stdout
    assert "Traceback" not in done.stderr
    run = run_id(project.home)
    with duckdb.connect(str(project.home / "warehouse.duckdb"), read_only=True) as warehouse:
        summary = warehouse.sql("SELECT * FROM ab_summary").pl()
        assert summary.height == 1
        assert warehouse.sql("SELECT count(*) FROM outcomes WHERE status = 'ok'").fetchall() == [(96,)]
        assert warehouse.sql("SELECT count(*) FROM ab_clips").fetchall() == [(48,)]
        slices = {row[0] for row in warehouse.sql("SELECT DISTINCT slice FROM ab_by_slice").fetchall()}
        assert {"noise", "length", "speaker"} <= slices
        suites = {row[0] for row in warehouse.sql("SELECT DISTINCT suite FROM quality").fetchall()}
        assert suites == {"input_audio", "transcription", "features", "response_time"}
    page = (project.home / "reports" / f"{run}.html").read_text(encoding="utf-8")
    assert "mini-int8" in page
    assert (project.home / "reports" / "index.html").is_file()
    assert (project.home / "datadocs" / run / "index.html").is_file()
    flow_run = Store(project.home).runs()["flow_run_id"][0]
    query = {"flow_runs": {"id": {"any_": [flow_run]}}}
    names = [task["name"] for task in httpx.post(f"{prefect_url}/task_runs/filter", json=query).json()]
    assert sum(name.startswith("mini ") for name in names) == sum(name.startswith("mini-int8 ") for name in names) == 8
    assert {"publish", "report", "score and test", "measure latency", "check audio"} <= {
        n.rsplit("-", 1)[0] for n in names
    }
    artifacts = httpx.post(f"{prefect_url}/artifacts/filter", json={}).json()
    assert {"table", "markdown"} <= {item["type"] for item in artifacts if run in (item["key"] or "")}
    key = rows(48, step=9)[3]["id"]
    found = project.run("search", key, "--model", "mini", "-k", "3")
    assert found.stdout.count("test-") >= 3
    by_file = project.run("search", str(manifest.parent / rows(48, step=9)[3]["audio_filepath"]), "--model", "mini")
    assert "1.0000" in by_file.stdout
    assert "unknown-clip" not in project.run("search", "nothing-like-it", "--model", "mini", code=2).stdout


def test_a_degraded_arm_is_worse_and_identical_arms_never_are(project: Any, digits: tuple[Rows, Write]) -> None:
    """Noise on the weights is found; a model against itself is not better than itself."""
    rows, write = digits
    project = project.bare()
    manifest = str(write(project.folder / "set", rows(64, step=5)))
    worse = project.run("compare", "--a", "mini", "--b", "mini-degraded", "--dataset", manifest)
    assert "a better" in worse.stdout
    few = str(write(project.folder / "few", rows(12, step=5)))
    same = project.run("compare", "--a", "mini", "--b", "mini", "--dataset", few)
    comparison = Store(project.home).read("comparisons").filter(pl.col("metric") == "wer").sort("run_id")
    assert set(comparison["verdict"]) <= {"a better", "equivalent", "cannot tell"}
    twin = comparison.filter(pl.col("arm_b") == "mini")
    assert twin["difference"].to_list() == [0.0]
    assert twin["verdict"][0] in {"equivalent", "cannot tell"}
    assert "better:" not in same.stdout


def test_bad_input_is_quarantined_with_its_reason_and_the_run_goes_on(project: Any, digits: tuple[Rows, Write]) -> None:
    """Every kind of bad clip and row has its own reason; the good ones are compared."""
    rows, write = digits
    good = rows(8, step=5)
    manifest = write(project.folder / "set", good)
    audio = manifest.parent / "audio"
    speech = soundfile.read(audio / Path(good[0]["audio_filepath"]).name, dtype="float32")[0]
    (audio / "text.wav").write_text("this is no audio", encoding="utf-8")
    (audio / "empty.wav").touch()
    soundfile.write(audio / "none.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(audio / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(audio / "rate.wav", speech, 1_000)
    soundfile.write(audio / "wide.wav", np.zeros((16_000, 8), np.float32) + 0.1, 16_000)
    soundfile.write(audio / "tiny.wav", speech[:160], 16_000)
    soundfile.write(audio / "silence.wav", np.zeros(16_000, np.float32), 16_000)
    soundfile.write(audio / "long.flac", np.zeros(2 * 3600 * 4_000, np.int16), 4_000)
    bad = ["text", "empty", "none", "nan", "rate", "wide", "tiny", "silence"]
    with manifest.open("a", encoding="utf-8") as stream:
        columns = list(good[0])
        for row in (
            *({"id": name, "audio_filepath": f"audio/{name}.wav", "text": "one"} for name in bad),
            {"id": "long", "audio_filepath": "audio/long.flac", "text": "one"},
            {"id": "gone", "audio_filepath": "audio/gone.wav", "text": "one"},
            {"id": "mute", "audio_filepath": good[0]["audio_filepath"], "text": ""},
            {"id": good[1]["id"], "audio_filepath": good[1]["audio_filepath"], "text": "one"},
            {"id": "away", "audio_filepath": "../../../etc/passwd", "text": "one"},
            {"id": "twin", "audio_filepath": good[2]["audio_filepath"], "text": "one"},
        ):
            stream.write(",".join(row.get(column, "") for column in columns) + "\n")
    done = project.run("compare", "--a", "mini", "--b", "mini-int8", "--dataset", str(manifest))
    quarantine = Store(project.home).read("quarantine")
    codes = dict(zip(quarantine["key"], quarantine["code"], strict=True))
    expected = {
        "text": "not-audio", "empty": "empty-file", "none": "no-samples", "nan": "not-finite", "rate": "bad-rate",
        "wide": "too-many-channels", "tiny": "too-short", "silence": "silent", "long": "too-long",
        "gone": "missing-file", "twin": "duplicate-audio",
    }  # fmt: skip
    assert {key: codes.get(key) for key in expected} == expected
    assert {"missing-text", "duplicate-id", "outside-dataset"} <= set(codes.values())
    assert Store(project.home).read("outcomes").filter(pl.col("status") == "ok").height == 2 * len(good)
    assert "Quarantine: " in done.stdout
    assert str(project.folder) not in " ".join(quarantine["message"])


@pytest.mark.chaos
def test_a_flow_killed_midway_is_resumed_to_the_same_result(project: Any, digits: tuple[Rows, Write]) -> None:
    """SIGKILL of the flow, then the same command: same tables, finished batches untouched."""
    project = project.bare()
    rows, write = digits
    manifest = str(write(project.folder / "set", rows(32, step=9)))
    project.models(
        left={"script": '{"*": "one two"}', "error_rate": 0.2, "latency_seconds": 0.1},
        right={"script": '{"*": "one three"}', "error_rate": 0.3, "seed": 4, "latency_seconds": 0.1},
    )
    command = ("compare", "--a", "left", "--b", "right", "--dataset", manifest)
    whole = project.at("whole")
    whole.run(*command)
    total = len(parts(whole.home))
    killed = project.at("killed")
    flow = killed.start(*command)
    wait(lambda: len(parts(killed.home)) >= 0.4 * total)
    kill(flow)
    before = parts(killed.home)
    assert 0 < len(before) < total
    resumed = killed.run(*command)
    assert "resumed" in resumed.stdout
    after = parts(killed.home)
    assert {name: after[name] for name in before} == before
    assert_same(whole.home, killed.home)
    calls = Store(killed.home).read("operations").filter(pl.col("pass") == "throughput")
    assert calls.height == calls.select("arm", "call").unique().height == total


@pytest.mark.chaos
def test_a_run_killed_after_its_last_batch_only_finishes(project: Any, digits: tuple[Rows, Write]) -> None:
    """SIGKILL between scoring and report: the next run repeats no batch and leaves warehouse and report."""
    project = project.bare()
    rows, write = digits
    manifest = str(write(project.folder / "set", rows(12)))
    project.models(left={"script": '{"*": "one"}'}, right={"script": '{"*": "two"}'})
    command = ("compare", "--a", "left", "--b", "right", "--dataset", manifest)
    flow = project.start(*command)
    wait(lambda: list(project.home.glob("landing/comparisons/*/*/*.parquet")))
    kill(flow)
    before = parts(project.home)
    assert not list((project.home / "reports").glob("*.html")), "the flow was faster than the kill"
    project.run(*command)
    assert parts(project.home) == before
    assert (project.home / "reports" / f"{run_id(project.home)}.html").is_file()
    again = project.run(*command)
    assert "-2" in again.stdout
    assert len(parts(project.home)) == 2 * len(before)


def test_a_worker_killed_in_a_call_costs_a_retry_and_nothing_else(project: Any, digits: tuple[Rows, Write]) -> None:
    """SIGKILL of a child in the middle: the batch is tried again, an attempt is recorded, no clip is lost."""
    project = project.bare()
    rows, write = digits
    manifest = str(write(project.folder / "set", rows(12)))
    # The first call that has a sixth clip, a whole batch, hangs; the file says that it has begun.
    begun = project.folder / "begun"
    script = {"*": "one two", "#5": {"do": "hang", "first": 1, "text": "one two"}}
    project.models(
        left={"script": json.dumps(script), "state": str(begun)},
        right={"script": '{"*": "one three"}'},
    )
    flow = project.start("compare", "--a", "left", "--b", "right", "--dataset", manifest)
    wait(begun.exists)
    victims = [victim for victim in workers(flow.pid) if not victim.cwd().endswith("/decode")]
    assert len(victims) == 2
    for victim in victims:
        victim.kill()
    end(flow)
    store = Store(project.home)
    assert set(store.read("outcomes")["status"]) == {"ok"}
    attempts = store.read("attempts")
    assert attempts.select("arm", "attempt", "category", "action").rows() == [("a", 1, "worker", "retry")]
    assert attempts["retryable"].all()


def test_one_clip_that_crashes_the_model_never_loses_the_others(project: Any, digits: tuple[Rows, Write]) -> None:
    """A poison clip is tried, isolated and counted as a failure; its neighbours are answered."""
    project = project.bare()
    rows, write = digits
    manifest = str(write(project.folder / "set", rows(12)))
    project.models(left={"script": '{"*": "one two"}'}, right={"script": '{"*": "one two"}'})
    project.at("first").run("compare", "--a", "left", "--b", "right", "--dataset", manifest)
    poison = Store(project.folder / "first").read("clips")["clip_id"][5]
    project.models(
        left={"script": '{"*": "one two"}'},
        right={"script": json.dumps({"*": "one two", poison: {"do": "crash"}})},
    )
    done = project.run("compare", "--a", "left", "--b", "right", "--dataset", manifest)
    outcomes = Store(project.home).read("outcomes")
    failed = outcomes.filter(pl.col("status") != "ok")
    assert failed.select("arm", "clip_id").rows() == [("b", poison)]
    assert failed["error_category"].to_list() == ["worker"]
    assert outcomes.height == 24
    assert "1 of 12" in done.stdout
    quarantine = Store(project.home).read("quarantine")
    assert quarantine["stage"].to_list() == ["model:b"]


def test_what_a_person_typed_wrong_is_one_sentence(project: Any, digits: tuple[Rows, Write]) -> None:
    """Unknown names, a model without weights, a wrong option, a locked warehouse: a sentence and exit code 2."""
    rows, write = digits
    manifest = str(write(project.folder / "set", rows(4)))
    (project.folder / "empty-model").mkdir()
    (project.folder / "empty-model" / "config.json").write_text("{}", encoding="utf-8")
    project.models(odd={"scrip": "x"})
    project.home.mkdir()
    for arguments, says in (
        (("--a", "nobody", "--dataset", manifest), "nobody"),
        (("--a", "mini", "--b", "no-weights", "--dataset", manifest), "safetensors"),
        (("--a", "mini", "--b", "odd", "--dataset", manifest), "scrip"),
    ):
        done = project.run("compare", *arguments, code=2)
        assert says in done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        assert done.stderr.startswith("error: ")
    with duckdb.connect(str(project.home / "warehouse.duckdb")):
        done = project.run("compare", "--a", "mini", "--b", "mini-int8", "--dataset", manifest, code=2)
    assert "open" in done.stderr


def test_two_tasks_are_one_comparison_that_a_kill_does_not_break(project: Any, digits: tuple[Rows, Write]) -> None:
    """Words and labels with fakes, one through a probe: killed between the runs and resumed; one page, two verdicts."""
    project = project.bare()
    rows, write = digits
    manifest = write(project.folder / "set", rows(12))
    rng = np.random.default_rng(1)
    for split, count in (("train", 6), ("test", 8)):
        folder = project.folder / split
        folder.mkdir()
        lines = ["audio_filepath,text,label"]
        for i in range(2 * count):
            low = i % 2 == 0
            time = np.arange(4000) / 16_000
            wave = 0.3 * np.sin(2 * np.pi * (300 if low else 4000) * rng.uniform(0.9, 1.1) * time)
            soundfile.write(folder / f"{i}.wav", wave + rng.normal(0, 0.01, 4000), 16_000)
            lines.append(f"{i}.wav,A tone.,{'hum' if low else 'hiss'}")
        (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    project.models(
        ears={"script": '{"*": "one two"}', "feature_dim": 32},
        talker={"script": json.dumps({"*": {"text": "hum", "confidence": 0.7}}), "tasks": "transcribe,classify"},
    )
    with (project.folder / "grym.toml").open("a", encoding="utf-8") as stream:
        for name, path, more in (
            ("words", manifest, ""),
            ("tones", "test/manifest.csv", 'task = "classify"\ntrain = "tones-train"\n'),
            ("tones-train", "train/manifest.csv", 'task = "classify"\n'),
        ):
            stream.write(f'[datasets.{name}]\nloader = "manifest"\npath = "{path}"\n{more}')
    command = ("compare", "--a", "ears", "--b", "talker", "--dataset", "words", "--dataset", "tones")
    flow = project.start_pausing("grym.compare.session:Session.open", 2, project.folder / "pause", *command)
    kill(flow)
    before = parts(project.home)
    assert before
    assert not list((project.home / "reports").glob("*.html"))
    done = project.run(*command)
    assert {name: parts(project.home)[name] for name in before} == before
    assert done.stdout.count("(resumed)") == 1
    assert "words: " in done.stdout
    assert "tones: a better: ears is better than talker" in done.stdout.replace("\n", " ")
    store = Store(project.home)
    main = {row["metric"]: row for row in store.read("comparisons").to_dicts()}
    assert (main["accuracy"]["a"], main["accuracy"]["b"]) == (1.0, 0.5)
    ends = store.runs().filter(pl.col("state") == "finished")
    assert sorted(ends["task"]) == ["classify", "transcribe"]
    (group,) = set(ends["run_group"])
    page = (project.home / "reports" / f"{group}.html").read_text(encoding="utf-8")
    assert all(f'href="{run}.html"' in page for run in ends["run_id"])
    assert store.read("probes").select("arm", "trained_on", "clips").rows() == [("a", "tones-train", 12)]
    assert set(store.read("quality").filter(pl.col("suite") == "classification")["status"]) == {"pass"}
    (project.home / "reports" / f"{group}.html").unlink()
    again = project.run(*command)  # the page of both was lost: both are finished again, nothing is asked twice
    assert again.stdout.count("(resumed)") == 2
    assert {name: parts(project.home)[name] for name in before} == before
    assert (project.home / "reports" / f"{group}.html").is_file()
