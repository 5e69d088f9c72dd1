"""A real Chromium without a window, for tests of pages as a person sees them."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

WIDE, NARROW = 1300, 390
"""Widths of a desktop window and of a telephone, px."""
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
PATIENCE = 60.0
"""Longest wait for a page to be whole, s."""
COMPLETE = "return document.readyState === 'complete'"
LOCAL = ("file:", "data:", "blob:")

# Measured against clientWidth, since a scroll bar would hide as much overflow as it is wide from innerWidth.
LOOK = """
const root = document.documentElement, shown = e => e.checkVisibility() && e.getBoundingClientRect().width > 0;
return {
  title: document.title,
  headings: [...document.querySelectorAll("h1")].filter(shown).map(e => e.innerText),
  width: innerWidth,
  sideways: root.scrollWidth - root.clientWidth,
  images: document.images.length,
  broken: [...document.images].filter(e => !(e.complete && e.naturalWidth > 0)).map(e => e.alt || e.src),
  drawings: [...document.querySelectorAll("figure svg")].filter(shown).length,
  background: getComputedStyle(document.body).backgroundColor,
};
"""


@dataclass(frozen=True)
class Sight:
    """What a page showed once it had loaded."""

    title: str
    headings: list[str]
    width: int
    sideways: int
    """How far the page itself can be scrolled to the right, px; boxes within it may scroll as they like."""
    images: int
    broken: list[str]
    drawings: int
    background: str
    errors: list[str]
    requests: list[str]

    @property
    def foreign(self) -> list[str]:
        """Requests for anything but the page itself and what it carries."""
        return [address for address in self.requests if not address.startswith(LOCAL)]


def check_sound(browser: "Browser", page: Path, width: int, heading: str) -> Sight:
    """Open a page of ours and hold it to what is asked of each; for what only this page has, look at the answer."""
    seen = browser.open(page, width)
    assert seen.width == width
    assert (seen.title, seen.headings) == (f"{heading} · agepipe", [heading])
    assert (seen.errors, seen.foreign, seen.broken) == ([], [], [])
    assert page.resolve().as_uri() in seen.requests
    assert seen.sideways == 0
    assert browser.open(page, width, dark=True).background != seen.background
    return seen


class Browser:
    """Opens pages and says what they showed."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = WIDE, *, dark: bool = False) -> Sight:
        """Load a page from disk in a viewport of that width, for a person who likes it light or dark."""
        return self.visit(page.resolve().as_uri(), width, dark=dark)

    def visit(self, address: str, width: int = WIDE, *, dark: bool = False) -> Sight:
        """The same for a page that is served."""
        # A window cannot be as narrow as a telephone. `mobile` would widen innerWidth to whatever overflows.
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.errors(), self.requests()  # what an earlier page left
        self.driver.get(address)
        # On a busy machine `get` has returned with the end of a long page still to come.
        WebDriverWait(self.driver, PATIENCE).until(lambda driver: driver.execute_script(COMPLETE))
        seen: dict[str, Any] = self.driver.execute_script(LOOK)
        return Sight(**seen, errors=self.errors(), requests=self.requests())

    def errors(self) -> list[str]:
        """What went to the console as an error since this was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Addresses that were asked for since this was asked last."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def camera_options(film: Path) -> tuple[str, ...]:
    """Options that give Chromium a camera which shows a film (.mjpeg or .y4m) and may be used without asking."""
    fake = "--use-fake-device-for-media-stream"
    return "--use-fake-ui-for-media-stream", fake, f"--use-file-for-fake-video-capture={film}"


@contextmanager
def started(*more: str) -> Iterator[Browser]:
    """A Chromium that runs until the block ends, with more options; the test is skipped where there is none."""
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None:
        pytest.skip(f"needs Chromium; none of {', '.join(CHROMIUMS)} was found")
    if chromedriver is None:
        pytest.skip("needs chromedriver, which was not found")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*OPTIONS, *more):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
