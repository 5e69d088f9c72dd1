import json
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from bundles import RANGES, make_bundle, make_rows, pictures, seen
from folders import evaluated
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.core.errors import DataError, LeakageError, ModelError
from agepipe.evaluation.compute import YEARS
from agepipe.evaluation.evaluate import compute_outcome, open_subject
from agepipe.evaluation.metrics import FIGURES
from agepipe.model.ages import AgeRanges
from agepipe.model.bundle import NETWORK
from agepipe.model.bundle_files import write_lineage
from agepipe.reports.report import markdown

QUICK = EvaluateSettings(draws=200)


def test_everything_that_was_found_is_written(tmp_path: Path, runtime: Runtime) -> None:
    rows, fitted = make_rows(tmp_path / "rows", 300), make_rows(tmp_path / "fitted", 50, seed=9)
    found = evaluated(make_bundle(tmp_path / "model", lineage=seen(fitted)), rows, QUICK, runtime)
    assert found.count == 300
    extra = {"ece_before", *(f"within_{years}_years" for years in YEARS)}
    assert (set(found.metrics), set(found.intervals)) == ({*FIGURES, *extra, "seconds"}, {*FIGURES, *extra})
    for name, (low, high) in found.intervals.items():
        assert low <= found.metrics[name] <= high
    table = pl.read_parquet(found.predictions)
    said = ["digest", "group", "age", "label", "predicted", "years", "p0", "p1", "p2", "p3"]
    assert table.columns == [*said, "gender", "race", "width", "height", "brightness", "sharpness"]
    true, said = table["label"], table["predicted"]
    assert found.metrics["accuracy"] == accuracy_score(true, said)
    assert found.metrics["macro_recall"] == pytest.approx(recall_score(true, said, average="macro"))
    assert found.metrics["mae"] == pytest.approx((table["years"] - table["age"]).abs().mean(), rel=1e-5)
    counts = pl.read_csv(found.folder / "confusion.csv")
    assert counts.columns == ["true", *RANGES.names]
    assert np.array_equal(counts.drop("true").to_numpy(), confusion_matrix(true, said))
    assert pl.read_csv(found.folder / "ranges.csv")["range"].to_list() == list(RANGES.names)

    assert str(tmp_path) not in found.report.read_text()
    assert {path.name for path in (found.folder / "plots").iterdir()} == {
        f"{name}.png" for name in ("confusion", "curves", "age", "cumulative", "calibration")
    }


def test_the_digest_is_of_what_goes_in(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 100), make_bundle(tmp_path / "model")
    first = evaluated(model, rows, QUICK, runtime)
    other = evaluated(model, rows, EvaluateSettings(draws=201), runtime)
    assert other.digest != first.digest
    assert other.metrics == first.metrics


def test_the_same_file_is_never_judged_on(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 100)
    model = make_bundle(tmp_path / "model", lineage=seen(rows, "fitted", 30))
    with pytest.raises(LeakageError, match="30 of the 100 rows"):
        evaluated(model, rows, QUICK, runtime)
    assert not (runtime.workspace / "predictions").exists()
    found = evaluated(model, rows, QUICK, runtime, exclude_seen=True)
    assert (found.count, found.excluded) == (70, 30)
    assert "<strong>30 photographs were left out</strong>" in found.report.read_text()
    summary = json.loads((found.folder / "metrics.json").read_text(encoding="utf-8"))
    assert (summary["excluded"], summary["lineage"]["seen_by_content"], summary["lineage"]["seen_by_appearance"]) == (
        30, 30, 0,
    )  # fmt: skip
    assert "(30 that it had seen were left out)" in found.model_card.read_text(encoding="utf-8")
    assert "30 by content, 0 by appearance, all left out" in found.report.read_text(encoding="utf-8")
    seen_digests = set(seen(rows, "fitted", 30)["digest"])
    assert seen_digests.isdisjoint(pl.read_parquet(found.predictions)["digest"])


def test_a_copy_saved_again_is_never_judged_on(tmp_path: Path, runtime: Runtime) -> None:
    ages = np.random.default_rng(0).integers(1, 60, 30)
    fitted = make_rows(tmp_path / "fitted", size=64, ages=ages, pixels=pictures(ages, 64, 1, 0.05))
    mixed = pictures(ages, 64, 2, 0.05)
    mixed[:4] = [
        cv2.imdecode(cv2.imencode(".jpg", picture)[1], cv2.IMREAD_COLOR) for picture in np.load(fitted.pixels)[:4]
    ]
    rows = make_rows(tmp_path / "rows", size=64, ages=ages, pixels=mixed)
    model = make_bundle(tmp_path / "model", size=64, lineage=seen(fitted))
    with pytest.raises(LeakageError, match=r"4 of the 30 rows .* 0 the same file, 4 a copy"):
        evaluated(model, rows, QUICK, runtime)


def test_a_leak_planted_after_an_evaluation_is_caught(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 60), make_bundle(tmp_path / "model")
    compute_outcome(open_subject(model, rows), QUICK, runtime)  # its predictions stay in the workspace
    write_lineage(model.folder, seen(rows))
    with pytest.raises(LeakageError):
        evaluated(model, rows, QUICK, runtime)


def test_a_model_that_has_seen_all_rows_cannot_be_judged_on_the_rest(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 20)
    with pytest.raises(DataError, match="of 0 rows"):
        evaluated(make_bundle(tmp_path / "model", lineage=seen(rows)), rows, QUICK, runtime, exclude_seen=True)


def test_ages_are_labelled_by_the_model_s_own_ranges(tmp_path: Path, runtime: Runtime) -> None:
    data = AgeRanges.of(("1-30", "31-50", "over50"))
    rows = make_rows(tmp_path / "rows", 200, data)
    narrow = AgeRanges.of(("5-20", "21-40"))
    found = evaluated(make_bundle(tmp_path / "model", narrow), rows, QUICK, runtime)
    table = pl.read_parquet(found.predictions)
    assert table["label"].to_list() == [int(age > 20) for age in table["age"]]
    ages = pl.read_parquet(rows.table)["age"]
    outside = int(((ages < 5) | (ages > 40)).sum())
    assert found.count == 200 - outside
    summary = json.loads((found.folder / "metrics.json").read_text())
    assert summary["outside"] == outside
    assert "mapped to the model's own 2" in summary["notes"][0]


def test_a_bundle_that_was_changed_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    model = make_bundle(tmp_path / "model")
    (model.folder / NETWORK).write_bytes((model.folder / NETWORK).read_bytes() + b"\0")
    with pytest.raises(ModelError, match="a file was changed"):
        evaluated(model, make_rows(tmp_path / "rows", 10), QUICK, runtime)


def test_the_numbers_do_not_depend_on_the_workers(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 2500), make_bundle(tmp_path / "model")
    one, four = (
        compute_outcome(
            open_subject(model, rows), QUICK,
            runtime.model_copy(update={"workers": workers, "workspace": tmp_path / str(workers)}),
        )
        for workers in (1, 4)
    )  # fmt: skip
    assert np.array_equal(one.predictions.probabilities, four.predictions.probabilities)
    assert np.array_equal(one.predictions.years, four.predictions.years)
    assert one.intervals == four.intervals


def test_figures_of_a_model_of_unknown_lineage_never_stand_without_a_warning(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 60)
    unknown = evaluated(make_bundle(tmp_path / "unknown", known=False, curves=False), rows, QUICK, runtime)
    assert "unseen" not in unknown.rows_in_words
    assert "unseen" not in unknown.verdict
    shown = [line for line in markdown(unknown).splitlines() if line.startswith("| ")]
    assert all("may be too good" in line for line in shown[1:])
    page, card = (path.read_text(encoding="utf-8") for path in (unknown.report, unknown.model_card))
    assert "value (may be too good)" in page
    assert "Training curves" not in page
    assert "What this model was trained on is unknown" in card
    known = evaluated(make_bundle(tmp_path / "known"), rows, QUICK, runtime)
    assert "60 unseen photographs" in known.rows_in_words
    assert "60 unseen photographs" in known.verdict
    assert "may be too good" not in markdown(known) + known.report.read_text(encoding="utf-8")
