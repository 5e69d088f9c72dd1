"""A really trained network whose export normalises otherwise than its training did, caught by the evaluation itself."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from bundles import make_bundle
from folders import evaluated, train_final

from agepipe.config.runtime import Runtime
from agepipe.config.stages import EvaluateSettings, FinalSettings, LearnSettings, SearchSettings
from agepipe.core.errors import ModelError
from agepipe.data.records import Rows
from agepipe.evaluation.evaluate import compute_outcome, open_subject
from agepipe.evaluation.preprocessing_check import SCALE, SHIFT, doubt
from agepipe.model.bundle import LINEAGE, NETWORK, digest, read_card
from agepipe.model.bundle_files import write_card, write_lineage
from agepipe.model.records import Model
from agepipe.search.choice import choose

QUICK = EvaluateSettings(draws=200)
WRONG = ((0.05, 0.9, 0.5), (0.9, 0.1, 0.9))


@pytest.fixture(scope="module")
def trained(rows: Rows, learn: LearnSettings, here: Runtime) -> Model:
    """Fitted on some rows and validated on others; what it is judged on is put together from the latter."""
    choice = choose([], SearchSettings(grid={"dropout": (0.1,)}))
    return train_final(rows, learn, choice, FinalSettings(epochs=8, validation=0.5), here)


def fresh(rows: Rows, model: Model, folder: Path) -> tuple[Rows, Model]:
    """Rows of the training's own source that count as not seen: the validation rows, under other names."""
    lineage = pl.read_parquet(model.folder / LINEAGE)
    table = pl.read_parquet(rows.table).join(lineage.select("digest", "role"), on="digest")
    table = table.filter(pl.col("role") == "chosen").drop("role").with_columns(
        pl.concat_str(pl.lit("new"), "digest").alias("digest"), pl.lit(bytes(range(32))).alias("look")
    )  # fmt: skip
    folder.mkdir(parents=True)
    table.write_parquet(folder / "rows.parquet")
    return rows.model_copy(update={"table": folder / "rows.parquet", "count": len(table), "digest": "f" * 64}), model


def planted(model: Model, folder: Path, *, card_too: bool) -> Model:
    """The same network behind another mean and deviation."""
    shutil.copytree(model.folder, folder)
    network = onnx.load(folder / NETWORK)
    mean, std = (np.array(values) for values in WRONG)
    values = {SCALE: 1 / (255 * std), SHIFT: -mean / std}
    for one in network.graph.initializer:
        if one.name in values:
            one.CopyFrom(onnx.numpy_helper.from_array(values[one.name].astype(np.float32), one.name))
    onnx.save(network, folder / NETWORK)
    if card_too:
        write_card(folder, read_card(folder).model_copy(update={"mean": WRONG[0], "std": WRONG[1]}))
    return model.model_copy(update={"folder": folder, "digest": digest(folder)})


def test_a_sound_model_passes_without_a_word(trained: Model, rows: Rows, here: Runtime, tmp_path: Path) -> None:
    own, model = fresh(rows, trained, tmp_path / "own")
    outcome = compute_outcome(open_subject(model, own), QUICK, here)
    assert outcome.notes == ()
    assert outcome.figures["accuracy"] > 0.4
    assert outcome.figures["accuracy"] == pytest.approx(trained.metrics["accuracy"])


def test_a_network_that_normalises_otherwise_than_its_card_is_refused(
    trained: Model, rows: Rows, here: Runtime, tmp_path: Path
) -> None:
    own, _ = fresh(rows, trained, tmp_path / "own")
    wrong = planted(trained, tmp_path / "wrong", card_too=False)
    with pytest.raises(ModelError, match=r"normalises by the mean 0\.050, 0\.900, 0\.500, but the card says"):
        evaluated(wrong, own, QUICK, here)


def test_a_network_whose_card_is_wrong_too_gives_itself_away(
    trained: Model, rows: Rows, here: Runtime, tmp_path: Path
) -> None:
    own, _ = fresh(rows, trained, tmp_path / "own")
    found = evaluated(planted(trained, tmp_path / "wrong", card_too=True), own, QUICK, here)
    page = found.report.read_text(encoding="utf-8")
    assert "look first at the normalisation (mean and deviation)" in page
    unvalidated = planted(trained, tmp_path / "refit", card_too=True)
    write_lineage(unvalidated.folder, pl.read_parquet(unvalidated.folder / LINEAGE).filter(pl.col("role") == "fitted"))
    assert compute_outcome(open_subject(unvalidated, own), QUICK, here).notes == ()


def test_the_fall_is_measured_from_the_last_epoch_where_that_was_kept(tmp_path: Path) -> None:
    card = read_card(make_bundle(tmp_path).folder).model_copy(update={"config": {"final": {"keep": "last"}}})
    curves = pl.DataFrame({"validation_accuracy": [0.5, 0.6, 0.9], "validation_macro_recall": [0.9, 0.6, 0.5]})
    lineage = pl.DataFrame({"role": ["fitted"] * 500 + ["calibrated"] * 100})
    assert "90%" in doubt(card, curves, lineage, np.arange(200) < 0.6 * 200)
    assert doubt(card, curves.select("validation_macro_recall"), lineage, np.arange(200) < 20) == ""


def _doubt(folder: Path, metric: str, share: float, chosen: int = 100, judged: int = 200) -> str:
    """What is said where epochs were right in 0.7, 0.6 and 0.9 of the validation rows, and now in a share of others."""
    card = read_card(make_bundle(folder).folder).model_copy(update={"config": {"final": {"metric": metric}}})
    curves = pl.DataFrame(
        {"validation_accuracy": [0.7, 0.6, 0.9], "validation_mae": [5.0, 4.0, 6.0], "validation_loss": [2.0, 3.0, 1.0]}
    )
    lineage = pl.DataFrame({"role": ["fitted"] * 500 + ["chosen"] * chosen})
    return doubt(card, curves, lineage, np.arange(judged) < share * judged)


@pytest.mark.parametrize(("metric", "before"), [("accuracy", 0.9), ("mae", 0.6), ("loss", 0.9)])
def test_the_fall_is_measured_from_the_epoch_that_was_kept(tmp_path: Path, metric: str, before: float) -> None:
    said = _doubt(tmp_path / "far", metric, before - 0.3)
    assert all(f"{share:.0%}" in said for share in (before, before - 0.3))
    assert " 100 " in said
    assert _doubt(tmp_path / "near", metric, before - 0.05) == ""
    assert _doubt(tmp_path / "better", metric, 1.0) == ""
    assert _doubt(tmp_path / "few", metric, before - 0.3, chosen=10, judged=10) == ""
    assert _doubt(tmp_path / "none", "macro_recall", 0.0) == ""
