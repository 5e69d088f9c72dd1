"""A warm start from a real bundle: what its weights were fitted on never judges what starts from them."""

from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
import torch
from bundles import make_rows, pictures, seen
from folders import train_final, tried

from agepipe.config.base import changed
from agepipe.config.runtime import Runtime
from agepipe.config.stages import Config, FinalSettings, LearnSettings, SearchSettings
from agepipe.core.errors import LeakageError, ModelError
from agepipe.data.records import Rows
from agepipe.model.bundle import LINEAGE, WEIGHTS, read_card
from agepipe.model.bundle_files import read_lineage, write_lineage
from agepipe.model.lineage import overlap
from agepipe.model.records import Model
from agepipe.search.choice import choose
from agepipe.search.records import Fold
from agepipe.search.trial import parts
from agepipe.training.records import Choice
from agepipe.training.warm_start import check_fold, check_test, check_validation, seen_before
from agepipe.training.workdir import labelled

FIRST = FinalSettings(epochs=1, validation=0.25)
FOLD = Fold(index=1, count=3, seed=30)


@pytest.fixture(scope="module")
def choice() -> Choice:
    return choose([], SearchSettings())


@pytest.fixture(scope="module")
def model(rows: Rows, learn: LearnSettings, choice: Choice, here: Runtime) -> Model:
    return train_final(rows, learn, choice, FIRST, here)


@pytest.fixture
def warm(model: Model, learn: LearnSettings) -> LearnSettings:
    """Starts where the model ended."""
    return learn.model_copy(update={"weights": str(model.folder / WEIGHTS)})


def test_a_trial_is_not_judged_on_a_fold_that_its_first_weights_were_fitted_on(
    rows: Rows, warm: LearnSettings, runtime: Runtime
) -> None:
    fitted = read_lineage(Path(warm.weights).parent).filter(pl.col("role") == "fitted")["digest"].to_list()
    fold = parts(rows, FOLD)[1]
    count = fold["digest"].is_in(fitted).sum()
    assert 0 < count < len(fold)
    told = rf"learn\.weights: .*network\.pt has seen {count} of the {len(fold)} rows .*\({count} fitted; .*final\.refit"
    with pytest.raises(LeakageError, match=told):
        tried(rows, warm, {}, 0, FOLD, runtime)
    assert not list(runtime.workspace.glob("trials/*/*"))


def test_a_grid_that_names_such_weights_is_refused_for_that_setting_alone(
    rows: Rows, learn: LearnSettings, warm: LearnSettings, runtime: Runtime
) -> None:
    quick = learn.model_copy(update={"epochs": 1})
    with pytest.raises(LeakageError):
        tried(rows, quick, {"weights": warm.weights}, 1, FOLD, runtime)
    assert tried(rows, quick, {"weights": "none"}, 0, FOLD, runtime).finished


def test_the_last_training_does_not_choose_and_calibrate_by_rows_that_its_first_weights_were_fitted_on(
    rows: Rows, warm: LearnSettings, choice: Choice, runtime: Runtime
) -> None:
    with pytest.raises(LeakageError, match=r"learn\.weights: .* fitted; .* or final\.refit = true"):
        train_final(rows, warm, choice, FinalSettings(epochs=1, validation=0.25, seed=41), runtime)
    assert not list(runtime.workspace.glob("models/*/*"))


@pytest.mark.slow
def test_it_may_choose_again_by_the_rows_that_the_first_training_chose_by(
    rows: Rows, warm: LearnSettings, choice: Choice, runtime: Runtime, model: Model
) -> None:
    again = train_final(rows, warm, choice, FIRST, runtime)
    assert again.lineage == "known"
    assert read_card(again.folder).calibrated == "validation rows"
    roles = [dict(read_lineage(one.folder).select("digest", "role").iter_rows()) for one in (model, again)]
    assert roles[0] == roles[1]


@pytest.mark.slow
def test_a_refit_judges_on_nothing_and_so_may_start_anywhere(
    rows: Rows, warm: LearnSettings, choice: Choice, runtime: Runtime
) -> None:
    model = train_final(rows, warm, choice, FinalSettings(epochs=1, refit=True), runtime)
    assert set(read_lineage(model.folder)["role"]) == {"fitted"}
    assert read_card(model.folder).calibrated == ""


@pytest.mark.parametrize("role", ["fitted", "chosen", "calibrated"])
def test_no_test_row_may_have_been_seen_in_any_role(
    rows: Rows, tmp_path: Path, learn: LearnSettings, role: str
) -> None:
    weights = _bundle_of(tmp_path, seen(rows, role, 7))
    config = changed(Config(learn=learn), {"learn.weights": str(weights)})
    with pytest.raises(LeakageError, match=rf"learn\.weights: .*network\.pt has seen 7 of the 160 rows .*\(7 {role};"):
        check_test(config, rows)
    searched = changed(Config(learn=learn), {"search.grid": {"weights": ["none", str(weights)]}})
    with pytest.raises(LeakageError, match="7 of the 160"):
        check_test(searched, rows)


def _bundle_of(folder: Path, lineage: pl.DataFrame) -> Path:
    """Weights with a lineage beside them; they themselves are never read."""
    (folder / WEIGHTS).write_bytes(b"weights")
    write_lineage(folder, lineage)
    return folder / WEIGHTS


def test_a_copy_saved_again_is_found_by_its_appearance(tmp_path: Path, learn: LearnSettings) -> None:
    ages = np.random.default_rng(0).integers(1, 60, 30)
    before = make_rows(tmp_path / "before", size=64, ages=ages, pixels=pictures(ages, 64, 1, 0.05))
    now = pictures(ages, 64, 2, 0.05)
    now[:3] = [cv2.imdecode(cv2.imencode(".jpg", one)[1], cv2.IMREAD_COLOR) for one in np.load(before.pixels)[:3]]
    rows = make_rows(tmp_path / "now", size=64, ages=ages, pixels=now)
    weights = _bundle_of(tmp_path, seen(before))
    warm = learn.model_copy(update={"weights": str(weights)})
    for check in (check_fold, check_validation):
        with pytest.raises(LeakageError, match=r"3 of the 30 rows .* 0 the same file, 3 a copy"):
            check(warm, labelled(rows))


def test_a_search_and_a_last_training_from_weights_of_other_photographs_pass(
    rows: Rows, tmp_path: Path, learn: LearnSettings
) -> None:
    other = make_rows(tmp_path / "other", 40)
    warm = learn.model_copy(update={"weights": str(_bundle_of(tmp_path, seen(other)))})
    assert overlap(seen(other), labelled(rows)).count == 0
    check_fold(warm, labelled(rows))
    check_validation(warm, labelled(rows))
    check_test(Config(learn=warm), rows)


def test_first_weights_carry_the_lineage_beside_their_file(
    tmp_path: Path, model: Model, warm: LearnSettings, learn: LearnSettings
) -> None:
    assert seen_before(learn)[1] == seen_before(learn.model_copy(update={"weights": "IMAGENET1K_V1"}))[1] == "known"
    assert seen_before(warm)[0].equals(read_lineage(model.folder))
    assert seen_before(warm)[1] == "known"
    torch.save({}, tmp_path / "found.pt")
    alone = learn.model_copy(update={"weights": str(tmp_path / "found.pt")})
    assert seen_before(alone)[1] == "unknown"
    (tmp_path / LINEAGE).write_bytes(b"no table")
    with pytest.raises(ModelError, match=r"lineage\.parquet: not a readable Parquet table"):
        seen_before(alone)
