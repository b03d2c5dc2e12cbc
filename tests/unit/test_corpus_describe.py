"""Cards and counts of datasets, and what ``python -m flows datasets`` prints of them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner

from flows.corpus import commands, show_card, show_datasets, telling
from grym.config import DatasetSpec, Paths, Settings, load_settings
from grym.corpus.cards import read_card
from grym.corpus.describe import LOADERS, describe
from grym.errors import ConfigError, ErrorRecord

ROOT = Path(__file__).resolve().parents[2]


def sound(path: Path, seconds: float = 0.2) -> Path:
    """Write a short real clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(round(8000 * seconds)) / 20).astype(np.float32), 8000)
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A manifest with a card, a folder without, a dataset that is not there, and one of the Hub."""
    rows = ["file,text,speaker,room,offset,duration", "a.wav,one two,ann,hall,,", "a.wav,three,bob,hall,0.5,0.25"]
    rows += ["b.wav,four,ann,,,", "gone.wav,five,ann,,,", "c.txt,six,ann,,,", "b.wav,,ann,,,"]
    sound(tmp_path / "set" / "a.wav", 2.0)
    sound(tmp_path / "set" / "b.wav", 1.0)
    (tmp_path / "set" / "c.txt").write_text("no audio")
    (tmp_path / "set" / "clips.csv").write_text("\n".join(rows))
    card = 'title = "Rooms"\nlicence = "CC0"\nsource = "here"\nlimits = ["Two people."]\n[slices]\nroom = "where"\n'
    (tmp_path / "card.toml").write_text(card)
    (tmp_path / "bad.toml").write_text('title = "x"\nlicense = "CC0"\n')
    good = DatasetSpec(name="good", loader="manifest", path=tmp_path / "set" / "clips.csv", card=tmp_path / "card.toml")
    gone = DatasetSpec(name="gone", loader="fsdd", path=tmp_path / "gone", options={"takes": "0-4"})
    bad = DatasetSpec(name="bad", loader="manifest", path=tmp_path / "set" / "clips.csv", card=tmp_path / "bad.toml")
    hub = DatasetSpec(name="hub", loader="hub", path=tmp_path / "cache", options={"repo": "me/clips"})
    every = {spec.name: spec for spec in (good, gone, bad, hub)}
    return Settings(root=tmp_path, datasets=every, paths=Paths(home=tmp_path / "var"))


def printed(width: int = 140) -> Console:
    """A console that keeps what it prints."""
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def text_of(out: Console) -> str:
    """What was printed."""
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def seconds(name: str, settings: Settings) -> float:
    """Audio of a dataset that is here."""
    facts = describe(name, settings).facts
    assert facts is not None
    return facts.seconds


def problem(name: str, settings: Settings) -> ErrorRecord:
    """Why a dataset is not here."""
    found = describe(name, settings).problem
    assert found is not None
    return found


def test_a_dataset_is_counted_without_decoding(settings: Settings, tmp_path: Path) -> None:
    """Clips, speakers and words come from the manifest, seconds from it or from headers, and are remembered."""
    found = describe("good", settings)
    assert found.problem is None
    assert found.facts is not None
    assert (found.facts.clips, dict(found.facts.refused), found.facts.speakers) == (5, {"missing-text": 1}, 2)
    assert found.facts.seconds == pytest.approx(3.25)
    assert (found.facts.unmeasured, found.facts.words) == (2, 6)
    assert found.facts.slices == {"room": {"hall": 2}}
    (kept,) = (tmp_path / "var" / "datasets" / ".facts").iterdir()
    kept.write_text('{"seconds": 7.5, "unmeasured": 0}')
    assert seconds("good", settings) == 7.5
    kept.write_text("broken")
    assert seconds("good", settings) == pytest.approx(3.25)
    sound(tmp_path / "set" / "b.wav", 1.5)
    assert seconds("good", settings) == pytest.approx(3.75)


def test_what_is_not_here_is_described_too(settings: Settings, tmp_path: Path) -> None:
    """A dataset of the Hub is never fetched by looking at it; a broken card is a problem of its dataset alone."""
    assert problem("gone", settings).code == "no-dataset"
    hub = describe("hub", settings)
    assert "datasets fetch hub" in problem("hub", settings).hint
    assert hub.card.source == "https://huggingface.co/datasets/me/clips"
    assert not (tmp_path / "cache").exists()
    assert problem("bad", settings).code == "bad-card"
    with pytest.raises(ConfigError, match="good"):
        describe("nothing", settings)


def test_a_home_that_cannot_be_written_to_costs_only_time(settings: Settings, tmp_path: Path) -> None:
    """Counting works without the memory of it."""
    (tmp_path / "var").write_text("")
    assert seconds("good", settings) == pytest.approx(3.25)


def test_the_list_has_every_dataset_and_every_loader(settings: Settings) -> None:
    """One row each, with the reason where one cannot be used."""
    out = printed()
    show_datasets(out, settings)
    text = text_of(out)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert ["good", "manifest", "yes", "5", "1", "0.00", "2", "6", "CC0", "room"] in rows
    assert ["gone", "fsdd", "no", "", "", "", "", "", "unknown", ""] in rows
    assert "good: set/clips.csv, from here" in text
    assert "datasets fetch hub" in text
    assert "license" in text
    assert all(name in text.partition("Loaders")[2] for name in LOADERS)


def test_a_card_is_shown_in_full(settings: Settings) -> None:
    """Counts, meaning and values of slices, licence and limits; or why the dataset is not here."""
    out = printed()
    show_card(out, describe("good", settings))
    show_card(out, describe("gone", settings))
    text = text_of(out)
    for words in (
        "good: Rooms",
        "CC0",
        "Two people.",
        "where: hall 2",
        "1 missing-text",
        "0.00 h, 3 s (without 2 clips",
        "takes = '0-4'",
        "set GRYM_FSDD",
    ):
        assert words in text


def test_many_values_of_a_slice_are_cut(tmp_path: Path) -> None:
    """The twelve most frequent values are shown, the others counted."""
    rows = ["file,text,room", *(f"a{n}.wav,x,room{n:02d}" for n in range(15))]
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    spec = DatasetSpec(name="d", loader="manifest", path=tmp_path / "clips.csv")
    out = printed(400)
    show_card(out, describe("d", Settings(datasets={"d": spec}, paths=Paths(home=tmp_path / "var"))))
    assert "room11 1, and 3 more" in text_of(out)
    assert "every clip is its own cluster" in text_of(out)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "title"),
        ("title = ''", "title is empty"),
        ("title = 3", "title"),
        ("title = ", "Invalid value"),
        ("\xff", "card.toml"),
        ('title = "x"\n[download]\nurl = "y"', "download"),
    ],
)
def test_a_wrong_card_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    """Unknown and missing keys, wrong types, broken TOML, other encodings."""
    (tmp_path / "card.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=words) as caught:
        read_card(tmp_path / "card.toml")
    assert caught.value.code == "bad-card"
    with pytest.raises(ConfigError, match="gone"):
        read_card(tmp_path / "gone.toml")


def test_every_shipped_card_can_be_read() -> None:
    """Cards are data, and all of them have a title, a licence, a source and their limits."""
    cards = [read_card(path) for path in sorted((ROOT / "datasets" / "cards").glob("*.toml"))]
    assert len(cards) >= 2
    assert all(card.about and card.source and card.limits and card.licence != "unknown" for card in cards)


def test_the_examples_of_the_page_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every grym.toml block of docs/loaders.md is accepted, with every loader, and so is its card."""
    monkeypatch.delenv("GRYM_HOME", raising=False)
    page = (ROOT / "docs" / "loaders.md").read_text(encoding="utf-8")
    found_blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (card,) = [block for block in found_blocks if block.startswith("title")]
    blocks = [block for block in found_blocks if block != card]
    loaders = set()
    for block in blocks:  # examples of different sections may name the same dataset
        (tmp_path / "grym.toml").write_text(block)
        found = load_settings(tmp_path / "grym.toml").datasets
        loaders |= {spec.loader for spec in found.values()}
        assert all(problem(name, Settings(datasets=found)).code in {"no-dataset", "bad-card"} for name in found)
    assert loaders == set(LOADERS)
    (tmp_path / "card.toml").write_text(card.replace("…", "0" * 64))
    download = read_card(tmp_path / "card.toml").download
    assert download is not None
    assert download.files == 1200


def test_progress_is_told_by_quarters_in_a_pipe_and_by_bars_on_a_terminal() -> None:
    """Lines where nobody watches, bars where somebody does; an unknown total is none of both."""
    pipe = printed()
    with telling(pipe) as tell:
        for done in range(0, 101, 5):
            tell("download", done, 100)
        tell("unpack", 3, 0)
    assert text_of(pipe).splitlines() == [f"download: {done} of 100" for done in (25, 50, 75, 100)]
    terminal = Console(file=io.StringIO(), width=100, force_terminal=True)
    with telling(terminal) as tell:
        tell("download", 50, 100)
        tell("unpack", 3, 0)
    assert "download" in text_of(terminal)
    assert "unpack" in text_of(terminal)


def test_the_verbs_of_datasets(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a verb the list, with a name its card; `fetch` says when there is nothing to fetch from."""
    config = '[datasets.good]\nloader = "manifest"\npath = "set/clips.csv"\ncard = "card.toml"\n'
    (tmp_path / "grym.toml").write_text(config)
    monkeypatch.setenv("GRYM_CONFIG", str(tmp_path / "grym.toml"))
    monkeypatch.delenv("GRYM_HOME", raising=False)
    out = printed()
    app = commands(out)
    assert CliRunner().invoke(app, []).exit_code == 0
    assert "good: set/clips.csv" in text_of(out)
    for words in (["good"], ["show", "good"]):
        out.file = io.StringIO()
        assert CliRunner().invoke(app, words).exit_code == 0
        assert "good: Rooms" in text_of(out)
    failed = CliRunner().invoke(app, ["fetch", "good"])
    assert isinstance(failed.exception, ConfigError)
    assert failed.exception.code == "no-download"
