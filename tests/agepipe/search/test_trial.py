import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from folders import fresh, tried
from trainings import kill_after

from agepipe.config.runtime import Runtime
from agepipe.config.stages import LearnSettings, Metric
from agepipe.core.errors import WorkerError
from agepipe.data.records import Rows
from agepipe.data.stratify import folds
from agepipe.search.records import Fold
from agepipe.search.trial import OUTCOMES, first_epochs, trial
from agepipe.training import checkpoints
from agepipe.training.job import EpochEvent, Fitted
from agepipe.training.workdir import labelled

FOLD = Fold(index=1, count=3, seed=30)


def test_a_trial_is_evaluated_on_its_fold(rows: Rows, learn: LearnSettings, runtime: Runtime) -> None:
    seen: list[EpochEvent] = []
    done = tried(rows, learn, {"lr": 0.02}, 4, FOLD, runtime, seen.append)
    assert len(seen) == learn.epochs == done.epochs
    assert done.settings == {"lr": 0.02}
    assert done.parameters > 300_000
    assert done.metrics["macro_recall"] == max(event.metrics["validation_macro_recall"] for event in seen)
    assert pl.read_parquet(done.folder / "curves.parquet").height == 3
    predictions = pl.read_parquet(done.folder / OUTCOMES)
    found = predictions.select(pl.col("^p[0-9]+$")).to_numpy().argmax(1)
    assert np.mean(found == predictions["label"].to_numpy()) == pytest.approx(done.metrics["accuracy"])
    assert sorted(path.name for path in done.folder.iterdir()) == ["curves.parquet", OUTCOMES]


def test_a_trial_learns_nothing_from_the_fold_that_it_is_evaluated_on(
    rows: Rows, learn: LearnSettings, runtime: Runtime, tmp_path: Path
) -> None:
    """Law 2: with other pictures in the fold the training is the same to the last bit, and its evaluation is not."""
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
    train, validation = pl.selectors.starts_with("train_"), pl.selectors.starts_with("validation_")
    assert curves[0].select(train).equals(curves[1].select(train))
    assert not curves[0].select(validation).equals(curves[1].select(validation))


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


def test_a_killed_trial_resumes_and_has_the_same_figures(
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


@pytest.mark.parametrize(("until", "saved"), [(None, 2), (1, 1)])
def test_the_last_epoch_is_saved_only_for_a_pause(
    until: int | None, saved: int, rows: Rows, learn: LearnSettings, runtime: Runtime, tmp_path: Path
) -> None:
    trial(rows, learn, FOLD, fresh(tmp_path), runtime, until=until)
    (partial,) = tmp_path.glob("*-partial")
    assert len((checkpoints.load(partial / "checkpoint.pt") or {})["curves"]) == saved


@pytest.mark.parametrize(
    ("metric", "count", "best"), [("accuracy", 4, 3), ("accuracy", 2, 2), ("mae", 4, 4), ("mae", 2, 1)]
)
def test_the_first_epochs_of_a_training_have_their_own_best_epoch(metric: Metric, count: int, best: int) -> None:
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


def test_the_search_and_the_final_training_do_not_import_torch_here() -> None:
    code = "import agepipe.search.trial, agepipe.training.train_final, agepipe.training.check, sys\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
