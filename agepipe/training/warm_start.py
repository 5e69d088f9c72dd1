"""A warm start: what the first weights have seen goes along, and nothing of it may judge the network that starts there.

A network is judged three times: by the fold that a trial leaves out, by the validation part of the last training, and
by the test rows. On the first two an epoch or a setting is chosen, and probabilities are calibrated; rows that an
earlier training was chosen by may serve there again, as they did then, but none that weights were fitted on. A test row
must not have been seen in any way.
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
    """Every photograph that the first weights have seen, and whether that is all of them.

    Returns:
        `digest`, `look`, `role`, which lie beside the weights in a bundle; and `known`, or `unknown` when the weights
        are a file without lineage. Random weights have seen nothing, and torchvision's none of these photographs.

    Raises:
        ModelError: the lineage beside the weights cannot be read.
    """
    nothing = pl.DataFrame(schema=LINEAGE_SCHEMA)
    if not is_file(learn.weights):
        return nothing, "known"
    beside = Path(learn.weights).parent / LINEAGE
    if not beside.is_file():
        return nothing, "unknown"
    return read_lineage(beside.parent).select(list(LINEAGE_SCHEMA)), _known(beside.parent)


def _known(folder: Path) -> str:
    try:
        return read_card(folder).lineage
    except ModelError:
        return "unknown"


def check_fold(learn: LearnSettings, fold: pl.DataFrame) -> None:
    """Refuse a trial whose first weights were fitted on rows of the fold that it would be judged on.

    Raises:
        LeakageError: says how many, which, and what to do.
    """
    _check_fitted(
        learn, fold, "give weights that were fitted on none of them; or search from random weights, or not at all "
        "(search.grid = {}, search.always = false) with final.refit = true, which judges on none",
    )  # fmt: skip


def check_validation(learn: LearnSettings, validation: pl.DataFrame) -> None:
    """Refuse a last training whose first weights were fitted on rows of its validation part.

    Raises:
        LeakageError: says how many, which, and what to do.
    """
    _check_fitted(
        learn, validation, "give weights that were fitted on none of them, or final.refit = true, which judges on none"
    )


def check_test(config: Config, test: Rows) -> None:
    """Refuse first weights that have seen a locked test row, before anything is trained from them.

    Raises:
        LeakageError: says how many, which, and what to do.
    """
    searched = {**config.search.grid, **config.search.space}
    for weights in searched.get("weights", (config.learn.weights,)):
        learn = config.learn.model_copy(update={"weights": weights})
        _refuse(learn, seen_before(learn)[0], labelled(test), "give weights of a model for which they were locked too")


def with_files(config: Config, file_of: Callable[[str], Path]) -> Config:
    """The settings with the file of its weights in the place of each registered version.

    Args:
        config: `learn.weights`, and where they are searched, `search.grid` or `search.space`.
        file_of: finds the file of a version.
    """

    def named(weights: str) -> str:
        return str(file_of(weights)) if is_version(weights) else weights

    changes: dict[str, Any] = {"learn.weights": named(config.learn.weights)}
    for field, space in (("grid", config.search.grid), ("space", config.search.space)):
        if "weights" in space:
            changes[f"search.{field}.weights"] = tuple(map(named, space["weights"]))
    return changed(config, changes)


def _check_fitted(learn: LearnSettings, rows: pl.DataFrame, instead: str) -> None:
    _refuse(learn, seen_before(learn)[0].filter(pl.col("role") == "fitted"), rows, instead)


def _refuse(learn: LearnSettings, lineage: pl.DataFrame, rows: pl.DataFrame, instead: str) -> None:
    if len(lineage) and len(rows):
        refuse(overlap(lineage, rows), learn.weights, field="learn.weights", instead=instead)
