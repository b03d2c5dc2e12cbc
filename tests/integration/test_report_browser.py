"""The report in a real browser: it fits a phone, asks the network for nothing and logs no error."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from reports.render import render_index, render_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SAMPLE = Path(__file__).parents[1] / "unit" / "test_reports.py"
PHONE_PIXELS = 380
MEASURE = """
onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const shown = (name) => [...page.querySelectorAll(name)].map((item) => item.checkVisibility());
  document.querySelector("output").textContent = JSON.stringify({
    inner: page.documentElement.clientWidth,
    all: page.documentElement.scrollWidth,
    wide: shown(".wide"),
    narrow: shown(".narrow"),
    scrolling: [...page.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth).length,
  });
};
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed; the pages were not opened")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of the invented run of the unit tests, and the index that names it."""
    sample = runpy.run_path(str(SAMPLE))
    data, folder = sample["sample_run"](), tmp_path_factory.mktemp("browser")
    return {
        "run": render_run(data, sample["sample_history"](data), folder / "run.html", audio=sample["sample_audio"]),
        "index": render_index(data.table("runs"), data.table("comparisons"), folder / "index.html"),
    }


def browse(page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a fresh headless profile, print its DOM, and keep console and network logs in ``folder``."""
    quiet = "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    command = [
        str(CHROMIUM), "--headless", "--hide-scrollbars", "--no-sandbox", "--disable-gpu",
        *quiet.split(), "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}",
        "--host-resolver-rules=MAP * ~NOTFOUND", *options, "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def requested(folder: Path) -> set[str]:
    """Addresses that a page asked for; what the browser asks for on its own account has no origin and is left out."""
    found: set[str] = set()
    for event in json.loads((folder / "net.json").read_text(encoding="utf-8"))["events"]:
        parameters = event.get("params", {})
        if "url" in parameters and parameters.get("initiator", "not an origin") != "not an origin":
            found.add(parameters["url"])
    return found


@pytest.mark.parametrize("name", ["run", "index"])
def test_the_page_opens_without_errors_or_requests(pages, name, tmp_path):
    """Nothing but the file itself and its own data URIs is loaded, and the console stays silent."""
    result = browse(pages[name], tmp_path)
    assert "This page is complete in itself" in result.stdout
    assert "CONSOLE" not in result.stderr
    assert {url for url in requested(tmp_path) if not url.startswith("data:")} == set()


def test_the_check_for_requests_and_errors_can_fail(tmp_path):
    """A page that loads a picture and logs an error is caught by the same means."""
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://192.0.2.1/a.png'><script>console.error('broken')</script>", encoding="utf-8")
    result = browse(page, tmp_path, "--timeout=2000")
    assert "CONSOLE" in result.stderr
    assert any("192.0.2.1" in url for url in requested(tmp_path))


@pytest.mark.parametrize(("name", "drawings"), [("run", 1), ("index", 0)])
def test_the_page_fits_a_phone(pages, name, drawings, tmp_path):
    """At 380 pixels only the boxes around tables scroll sideways, never the page."""
    probe = tmp_path / "probe.html"
    text = pages[name].read_text(encoding="utf-8")
    unlocked = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)  # the probe needs a script
    (tmp_path / "run.html").write_text(unlocked, encoding="utf-8")
    frame = f"<iframe src='run.html' style='width:{PHONE_PIXELS}px;height:900px;border:0'></iframe>"
    probe.write_text(f"{frame}<output></output><script>{MEASURE}</script>", encoding="utf-8")
    result = browse(probe, tmp_path, "--allow-file-access-from-files")
    found = re.search(r"<output>(.*?)</output>", result.stdout)
    assert found
    measured = json.loads(found[1])
    assert measured["all"] <= measured["inner"] == PHONE_PIXELS
    assert (measured["wide"], measured["narrow"]) == (drawings * [False], drawings * [True])
    assert measured["scrolling"] > 0
