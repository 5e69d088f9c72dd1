from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from folders import train_final, tried

from agepipe.config.runtime import Runtime
from agepipe.config.stages import FinalSettings, LearnSettings, SearchSettings
from agepipe.data.records import Rows
from agepipe.data.stratify import holdout
from agepipe.model.bundle import CARD, CURVES, LINEAGE, NETWORK, digest, read_card
from agepipe.model.bundle_files import read_curves, read_lineage
from agepipe.model.calibration import fit_temperature, scores, tempered, thresholds
from agepipe.model.decoding import sets
from agepipe.model.predictor import Predictor
from agepipe.model.records import Model
from agepipe.search.choice import choose
from agepipe.search.records import Fold
from agepipe.search.strategies import plan
from agepipe.training.network import build
from agepipe.training.records import Choice
from agepipe.training.train_final import WEIGHTS, lineage_of
from agepipe.training.workdir import labelled

FINAL = FinalSettings(epochs=14, validation=0.25)


@pytest.fixture(scope="module")
def choice() -> Choice:
    return choose([], SearchSettings(grid={"dropout": (0.1,)}))


@pytest.fixture(scope="module")
def model(rows: Rows, learn: LearnSettings, choice: Choice, here: Runtime) -> Model:
    """Trained and exported once; exporting takes seconds."""
    return train_final(rows, learn, choice, FINAL, here)


def test_the_bundle_answers_as_the_training_said(model: Model, rows: Rows) -> None:
    lineage = read_lineage(model.folder)
    table = pl.read_parquet(rows.table).join(lineage, on="digest")
    judged = table.filter(pl.col("role") == "chosen")
    predictor = Predictor.load(model.folder)
    answers = predictor.predict(np.load(rows.pixels)[judged["index"].to_numpy()])
    mae = np.abs(answers.years - judged["age"].to_numpy()).mean()
    assert mae == pytest.approx(model.metrics["mae"], abs=1e-3)
    accuracy = (answers.probabilities.argmax(1) == judged["label"].to_numpy()).mean()
    assert accuracy == pytest.approx(model.metrics["accuracy"])
    assert model.metrics["macro_recall"] > 0.4


def test_the_card_says_what_the_network_is(model: Model, rows: Rows, learn: LearnSettings) -> None:
    card = read_card(model.folder)
    assert card.ranges == rows.ranges
    assert (card.size, card.input, card.network, card.rows) == (36, 32, learn.network, rows.digest)
    assert all(0 < value < 1 for value in (*card.mean, *card.std))
    assert card.config["learn"]["dropout"] == 0.1
    assert card.config["learn"]["epochs"] == 14
    assert LearnSettings.model_validate(card.config["learn"]).lr == learn.lr
    assert {"agepipe", "torch"} <= card.versions.keys()
    assert card.config["precision"] == "float32"  # of a network with grouped convolutions
    curves = read_curves(model.folder)
    assert curves["epoch"].to_list() == list(range(1, len(curves) + 1))
    assert {"lr", "seconds", "train_loss", "validation_mae", "validation_macro_precision"} <= set(curves.columns)
    assert str(rows.table.parent) not in (model.folder / CARD).read_text()


def test_normalisation_and_weights_come_from_the_fitted_rows_alone(model: Model, rows: Rows) -> None:
    """Law 2: the validation rows are set aside before anything is computed of the pictures."""
    card, table = read_card(model.folder), labelled(rows)
    aside = table.filter(pl.Series(holdout(table, FINAL.validation, FINAL.seed)))["digest"].to_list()
    fitted = table.filter(~pl.col("digest").is_in(aside))
    assert sorted(read_lineage(model.folder).filter(pl.col("role") == "fitted")["digest"]) == sorted(fitted["digest"])
    levels = np.load(rows.pixels).astype(np.float64) / 255
    taken = levels[fitted["index"].to_numpy()]
    assert card.mean == pytest.approx(taken.mean((0, 1, 2)), rel=1e-9)
    assert card.std == pytest.approx(taken.std((0, 1, 2)), rel=1e-9)
    assert card.mean != pytest.approx(levels.mean((0, 1, 2)), rel=1e-3)


def test_the_export_has_the_temperature_of_the_card(model: Model, rows: Rows, learn: LearnSettings) -> None:
    """The stored weights are those before it, and what the card says is all that lies between the two."""
    card, pictures = read_card(model.folder), np.load(rows.pixels)[:40]
    network = build(learn, rows.ranges, card.mean, card.std).eval()
    network.load_state_dict(torch.load(model.folder / WEIGHTS, weights_only=True))
    with torch.inference_mode():
        raw, years = (one.double().numpy() for one in network(torch.from_numpy(pictures)))
    raised = np.maximum(raw, 1e-12) ** (1 / card.temperature)
    found = Predictor.load(model.folder).predict_batches([pictures], len(pictures), raw=True)
    assert np.abs(found.probabilities - raised / raised.sum(1, keepdims=True)).max() < 2e-4
    assert np.abs(found.probabilities - raw).max() > 2e-3
    assert np.abs(found.years - years).max() < 0.01


def test_it_is_calibrated_on_the_validation_rows(model: Model, rows: Rows) -> None:
    card = read_card(model.folder)
    judged = (
        pl.read_parquet(rows.table).join(read_lineage(model.folder), on="digest").filter(pl.col("role") == "chosen")
    )
    labels = judged["label"].to_numpy()
    said = Predictor.load(model.folder).predict(np.load(rows.pixels)[judged["index"].to_numpy()]).probabilities
    assert card.calibrated == "validation rows"
    assert card.temperature != 1.0
    assert fit_temperature(said, labels) == pytest.approx(1.0, rel=0.02)  # the export has it inside
    low, high = sets(said, card.thresholds[80] + 1e-5)  # torch and ONNX differ in the sixth digit
    assert np.mean((low <= labels) & (labels <= high)) >= 0.8


def test_every_row_that_it_saw_is_in_the_lineage_once(model: Model, rows: Rows) -> None:
    lineage = read_lineage(model.folder)
    table = pl.read_parquet(rows.table)
    assert sorted(lineage["digest"]) == sorted(table["digest"].unique())
    share = (lineage["role"] == "chosen").mean()
    assert share == pytest.approx(0.25, abs=0.05)
    looks = dict(zip(table["digest"], table["look"], strict=True))
    assert all(looks[row["digest"]] == row["look"] for row in lineage.iter_rows(named=True))


def test_its_digest_is_that_of_its_files_and_no_checkpoint_is_among_them(model: Model) -> None:
    assert model.digest == digest(model.folder)
    assert {path.name for path in model.folder.iterdir()} == {NETWORK, WEIGHTS, CARD, LINEAGE, CURVES}


@pytest.mark.slow
def test_the_same_training_elsewhere_has_the_same_digest(
    model: Model, rows: Rows, learn: LearnSettings, choice: Choice, here: Runtime, tmp_path: Path
) -> None:
    elsewhere = here.model_copy(update={"workspace": tmp_path / "elsewhere"})
    assert train_final(rows, learn, choice, FINAL, elsewhere).digest == model.digest


@pytest.mark.slow
def test_patience_metric_share_and_seed_are_those_of_the_last_training(
    rows: Rows, learn: LearnSettings, choice: Choice, here: Runtime
) -> None:
    still = learn.model_copy(update={"lr": 1e-9})
    final = FinalSettings(epochs=30, patience=2, metric="mae", validation=0.4, seed=41)
    model = train_final(rows, still, choice, final, here)
    curves = read_curves(model.folder)
    assert len(curves) == model.epochs + 2 < 30
    assert curves["validation_mae"].arg_min() == model.epochs - 1
    table = labelled(rows)
    aside = read_lineage(model.folder).filter(pl.col("role") == "chosen")["digest"].sort()
    drawn, other = (table.filter(pl.Series(holdout(table, 0.4, seed)))["digest"].sort() for seed in (41, 40))
    assert aside.equals(drawn)
    assert not aside.equals(other)


def _warm(rows: Rows, learn: LearnSettings, weights: Path) -> tuple[pl.DataFrame, str]:
    """The lineage of a second network, fitted on some of the rows from the weights of a first."""
    table = labelled(rows)[:100].with_columns((pl.int_range(100) < 20).alias("validation"))
    return lineage_of(table, learn.model_copy(update={"weights": str(weights)}))


def test_a_warm_start_carries_the_lineage_along(model: Model, rows: Rows, learn: LearnSettings) -> None:
    before = read_lineage(model.folder)
    after, lineage = _warm(rows, learn, model.folder / WEIGHTS)
    assert lineage == "known"
    assert sorted(before["digest"]) == sorted(after["digest"])
    fitted = set(before.filter(pl.col("role") == "fitted")["digest"])
    assert fitted < set(after.filter(pl.col("role") == "fitted")["digest"])


def test_weights_from_elsewhere_make_the_lineage_unknown(
    model: Model, rows: Rows, learn: LearnSettings, tmp_path: Path
) -> None:
    path = tmp_path / "found.pt"
    path.write_bytes((model.folder / WEIGHTS).read_bytes())
    after, lineage = _warm(rows, learn, path)
    assert lineage == "unknown"
    assert len(after) == 100


@pytest.mark.slow
def test_a_refit_learns_from_all_development_rows_and_keeps_the_last_epoch(
    rows: Rows, learn: LearnSettings, choice: Choice, here: Runtime
) -> None:
    model = train_final(rows, learn, choice, FinalSettings(epochs=2, refit=True), here)
    assert set(read_lineage(model.folder)["role"]) == {"fitted"}
    assert len(read_lineage(model.folder)) == rows.count
    assert model.epochs == 2
    assert model.metrics == {}
    assert not [name for name in read_curves(model.folder).columns if name.startswith("validation")]
    card = read_card(model.folder)
    assert (card.calibrated, card.temperature, card.thresholds) == ("", 1.0, {})


@pytest.mark.slow
def test_the_last_epoch_is_kept_where_the_validation_rows_only_calibrate(
    rows: Rows, learn: LearnSettings, choice: Choice, here: Runtime
) -> None:
    """With a rate that is far too high the first epoch is the best, and patience would end the training."""
    learn = learn.model_copy(update={"lr": 5.0, "schedule": "constant"})
    best = FinalSettings(epochs=4, patience=1, metric="loss")
    early = train_final(rows, learn, choice, best, here)
    assert len(read_curves(early.folder)) < 4, "otherwise this test shows nothing"
    model = train_final(rows, learn, choice, FinalSettings(epochs=4, keep="last"), here)
    assert (model.epochs, len(read_curves(model.folder))) == (4, 4)
    assert model.metrics["loss"] == pytest.approx(read_curves(model.folder)["validation_loss"][-1])
    assert set(read_lineage(early.folder)["role"]) == {"fitted", "chosen"}
    assert set(read_lineage(model.folder)["role"]) == {"fitted", "calibrated"}
    assert read_card(model.folder).calibrated == "validation rows"


@pytest.mark.slow
@pytest.mark.parametrize(
    "search", [SearchSettings(grid={"dropout": (0.1, 0.3)}, folds=2), SearchSettings(always=True, folds=2)]
)
def test_a_refit_after_trials_is_calibrated_on_what_they_said_of_unseen_rows(
    rows: Rows, learn: LearnSettings, here: Runtime, search: SearchSettings
) -> None:
    learn = learn.model_copy(update={"epochs": 1})
    choice = choose([tried(rows, learn, *one, here) for one in _planned(search)], search)
    said = pl.concat(pl.read_parquet(path) for path in choice.outcomes)
    assert sorted(said["digest"]) == sorted(pl.read_parquet(rows.table)["digest"])
    card = read_card(train_final(rows, learn, choice, FinalSettings(epochs=1, refit=True), here).folder)
    labels, shares = said["label"].to_numpy(), said.select(pl.col("^p[0-9]+$")).to_numpy()
    assert card.calibrated == "out-of-fold predictions"
    assert card.temperature == pytest.approx(fit_temperature(shares, labels))
    assert card.thresholds == thresholds(scores(tempered(shares, card.temperature), labels))


def _planned(search: SearchSettings) -> list[tuple[dict[str, Any], int, Fold]]:
    return [(settings, setting, fold) for setting, settings, fold in plan(search)]
