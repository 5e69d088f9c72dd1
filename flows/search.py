"""The flow that tries settings: a flow of its own, so that its trials fan out over the runner it is given."""

import logging

from prefect import flow

from agepipe.config.runtime import Runtime
from agepipe.config.search import check_installed
from agepipe.config.stages import LearnSettings, SearchSettings
from agepipe.core.errors import WorkerError
from agepipe.data.records import Rows
from agepipe.training.records import Choice
from agepipe.training.worker import resume
from flows.beginning import begin
from flows.runners import deaths, runner
from flows.strategies import STRATEGIES, Search
from tasks.board import board

logger = logging.getLogger("agepipe.progress")

LIVES = 3
"""How often a search is begun with new workers before it gives up; what is finished is not done again."""


@flow(name="search", flow_run_name="search over {settings.folds} folds", on_running=[begin])
def _search(rows: Rows, learn: LearnSettings, settings: SearchSettings, runtime: Runtime) -> Choice:
    with board(settings, learn, runtime) as shown:
        return STRATEGIES[settings.strategy](Search(rows, learn, settings, runtime, shown))


def search(rows: Rows, learn: LearnSettings, settings: SearchSettings, runtime: Runtime) -> Choice:
    """Train settings on every fold, each from a fresh network, and choose the best by its mean over folds.

    Raises:
        ConfigError: a rung is not below the epochs of a trial, or the package of the strategy is not installed.
        WorkerError: the workers of the runner die again and again.
    """
    settings.check_rungs(learn.epochs)
    check_installed(settings)
    lives = LIVES
    while True:
        try:
            with runner(runtime) as ready:
                return _search.with_options(task_runner=ready)(rows, learn, settings, runtime)
        except deaths() as error:
            lives -= 1
            if lives == 0:
                raise WorkerError(
                    f"runner: workers of '{runtime.runner}' died in {LIVES} tries; if memory has run out, take fewer "
                    "--workers or a smaller learn.batch, then give the same command again."
                ) from error
            logger.warning("a worker of the search has died; it goes on with new ones")
        finally:
            resume()  # where a signal has interrupted the trials, all have ended by now
