"""Downloads of one large file: goes on where it was cut off, never longer than allowed, with typed reasons.

Knows nothing about what is downloaded; the caller compares checksums. Sizes are
bytes, times seconds. Only http and https, also after redirects; proxies come from
the environment (``https_proxy``).
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from grym.errors import ConfigError, GrymError, ResourceError, StorageError
from grym.parts import FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CHUNK: Final = 1 << 18
_ATTEMPTS: Final = 4
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_PARTIAL, _BEYOND_END = 206, 416
AGAIN: Final = "Give the command again; it goes on where it stopped."


@dataclass(frozen=True, slots=True)
class Fetched:
    """A dataset that is now on this machine.

    Attributes:
        folder: where it lies.
        files: how many files were verified.
        verified: ``archive`` (checksums of archive and files agree), ``files`` (the archive was another one),
            ``rows`` (streamed from the Hub) or ``there`` (nothing was done, it was whole already).
    """

    folder: Path
    files: int
    verified: str


class Tell(Protocol):
    """Hears how far something is: ``done`` of ``total``; a total of 0 is not known."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Take note; called often."""


def silent(what: str, done: int, total: int, /) -> None:
    """Tell nobody."""


class _DroppedError(Exception):
    """The connection failed; another try may go on where it stopped."""

    def __init__(self, why: str, *, answered: bool) -> None:
        super().__init__(why)
        self.answered = answered


def download(
    url: str,
    part: Path,
    *,
    size: int = 0,
    limit: int = 1 << 40,
    tell: Tell = silent,
    timeout: float = 30.0,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Fetch a file, or the rest of it.

    Args:
        url: http or https address.
        part: where it goes; what is there already is taken for its beginning.
        size: expected size, only for ``tell``; 0 is unknown.
        limit: most bytes that are ever written.
        tell: hears ``("download", bytes, total)``.
        timeout: longest silence of the server.
        pause: waits between attempts.

    Returns:
        Whether an earlier part was continued.

    Raises:
        ConfigError: ``bad-url``.
        StorageError: ``no-network`` (nobody answered), ``interrupted`` (the part is kept), ``refused`` (the server
            said no) or ``too-large``.
        ResourceError: ``disk-full``.
    """
    host = urlsplit(url).hostname or ""
    if urlsplit(url).scheme not in {"http", "https"} or not host:
        msg = f"{url!r} is no web address."
        raise ConfigError(msg, code="bad-url", hint="Use an address that starts with https://.")
    continued, answered = _there(part) > 0, False
    for attempt in range(_ATTEMPTS):
        if attempt:
            pause(2.0 ** (attempt - 1))
        try:
            _once(url, part, size, limit, tell, timeout)
        except _DroppedError as dropped:
            answered, why = answered or dropped.answered, str(dropped)
        else:
            return continued or attempt > 0
    if answered:
        msg = f"The download from {host} stopped after {_there(part):,} bytes: {why}."
        raise StorageError(msg, code="interrupted", hint=AGAIN, retryable=True)
    msg = f"{host} does not answer: {why}."
    hint = "Check the connection (a proxy is named by https_proxy), or copy the file here and name it with --source."
    raise StorageError(msg, code="no-network", hint=hint, retryable=True)


def _there(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _once(url: str, part: Path, size: int, limit: int, tell: Tell, timeout: float) -> None:
    """One request for what is missing."""
    have = _there(part)
    headers = {"User-Agent": "grym-synth", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers | ({"Range": f"bytes={have}-"} if have else {}))  # noqa: S310 - the scheme was checked
    try:
        response = _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == _BEYOND_END:
                _settle(part, have, error.headers.get("Content-Range", ""))
                return
            raise _refusal(url, error) from error
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise _DroppedError(_why(error), answered=False) from error
    with response:
        start = _start(response, have)
        expected = _length(response)
        total = start + expected if expected >= 0 else size
        with writing(part.name), part.open("r+b" if start else "wb") as stream:
            stream.seek(start)
            stream.truncate()
            done = start
            tell("download", done, total)
            while chunk := _read(response):
                done += len(chunk)
                if done > limit:
                    msg = f"The file from {urlsplit(url).hostname} is larger than {limit:,} bytes."
                    raise StorageError(msg, code="too-large", hint="This is not the file that was expected.")
                stream.write(chunk)
                tell("download", done, total)
        if 0 <= expected != done - start:
            msg = f"the connection ended {expected - (done - start):,} bytes early"
            raise _DroppedError(msg, answered=True)


def _opener() -> urllib.request.OpenerDirector:
    """Http and https alone: the usual opener would also follow a redirect to ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _start(response: http.client.HTTPResponse, have: int) -> int:
    """Where the answer begins; a server that does not continue sends everything."""
    if response.status != _PARTIAL:
        return 0
    if response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return have
    msg = "it sent another stretch than the one that was asked for"
    raise _DroppedError(msg, answered=True)


def _length(response: http.client.HTTPResponse) -> int:
    """Bytes that follow; -1 if the server does not say."""
    raw = response.headers.get("Content-Length", "")
    return int(raw) if raw.isdecimal() else -1


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _DroppedError(_why(error), answered=True) from error


def _settle(part: Path, have: int, content_range: str) -> None:
    """Nothing follows what is there: either it is whole, or it is of another file and goes."""
    if content_range.rpartition("/")[2] != str(have):
        part.unlink()
        msg = "the part on this machine was longer than the file; it was removed"
        raise _DroppedError(msg, answered=True)


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    said = f"it answered {error.code} {error.reason}".strip()
    if error.code in _RETRIED:
        return _DroppedError(said, answered=True)
    msg = f"{urlsplit(url).hostname} does not give {urlsplit(url).path.rpartition('/')[2]}: {said}."
    return StorageError(msg, code="refused", hint="Check the address, or name another source with --source.")


def _why(error: Exception) -> str:
    """A library's reason, for the middle of a sentence."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    reason = getattr(reason, "strerror", None) or reason
    return str(reason).rstrip(".") or type(error).__name__


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Turn what the disk says into typed errors; ``name`` is what was written.

    Raises:
        ResourceError: ``disk-full``.
        StorageError: ``unwritable``.
    """
    try:
        yield
    except GrymError:
        raise
    except OSError as error:
        if error.errno in FULL:
            msg = f"There is no room for {name}: {(error.strerror or 'the disk is full').lower()}."
            raise ResourceError(msg, code="disk-full", hint=f"Free space. {AGAIN}") from error
        msg = f"{name} cannot be written: {(error.strerror or str(error)).lower()}."
        raise StorageError(msg, code="unwritable", hint="Check the folder and its permissions.") from error
