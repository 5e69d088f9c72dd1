"""The data report as a browser shows it."""

from pathlib import Path

import pytest
from browser import NARROW, WIDE, Browser, check_sound
from test_audit import HOSTILE, catalogue

from agepipe.config.stages import LabelSettings
from agepipe.data.audit import audit
from agepipe.reports.data_report import render

NAME = "faces_of_people_whose_data_set_has_a_name_without_a_single_space"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups of copies with their pictures, one larger than is shown, and rejects with long and hostile names."""
    folder = tmp_path_factory.mktemp("audit")
    rows = catalogue(
        folder,
        [
            *({"age": 20 + k, "digest": f"a{k}", "group": "a", "gender": k % 2} for k in range(8)),
            *({"age": 26, "digest": "b", "group": "b", "path": HOSTILE} for _ in range(2)),
            *({"age": age} for age in range(1, 100)),
        ],
        [(HOSTILE, "truncated", "<b>short</b>"), ("long/" * 30 + ".jpg", "link", f"it is a link to '{'x' * 80}.jpg'")],
    ).model_copy(update={"name": NAME})
    page = folder / "data-report.html"
    page.write_text(render(audit(rows, LabelSettings()), rows), encoding="utf-8")
    return page


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_is_sound(browser: Browser, report: Path, width: int) -> None:
    seen = check_sound(browser, report, width, f"{NAME}: contents of the data set")
    assert seen.images > 0
    assert seen.drawings == 1
