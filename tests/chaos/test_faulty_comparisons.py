"""A model breaks once in the middle of a comparison, in every way, and the clock jumps: the same tables come out."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
import pytest

from grym.store import Store
from tests.chaos.conftest import make, undisturbed
from tests.support import ROOT, assert_finished, assert_same, end, features, parts, tables, wait

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.conftest import Case

pytestmark = pytest.mark.chaos

SCRIPT = {"*": "one two", "least": 6, "times": 1}
# What a row of `attempts` has to say. What may pass is tried again; what does not is asked clip by clip at once.
AGAIN, APART = "retry", "split"
FAULTS = {
    "leak": ("", ""),  # 40 MB once, and one slow call: within what a process may take, so nothing has to be tried again
    "slow": ("", ""),
    "crash": ("worker", AGAIN),
    "exit": ("worker", AGAIN),
    "abort": ("worker", AGAIN),
    "garbage": ("worker", AGAIN),
    "wrong-reply": ("worker", AGAIN),
    "cut-header": ("worker", AGAIN),
    "cut-frame": ("deadline", AGAIN),
    "closed-pipe": ("worker", AGAIN),
    "hang": ("deadline", AGAIN),
    "too-much-memory": ("resource", APART),
    "bug": ("model", APART),
    "junk-answer": ("model", APART),
    "answer-for-nobody": ("model", APART),
    "too-few-answers": ("model", APART),
    "nan-confidence": ("model", APART),
    "nan-features": ("model", APART),
}
# A clock that is as many seconds off as a file says, for every program that asks the C library.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, now);
    if (code || id != CLOCK_REALTIME) return code;
    FILE *file = fopen(getenv("CLOCK_OFFSET"), "r");
    long offset = 0;
    if (file) { if (fscanf(file, "%ld", &offset) != 1) offset = 0; fclose(file); }
    now->tv_sec += offset;
    return code;
}
"""


def _write(case: Case, deed: str) -> Case:
    """Let the first model of a case do that, once, in the middle of a batch."""
    plugins = case.project.folder / "plugins"
    plugins.mkdir()
    shutil.copy(ROOT / "tests" / "faulty_models.py", plugins / "tests_faulty.py")
    state = case.project.folder / "faults"
    case.project.models(
        # The model counts in a file of the test's.
        worker="call_seconds = 8\ncall_seconds_per_audio_second = 0\nconfine = false",
        left={"script": json.dumps({**SCRIPT, "deed": deed}), "state": str(state), "error_rate": 0.2},
        right={"script": json.dumps({"*": "one three"}), "error_rate": 0.3, "seed": 4},
    )
    file = case.project.folder / "grym.toml"
    written = file.read_text(encoding="utf-8").replace('adapter = "fake"', 'adapter = "tests_faulty:Faulty"')
    file.write_text(written + '[plugins]\npaths = ["plugins"]\n', encoding="utf-8")
    return case


@pytest.fixture(scope="session")
def whole(folder: Path, prefect_url: str) -> Case:
    """The comparison in which nothing breaks."""
    return undisturbed(_write(make(folder / "whole-faulty", prefect_url, 12, ("left", "right")), ""))


@pytest.mark.parametrize("deed", FAULTS)
def test_a_model_that_breaks_once(deed: str, whole: Case, folder: Path, prefect_url: str) -> None:
    """The error has the right category, each clip has one answer of its own model, and everything else is the same."""
    case = replace(_write(make(folder / deed, prefect_url, 12, ("left", "right")), deed), whole=whole.home)
    case.project.run(*case.command)
    category, action = FAULTS[deed]
    store = Store(case.home)
    tries = store.read("attempts")
    told = [("a", 1, category, action)] if category else []
    assert tries.select("arm", "attempt", "category", "action").rows() == told
    assert "secret" not in json.dumps(tries["message"].to_list())
    outcomes = store.read("outcomes")
    assert outcomes.filter(pl.col("status") == "ok").height == outcomes.height == 24
    assert outcomes.select("arm", "clip_id").is_unique().all()
    left, right = tables(case.home), tables(whole.home)
    if category == "resource":  # answers of a batch that was asked in parts say so, and are the same otherwise
        parted = pl.col("rung").str.contains(" batch=")
        assert 1 < left["outcomes"].filter(parted).height < outcomes.height
        left["outcomes"] = left["outcomes"].with_columns(pl.col("rung").str.replace(r" batch=\S+$", ""))
    for name in ("outcomes", "words", "comparisons", "clips"):
        assert left[name].equals(right[name]), name
    assert features(case.home) == features(whole.home)
    if action != APART:
        assert_same(case.home, whole.home)
    assert_finished(case.home)


def test_the_clock_jumps(whole: Case, folder: Path, prefect_url: str) -> None:
    """A day forward and two days back while the flow runs: the same tables come out."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is needed to bend the clock")
    case = replace(_write(make(folder / "clock", prefect_url, 12, ("left", "right")), ""), whole=whole.home)
    source, library = case.project.folder / "clock.c", case.project.folder / "clock.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    offset = case.project.folder / "offset"
    offset.write_text("0")
    bent = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
    case = replace(case, project=replace(case.project, environment={**case.project.environment, **bent}))
    flow = case.start()
    wait(lambda: len(parts(case.home)) >= 1 or flow.poll() is not None)
    offset.write_text("86400")
    wait(lambda: len(parts(case.home)) >= 2 or flow.poll() is not None)
    offset.write_text("-86400")
    end(flow)
    assert_same(case.home, whole.home)
    assert_finished(case.home)
