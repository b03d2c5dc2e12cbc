"""The report in a real browser: silent, offline, readable on a phone, by night, on paper and with a keyboard."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import re
import runpy
import select
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from reports.index import render_index
from reports.render import render_run
from reports.trend import history

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SAMPLE = Path(__file__).parents[1] / "unit" / "test_reports.py"
SECONDS = 120
OPTIONS = (
    "--headless --hide-scrollbars --no-sandbox --disable-gpu --remote-debugging-pipe --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --host-resolver-rules=MAP\u00a0*\u00a0~NOTFOUND"
)
# Every visible text with the colour of its letters and of what is really behind it.
TEXTS = """
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const poor = []; let count = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !element.checkVisibility() || element.closest(".sr, style")) continue;
    const style = getComputedStyle(element), drawn = element.closest("svg");
    if (drawn && style.fontWeight === "700") continue;  // a number on a bar: a test of the palette judges it
    const front = light(rgba(drawn ? style.fill : style.color));
    const back = light(behind(element)); count++;
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) poor.push(`${text.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return {count, poor, ground: light(behind(document.body))};
})()
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed; the pages were not opened")


class Browser:
    """Headless Chromium, driven over its debugging pipe; it can reach no host."""

    def __init__(self, profile: Path) -> None:
        """Start it; descriptors 3 and 4 of the child are the pipe."""
        theirs, self._out = os.pipe()
        self._in, ours = os.pipe()
        read, write = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs, ours))
        actions = [(os.POSIX_SPAWN_DUP2, read, 3), (os.POSIX_SPAWN_DUP2, write, 4)]
        actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
        options = [option.replace("\u00a0", " ") for option in OPTIONS.split(" ")]
        command = [str(CHROMIUM), *options, f"--user-data-dir={profile}", "about:blank"]
        self._pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions, setpgroup=0)
        for end in (theirs, ours, read, write):
            os.close(end)
        self._rest, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], SECONDS)[0], "the browser says nothing"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser is gone"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its result; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        data = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page: Path, *, width: int = 1280, dark: bool = False, media: str = "") -> Tab:
        """A new tab with that page, loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable", session)
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", session, media=media, features=scheme)
        self.call("Page.navigate", session, url=page.as_uri())
        tab = Tab(self, session)
        while not tab.events("Page.loadEventFired"):
            self.events.append(self._read())
        return tab

    def close(self) -> None:
        """End it and whatever it started."""
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        for end in (self._in, self._out):
            os.close(end)


class Tab:
    """One open page."""

    def __init__(self, browser: Browser, session: str) -> None:
        """Made by :meth:`Browser.open`."""
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to this page."""
        return self._browser.call(method, self._session, **parameters)

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript, or of its promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def events(self, *methods: str) -> list[dict[str, Any]]:
        """What was reported of this page so far."""
        mine = (event for event in self._browser.events if event.get("sessionId") == self._session)
        return [event["params"] for event in mine if event["method"] in methods]

    def complaints(self) -> list[dict[str, Any]]:
        """Everything that stands in the console."""
        return self.events("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")

    def requested(self, page: Path) -> set[str]:
        """Addresses that were asked for besides the page itself and its own data URIs."""
        urls = {event["request"]["url"] for event in self.events("Network.requestWillBeSent")}
        return {url for url in urls if url != page.as_uri() and not url.startswith("data:")}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser for all tests: starting it takes longer than any of them."""
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of the invented run of the unit tests, and the index that names it."""
    sample = runpy.run_path(str(SAMPLE))
    data, folder = sample["sample_run"](), tmp_path_factory.mktemp("browser")
    past = history(data.table("comparisons"), data.table("runs"), data.table("models"))
    return {
        "run": render_run(data, sample["sample_history"](data), folder / "run.html", audio=sample["sample_audio"]),
        "index": render_index(data.table("runs"), past, folder / "index.html"),
    }


@pytest.mark.parametrize("name", ["run", "index"])
def test_the_page_opens_without_errors_or_requests(browser, pages, name):
    """Nothing but the file itself and its own data URIs is loaded, and the console stays silent."""
    tab = browser.open(pages[name])
    assert "This page is complete in itself" in tab.ask("document.body.innerText")
    assert tab.complaints() == []
    assert tab.requested(pages[name]) == set()


def test_the_check_for_requests_and_errors_can_fail(browser, tmp_path):
    """A page that loads a picture and logs an error is caught by the same means."""
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://x.invalid/a.png'><script>console.error('broken')</script>", encoding="utf-8")
    tab = browser.open(page)
    assert any("broken" in json.dumps(entry) for entry in tab.complaints())
    assert tab.requested(page) == {"http://x.invalid/a.png"}


@pytest.mark.parametrize("name", ["run", "index"])
@pytest.mark.parametrize("width", [390, 320])
def test_the_page_fits_a_phone(browser, pages, name, width):
    """Only the boxes around tables scroll sideways, never the page; the narrow drawing replaces the wide one."""
    tab = browser.open(pages[name], width=width)
    assert tab.ask("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    shown = "[...document.querySelectorAll('figure{}')].map((item) => item.checkVisibility())"
    drawings = 1 if name == "run" else 0
    assert tab.ask(shown.format(".wide")) == [False] * drawings
    assert tab.ask(shown.format(".narrow")) == [True] * drawings
    boxes = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth).length"
    assert tab.ask(boxes) > 0


@pytest.mark.parametrize("name", ["run", "index"])
@pytest.mark.parametrize("dark", [True, False])
def test_every_text_can_be_read_by_day_and_by_night(browser, pages, name, dark):
    """The ground is dark where darkness is asked for, and each text stands out from it at 4.5 to 1 or more."""
    found = browser.open(pages[name], dark=dark).ask(TEXTS)
    assert found["count"] > 30
    assert found["poor"] == []
    assert (found["ground"] < 0.03) if dark else (found["ground"] > 0.9)


@pytest.mark.parametrize("name", ["run", "index"])
def test_the_page_prints(browser, pages, name):
    """On A4 paper nothing is cut off, colours are light even by night, and what only a screen can do is gone."""
    tab = browser.open(pages[name], width=694, dark=True, media="print")
    assert tab.ask(TEXTS)["ground"] == 1
    over = "[...document.querySelectorAll('table, svg, pre')].filter((x) => x.checkVisibility())"
    over += ".filter((x) => x.getBoundingClientRect().right > innerWidth + 1).length"
    assert tab.ask(over) == 0
    assert tab.ask("[...document.querySelectorAll('nav, audio')].some((item) => item.checkVisibility())") is False
    pdf = base64.b64decode(tab.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pdf.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 20


def test_a_keyboard_and_a_screen_reader_find_their_way(browser, pages):
    """The first stop skips to the results, focus can be seen, landmarks exist, and nothing is without a name."""
    tab = browser.open(pages["run"])
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    focus = "(() => { const at = document.activeElement, box = at.getBoundingClientRect(); "
    focus += "return [at.hash, box.top >= 0, getComputedStyle(at).outlineStyle]; })()"
    assert tab.ask(focus) == ["#main", True, "solid"]
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    known = [(node.get("role", {}).get("value"), node.get("name", {}).get("value")) for node in nodes]
    assert {"banner", "navigation", "main", "contentinfo", "region"} <= {role for role, _ in known}
    named = {"link", "img", "image", "region", "heading", "Audio", "audio"}
    assert [role for role, name in known if role in named and not name] == []


def test_the_players_can_play(browser, pages):
    """The page's own policy lets its sounds load: the first clip lasts as long as it was made."""
    tab = browser.open(pages["run"])
    length = "new Promise((done) => { const sound = document.querySelector('audio');"
    length += " sound.onloadedmetadata = () => done(sound.duration); sound.onerror = () => done(-1); sound.load(); })"
    assert tab.ask(length) == pytest.approx(1.0, abs=0.05)
