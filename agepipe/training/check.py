"""Refuse settings that cannot work, by field name, before any work is done and without importing torch."""

from pathlib import Path

from agepipe.config.base import changed
from agepipe.config.runtime import Where, cores
from agepipe.config.search_check import check_search, extremes, searched
from agepipe.config.stages import Config, FinalSettings, LearnSettings
from agepipe.core.errors import ConfigError
from agepipe.data.records import Rows
from agepipe.data.split import folds, holdout
from agepipe.training.check_size import check_epochs, check_size
from agepipe.training.pretrained import is_timm
from agepipe.training.torchvision_models import check_network, check_weights
from agepipe.training.workdir import labelled
from agepipe.training.worker import isolated

OTHER_GPUS = (Path("/dev/dxg"), Path("/dev/kfd"), Path("/dev/nvhost-gpu"))
"""GPUs that torch calls `cuda` and that are not counted: lent by Windows, AMD's, a Jetson's."""


def check(config: Config, rows_count: int | None = None, where: Where | None = None) -> None:
    """Look at every network that would be trained: each combination of the grid, or the corners of the space.

    Args:
        config: all settings.
        rows_count: rows in the development part, where that is known.
        where: how the work is done, where that is known.

    Raises:
        ConfigError: names the field, its value and what is allowed.
    """
    _check_refit(config.final)
    if where is not None and where.device == "cuda" and not (where.gpu_count or any(map(Path.exists, OTHER_GPUS))):
        raise ConfigError("device: 'cuda', but this machine shows no GPU; take 'cpu' or 'auto'.")
    check_search(config.search, config.learn)
    field = "search.space" if config.search.strategy == "optuna" else "search.grid"
    for settings in extremes(config.search):
        learn = changed(config.learn, settings, field)
        try:
            check_learn(learn, config.ingest.size)
            check_epochs(learn, config.final.epochs, "final.epochs")
            if searched(config.search):
                check_epochs(learn, learn.epochs, "learn.epochs")
            if where is not None:
                check_processes(learn, where)
            if rows_count is not None:
                _check_batch(learn, _smallest_training(config, rows_count))
        except ConfigError as error:
            raise ConfigError((f"{field} {settings}: " if settings else "") + str(error)) from error


def check_rows(config: Config, rows: Rows) -> None:
    """Refuse folds, or a validation part, that the development rows do not give.

    Raises:
        ConfigError: names the field, its value and what is allowed.
        DataError: the rows cannot be read.
    """
    table = labelled(rows)
    if searched(config.search):
        folds(table, config.search.folds, config.search.seed, rows.ranges)
    if not config.final.refit:
        holdout(table, config.final.validation, config.final.seed)


def check_learn(learn: LearnSettings, stored: int) -> None:
    """Refuse what cannot be trained whatever the rows; `stored` is the side of a stored picture in px.

    Raises:
        ConfigError: names the field, its value and what is allowed.
    """
    check_network(learn.network)
    check_weights(learn.network, learn.weights)
    check_size(learn, stored)
    if is_timm(learn.network):
        isolated(checking_timm, learn)
    _check_effects(learn)
    if learn.nesterov and learn.momentum == 0:
        raise ConfigError("learn.nesterov: true, but learn.momentum is 0; give a momentum or leave nesterov out.")


def checking_timm(learn: LearnSettings) -> None:
    """What a process of its own runs, since timm imports torch."""
    from agepipe.training.timm_models import check_timm

    check_timm(learn)


def check_processes(learn: LearnSettings, where: Where) -> None:
    """Refuse more processes than can share a training.

    Raises:
        ConfigError: names the option or the field, its value and what is allowed.
    """
    count, gpus = where.processes or 1, where.gpu_count
    if count * where.machines > learn.batch:
        many = f"processes: {count}" + (f" on machines: {where.machines}" if where.machines > 1 else "")
        raise ConfigError(f"{many}, but learn.batch has {learn.batch} rows; take at most one a row.")
    if count == 1:
        return
    if gpus and count > gpus:
        raise ConfigError(f"processes: {count}, but this machine has GPUs for {gpus}; take at most that.")
    if count > (most := gpus or min(cores(), where.thread_count)):
        limit = "--threads allows" if most < cores() else "this machine has cores for"
        raise ConfigError(f"processes: {count}, but {limit} {most}; take at most that.")


def _check_effects(learn: LearnSettings) -> None:
    """Refuse settings that would do nothing beside the others."""
    neutral = LearnSettings()
    idle = {
        "nesterov": (learn.optimizer != "sgd", 'learn.optimizer = "sgd"'),
        "label_smoothing": (learn.target != "ranges", 'learn.target = "ranges"'),
        "years_loss": (learn.target != "years", 'learn.target = "years"'),
    }
    for field, (without_effect, needed) in idle.items():
        value = getattr(learn, field)
        if without_effect and value != getattr(neutral, field):
            raise ConfigError(f"learn.{field}: {value} does nothing without {needed}; set that, or leave it out.")


def _check_refit(final: FinalSettings) -> None:
    neutral = FinalSettings()
    for field in ("validation", "patience", "metric", "seed"):
        value = getattr(final, field)
        if final.refit and value != getattr(neutral, field):
            raise ConfigError(f"final.{field}: {value} does nothing with final.refit; leave one of the two out.")


def _smallest_training(config: Config, rows: int) -> int:
    trials = rows * (config.search.folds - 1) // config.search.folds
    last = rows if config.final.refit else int(rows * (1 - config.final.validation))
    return min(trials, last) if searched(config.search) else last


def _check_batch(learn: LearnSettings, rows: int) -> None:
    if learn.batch > rows:
        raise ConfigError(f"learn.batch: {learn.batch}, but there are about {rows} training rows; take at most that.")
