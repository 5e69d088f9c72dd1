"""The lineage of a network that starts from trained weights, and checks for leakage from it.

A network is evaluated on three sets of rows: the validation fold of a trial, the validation part of the final training,
and the test rows. The first two select an epoch or a setting and calibrate probabilities; rows that an earlier training
was selected by may be used there again, but no rows that its weights were fitted on. Test rows must not be in the
lineage in any role.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from agepipe.config.base import changed
from agepipe.config.stages import Config, LearnSettings
from agepipe.config.torchvision_models import is_file, is_version
from agepipe.core.errors import ModelError
from agepipe.data.records import Rows
from agepipe.model.bundle import LINEAGE, read_card
from agepipe.model.bundle_files import LINEAGE_SCHEMA, read_lineage
from agepipe.model.lineage import overlap, refuse
from agepipe.training.workdir import labelled


def seen_before(learn: LearnSettings) -> tuple[pl.DataFrame, str]:
    """The lineage of the initial weights.

    Returns:
        A table with `digest`, `look` and `role`, from the bundle that contains the weights; and `known`, or `unknown`
        if the weights are a file without lineage. The table is empty for random weights and for those of torchvision,
        which were not trained on these photographs.

    Raises:
        ModelError: the bundle's lineage cannot be read.
    """
    empty = pl.DataFrame(schema=LINEAGE_SCHEMA)
    if not is_file(learn.weights):
        return empty, "known"
    folder = Path(learn.weights).parent
    if not (folder / LINEAGE).is_file():
        return empty, "unknown"
    return read_lineage(folder).select(list(LINEAGE_SCHEMA)), _status(folder)


def _status(folder: Path) -> str:
    try:
        return read_card(folder).lineage
    except ModelError:
        return "unknown"


def check_fold(learn: LearnSettings, fold: pl.DataFrame) -> None:
    """Refuse a trial whose initial weights were fitted on rows of its validation fold.

    Raises:
        LeakageError: names the rows and their number.
    """
    _check_fitted(
        learn, fold, "give weights that were fitted on none of them; or search from random weights, or not at all "
        "(search.grid = {}, search.always = false) with final.refit = true, which evaluates on none",
    )  # fmt: skip


def check_validation(learn: LearnSettings, validation: pl.DataFrame) -> None:
    """Refuse a final training whose initial weights were fitted on its validation rows.

    Raises:
        LeakageError: names the rows and their number.
    """
    _check_fitted(
        learn,
        validation,
        "give weights that were fitted on none of them, or final.refit = true, which evaluates on none",
    )


def check_test(config: Config, test: Rows) -> None:
    """Refuse initial weights whose lineage contains a test row, before any training.

    Raises:
        LeakageError: names the rows and their number.
    """
    searched = {**config.search.grid, **config.search.space}
    for weights in searched.get("weights", (config.learn.weights,)):
        learn = config.learn.model_copy(update={"weights": weights})
        _refuse(
            learn,
            seen_before(learn)[0],
            labelled(test),
            "give weights of a model for which they were test rows as well",
        )


def with_files(config: Config, file_of: Callable[[str], Path]) -> Config:
    """Replace each registered version in the settings by the path of its weights file.

    Args:
        config: `learn.weights`, and `weights` in `search.grid` or `search.space`.
        file_of: returns the path of a version's weights file.
    """

    def resolved(weights: str) -> str:
        return str(file_of(weights)) if is_version(weights) else weights

    changes: dict[str, Any] = {"learn.weights": resolved(config.learn.weights)}
    for field, space in (("grid", config.search.grid), ("space", config.search.space)):
        if "weights" in space:
            changes[f"search.{field}.weights"] = tuple(map(resolved, space["weights"]))
    return changed(config, changes)


def _check_fitted(learn: LearnSettings, rows: pl.DataFrame, instead: str) -> None:
    _refuse(learn, seen_before(learn)[0].filter(pl.col("role") == "fitted"), rows, instead)


def _refuse(learn: LearnSettings, lineage: pl.DataFrame, rows: pl.DataFrame, instead: str) -> None:
    if len(lineage) and len(rows):
        refuse(overlap(lineage, rows), learn.weights, field="learn.weights", instead=instead)
