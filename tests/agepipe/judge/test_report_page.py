"""The evaluation report as a browser shows it."""

from pathlib import Path

import pytest
from browser import NARROW, WIDE, Browser, check_sound
from bundles import make_bundle, make_rows

from agepipe.ages import AgeRanges
from agepipe.config import EvaluateSettings, Where
from agepipe.judge.evaluate import evaluate

NAME = "faces_of_people_whose_data_set_has_a_name_without_a_single_space"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As wide as it gets: all fourteen ranges, a long name, and curves."""
    folder = tmp_path_factory.mktemp("report")
    ranges = AgeRanges.of("utkface")
    rows = make_rows(folder / "rows", 200, ranges).model_copy(update={"name": NAME})
    where = Where(workspace=folder / "workspace", device="cpu", workers=1)
    return evaluate(make_bundle(folder / "model", ranges), rows, EvaluateSettings(draws=100), where).report


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_is_sound(browser: Browser, report: Path, width: int) -> None:
    seen = check_sound(browser, report, width, f"brightness on {NAME}")
    assert seen.drawings == 3  # the matrix, the error by age, the curves
