"""The champion beside a model."""

import json
import shutil
from pathlib import Path

import pytest
from bundles import make_bundle, make_rows
from folders import evaluated

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings
from agepipe.core.errors import DataError
from agepipe.data.records import Rows
from agepipe.evaluation.evaluate import compute_outcome, open_subject
from agepipe.evaluation.records import Evaluation
from agepipe.model.ages import AgeRanges
from agepipe.model.records import Model
from agepipe.reports.evaluation import COMPARABLE_SINCE, finished, read
from agepipe.reports.sentences import champion as champion_sentence
from agepipe.reports.sentences import side

QUICK = EvaluateSettings(draws=200)
Evaluated = tuple[Rows, Model, Evaluation, Runtime]


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


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """Rows, a model that was evaluated on them, its evaluation, and the workspace."""
    folder = tmp_path_factory.mktemp("evaluation")
    runtime = Runtime(workspace=folder / "workspace", device="cpu", workers=1)
    rows, model = make_rows(folder / "rows", 60), make_bundle(folder / "model")
    return rows, model, evaluated(model, rows, QUICK, runtime), runtime


@pytest.fixture
def copied(evaluation: Evaluated, tmp_path: Path) -> tuple[Evaluation, Runtime]:
    """The evaluation in a copy of its workspace, to be damaged."""
    _, _, done, runtime = evaluation
    shutil.copytree(runtime.workspace, tmp_path / "copy")
    moved = done.moved(runtime.workspace, tmp_path / "copy")
    return moved, runtime.model_copy(update={"workspace": tmp_path / "copy"})


def test_a_model_is_not_compared_with_itself(evaluation: Evaluated, runtime: Runtime) -> None:
    rows, model, done, _ = evaluation
    assert evaluated(model, rows, QUICK, runtime, against=done).digest == done.digest


@pytest.mark.parametrize("other", ["rows", "ranges"])
def test_other_rows_or_ranges_are_not_compared_and_it_says_so(
    tmp_path: Path, evaluation: Evaluated, other: str
) -> None:
    rows, _, done, runtime = evaluation
    ranges = AgeRanges.of(("1-30", "over30")) if other == "ranges" else rows.ranges
    mine = make_rows(tmp_path / "others", 60, seed=5) if other == "rows" else rows
    outcome = compute_outcome(open_subject(make_bundle(tmp_path / "model", ranges), mine), QUICK, runtime, against=done)
    assert outcome.champion is None
    assert "champion" in outcome.notes[0]
    assert champion_sentence(outcome) == ""


def test_a_finished_evaluation_of_these_very_rows_is_found(
    tmp_path: Path, evaluation: Evaluated, copied: tuple[Evaluation, Runtime]
) -> None:
    rows, model, _, _ = evaluation
    done, runtime = copied
    assert finished(model.digest, rows, runtime) == done
    assert finished("m" * 64, rows, runtime) is None
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


def test_predictions_that_cannot_be_read_are_named(
    tmp_path: Path, evaluation: Evaluated, copied: tuple[Evaluation, Runtime]
) -> None:
    rows, (done, runtime) = evaluation[0], copied
    done.predictions.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"predictions\.parquet: not a readable table; evaluate the champion again"):
        compute_outcome(open_subject(make_bundle(tmp_path / "model", sharpness=9), rows), QUICK, runtime, against=done)
