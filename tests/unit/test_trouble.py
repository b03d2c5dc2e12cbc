"""What a failure of the server or the disk is called."""

from __future__ import annotations

import errno
import os
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import httpx
import pytest

from flows.server import Server
from flows.trouble import explain, explained
from grym.errors import ConfigError, GrymError, ResourceError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Healthy(BaseHTTPRequestHandler):
    """Says that it is well, whatever it is asked."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def living() -> Iterator[Server]:
    """An address where something answers."""
    with HTTPServer(("127.0.0.1", 0), _Healthy) as web:
        Thread(target=web.serve_forever, daemon=True).start()
        ui = f"http://127.0.0.1:{web.server_port}"
        yield Server(f"{ui}/api", None, ours=True, ui=ui)
        web.shutdown()


@pytest.fixture
def dead() -> Server:
    """An address where nobody answers any more."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        ui = f"http://127.0.0.1:{probe.getsockname()[1]}"
    return Server(f"{ui}/api", 4711, ours=True, ui=ui)


def _raised(error: Exception, home: Path, server: Server | None) -> Exception:
    with pytest.raises(type(error)) as caught, explained(home, server):
        raise error
    return caught.value


def test_what_the_flow_raised_is_told_before_what_failed_because_of_it(tmp_path: Path, dead: Server) -> None:
    """A typed error stays itself, also behind the connection error that recording it met."""
    ours = ConfigError("No clip can be used.")
    assert _raised(ours, tmp_path, dead) is ours
    later = httpx.ConnectError("refused")
    later.__context__ = ours
    assert explain(later, tmp_path, dead) is ours


def test_a_dead_server_is_named(tmp_path: Path, dead: Server) -> None:
    """Whatever it was that failed, the next step is the same command."""
    refused = httpx.ConnectError("refused")
    with pytest.raises(WorkerError, match="Give the same command again") as caught, explained(tmp_path, dead):
        raise refused
    assert caught.value.code == "server-died"
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


def test_a_server_that_lives_and_fails_is_named_with_its_log(tmp_path: Path, living: Server) -> None:
    """The log tells the rest."""
    found = explain(httpx.ReadTimeout("slow"), tmp_path, living)
    assert isinstance(found, WorkerError)
    assert found.code == "server-failed"
    assert str(tmp_path / "prefect" / "server.log") in found.hint


def test_a_full_disk_is_the_reason_behind_others(tmp_path: Path, dead: Server) -> None:
    """Anywhere in the chain, whoever says it; also behind a server that could not start for it."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    behind = WorkerError("The Prefect server ended.", code="server-died")
    behind.__cause__ = full
    for error in (full, behind):
        found = explain(error, tmp_path, dead)
        assert isinstance(found, ResourceError)
        assert found.code == "disk-full"


def test_a_defect_stays_a_defect(tmp_path: Path, living: Server) -> None:
    """What cannot be named is not dressed up; a typed error of the server stays what it says."""
    defect = KeyError("x")
    assert explain(defect, tmp_path, living) is None
    assert _raised(defect, tmp_path / "gone", living) is defect
    said: GrymError = WorkerError("It did not answer.", code="server-slow")
    assert _raised(said, tmp_path, None) is said
