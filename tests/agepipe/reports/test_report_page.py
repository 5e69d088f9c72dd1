"""The evaluation report as a browser shows it."""

from pathlib import Path

import pytest
from browser import NARROW, WIDE, Browser, check_sound
from bundles import make_bundle, make_rows
from folders import evaluated

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.evaluation.mistakes import MISTAKES
from agepipe.model.ages import AgeRanges

PAPER = 718
"""Width of A4 within Chromium's margins, px."""
CUT = """
return [...document.querySelectorAll("table, figure svg, .tiles, .faces, dl")]
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => (e.closest("section, header").querySelector("h1, h2") || e).innerText + ": " + e.tagName);
"""
NAME = "faces_of_people_whose_data_set_has_a_name_without_a_single_space"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As wide as it gets: all fourteen ranges, a long name, curves, a champion, sets and mistakes."""
    folder = tmp_path_factory.mktemp("report")
    ranges = AgeRanges.of("utkface")
    rows = make_rows(folder / "rows", 200, ranges).model_copy(update={"name": NAME})
    runtime = Runtime(workspace=folder / "workspace", device="cpu", workers=1)
    settings = EvaluateSettings(draws=100, min_slice=20)
    champion = evaluated(make_bundle(folder / "champion", ranges, sharpness=900), rows, settings, runtime)
    model = make_bundle(folder / "model", ranges, temperature=1.5, thresholds={90: 0.8})
    return evaluated(model, rows, settings, runtime, against=champion).report


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_is_sound(browser: Browser, report: Path, width: int) -> None:
    seen = check_sound(browser, report, width, f"brightness on {NAME}")
    assert seen.drawings == 6  # the matrix, the error by age, the cumulative score, calibration, sets, the curves
    assert seen.images >= MISTAKES


def test_a_printed_page_cuts_nothing_off(browser: Browser, report: Path) -> None:
    browser.open(report, PAPER)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        # what scrolls on a screen lies open on paper
        assert browser.driver.execute_script(CUT) == []
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
