import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from folders import fresh, tried
from trainings import kill_after

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, Metric, SearchSettings
from agepipe.core.errors import TrainingError, WorkerError
from agepipe.data.records import Rows
from agepipe.data.split import folds
from agepipe.search.records import Fold, Trial
from agepipe.search.trial import OUTCOMES, choose, first_epochs, plan, trial
from agepipe.training.job import EpochEvent, Fitted
from agepipe.training.workdir import labelled

FOLD = Fold(index=1, count=3, seed=30)
GRID = SearchSettings(grid={"lr": (0.01, 0.02), "head": ("v1", "linear")}, folds=2)


def test_the_plan_is_the_grid_on_every_fold() -> None:
    planned = plan(GRID)
    assert len(planned) == 8
    assert [place for place, _, _ in planned] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert planned[2][1] == {"lr": 0.01, "head": "linear"}
    assert [fold.index for _, _, fold in planned] == [0, 1] * 4
    assert {fold.seed for _, _, fold in planned} == {GRID.seed}


@pytest.mark.parametrize(("grid", "settings"), [({}, {}), ({"lr": (0.03,)}, {"lr": 0.03})])
def test_one_setting_needs_no_trial(grid: dict, settings: dict) -> None:
    search = SearchSettings(grid=grid)
    assert plan(search) == []
    choice = choose([], search)
    assert (choice.settings, choice.trials, choice.mean, choice.deviation) == (settings, 0, 0.0, 0.0)


def test_a_trial_is_judged_on_its_fold(rows: Rows, learn: LearnSettings, runtime: Runtime) -> None:
    seen: list[EpochEvent] = []
    done = tried(rows, learn, {"lr": 0.02}, 4, FOLD, runtime, seen.append)
    assert len(seen) == learn.epochs == done.epochs
    assert done.settings == {"lr": 0.02}
    assert done.parameters > 300_000
    assert done.metrics["macro_recall"] == max(event.metrics["validation_macro_recall"] for event in seen)
    assert pl.read_parquet(done.folder / "curves.parquet").height == 3
    said = pl.read_parquet(done.folder / OUTCOMES)
    found = said.select(pl.col("^p[0-9]+$")).to_numpy().argmax(1)
    assert np.mean(found == said["label"].to_numpy()) == pytest.approx(done.metrics["accuracy"])
    assert sorted(path.name for path in done.folder.iterdir()) == ["curves.parquet", OUTCOMES]


def test_a_trial_learns_nothing_from_the_fold_that_judges_it(
    rows: Rows, learn: LearnSettings, runtime: Runtime, tmp_path: Path
) -> None:
    """Law 2: with other pictures in the fold the training is the same to the last bit, and its judgement is not."""
    table = labelled(rows)
    fold = table.filter(folds(table, FOLD.count, FOLD.seed, rows.ranges) == FOLD.index)
    assert FOLD.count * len(fold) == pytest.approx(len(table), abs=6)
    pixels = np.load(rows.pixels)
    pixels[fold["index"].to_numpy()] = 255 - pixels[fold["index"].to_numpy()] // 3
    np.save(tmp_path / "other.npy", pixels)
    curves = []
    for name, store in (("one", rows.pixels), ("two", tmp_path / "other.npy")):
        place = runtime.model_copy(update={"workspace": tmp_path / name})
        done = tried(rows.model_copy(update={"pixels": store}), learn, {}, 0, FOLD, place)
        curves.append(pl.read_parquet(done.folder / "curves.parquet"))
        assert pl.read_parquet(done.folder / OUTCOMES)["digest"].sort().equals(fold["digest"].sort())
    train, judged = pl.selectors.starts_with("train_"), pl.selectors.starts_with("validation_")
    assert curves[0].select(train).equals(curves[1].select(train))
    assert not curves[0].select(judged).equals(curves[1].select(judged))


def test_the_result_follows_from_content_not_from_the_order_of_the_rows(
    rows: Rows, learn: LearnSettings, runtime: Runtime, tmp_path: Path
) -> None:
    first = tried(rows, learn, {}, 0, FOLD, runtime)
    pl.read_parquet(rows.table).sort("index", descending=True).write_parquet(tmp_path / "turned.parquet")
    turned = rows.model_copy(update={"table": tmp_path / "turned.parquet"})
    elsewhere = runtime.model_copy(update={"workspace": tmp_path / "elsewhere"})
    again = tried(turned, learn, {}, 0, FOLD, elsewhere)
    assert again.digest == first.digest
    assert again.metrics == first.metrics


def test_each_fold_and_setting_is_a_trial_of_its_own(rows: Rows, learn: LearnSettings, runtime: Runtime) -> None:
    quick = learn.model_copy(update={"epochs": 1})
    base = tried(rows, quick, {}, 0, FOLD, runtime)
    other = [
        tried(rows, quick, {}, 0, FOLD.model_copy(update={"index": 0}), runtime),
        tried(rows, quick, {"dropout": 0.5}, 1, FOLD, runtime),
    ]
    assert len({one.digest for one in (base, *other)}) == 3


def test_a_killed_trial_goes_on_and_gives_the_same_figures(
    rows: Rows, learn: LearnSettings, runtime: Runtime, tmp_path: Path
) -> None:
    longer = learn.model_copy(update={"epochs": 4, "average": 0.9})
    expected = tried(rows, longer, {}, 0, FOLD, runtime.model_copy(update={"workspace": tmp_path / "other"}))

    with pytest.raises(WorkerError, match="SIGKILL"):
        trial(rows, longer, FOLD, fresh(tmp_path), runtime, kill_after(2, 0.05))
    (partial,) = tmp_path.glob("*-partial")
    folder = partial.with_name(partial.name.removesuffix("-partial"))
    after: list[EpochEvent] = []
    found = trial(rows, longer, FOLD, folder, runtime, after.append)
    assert after[0].epoch >= 3
    assert found.metrics == expected.metrics


@pytest.mark.parametrize(
    ("metric", "count", "best"), [("accuracy", 4, 3), ("accuracy", 2, 2), ("mae", 4, 4), ("mae", 2, 1)]
)
def test_the_first_epochs_of_a_training_are_judged_by_what_they_had_shown(
    metric: Metric, count: int, best: int
) -> None:
    rows = ((0.2, 7.0), (0.3, 8.0), (0.6, 6.0), (0.5, 4.0), (0.9, 1.0))
    curves = [
        {"epoch": at + 1, "seconds": 2.0, "train_mae": 0.1, "validation_accuracy": right, "validation_mae": error}
        for at, (right, error) in enumerate(rows)
    ]
    whole = Fitted(
        curves=curves, best=5, metrics={"accuracy": 0.9, "mae": 1.0}, probabilities=np.ones((2, 2)), seconds=10.0
    )
    found = first_epochs(whole, count, metric)
    assert (found.best, found.curves, found.seconds) == (best, curves[:count], 2.0 * count)
    assert found.metrics == {"accuracy": rows[best - 1][0], "mae": rows[best - 1][1]}
    assert found.probabilities is None


def _trial(setting: int, index: int, score: float, tmp_path: Path, **changes: object) -> Trial:
    settings = plan(GRID)[2 * setting][1]
    values = {
        "digest": f"{setting}{index}", "settings": settings, "setting": setting,
        "fold": Fold(index=index, count=2, seed=30), "metrics": {"macro_recall": score, "mae": 9 - score},
        "seconds": 1.0, "epochs": 3, "folder": tmp_path, "parameters": 100, "run": f"run{setting}{index}",
    }  # fmt: skip
    return Trial(**{**values, **changes})


def _grid(tmp_path: Path, means: list[float], **changes: list[object]) -> list[Trial]:
    def own(place: int) -> dict[str, object]:
        return {name: values[place] for name, values in changes.items()}

    return [
        _trial(place, index, mean + 0.1 * (2 * index - 1), tmp_path, **own(place))
        for place, mean in enumerate(means)
        for index in range(2)
    ]


def test_the_best_mean_over_folds_wins(tmp_path: Path) -> None:
    choice = choose(_grid(tmp_path, [0.3, 0.5, 0.6, 0.4]), GRID)
    assert choice.settings == {"lr": 0.02, "head": "v1"}
    assert choice.mean == pytest.approx(0.6)
    assert choice.deviation == pytest.approx(0.1 * 2**0.5)
    assert choice.trials == len(choice.runs) == 8
    lower = GRID.model_copy(update={"metric": "mae"})
    assert choose(_grid(tmp_path, [0.3, 0.5, 0.6, 0.4]), lower).settings == choice.settings


@pytest.mark.parametrize(
    ("changes", "winner"),
    [
        ({"parameters": [9, 5, 7, 5]}, 1),
        ({"epochs": [9, 5, 4, 4]}, 2),
        ({}, 0),
        ({"seconds": [9.0, 8.0, 7.0, 1.0]}, 0),
    ],
)
def test_ties_go_to_the_cheaper_and_never_by_the_clock(tmp_path: Path, changes: dict, winner: int) -> None:
    trials = _grid(tmp_path, [0.5] * 4, **changes)
    assert choose(trials[::-1], GRID).settings == trials[2 * winner].settings


def test_the_choice_does_not_depend_on_the_order_of_the_trials(tmp_path: Path) -> None:
    trials = _grid(tmp_path, [0.3, 0.5, 0.6, 0.4])
    assert choose(trials, GRID).digest == choose(trials[::-1], GRID).digest


def test_a_missing_trial_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="1 of 8 trials are missing"):
        choose(_grid(tmp_path, [0.3, 0.5, 0.6, 0.4])[1:], GRID)


def test_the_search_and_the_final_training_do_not_import_torch_here() -> None:
    code = "import agepipe.search.trial, agepipe.training.train_final, agepipe.training.check, sys\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
