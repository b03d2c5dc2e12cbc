"""What the command line prints, and pages rendered again from what is stored."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from rich.console import Console

from flows import show
from grym.audio import decode
from grym.compare.verdict import compare_run
from grym.config import AudioLimits, Paths, Settings
from grym.corpus.loaders import load_dataset
from grym.errors import ConfigError, StorageError
from grym.memory.features import Match
from grym.quality import Judgement, RuleResult
from grym.store import RunRef, Store
from tasks.report import render, run_data, stored_entries

if TYPE_CHECKING:
    from pathlib import Path

RATE = 8_000
STARTED = datetime(2026, 11, 20, 9, 5, tzinfo=UTC)
RUN = RunRef("0123456789ab-1", "2026-11-20")


def write_dataset(folder: Path) -> Path:
    """Six clips of three speakers, each two seconds of one long file."""
    folder.mkdir()
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, 60 * RATE).astype(np.float32)
    soundfile.write(folder / "long.wav", noise, RATE)
    rows = [
        {"id": f"c{i}", "audio_filepath": "long.wav", "text": "one two", "speaker": f"s{i % 3}", "offset": 9.0 * i,
         "duration": 2.0}
        for i in range(6)
    ]  # fmt: skip
    manifest = folder / "test.jsonl"
    manifest.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return manifest


def outcome(arm: str, clip_id: str, *, wrong: int) -> dict[str, object]:
    """An answer with ``wrong`` of two words substituted."""
    return {
        "arm": arm, "model": f"model-{arm}", "clip_id": clip_id, "status": "ok", "hypothesis": "one too",
        "reference_words": 2, "hits": 2 - wrong, "substitutions": wrong, "deletions": 0, "insertions": 0,
        "reference_characters": 6, "character_errors": wrong,
    }  # fmt: skip


def land_run(store: Store, settings: Settings, manifest: Path, run: RunRef = RUN, *, finished: bool = True) -> None:
    """A run as the compare flow lands it, its quality in two parts as after a resume."""
    ids = {}
    for entry in load_dataset(str(manifest), settings).entries:
        clip, _ = decode(entry.path, settings.audio, offset=entry.offset, duration=entry.duration)
        ids[clip.id] = entry
    options = settings.compare.model_copy(update={"a": "mini", "b": "other", "dataset": str(manifest)})
    for state in ("started", "finished")[: 1 + finished]:
        row = {
            "state": state, "flow": "compare", "run_key": run.id[:12] * 5, "ordinal": 1, "dataset": "test",
            "at": STARTED + timedelta(minutes=state == "finished"), "arm_a": "model-a", "arm_b": "model-b",
            "options": options.model_dump_json(),
        }  # fmt: skip
        store.land("runs", [row], run=run, part=state)
    clips = [
        {
            "clip_id": clip_id,
            "key": e.key,
            "path": e.relative,
            "reference": e.text,
            "speaker": e.speaker,
            "seconds": 2.0,
        }
        for clip_id, e in ids.items()
    ]
    store.land("clips", clips, run=run, part="all")
    outcomes = [outcome(arm, c, wrong=(i + (arm == "b")) % 2) for arm in "ab" for i, c in enumerate(ids)]
    store.land("outcomes", outcomes, run=run, part="a-0")
    calls = [
        {"arm": arm, "pass": "latency", "call": f"{c[:16]}-{i}", "clip_id": c, "clips": 1, "audio_seconds": 2.0,
         "wall_seconds": 0.1, "compute_seconds": 0.09, "status": "ok"}
        for c in ids for i, arm in enumerate("ab")
    ]  # fmt: skip
    store.land("operations", calls, run=run, part="latency")
    for part in ("first", "second"):
        rule = RuleResult("response_time", f"{part} try", "rows", "critical", "pass", 12, 0, "12", "None says nothing.")
        store.land("quality", Judgement(rule.suite, rule.subject, (rule,), 12).rows(run.id), run=run, part=part)
    row = {"key": "test.jsonl:9", "stage": "manifest", "code": "broken-line", "message": "Broken.", "severity": "error"}
    store.land("quarantine", [row], run=run, part="input")
    tables = (store.read(name, run) for name in ("outcomes", "clips", "operations"))
    compared = compare_run(
        *tables, name_a="model-a", name_b="model-b", run_id=run.id, confidence=0.95, margin_wer=0.005, seed=7
    )
    store.land("comparisons", compared, run=run, part="all")


def settings_for(folder: Path) -> Settings:
    """Settings with their home in ``folder``, at the rate of the test's audio."""
    return Settings(paths=Paths(home=folder / "home"), audio=AudioLimits(rate=RATE))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home with one finished run over a manifest."""
    found = settings_for(tmp_path)
    land_run(Store(found.home), found, write_dataset(tmp_path / "my clips"))
    return found


def printed(width: int = 150) -> Console:
    """A console that keeps what is printed."""
    return Console(file=io.StringIO(), width=width)


def text_of(out: Console) -> str:
    """What was printed."""
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_a_page_rendered_again_is_whole(settings: Settings, tmp_path: Path) -> None:
    """It plays each clip's own two seconds, shows every judgement, and repeats the command as it was typed."""
    warehouse, page = show.render_again(settings, None)
    assert warehouse == settings.home / "warehouse.duckdb"
    assert page == settings.home / "reports" / f"{RUN.id}.html"
    text = page.read_text(encoding="utf-8")
    sounds = re.findall(r"data:audio/flac;base64,([A-Za-z0-9+/=]+)", text)
    assert len(sounds) == 6
    for sound in sounds:
        assert soundfile.info(io.BytesIO(base64.b64decode(sound))).duration == 2.0
    command = f"python -m flows compare --a mini --b other --dataset '{tmp_path}/my clips/test.jsonl' --new"
    assert command in html.unescape(text)
    assert f'href="{RUN.id}.html"' in page.with_name("index.html").read_text(encoding="utf-8")
    docs = (settings.home / "datadocs" / RUN.id / "index.html").read_text(encoding="utf-8")
    assert "<td>first try</td>" in docs
    assert "<td>second try</td>" in docs


def test_a_home_can_be_moved(settings: Settings, tmp_path: Path) -> None:
    """The page names its quality page relative to itself, and no folder of the machine."""
    *_, page = show.render_again(settings, RUN.id)
    moved = settings.home.rename(tmp_path / "elsewhere")
    text = (moved / "reports" / page.name).read_text(encoding="utf-8")
    link = f"../datadocs/{RUN.id}/index.html"
    assert f'href="{link}"' in text
    assert (moved / "reports" / link).resolve().is_file()
    assert "file:" not in text
    assert str(settings.home) not in text


def test_a_dataset_that_is_gone_leaves_a_page_without_sound(settings: Settings, tmp_path: Path) -> None:
    """What was compared can be read after the audio has been deleted."""
    (tmp_path / "my clips" / "test.jsonl").unlink()
    *_, page = show.render_again(settings, RUN.id)
    text = page.read_text(encoding="utf-8")
    assert "c0" in text
    assert "<audio" not in text


def test_the_page_of_a_run_is_written_last(settings: Settings) -> None:
    """Its existence says that the run is complete, so nothing may come after it that can fail."""
    store = Store(settings.home)
    data = run_data(store, RUN)
    page = settings.home / "reports" / f"{RUN.id}.html"
    index = page.with_name("index.html")
    index.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"index\.html"):
        render(store, settings, data, {})
    assert not page.exists()
    index.rmdir()
    page.mkdir()
    with pytest.raises(StorageError, match=RUN.id):
        render(store, settings, data, stored_entries(settings, data))
    assert index.is_file()
    assert (settings.home / "datadocs" / RUN.id / "index.html").is_file()


def test_an_unfinished_run_gets_no_page(settings: Settings, tmp_path: Path) -> None:
    """A page would say that it is complete; by name it is an error, among all it is left out."""
    other = RunRef("ffffffffffff-1", "2026-11-20")
    land_run(Store(settings.home), settings, tmp_path / "my clips" / "test.jsonl", other, finished=False)
    assert [path.stem for path in show.render_again(settings, None)][1:] == [RUN.id]
    with pytest.raises(ConfigError, match="has not finished") as caught:
        list(show.render_again(settings, other.id))
    assert caught.value.code == "unfinished-run"


def test_an_unknown_run_names_those_that_exist(settings: Settings) -> None:
    """A wrong id is answered with the right ones."""
    with pytest.raises(ConfigError, match=RUN.id) as caught:
        list(show.render_again(settings, "nothing"))
    assert caught.value.code == "unknown-run"
    with pytest.raises(ConfigError, match="none"):
        show.find_run(Store(settings.home / "empty"), "nothing")


def test_the_verdict_is_a_table_of_both_arms(settings: Settings) -> None:
    """Both arms, what differs, what was put aside, and where everything lies."""
    out = printed()
    one = SimpleNamespace(
        run_id=RUN.id,
        resumed=True,
        dataset="digits",
        task="transcribe",
        verdict="cannot tell",
        sentence="Too few clips.",
    )
    result = SimpleNamespace(runs=(one,), warehouse="w.duckdb", report="p.html")
    show.show_verdict(out, Store(settings.home), result)  # type: ignore[arg-type] # the flow's own class loads Prefect
    lines = {line.split("│")[1].strip(): line for line in text_of(out).splitlines() if line.count("│") > 2}
    cells = [cell.strip() for cell in lines["WER %"].split("│")[2:-1]]
    assert cells == ["25.00", "25.00", "+0.00", "+0.0 %"]
    assert "100.0" in lines["latency p50 ms"]
    assert "0 of 6" in lines["failures"]
    assert "3 / 0 / 0" in lines["sub / del / ins"]
    for text in (f"Run {RUN.id} (resumed)", "cannot tell: Too few clips.", "Quarantine: 1 broken-line", "p.html"):
        assert text in text_of(out)


def test_matches_are_a_table() -> None:
    """Neighbours show score and clip."""
    out = printed()
    show.show_matches(out, [Match("ab" * 32, 0.98765, {"key": "c1", "text": "one", "speaker": "s1", "seconds": 2})])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text_of(out).splitlines() if "│" in line]
    assert ["0.9877", "ab" * 8, "c1", "one", "s1", "2.00"] in rows
