"""The page in a real Chromium, whose camera is a file of drawn faces."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
from browser import NARROW, WIDE, Browser, camera_options, started
from bundles import make_bundle
from chips import detector_file
from pages import drawn, film, scene, served
from photographs import png_bomb
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from agepipe.config.runtime import Runtime
from agepipe.serving.camera_session import CameraOptions
from agepipe.serving.deploy import folder_of, switch
from agepipe.serving.detect import yunet
from agepipe.serving.web import server

SECONDS = 30
SIDEWAYS = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
# The share of the pixels that have a colour of the overlay, which the scene has not.
BOXES = """
const canvas = document.querySelector("canvas"), ink = canvas.getContext("2d");
const pixels = ink.getImageData(0, 0, canvas.width, canvas.height).data;
let found = 0;
for (let at = 0; at < pixels.length; at += 4)
  found += [[86, 180, 233], [230, 159, 0], [0, 200, 140], [240, 228, 66]].some(
    (rgb) => rgb.every((value, part) => Math.abs(value - pixels[at + part]) < 4));
return found / (canvas.width * canvas.height);
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = film(tmp_path_factory.mktemp("film") / "film.mjpeg", [drawn(30), drawn(70, 3)])
    with started(*camera_options(path)) as running:
        yield running


@pytest.fixture
def here(runtime: Runtime, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setenv(yunet.VARIABLE, str(detector_file(shared)))
    for number, sharpness in ((1, 60.0), (2, 30.0)):
        make_bundle(folder_of(runtime) / f"agepipe-{number}-x", sharpness=sharpness)
    return runtime


def deployed(number: int, runtime: Runtime) -> None:
    switch(folder_of(runtime) / f"agepipe-{number}-x", "agepipe", number, runtime)


@pytest.fixture
def page(here: Runtime, chromium: Browser) -> Iterator["Page"]:
    deployed(1, here)
    with served(server.prepare(CameraOptions(), here)) as address:
        yield Page(chromium, address)
        chromium.driver.get("about:blank")


class Page:
    """The page as a person uses it."""

    def __init__(self, browser: Browser, address: str, width: int = WIDE) -> None:
        self.browser, self.driver = browser, browser.driver
        self.seen = browser.visit(f"http://{address}/", width)

    def text(self, part: str) -> str:
        return self.driver.find_element(By.ID, part).text

    def press(self, part: str) -> None:
        self.driver.find_element(By.ID, part).send_keys(Keys.ENTER)

    def wait(self, what: Callable[[], object]) -> None:
        limit = time.monotonic() + SECONDS
        while not what():
            assert time.monotonic() < limit, (self.text("status"), self.text("faces"), self.browser.errors())
            time.sleep(0.05)


def test_the_camera_is_looked_at_and_a_new_model_followed(page: Page, here: Runtime) -> None:
    assert page.seen.headings == ["How old do I look?"]
    assert "No picture is stored" in page.driver.page_source
    page.wait(lambda: page.text("model") == "agepipe version 1")
    page.press("camera")
    page.wait(lambda: len(page.text("faces").splitlines()) == 2)
    for line in page.text("faces").splitlines():
        assert any(line.startswith(words) for words in ("1 to 10", "11 to 20", "21 to 40", "over 40"))
        assert "about" in line
    assert page.driver.execute_script(BOXES) > 0.004
    page.wait(lambda: "frames/s" in page.text("rate"))
    assert page.text("status").startswith("2 faces: ")
    deployed(2, here)
    page.wait(lambda: page.text("model") == "agepipe version 2")
    page.wait(lambda: len(page.text("faces").splitlines()) == 2)
    assert page.browser.errors() == []


def test_it_pauses_and_stops_by_keyboard(page: Page) -> None:
    page.press("camera")
    page.wait(lambda: page.text("faces"))
    page.press("pause")
    page.wait(lambda: page.text("status") == "Paused: nothing is sent.")
    page.press("pause")
    page.wait(lambda: page.text("status").startswith("2 faces"))
    page.press("camera")
    page.wait(lambda: page.text("status") == "The camera is off.")
    assert page.text("faces") == ""
    assert page.driver.execute_script(BOXES) == 0
    assert page.browser.errors() == []


def test_a_picture_is_looked_at_and_again_by_a_new_model(page: Page, here: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), scene(0, [drawn(8), drawn(40, 2), drawn(75, 3)])[..., ::-1])
    page.driver.find_element(By.ID, "file").send_keys(str(path))
    page.wait(lambda: len(page.text("faces").splitlines()) == 3)
    assert page.text("status").startswith("3 faces: ")
    before = page.text("faces")
    deployed(2, here)
    page.wait(lambda: page.text("model") == "agepipe version 2" and len(page.text("faces").splitlines()) == 3)
    assert page.text("faces") != before
    assert page.browser.errors() == []


def test_files_that_are_no_pictures_are_named(page: Page, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "bomb.png").write_bytes(png_bomb(20_000))
    cv2.imwrite(str(tmp_path / "dot.png"), scene()[:1, :1])
    for name, said in (
        ("text.jpg", "The browser cannot read text.jpg"), ("bomb.png", "The browser cannot read bomb.png"),
        ("dot.png", "No face"),
    ):  # fmt: skip
        page.driver.find_element(By.ID, "file").send_keys(str(tmp_path / name))
        page.wait(lambda said=said: page.text("status").startswith(said))
    assert page.browser.errors() == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_it_fits_the_screen_in_light_and_dark(here: Runtime, chromium: Browser, width: int) -> None:
    deployed(1, here)
    with served(server.prepare(CameraOptions(), here)) as address:
        page = Page(chromium, address, width)
        assert all(found.startswith(f"http://{address}/") for found in page.seen.foreign)
        page.press("camera")
        page.wait(lambda: page.text("faces"))
        assert chromium.driver.execute_script(SIDEWAYS) == 0
        dark = chromium.visit(f"http://{address}/", width, dark=True)
        assert dark.background != page.seen.background
        chromium.driver.get("about:blank")


def test_every_control_has_a_name_and_is_reached_by_tab(page: Page) -> None:
    reached = []
    for _ in range(2):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        active = page.driver.switch_to.active_element
        reached.append((active.get_attribute("id"), active.accessible_name))
        assert page.driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", active) == "solid"
    assert reached == [("camera", "Start camera"), ("choose", "Choose a picture")]
    assert page.driver.find_element(By.ID, "status").get_attribute("aria-live") == "polite"


def test_without_a_model_it_says_how_to_get_one_and_goes_on_by_itself(
    tracked: Runtime, here: Runtime, chromium: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agepipe.serving.web.session.PAUSE", 0.2)
    with served(server.prepare(CameraOptions(), tracked)) as address:
        page = Page(chromium, address)
        page.wait(lambda: "agepipe run sample" in page.text("missing"))
        page.press("camera")
        page.wait(lambda: "agepipe run sample" in page.text("status"))
        deployed(1, here)
        page.wait(lambda: page.text("model") == "agepipe version 1" and page.text("faces"))
        assert not page.driver.find_element(By.ID, "missing").is_displayed()
        assert chromium.errors() == []
        chromium.driver.get("about:blank")


def test_it_finds_a_server_again_that_was_away(here: Runtime, chromium: Browser) -> None:
    deployed(1, here)
    model = server.prepare(CameraOptions(), here)
    with served(model) as address:
        page = Page(chromium, address)
        page.press("camera")
        page.wait(lambda: page.text("faces"))
    page.wait(lambda: "Reconnecting" in page.text("status"))
    with served(model, int(address.partition(":")[2])):
        page.wait(lambda: page.text("status").startswith("2 faces"))
        chromium.driver.get("about:blank")
    chromium.errors()  # a server that does not answer is an error to Chromium, and a sentence to who looks at the page
