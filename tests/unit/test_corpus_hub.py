"""Datasets of the Hugging Face Hub: from a small Hub on this machine, from folders in its form, and without network."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from grym.audio import decode
from grym.config import AudioLimits, DatasetSpec, Settings, load_settings
from grym.corpus import Dataset, load_dataset
from grym.corpus.hub import cached, materialise, origin, request_of
from grym.corpus.hub_reader import _audio, _explain
from grym.errors import ConfigError, GrymError, ManifestError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = "c0ffee" + "0" * 34
README = b"---\nlicense: cc-by-4.0\n---\nClips.\n"


def sound(pitch: int, form: str = "WAV") -> bytes:
    """A short real clip."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(3200) / pitch).astype(np.float32), 16_000, format=form)
    return buffer.getvalue()


def rows() -> list[dict[str, object]]:
    """Two good rows and four bad ones."""
    good: list[dict[str, object]] = [
        {"audio": {"bytes": sound(20), "path": "../../a.wav"}, "text": "one", "who": 3, "mood": "glad"},
        {"audio": {"bytes": sound(30, "FLAC"), "path": None}, "text": "two", "who": 4, "mood": None},
    ]
    bad: list[dict[str, object]] = [
        {"audio": {"bytes": sound(40), "path": "c.wav"}, "text": None, "who": 3, "mood": "sad"},
        {"audio": None, "text": "four", "who": 3, "mood": "sad"},
        {"audio": {"bytes": None, "path": "/etc/hostname"}, "text": "five", "who": 3, "mood": "sad"},
        {"audio": {"bytes": b"", "path": "c.wav"}, "text": "six", "who": 3, "mood": "sad"},
    ]
    return [good[0], *bad, good[1]]


def table() -> bytes:
    """The rows as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows()), buffer)
    return buffer.getvalue()


def spec(cache: Path, **options: str | int | bool) -> DatasetSpec:
    """A dataset of the Hub."""
    return DatasetSpec(name="mine", loader="hub", path=cache, options=options)


def load(found: DatasetSpec) -> Dataset:
    """Load a dataset as flows do."""
    return load_dataset("mine", Settings(datasets={"mine": found}))


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a public dataset of one Parquet file needs."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer for the files and the facts of ``me/clips``."""
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/me/clips/tree/"):
            folder = path.partition("/tree/")[2].partition("/")[2]
            below = [name for name in self.files if Path(name).parent.as_posix() == (folder or ".")]
            folders = [] if folder else [{"type": "directory", "path": "data", "size": 0, "oid": COMMIT}]
            self._say([*folders, *(self._entry(name) for name in below)])
        elif path.startswith("/api/datasets/me/clips"):
            siblings = [{"rfilename": name} for name in self.files]
            card = {"license": "cc-by-4.0"}
            self._say({"id": "me/clips", "sha": COMMIT, "cardData": card, "siblings": siblings, "tags": []})
        elif (name := path.partition("/resolve/")[2].partition("/")[2]) in self.files:
            data, whole = self.files[name], len(self.files[name])
            first, last = 0, whole - 1
            if wanted := self.headers.get("Range"):
                first, last = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
            facts = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}  # noqa: S324 - no secret
            facts |= {"Content-Range": f"bytes {first}-{last}/{whole}"} if wanted else {}
            self._answer(206 if wanted else 200, data[first : last + 1], facts)
        else:
            missing = "EntryNotFound" if "/resolve/" in path else "RepoNotFound"
            self._answer(404, b"", {"X-Error-Code": missing})

    def _entry(self, name: str) -> dict[str, object]:
        data = self.files[name]
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324

    def _say(self, answer: object) -> None:
        self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A Hub on this machine, which the reader's process takes for the real one."""
    files = {"README.md": README, "data/test-00000-of-00001.parquet": table()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Small", (Hub,), {"files": files}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network for the reader's process."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def test_a_dataset_of_the_hub_is_streamed_once(
    tmp_path: Path, hub: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows become files named by content and a manifest; a second run needs no Hub; bad rows are named."""
    mine = spec(tmp_path / "cache", repo="me/clips", speaker="who", slices="mood")
    told: list[tuple[str, int, int]] = []
    found = materialise(mine, lambda *what: told.append(what))
    assert (found.files, found.verified, told[-1]) == (6, "rows", ("rows", 6, 1000))
    assert origin(found.folder) == {"repo": "me/clips", "rows": "6", "revision": COMMIT, "licence": "cc-by-4.0"}
    hub.shutdown()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    dataset = load(mine)
    assert [(e.text, e.speaker, dict(e.slices)) for e in dataset.entries] == [
        ("one", "3", {"mood": "glad"}),
        ("two", "4", {}),
    ]
    names = [
        f"audio/{hashlib.sha256(sound(20)).hexdigest()}.wav",
        f"audio/{hashlib.sha256(sound(30, 'FLAC')).hexdigest()}.flac",
    ]
    assert [e.relative for e in dataset.entries] == names
    assert decode(dataset.entries[1].path, AudioLimits())[0].seconds == pytest.approx(0.2)
    assert {r.key: r.error.code for r in dataset.rejected} == {
        "row 3": "missing-audio",
        "row 4": "outside-dataset",
        "row 5": "missing-audio",
        "manifest.jsonl:2": "missing-text",
    }
    assert materialise(mine).verified == "there"
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {found.folder.name}


def test_a_dataset_that_the_hub_does_not_know_is_a_typed_error(hub: ThreadingHTTPServer) -> None:
    """What the Hub's own client raises becomes an error that names the dataset."""
    from huggingface_hub import HfApi

    with pytest.raises(Exception, match="404") as caught:
        HfApi(endpoint=f"http://127.0.0.1:{hub.server_port}").dataset_info("me/nothing")
    found = _explain(caught.value, "me/nothing")
    assert (type(found), found.code) == (ConfigError, "unknown-repo")
    assert "me/nothing" in found.message


def test_without_network_the_error_says_what_to_do(tmp_path: Path, offline: None) -> None:
    """One typed, retryable error with a hint; nothing is left in the cache."""
    with pytest.raises(StorageError) as caught:
        load(spec(tmp_path / "cache", repo="me/clips"))
    assert (caught.value.code, caught.value.retryable) == ("no-network", True)
    assert "HF_HUB_OFFLINE" in caught.value.hint
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_of_files_in_the_form_of_the_hub(tmp_path: Path, offline: None) -> None:
    """Audio files with metadata.csv, as the Hub's audiofolder has it: read one by one, without torchcodec."""
    folder = tmp_path / "data" / "test"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.wav").write_bytes(sound(20 + number))
    (folder / "metadata.csv").write_text("file_name,transcription\n0.wav,zero\n1.wav,one\n2.wav,two\n")
    mine = spec(tmp_path / "cache", repo=str(tmp_path / "data"), text="transcription", limit=2)
    assert [(e.text, e.path.suffix) for e in load(mine).entries] == [("zero", ".wav"), ("one", ".wav")]
    assert cached(mine) is not None
    assert cached(spec(tmp_path / "cache", repo=str(tmp_path / "data"), text="transcription")) is None


def test_a_reader_that_dies_is_a_typed_error(tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is gone without a word, for example for want of memory."""
    monkeypatch.setattr("grym.corpus.hub._READER", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(StorageError) as caught:
        load(spec(tmp_path / "cache", repo="me/clips"))
    assert caught.value.code == "hub-failed"
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_column_that_is_not_there_names_those_that_are(tmp_path: Path, offline: None) -> None:
    """A typing error in grym.toml is told with the dataset's columns."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.parquet").write_bytes(table())
    with pytest.raises(ConfigError) as caught:
        load(spec(tmp_path / "cache", repo=str(tmp_path / "data"), text="words"))
    assert caught.value.code == "bad-option"
    assert "audio, text, who, mood" in caught.value.message
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repo": "a/b/c"},
        {"repo": "../x"},
        {"repo": "datasets"},
        {"repo": "/no/such/folder"},
        {"repo": "a/b", "limit": -1},
        {"repo": "a/b", "limit": True},
        {"repo": "a/b", "text": 3},
        {"repo": "a/b", "slices": "mood, Path"},
        {"repo": "a/b", "stream": "no"},
    ],
)
def test_wrong_options_are_told_before_anything_is_fetched(tmp_path: Path, options: dict[str, Any]) -> None:
    """Every option is checked, and the message names the dataset."""
    if options == {"repo": "datasets"}:  # a name without owner is one of the Hub's own, never a folder beside
        assert request_of(spec(tmp_path, **options)).folder == ""
        return
    with pytest.raises(ConfigError, match="'mine'") as caught:
        load(spec(tmp_path, **options))
    assert caught.value.code == "bad-option"


def test_the_cache_is_in_the_home_unless_a_path_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """grym.toml needs no path for a dataset of the Hub."""
    monkeypatch.delenv("GRYM_HOME", raising=False)
    config = tmp_path / "grym.toml"
    config.write_text('[datasets.m]\nloader = "hub"\noptions = { repo = "a/b" }\n')
    assert load_settings(config).dataset("m").path == tmp_path / "var" / "datasets" / "hub"


def test_a_row_can_name_no_file_outside_its_dataset(tmp_path: Path) -> None:
    """Other files of this machine, other datasets and other hosts are refused before they are opened."""
    request = {"folder": "", "repo": "me/clips"}
    other = (
        "/etc/hostname",
        "file:///etc/hostname",
        "https://example.org/a.wav",
        f"hf://datasets/you/clips@{COMMIT}/a.wav",
        f"hf://datasets/me/clips@{COMMIT}/../../you/a.wav",
        f"zip://a.wav::file:///x.zip::hf://datasets/me/clips@{COMMIT}/a",
    )
    for path in other:
        with pytest.raises(ManifestError) as caught:
            _audio(path, request, COMMIT, tmp_path)
        assert caught.value.code == "outside-dataset"


def test_errors_of_the_libraries_become_typed_ones() -> None:
    """Full disks, agreements, offline mode and wrong splits are told apart, also as a cause of something else."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    full = RuntimeError("while writing")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    gated = type("GatedRepoError", (OSError,), {})("403")
    cases: list[tuple[Exception, str]] = [
        (full, "disk-full"),
        (gated, "gated"),
        (OfflineModeIsEnabled("offline"), "no-network"),
        (ConnectionError(), "no-network"),
        (ValueError("Bad split: x."), "bad-option"),
        (RuntimeError("odd /home/me/file"), "hub-failed"),
    ]
    for error, code in cases:
        found = _explain(error, "me/clips")
        assert isinstance(found, GrymError)
        assert (found.code, bool(found.hint)) == (code, True)
        assert "/home/me" not in found.message
