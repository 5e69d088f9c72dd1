"""Refuse settings that cannot work with these rows or on this machine, before any work and without importing torch.

Settings that do not go together are refused by their classes in `agepipe.config`.
"""

from pathlib import Path

from agepipe.config.pretrained import is_timm
from agepipe.config.runtime import Runtime, cores
from agepipe.config.search import check_installed
from agepipe.config.stages import Config, LearnSettings
from agepipe.config.torchvision_models import check_file
from agepipe.core.errors import ConfigError
from agepipe.data.records import Rows
from agepipe.data.stratify import folds, holdout
from agepipe.training.workdir import labelled
from agepipe.training.worker import isolated

OTHER_GPUS = (Path("/dev/dxg"), Path("/dev/kfd"), Path("/dev/nvhost-gpu"))
"""Device files of GPUs that `gpu_count` does not count, but torch uses as `cuda`: WSL, AMD, Jetson."""


def check(config: Config, rows_count: int | None = None, runtime: Runtime | None = None) -> None:
    """Check the settings of every training: each combination of the grid, or of the bounds of the search space.

    Args:
        config: all settings.
        rows_count: number of development rows; None if it is not known yet.
        runtime: device and processes; None if they are not known yet.

    Raises:
        ConfigError: names the field, its value and what is allowed.
    """
    if (
        runtime is not None
        and runtime.device == "cuda"
        and not (runtime.gpu_count or any(map(Path.exists, OTHER_GPUS)))
    ):
        raise ConfigError("device: 'cuda', but this machine shows no GPU; take 'cpu' or 'auto'.")
    check_installed(config.search)
    most = None if rows_count is None else _smallest_training(config, rows_count)

    def check_learn(learn: LearnSettings) -> None:
        check_file(learn.weights)
        if is_timm(learn.network):
            isolated(checking_timm, learn)
        if runtime is not None:
            check_processes(learn, runtime)
        if most is not None:
            _check_batch(learn, most)

    config.search.check_each(config.learn, check_learn)


def check_rows(config: Config, rows: Rows) -> None:
    """Refuse a number of folds, or a validation part, for which there are too few development rows.

    Raises:
        ConfigError: names the field, its value and what is allowed.
        DataError: the rows cannot be read.
    """
    table = labelled(rows)
    if config.search.trains:
        folds(table, config.search.folds, config.search.seed, rows.ranges)
    if not config.final.refit:
        holdout(table, config.final.validation, config.final.seed)


def checking_timm(learn: LearnSettings) -> None:
    """Entry point of a process of its own, because timm imports torch."""
    from agepipe.training.timm_models import check_timm

    check_timm(learn)


def check_processes(learn: LearnSettings, runtime: Runtime) -> None:
    """Refuse more processes than the batch has rows, or than the machine has GPUs or cores.

    Raises:
        ConfigError: names the option or the field, its value and what is allowed.
    """
    count, gpus = runtime.processes or 1, runtime.gpu_count
    if count > learn.batch:
        raise ConfigError(f"processes: {count}, but learn.batch has {learn.batch} rows; take at most one a row.")
    if count == 1:
        return
    if gpus and count > gpus:
        raise ConfigError(f"processes: {count}, but this machine has GPUs for {gpus}; take at most that.")
    if count > (most := gpus or min(cores(), runtime.thread_count)):
        limit = "--threads allows" if most < cores() else "this machine has cores for"
        raise ConfigError(f"processes: {count}, but {limit} {most}; take at most that.")


def _smallest_training(config: Config, rows: int) -> int:
    trials = rows * (config.search.folds - 1) // config.search.folds
    last = rows if config.final.refit else int(rows * (1 - config.final.validation))
    return min(trials, last) if config.search.trains else last


def _check_batch(learn: LearnSettings, rows: int) -> None:
    if learn.batch > rows:
        raise ConfigError(f"learn.batch: {learn.batch}, but there are about {rows} training rows; take at most that.")
