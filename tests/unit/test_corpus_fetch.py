"""Fetching a dataset: from a real server on this machine, cut off, continued, forged, and on a full disk."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from filelock import FileLock
from rich.console import Console
from typer.testing import CliRunner

from flows.corpus import commands
from grym.config import DatasetSpec, Paths, Settings, load_settings
from grym.corpus import load_dataset
from grym.corpus.archive import contents, unpack
from grym.corpus.cards import read_card
from grym.corpus.download import download
from grym.corpus.fetch import fetch
from grym.errors import ConfigError, GrymError, ResourceError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
TOP = "digits-1.0"


@dataclass
class Web:
    """What the server does: one entry of ``cuts`` a request says after how many bytes it hangs up."""

    body: bytes = b""
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    sized: bool = True
    requests: list[str] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """Serves ``web.body`` under every path, except ``/away``, which leads to a file."""

    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer as the script says."""
        web = self.web
        wanted = self.headers.get("Range", "")
        web.requests.append(wanted)
        self.close_connection = True
        if web.statuses and (status := web.statuses.pop(0)) != 200:
            self._head(status, 0)
            return
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/etc/passwd")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and web.ranges else 0
        if start >= len(web.body) and start:
            self._head(416, 0, f"bytes */{len(web.body)}")
            return
        body = web.body[start:]
        ranged = f"bytes {start}-{len(web.body) - 1}/{len(web.body)}" if start else ""
        self._head(206 if start else 200, len(body) if web.sized else None, ranged)
        self.wfile.write(body[: web.cuts.pop(0)] if web.cuts else body)

    def _head(self, status: int, length: int | None, content_range: str = "") -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()


@pytest.fixture
def web() -> Iterator[Web]:
    """A server on this machine, and what it is told to do."""
    found = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Scripted", (Handler,), {"web": found}))
    found.url = f"http://127.0.0.1:{server.server_port}/clips.tar.gz"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def wav(number: int) -> bytes:
    """A short clip that does not compress."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(number).uniform(-0.5, 0.5, 2000).astype(np.float32)
    soundfile.write(buffer, noise, 8000, format="WAV")
    return buffer.getvalue()


RECORDINGS = {f"recordings/{digit}_zoe_{take}.wav": wav(10 * digit + take) for digit in (3, 7) for take in (0, 1)}
FILES = {**RECORDINGS, "README.md": b"Licence: CC0\n", "utils/run.py": b"print()\n", "recordings/deep/x.wav": b"x"}


def packed(files: dict[str, bytes], *members: tarfile.TarInfo, level: int = 6) -> bytes:
    """A .tar.gz as a host makes it of a tag; ``members`` are added as they are."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{TOP}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return gzip.compress(plain.getvalue(), level, mtime=0)


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    """A member with any name and kind."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, size
    return made


ARCHIVE = packed(FILES)
CONTENTS = hashlib.sha256(
    "".join(f"{hashlib.sha256(RECORDINGS[name]).hexdigest()}  {name}\n" for name in sorted(RECORDINGS)).encode()
).hexdigest()


def project(folder: Path, url: str, **download_: object) -> Settings:
    """Settings with one dataset whose card says where its archive is."""
    facts: dict[str, object] = {
        "url": url,
        "size": len(ARCHIVE),
        "sha256": hashlib.sha256(ARCHIVE).hexdigest(),
        "contents": CONTENTS,
        "keep": ["README.md", "recordings/*.wav"],
        "unpacked": 60_000,
        "pattern": "recordings/*.wav",
        "files": 4,
    } | download_
    lines = ['title = "Digits"', "[download]", *(f"{k} = {json.dumps(v)}" for k, v in facts.items() if v is not None)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.toml").write_text("\n".join(lines))
    home = folder / "var"
    spec = DatasetSpec(name="fsdd", loader="fsdd", path=home / "datasets" / "fsdd", card=folder / "card.toml")
    return Settings(datasets={"fsdd": spec}, paths=Paths(home=home))


def refused(kind: type[GrymError], settings: Settings, **options: Any) -> GrymError:
    """The error of a fetch, which says what to do and leaves nothing that looks like a dataset."""
    with pytest.raises(kind) as caught:
        fetch("fsdd", settings, pause=lambda _: None, **options)
    assert caught.value.hint
    folder = settings.datasets["fsdd"].path
    assert not folder.exists()
    assert not (folder.parent / ".fsdd.new").exists()
    return caught.value


def test_a_dataset_is_fetched_verified_and_loaded(tmp_path: Path, web: Web) -> None:
    """What is wanted lies in the home, whole, nothing else is left, and the loader reads it."""
    web.body = ARCHIVE
    settings = project(tmp_path, web.url)
    told: list[tuple[str, int, int]] = []
    found = fetch("fsdd", settings, tell=lambda *what: told.append(what))
    folder = tmp_path / "var" / "datasets" / "fsdd"
    assert (found.folder, found.files, found.verified) == (folder, 4, "archive")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {*RECORDINGS, "README.md"}
    assert [path.name for path in folder.parent.iterdir()] == ["fsdd"]
    assert told[-6] == ("download", len(ARCHIVE), len(ARCHIVE))
    assert told[-1] == ("unpack", 5, 0)
    assert [e.key for e in load_dataset("fsdd", settings).entries] == ["3_zoe_0", "3_zoe_1", "7_zoe_0", "7_zoe_1"]
    again = fetch("fsdd", settings)
    assert (again.verified, len(web.requests)) == ("there", 1)


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path, web: Web) -> None:
    """A fetch that was cut off too often keeps its part; the next one asks for the rest alone."""
    web.body, web.cuts = ARCHIVE, [5000, 0, 0, 0]
    settings = project(tmp_path, web.url)
    pauses: list[float] = []
    part = tmp_path / "alone.part"
    with pytest.raises(StorageError) as caught:
        download(web.url, part, pause=pauses.append)
    assert (caught.value.code, caught.value.retryable, pauses) == ("interrupted", True, [1.0, 2.0, 4.0])
    assert "5,000 bytes" in caught.value.message
    assert "goes on where it stopped" in caught.value.hint
    assert part.read_bytes() == ARCHIVE[:5000]
    assert download(web.url, part)
    assert web.requests == ["", *["bytes=5000-"] * 4]
    assert part.read_bytes() == ARCHIVE
    web.cuts = [9000]
    found = fetch("fsdd", settings, pause=pauses.append)
    assert (found.verified, web.requests[-1]) == ("archive", "bytes=9000-")


def test_a_whole_part_is_not_fetched_again(tmp_path: Path, web: Web) -> None:
    """What was cut off after its last byte is complete; a part that is too long belongs to another file."""
    web.body = ARCHIVE
    part = tmp_path / "x.part"
    part.write_bytes(ARCHIVE)
    assert download(web.url, part)
    part.write_bytes(ARCHIVE + b"more")
    assert download(web.url, part, pause=lambda _: None)
    assert part.read_bytes() == ARCHIVE
    assert web.requests == [f"bytes={len(ARCHIVE)}-", f"bytes={len(ARCHIVE) + 4}-", ""]


def test_servers_that_cannot_continue_or_tell_no_size_will_do(tmp_path: Path, web: Web) -> None:
    """A server without ranges sends everything again, one without Content-Length ends when it ends."""
    web.body, web.ranges, web.sized = ARCHIVE, False, False
    part = tmp_path / "x.part"
    part.write_bytes(b"the beginning of something else")
    told: list[tuple[str, int, int]] = []
    assert download(web.url, part, size=7, tell=lambda *what: told.append(what))
    assert part.read_bytes() == ARCHIVE
    assert told[-1] == ("download", len(ARCHIVE), 7)


def test_a_part_of_another_file_costs_a_second_download(tmp_path: Path, web: Web) -> None:
    """If what was continued is not the right archive, it is fetched once more from its start."""
    web.body = ARCHIVE
    settings = project(tmp_path, web.url)
    web.cuts = [3000, 0, 0, 0]
    with pytest.raises(StorageError):
        fetch("fsdd", settings, pause=lambda _: None)
    (part,) = (tmp_path / "var" / "datasets").glob(".fsdd-*.part")
    part.write_bytes(b"z" * 3000)
    assert fetch("fsdd", settings).verified == "archive"
    assert web.requests[-2:] == ["bytes=3000-", ""]


def test_passing_troubles_of_a_server_are_waited_out(tmp_path: Path, web: Web) -> None:
    """503 is tried again, 404 is not."""
    web.body, web.statuses = ARCHIVE, [503, 429]
    assert download(web.url, tmp_path / "x", pause=lambda _: None)
    web.statuses = [404]
    error = refused(StorageError, project(tmp_path, web.url))
    assert (error.code, len(web.requests)) == ("refused", 4)
    assert "404" in error.message
    assert "clips.tar.gz" in error.message


def test_no_network_is_said_in_plain_words(tmp_path: Path) -> None:
    """A name without address, or a closed port: one typed error with a way out."""
    for url in ("http://no-such-host.invalid/x.tar.gz", "http://127.0.0.1:9/x.tar.gz"):
        with pytest.raises(StorageError) as caught:
            download(url, tmp_path / "x", pause=lambda _: None)
        assert (caught.value.code, caught.value.retryable) == ("no-network", True)
        assert "--source" in caught.value.hint
        assert url.split("/")[2].split(":")[0] in caught.value.message


def test_a_redirect_leads_to_no_other_kind_of_address(tmp_path: Path, web: Web) -> None:
    """An answer that leads to ftp or to a file of this machine is not followed."""
    with pytest.raises(StorageError) as caught:
        download(web.url.replace("clips.tar.gz", "away"), tmp_path / "x", pause=lambda _: None)
    assert caught.value.code in {"no-network", "refused"}
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError):
        download("file:///etc/passwd", tmp_path / "x")


def test_a_file_that_never_ends_is_stopped(tmp_path: Path, web: Web) -> None:
    """More than the limit is not what was expected."""
    web.body = b"x" * 4_000_000
    with pytest.raises(StorageError) as caught:
        download(web.url, tmp_path / "x", limit=1_000_000)
    assert caught.value.code == "too-large"
    assert (tmp_path / "x").stat().st_size <= 1_000_000


def test_other_recordings_are_a_wrong_checksum(tmp_path: Path, web: Web) -> None:
    """An archive of other files is refused and not kept, whether it is whole or not even an archive."""
    settings = project(tmp_path, web.url)
    for body in (packed({**FILES, "recordings/3_zoe_0.wav": wav(99)}), b"<html>log in</html>", ARCHIVE[:-3000]):
        web.body = body
        error = refused(StorageError, settings)
        assert error.code == "wrong-checksum"
        assert list((tmp_path / "var" / "datasets").iterdir()) == []


def test_an_archive_that_was_compressed_anew_is_recognised_by_its_files(tmp_path: Path, web: Web) -> None:
    """Another checksum of the archive is fine when its recordings are the published ones."""
    web.body = packed(FILES, level=1)
    assert fetch("fsdd", project(tmp_path, web.url)).verified == "files"
    assert fetch("fsdd", project(tmp_path / "b", web.url, sha256=None)).verified == "files"


@pytest.mark.parametrize(
    "bad",
    [
        member(f"{TOP}/../../evil.wav"),
        member("/etc/evil.wav"),
        member(f"{TOP}/recordings\\..\\evil.wav"),
        member(f"{TOP}/recordings/a\nb.wav"),
        member(f"{TOP}/recordings/l.wav", tarfile.SYMTYPE, "/etc/passwd"),
        member(f"{TOP}/recordings/h.wav", tarfile.LNKTYPE, f"{TOP}/README.md"),
        member(f"{TOP}/recordings/p.wav", tarfile.FIFOTYPE),
        member(f"{TOP}/recordings/d.wav", tarfile.CHRTYPE),
        member(f"{TOP}/recordings/3_zoe_0.wav", size=3),
        member(f"{TOP}/utils/bomb.bin", size=5_000_000),
    ],
)
def test_a_malicious_member_refuses_the_archive(tmp_path: Path, web: Web, bad: tarfile.TarInfo) -> None:
    """Names that lead out, links, devices, doubles and bombs: nothing is unpacked, even if the checksum is right."""
    web.body = packed(FILES, bad)
    settings = project(tmp_path, web.url, sha256=hashlib.sha256(web.body).hexdigest(), size=len(web.body))
    assert refused(StorageError, settings).code == "unsafe-archive"
    assert {path.name for path in tmp_path.rglob("*")} == {"var", "datasets", "card.toml"}


def test_an_archive_of_too_many_members_is_refused(tmp_path: Path) -> None:
    """A million empty files would fill a file system without a byte."""
    (tmp_path / "a.tar.gz").write_bytes(packed(FILES))
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="more than 3 members"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", keep=["*.md"], limit=10**6, files=3)


def test_an_archive_at_hand_needs_no_network(tmp_path: Path) -> None:
    """--source takes a file, --to another folder; a file that is none is said so."""
    settings = project(tmp_path, "http://127.0.0.1:9/x.tar.gz")
    (tmp_path / "copy.tar.gz").write_bytes(ARCHIVE)
    found = fetch("fsdd", settings, to=tmp_path / "deep" / "mine", source=str(tmp_path / "copy.tar.gz"))
    assert found.folder == tmp_path / "deep" / "mine"
    assert contents(found.folder, "recordings/*.wav") == (CONTENTS, 4)
    assert (tmp_path / "copy.tar.gz").exists()
    assert refused(ConfigError, settings, source="nowhere.tar.gz").code == "bad-url"


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    """Nothing is overwritten: the person is told, and what a killed fetch left is no obstacle."""
    settings = project(tmp_path, "http://127.0.0.1:9/x.tar.gz")
    (tmp_path / "copy.tar.gz").write_bytes(ARCHIVE)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious.txt").write_text("")
    with pytest.raises(ConfigError) as caught:
        fetch("fsdd", settings, to=mine, source=str(tmp_path / "copy.tar.gz"))
    assert caught.value.code == "target-exists"
    assert [path.name for path in mine.iterdir()] == ["precious.txt"]
    (tmp_path / "var" / "datasets" / ".fsdd.new" / "recordings").mkdir(parents=True)
    assert fetch("fsdd", settings, source=str(tmp_path / "copy.tar.gz")).verified == "archive"


def test_two_fetches_at_a_time_are_one_too_many(tmp_path: Path) -> None:
    """The second one is told to wait."""
    settings = project(tmp_path, "http://127.0.0.1:9/x.tar.gz")
    (tmp_path / "var" / "datasets").mkdir(parents=True)
    with FileLock(tmp_path / "var" / "datasets" / ".fsdd.lock"):
        assert refused(StorageError, settings).code == "busy"


def test_a_disk_without_room_is_said_before_it_is_filled(tmp_path: Path) -> None:
    """What cannot fit is not begun."""
    error = refused(ResourceError, project(tmp_path, "http://127.0.0.1:9/x.tar.gz", unpacked=10**18))
    assert error.code == "disk-full"
    assert "--to" in error.hint


def test_a_disk_that_runs_full_is_a_typed_error(tmp_path: Path, web: Web) -> None:
    """A real limit on the size of files, in a process of its own, while writing."""
    web.body = ARCHIVE
    code = (
        "import resource, sys; from pathlib import Path; resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))\n"
        "from grym.corpus.download import download; from grym.errors import ResourceError\n"
        "try:\n    download(sys.argv[1], Path(sys.argv[2]))\n"
        "except ResourceError as error:\n    print(error.code, error.hint)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", code, web.url, str(tmp_path / "x.part")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.stdout.startswith("disk-full Free space."), done.stderr


def test_a_folder_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    """A file where the folder should be."""
    settings = project(tmp_path, "http://127.0.0.1:9/x.tar.gz")
    (tmp_path / "var").write_text("")
    with pytest.raises(StorageError) as caught:
        fetch("fsdd", settings)
    assert caught.value.code == "unwritable"


def test_what_has_no_download_names_what_has(tmp_path: Path) -> None:
    """A dataset without card, and options that mean nothing for the Hub."""
    settings = project(tmp_path, "http://127.0.0.1:9/x.tar.gz")
    broken = DatasetSpec(name="broken", loader="folder", path=tmp_path, card=tmp_path / "gone.toml")
    plain = DatasetSpec(name="plain", loader="folder", path=tmp_path)
    hub = DatasetSpec(name="hub", loader="hub", path=tmp_path, options={"repo": "me/clips"})
    every = Settings(datasets={**settings.datasets, "plain": plain, "broken": broken, "hub": hub})
    with pytest.raises(ConfigError) as caught:
        fetch("plain", every)
    assert caught.value.code == "no-download"
    assert "fsdd, hub" in caught.value.hint
    with pytest.raises(ConfigError, match="--to"):
        fetch("hub", every, to=tmp_path)


def test_the_command_says_where_it_lies_and_how_it_was_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets fetch` prints folder and verification; another folder than grym.toml's has to be named there."""
    project(tmp_path, "http://127.0.0.1:9/x.tar.gz")
    (tmp_path / "copy.tar.gz").write_bytes(ARCHIVE)
    (tmp_path / "grym.toml").write_text('[datasets.fsdd]\nloader = "fsdd"\npath = "$GRYM_FSDD"\ncard = "card.toml"\n')
    for name in ("GRYM_FSDD", "GRYM_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRYM_CONFIG", str(tmp_path / "grym.toml"))
    kept = io.StringIO()
    out = Console(file=kept, width=300)
    ask = ["fetch", "fsdd", "--source", str(tmp_path / "copy.tar.gz")]
    for more, words in (
        ([], "4 files; the archive and they have the recorded checksums"),
        ([], "there already"),
        (["--to", str(tmp_path / "mine")], "set path in [datasets.fsdd] of grym.toml"),
    ):
        assert CliRunner().invoke(commands(out), [*ask, *more]).exit_code == 0
        assert words in kept.getvalue()
    assert (tmp_path / "var" / "datasets" / "fsdd" / "recordings" / "3_zoe_0.wav").is_file()
    assert (tmp_path / "mine" / "README.md").is_file()


def test_the_shipped_card_of_fsdd_is_complete() -> None:
    """Its address is the tag's archive on GitHub, and its checksums cover every recording."""
    settings = load_settings(ROOT / "grym.toml")
    path = settings.dataset("fsdd").card
    assert path is not None
    card = read_card(path)
    assert card.download is not None
    assert card.version in card.download.url
    assert card.download.url.startswith(card.source)
    assert card.download.files == 50 * 10 * 6
    assert card.download.pattern in card.download.keep
    assert card.download.sha256 is not None
