"""Models compared on one set of rows: honest about what was left out, and a page as a browser shows it."""

from pathlib import Path

import polars as pl
import pytest
from browser import NARROW, WIDE, Browser, check_sound
from bundles import make_bundle, make_rows, seen
from folders import fresh

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.core.errors import ConfigError, DataError
from agepipe.data.records import Rows
from agepipe.evaluation.comparison import significance
from agepipe.evaluation.figures import gap
from agepipe.evaluation.records import Compared
from agepipe.model.ages import AgeRanges
from agepipe.model.bundle import digest, read_card
from agepipe.model.bundle_files import write_card
from agepipe.model.records import Model
from agepipe.reports import comparison
from agepipe.reports.comparison import ModelComparison, compare, read

QUICK = EvaluateSettings(draws=300)


def run(models: tuple[Model, ...], rows: Rows, runtime: Runtime) -> Compared:
    titles = [f"model {at}" for at in range(len(models))]
    return compare(models, titles, rows, QUICK, fresh(runtime.workspace / "comparisons"), runtime)


def found_in(models: tuple[Model, ...], rows: Rows, runtime: Runtime) -> ModelComparison:
    return read(run(models, rows, runtime))


def test_the_better_is_named_and_each_is_compared_with_the_first(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 300, noise=0.02)
    poor, good, twin = (make_bundle(tmp_path / str(s), sharpness=float(int(s))) for s in (5.0, 400.0, 5.5))
    write_card(twin.folder, read_card(twin.folder).model_copy(update={"versions": {"numpy": "another"}}))
    twin = twin.model_copy(update={"digest": digest(twin.folder)})
    found = found_in((poor, good, twin), rows, runtime)
    first, second = comparison.verdicts(found)
    assert significance(found.against[0].figures["mae"], "mae") == 1
    assert f"age error ({gap(found.against[0].figures['mae'].difference, 'mae')} years)" in first
    assert not any(significance(change, name) for name, change in found.against[1].figures.items())
    assert "better" not in second
    assert "worse" not in second
    assert (found.count, found.excluded, len(found.against)) == (300, 0, 2)
    assert comparison.excluded(found) == ""


def test_the_table_is_for_spreadsheets_and_damaged_facts_are_refused(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 100)
    models = (make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b", sharpness=20))
    first = run(models, rows, runtime)
    assert run(models, rows, runtime).digest == first.digest
    table = pl.read_csv(first.folder / "slices.csv")
    assert set(table["slice"]) >= {"male", "female"}
    assert not [name for name in table["slice"] if "-" in name]  # a spreadsheet would take it for a date
    first.facts.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read; remove the folder"):
        read(first)


def test_rows_that_any_has_seen_are_left_out_and_counted(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 200)
    a = make_bundle(tmp_path / "a", lineage=seen(rows, first=30))
    b = make_bundle(tmp_path / "b", sharpness=20, lineage=seen(rows)[20:60])
    found = found_in((a, b), rows, runtime)
    assert (found.count, found.excluded) == (140, 60)
    assert comparison.excluded(found).startswith("60 ")
    with pytest.raises(DataError, match="of 200 rows none is left that no model has seen"):
        run((a, make_bundle(tmp_path / "c", sharpness=30, lineage=seen(rows))), rows, runtime)


def test_unknown_lineage_and_other_ranges_are_said_plainly(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 200)
    stray = make_bundle(tmp_path / "stray", known=False, sharpness=20)
    coarse = make_bundle(tmp_path / "coarse", AgeRanges.of(("1-30", "over30")))
    found = found_in((make_bundle(tmp_path / "a"), stray, coarse), rows, runtime)
    assert [title for title in ("model 0", "model 1", "model 2") if title in found.notes[0]] == ["model 1"]
    assert [title for title in ("model 0", "model 1", "model 2") if title in found.notes[1]] == ["model 0", "model 2"]
    assert (tuple(found.against[1].figures), found.against[1].exact) == (("mae",), None)


def test_a_model_is_not_compared_with_itself(tmp_path: Path, runtime: Runtime) -> None:
    a, rows = make_bundle(tmp_path / "a"), make_rows(tmp_path / "rows", 50)
    for models in ((a,), (a, a)):
        with pytest.raises(ConfigError, match="not all different"):
            run(models, rows, runtime)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As wide as it gets: fourteen ranges, three models, one of which has other ranges."""
    folder = tmp_path_factory.mktemp("comparison")
    ranges = AgeRanges.of("utkface")
    rows = make_rows(folder / "rows", 400, ranges)
    runtime = Runtime(workspace=folder / "workspace", device="cpu", workers=1)
    models = (
        make_bundle(folder / "a", ranges), make_bundle(folder / "b", ranges, sharpness=900), make_bundle(folder / "c"),
    )  # fmt: skip
    titles = ("version 1", "version 12 (champion)", "a-bundle")
    return compare(models, titles, rows, QUICK, fresh(folder), runtime).page


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_is_sound(browser: Browser, page: Path, width: int) -> None:
    check_sound(browser, page, width, "version 12 (champion), a-bundle against version 1")
    scrolls = "return [...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
    assert max(browser.driver.execute_script(scrolls)) <= 0
