from pathlib import Path

import numpy as np
import polars as pl
import pytest

from agepipe.config import FinalSettings, LearnSettings, SearchSettings, Where
from agepipe.learn.final import WEIGHTS, lineage_of, train
from agepipe.learn.job import EpochEvent
from agepipe.learn.runs import labelled
from agepipe.learn.trial import choose
from agepipe.records import Choice, Model, Rows
from agepipe.serve.bundle import digest, read_card, read_curves, read_lineage
from agepipe.serve.predictor import Predictor

FINAL = FinalSettings(epochs=6, validation=0.25)


@pytest.fixture(scope="module")
def choice(learn: LearnSettings) -> Choice:
    return choose([], SearchSettings(grid={"dropout": (0.1,)}), learn)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Where:
    return Where(workspace=tmp_path_factory.mktemp("workspace"), device="cpu", workers=2, threads=1)


@pytest.fixture(scope="module")
def model(rows: Rows, learn: LearnSettings, choice: Choice, here: Where) -> Model:
    """Trained and exported once; exporting takes seconds."""
    return train(rows, learn, choice, FINAL, here)


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
    assert card.config["learn"]["epochs"] == 6
    assert LearnSettings.model_validate(card.config["learn"]).lr == learn.lr
    assert {"agepipe", "torch"} <= card.versions.keys()
    curves = read_curves(model.folder)
    assert curves["epoch"].to_list() == list(range(1, len(curves) + 1))
    assert {"lr", "seconds", "train_loss", "validation_mae", "validation_macro_precision"} <= set(curves.columns)
    assert str(rows.table.parent) not in (model.folder / "manifest.json").read_text()


def test_every_row_that_it_saw_is_in_the_lineage_once(model: Model, rows: Rows) -> None:
    lineage = read_lineage(model.folder)
    table = pl.read_parquet(rows.table)
    assert sorted(lineage["digest"]) == sorted(table["digest"].unique())
    share = (lineage["role"] == "chosen").mean()
    assert share == pytest.approx(0.25, abs=0.05)
    looks = dict(zip(table["digest"], table["look"], strict=True))
    assert all(looks[row["digest"]] == row["look"] for row in lineage.iter_rows(named=True))


def test_it_is_found_again_and_its_digest_is_that_of_its_files(
    model: Model, rows: Rows, learn: LearnSettings, choice: Choice, here: Where
) -> None:
    assert model.digest == digest(model.folder)
    assert [path.name for path in model.folder.parent.iterdir()] == [model.folder.name]
    seen: list[EpochEvent] = []
    assert train(rows, learn, choice, FINAL, here, seen.append) == model
    assert seen == []


def test_the_same_training_elsewhere_has_the_same_digest(
    model: Model, rows: Rows, learn: LearnSettings, choice: Choice, here: Where, tmp_path: Path
) -> None:
    elsewhere = here.model_copy(update={"workspace": tmp_path / "elsewhere"})
    assert train(rows, learn, choice, FINAL, elsewhere).digest == model.digest


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


def test_a_refit_learns_from_all_development_rows_and_keeps_the_last_epoch(
    rows: Rows, learn: LearnSettings, choice: Choice, here: Where
) -> None:
    model = train(rows, learn, choice, FinalSettings(epochs=2, refit=True), here)
    assert set(read_lineage(model.folder)["role"]) == {"fitted"}
    assert len(read_lineage(model.folder)) == rows.count
    assert model.epochs == 2
    assert model.metrics == {}
    assert not [name for name in read_curves(model.folder).columns if name.startswith("validation")]
