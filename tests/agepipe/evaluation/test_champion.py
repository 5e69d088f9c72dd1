"""The champion beside a model."""

import json
from pathlib import Path

import polars as pl
import pytest
from bundles import make_bundle, make_rows
from folders import evaluated

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.core.errors import DataError
from agepipe.evaluation.comparison import paired_differences
from agepipe.evaluation.evaluate import compute_outcome, open_subject
from agepipe.model.ages import AgeRanges
from agepipe.reports.evaluation import COMPARABLE_SINCE, finished, read
from agepipe.reports.sentences import champion as champion_sentence
from agepipe.reports.sentences import side

QUICK = EvaluateSettings(draws=200)


def test_the_report_shows_the_champion_s_figures_and_the_paired_difference(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 150, noise=0.02)
    first = evaluated(make_bundle(tmp_path / "champion", sharpness=300, decoding="median"), rows, QUICK, runtime)
    model = make_bundle(tmp_path / "model", sharpness=0)
    outcome = compute_outcome(open_subject(model, rows), QUICK, runtime, against=first)
    assert outcome.champion is not None
    for name, found in outcome.champion.differences.items():
        assert found.second == pytest.approx(first.metrics[name], abs=1e-6)
        assert found.first == pytest.approx(outcome.figures[name])
    assert side(outcome.champion.differences["accuracy"].difference, "accuracy") == "worse"
    assert "worse in accuracy" in champion_sentence(outcome)
    done = evaluated(model, rows, QUICK, runtime, against=first)
    assert done.digest != evaluated(model, rows, QUICK, runtime).digest
    assert f"The champion is model <code>{first.model[:10]}</code>" in done.report.read_text()


def test_a_model_is_not_compared_with_itself(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 60), make_bundle(tmp_path / "model")
    first = evaluated(model, rows, QUICK, runtime)
    assert evaluated(model, rows, QUICK, runtime, against=first).digest == first.digest


@pytest.mark.parametrize("other", ["rows", "ranges"])
def test_other_rows_or_ranges_are_not_compared_and_it_says_so(tmp_path: Path, runtime: Runtime, other: str) -> None:
    rows = make_rows(tmp_path / "rows", 60)
    champion = make_bundle(
        tmp_path / "champion", AgeRanges.of(("1-30", "over30")) if other == "ranges" else rows.ranges
    )
    seen = make_rows(tmp_path / "others", 60, seed=5) if other == "rows" else rows
    first = evaluated(champion, seen, QUICK, runtime)
    outcome = compute_outcome(
        open_subject(make_bundle(tmp_path / "model", sharpness=9), rows), QUICK, runtime, against=first
    )
    assert outcome.champion is None
    assert "champion" in outcome.notes[0]
    assert champion_sentence(outcome) == ""


def test_a_finished_evaluation_of_these_very_rows_is_found(tmp_path: Path, runtime: Runtime) -> None:
    rows, model = make_rows(tmp_path / "rows", 60), make_bundle(tmp_path / "model")
    assert finished(model.digest, rows, runtime) is None
    done = evaluated(model, rows, QUICK, runtime)
    assert finished(model.digest, rows, runtime) == done
    assert finished(model.digest, make_rows(tmp_path / "others", 60, seed=5), runtime) is None
    path = done.folder / "metrics.json"
    summary = json.loads(path.read_text())
    for version, found in ((COMPARABLE_SINCE, done), (COMPARABLE_SINCE - 1, None)):
        path.write_text(json.dumps(summary | {"version": version}))
        assert finished(model.digest, rows, runtime) == found
    path.write_text("{")
    assert finished(model.digest, rows, runtime) is None
    with pytest.raises(DataError, match=r"metrics\.json: not the figures of an evaluation"):
        read(done.folder)


def test_predictions_that_cannot_be_read_are_named(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 60)
    first = evaluated(make_bundle(tmp_path / "champion"), rows, QUICK, runtime)
    first.predictions.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"predictions\.parquet: not a readable table; evaluate the champion again"):
        evaluated(make_bundle(tmp_path / "model", sharpness=9), rows, QUICK, runtime, against=first)
    assert pl.read_parquet(rows.table).height == 60


@pytest.mark.slow
def test_the_champion_is_compared_on_draws_of_groups(tmp_path: Path, runtime: Runtime) -> None:
    rows = make_rows(tmp_path / "rows", 120, noise=0.05, groups=[str(at // 6) for at in range(120)])
    first = make_bundle(tmp_path / "champion", sharpness=20)
    outcome = compute_outcome(
        open_subject(make_bundle(tmp_path / "model"), rows),
        QUICK,
        runtime,
        against=evaluated(first, rows, QUICK, runtime),
    )
    other = compute_outcome(open_subject(first, rows), QUICK, runtime).predictions
    groups = outcome.table["group"].to_numpy()
    expected = paired_differences(groups, outcome.predictions, other, QUICK).figures
    as_rows = paired_differences(range(120), outcome.predictions, other, QUICK).figures
    assert outcome.champion is not None
    for name in ("accuracy", "mae", "loss"):
        found = outcome.champion.differences[name]
        assert found == pytest.approx(expected[name], rel=1e-5, abs=1e-6)
    assert outcome.champion.differences["mae"][3:5] != pytest.approx(as_rows["mae"][3:5], rel=1e-3)
