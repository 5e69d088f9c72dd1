"""What each part of the report says, and what it says when there is little to say."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bundles import RANGES, make_bundle, make_rows, seen
from folders import evaluated

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.data.records import Rows

QUICK = EvaluateSettings(draws=100)


def without(rows: Rows, *columns: str) -> Rows:
    """The same rows, of which less is known."""
    pl.read_parquet(rows.table).drop(columns).write_parquet(rows.table)
    return rows


def text(path: Path) -> str:
    """The words of the page, white space and markup taken out."""
    return re.sub(r"\s+", " ", re.sub(r"<(style|svg).*?</\1>|<[^>]+>", "", path.read_text(), flags=re.DOTALL))


def test_a_calibrated_model_is_shown_before_and_after_and_with_its_sets(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 300)
    model = make_bundle(tmp_path / "model", sharpness=300, temperature=2.0, thresholds={90: 0.8}, decoding="median")
    found = evaluated(model, rows, QUICK, runtime)
    page = text(found.report)
    for words in (
        "The temperature of 2 makes the network less confident",
        "in 15 bins",
        "with a target of 90 % contain the true range for",
        "the median of the distribution",
    ):
        assert words in page
    assert "true range in the 90&nbsp;% set" in page
    assert {"coverage", "set_size", "single"} <= set(found.intervals)
    table = pl.read_parquet(found.predictions)
    assert (table["low"] <= table["predicted"]).all()
    assert (table["predicted"] <= table["high"]).all()
    inside = (table["low"] <= table["label"]) & (table["label"] <= table["high"])
    assert inside.mean() == pytest.approx(found.metrics["coverage"])


def test_a_model_without_thresholds_or_temperature_says_so(tmp_path: Path, runtime: Runtime) -> None:
    page = text(evaluated(make_bundle(tmp_path / "m"), make_rows(tmp_path / "rows", 60), QUICK, runtime).report)
    assert "final.validation" in page
    assert "The temperature is 1" in page


def test_rows_of_which_little_is_known_are_judged_without_those_slices(tmp_path: Path, runtime: Runtime) -> None:
    rows = without(make_rows(tmp_path / "rows", 120), "gender", "race", "sharpness", "width")
    found = evaluated(make_bundle(tmp_path / "m"), rows, QUICK, runtime)
    kinds = set(pl.read_csv(found.folder / "slices.csv")["kind"])
    assert kinds == {"range", "brightness"}
    assert not {"gender", "race", "sharpness", "width"} & set(pl.read_parquet(found.predictions).columns)


def test_slices_that_are_too_small_say_so(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 100)
    asked = QUICK.model_copy(update={"min_slice": 40})
    found = evaluated(make_bundle(tmp_path / "m"), rows, asked, runtime)
    table = pl.read_csv(found.folder / "slices.csv")
    assert set(table.filter(kind="race")["enough"]) == {False}  # twenty each
    page = text(found.report)
    assert re.search(r"Too few photographs to compare, .*race White \(20\).* At least 40 are needed", page)
    few = [row for row in json.loads((found.folder / "metrics.json").read_text())["slices"] if not row["enough"]]
    assert all(row["accuracy_gap"] is None for row in few)


def test_rows_of_one_range_have_no_slices_by_range(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", ages=np.full(40, 30), count=40)
    found = evaluated(make_bundle(tmp_path / "m"), rows, QUICK, runtime)
    assert "range" not in set(pl.read_csv(found.folder / "slices.csv")["kind"])
    assert "no rows" in text(found.report)


def test_mistakes_are_pictures_and_label_errors_a_table_for_a_spreadsheet(tmp_path: Path, runtime: Runtime) -> None:
    ages = np.random.default_rng(3).integers(1, 61, 400)
    rows = make_rows(tmp_path / "rows", ages=ages, noise=0.01)
    planted = pl.read_parquet(rows.table).with_columns(
        age=pl.when(pl.col("index") < 12).then(pl.lit(58 if ages[0] < 30 else 3)).otherwise("age").cast(pl.UInt8)
    )
    planted.write_parquet(rows.table)
    found = evaluated(make_bundle(tmp_path / "m", sharpness=3000), rows, QUICK, runtime)
    page = found.report.read_text()
    assert page.count('<img src="data:image/jpeg;base64,') >= 24
    assert len(page) < 2_000_000
    errors = pl.read_csv(found.folder / "label-errors.csv")
    assert errors.columns[:5] == ["path", "digest", "age given", "range given", "range suggested"]
    assert set(errors["range given"]) <= set(RANGES.words)
    far = {row for row in range(12) if abs(int(ages[row]) - int(planted["age"][row])) > 20}
    paths = set(errors["path"].head(len(far) + 3))
    assert len({planted["path"][row] for row in far} & paths) >= len(far) // 2


def test_a_model_without_mistakes_has_none_to_show(tmp_path: Path, runtime: Runtime) -> None:
    ages = np.tile([5, 15, 30, 55], 20)
    found = evaluated(
        make_bundle(tmp_path / "m", sharpness=1e4), make_rows(tmp_path / "rows", ages=ages, noise=0), QUICK, runtime
    )
    assert found.metrics["accuracy"] == 1
    page = text(found.report)
    assert "No prediction for these photographs is wrong." in page
    assert pl.read_csv(found.folder / "label-errors.csv").is_empty()


def test_the_lineage_is_told_by_digest_and_count(tmp_path: Path, runtime: Runtime) -> None:
    rows, fitted = make_rows(tmp_path / "rows", 60), make_rows(tmp_path / "fitted", 50, seed=9)
    lineage = pl.concat([seen(fitted, "fitted", 40), seen(fitted, "calibrated")]).unique("digest", keep="first")
    found = evaluated(make_bundle(tmp_path / "m", lineage=lineage), rows, QUICK, runtime)
    told = json.loads((found.folder / "metrics.json").read_text())["lineage"]
    assert told["roles"] == {"fitted": 40, "calibrated": 10}
    page = text(found.report)
    assert "The model has seen none of these 60 photographs" in page
    for words in (*told["digests"].values(), "40 photographs", "10 photographs", rows.digest, "of 256 bits"):
        assert words in page
    reverse = evaluated(make_bundle(tmp_path / "n", lineage=lineage.reverse()), rows, QUICK, runtime)
    again = json.loads((reverse.folder / "metrics.json").read_text())
    assert again["lineage"]["digests"] == told["digests"]
